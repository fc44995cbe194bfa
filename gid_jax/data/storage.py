"""How a training window is stored: about four times smaller than plain arrays and quick to decode, band by band.

A spectrum is stored band by band in 8 bits: q = round(127 sign(S) sqrt(|S| / m)), with m the band's largest value in
this window, as a lossless grey picture of its four channels. The steps grow as the square root of the value, as those
of the normalisation (section 4.1) do, so the error is even where the networks look; 0 stays exactly 0. Flows and depth
are rounded to 1/32 px and stored likewise in 16 bits. Image and frames are stored without loss.

Measured on 12 windows of filmed clips, 16 bands on a grid of 80 x 128 (`benchmarks/storage.py --clips FOLDER`),
against float16; trajectories in pixels of the grid, coefficients as the networks see them (within about -1 ... 1):

  spectrum                      kB   trajectories: rms  99.9 %   normalised: rms  99.9 %   ms
  float16                      1311                                                       2.4
  float16, zlib                1080                                                      12.9
  even steps s/200, zlib        485             0.0030  0.0093            0.0127  0.0497  17.3
  even steps s/50, zlib         336             0.0119  0.0367            0.0351  0.0997  14.1
  root steps, 10 bits, zlib     663             0.0023  0.0182            0.0009  0.0031  17.4
  root steps, 8 bits, zlib      535             0.0091  0.0720            0.0035  0.0123  16.9
  root steps, 8 bits, WebP      370             0.0091  0.0720            0.0035  0.0123  14.2

The last was chosen. Its 0.009 px lie far below the error of optical flow, and its 0.004 far below what the paper's
auto-encoder loses (0.018); even steps of the same size err four to ten times more in what the networks see; two more
bits make it 1.8 times as large. A flow takes 35 kB instead of 164 (0.009 px rms, 1/64 at most), a frame 47 instead of
123 (JPEG at quality 95 would take 24 and err by 1.9 levels); a whole window takes 920 kB instead of 3.2 MB, 750 to 900
in the mean of the data set that the embedded weights were trained on. A stage decodes only what it needs: one band in
0.5 ms, all bands with the image in 8, a pair of frames with flow and depth in 2.6.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gid_jax.errors import UserError
from gid_jax.types import Window

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

DATASET_NAME, DATASET_VERSION = "gid_windows", "1.0.0"
_LEVELS = 127  # of each sign, in 8 bits
_STEP = 1 / 32  # px, of flows and depth
_MIDDLE = 1 << 15
_LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]
_LONGEST_SIDE = 16383  # of a WebP picture


def make_features() -> "tfds.features.FeaturesDict":
  """Describes a stored window to TensorFlow Datasets.

  Returns:
    Features "image", "depth" (bytes), "spectrum" (one bytes per band), "frames" and "flows" (one bytes per pair),
    "scene" and "source" (text). `len(example["spectrum"])` is K and `len(example["frames"])` the number of pairs.
  """
  import tensorflow_datasets as tfds

  single = lambda: tfds.features.Tensor(shape=(), dtype=np.object_)
  several = lambda: tfds.features.Sequence(single())
  return tfds.features.FeaturesDict({
    "image": single(),
    "spectrum": several(),
    "frames": several(),
    "flows": several(),
    "depth": single(),
    "scene": tfds.features.Text(),
    "source": tfds.features.Text(),
  })


def list_sources(directory: str | Path) -> list[str]:
  """Names the sources of a data set ("loop", "real", "synthetic"), sorted.

  Args:
    directory: the folder that holds `gid_windows/SOURCE/1.0.0`.

  Raises:
    UserError: it holds none.
  """
  found = Path(directory).glob(f"{DATASET_NAME}/*/{DATASET_VERSION}/dataset_info.json")
  sources = sorted(path.parents[1].name for path in found)
  if not sources:
    raise UserError(f"No data set in {directory}: build one there with `python -m data_pipeline.builder`.")
  return sources


def open_split(directory: str | Path, source: str, split: str) -> Sequence[Mapping[str, Any]]:
  """Opens the stored windows of one source for random access; an empty sequence where it has no such split.

  Args:
    directory: the folder that holds `gid_windows/SOURCE/1.0.0`.
    source: one of `list_sources`.
    split: "train" or "validation".

  Returns:
    Examples for `example_to_window`; only the record asked for is read.

  Raises:
    UserError: there is no such source, or its files are damaged.
  """
  import tensorflow_datasets as tfds

  folder = Path(directory) / DATASET_NAME / source / DATASET_VERSION
  if not folder.is_dir():
    raise UserError(f"No windows of source {source!r} in {directory}: build them, or take {list_sources(directory)}.")
  try:
    builder: Any = tfds.builder_from_directory(str(folder))
    return builder.as_data_source(split) if split in builder.info.splits else []
  except Exception as error:  # Whatever the library makes of damaged files.
    raise UserError(f"{folder}: not a readable data set ({type(error).__name__}); build it again.") from error


def _pack(pixels: np.ndarray) -> bytes:
  if max(pixels.shape[:2]) > _LONGEST_SIDE:
    raise UserError(f"{pixels.shape[1]}x{pixels.shape[0]} px is too large to store; make smaller windows.")
  return cv2.imencode(".webp", pixels, _LOSSLESS)[1].tobytes()


def _unpack(data: bytes) -> np.ndarray:
  pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
  if pixels is None:
    raise ValueError("a picture in it cannot be decoded")
  return pixels


def encode_image(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
  """Stores [h w 3] uint8 RGB without loss."""
  return _pack(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def decode_image(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
  """Inverse of `encode_image`: [h w 3] uint8 RGB."""
  return cv2.cvtColor(_unpack(data), cv2.COLOR_BGR2RGB)


def encode_band(band: Float[np.ndarray, "h w c"]) -> bytes:
  """Stores one band [h w c] of a spectrum in 8 bits, steps growing as the square root of the value as in section 4.1.

  Raises:
    UserError: a value is not finite, or c * h or w is over 16383.
  """
  roots = np.sign(band) * np.sqrt(np.abs(band, dtype=np.float32))
  largest = float(np.abs(roots).max(initial=0))
  if not np.isfinite(largest):
    raise UserError("The spectrum of a window holds values that are not finite.")
  levels = np.rint(roots * (_LEVELS / largest if largest else 0)).astype(np.int16) + 128
  planes = levels.astype(np.uint8).transpose(2, 0, 1).reshape(-1, band.shape[1])
  return struct.pack("<fB", largest, band.shape[2]) + _pack(planes)


def decode_band(data: bytes) -> Float[np.ndarray, "h w c"]:
  """Inverse of `encode_band`: [h w c] float32."""
  largest, num_planes = struct.unpack_from("<fB", data)
  roots = (np.arange(256, dtype=np.float32) - 128) * np.float32(largest / _LEVELS)
  planes = cv2.LUT(cv2.extractChannel(_unpack(data[5:]), 0), roots * np.abs(roots))
  return cv2.merge(np.split(planes, num_planes))


def encode_flow(flow: Float[np.ndarray, "h w c"]) -> bytes:
  """Stores displacements [h w c] px to the nearest 1/32 px.

  Raises:
    UserError: a displacement is 1023 px or more or not finite, or c * h or w is over 16383.
  """
  steps = np.rint(flow.astype(np.float32) / _STEP).transpose(2, 0, 1).reshape(-1, flow.shape[1])
  if not (np.abs(steps) < _MIDDLE).all():
    raise UserError(f"A displacement in a window is not finite or over {_MIDDLE * _STEP - 1:.0f} px.")
  code = steps.astype(np.int32) + _MIDDLE
  high, low = (code >> 8).astype(np.uint8), code.astype(np.uint8)
  return struct.pack("<B", flow.shape[2]) + _pack(cv2.merge([np.zeros_like(low), low, high]))


def decode_flow(data: bytes) -> Float[np.ndarray, "h w c"]:
  """Inverse of `encode_flow`: [h w c] float32 px."""
  pixels = _unpack(data[1:])
  # low + 256 high - middle, times the step, in one pass.
  weights = np.array([[0, _STEP, 256 * _STEP, -_MIDDLE * _STEP]], np.float32)
  planes = cv2.transform(pixels.astype(np.float32), weights)
  return np.stack(np.split(planes, data[0]), -1)


def window_to_example(window: Window) -> dict[str, Any]:
  """Encodes a window for `make_features`; see the head of this file for what is lost.

  Raises:
    UserError: values that are not finite, a displacement of 1023 px or more, or sides too long to store.
  """
  return {
    "image": encode_image(window.image),
    "spectrum": [encode_band(band) for band in window.spectrum],
    "frames": [encode_image(frame) for frame in window.frames],
    "flows": [encode_flow(flow) for flow in window.flows],
    "depth": encode_flow(window.depth[..., None]),
    "scene": window.scene,
    "source": window.source,
  }


def example_to_window(
  example: Mapping[str, Any],
  *,
  fields: Sequence[str] = Window._fields,
  bands: Sequence[int] | None = None,
  pairs: Sequence[int] | None = None,
) -> Window:
  """Decodes a stored window, or only what is needed of it.

  Args:
    example: as `window_to_example` makes it or TensorFlow Datasets reads it.
    fields: names of the Window's arrays to decode; the others come back empty, with shape (0,).
    bands: bands of the spectrum to decode, in this order; all by default.
    pairs: which of the later frames to decode, in this order; all by default.

  Returns:
    The window; spectrum [len(bands) hm wm 4], flows and depth are float32.

  Raises:
    UserError: the record is damaged, or has not so many bands or pairs.
  """

  def decode_all(name, decode, chosen):
    if name not in fields:
      return np.zeros(0, np.float32)
    stored = example[name]
    return np.stack([decode(stored[i]) for i in (range(len(stored)) if chosen is None else chosen)])

  text = lambda value: value.decode() if isinstance(value, bytes) else str(value)
  try:
    return Window(
      image=decode_image(example["image"]) if "image" in fields else np.zeros(0, np.uint8),
      spectrum=decode_all("spectrum", decode_band, bands),
      frames=decode_all("frames", decode_image, pairs),
      flows=decode_all("flows", decode_flow, pairs),
      depth=decode_flow(example["depth"])[..., 0] if "depth" in fields else np.zeros(0, np.float32),
      scene=text(example["scene"]),
      source=text(example["source"]),
    )
  except (KeyError, IndexError, ValueError, struct.error) as error:
    raise UserError(f"A stored window is damaged ({error}): build the data set again.") from error
