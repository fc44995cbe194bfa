"""Frequency-adaptive normalisation: every band brought to the same range before diffusion (section 4.1).

Motion power falls roughly exponentially with frequency, so one scale for all bands would leave the high ones
near zero. Each band k is divided by its own s[k], a high percentile of its magnitudes over the training set,
and square roots spread the many small coefficients:

  S' = sign(S) sqrt(|S / s|),    S = S' |S'| s,    on each real scalar.

The forward has infinite slope at 0 and is for data only; gradients pass through the inverse, which is smooth.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.errors import UserError

# Strength that a window has at least where windows are brought to one; see `gid_jax.examples.measure_strength`.
WEAKEST = 15.0
_SMALLEST_SCALE = 1e-6  # pixels; a band that never moves still has to be divided by something


def band_scale(coefficients: Float[Array, "*b k h w 4"], *, percentile: float) -> Float[Array, "k"]:
  """Percentile of the magnitude of the complex coefficients of each band, over everything else (section 4.1).

  Args:
    coefficients: [*b k h w 4] channels (Re x, Re y, Im x, Im y), pixels; x and y count as two coefficients.
    percentile: 0 ... 100.

  Returns:
    s [k] in pixels, float32, never zero.

  Raises:
    UserError: if `percentile` is not within 0 ... 100.
  """
  if not 0 <= percentile <= 100:
    raise UserError(f"percentile={percentile}: must lie within 0 and 100")
  coefficients = jnp.asarray(coefficients, jnp.float32)  # float16 squares overflow at 256
  magnitudes = jnp.hypot(coefficients[..., :2], coefficients[..., 2:])
  by_band = jnp.moveaxis(magnitudes, -4, 0).reshape(magnitudes.shape[-4], -1)
  return jnp.maximum(jnp.percentile(by_band, percentile, axis=1), _SMALLEST_SCALE)


def _expand(scale: Float[Array, "*s"]) -> Float[Array, "*s 1 1 1"]:
  return jnp.asarray(scale)[..., None, None, None]


def normalize(coefficients: Float[Array, "*b h w 4"], scale: Float[Array, "*s"]) -> Float[Array, "*b h w 4"]:
  """sign(S) sqrt(|S / s|) on each real scalar; do not differentiate it (section 4.1).

  Args:
    coefficients: [*b k h w 4] with `scale` [k], or slices [b h w 4] with `scale` [b], pixels.
    scale: any shape that broadcasts to the axes of `coefficients` before h, pixels, positive.

  Returns:
    Normalised coefficients of the same shape, mostly within [-1, 1].
  """
  return jnp.sign(coefficients) * jnp.sqrt(jnp.abs(coefficients) / _expand(scale))


def denormalize(normalized: Float[Array, "*b h w 4"], scale: Float[Array, "*s"]) -> Float[Array, "*b h w 4"]:
  """Inverse of `normalize`, x |x| s: smooth, [*b k h w 4] in pixels again with `scale` [k]."""
  return normalized * jnp.abs(normalized) * _expand(scale)


def _size(coefficients: Float[Array, "*b h w 4"]) -> Float[Array, "4"]:
  height, width = coefficients.shape[-3:-1]
  return jnp.asarray([width, height, width, height], jnp.float32)


def normalize_by_resolution(coefficients: Float[Array, "*b h w 4"]) -> Float[Array, "*b h w 4"]:
  """Ablation "scale with resolution": x of [*b h w 4] divided by the grid's width and y by its height (Table 2)."""
  return coefficients / _size(coefficients)


def denormalize_by_resolution(normalized: Float[Array, "*b h w 4"]) -> Float[Array, "*b h w 4"]:
  """Inverse of `normalize_by_resolution`: fractions of the grid [*b h w 4] back to its pixels."""
  return normalized * _size(normalized)
