"""Statistics of a data set against NumPy over all values at once."""

import json

import cv2
import helpers
import numpy as np
import pytest

from data_pipeline import statistics
from gid_jax.data.storage import decode_band, encode_band
from gid_jax.errors import UserError
from gid_jax.motion.normalization import BandHistogram, histograms_to_percentile
from gid_jax.types import Window

BANDS, FRAMES, FPS = 3, 30, 15.0


def make_window(rng, *, source, amplitude):
  spectrum = amplitude * rng.standard_normal((BANDS, 20, 32, 4)) ** 3 * np.array([9, 3, 1])[:, None, None, None]
  image = np.zeros((40, 64, 3), np.uint8)
  flows, depth = np.zeros((1, 40, 64, 2)), np.zeros((40, 64))
  return Window(image, spectrum.astype(np.float32), image[None], flows, depth, "s", source)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  """A data set, and the spectra [n k h w 4] that it holds, per source."""
  directory = tmp_path_factory.mktemp("dataset")
  rng = np.random.default_rng(0)
  spectra = {}
  for source, amplitude, count in (("real", 2.0, 3), ("loop", 1.0, 2), ("synthetic", 0.5, 6)):
    windows = [make_window(rng, source=source, amplitude=amplitude) for _ in range(count)]
    held_out = make_window(rng, source=source, amplitude=1000)  # Must not be counted.
    helpers.write_dataset(directory, source, {"train": windows, "validation": [held_out]})
    stored = [[decode_band(encode_band(band)) for band in window.spectrum] for window in windows]
    spectra[source] = np.array(stored, np.float64)
  statistics.write_statistics(directory, num_frames=FRAMES, fps=FPS, percentile=97.0)
  return directory, spectra


def magnitudes(spectra):
  """Magnitudes of n windows per band, [k n]."""
  return np.moveaxis(np.hypot(spectra[..., :2], spectra[..., 2:]), 1, 0).reshape(BANDS, -1)


@pytest.mark.parametrize("percentile", [50, 95, 97])
def test_percentiles_are_those_of_all_values_at_once(dataset, percentile):
  _, spectra = dataset
  histogram = BandHistogram(BANDS)
  for window in spectra["real"]:
    histogram.add(window)
  found = histograms_to_percentile([histogram], percentile)
  np.testing.assert_allclose(found, np.percentile(magnitudes(spectra["real"]), percentile, axis=1), rtol=0.005)


def test_merged_histograms_are_those_of_all_windows(dataset):
  _, spectra = dataset
  whole, parts = BandHistogram(BANDS), [BandHistogram(BANDS) for _ in range(2)]
  for index, window in enumerate(spectra["synthetic"]):
    whole.add(window)
    parts[index % 2].add(window)
  parts[0].merge(parts[1])
  np.testing.assert_array_equal(parts[0].counts, whole.counts)
  np.testing.assert_allclose(parts[0].power, whole.power, rtol=1e-12)
  assert parts[0].num_values == whole.num_values


def test_written_scales_weigh_filmed_and_simulated_windows_alike(dataset):
  directory, spectra = dataset
  written = json.loads((directory / "statistics.json").read_text())
  every_other = {source: values[:, :, ::2, ::2] for source, values in spectra.items()}
  filmed = magnitudes(np.concatenate([every_other["real"], every_other["loop"]]))
  simulated = magnitudes(every_other["synthetic"])
  for percentile in (95, 97):
    for band, scale in enumerate(written[f"scale_{percentile}"]):
      below = (np.mean(filmed[band] <= scale) + np.mean(simulated[band] <= scale)) / 2
      assert abs(below - percentile / 100) < 0.002
  assert written["scale"] == written["scale_97"]
  assert written["num_windows"] == 11
  assert written["motion"] == {"height": 20, "width": 32}
  assert (written["num_frames"], written["fps"], written["percentile"]) == (FRAMES, FPS, 97.0)


def test_one_group_alone_decides():
  rng = np.random.default_rng(0)
  filled, empty = BandHistogram(1), BandHistogram(1)
  values = rng.exponential(5, (1, 40, 50, 4))
  filled.add(values)
  expected = np.percentile(np.hypot(values[..., :2], values[..., 2:]), 90)
  np.testing.assert_allclose(histograms_to_percentile([empty, filled], 90), [expected], rtol=0.005)
  with pytest.raises(UserError, match="No training windows"):
    histograms_to_percentile([BandHistogram(2)], 95)


def test_numbers_of_the_figure(dataset):
  directory, spectra = dataset
  numbers = statistics.collect_figure(directory)
  np.testing.assert_allclose(numbers["frequencies"], [0, 0.5, 1.0])
  for name, sources in (("real and loop", ("real", "loop")), ("synthetic", ("synthetic",))):
    values = np.concatenate([spectra[source] for source in sources])[:, :, ::2, ::2]
    power = values[..., :2] ** 2 + values[..., 2:] ** 2
    np.testing.assert_allclose(numbers["amplitude"][name], np.sqrt(power.mean((0, 2, 3))), rtol=1e-4)
  top = np.concatenate([values[:, -1] for values in spectra.values()])
  scale = json.loads((directory / "statistics.json").read_text())["scale"][-1]
  adaptive = np.sign(top) * np.sqrt(np.abs(top) / scale)
  by_resolution = top / [32, 20, 32, 20]
  width = np.diff(numbers["edges"])
  for name, values in (("adaptive", adaptive), ("by_resolution", by_resolution)):
    expected = np.histogram(values, numbers["edges"])[0] / values.size / width
    np.testing.assert_allclose(numbers[name], expected, atol=3 / values.size / width[0])
  np.testing.assert_allclose(numbers["beyond"], np.mean(np.abs(adaptive) > 1), atol=1e-3)


def test_figure_is_drawn(dataset, tmp_path, capsys):
  directory, _ = dataset
  statistics.main([str(directory), "--figure", str(tmp_path / "figure.png")])
  figure = cv2.imread(str(tmp_path / "figure.png"))
  assert figure is not None and figure.std() > 10
  lines = capsys.readouterr().out.splitlines()
  assert "11 training windows" in lines[0]
  assert lines[2].split()[:2] == ["0", "0.0"] and lines[4].split()[:2] == ["2", "1.0"]


def test_missing_data_says_what_to_do(dataset, tmp_path, capsys):
  with pytest.raises(SystemExit, match="2"):
    statistics.main([str(tmp_path)])
  assert "build the data first" in capsys.readouterr().err
  with pytest.raises(UserError, match="No data set"):
    statistics.write_statistics(tmp_path, num_frames=FRAMES, fps=FPS)
  (tmp_path / "statistics.json").write_text("{")
  with pytest.raises(SystemExit, match="2"):
    statistics.main([str(tmp_path)])
  assert "statistics.json is damaged" in capsys.readouterr().err
  with pytest.raises(UserError, match="cannot write the figure"):
    statistics.draw_statistics(dataset[0], tmp_path / "figure.nonsense")
  rng = np.random.default_rng(0)
  helpers.write_dataset(tmp_path, "real", {"validation": [make_window(rng, source="real", amplitude=1)]})
  with pytest.raises(UserError, match="no training windows"):
    statistics.write_statistics(tmp_path, num_frames=FRAMES, fps=FPS)
