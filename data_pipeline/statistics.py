"""Statistics of a built data set: per-band scales for normalisation, and the paper's Figure 2.

  python -m data_pipeline.statistics windows --figure figure2.png

Magnitudes of complex coefficients are counted in histograms of their logarithm, so a data set of any size needs
one pass and little memory; a bin is 0.5 % wide, which bounds the error of a percentile.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gid_jax.data.storage import example_to_window, list_sources, open_split
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.motion.normalization import BandHistogram, histograms_to_percentile


def read_spectra(directory: str | Path, *, source: str, bands: Sequence[int] | None = None) -> Iterator[np.ndarray]:
  """Reads the spectra [k h w 4] of a source's training windows one by one, or only some of their bands.

  Raises:
    UserError: there is no such source, or it is damaged.
  """
  for example in open_split(directory, source, "train"):
    yield example_to_window(example, fields=("spectrum",), bands=bands).spectrum


def collect_histograms(
  directory: str | Path, *, step: int = 2
) -> tuple[dict[str, BandHistogram], int, tuple[int, int]]:
  """Counts the training windows of a data set, filmed and published ones apart from simulated ones.

  Args:
    directory: a data set as `data_pipeline.builder` writes it.
    step: count every `step`-th row and column; neighbours are nearly equal.

  Returns:
    Histograms named "real and loop" and "synthetic" (only those with windows), the number of training windows, and
    (height, width) of the motion grid.

  Raises:
    UserError: there is no data set or it has no training windows.
  """
  groups: dict[str, BandHistogram] = {}
  num_windows, size = 0, (0, 0)
  for source in list_sources(directory):
    for spectrum in read_spectra(directory, source=source):
      histogram = BandHistogram(len(spectrum))
      histogram.add(spectrum[:, ::step, ::step])
      group = "synthetic" if source == "synthetic" else "real and loop"
      groups.setdefault(group, BandHistogram(len(spectrum))).merge(histogram)
      num_windows, size = num_windows + 1, spectrum.shape[1:3]
  if not groups:
    raise UserError(f"{directory} has no training windows to take statistics from: build more clips.")
  return groups, num_windows, size


def write_statistics(
  directory: str | Path, *, num_frames: int, fps: float, percentile: float = 95.0
) -> dict[str, Any]:
  """Computes the per-band scale over the training windows and writes `statistics.json` into the data set.

  Real and loop windows together weigh as much as the simulated ones together when both are there.

  Args:
    directory: the data set.
    num_frames: frames per window, recorded beside the scale.
    fps: frames per second, likewise.
    percentile: 95 in one version of the paper, 97 in the other; both are written, this one as "scale".

  Returns:
    What was written.

  Raises:
    UserError: there are no training windows, or one cannot be read.
  """
  groups, num_windows, (height, width) = collect_histograms(directory)
  histograms = list(groups.values())
  scales = {p: histograms_to_percentile(histograms, p).round(5).tolist() for p in (95.0, 97.0, percentile)}
  statistics = {
    "percentile": percentile,
    "scale": scales[percentile],
    "scale_95": scales[95.0],
    "scale_97": scales[97.0],
    "num_windows": num_windows,
    "motion": {"height": height, "width": width},
    "num_frames": num_frames,
    "fps": fps,
  }
  with complete_or_nothing(Path(directory) / "statistics.json", overwrite=True) as temporary:
    temporary.write_text(json.dumps(statistics, indent=2) + "\n")
  return statistics


def read_statistics(directory: str | Path) -> dict[str, Any]:
  """Reads a data set's `statistics.json`.

  Raises:
    UserError: it is missing or damaged.
  """
  path = Path(directory) / "statistics.json"
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"No {path}: build the data first.") from None
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}): delete it and build again.") from error


def collect_figure(directory: str | Path) -> dict[str, Any]:
  """Computes the numbers of the paper's Figure 2.

  Args:
    directory: a data set with its `statistics.json`.

  Returns:
    "frequencies" [k] Hz; "amplitude": name of the group -> [k 2] root mean square magnitude of x and y, pixels of the
    motion grid; "edges" [n+1] and, of the real scalars of the highest band, their density [n] "by_resolution" (divided
    by the grid's width or height) and "adaptive" (section 4.1); "beyond": the share of "adaptive" outside -1 ... 1.

  Raises:
    UserError: there are no statistics or no windows.
  """
  statistics = read_statistics(directory)
  groups, _, (height, width) = collect_histograms(directory)
  top = len(statistics["scale"]) - 1
  edges = np.linspace(-2, 2, 162)  # Zero lies in the middle of a bin.
  size = np.array([width, height, width, height], np.float32)
  counts = {"by_resolution": np.zeros(len(edges) - 1), "adaptive": np.zeros(len(edges) - 1)}
  num_values = num_beyond = 0
  for source in list_sources(directory):
    for spectrum in read_spectra(directory, source=source, bands=[top]):
      adaptive = np.sign(spectrum) * np.sqrt(np.abs(spectrum) / statistics["scale"][top])
      for name, values in (("by_resolution", spectrum / size), ("adaptive", adaptive)):
        counts[name] += np.histogram(values, edges)[0]
      num_values += spectrum.size
      num_beyond += int((np.abs(adaptive) > 1).sum())
  return {
    "frequencies": np.arange(top + 1) * statistics["fps"] / statistics["num_frames"],
    "amplitude": {name: np.sqrt(group.power / group.num_values) for name, group in groups.items()},
    "edges": edges,
    **{name: count / num_values / (edges[1] - edges[0]) for name, count in counts.items()},
    "beyond": num_beyond / num_values,
  }


def draw_statistics(directory: str | Path, path: str | Path) -> None:
  """Draws the paper's Figure 2: average power spectrum, and the top band's values before and after normalisation.

  Args:
    directory: a data set with its `statistics.json`.
    path: image to write.

  Raises:
    UserError: there are no statistics, or the image cannot be written.
  """
  try:
    import matplotlib
  except ImportError as error:
    raise UserError("figures need matplotlib; install it with: pip install -e '.[plots]'") from error
  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  numbers = collect_figure(directory)
  figure, (power, histogram) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
  for (name, amplitude), colour in zip(sorted(numbers["amplitude"].items()), ("tab:blue", "tab:orange"), strict=False):
    for axis, style in enumerate(("-", "--")):
      power.semilogy(
        numbers["frequencies"], amplitude[:, axis] ** 2, style, color=colour, marker=".", label=f"{'xy'[axis]}, {name}"
      )
  power.set(xlabel="frequency (Hz)", ylabel="mean |S|² (px²)", title="Average power spectrum")
  power.grid(alpha=0.3)
  power.legend()
  after = f"after: frequency-adaptive ({100 * numbers['beyond']:.1f} % beyond ±1)"
  for name, label, colour in (
    ("by_resolution", "before: divided by width or height", "tab:gray"),
    ("adaptive", after, "tab:green"),
  ):
    histogram.stairs(numbers[name], numbers["edges"], color=colour, label=label)
    histogram.stairs(numbers[name], numbers["edges"], color=colour, fill=True, alpha=0.2)
  title = f"Coefficients at {numbers['frequencies'][-1]:.1f} Hz"
  histogram.set(yscale="log", xlabel="value", ylabel="density", title=title, xlim=(-2, 2))
  low, high = histogram.get_ylim()
  histogram.set_ylim(low, high * 30)  # Room for the legend.
  histogram.grid(alpha=0.3)
  histogram.legend()
  try:
    figure.savefig(path, dpi=130)
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot write the figure ({error}); give a name like figure2.png.") from error
  finally:
    plt.close(figure)


def _format_scales(statistics: Mapping[str, Any]) -> str:
  rows = ["band    Hz   95th %   97th %"]
  for band, scales in enumerate(zip(statistics["scale_95"], statistics["scale_97"], strict=True)):
    hertz = band * statistics["fps"] / statistics["num_frames"]
    rows.append(f"{band:4d}  {hertz:4.1f}  {scales[0]:7.3f}  {scales[1]:7.3f}")
  return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints the scales of a data set and draws its figure: `python -m data_pipeline.statistics DIR --figure out.png`.

  Errors end with status 2.
  """
  parser = argparse.ArgumentParser(prog="python -m data_pipeline.statistics", description="Statistics of a data set.")
  parser.add_argument("directory", help="data set written by data_pipeline.builder")
  parser.add_argument("--figure", help="write the paper's Figure 2 to this image file")
  options = parser.parse_args(arguments)
  try:
    statistics = read_statistics(options.directory)
    print(f"{statistics['num_windows']} training windows; percentile of the magnitude per band, in pixels")
    print(_format_scales(statistics))
    if options.figure:
      draw_statistics(options.directory, options.figure)
      print(f"wrote {options.figure}")
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
  main()
