"""Image pyramids and their filters against SciPy."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from helpers import run

from gid_jax.flow.estimate import DEFAULT, REFERENCE
from gid_jax.flow.pyramid import image_to_features, pyramid_sizes
from gid_jax.motion.warp import blur, correlate

pytestmark = pytest.mark.usefixtures("quick_compilation")

SETTINGS = dataclasses.replace(DEFAULT, min_size=16)


def list_sizes(height, width, settings):
  return pyramid_sizes(height, width, ratio=settings.pyramid_ratio, min_size=settings.min_size)


def test_pyramid_sizes():
  assert list_sizes(48, 64, SETTINGS) == [(48, 64), (24, 32), (12, 16)]
  assert list_sizes(9, 41, DEFAULT) == [(9, 41), (4, 20)]
  assert list_sizes(9, 17, DEFAULT) == [(9, 17)]
  assert list_sizes(3, 27, REFERENCE) == [(3, 27), (2, 20)]


def test_features_and_their_gradients():
  image = np.random.default_rng(0).random((10, 13, 3)).astype(np.float32)
  padded = np.pad(image, ((12, 12), (12, 12), (0, 0)), mode="edge").astype(float)
  red, green, blue = np.moveaxis(padded, -1, 0)
  grey = padded @ [0.299, 0.587, 0.114]
  slope, smooth = np.array([1, -8, 0, 8, -1]) / 12, [0.02, 0.11, 0.74, 0.11, 0.02]
  filter_axis = scipy.ndimage.correlate1d
  features = [grey, filter_axis(grey, slope, 1), filter_axis(grey, slope, 0), green - red, green - blue]
  features = [filter_axis(filter_axis(feature, smooth, 0), smooth, 1) for feature in features]
  planes = features + [filter_axis(feature, slope, axis) for axis in (1, 0) for feature in features]
  expected = np.stack(planes)[:, 12:-12, 12:-12]
  np.testing.assert_allclose(run(image_to_features, image), expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_correlate_keeps_what_lies_inside(axis):
  values = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
  taps = (0.5, 0.0, -2.0, 1.0)
  expected = np.apply_along_axis(lambda line: np.correlate(line, taps, "valid"), axis, values)
  np.testing.assert_allclose(run(lambda x: correlate(x, taps, axis), values), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_blur_is_gaussian(sigma):
  values = np.random.default_rng(0).normal(size=(14, 25)).astype(np.float32)
  expected = scipy.ndimage.gaussian_filter(values.astype(float), sigma, mode="nearest", truncate=3.0)
  np.testing.assert_allclose(run(lambda x: blur(x, sigma), values), expected, atol=1e-5)
