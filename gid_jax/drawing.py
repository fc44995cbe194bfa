"""The picture of `gid inspect`: flow, confidence, power and amplitude per band, X-t slices, on one page."""

import io
import math

import numpy as np

from gid_jax import spectral, visualize
from gid_jax.errors import UserError
from gid_jax.inspection import Inspection, keep_bands, peak_frequency
from gid_jax.tracking import mean_magnitude

_INK, _GREY, _FRAME, _MARK = "#1a1a1a", "#666666", "#999999", "#ffd21f"
# Blue and vermilion of Okabe and Ito's palette, which colour-blind readers can tell apart.
_X_COLOR, _Y_COLOR = "#0072B2", "#D55E00"
_BAND_MAP, _CONFIDENCE_MAP = "inferno", "cividis"
# Inches, from the left: three columns of the same width.
_WIDTH, _MARGIN, _GAP, _COLUMN = 15.6, 0.6, 0.5, 4.4667
_LEFTS = tuple(_MARGIN + index * (_COLUMN + _GAP) for index in range(3))
_BANDS_HEIGHT, _SLICES_HEIGHT = 2.9, 2.7
_NUM_MAPS = 8


def inspection_to_png(inspection: Inspection) -> bytes:
  """Draws an inspection as a PNG file.

  Raises:
    UserError: matplotlib is not installed.
  """
  try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
  except ImportError as error:
    raise UserError("drawing needs matplotlib; install it with: pip install 'gid-jax[plots]'") from error
  height, width = inspection.confidence.shape
  image_height = min((_COLUMN - 0.75) / width * height, 3.8)
  images = 2.55
  bands = images + image_height + 0.9
  slices = bands + _BANDS_HEIGHT + 1.2
  figure = Figure(figsize=(_WIDTH, slices + _SLICES_HEIGHT + 0.75), dpi=120, facecolor="white")
  FigureCanvasAgg(figure)
  page = _Page(figure)
  _draw_header(page, inspection)
  _draw_images(page, inspection, images, image_height)
  _draw_power(page, inspection, bands)
  _draw_amplitudes(page, inspection, bands)
  _draw_slices(page, inspection, slices)
  target = io.BytesIO()
  figure.savefig(target, format="png")
  return target.getvalue()


def round_up(value: float) -> float:
  """The next larger round number, such as 0.3, 1, 1.5, 20; scales read better in such steps."""
  power = 10.0 ** math.floor(math.log10(value))
  return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


class _Page:
  """A figure on which things are placed in inches from the upper left corner."""

  def __init__(self, figure):
    self.figure = figure
    self.width, self.height = figure.get_size_inches()

  def place(self, left: float, top: float, width: float, height: float):
    box = [left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height]
    axes = self.figure.add_axes(box)
    axes.tick_params(labelsize=9, colors=_INK, length=3, color=_FRAME)
    for spine in axes.spines.values():
      spine.set(color=_FRAME, linewidth=0.8)
    return axes

  def place_image(self, left: float, top: float, width: float, height: float, image, **options):
    axes = self.place(left, top, width, height)
    axes.set(xticks=[], yticks=[])
    return axes, axes.imshow(image, aspect="auto", **options)

  def write(self, left: float, top: float, text: str, *, size: float = 9.5, **options):
    options = {"color": _INK, "va": "baseline", "ha": "left", **options}
    self.figure.text(left / self.width, 1 - top / self.height, text, size=size, **options)

  def title(self, left: float, top: float, text: str, note: str = ""):
    """A heading, and a grey line between it and what begins at `top`."""
    self.write(left, top - 0.34, text, size=12, weight="bold")
    self.write(left, top - 0.12, note, color=_GREY)


def _draw_header(page: _Page, inspection: Inspection):
  shot = inspection.shot
  (height, width), (num_frames, h, w) = shot.source_size, inspection.motion.shape[:3]
  magnitude = mean_magnitude(inspection.motion)
  top = magnitude[magnitude >= np.quantile(magnitude, 0.95)].mean()
  shift = np.linalg.norm(inspection.shift, axis=-1).max()
  page.write(_MARGIN, 0.6, inspection.path.name, size=20, weight="bold")
  page.write(
    _MARGIN, 0.9,
    f"{width} × {height} px at {shot.source_fps:.4g} fps  ·  measured: {num_frames} frames at {shot.fps:g} fps"
    f" ({inspection.start:g} to {inspection.start + num_frames / shot.fps:.3g} s) of {w} × {h} px,"
    " displacements in pixels of that size, from the first frame",
    size=11, color=_GREY)
  peak = f"{peak_frequency(inspection.spectrum):.2f} Hz" if magnitude.mean() > 0.005 else "none"
  facts = (
    (peak, "peak of the motion power"),
    (f"{magnitude.mean():.2f} px", "mean displacement"),
    (f"{top:.2f} px", "liveliest 5 % of the pixels"),
    (f"{shift:.2f} px" if shift else "none", "camera shift, taken out"),
    (f"{100 * (inspection.confidence > 0.4).mean():.0f} %", "of the pixels can be trusted"),
    (f"{inspection.still.error:.1f} → {inspection.kept.error:.1f}", "grey levels off: at rest → moved"),
  )
  for index, (value, label) in enumerate(facts):
    left = _MARGIN + index * (_COLUMN + _GAP) / 2
    page.write(left, 1.42, value, size=15, weight="bold")
    page.write(left, 1.65, label, color=_GREY)


def _draw_images(page: _Page, inspection: Inspection, top: float, height: float):
  shape = inspection.confidence.shape
  width = height / shape[0] * shape[1]
  page.title(_LEFTS[0], top, "First frame", "dashed: the row of the X–t slices below")
  axes, _ = page.place_image(_LEFTS[0], top, width, height, inspection.shot.frames[0])
  for color, line in (("black", "-"), (_MARK, (0, (4, 3)))):
    axes.axhline(inspection.row, color=color, linewidth=1.6, linestyle=line)

  lengths = np.linalg.norm(inspection.motion, axis=-1)
  frame = int(lengths.mean((1, 2)).argmax())
  flow = inspection.motion[frame]
  largest = round_up(max(float(np.quantile(lengths[frame], 0.98)), 0.1))
  seconds = inspection.start + frame / inspection.shot.fps
  page.title(_LEFTS[1], top, "Flow", f"from the first frame to the one farthest from it, at {seconds:.2f} s")
  axes, _ = page.place_image(
    _LEFTS[1], top, width, height, visualize.flow_to_colors(flow, max_magnitude=largest), interpolation="nearest")
  _draw_arrows(axes, flow, largest)
  wheel = page.place(_LEFTS[1] + width + 0.12, top, 0.62, 0.62)
  wheel.imshow(visualize.draw_flow_wheel(128))
  wheel.set_axis_off()
  page.write(_LEFTS[1] + width + 0.43, top + 0.82, f"rim {largest:g} px", size=9, ha="center")

  page.title(_LEFTS[2], top, "Confidence", "where texture and residual let motion be measured")
  _, image = page.place_image(
    _LEFTS[2], top, width, height, inspection.confidence, cmap=_CONFIDENCE_MAP, vmin=0, vmax=1)
  _draw_scale(page, image, _LEFTS[2] + width + 0.12, top, height)


def _draw_arrows(axes, flow: np.ndarray, largest: float):
  step = max(4, round(max(flow.shape[:2]) / 18))
  rows, columns = (np.arange(step // 2, length, step) for length in flow.shape[:2])
  grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
  arrows = flow[grid[:, 1], grid[:, 0]]
  moving = np.linalg.norm(arrows, axis=-1) > 0.12 * largest
  (x, y), (u, v) = grid[moving].T, arrows[moving].T
  axes.quiver(
    x, y, u, v, angles="xy", scale_units="xy", scale=largest / (1.2 * step), units="inches", width=0.013,
    headwidth=4, headlength=4.5, headaxislength=4, color=_INK, alpha=0.75)


def _draw_scale(page: _Page, image, left: float, top: float, height: float):
  axes = page.place(left, top, 0.13, height)
  page.figure.colorbar(image, cax=axes)
  axes.tick_params(labelsize=9, length=3, color=_FRAME)
  axes.set_yticks([0, 0.5, 1])


def _draw_power(page: _Page, inspection: Inspection, top: float):
  spectrum, num_bands = inspection.spectrum, inspection.num_bands
  power = np.asarray(spectral.motion_power(spectrum), np.float64)[1:]
  frequencies = np.arange(1, len(power) + 1) * spectrum.fps / spectrum.num_frames
  kept, shown = num_bands - 1, min(len(power), round(2.5 * num_bands))
  share = power[:kept].sum() / max(power.sum(), 1e-12)
  page.title(
    _LEFTS[0], top, "Motion power per frequency",
    f"|S|² of x and y, mean over the pixels; the {num_bands} kept bands hold {100 * share:.1f} %")
  axes = page.place(_LEFTS[0] + 0.25, top, _COLUMN - 0.25, _BANDS_HEIGHT)
  edge = frequencies[kept - 1] + frequencies[0] / 2
  axes.axvspan(0, edge, color="#eef3f8", linewidth=0)
  floor = max(power.max() * 1e-7, 1e-4)
  for channel, (name, color, marker) in enumerate((("x", _X_COLOR, "o"), ("y", _Y_COLOR, "s"))):
    values = np.maximum(power[:shown, channel], floor)
    axes.plot(frequencies[:shown], values, color=color, marker=marker, markersize=3.4, linewidth=1.3, label=name)
  axes.axvline(peak_frequency(spectrum), color=_GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5, ymin=0.09)
  lowest = max(power[:shown].min(), floor)  # Room below the curves for two words.
  axes.set(yscale="log", xlim=(0, frequencies[shown - 1]), ylim=(lowest / 4, max(3 * power.max(), 1)))
  axes.set_xlabel("frequency (Hz)", size=9.5, color=_INK)
  axes.set_ylabel("power (px²)", size=9.5, color=_INK, labelpad=2)
  axes.legend(frameon=False, fontsize=10, loc="upper right")
  position = axes.get_xaxis_transform()
  axes.text(min(edge, frequencies[shown - 1]) / 2, 0.03, "kept", transform=position, size=9.5, color=_GREY, ha="center")
  if shown > kept:
    middle = (edge + frequencies[shown - 1]) / 2
    axes.text(middle, 0.03, "dropped", transform=position, size=9.5, color=_GREY, ha="center")
  axes.grid(axis="y", color="#dddddd", linewidth=0.6)
  axes.set_axisbelow(True)


def _draw_amplitudes(page: _Page, inspection: Inspection, top: float):
  spectrum = keep_bands(inspection.spectrum, inspection.num_bands)
  maps = visualize.spectrum_to_heatmaps(spectrum)
  power = maps.mean((1, 2))
  groups = [group for group in np.array_split(np.arange(1, len(maps)), _NUM_MAPS) if len(group)]
  bands = [int(group[power[group].argmax()]) for group in groups]
  page.title(
    _LEFTS[1], top, "Where each frequency lives",
    "amplitude of the swing; each map runs from 0 (black) to the value above it")
  space = _WIDTH - _MARGIN - _LEFTS[1]
  aspect = maps.shape[2] / maps.shape[1]
  # Tall pictures stand in one row, others in two.
  columns, height = max(
    ((count, min(_BANDS_HEIGHT * count / _NUM_MAPS - 0.38, (space / count - 0.14) / aspect))
     for count in (_NUM_MAPS // 2, _NUM_MAPS)), key=lambda choice: choice[1])
  width = height * aspect
  is_narrow = width < 1.1
  for index, band in enumerate(bands):
    row, column = divmod(index, columns)
    left, upper = _LEFTS[1] + column * space / columns, top + row * (height + 0.38) + (0.35 if is_narrow else 0.18)
    largest = max(float(np.quantile(maps[band], 0.995)), 1e-3)
    frequency = band * spectrum.fps / spectrum.num_frames
    page.write(left, upper - (0.23 if is_narrow else 0.06), f"{frequency:.2f} Hz", weight="bold")
    place = {"left": left} if is_narrow else {"left": left + width, "ha": "right"}
    page.write(top=upper - 0.06, text=f"{largest:.2g} px", color=_GREY, **place)
    page.place_image(left, upper, width, height, maps[band], cmap=_BAND_MAP, vmin=0, vmax=largest)


def _draw_slices(page: _Page, inspection: Inspection, top: float):
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
  for left, (reconstruction, title, note) in zip(_LEFTS, panels, strict=True):
    page.title(left, top, title, note)
    offset = 0.25
    axes = page.place(left + offset, top, _COLUMN - offset, _SLICES_HEIGHT)
    width = reconstruction.slice_xt.shape[1]
    axes.imshow(reconstruction.slice_xt, aspect="auto", extent=(0, width, end, begin), interpolation="nearest")
    axes.set_xlabel("x (px)", size=9.5, color=_INK)
    if left == _LEFTS[0]:
      axes.set_ylabel("time (s)", size=9.5, color=_INK)
