"""Windows on disk -> augmented batches; the only file that imports Grain.

A data folder holds `train/*.safetensors`, `validation/*.safetensors` (one `types.Window` each) and
`statistics.json`. File names start with their source: `real-…`, `loop-…`, `synthetic-…`.

Geometry. A transform is a 2 x 3 matrix from output to source position, in pixels of the photo measured from
its upper left *corner* (pixel x covers x to x + 1), where the photo and its half-size motion grid agree: one
matrix moves both. A displacement d becomes A^-1 d, with A the matrix's 2 x 2 part: moving a field without
turning and scaling its vectors would teach wrong motion.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import grain
import numpy as np
import safetensors

from gid_jax.errors import UserError
from gid_jax.types import Window

Batch = dict[str, np.ndarray]
STAGES = ("vae", "ldm", "ldm_coordinated", "renderer")

# Ranges of the random augmentation (supplement, training details; it names the kinds and the +-5 degrees).
_MAX_ZOOM = 1.5
_MAX_DEGREES = 5.0
_JITTER = 0.2

_MOTION_FIELDS = ("image", "spectrum")
_RENDERER_FIELDS = ("image", "frames", "flows", "depth")


def read_window(path: str | Path, *, fields: Sequence[str] = Window._fields) -> Window:
  """Reads one training window; arrays not named in `fields` are left unread and come back empty.

  Raises:
    UserError: the file is missing, damaged or lacks a field.
  """
  try:
    with safetensors.safe_open(str(path), framework="numpy") as file:
      arrays = [file.get_tensor(name) if name in fields else np.zeros(0, np.float16) for name in Window._fields[:-2]]
      text = file.metadata()
      return Window(*arrays, scene=text["scene"], source=text["source"])
  except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
    raise UserError(f"{path}: not a readable training window ({error}); build the data again") from error



def read_scale(directory: str | Path, *, num_bands: int) -> np.ndarray:
  """Reads the per-band normalisation scale [k] float32, px, from `statistics.json` (section 4.1).

  Raises:
    UserError: the file is missing, damaged or has fewer than `num_bands` bands.
  """
  path = Path(directory) / "statistics.json"
  try:
    scale = np.asarray(json.loads(path.read_text())["scale"], np.float32)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path}: no readable scale ({error}); compute the statistics again") from error
  if scale.ndim != 1 or scale.size < num_bands:
    raise UserError(f"{path}: has {scale.size} bands but num_bands={num_bands}; lower it or rebuild the data")
  return scale[:num_bands]


def list_windows(directories: str | Path | Sequence[str | Path], split: str) -> list[Path]:
  """Lists the window files of a split ("train" or "validation") in one or more data folders, by file name.

  Raises:
    UserError: a folder has no windows.
  """
  if isinstance(directories, str | Path):
    directories = [directories]
  files = []
  for folder in (Path(directory) / split for directory in directories):
    found = list(folder.glob("*.safetensors"))
    if not found:
      raise UserError(f"{folder}: no *.safetensors windows; set config.data.directory to built data")
    files += found
  return sorted(files, key=lambda file: (file.name, str(file)))


class WindowSource(grain.sources.RandomAccessDataSource):
  """Random access to window files, reading only the fields a stage needs."""

  def __init__(self, files: Sequence[Path], *, fields: Sequence[str] = Window._fields):
    self._files = tuple(files)
    self._fields = tuple(fields)

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, record_key: SupportsIndex) -> Window:
    return read_window(self._files[record_key], fields=self._fields)


def warp_window(window: Window, matrix: np.ndarray, *, size: tuple[int, int] | None = None) -> Window:
  """Applies one similarity transform to photo, frames and every motion field of a window.

  Args:
    window: spectrum, frames and flows may be empty.
    matrix: [2 3] output -> source position, photo pixels from the corner; see the head of this file.
    size: (h, w) of the output photo in pixels; the input's when None.

  Returns:
    The transformed window; motion arrays are float32. Places outside the source repeat its edge.
  """
  height, width = window.image.shape[:2]
  size = size or (height, width)
  inverse = np.linalg.inv(matrix[:, :2])
  spectrum, flows = window.spectrum, window.flows
  if spectrum.size:
    # The grid's pixels are `ratio` photo pixels wide and high: conjugate the transform with that scaling.
    ratio = np.array([width / spectrum.shape[2], height / spectrum.shape[1]])
    grid_size = (round(size[0] / ratio[1]), round(size[1] / ratio[0]))
    grid_matrix = matrix * np.concatenate([ratio, [1]]) / ratio[:, None]
    linear = inverse * ratio / ratio[:, None]
    spectrum = np.stack([_warp_vectors(band, grid_matrix, grid_size, linear) for band in spectrum])
  if flows.size:
    flows = np.stack([_warp_vectors(flow, matrix, size, inverse) for flow in flows])
  depth, frames = window.depth, window.frames
  if depth.size:
    depth = _warp(depth.astype(np.float32), matrix, size) * np.float32(np.sqrt(abs(np.linalg.det(inverse))))
  if frames.size:
    frames = np.stack([_warp(frame, matrix, size) for frame in frames])
  image = _warp(window.image, matrix, size)
  return window._replace(image=image, spectrum=spectrum, frames=frames, flows=flows, depth=depth)


def _warp(array: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  # From corners to the pixel centres OpenCV counts from: x_centre = x_corner - 1/2.
  centred = matrix.copy()
  centred[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  return cv2.warpAffine(array, centred, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _warp_vectors(
  field: np.ndarray, matrix: np.ndarray, size: tuple[int, int], linear: np.ndarray
) -> np.ndarray:
  """Warps [h w 2n] vectors and multiplies each by the [2 2] `linear`; real and imaginary parts are two such."""
  vectors = np.kron(np.eye(field.shape[-1] // 2), linear)
  return cv2.transform(_warp(field.astype(np.float32), matrix, size), vectors)


def flip_matrix(width: int) -> np.ndarray:
  """The [2 3] matrix of a horizontal mirror of a photo `width` pixels wide."""
  return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def zoom_matrix(zoom: float, offset: tuple[float, float]) -> np.ndarray:
  """The [2 3] matrix that enlarges by `zoom` and starts the output at source position `offset` (x, y)."""
  return np.array([[1 / zoom, 0.0, offset[0]], [0.0, 1 / zoom, offset[1]]])


def rotation_matrix(degrees: float, size: tuple[int, int]) -> np.ndarray:
  """The [2 3] matrix that turns a photo of `size` (h, w) about its centre, from +x towards +y.

  It also enlarges by the least zoom that keeps the photo's outside out of the picture.
  """
  height, width = size
  cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  zoom = cos + abs(sin) * max(width / height, height / width)
  linear = np.array([[cos, sin], [-sin, cos]]) / zoom  # the inverse turn: output -> source
  centre = np.array([width / 2, height / 2])
  return np.concatenate([linear, (centre - linear @ centre)[:, None]], axis=1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
  """The [2 3] matrix of doing `outer` to the result of `inner`: one interpolation instead of two."""
  return np.concatenate([inner[:, :2] @ outer[:, :2], inner[:, :2] @ outer[:, 2:] + inner[:, 2:]], axis=1)


def flip_window(window: Window) -> Window:
  """Mirrors a window left to right; the x components of all motion change sign."""
  return warp_window(window, flip_matrix(window.image.shape[1]))


def zoom_crop(
  window: Window, *, zoom: float, offset: tuple[float, float], size: tuple[int, int] | None = None
) -> Window:
  """Enlarges by `zoom` and cuts `size` (h, w) pixels from source position `offset` (x, y)."""
  return warp_window(window, zoom_matrix(zoom, offset), size=size)


def rotate(window: Window, *, degrees: float) -> Window:
  """Turns a window and its vectors about the centre, enlarged just enough to hide the photo's outside."""
  return warp_window(window, rotation_matrix(degrees, window.image.shape[:2]))


def jitter_colours(rng: np.random.Generator, images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Changes gamma, brightness, contrast and saturation of [h w 3] images in [0, 1], all alike."""
  gamma, brightness, contrast, saturation = np.float32(rng.uniform(1 - _JITTER, 1 + _JITTER, 4))
  luma = np.array([0.299, 0.587, 0.114], np.float32)
  # One mean for all, so that a pair of frames stays photometrically consistent.
  mean = np.float32((images[0] ** gamma * brightness).mean())
  # Brightness, contrast about the mean, then saturation about the luma: one affine map of (r, g, b).
  saturate = saturation * np.eye(3) + (1 - saturation) * luma
  colours = np.concatenate([saturate * contrast * brightness, np.full((3, 1), mean * (1 - contrast))], axis=1)
  return [np.clip(cv2.transform(image**gamma, colours), 0, 1) for image in images]


def _draw_matrix(
  rng: np.random.Generator, size: tuple[int, int], crop: tuple[int, int], augment: bool
) -> np.ndarray:
  """Draws flip, rotation, zoom and crop position; a random crop without the rest when not `augment`."""
  height, width = size
  matrix, zoom = np.eye(2, 3), 1.0
  if augment:
    if rng.random() < 0.5:
      matrix = flip_matrix(width)
    matrix = compose(rotation_matrix(rng.uniform(-_MAX_DEGREES, _MAX_DEGREES), size), matrix)
    zoom = rng.uniform(1.0, _MAX_ZOOM)
  free = np.array([width - crop[1] / zoom, height - crop[0] / zoom])
  offset = rng.uniform(0, 1, 2) * free
  if not augment:
    # Whole pixel pairs: a plain crop then copies photo and half-size grid without interpolation.
    offset = offset // 2 * 2
  return compose(zoom_matrix(zoom, tuple(offset)), matrix)


def make_example(
  window: Window, rng: np.random.Generator, *, config: Any, stage: str, training: bool = True
) -> Batch:
  """Turns one window into one training example of a stage; see `make_train_iterator` for the arrays.

  With `training=False` nothing is augmented and the crop is central; only bands and frames are drawn.

  Raises:
    UserError: the window is smaller than the crop or has fewer bands than `config.num_bands`.
  """
  size = window.image.shape[:2]
  crop = tuple(config.crop) if config.crop else size
  if crop[0] > size[0] or crop[1] > size[1]:
    raise UserError(f"a window of {window.scene!r} is {size} but config.data.crop is {crop}; lower the crop")
  bands = np.arange(config.num_bands, dtype=np.int32)
  if stage == "renderer":
    pair = int(rng.integers(len(window.frames)))
    window = window._replace(frames=window.frames[pair : pair + 1], flows=window.flows[pair : pair + 1])
  else:
    num_bands = config.num_bands
    if len(window.spectrum) < num_bands:
      available = f"a window of {window.scene!r} has {len(window.spectrum)} bands"
      raise UserError(f"{available} but config.data.num_bands={num_bands}; lower it")
    num_drawn = {"vae": 1, "ldm": config.bands_per_example, "ldm_coordinated": num_bands}[stage]
    if num_drawn < num_bands:
      bands = rng.choice(bands, num_drawn, replace=False)
    window = window._replace(spectrum=window.spectrum[bands])
  if training:
    matrix = _draw_matrix(rng, size, crop, config.augment)
  else:
    matrix = zoom_matrix(1.0, ((size[1] - crop[1]) // 4 * 2, (size[0] - crop[0]) // 4 * 2))
  window = warp_window(window, matrix, size=crop)
  if stage == "vae":
    return {"slice": window.spectrum[0], "band": bands[0]}
  images = [image.astype(np.float32) / 255 for image in (window.image, *window.frames)]
  if training and config.augment:
    images = jitter_colours(rng, images)
  if stage == "renderer":
    return {"image": images[0], "target": images[1], "flow": window.flows[0], "depth": window.depth}
  return {"image": images[0], "slice": window.spectrum, "band": bands}


def _mix_sources(files: Sequence[Path], weights: Mapping[str, float], fields: Sequence[str], seed: int):
  """Endless shuffled windows; with weights, sources are shuffled and repeated one by one and then mixed."""
  if not weights:
    return grain.MapDataset.source(WindowSource(files, fields=fields)).shuffle(seed).repeat()
  parents, proportions = [], []
  for index, (name, weight) in enumerate(sorted(weights.items())):
    if weight <= 0:
      continue
    own = [file for file in files if file.name.split("-", 1)[0] == name]
    if not own:
      raise UserError(f"no {name}-*.safetensors in train/; build some or give --config.data.sources.{name}=0")
    source = grain.MapDataset.source(WindowSource(own, fields=fields))
    parents.append(source.shuffle(seed + index).repeat())
    proportions.append(float(weight))
  if not parents:
    raise UserError("config.data.sources: all weights are 0; give at least one source a positive weight")
  return grain.MapDataset.mix(parents, proportions)


def _make_batches(dataset, config, stage, training, seed, batch_size, process_index, process_count):
  if batch_size % process_count:
    raise UserError(
      f"batch size {batch_size} does not divide over {process_count} processes; choose a multiple of it"
    )
  example = lambda window, rng: make_example(window, rng, config=config, stage=stage, training=training)
  # The batch is formed before threading, so the iterator's whole state is the number of batches read, exact
  # even when the run resumes with another number of processes.
  dataset = dataset.seed(seed).random_map(example)[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count, drop_remainder=True)
  options = grain.ReadOptions(config.num_threads, prefetch_buffer_size=max(config.num_threads, 2))
  return iter(dataset.to_iter_dataset(options))


def _check_stage(config: Any, stage: str) -> Sequence[str]:
  if stage not in STAGES:
    raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(STAGES)}")
  if stage == "ldm" and not 1 <= config.bands_per_example <= config.num_bands:
    raise UserError(
      f"config.data.bands_per_example={config.bands_per_example}; choose 1 to num_bands={config.num_bands}"
    )
  if config.crop and (config.crop[0] % 2 or config.crop[1] % 2):
    raise UserError(f"config.data.crop={tuple(config.crop)}; choose even sides, the motion grid has half")
  return _RENDERER_FIELDS if stage == "renderer" else _MOTION_FIELDS


def make_train_iterator(
  config: Any, *, stage: str, seed: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator:
  """Makes the endless, shuffled, augmented iterator of a training stage (supplement, training details).

  Args:
    config: the `data` part of a config: directory, num_bands K, sources (name -> weight; empty: all
      files alike), augment, bands_per_example n, crop (h, w) or None for whole windows, num_threads.
    stage: "vae" gives `slice` [b hm wm 4] and `band` [b]; "ldm" `image` [b h w 3], `slice` [b n hm wm 4] and
      `band` [b n] of n distinct bands; "ldm_coordinated" the same with all K bands in order; "renderer"
      `image` and `target` [b h w 3], `flow` [b h w 2] and `depth` [b h w]. All float32 but `band`, int32.
      Images in [0, 1]; slices unnormalised, pixels of the motion grid; flow and depth in pixels.
    seed: of order and augmentation.
    batch_size: over all processes; this process gets its share of every batch.

  Returns:
    A Grain iterator; `get_state` / `set_state` resume it exactly.

  Raises:
    UserError: the data or the settings do not fit.
  """
  fields = _check_stage(config, stage)
  dataset = _mix_sources(list_windows(config.directory, "train"), dict(config.sources), fields, seed)
  return _make_batches(dataset, config, stage, True, seed, batch_size, process_index, process_count)


def make_eval_batches(
  config: Any, *, stage: str, batch_size: int, num_batches: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
  """Gives the same validation batches at every call: no augmentation, central crop, fixed bands and frames.

  Batches are full (windows repeat to fill the last one) and there are at most as many as the windows need.
  Arrays, arguments and errors are those of `make_train_iterator`.
  """
  fields = _check_stage(config, stage)
  files = list_windows(config.directory, "validation")
  # Shuffled once, so that a few batches see many scenes.
  dataset = grain.MapDataset.source(WindowSource(files, fields=fields)).shuffle(0).repeat()
  batches = _make_batches(dataset, config, stage, False, 0, batch_size, process_index, process_count)
  return itertools.islice(batches, min(num_batches, -(-len(files) // batch_size)))
