"""Spectral volumes against NumPy's FFT and brute-force Fourier sums in float64."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.motion import spectral
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _random_motion(num_frames, height=3, width=4, seed=0):
  return np.random.default_rng(seed).normal(size=(num_frames, height, width, 2)).astype(np.float32)


def _random_volume(num_bands=5, height=6, width=8, num_frames=20, seed=0):
  values = np.random.default_rng(seed).normal(size=(num_bands, height, width, 4))
  return SpectralVolume(coefficients=jnp.asarray(values, jnp.float32), num_frames=num_frames, fps=30.0)


def _brute_force(volume, times):
  """The series, its time derivative, both in float64 from the definition of the inverse transform."""
  values = np.asarray(volume.coefficients, np.float64)
  coefficients = values[..., :2] + 1j * values[..., 2:]
  period = volume.num_frames
  motion = np.zeros((len(times), *coefficients.shape[1:]))
  velocity = np.zeros_like(motion)
  for n, t in enumerate(times):
    for k, band in enumerate(coefficients):
      if k == 0 or 2 * k == period:
        band, weight = band.real, 1 / period
      else:
        weight = 2 / period
      rate = 2j * np.pi * k / period
      motion[n] += weight * (band * np.exp(rate * t)).real
      velocity[n] += weight * (band * rate * np.exp(rate * t)).real
  return motion, velocity


@pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("num_frames, num_bands", [(2, 2), (7, 4), (8, 5), (24, 3), (25, 1)])
def test_spectrum_is_the_head_of_rfft_and_inverts_like_irfft(num_frames, num_bands, asarray):
  motion = _random_motion(num_frames)
  volume = spectral.motion_to_spectrum(asarray(motion), num_bands=num_bands, fps=12.0)
  assert isinstance(volume.coefficients, type(asarray(motion))) and volume.coefficients.dtype == np.float32
  expected = np.fft.rfft(motion.astype(np.float64), axis=0)[:num_bands]
  np.testing.assert_allclose(spectral.channels_to_complex(volume.coefficients), expected, atol=1e-4)
  assert (volume.num_frames, volume.fps) == (num_frames, 12.0)
  back = np.fft.irfft(expected, n=num_frames, axis=0)
  np.testing.assert_allclose(spectral.spectrum_to_motion(volume), back, atol=1e-5)


def test_workers_transform_as_the_model_does():
  motion = _random_motion(12)
  found = spectral.motion_to_spectrum(motion, num_bands=5).coefficients
  assert found.dtype == np.float32 and found.shape == (5, 3, 4, 4)
  for band in range(5):
    turn = np.exp(-2j * np.pi * band * np.arange(12) / 12)
    expected = (motion.astype(np.float64) * turn[:, None, None, None]).sum(0)
    np.testing.assert_allclose(found[band], np.concatenate([expected.real, expected.imag], -1), atol=1e-5)


def test_a_coarser_grid_has_the_mean_of_its_blocks_in_longer_pixels():
  vectors = np.random.default_rng(0).normal(size=(2, 6, 9, 4)).astype(np.float32)
  found = spectral.shrink_vectors(vectors, stride=3)
  for n, y, x, c in np.ndindex(2, 2, 3, 4):
    block = vectors[n, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3, c]
    np.testing.assert_allclose(found[n, y, x, c], block.mean() / 3, atol=1e-6)
  with pytest.raises(UserError, match="6x9 px: both sides must be multiples of the motion stride 2"):
    spectral.shrink_vectors(vectors, stride=2)


def test_all_bands_of_an_even_and_an_odd_period_reconstruct_the_motion():
  for num_frames in (8, 9):
    motion = _random_motion(num_frames)
    volume = spectral.motion_to_spectrum(motion, num_bands=num_frames // 2 + 1)
    np.testing.assert_allclose(spectral.spectrum_to_motion(volume), motion, atol=1e-5)


def test_spectrum_of_a_jax_motion_can_be_compiled_and_differentiated():
  motion = jnp.asarray(_random_motion(6))
  # Parseval: the sum of |X|^2 over all bins is T sum x^2; the middle ones stand twice in it.
  weights = np.array([1, 2, 2, 1])[:, None, None, None]
  doubled = lambda x: (weights * spectral.motion_to_spectrum(x, num_bands=4).coefficients ** 2).sum()
  np.testing.assert_allclose(jax.jit(jax.grad(doubled))(motion), 12 * motion, rtol=1e-4, atol=1e-4)


def test_spectrum_of_numpy_motion_starts_no_device():
  code = (
    "import numpy as np; from gid_jax.motion import spectral; from jax._src import xla_bridge\n"
    "spectral.motion_to_spectrum(np.ones((4, 2, 2, 2), np.float32), num_bands=3)\n"
    "raise SystemExit(xla_bridge.backends_are_initialized())"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_shrink_vectors_averages_blocks_and_rescales():
  motion = np.random.default_rng(0).standard_normal((3, 4, 6, 2)).astype(np.float32)
  half = spectral.shrink_vectors(motion, stride=2)
  expected = np.array(
    [
      [[motion[t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 2).mean(0) / 2 for x in range(3)] for y in range(2)]
      for t in range(3)
    ]
  )
  np.testing.assert_allclose(half, expected, rtol=1e-5, atol=1e-6)


def test_too_many_bands_are_refused():
  with pytest.raises(UserError, match="num_bands=6"):
    spectral.motion_to_spectrum(_random_motion(8), num_bands=6)
  with pytest.raises(UserError, match="num_frames"):
    spectral.spectrum_to_motion(_random_volume(num_bands=6, num_frames=8))


@pytest.mark.parametrize("num_frames", [8, 9, 150])
def test_series_and_velocity_between_frames(num_frames):
  volume = _random_volume(num_frames=num_frames)
  times = np.array([0.0, 0.25, 3.7, num_frames - 0.5, 2.5 * num_frames + 1.3, -4.2])
  motion, velocity = _brute_force(volume, times)
  np.testing.assert_allclose(spectral.evaluate_motion(volume, times), motion, atol=2e-5)
  np.testing.assert_allclose(spectral.evaluate_velocity(volume, times), velocity, atol=2e-5)


def test_long_playback_keeps_its_phase():
  volume = _random_volume(num_bands=16, height=2, width=2, num_frames=150)
  later = spectral.evaluate_motion(volume, np.array([150.0 * 200 + 7]))
  np.testing.assert_allclose(later, spectral.evaluate_motion(volume, np.array([7.0])), atol=2e-5)


def test_anchored_motion_starts_on_the_photo_and_only_shifts():
  volume = _random_volume()
  anchored = spectral.spectrum_to_motion(volume, anchor_first_frame=True)
  free = np.asarray(spectral.spectrum_to_motion(volume))
  assert np.abs(free[0]).max() > 0.1
  np.testing.assert_allclose(anchored[0], 0.0, atol=1e-6)
  np.testing.assert_allclose(anchored, free - free[:1], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(-3, 3), t=st.floats(0, 40))
def test_magnification_scales_the_motion(factor, t):
  volume = _random_volume()
  times = np.array([t])
  large = spectral.evaluate_motion(spectral.magnify(volume, factor), times)
  np.testing.assert_allclose(large, factor * spectral.evaluate_motion(volume, times), atol=1e-5)


def test_channel_order_is_re_x_re_y_im_x_im_y():
  channels = np.array([1, 3, 2, 4], np.float32).reshape(1, 1, 1, 4)
  np.testing.assert_array_equal(spectral.channels_to_complex(channels).ravel(), [1 + 2j, 3 + 4j])


def test_band_frequencies_are_those_of_the_fft():
  expected = np.fft.rfftfreq(150, 1 / 30)[:16]
  np.testing.assert_allclose(spectral.band_frequencies(16, num_frames=150, fps=30.0), expected, rtol=1e-6)


def test_resizing_rescales_each_axis_by_its_own_ratio():
  volume = SpectralVolume(jnp.broadcast_to(jnp.asarray([1.0, 2.0, 3.0, 4.0]), (2, 9, 12, 4)), 20)
  resized = spectral.resize_spectrum(volume, 5, 30).coefficients
  assert resized.shape == (2, 5, 30, 4)
  ratio = np.array([30 / 12, 5 / 9, 30 / 12, 5 / 9])
  np.testing.assert_allclose(resized, np.broadcast_to([1, 2, 3, 4] * ratio, resized.shape), rtol=1e-5)


def test_resized_motion_moves_the_same_part_of_the_picture():
  # Points of a rotation about the centre keep their angle, on whatever grid the rotation is stored.
  def rotation(height, width):
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None] - 0.5
    return np.stack([-0.1 * y * width, 0.1 * x * height], -1).astype(np.float32)

  for height, width in ((24, 32), (5, 11)):
    resized = spectral.resize_motion(rotation(12, 16), height, width)
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(resized[inner], rotation(height, width)[inner], atol=2e-2)


@pytest.mark.parametrize("anchor", [False, True])
def test_motion_magnitude_is_the_mean_length_over_all_frames(anchor):
  volume = _random_volume(num_frames=37)
  motion = np.asarray(spectral.spectrum_to_motion(volume, anchor_first_frame=anchor))
  expected = np.linalg.norm(motion, axis=-1).mean(axis=0)
  magnitude = spectral.motion_magnitude(volume, anchor_first_frame=anchor)
  np.testing.assert_allclose(magnitude, expected, rtol=1e-5)
  sampled = _brute_force(volume, np.arange(5) * 37 / 5)[0]
  if not anchor:
    few = spectral.motion_magnitude(volume, num_samples=5)
    np.testing.assert_allclose(few, np.linalg.norm(sampled, axis=-1).mean(axis=0), rtol=1e-4)


def test_motion_magnitude_has_gradients_where_nothing_moves():
  still = SpectralVolume(jnp.zeros((3, 2, 2, 4)), 10)
  gradient = jax.grad(lambda volume: spectral.motion_magnitude(volume, anchor_first_frame=True).sum())(still)
  np.testing.assert_array_equal(gradient.coefficients, 0.0)


def test_motion_power_matches_parseval():
  motion = _random_motion(16)
  motion -= motion.mean(axis=0)
  volume = spectral.motion_to_spectrum(motion, num_bands=9)
  power = np.asarray(spectral.motion_power(volume))
  pairs = np.array([1] + [2] * 7 + [1])[:, None]
  np.testing.assert_allclose((pairs * power).sum(0) / 16, (motion**2).mean((1, 2)).sum(0), rtol=1e-4)
  batched = spectral.motion_power(volume.replace(coefficients=jnp.stack([volume.coefficients] * 2)))
  np.testing.assert_allclose(batched, np.stack([power] * 2), rtol=1e-6)


def test_evaluation_is_differentiable_in_time_and_volume():
  volume = _random_volume(height=2, width=2)
  times = jnp.asarray([1.3])
  _, tangent = jax.jvp(lambda t: spectral.evaluate_motion(volume, t), (times,), (jnp.ones(1),))
  np.testing.assert_allclose(tangent, spectral.evaluate_velocity(volume, times), atol=1e-5)
