"""The picture of `gid inspect VIDEO`: flow, confidence, power and amplitude per band, X-t slices, on one page."""

import numpy as np

from gid_jax.app.inspection import Inspection, keep_bands, peak_frequency
from gid_jax.app.sheet import COLUMN, GREY, LEFTS, MARGIN, WIDTH, Page
from gid_jax.flow.tracking import mean_magnitude
from gid_jax.motion import visualize

_BAND_MAP, _CONFIDENCE_MAP = "inferno", "cividis"
_BANDS_HEIGHT, _SLICES_HEIGHT = 2.9, 2.7
_NUM_MAPS = 8


def inspection_to_png(inspection: Inspection) -> bytes:
  """Draws an inspection as a PNG file.

  Raises:
    UserError: matplotlib is not installed.
  """
  height, width = inspection.confidence.shape
  image_height = min((COLUMN - 0.75) / width * height, 3.8)
  images = 2.55
  bands = images + image_height + 0.9
  slices = bands + _BANDS_HEIGHT + 1.2
  page = Page(slices + _SLICES_HEIGHT + 0.75)
  _draw_header(page, inspection)
  _draw_images(page, inspection, images, image_height)
  page.draw_power(
    LEFTS[0], bands, _BANDS_HEIGHT, inspection.spectrum, num_bands=inspection.num_bands,
    peak=peak_frequency(inspection.spectrum))
  _draw_amplitudes(page, inspection, bands)
  _draw_slices(page, inspection, slices)
  return page.to_png()


def _draw_header(page: Page, inspection: Inspection):
  shot = inspection.shot
  (height, width), (num_frames, h, w) = shot.source_size, inspection.motion.shape[:3]
  magnitude = mean_magnitude(inspection.motion)
  top = magnitude[magnitude >= np.quantile(magnitude, 0.95)].mean()
  shift = np.linalg.norm(inspection.shift, axis=-1).max()
  peak = f"{peak_frequency(inspection.spectrum):.2f} Hz" if magnitude.mean() > 0.005 else "none"
  page.head(
    inspection.path.name,
    f"{width} × {height} px at {shot.source_fps:.4g} fps  ·  measured: {num_frames} frames at {shot.fps:g} fps"
    f" ({inspection.start:g} to {inspection.start + num_frames / shot.fps:.3g} s) of {w} × {h} px,"
    " displacements in pixels of that size, from the first frame",
    (
      (peak, "peak of the motion power"),
      (f"{magnitude.mean():.2f} px", "mean displacement"),
      (f"{top:.2f} px", "liveliest 5 % of the pixels"),
      (f"{shift:.2f} px" if shift else "none", "camera shift, taken out"),
      (f"{100 * (inspection.confidence > 0.4).mean():.0f} %", "of the pixels can be trusted"),
      (f"{inspection.still.error:.1f} → {inspection.kept.error:.1f}", "grey levels off: at rest → moved"),
    ))


def _draw_images(page: Page, inspection: Inspection, top: float, height: float):
  shape = inspection.confidence.shape
  width = height / shape[0] * shape[1]
  page.title(LEFTS[0], top, "First frame", note="dashed: the row of the X–t slices below")
  axes, _ = page.place_image(LEFTS[0], top, width, height, inspection.shot.frames[0])
  page.draw_row(axes, inspection.row)

  frame = int(np.linalg.norm(inspection.motion, axis=-1).mean((1, 2)).argmax())
  seconds = inspection.start + frame / inspection.shot.fps
  page.title(LEFTS[1], top, "Flow", note=f"from the first frame to the one farthest from it, at {seconds:.2f} s")
  page.draw_flow(LEFTS[1], top, width, height, inspection.motion[frame])

  page.title(LEFTS[2], top, "Confidence", note="where texture and residual let motion be measured")
  _, image = page.place_image(
    LEFTS[2], top, width, height, inspection.confidence, cmap=_CONFIDENCE_MAP, vmin=0, vmax=1)
  page.draw_scale(image, LEFTS[2] + width, top, height, ticks=(0, 0.5, 1))


def _draw_amplitudes(page: Page, inspection: Inspection, top: float):
  spectrum = keep_bands(inspection.spectrum, inspection.num_bands)
  maps = visualize.spectrum_to_heatmaps(spectrum)
  power = maps.mean((1, 2))
  groups = [group for group in np.array_split(np.arange(1, len(maps)), _NUM_MAPS) if len(group)]
  bands = [int(group[power[group].argmax()]) for group in groups]
  page.title(
    LEFTS[1], top, "Where each frequency lives",
    note="amplitude of the swing; each map runs from 0 (black) to the value above it")
  space = WIDTH - MARGIN - LEFTS[1]
  aspect = maps.shape[2] / maps.shape[1]
  # Tall pictures stand in one row, others in two.
  columns, height = max(
    ((count, min(_BANDS_HEIGHT * count / _NUM_MAPS - 0.38, (space / count - 0.14) / aspect))
     for count in (_NUM_MAPS // 2, _NUM_MAPS)), key=lambda choice: choice[1])
  width = height * aspect
  is_narrow = width < 1.1
  for index, band in enumerate(bands):
    row, column = divmod(index, columns)
    left, upper = LEFTS[1] + column * space / columns, top + row * (height + 0.38) + (0.35 if is_narrow else 0.18)
    largest = max(float(np.quantile(maps[band], 0.995)), 1e-3)
    frequency = band * spectrum.fps / spectrum.num_frames
    page.write(left, upper - (0.23 if is_narrow else 0.06), f"{frequency:.2f} Hz", weight="bold")
    place = {"left": left} if is_narrow else {"left": left + width, "ha": "right"}
    page.write(top=upper - 0.06, text=f"{largest:.2g} px", color=GREY, **place)
    page.place_image(left, upper, width, height, maps[band], cmap=_BAND_MAP, vmin=0, vmax=largest)


def _draw_slices(page: Page, inspection: Inspection, top: float):
  shot, still = inspection.shot, inspection.still.error
  last = (inspection.num_bands - 1) * inspection.spectrum.fps / inspection.spectrum.num_frames
  panels = (
    (inspection.still, "X–t slice: filmed", f"the first frame at rest differs by {still:.2f} grey levels on average"),
    (inspection.measured, "Moved by all that was measured",
     f"differs from the film by {inspection.measured.error:.2f} grey levels"),
    (inspection.kept, f"Moved by {inspection.num_bands} bands (0 to {last:.1f} Hz)",
     f"differs from the film by {inspection.kept.error:.2f} grey levels"),
  )
  begin, end = inspection.start, inspection.start + len(shot.frames) / shot.fps
  for left, (reconstruction, title, note) in zip(LEFTS, panels, strict=True):
    page.title(left, top, title, note=note)
    page.draw_slice(
      left, top, COLUMN, _SLICES_HEIGHT, reconstruction.slice_xt, begin=begin, end=end, is_first=left == LEFTS[0])
