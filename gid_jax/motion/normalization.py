"""Frequency-adaptive normalisation: every band brought to the same range before diffusion (section 4.1).

Motion power falls roughly exponentially with frequency, so one scale for all bands would leave the high ones
near zero. Each band k is divided by its own s[k], a high percentile of its magnitudes over the training set,
and square roots spread the many small coefficients:

  S' = sign(S) sqrt(|S / s|),    S = S' |S'| s,    on each real scalar.

The forward has infinite slope at 0 and is for data only; gradients pass through the inverse, which is smooth.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.types import AnyArray

# Strength that a window has at least where windows are brought to one; see `gid_jax.data.examples.measure_strength`.
WEAKEST = 15.0
# Magnitudes are counted in bins of 0.5 %, which bounds the error of a percentile.
_LOWEST, _BIN_WIDTH, _NUM_BINS = np.log(1e-4), 0.005, 4146
_EDGES = _LOWEST + _BIN_WIDTH * np.arange(_NUM_BINS)
_SMALLEST_SCALE = 1e-6  # pixels; a band that never moves still has to be divided by something


def band_scale(coefficients: Float[AnyArray, "*b k h w 4"], *, percentile: float) -> Float[Array, "k"]:
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


def _expand(scale: Float[AnyArray, "*s"]) -> Float[Array, "*s 1 1 1"]:
  return jnp.asarray(scale)[..., None, None, None]


def normalize(coefficients: Float[AnyArray, "*b h w 4"], scale: Float[AnyArray, "*s"]) -> Float[Array, "*b h w 4"]:
  """sign(S) sqrt(|S / s|) on each real scalar; do not differentiate it (section 4.1).

  Args:
    coefficients: [*b k h w 4] with `scale` [k], or slices [b h w 4] with `scale` [b], pixels.
    scale: any shape that broadcasts to the axes of `coefficients` before h, pixels, positive.

  Returns:
    Normalised coefficients of the same shape, mostly within [-1, 1].
  """
  return jnp.sign(coefficients) * jnp.sqrt(jnp.abs(coefficients) / _expand(scale))


def denormalize(normalized: Float[AnyArray, "*b h w 4"], scale: Float[AnyArray, "*s"]) -> Float[AnyArray, "*b h w 4"]:
  """Inverse of `normalize`, x |x| s: smooth, [*b k h w 4] in pixels again with `scale` [k]."""
  return normalized * jnp.abs(normalized) * _expand(scale)


def _size(coefficients: Float[AnyArray, "*b h w 4"]) -> Float[AnyArray, "4"]:
  height, width = coefficients.shape[-3:-1]
  return jnp.asarray([width, height, width, height], jnp.float32)


def normalize_by_resolution(coefficients: Float[AnyArray, "*b h w 4"]) -> Float[AnyArray, "*b h w 4"]:
  """Ablation "scale with resolution": x of [*b h w 4] divided by the grid's width and y by its height (Table 2)."""
  return coefficients / _size(coefficients)


def denormalize_by_resolution(normalized: Float[AnyArray, "*b h w 4"]) -> Float[AnyArray, "*b h w 4"]:
  """Inverse of `normalize_by_resolution`: fractions of the grid [*b h w 4] back to its pixels."""
  return normalized * _size(normalized)


class BandHistogram:
  """Counts of coefficient magnitudes per band, from which percentiles are read.

  Attributes:
    counts: [k n] float64, one histogram per band over the logarithm of the magnitude.
    power: [k 2] float64, running sum of the squared magnitudes of x and y.
    num_values: coefficients counted per band and axis.
  """

  def __init__(self, num_bands: int):
    self.counts = np.zeros((num_bands, _NUM_BINS + 1))
    self.power = np.zeros((num_bands, 2))
    self.num_values = 0

  def add(self, coefficients: Float[np.ndarray, "k h w 4"]) -> None:
    """Counts the coefficients of one window, [k h w 4] (Re x, Re y, Im x, Im y), pixels."""
    squares = coefficients.astype(np.float32) ** 2
    squares = squares[..., :2] + squares[..., 2:]
    self.power += squares.sum((1, 2), dtype=np.float64)
    self.num_values += squares.shape[1] * squares.shape[2]
    logarithms = np.log(np.maximum(squares, np.float32(1e-12))) / 2
    bins = np.clip(np.ceil((logarithms - _LOWEST) / _BIN_WIDTH), 0, _NUM_BINS).astype(np.int64)
    for band, values in enumerate(bins):
      self.counts[band] += np.bincount(values.ravel(), minlength=_NUM_BINS + 1)

  def merge(self, other: "BandHistogram") -> None:
    """Adds what another histogram of as many bands has counted."""
    self.counts += other.counts
    self.power += other.power
    self.num_values += other.num_values


def histograms_to_percentile(
  histograms: Sequence[BandHistogram], percentile: float
) -> Float[np.ndarray, "k"]:
  """Reads a percentile per band from one or more histograms, each given the same weight (section 4.1).

  Args:
    histograms: groups of windows; empty ones are ignored.
    percentile: 0 ... 100.

  Returns:
    [k] float64 magnitudes in pixels.

  Raises:
    UserError: every histogram is empty.
  """
  filled = [histogram for histogram in histograms if histogram.num_values]
  if not filled:
    raise UserError("No training windows to take statistics from: build the data first.")
  density = sum(histogram.counts / histogram.counts.sum(1, keepdims=True) for histogram in filled)
  assert isinstance(density, np.ndarray)
  cumulative = np.cumsum(density, axis=1) / len(filled)
  edges = np.concatenate([_EDGES, _EDGES[-1:]])
  return np.exp([np.interp(percentile / 100, band, edges) for band in cumulative])
