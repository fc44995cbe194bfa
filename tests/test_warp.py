"""Sampling at moved pixels against SciPy and the definition of cubic convolution."""

import jax
import numpy as np
import pytest
import scipy.ndimage
from helpers import run

from gid_jax.motion.warp import (
  LATTICE_HALO,
  is_inside,
  make_lattice,
  make_lattice_tile,
  sample_cubic,
  sample_lattice,
  sample_linear,
  sample_points,
  to_planes,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def grid(height, width):
  y, x = np.mgrid[:height, :width].astype(float)
  return x, y


@pytest.fixture(scope="module")
def moved():
  """Values [h w c] and a displacement that often leads out of the frame, also to whole pixels."""
  rng = np.random.default_rng(0)
  values, (u, v) = rng.normal(size=(9, 12, 2)), rng.normal(0, 5, (2, 9, 12))
  u[::3], v[::2] = np.round(u[::3]), np.round(v[::2])
  return tuple(np.float32(array) for array in (values, u, v))


def test_linear_sampling(moved):
  values, u, v = moved
  x, y = grid(9, 12)
  sample = lambda plane: scipy.ndimage.map_coordinates(plane, [y + v, x + u], order=1, mode="nearest")
  expected = np.stack([sample(values[..., c]) for c in range(2)], -1)
  np.testing.assert_allclose(run(sample_linear, *moved), expected, atol=1e-5)


def test_sampling_at_points_of_complex_values_down_to_one_pixel():
  rng = np.random.default_rng(1)
  for shape in ((5, 7), (1, 7), (1, 1)):
    values = (rng.normal(size=(*shape, 2)) + 1j * rng.normal(size=(*shape, 2))).astype(np.complex64)
    points = rng.uniform(-3, 9, (4, 3, 2)).astype(np.float32)
    place = [points[..., 1], points[..., 0]]
    expected = [scipy.ndimage.map_coordinates(values[..., c], place, order=1, mode="nearest") for c in range(2)]
    np.testing.assert_allclose(sample_points(values, points), np.stack(expected, -1), atol=1e-5)


def keys_kernel(s):
  """Cubic convolution with a = -1/2 (Keys 1981, equation 15)."""
  s = np.abs(s)
  near, far = 1.5 * s**3 - 2.5 * s**2 + 1, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
  return np.where(s < 1, near, np.where(s < 2, far, 0))


def test_cubic_sampling(moved):
  values, u, v = moved
  x, y = grid(9, 12)
  x, y = np.clip(x + u, 0, 11), np.clip(y + v, 0, 8)
  padded = np.pad(values, ((2, 2), (2, 2), (0, 0)), mode="edge").astype(float)
  weights = (keys_kernel(y[..., None] - np.arange(-2, 11)), keys_kernel(x[..., None] - np.arange(-2, 14)))
  expected = np.einsum("hwi,hwj,ijc->hwc", *weights, padded)
  np.testing.assert_allclose(run(sample_cubic, *moved), expected, atol=1e-5)


def lanczos(x):
  return np.where(np.abs(x) < 6, np.sinc(x) * np.sinc(x / 6), 0)


def enlarge(values):
  """Values [h w c] and those at quarters between, from NumPy's sinc under Lanczos' window, an eighth sharpened."""
  for axis in (0, 1):
    size = values.shape[axis]
    places = np.arange(4 * size) / 4
    away = places[:, None] - np.arange(-8, size + 8)
    weights = 1.25 * lanczos(away) - (lanczos(away - 0.25) + lanczos(away + 0.25)) / 8
    weights = np.where((places % 1 == 0)[:, None], away == 0, weights / weights.sum(1, keepdims=True))
    padded = np.pad(np.moveaxis(values, axis, 0), ((8, 8), (0, 0), (0, 0)), mode="edge")
    values = np.moveaxis(np.einsum("pq,qwc->pwc", weights, padded), 0, axis)
  return values


def sample_photo(values, u, v):
  x, y = grid(*values.shape[:2])
  return sample_lattice(make_lattice(values).ravel(), *values.shape[:2], x + u, y + v)


def test_lattice_sampling(moved):
  _, u, v = moved
  values = np.random.default_rng(4).uniform(size=(9, 12, 3)).astype(np.float32)
  x, y = grid(9, 12)
  dense = enlarge(values.astype(float)).clip(-0.25, 1.25)
  place = [4 * np.clip(y + v, 0, 8), 4 * np.clip(x + u, 0, 11)]
  expected = [scipy.ndimage.map_coordinates(dense[..., c], place, order=1, mode="nearest") for c in range(3)]
  # Ten bits for 1.5: half a step is 0.00073.
  np.testing.assert_allclose(run(sample_photo, values, u, v), np.stack(expected, -1), atol=7.4e-4)
  zero = np.zeros_like(u)
  found = run(sample_photo, values, zero, zero)
  np.testing.assert_allclose(found, values, atol=7.4e-4)
  levels = np.round(values * 255)
  assert (np.round(np.asarray(run(sample_photo, np.float32(levels / 255), zero, zero)) * 255) == levels).all()


def test_a_lattice_holds_what_overshoots():
  edge = np.zeros((9, 24, 3), np.float32)
  edge[:, 12:] = (1.0, 0.5, 0.0)
  u = np.full((9, 24), 0.5, np.float32)
  found = np.asarray(run(sample_photo, edge, u, 0 * u))[4]
  assert found[:, 0].max() > 1.05 and found[:, 0].min() < -0.05
  np.testing.assert_allclose(found[:, 1], found[:, 0] / 2, atol=2e-3)
  np.testing.assert_allclose(found[:, 2], 0, atol=7.4e-4)


def test_a_lattice_is_sharper_than_cubic_convolution():
  x = np.arange(64)
  wave = lambda x: np.tile(0.5 + 0.5 * np.cos(2 * np.pi * x / 4), (8, 1))[..., None].repeat(3, -1).astype(np.float32)
  moved = lambda way, u: run(way, wave(x), np.full((8, 64), u), np.zeros((8, 64)))
  error = lambda way, u: np.abs(moved(way, u) - wave(x + u))[:, 20:-20].max()
  assert max(error(sample_photo, u) for u in (0.125, 0.25, 0.375, 0.5)) < 0.018  # four pixels a wave of 0.5
  assert error(sample_cubic, 0.5) > 0.04


@pytest.mark.parametrize("size", [(9, 12), (40, 33)])
def test_tiles_of_a_lattice_are_the_lattice(size):
  values = np.random.default_rng(3).uniform(size=(*size, 3)).astype(np.float32)
  expected = np.asarray(run(make_lattice, values))
  found = np.zeros_like(expected)
  before, behind = LATTICE_HALO
  around, make = np.arange(-before, 16 + behind), jax.jit(make_lattice_tile)
  for top in range(0, size[0], 16):
    for left in range(0, size[1], 16):
      tile = values.take(top + around, 0, mode="clip").take(left + around, 1, mode="clip")
      place = found[4 * top : 4 * top + 64, 4 * left : 4 * left + 64]
      place[:] = make(tile)[: place.shape[0], : place.shape[1]]
  for shift in (0, 10, 20):  # sums may be rounded otherwise
    np.testing.assert_allclose(found >> shift & 1023, expected >> shift & 1023, atol=1)


def test_inside_are_pixels_that_land_between_the_outermost_centres():
  landings = set()
  for u, v in np.random.default_rng(1).integers(-6, 7, (5, 2, 9, 12)) / 2:
    found = np.asarray(run(is_inside, u, v))
    for row, column in np.ndindex(9, 12):
      x, y = column + u[row, column], row + v[row, column]
      fits = 0 <= x <= 11, 0 <= y <= 8
      assert found[row, column] == all(fits), (x, y)
      landings |= {("x", x)} if fits[1] else set()
      landings |= {("y", y)} if fits[0] else set()
  # Among them the outermost centres themselves, and places next to them.
  sides = [(axis, edge) for axis, last in (("x", 11), ("y", 8)) for edge in (0, last)]
  assert all((axis, edge + step) in landings for axis, edge in sides for step in (-0.5, 0, 0.5))


def test_planes_are_the_channels():
  values = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
  np.testing.assert_array_equal(run(to_planes, values), np.moveaxis(values, -1, 0))
