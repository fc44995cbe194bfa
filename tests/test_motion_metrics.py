"""Motion metrics against SciPy, trajectories in float64, loops over pixels, and constructions with known answers."""

import math

import cv2
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_volumes import evaluate_trajectories, make_volume

from gid_jax.errors import UserError
from gid_jax.evaluation import motion
from gid_jax.motion import spectral

pytestmark = pytest.mark.usefixtures("quick_compilation")

EVERYWHERE = np.ones((6, 8), bool)
LEFT = np.arange(8)[None].repeat(6, 0) < 4
NOWHERE = np.zeros((6, 8), bool)


def _replace(volume, coefficients):
  return volume.replace(coefficients=np.asarray(coefficients, np.float32))


def _to_channels(values):
  return np.concatenate([values.real, values.imag], -1)


def _turn_phases(volume, seed=1):
  """Every complex coefficient turned by an angle of its own."""
  turns = np.exp(2j * np.pi * np.random.default_rng(seed).random((*volume.coefficients.shape[:-1], 2)))
  return _replace(volume, _to_channels(np.asarray(spectral.channels_to_complex(volume.coefficients)) * turns))


@pytest.mark.parametrize("num_frames, num_bands", [(20, 4), (6, 4), (7, 4), (9, 1)])
def test_amplitude_is_that_of_the_trajectories(num_frames, num_bands):
  volume = make_volume(num_bands=num_bands, num_frames=num_frames)
  trajectories = evaluate_trajectories(volume)
  expected = 2 * np.sqrt(np.square(trajectories - trajectories.mean(0)).sum(-1).mean(0))
  amplitude = motion.rms_swing(volume, stride=2)
  np.testing.assert_allclose(amplitude, expected, rtol=1e-5, atol=1e-5)
  assert motion.share_moving(amplitude) == np.mean(expected > 0.5)


def test_share_moving_counts_more_than_half_a_pixel():
  assert motion.share_moving(np.array([[0.0, 0.4], [0.6, 7.0]])) == 0.5


def test_texture_finds_corners_not_edges_nor_flat_ground():
  ramp = np.linspace(0.2, 0.8, 32, dtype=np.float32)
  stripes = np.indices((32, 32)).sum(0) / 4 % 2
  checks = (np.indices((32, 32)) // 4).sum(0) % 2.0
  noise = np.random.default_rng(0).random((32, 32))
  textures = []
  for gray in (np.full((32, 32), 0.5), ramp[None].repeat(32, 0), np.round(stripes), checks, noise):
    image = np.repeat(gray[..., None], 3, -1)
    textures.append(motion.measure_texture(image, height=16, width=16)[4:-4, 4:-4])
  flat, edge, diagonal, checked, noisy = textures
  assert flat.max() < 1e-6
  assert max(edge.max(), diagonal.max()) < motion.TEXTURE / 2
  assert min(checked.min(), noisy.min()) > 3 * motion.TEXTURE


def test_texture_is_the_smaller_eigenvalue():
  gray = np.random.default_rng(0).random((20, 24), np.float32)
  dx, dy = (cv2.Sobel(gray, -1, *order) / 8 for order in ((1, 0), (0, 1)))
  outer = np.stack([dx, dy], -1)[..., None] * np.stack([dx, dy], -1)[..., None, :]
  tensor = cv2.GaussianBlur(outer.reshape(20, 24, 4), (0, 0), 2).reshape(10, 2, 12, 2, 4).mean((1, 3))
  expected = np.sqrt(np.linalg.eigvalsh(tensor.reshape(10, 12, 2, 2))[..., 0])
  found = motion.measure_texture(np.repeat(gray[..., None], 3, -1), height=10, width=12)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_moving_and_still_are_textured_and_confident():
  amplitude = np.array([[4.0, 4.0, 4.0, 1.2, 0.5, 0.3, 0.3, 0.3]] * 6)
  texture, confidence = np.full((2, 6, 8), 1.0)
  texture[:, 0] = texture[:, 7] = 0
  confidence[:, 1] = confidence[:, 6] = 0.1
  regions = motion.find_moving(amplitude, confidence, texture)
  # The 95th percentile is 4: above 1 moves, below 0.4 rests, and between the two lies neither.
  assert regions.moving[0].tolist() == [False, False, True, True, False, False, False, False]
  assert regions.still[0].tolist() == [False, False, False, False, False, True, False, False]
  calm = motion.find_moving(amplitude / 10, confidence, texture)  # thresholds in px hold: 0.5 and 0.2
  assert not calm.moving.any() and calm.still[0].tolist() == [False, False, False, True, True, True, False, False]
  unseen = motion.find_moving(amplitude, confidence, 0 * texture)
  assert not (unseen.moving | unseen.still).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_area_is_that_of_mann_and_whitney_with_ties_and_keeps_under_monotone_maps(seed, num_values):
  rng = np.random.default_rng(seed)
  scores = rng.integers(num_values, size=(6, 8)).astype(np.float64)
  moving = rng.random((6, 8)) < 0.5
  moving[0, :2] = True, False
  regions = motion.Regions(moving, ~moving)
  area = motion.area_under_curve(scores, regions)
  expected = scipy.stats.mannwhitneyu(scores[moving], scores[~moving]).statistic / (moving.sum() * (~moving).sum())
  assert area == pytest.approx(expected, abs=1e-12)
  for mapped in (np.exp(scores / 10), scores**3 - 5, 2 * scores):
    assert motion.area_under_curve(mapped, regions) == pytest.approx(area, abs=1e-12)
  assert motion.area_under_curve(-scores, regions) == pytest.approx(1 - area, abs=1e-12)


def test_area_of_a_constant_is_chance_and_of_too_few_pixels_unknown():
  assert motion.area_under_curve(np.zeros((6, 8)), motion.Regions(LEFT, ~LEFT)) == 0.5
  assert math.isnan(motion.area_under_curve(np.zeros((6, 8)), motion.Regions(LEFT, NOWHERE)))
  one = np.zeros((20, 30), bool)
  one[0, :5] = True  # 5 of 600 are under 1 %
  assert math.isnan(motion.area_under_curve(np.zeros((20, 30)), motion.Regions(one, ~one)))


def test_a_diverged_model_is_refused():
  with pytest.raises(UserError, match="not finite"):
    motion.area_under_curve(np.full((6, 8), np.nan), motion.Regions(LEFT, ~LEFT))
  broken = np.asarray(make_volume().coefficients).copy()
  broken[1, 2, 3, 0] = np.inf
  with pytest.raises(UserError, match="not finite"):
    motion.rms_swing(_replace(make_volume(), broken), stride=1)
  with pytest.raises(UserError, match="differ"):
    motion.judge_prediction(make_volume(), make_volume(num_frames=21), motion.Regions(LEFT, ~LEFT), stride=1)


@pytest.mark.parametrize("factor, octaves", [(2.0, 1.0), (0.25, 2.0), (1.0, 0.0)])
def test_scaled_motion(factor, octaves):
  real = make_volume()
  scaled = spectral.magnify(real, factor)
  judged = motion.judge_prediction(scaled, real, motion.Regions(LEFT, ~LEFT), stride=2)
  assert judged["median_ratio"] == pytest.approx(octaves, abs=1e-5)
  assert judged["amplitude_error"] == pytest.approx(octaves, abs=1e-5)
  assert judged["spectral_distance"] == pytest.approx(octaves * 20 * math.log10(2), abs=1e-4)
  assert judged["peak_frequency_error"] == 0
  for name in ("phase_coherence_1", "band_correlation"):
    assert judged[f"{name}_error"] == pytest.approx(0, abs=1e-5)


def test_amplitude_errors_in_octaves_and_their_floor():
  real = np.full((6, 8), 2.0)
  predicted = np.where(LEFT, 1.0, 8.0)  # half and four times
  assert motion.amplitude_error(predicted, real, EVERYWHERE) == pytest.approx(1.5)
  assert motion.median_ratio(predicted, real, LEFT) == pytest.approx(1)
  at_rest = np.zeros((6, 8))
  assert motion.amplitude_error(at_rest, real, EVERYWHERE) == pytest.approx(math.log2(2 / 0.05))
  assert motion.median_ratio(at_rest, real, EVERYWHERE) == pytest.approx(math.log2(2 / 0.05))
  assert math.isnan(motion.amplitude_error(predicted, real, NOWHERE))
  assert math.isnan(motion.median_ratio(predicted, real, NOWHERE))


def test_power_of_bands_adds_up_to_that_of_the_trajectories():
  volume = make_volume()
  power = motion.band_power(volume, LEFT, stride=3)
  one_by_one = [
    _replace(volume, np.where(np.arange(4)[:, None, None, None] == band, volume.coefficients, 0)) for band in range(4)]
  expected = [9 * np.square(evaluate_trajectories(part)[:, LEFT]).sum(-1).mean() for part in one_by_one]
  np.testing.assert_allclose(power, expected, rtol=1e-5)
  assert np.isnan(motion.band_power(volume, NOWHERE, stride=3)).all()


def test_spectral_distance_by_band():
  real = make_volume()
  gains = np.array([5.0, 1.0, 10.0, 0.1])[:, None, None, None]
  powers = [motion.band_power(v, LEFT, stride=1) for v in (_replace(real, gains * real.coefficients), real)]
  np.testing.assert_allclose(motion.spectral_distance(*powers), [0, 20, -20], atol=1e-4)
  rest = motion.spectral_distance(0 * powers[1], powers[1])
  np.testing.assert_allclose(rest, -10 * np.log10(powers[1][1:] / 0.01**2), rtol=1e-6)


def test_peak_frequency_error():
  power = lambda band: np.where(np.arange(6) == band, 4.0, 0.1) + np.where(np.arange(6) == 0, 99, 0)
  error = lambda a, b: motion.peak_frequency_error(a, b, num_frames=50, fps=25.0)
  assert error(power(5), power(2)) == pytest.approx(1.5)
  assert error(power(2), power(2)) == 0
  assert math.isnan(error(np.zeros(6), power(2)))
  assert math.isnan(error(np.full(6, np.nan), power(2)))


def _coherence_by_loops(volume, moving, band, distance):
  values = np.asarray(spectral.channels_to_complex(volume.coefficients))[band]
  top = bottom = 0.0
  for y in range(values.shape[0]):
    for x in range(values.shape[1]):
      for v, u in ((y + distance, x), (y, x + distance)):
        if v < values.shape[0] and u < values.shape[1] and moving[y, x] and moving[v, u]:
          for c in range(2):
            p, q = values[y, x, c], values[v, u, c]
            top += abs(p) * abs(q) * math.cos(np.angle(p) - np.angle(q))
            bottom += abs(p) * abs(q)
  return top / bottom


@pytest.mark.parametrize("distance", [1, 2, 6])
def test_coherence_by_loops_over_pixels(distance):
  volume = make_volume(3)
  moving = np.random.default_rng(0).random((6, 8)) < 0.8
  expected = [_coherence_by_loops(volume, moving, band, distance) for band in (1, 2, 3)]
  np.testing.assert_allclose(motion.phase_coherence(volume, moving, stride=2, distance=distance), expected, atol=1e-5)


def test_coherence_of_one_phase_of_opposite_ones_and_of_noise():
  rng = np.random.default_rng(0)
  amplitude = rng.random((4, 24, 24, 2)) + 0.1
  together = make_volume(height=24, width=24)
  together = _replace(together, _to_channels(100 * amplitude * np.exp(0.7j)))
  everywhere = np.ones((24, 24), bool)
  coherence = lambda volume, distance=1: motion.phase_coherence(volume, everywhere, stride=1, distance=distance)
  np.testing.assert_allclose(coherence(together), 1, atol=1e-5)
  signs = 1 - 2 * (np.indices((24, 24)).sum(0) % 2)[..., None]
  checkered = _replace(together, together.coefficients * signs)
  np.testing.assert_allclose(coherence(checkered), -1, atol=1e-5)
  np.testing.assert_allclose(coherence(checkered, 2), 1, atol=1e-5)
  turned = _turn_phases(together)
  assert np.abs(coherence(turned)).max() < 0.1
  judged = motion.judge_prediction(turned, together, motion.Regions(everywhere, everywhere), stride=1)
  assert judged["phase_coherence_1_error"] > 0.9 and judged["phase_coherence_8_error"] > 0.9
  assert judged["band_correlation_error"] < 1e-5 and judged["spectral_distance"] < 1e-4  # to which phases are nothing


def test_what_has_no_phase_is_not_measured():
  volume = make_volume()
  quiet = np.asarray(volume.coefficients).copy()
  quiet[2] = 1e-6
  measured = motion.phase_coherence(_replace(volume, quiet), EVERYWHERE, stride=1, distance=1)
  assert np.isnan(measured).tolist() == [False, True, False]
  one_row = np.indices((6, 8))[0] == 3
  lonely = one_row & (np.arange(8) % 2 == 0)
  assert np.isnan(motion.phase_coherence(volume, lonely, stride=1, distance=1)).all()
  assert np.isfinite(motion.phase_coherence(volume, lonely, stride=1, distance=2)).all()
  assert np.isnan(motion.phase_coherence(volume, NOWHERE, stride=1, distance=1)).all()
  assert np.isnan(motion.phase_coherence(volume, EVERYWHERE, stride=1, distance=8)).all()


def test_band_correlation_is_that_of_numpy():
  volume = make_volume(5)
  amplitude = np.linalg.norm(np.asarray(volume.coefficients)[1:, LEFT], axis=-1)
  expected = np.corrcoef(np.log(amplitude.astype(np.float64)))
  np.testing.assert_allclose(motion.band_correlation(volume, LEFT, stride=1), expected, atol=1e-5)


def test_bands_that_swing_at_the_same_places_correlate():
  volume = make_volume(5)
  gains = np.array([1, 3, 0.5, 2])[:, None, None, None]
  same = _replace(volume, gains * np.asarray(volume.coefficients)[:1])
  np.testing.assert_allclose(motion.band_correlation(same, EVERYWHERE, stride=1), 1, atol=1e-5)
  even = np.asarray(volume.coefficients).copy()
  even[2] = 50  # the same amplitude everywhere correlates with nothing
  unknown = np.isnan(motion.band_correlation(_replace(volume, even), EVERYWHERE, stride=1))
  assert unknown.tolist() == [[False, True, False], [True, True, True], [False, True, False]]
  assert np.isnan(motion.band_correlation(volume, NOWHERE, stride=1)).all()


def test_judging_nothing_that_moves_measures_only_what_it_can():
  rest = spectral.magnify(make_volume(), 0.0)
  judged = motion.judge_prediction(make_volume(), rest, motion.Regions(NOWHERE, EVERYWHERE), stride=2)
  assert judged.pop("share_moving") == 1
  assert all(math.isnan(value) for value in judged.values())


def test_a_volume_judged_by_itself_is_right():
  judged = motion.judge_prediction(make_volume(), make_volume(), motion.Regions(LEFT, ~LEFT), stride=2)
  assert {name: value for name, value in judged.items() if name.endswith(("error", "ratio", "distance"))} == {
    "median_ratio": 0, "amplitude_error": 0, "spectral_distance": 0, "peak_frequency_error": 0,
    "phase_coherence_1_error": 0, "band_correlation_error": 0,
  } | {"phase_coherence_8_error": pytest.approx(math.nan, nan_ok=True)}  # fmt: skip
