"""Editing of spectral volumes against trajectories by NumPy's inverse transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from motion_volumes import evaluate_trajectories, make_volume

from gid_jax.errors import UserError
from gid_jax.motion import spectral
from gid_jax.motion.editing import choose_bands, mask_motion, turn_motion

KINDS = pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])


def take(kind, **options):
  volume = make_volume(**options)
  return volume.replace(coefficients=kind(volume.coefficients))


def mask_by_hand(mask, feather):
  """Minimum, then a triangle's average, pixel by pixel; what lies outside is as the edge."""
  height, width = mask.shape
  clamp = lambda i, j: (min(max(i, 0), height - 1), min(max(j, 0), width - 1))
  offsets = range(-feather, feather + 1)
  eroded, result = np.zeros_like(mask), np.zeros_like(mask)
  for i in range(height):
    for j in range(width):
      eroded[i, j] = min(mask[clamp(i + di, j + dj)] for di in offsets for dj in offsets)
  for i in range(height):
    for j in range(width):
      for di in offsets:
        for dj in offsets:
          weight = (feather + 1 - abs(di)) * (feather + 1 - abs(dj)) / (feather + 1) ** 4
          result[i, j] += weight * eroded[clamp(i + di, j + dj)]
  return result


# Bands


@KINDS
def test_chosen_bands_are_all_that_is_left(kind):
  volume = take(kind, num_bands=6)
  found = np.fft.rfft(evaluate_trajectories(choose_bands(volume, [1, 4])), axis=0)
  true = np.fft.rfft(evaluate_trajectories(volume), axis=0)
  np.testing.assert_allclose(found[[1, 4]], true[[1, 4]], atol=1e-4)
  np.testing.assert_allclose(found[[0, 2, 3, 5]], 0, atol=1e-4)


def test_all_bands_and_none():
  volume = make_volume()
  np.testing.assert_array_equal(choose_bands(volume, range(4)).coefficients, volume.coefficients)
  assert (choose_bands(volume, []).coefficients == 0).all()


@pytest.mark.parametrize("band", [-1, 4])
def test_no_such_band(band):
  with pytest.raises(UserError, match=f"no band {band}; this motion has the bands 0 to 3"):
    choose_bands(make_volume(), [1, band])


# Masks


@KINDS
@pytest.mark.parametrize("feather", [0, 1, 2])
def test_mask_scales_every_trajectory(kind, feather):
  volume = take(kind, height=7, width=9)
  mask = np.random.default_rng(3).uniform(size=(7, 9)).astype(np.float32)
  found = evaluate_trajectories(mask_motion(volume, mask, feather=feather))
  true = evaluate_trajectories(volume) * mask_by_hand(mask, feather)[..., None]
  np.testing.assert_allclose(found, true, atol=1e-4)


def test_what_rests_rests_and_the_rest_fades_in():
  volume = make_volume(height=12, width=16)
  mask = np.zeros((12, 16), np.float32)
  mask[:, 6:] = 1
  ratio = mask_motion(volume, mask).coefficients / volume.coefficients
  assert (ratio[:, :, :6] == 0).all() and (ratio[:, :, 8:] == 1).all()
  np.testing.assert_allclose(ratio[:, :, 6:8], np.broadcast_to([[0.25], [0.75]], (4, 12, 2, 4)), rtol=1e-6)


@pytest.mark.parametrize("size", [(48, 80), (3, 4), (48, 4), (6, 8), (1, 1)])
def test_masks_of_any_size(size):
  volume = make_volume()  # of 6 x 8 pixels
  columns = size[1]
  mask = np.zeros(size, np.float32)
  mask[:, columns // 2:] = 1
  half = mask_motion(volume, mask, feather=0).coefficients / volume.coefficients
  assert (half[:, :, 6:] == 1).all()
  if columns > 1:
    assert (half[:, :, :2] == 0).all()
  np.testing.assert_allclose(mask_motion(volume, 0 * mask + 0.3).coefficients, 0.3 * volume.coefficients, rtol=1e-6)


def test_a_large_mask_is_averaged_over_the_pixels_of_the_grid():
  volume = make_volume()
  mask = np.random.default_rng(4).uniform(size=(30, 56)).astype(np.float32)
  mean = mask.reshape(6, 5, 8, 7).mean((1, 3))
  expected = volume.coefficients * mean[..., None]
  np.testing.assert_allclose(mask_motion(volume, mask, feather=0).coefficients, expected, rtol=1e-5)


# Directions


@KINDS
@pytest.mark.parametrize("degrees", [0, 90, 180, -30, 400])
@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_every_displacement_is_turned(kind, degrees, aspect):
  volume = take(kind)
  # As complex numbers of a plane whose y points up, in heights of a pixel.
  to_plane = lambda motion: motion[..., 0] * aspect - 1j * motion[..., 1]
  found = to_plane(evaluate_trajectories(turn_motion(volume, degrees, pixel_aspect=aspect)))
  true = to_plane(evaluate_trajectories(volume)) * np.exp(1j * np.deg2rad(degrees))
  np.testing.assert_allclose(found, true, atol=1e-4)


def test_ninety_degrees_make_up_of_right():
  volume = make_volume()
  right = volume.replace(coefficients=volume.coefficients * np.array([1, 0, 1, 0], np.float32))
  turned = evaluate_trajectories(turn_motion(right, 90))
  np.testing.assert_allclose(turned[..., 1], -evaluate_trajectories(right)[..., 0], atol=1e-4)
  np.testing.assert_allclose(turned[..., 0], 0, atol=1e-4)


# Together


def test_edits_commute_and_change_nothing_that_they_are_given():
  volume = make_volume(height=9, width=12)
  before = volume.coefficients.copy()
  mask = np.random.default_rng(5).uniform(size=(9, 12)).astype(np.float32)
  one = turn_motion(mask_motion(choose_bands(volume, [1, 2]), mask), 40)
  other = choose_bands(mask_motion(turn_motion(spectral.magnify(volume, 1.0), 40), mask), [2, 1])
  np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-4)
  np.testing.assert_array_equal(volume.coefficients, before)
  assert (one.num_frames, one.fps) == (volume.num_frames, volume.fps)


def test_edits_are_differentiable():
  volume = make_volume()
  mask = np.full((6, 8), 0.5, np.float32)

  def energy(coefficients):
    edited = mask_motion(turn_motion(volume.replace(coefficients=coefficients), 30), mask)
    return jnp.sum(edited.coefficients**2)

  found = jax.grad(energy)(jnp.asarray(volume.coefficients))
  np.testing.assert_allclose(found, 2 * 0.25 * volume.coefficients, rtol=1e-4, atol=1e-3)
