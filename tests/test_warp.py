"""Sampling at moved pixels against SciPy and the definition of cubic convolution."""

import jax
import numpy as np
import pytest
import scipy.ndimage
from helpers import run

from gid_jax.motion.warp import (
  SPLINE_HALO,
  is_inside,
  make_spline,
  make_spline_tile,
  sample_cubic,
  sample_linear,
  sample_points,
  sample_spline,
  spline_size,
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


def double(values):
  """Values [h w c] and those between, as NumPy's sinc under Lanczos' window of 12 values has them."""
  places = np.arange(-6, 6) + 0.5
  taps = np.sinc(places) * np.sinc(places / 6)
  for axis in (0, 1):
    padded = np.moveaxis(np.pad(values, [(6, 6) if i == axis else (0, 0) for i in range(3)], mode="edge"), axis, 0)
    between = sum(tap * padded[i + 1 : len(padded) - 11 + i] for i, tap in enumerate(taps / taps.sum()))
    pairs = np.stack([padded[6:-6], between], 1)
    values = np.moveaxis(pairs.reshape(-1, *pairs.shape[2:])[:-1], 0, axis)
  return values


def test_spline_sampling(moved):
  values, u, v = moved
  x, y = grid(9, 12)
  # SciPy's spline sees the same picture, its edges repeated further than any sample is from the border.
  padded = np.pad(double(values.astype(float)), ((30, 30), (30, 30), (0, 0)), mode="edge")
  place = [2 * np.clip(y + v, 0, 8) + 30, 2 * np.clip(x + u, 0, 11) + 30]
  expected = [scipy.ndimage.map_coordinates(padded[..., c], place, order=3) for c in range(values.shape[-1])]
  sample = lambda values, u, v: sample_spline(make_spline(values), u, v)
  np.testing.assert_allclose(run(sample, *moved), np.stack(expected, -1), atol=1e-5)
  zero = np.zeros_like(u)
  np.testing.assert_allclose(run(sample, values, zero, zero), values, atol=1e-6)
  assert spline_size(run(make_spline, values)) == (9, 12)


def test_a_spline_is_sharper_than_cubic_convolution():
  x = np.arange(64)
  wave = lambda x: np.tile(np.cos(2 * np.pi * x / 4), (8, 1))[..., None].astype(np.float32)  # four pixels a wave
  quarter = np.full((8, 64), 0.25, np.float32)
  sample = lambda values, u, v: sample_spline(make_spline(values), u, v)
  error = lambda way, u: np.abs(run(way, wave(x), u, 0 * u) - wave(x + u[0]))[:, 20:-20].max()
  assert error(sample, quarter) < 0.005 and error(sample, 2 * quarter) < 0.005
  assert error(sample_cubic, 2 * quarter) > 0.08


@pytest.mark.parametrize("size", [(9, 12), (40, 33)])
def test_tiles_of_a_spline_are_the_spline(size):
  values = np.random.default_rng(3).uniform(size=(*size, 3)).astype(np.float32)
  expected = np.asarray(run(make_spline, values))
  found = np.full_like(expected, np.nan)
  around, make = np.arange(-SPLINE_HALO, 16 + SPLINE_HALO), jax.jit(make_spline_tile)
  for top in range(0, size[0] + 3, 16):
    for left in range(0, size[1] + 3, 16):
      tile = values.take(top + around, 0, mode="clip").take(left + around, 1, mode="clip")
      place = found[2 * top : 2 * top + 32, 2 * left : 2 * left + 32]
      place[:] = make(tile, np.array([top, left]), np.array(size))[: place.shape[0], : place.shape[1]]
  np.testing.assert_allclose(found, expected, atol=1e-6)


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
