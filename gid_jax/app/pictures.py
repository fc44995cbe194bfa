"""Pictures beside the video, and the photo beside the motion, without a drawing library."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from gid_jax.files import complete_or_nothing
from gid_jax.motion import visualize
from gid_jax.motion.measures import rms_swing
from gid_jax.types import SpectralVolume

_MARK = (255, 210, 31)
_GAP = 8  # pixels


def write_picture(path: Path, picture: UInt8[np.ndarray, "h w 3"], *, overwrite: bool) -> int:
  """Writes an RGB picture [h w 3] as PNG and returns its size in bytes.

  Raises:
    UserError: the file exists or cannot be written.
  """
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    Image.fromarray(picture).save(temporary, "PNG")
    return temporary.stat().st_size


def put_beside(
  rest: Float[np.ndarray, "h w 3"], frames: Iterable[UInt8[np.ndarray, "h w 3"]]
) -> Iterator[UInt8[np.ndarray, "h w2 3"]]:
  """Frames [h w 3] to the right of what is at rest, a photo [h w 3] in [0, 1] of any size."""
  left = None
  for frame in frames:
    if left is None:
      height, width = frame.shape[:2]
      left = cv2.resize(rest, (width, height), interpolation=cv2.INTER_AREA)
      left = np.uint8(np.clip(left, 0, 1) * 255 + 0.5)
    yield np.concatenate([left, frame], axis=1)


class Slice:
  """Gathers a row of pixels from every frame that passes: the liveliest of a motion.

  Attributes:
    rows: [w 3] of each frame.
  """

  def __init__(self, spectrum: SpectralVolume):
    """Finds the row that swings most along x."""
    coefficients = np.asarray(spectrum.coefficients, np.float32)[1:]
    swing = np.sqrt(np.square(coefficients[..., [0, 2]]).sum((0, -1)))
    # As a series of two times, a swing apart.
    series = np.stack([np.zeros_like(swing), swing])[..., None].repeat(2, -1)
    self._place = (visualize.find_liveliest_row(series) + 0.5) / len(swing)
    self._first: np.ndarray | None = None
    self.rows: list[np.ndarray] = []

  def watch(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Passes on frames [h w 3]."""
    for frame in frames:
      if self._first is None:
        self._first = frame
      self.rows.append(frame[int(self._place * len(frame))].copy())
      yield frame

  def draw(self) -> UInt8[np.ndarray, "h w 3"]:
    """The first frame with the row marked, and below it the row over time, downwards: [h w 3]."""
    assert self._first is not None
    photo, row = self._first.copy(), int(self._place * len(self._first))
    dashes = np.arange(photo.shape[1]) // 6 % 2 == 0
    photo[row, dashes], photo[row, ~dashes] = _MARK, (0, 0, 0)
    slice_xt = np.stack(self.rows)
    # Tall enough to be seen, and whole pixels for every moment.
    slice_xt = slice_xt.repeat(max(1, round(0.6 * len(photo) / len(slice_xt))), axis=0)
    gap = np.full((_GAP, photo.shape[1], 3), 255, np.uint8)
    return np.concatenate([photo, gap, slice_xt])


def draw_motion(
  image: Float[np.ndarray, "h w 3"], spectrum: SpectralVolume, *, size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """How far each place of a photo [h w 3] swings (rms, pixels of a video of `size` = (h, w)), over the photo in grey.

  Returns:
    [h2 w2 3] RGB, with a scale below.
  """
  height, width = size
  swing = rms_swing(spectrum, stride=width / spectrum.coefficients.shape[-2])
  swing = cv2.resize(swing, (width, height), interpolation=cv2.INTER_LINEAR)
  largest = visualize.round_up(max(float(np.quantile(swing, 0.995)), 0.01))
  level = np.clip(swing / largest, 0, 1)
  grey = cv2.resize(np.asarray(image, np.float32), (width, height), interpolation=cv2.INTER_AREA).mean(-1)
  color = _color(level)
  # Where little moves the photo shows, so that one sees what it is that moves.
  opacity = (0.25 + 0.6 * level)[..., None]
  picture = (1 - opacity) * 255 * np.clip(grey, 0, 1)[..., None] + opacity * color
  return np.concatenate([np.uint8(np.clip(picture, 0, 255) + 0.5), _draw_scale(width, largest)])


def _color(level: np.ndarray) -> np.ndarray:
  return cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)


def _draw_scale(width: int, largest: float) -> np.ndarray:
  bar, font = max(40, min(width // 3, 240)), ImageFont.load_default(14)
  texts = (f"0 to {largest:g} px, rms swing", f"0 to {largest:g} px", f"{largest:g} px")
  # Beside the bar, or below it where the picture is too narrow for that.
  places = [(left, top, text) for left, top in ((bar + 20, 9), (2, 26)) for text in texts]
  left, top, text = next((place for place in places if place[0] + font.getlength(place[2]) <= width), places[-1])
  strip = Image.new("RGB", (width, top + 25), "white")
  ramp = _color(np.linspace(0, 1, bar)[None].repeat(14, 0)).astype(np.uint8)
  strip.paste(Image.fromarray(ramp), (10, 10))
  ImageDraw.Draw(strip).text((left, top), text, fill="black", font=font)
  return np.asarray(strip)
