"""The page that `gid inspect` draws on with matplotlib: things placed in inches, and panels that its pictures share."""

import io

import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.motion import spectral, visualize
from gid_jax.types import SpectralVolume

INK, GREY, FRAME, MARK = "#1a1a1a", "#666666", "#999999", "#ffd21f"
# Blue and vermilion of Okabe and Ito's palette, which colour-blind readers can tell apart.
_X_COLOR, _Y_COLOR = "#0072B2", "#D55E00"
# Inches, from the left: three columns of the same width.
WIDTH, MARGIN, GAP, COLUMN = 15.6, 0.6, 0.5, 4.4667
LEFTS = tuple(MARGIN + index * (COLUMN + GAP) for index in range(3))


class Page:
  """A page of `WIDTH` x `height` inches on which things are placed in inches from the upper left corner."""

  def __init__(self, height: float):
    """Makes an empty page.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
      from matplotlib.backends.backend_agg import FigureCanvasAgg
      from matplotlib.figure import Figure
    except ImportError as error:
      raise UserError("drawing needs matplotlib; install it with: pip install '.[plots]'") from error
    self._figure, self._height = Figure(figsize=(WIDTH, height), dpi=120, facecolor="white"), height
    FigureCanvasAgg(self._figure)

  def to_png(self) -> bytes:
    """The page as a PNG file."""
    target = io.BytesIO()
    self._figure.savefig(target, format="png")
    return target.getvalue()

  def place(self, left: float, top: float, width: float, height: float):
    """Empty axes of this size."""
    box = (left / WIDTH, 1 - (top + height) / self._height, width / WIDTH, height / self._height)
    axes = self._figure.add_axes(box)
    axes.tick_params(labelsize=9, colors=INK, length=3, color=FRAME)
    for spine in axes.spines.values():
      spine.set(color=FRAME, linewidth=0.8)
    return axes

  def place_image(self, left: float, top: float, width: float, height: float, image: np.ndarray, **options):
    """An image [h w] or [h w c] over the whole of such axes: the axes and what `imshow` made."""
    axes = self.place(left, top, width, height)
    axes.set(xticks=[], yticks=[])
    return axes, axes.imshow(image, aspect="auto", **options)

  def write(self, left: float, top: float, text: str, *, size: float = 9.5, **options):
    """A line of text whose baseline begins there."""
    options = {"color": INK, "va": "baseline", "ha": "left", **options}
    self._figure.text(left / WIDTH, 1 - top / self._height, text, size=size, **options)

  def title(self, left: float, top: float, text: str, *, note: str = ""):
    """A heading, and a grey line between it and what begins at `top`."""
    self.write(left, top - 0.34, text, size=12, weight="bold")
    self.write(left, top - 0.12, note, color=GREY)

  def head(self, title: str, note: str, facts: tuple[tuple[str, str], ...]):
    """The head of the page: a title, a grey line, and up to six (value, label) in a row."""
    self.write(MARGIN, 0.6, title, size=20, weight="bold")
    self.write(MARGIN, 0.9, note, size=11, color=GREY)
    for index, (value, label) in enumerate(facts):
      left = MARGIN + index * (COLUMN + GAP) / 2
      self.write(left, 1.42, value, size=15, weight="bold")
      self.write(left, 1.65, label, color=GREY)

  def draw_scale(self, image, left: float, top: float, height: float, *, ticks: tuple[float, ...] | None = None):
    """The colour scale of an image to the right of it."""
    axes = self.place(left + 0.12, top, 0.13, height)
    self._figure.colorbar(image, cax=axes)
    axes.tick_params(labelsize=9, length=3, color=FRAME)
    if ticks is not None:
      axes.set_yticks(ticks)

  def draw_row(self, axes, row: int):
    """Marks a row of an image, visible on light and on dark."""
    for color, line in (("black", "-"), (MARK, (0, (4, 3)))):
      axes.axhline(row, color=color, linewidth=1.6, linestyle=line)

  def draw_flow(self, left: float, top: float, width: float, height: float, flow: Float[np.ndarray, "h w 2"]):
    """Displacements [h w 2] in pixels as colours and arrows, the wheel of colours to the right."""
    largest = visualize.round_up(max(float(np.quantile(np.linalg.norm(flow, axis=-1), 0.98)), 0.1))
    colors = visualize.flow_to_colors(flow, max_magnitude=largest)
    axes, _ = self.place_image(left, top, width, height, colors, interpolation="nearest")
    _draw_arrows(axes, flow, largest)
    wheel = self.place(left + width + 0.12, top, 0.62, 0.62)
    wheel.imshow(visualize.draw_flow_wheel(128))
    wheel.set_axis_off()
    self.write(left + width + 0.43, top + 0.82, f"rim {largest:g} px", size=9, ha="center")

  def draw_power(
    self, left: float, top: float, height: float, spectrum: SpectralVolume, *, num_bands: int, peak: float | None
  ):
    """The power of x and y per frequency, the kept bands shaded, the frequency `peak` in Hz marked; with its title."""
    power = np.asarray(spectral.motion_power(spectrum), np.float64)[1:]
    frequencies = np.arange(1, len(power) + 1) * spectrum.fps / spectrum.num_frames
    kept, shown = num_bands - 1, min(len(power), round(2.5 * num_bands))
    share = power[:kept].sum() / max(power.sum(), 1e-12)
    held = f"the {num_bands} kept bands hold {100 * share:.1f} %" if power.any() else "nothing moves"
    self.title(left, top, "Motion power per frequency", note=f"|S|² of x and y, mean over the pixels; {held}")
    axes = self.place(left + 0.25, top, COLUMN - 0.25, height)
    edge = frequencies[kept - 1] + frequencies[0] / 2
    axes.axvspan(0, edge, color="#eef3f8", linewidth=0)
    floor = max(power.max() * 1e-7, 1e-4)
    for channel, (name, color, marker) in enumerate((("x", _X_COLOR, "o"), ("y", _Y_COLOR, "s"))):
      values = np.maximum(power[:shown, channel], floor)
      axes.plot(frequencies[:shown], values, color=color, marker=marker, markersize=3.4, linewidth=1.3, label=name)
    if peak is not None:
      axes.axvline(peak, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5, ymin=0.09)
    lowest = max(power[:shown].min(), floor)  # Room below the curves for two words.
    axes.set(yscale="log", xlim=(0, frequencies[shown - 1]), ylim=(lowest / 4, max(3 * power.max(), 1)))
    axes.set_xlabel("frequency (Hz)", size=9.5, color=INK)
    axes.set_ylabel("power (px²)", size=9.5, color=INK, labelpad=2)
    axes.legend(frameon=False, fontsize=10, loc="upper right")
    position = axes.get_xaxis_transform()
    middle = min(edge, frequencies[shown - 1]) / 2
    axes.text(middle, 0.03, "kept", transform=position, size=9.5, color=GREY, ha="center")
    if shown > kept:
      middle = (edge + frequencies[shown - 1]) / 2
      axes.text(middle, 0.03, "dropped", transform=position, size=9.5, color=GREY, ha="center")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)

  def draw_slice(
    self, left: float, top: float, width: float, height: float, slice_xt: np.ndarray, *, begin: float, end: float,
    is_first: bool = True,
  ):
    """An X-t slice [t w 3]: x to the right in pixels, time downwards from `begin` to `end` seconds, named if first."""
    offset = 0.25
    axes = self.place(left + offset, top, width - offset, height)
    axes.imshow(slice_xt, aspect="auto", extent=(0, slice_xt.shape[1], end, begin), interpolation="nearest")
    axes.set_xlabel("x (px)", size=9.5, color=INK)
    if is_first:
      axes.set_ylabel("time (s)", size=9.5, color=INK)


def _draw_arrows(axes, flow: np.ndarray, largest: float):
  step = max(4, round(max(flow.shape[:2]) / 18))
  rows, columns = (np.arange(step // 2, length, step) for length in flow.shape[:2])
  grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
  arrows = flow[grid[:, 1], grid[:, 0]]
  moving = np.linalg.norm(arrows, axis=-1) > 0.12 * largest
  (x, y), (u, v) = grid[moving].T, arrows[moving].T
  axes.quiver(
    x, y, u, v, angles="xy", scale_units="xy", scale=largest / (1.2 * step), units="inches", width=0.013,
    headwidth=4, headlength=4.5, headaxislength=4, color=INK, alpha=0.75)
