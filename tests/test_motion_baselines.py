"""Predictors without a network: moments of what they are made of, and photos whose scores are known."""

import jax
import numpy as np
import pytest
from motion_volumes import evaluate_trajectories, make_volume

from gid_jax.errors import UserError
from gid_jax.evaluation import motion_baselines
from gid_jax.motion import spectral

pytestmark = pytest.mark.usefixtures("quick_compilation")

GRID = dict(height=24, width=32, num_frames=12, fps=10.0)
POWER = np.array([[9.0, 1.0], [4.0, 25.0], [0.5, 0.0], [2.0, 3.0]])


def _complex(volume):
  coefficients = np.asarray(volume.coefficients, np.float64)
  return coefficients[..., :2] + 1j * coefficients[..., 2:]


def test_still_has_the_shape_of_another_and_does_not_move():
  like = make_volume(num_frames=21, fps=5.0)
  still = motion_baselines.rest_still(like)
  assert still.coefficients.shape == like.coefficients.shape and (still.num_frames, still.fps) == (21, 5.0)
  assert not evaluate_trajectories(still).any()


def test_average_motion():
  volumes = [make_volume(seed) for seed in range(5)]
  values = np.stack([_complex(volume) for volume in volumes])
  average = motion_baselines.average_motion(iter(volumes))
  np.testing.assert_allclose(_complex(average.mean), values.mean(0), atol=1e-4)
  typical = _complex(average.typical)
  np.testing.assert_allclose(np.abs(typical), np.sqrt((np.abs(values) ** 2).mean(0)), rtol=1e-5)
  np.testing.assert_allclose(np.angle(typical * values.mean(0).conj()), 0, atol=1e-4)


def test_opposite_motions_cancel_in_the_mean_but_are_typical():
  volume = make_volume()
  average = motion_baselines.average_motion([volume, spectral.magnify(volume, -1.0)])
  assert not average.mean.coefficients.any()
  np.testing.assert_allclose(np.abs(_complex(average.typical)), np.abs(_complex(volume)), rtol=1e-5)


def test_what_has_no_average_is_refused():
  with pytest.raises(UserError, match="at least one"):
    motion_baselines.average_motion([])
  with pytest.raises(UserError, match="differ"):
    motion_baselines.average_motion([make_volume(), make_volume(num_frames=21)])


def test_smooth_noise_has_the_very_power_and_its_own_key():
  draw = lambda seed: motion_baselines.draw_smooth_noise(jax.random.key(seed), POWER, sigma=2.0, **GRID)
  noise = draw(0)
  np.testing.assert_allclose((np.abs(_complex(noise)) ** 2).mean((1, 2)), POWER, rtol=1e-5)
  np.testing.assert_array_equal(noise.coefficients, draw(0).coefficients)
  assert np.abs(np.asarray(noise.coefficients) - draw(1).coefficients).max() > 1
  assert not noise.coefficients[0, ..., 2:].any()  # the constant band is real
  assert noise.coefficients[1, ..., 2:].any()


def test_smooth_noise_is_as_smooth_as_the_gaussian():
  # White noise blurred by sigma correlates as exp(-d^2 / (4 sigma^2)).
  sigma, size = 3.0, 160
  power = np.ones((3, 2))
  grid = dict(height=size, width=size, num_frames=12, fps=10.0)
  field = _complex(motion_baselines.draw_smooth_noise(jax.random.key(0), power, sigma=sigma, **grid))[1:]
  for distance in (1, 4, 12):
    along_x = (field[:, :, distance:] * field[:, :, :-distance].conj()).real.mean()
    along_y = (field[:, distance:] * field[:, :-distance].conj()).real.mean()
    expected = np.exp(-(distance**2) / (4 * sigma**2))
    assert (along_x + along_y) / 2 == pytest.approx(expected, abs=0.08)
  # Bands, x and y are independent.
  assert abs((field[0] * field[1].conj()).mean()) < 0.15 and abs((field[..., 0] * field[..., 1].conj()).mean()) < 0.15


def test_nyquist_is_real_in_smooth_noise():
  noise = motion_baselines.draw_smooth_noise(
    jax.random.key(0), POWER, height=8, width=8, num_frames=6, fps=10.0, sigma=1.0)
  assert not noise.coefficients[3, ..., 2:].any()
  np.testing.assert_allclose((np.abs(_complex(noise)) ** 2).mean((1, 2)), POWER, rtol=1e-5)


def test_scores_of_a_photo_with_known_parts():
  image = np.full((32, 64, 3), 0.5, np.float32)
  image[:, :16] = [0.1, 0.8, 0.2]  # green
  image[:, 16:32] = [0.9, 0.1, 0.1]  # red, which is more saturated
  image[::2, 48:] = 0  # stripes of grey and black
  image = np.ascontiguousarray(image)
  scores = motion_baselines.score_photo(image, height=16, width=32)
  assert set(scores) == {"gradient", "greenness", "saturation", "centre"}
  assert all(score.shape == (16, 32) and np.isfinite(score).all() for score in scores.values())
  green, red, grey, striped = (slice(first + 3, first + 6) for first in (0, 8, 16, 24))
  level = {name: [score[6:10, part].mean() for part in (green, red, grey, striped)] for name, score in scores.items()}
  assert np.argmax(level["greenness"]) == 0 and np.argmin(level["greenness"]) == 1
  assert level["greenness"][2] == pytest.approx(0, abs=1e-6)
  assert level["saturation"][0] == pytest.approx((0.8 - 0.1) / 0.81, abs=1e-4)
  assert level["saturation"][1] == pytest.approx((0.9 - 0.1) / 0.91, abs=1e-4)
  assert level["saturation"][2] == pytest.approx(0, abs=1e-6)
  y, x = np.unravel_index(scores["centre"].argmax(), (16, 32))
  assert (y, x) in {(7, 15), (7, 16), (8, 15), (8, 16)}
  np.testing.assert_array_equal(scores["centre"], scores["centre"][::-1, ::-1])


def test_gradient_is_largest_at_an_edge():
  image = np.zeros((32, 64, 3), np.float32)
  image[:, 40:] = 1
  gradient = motion_baselines.score_photo(image, height=16, width=32)["gradient"]
  assert (np.abs(gradient.argmax(1) - 19.5) <= 1).all()
  assert gradient[:, :8].max() < 0.01 * gradient.max()
