"""Statistics of a built data set: per-band scales for normalisation, and the paper's Figure 2.

Magnitudes of complex coefficients are counted in histograms of their logarithm, so a data set of any size needs
one pass and little memory; a bin is 0.5 % wide, which bounds the error of a percentile.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.input_pipeline import list_windows, read_window

_LOWEST, _BIN_WIDTH, _NUM_BINS = np.log(1e-4), 0.005, 4146
_EDGES = _LOWEST + _BIN_WIDTH * np.arange(_NUM_BINS)


class BandHistogram:
  """Counts of coefficient magnitudes per band, from which percentiles are read.

  Attributes:
    counts: [k n] float64, one histogram per band over the logarithm of the magnitude.
    power: [k 2] float64, running sum of the squared magnitudes of x and y.
    num_values: coefficients counted per band and axis.
  """

  def __init__(self, num_bands: int):
    self.counts = np.zeros((num_bands, _NUM_BINS + 1))
    self.power = np.zeros((num_bands, 2))
    self.num_values = 0

  def add(self, coefficients: Float[np.ndarray, "k h w 4"]) -> None:
    """Counts the coefficients of one window, [k h w 4] (Re x, Re y, Im x, Im y), pixels."""
    squares = coefficients.astype(np.float32) ** 2
    squares = squares[..., :2] + squares[..., 2:]
    self.power += squares.sum((1, 2), dtype=np.float64)
    self.num_values += squares.shape[1] * squares.shape[2]
    logarithms = np.log(np.maximum(squares, np.float32(1e-12))) / 2
    bins = np.clip(np.ceil((logarithms - _LOWEST) / _BIN_WIDTH), 0, _NUM_BINS).astype(np.int64)
    for band, values in enumerate(bins):
      self.counts[band] += np.bincount(values.ravel(), minlength=_NUM_BINS + 1)


def histograms_to_percentile(
  histograms: Sequence[BandHistogram], percentile: float
) -> Float[np.ndarray, "k"]:
  """Reads a percentile per band from one or more histograms, each given the same weight (section 4.1).

  Args:
    histograms: groups of windows; empty ones are ignored.
    percentile: 0 ... 100.

  Returns:
    [k] float64 magnitudes in pixels.

  Raises:
    UserError: every histogram is empty.
  """
  filled = [histogram for histogram in histograms if histogram.num_values]
  if not filled:
    raise UserError("No training windows to take statistics from: build the data first.")
  density = sum(histogram.counts / histogram.counts.sum(1, keepdims=True) for histogram in filled)
  assert isinstance(density, np.ndarray)
  cumulative = np.cumsum(density, axis=1) / len(filled)
  edges = np.concatenate([_EDGES, _EDGES[-1:]])
  return np.exp([np.interp(percentile / 100, band, edges) for band in cumulative])


def collect_histograms(directory: str | Path, *, step: int = 2) -> tuple[BandHistogram, BandHistogram, tuple[int, int]]:
  """Counts the training windows of a data set, filmed and published ones apart from synthetic ones.

  Args:
    directory: a data set as `data_pipeline.builder` writes it.
    step: count every `step`-th row and column; neighbours are nearly equal.

  Returns:
    The histogram of the real and loop windows, that of the synthetic ones, and (height, width) of the motion grid.

  Raises:
    UserError: there are no training windows, or one cannot be read.
  """
  groups: dict[bool, BandHistogram] = {}
  shape = (0, 0, 0, 0)
  for path in list_windows(directory, "train"):
    window = read_window(path, fields=("spectrum",))
    shape = window.spectrum.shape
    for synthetic in (False, True):
      groups.setdefault(synthetic, BandHistogram(shape[0]))
    groups[window.source == "synthetic"].add(window.spectrum[:, ::step, ::step])
  return groups[False], groups[True], shape[1:3]


def write_statistics(
  directory: str | Path, *, num_frames: int, fps: float, percentile: float = 95.0
) -> dict:
  """Computes the per-band scale over the training windows and writes `statistics.json` into the data set.

  Real and loop windows together weigh as much as the synthetic ones when both are there.

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
  natural, synthetic, (height, width) = collect_histograms(directory)
  scales = {p: histograms_to_percentile([natural, synthetic], p).round(5).tolist() for p in (95.0, 97.0, percentile)}
  statistics = {
    "percentile": percentile,
    "scale": scales[percentile],
    "scale_95": scales[95.0],
    "scale_97": scales[97.0],
    "num_windows": len(list_windows(directory, "train")),
    "motion": {"height": height, "width": width},
    "num_frames": num_frames,
    "fps": fps,
  }
  path = Path(directory) / "statistics.json"
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(statistics, indent=2) + "\n")
  os.replace(temporary, path)
  return statistics


def draw_statistics(directory: str | Path, path: str | Path) -> None:
  """Draws the paper's Figure 2: average power spectrum, and the top band's values before and after normalisation.

  Args:
    directory: a data set with its `statistics.json`.
    path: image to write.

  Raises:
    UserError: there are no statistics.
  """
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  file = Path(directory) / "statistics.json"
  if not file.exists():
    raise UserError(f"No {file}: build the data first.")
  statistics = json.loads(file.read_text())
  natural, synthetic, (height, width) = collect_histograms(directory)
  num_bands = len(statistics["scale"])
  frequencies = np.arange(num_bands) * statistics["fps"] / statistics["num_frames"]
  sample = [read_window(p, fields=("spectrum",)).spectrum[-1, ::4, ::4] for p in list_windows(directory, "train")]
  values = np.stack(sample).astype(np.float32).ravel()
  figure, (power, histogram) = plt.subplots(1, 2, figsize=(10, 3.5))
  for name, group in (("real and loop", natural), ("synthetic", synthetic)):
    if group.num_values:
      for axis, style in enumerate(("-", "--")):
        mean = group.power[:, axis] / group.num_values
        power.semilogy(frequencies[1:], mean[1:], style, label=f"{name}, {'xy'[axis]}")
  power.set(xlabel="frequency (Hz)", ylabel="power (px²)", title="Average power spectrum")
  power.legend()
  scale = statistics["scale"][-1]
  normalized = np.sign(values) * np.sqrt(np.abs(values) / scale)
  by_resolution = values / np.sqrt(height * width)
  bins = np.linspace(-1, 1, 101).tolist()
  histogram.hist(by_resolution, bins, density=True, alpha=0.6, label="scaled with resolution")
  histogram.hist(normalized, bins, density=True, alpha=0.6, label="frequency adaptive")
  histogram.set(yscale="log", xlabel="coefficient", title=f"Values at {frequencies[-1]:.1f} Hz")
  histogram.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=120)
  plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints the scale of a data set and draws its figure: `python -m data_pipeline.statistics DIR --figure out.png`."""
  parser = argparse.ArgumentParser(description="Statistics of a built data set.")
  parser.add_argument("directory", help="data set written by data_pipeline.builder")
  parser.add_argument("--figure", help="write the paper's Figure 2 to this image file")
  options = parser.parse_args(arguments)
  try:
    if options.figure:
      draw_statistics(options.directory, options.figure)
    file = Path(options.directory) / "statistics.json"
    if not file.exists():
      raise UserError(f"No {file}: build the data first.")
    print(file.read_text(), end="")
  except UserError as error:
    raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
  main()
