"""One window or scene -> one example of a training stage, augmented; only what the stage needs is decoded, or made."""

import numpy as np

from gid_jax.configuration import DataSettings
from gid_jax.data.augmentation import (
  Augmentation,
  Matrix,
  centre_matrix,
  draw_matrix,
  jitter_colours,
  measure_enlargement,
  move_in_time,
  warp_motion,
  warp_window,
)
from gid_jax.data.holes import draw_hole
from gid_jax.data.records import Sample, open_chosen
from gid_jax.errors import UserError
from gid_jax.motion.normalization import WEAKEST
from gid_jax.types import Batch, Window


class Strengths:
  """How strongly windows move; each is measured once, as that takes longer than all the rest of an example."""

  def __init__(self, num_bands: int):
    """Knows none yet; `num_bands` is K."""
    self._num_bands, self._known = num_bands, {}

  def __call__(self, record: Sample) -> np.ndarray:
    """The strength [] float32 of a window, by its number; see `measure_strength`."""
    known = self._known.get(record.number)
    if known is None:
      known = self._known[record.number] = measure_strength(record, num_bands=self._num_bands)
    return known


def make_example(
  rng: np.random.Generator,
  record: Sample,
  *,
  config: DataSettings,
  stage: str,
  ranges: Augmentation | None,
  strengths: Strengths,
) -> Batch:
  """Turns one window or scene into one example of a stage; see `make_train_iterator` for the arrays.

  Without `ranges` nothing is augmented and the crop is central.

  Raises:
    UserError: the window is damaged, smaller than the crop, has fewer bands than `config.num_bands` or no frames.
  """
  if stage == "renderer":
    if not record.num_pairs:
      raise UserError(f"{record.place} has no later frames to render; build again with --num_pairs 6")
    pair = int(rng.integers(record.num_pairs))
    window = record.decode(fields=("image", "frames", "flows", "depth"), pairs=[pair])
    size = window.image.shape[:2]
    window = warp_window(window, _choose_matrix(rng, size, config, ranges, record), size=config.crop or size)
    image, target = jitter_colours(rng, [window.image, window.frames[0]], jitter=ranges.jitter if ranges else 0.0)
    return {"image": image, "target": target, "flow": window.flows[0], "depth": window.depth}
  if stage == "plate":
    window = record.decode(fields=("image", "depth"))
    size = window.image.shape[:2]
    window = warp_window(window, _choose_matrix(rng, size, config, ranges, record), size=config.crop or size)
    (image,) = jitter_colours(rng, [window.image], jitter=ranges.jitter if ranges else 0.0)
    return {"image": image, "hole": draw_hole(rng, window.depth)}
  _check_bands(record, config)
  bands = choose_bands(rng, config, stage)
  if stage == "vae":
    # The auto-encoder sees no photo, so none is decoded for it.
    window, matrix, crop = _decode_and_draw(rng, record, bands, ("spectrum",), config, ranges)
    return {"slice": warp_motion(window.spectrum, matrix, size=crop, stride=config.motion_stride)[0], "band": bands[0]}
  window, enlargement = draw_window(rng, record, bands, config=config, ranges=ranges)
  (image,) = jitter_colours(rng, [window.image], jitter=ranges.jitter if ranges else 0.0)
  example: Batch = {"image": image, "slice": window.spectrum, "band": bands}
  if config.strength:
    # A window that is brought nearer moves by more pixels, all of it.
    example["strength"] = np.float32(strengths(record) * enlargement)
  return example


def measure_strength(record: Sample, *, num_bands: int) -> np.ndarray:
  """How strongly a whole window moves, [] float32: the 95th percentile of its places' coefficients, band 0 aside.

  A place's coefficients count by the root of the sum of their squares, in pixels of the motion grid times frames: some
  100 for a swing of one pixel over 150 frames. Windows weaker than 0.15 px count as 0.15 px, or noise would grow large.
  """
  bands = np.arange(1, num_bands)
  spectrum = record.decode(fields=("spectrum",), bands=bands).spectrum.astype(np.float32)
  lengths = np.sqrt(np.square(spectrum).sum((0, -1)))
  return np.asarray(max(np.percentile(lengths, 95), WEAKEST), np.float32)


def find_strength(config: DataSettings) -> np.ndarray:
  """How strongly scenes move when they do, [1] float32: the median of the medians of their windows.

  Of scenes, not of windows, as a calm pot may have been filmed ten times. Scenes of the least strength, in which
  nothing moves, do not count.

  Args:
    config: the `data` part of a config.

  Raises:
    UserError: there are no stored windows, or they are damaged.
  """
  if not config.directory:
    raise UserError("the codec needs stored windows to take the strength from; give a --config.data.directory")
  strengths: dict[str, list[float]] = {}
  for chain in open_chosen(config, split="train").values():
    for index in range(len(chain)):
      scene = chain[index].decode(fields=(), bands=[]).scene
      strengths.setdefault(scene, []).append(float(measure_strength(chain[index], num_bands=config.num_bands)))
  if not strengths:
    raise UserError("the codec needs stored windows to take the strength from; give a share to others of "
                    "config.data.sources than live")  # fmt: skip
  medians = np.array([np.median(values) for values in strengths.values()])
  moving = medians[medians > WEAKEST]
  return np.array([np.median(moving) if len(moving) else WEAKEST], np.float32)


def draw_window(
  rng: np.random.Generator, record: Sample, bands: np.ndarray, *, config: DataSettings, ranges: Augmentation | None
) -> tuple[Window, float]:
  """The photo [h w 3] uint8 and the given bands [n hm wm 4] of one window, randomly moved and cut; colours untouched.

  Returns:
    The window, and the factor by which it is enlarged.

  Raises:
    UserError: see `make_example`.
  """
  _check_bands(record, config)
  window, matrix, crop = _decode_and_draw(rng, record, bands, ("image", "spectrum"), config, ranges)
  return warp_window(window, matrix, size=crop), measure_enlargement(matrix)


def choose_bands(rng: np.random.Generator, config: DataSettings, stage: str) -> np.ndarray:
  """Draws the bands [n] int32 of an example; all of them come in order."""
  bands = np.arange(config.num_bands, dtype=np.int32)
  num_drawn = {"vae": 1, "ldm": config.bands_per_example, "ldm_coordinated": config.num_bands}[stage]
  return rng.choice(bands, num_drawn, replace=False) if num_drawn < config.num_bands else bands


def _check_bands(record: Sample, config: DataSettings) -> None:
  if record.num_bands < config.num_bands:
    raise UserError(
      f"{record.place} has {record.num_bands} bands but config.data.num_bands={config.num_bands}; lower it"
    )


def _decode_and_draw(
  rng: np.random.Generator, record: Sample, bands: np.ndarray, fields: tuple[str, ...], config: DataSettings,
  ranges: Augmentation | None,
) -> tuple[Window, Matrix, tuple[int, int]]:
  """The window, from some moment on, the matrix that moves it, and the (h, w) of what is cut out."""
  window = record.decode(fields=fields, bands=bands)
  if ranges and (ranges.shift or ranges.reverse):
    shift, backwards = ranges.shift * rng.random(), rng.random() < ranges.reverse
    window = window._replace(spectrum=move_in_time(window.spectrum, bands, shift=shift, backwards=backwards))
  size = (window.spectrum.shape[1] * config.motion_stride, window.spectrum.shape[2] * config.motion_stride)
  return window, _choose_matrix(rng, size, config, ranges, record), config.crop or size


def _choose_matrix(
  rng: np.random.Generator, size: tuple[int, int], config: DataSettings, ranges: Augmentation | None, record: Sample
) -> Matrix:
  crop = config.crop or size
  if crop[0] > size[0] or crop[1] > size[1]:
    raise UserError(f"{record.place} is {size[0]}x{size[1]} but config.data.crop={crop}; lower the crop")
  return draw_matrix(rng, size, crop=crop, ranges=ranges) if ranges else centre_matrix(size, crop=crop)
