"""Frequency-adaptive normalisation against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.motion import normalization


def _coefficients(shape=(6, 4, 5, 7, 4), seed=0):
  decay = np.exp(-np.arange(shape[1]))[:, None, None, None]
  return (30 * np.random.default_rng(seed).normal(size=shape) * decay).astype(np.float32)


def test_band_scale_is_the_percentile_of_complex_magnitudes():
  coefficients = _coefficients()
  scale = normalization.band_scale(coefficients, percentile=95)
  for k in range(4):
    band = coefficients[:, k].astype(np.float64)
    magnitudes = np.abs(band[..., :2] + 1j * band[..., 2:])
    np.testing.assert_allclose(scale[k], np.percentile(magnitudes, 95), rtol=1e-5)
  single = normalization.band_scale(coefficients[0], percentile=97)
  assert single.shape == (4,)


def test_band_scale_reads_float16_without_overflow_and_is_never_zero():
  coefficients = np.zeros((2, 3, 4, 4, 4), np.float16)
  coefficients[:, 1] = 30000.0
  scale = np.asarray(normalization.band_scale(coefficients, percentile=95))
  np.testing.assert_allclose(scale[1], 30000 * np.sqrt(2), rtol=1e-3)
  assert (scale > 0).all()
  assert np.isfinite(normalization.normalize(coefficients[:, 0].astype(np.float32), scale[:1])).all()


def test_percentile_outside_its_range_is_refused():
  with pytest.raises(UserError, match="percentile=120"):
    normalization.band_scale(_coefficients(), percentile=120)


@settings(max_examples=40, deadline=None)
@given(value=st.floats(-1e4, 1e4, width=32), scale=st.floats(0.0078125, 100, width=32))
def test_normalize_follows_its_formula_and_inverts(value, scale):
  coefficients = np.full((1, 1, 1, 4), value, np.float32)
  normalized = normalization.normalize(coefficients, np.array([scale], np.float32))
  expected = np.sign(value) * np.sqrt(abs(value / scale))
  np.testing.assert_allclose(normalized, np.full_like(coefficients, expected), rtol=1e-5, atol=1e-18)
  back = normalization.denormalize(normalized, np.array([scale], np.float32))
  np.testing.assert_allclose(back, coefficients, rtol=1e-5, atol=1e-30)


def test_volumes_batches_and_slices_are_scaled_alike():
  coefficients = _coefficients()
  scale = normalization.band_scale(coefficients, percentile=95)
  batch = normalization.normalize(coefficients, scale)
  for k in range(4):
    slices = normalization.normalize(coefficients[:, k], jnp.full(6, scale[k]))
    np.testing.assert_allclose(slices, batch[:, k], rtol=1e-6)
  np.testing.assert_allclose(normalization.normalize(coefficients[2], scale), batch[2], rtol=1e-6)
  np.testing.assert_allclose(normalization.normalize(coefficients[2, 1], scale[1]), batch[2, 1], rtol=1e-6)


def test_normalized_bands_share_one_range():
  normalized = normalization.normalize(
    _coefficients(), normalization.band_scale(_coefficients(), percentile=95)
  )
  spread = np.quantile(np.abs(normalized), 0.9, axis=(0, 2, 3, 4))
  assert spread.max() / spread.min() < 1.2
  raw = np.quantile(np.abs(_coefficients()), 0.9, axis=(0, 2, 3, 4))
  assert raw.max() / raw.min() > 10


def test_inverse_has_finite_gradients_through_zero():
  scale = jnp.asarray([3.0])
  values = jnp.asarray([-2.0, 0.0, 0.5, 1.0]).reshape(1, 1, 1, 4)
  gradient = jax.grad(lambda x: normalization.denormalize(x, scale).sum())(values)
  np.testing.assert_allclose(gradient, 2 * 3.0 * np.abs(values), rtol=1e-6)


def test_resolution_scaling_divides_x_by_width_and_y_by_height():
  coefficients = np.ones((2, 3, 5, 10, 4), np.float32)
  scaled = normalization.normalize_by_resolution(coefficients)
  np.testing.assert_allclose(scaled[1, 2, 4, 9], [0.1, 0.2, 0.1, 0.2], rtol=1e-6)
  np.testing.assert_allclose(normalization.denormalize_by_resolution(scaled), coefficients, rtol=1e-6)
