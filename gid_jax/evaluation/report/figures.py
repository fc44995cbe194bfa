"""Pictures for a report, as PNG files that are transparent between the panels, for a light page and a dark one."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from gid_jax.motion.visualize import round_up, slice_xt, spectrum_to_heatmaps
from gid_jax.types import SpectralVolume

# A grey that is readable on white and on near-black.
_INK = (128, 128, 128)
_TEXT_SIZE, _LABEL, _GAP = 15, 24, 12
_SLICE_WIDTH, _SLICE_HEIGHT, _MAP_WIDTH, _MAPS_IN_A_ROW = 640, 96, 240, 4


def draw_slices(clips: Mapping[str, UInt8[np.ndarray, "t h w 3"]], *, row: int) -> bytes:
  """X-t slices of named clips above each other: x to the right, time downwards.

  Args:
    clips: name -> [t h w 3] uint8 RGB frames; of one width where positions are to be compared.
    row: which row of the frames; where motion is liveliest, most is seen (`visualize.find_liveliest_row`).

  Returns:
    A PNG file. Columns and rows of a slice are only repeated, each a whole number of times, never blended.

  Raises:
    IndexError: a clip has no such row.
  """
  panels = []
  for name, frames in clips.items():
    piece = slice_xt(frames, row)
    across, down = -(-_SLICE_WIDTH // piece.shape[1]), -(-_SLICE_HEIGHT // piece.shape[0])
    panels.append((name, piece.repeat(across, 1).repeat(down, 0)))
  return _stack([_label(name, panel) for name, panel in panels], num_columns=1)


def draw_amplitudes(volumes: Mapping[str, SpectralVolume]) -> bytes:
  """Amplitude heat-maps of named volumes beside each other on one scale: how far each pixel swings, root mean square.

  By Parseval's theorem the variance of a pixel's motion is half the sum of the squared amplitudes of its bands; band
  0, where the pixel rests, is no motion and left out. The scale ends at the 99.5 % quantile of the first volume, the
  real one, so that what is too strong looks so; of all volumes where the first is still.

  Args:
    volumes: name -> volume of coefficients [k h w 4], each in pixels of its own grid; maps are shown in the first
      one's size.

  Returns:
    A PNG file with a scale of colours in pixels below; values that are not finite are grey.
  """
  maps = {name: _measure_swing(volume) for name, volume in volumes.items()}
  sizes = [values.shape for values in maps.values()]
  everything = np.concatenate([values.ravel() for values in maps.values()])
  quantiles = (float(np.quantile(kept, 0.995)) if (kept := values[np.isfinite(values)]).size else 0.0
               for values in (next(iter(maps.values())), everything))
  largest = round_up(next((value for value in quantiles if value > 0), 1.0))
  scale = -(-_MAP_WIDTH // sizes[0][1])
  size = (sizes[0][1] * scale, sizes[0][0] * scale)
  panels = [
    _label(name, cv2.resize(_heat_to_colors(values, largest), size, interpolation=cv2.INTER_NEAREST))
    for name, values in maps.items()
  ]
  ramp = np.tile(np.linspace(0, largest, size[0], dtype=np.float32), (12, 1))
  panels.append(_label(f"0 to {largest:g} px, root mean square", _heat_to_colors(ramp, largest)))
  return _stack(panels, num_columns=min(_MAPS_IN_A_ROW, len(maps)))


def _measure_swing(volume: SpectralVolume) -> Float[np.ndarray, "h w"]:
  return np.sqrt((spectrum_to_heatmaps(volume)[1:] ** 2).sum(0) / 2)


def _heat_to_colors(values: Float[np.ndarray, "h w"], largest: float) -> UInt8[np.ndarray, "h w 3"]:
  known = np.isfinite(values)
  levels = (255 * np.clip(np.where(known, values, 0) / largest, 0, 1) + 0.5).astype(np.uint8)
  colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
  return np.where(known[..., None], colors, np.uint8(128))


def _label(name: str, panel: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w 4"]:
  """The panel with its name above it; opaque only where it or the letters are."""
  height, width = panel.shape[:2]
  # Only the letters' coverage is drawn, as opacity.
  letters = Image.new("L", (width, _LABEL))
  font = ImageFont.load_default(_TEXT_SIZE)
  texts = (name, *(name[:length].rstrip() + "…" for length in range(len(name) - 1, -1, -1)))
  fitting = next(text for text in texts if font.getlength(text) <= width)
  ImageDraw.Draw(letters).text((0, 1), fitting, fill=255, font=font)
  head = np.dstack([np.full((_LABEL, width, 3), _INK, np.uint8), np.asarray(letters)])
  return np.concatenate([head, np.dstack([panel, np.full((height, width), 255, np.uint8)])])


def _stack(panels: Sequence[UInt8[np.ndarray, "_ _ 4"]], *, num_columns: int) -> bytes:
  """A PNG of panels in rows of `num_columns`, transparent between them."""
  width = max(panel.shape[1] for panel in panels)
  rows = [panels[first:first + num_columns] for first in range(0, len(panels), num_columns)]
  heights = [max(panel.shape[0] for panel in row) for row in rows]
  canvas = np.zeros((sum(heights) + _GAP * (len(rows) - 1), num_columns * (width + _GAP) - _GAP, 4), np.uint8)
  top = 0
  for row, height in zip(rows, heights, strict=True):
    for index, panel in enumerate(row):
      left = index * (width + _GAP)
      canvas[top:top + panel.shape[0], left:left + panel.shape[1]] = panel
    top += height + _GAP
  return cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGBA2BGRA))[1].tobytes()
