"""Backward warping: a field sampled where the pixels of a reference have moved to.

Pixel (x, y) of the reference is at (x + u, y + v), pixels from the centre of the first one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int

from gid_jax.types import AnyArray

SPLINE_MARGIN = 2  # coefficients of a spline beyond the values on every side, which its kernel needs at the border
# How far the inverse filter of a spline reaches: what is left out is below 1e-7.
_SPLINE_REACH = 12
_SINC_REACH = 6  # values on either side of a place halfway between two


def _positions(u: Float[AnyArray, "h w"], v: Float[AnyArray, "h w"]):
  height, width = u.shape
  return jnp.arange(width, dtype=jnp.float32) + u, jnp.arange(height, dtype=jnp.float32)[:, None] + v


def is_inside(u: Float[AnyArray, "h w"], v: Float[AnyArray, "h w"]) -> Bool[Array, "h w"]:
  """Whether each pixel, moved by (u, v) [h w] pixels, is still within the frame."""
  height, width = u.shape
  x, y = _positions(u, v)
  return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _sample(values: Inexact[AnyArray, "h w c"], x: AnyArray, y: AnyArray, weigh: Callable) -> Inexact[Array, "*n c"]:
  """Interpolates `values` at x, y [*n] with the separable kernel whose taps `weigh` gives; edges repeat."""
  height, width, channels = values.shape
  return _sample_rows(jnp.asarray(values).reshape(-1, channels), height, width, x, y, weigh)


def _sample_rows(flat, height, width, x, y, weigh: Callable) -> Inexact[Array, "*n c"]:
  """`_sample` of the rows of a picture one after the other [n c]; its size may be traced."""
  x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  column, row = x.astype(jnp.int32), y.astype(jnp.int32)
  weights_x, weights_y = weigh(x - column), weigh(y - row)
  before = len(weights_x) // 2 - 1
  columns = [jnp.clip(column + j - before, 0, width - 1) for j in range(len(weights_x))]
  result = jnp.zeros(())
  for i, weight_y in enumerate(weights_y):
    start = jnp.clip(row + i - before, 0, height - 1) * width
    line = jnp.zeros(())
    for place, weight_x in zip(columns, weights_x, strict=True):
      # Rows and columns are clipped above, so every index is good.
      line += weight_x[..., None] * flat.at[start + place].get(mode="promise_in_bounds")
    result += weight_y[..., None] * line
  return result


def _weigh_linear(f: Array):
  return 1 - f, f


def sample_points(values: Inexact[AnyArray, "h w c"], points: Float[AnyArray, "*n 2"]) -> Inexact[Array, "*n c"]:
  """Samples values [h w c], real or complex, bilinearly at points [*n 2] (x, y); beyond the border the edge repeats."""
  points = jnp.asarray(points, jnp.float32)
  return _sample(values, points[..., 0], points[..., 1], _weigh_linear)


def sample_linear(values: Float[AnyArray, "h w c"], u: AnyArray, v: AnyArray) -> Float[Array, "h w c"]:
  """Samples values [h w c] bilinearly at the moved pixels; u, v [h w] pixels, beyond the border the edge repeats."""
  return _sample(values, *_positions(u, v), _weigh_linear)


def sample_cubic(values: Float[AnyArray, "h w c"], u: AnyArray, v: AnyArray) -> Float[Array, "h w c"]:
  """Samples values [h w c] by cubic convolution (Keys 1981, a = -1/2); otherwise as `sample_linear`.

  Bilinear sampling blurs, and optical flow would follow the blur.
  """
  return _sample(
    values,
    *_positions(u, v),
    lambda f: (
      f * (-0.5 + f * (1 - 0.5 * f)),
      1 + f * f * (1.5 * f - 2.5),
      f * (0.5 + f * (2 - 1.5 * f)),
      f * f * (0.5 * f - 0.5),
    ),
  )


def make_spline(values: Float[AnyArray, "h w c"]) -> Float[Array, "h2 w2 c"]:
  """Coefficients of a picture [h w c] for `sample_spline`: the cubic spline through its values and those between.

  A cubic spline through the values alone takes a fifth of the finest detail (the variance of the Laplacian) halfway
  between pixels. Through twice as many per axis, found by a sinc under Lanczos' window, it takes a twentieth. The
  coefficients are these values filtered by the inverse of the B-spline's taps (1, 4, 1) / 6 (Unser et al. 1993), which
  is a two-sided exponential; beyond the border the edge repeats.

  Returns:
    [2h+5 2w+5 c] float32: with a margin on every side, which the kernel needs at the border.
  """
  sinc, inverse = _spline_taps()
  spline = jnp.asarray(values, jnp.float32)
  for axis in (0, 1):
    side = spline.shape[axis]
    widths = [(_SINC_REACH - 1, _SINC_REACH) if i == axis else (0, 0) for i in range(3)]
    between = correlate(jnp.pad(spline, widths, mode="edge"), sinc, axis)
    doubled = jnp.stack([spline, between], axis + 1)
    doubled = doubled.reshape(*(2 * side if i == axis else length for i, length in enumerate(spline.shape)))
    doubled = jax.lax.slice_in_dim(doubled, 0, 2 * side - 1, axis=axis)
    margin = _SPLINE_REACH + SPLINE_MARGIN
    widths = [(margin, margin + 2) if i == axis else (0, 0) for i in range(3)]
    spline = correlate(jnp.pad(doubled, widths, mode="edge"), inverse, axis)
  return spline


def _spline_taps() -> tuple[tuple[float, ...], tuple[float, ...]]:
  places = np.arange(-_SINC_REACH, _SINC_REACH) + 0.5
  sinc = np.sinc(places) * np.sinc(places / _SINC_REACH)
  decay = 3**0.5 - 2
  inverse = tuple(3**0.5 * decay ** abs(k) for k in range(-_SPLINE_REACH, _SPLINE_REACH + 1))
  return tuple((sinc / sinc.sum()).tolist()), inverse


# Pixels around a tile that its coefficients depend on.
SPLINE_HALO = (_SPLINE_REACH + SPLINE_MARGIN) // 2 + _SINC_REACH - 1


def make_spline_tile(
  tile: Float[AnyArray, "h w c"], start: Int[AnyArray, "2"], size: Int[AnyArray, "2"]
) -> Float[Array, "h2 w2 c"]:
  """A part of what `make_spline` makes of a picture, by a program that suits pictures of every size.

  Args:
    tile: [h w c] the picture's pixels from `start - SPLINE_HALO` on, its edge repeated outside.
    start: row and column, of which the coefficients 2 `start` are the first.
    size: height and width of the whole picture.

  Returns:
    [2(h-24) 2(w-24) c].
  """
  sinc, inverse = _spline_taps()
  spline = jnp.asarray(tile, jnp.float32)
  for axis in (0, 1):
    between = correlate(spline, sinc, axis)
    count = between.shape[axis]
    values = jax.lax.slice_in_dim(spline, _SINC_REACH - 1, _SINC_REACH - 1 + count, axis=axis)
    doubled = jnp.stack([values, between], axis + 1)
    doubled = doubled.reshape(*(2 * count if i == axis else length for i, length in enumerate(values.shape)))
    # Beyond the picture's own border its last value repeats.
    first = 2 * start[axis] - _SPLINE_REACH - SPLINE_MARGIN
    places = jnp.clip(first + jnp.arange(2 * count - 2), 0, 2 * size[axis] - 2) - first
    spline = correlate(doubled.take(places, axis, mode="clip"), inverse, axis)
  return spline


def spline_size(spline: Float[AnyArray, "h2 w2 c"]) -> tuple[int, int]:
  """Height and width of the picture that `make_spline` was given, of its coefficients [h2 w2 c]."""
  height, width = ((side - 2 * SPLINE_MARGIN - 1) // 2 for side in spline.shape[:2])
  return height, width


def sample_spline(spline: Float[AnyArray, "h2 w2 c"], u: AnyArray, v: AnyArray) -> Float[Array, "h w c"]:
  """Samples the spline of `make_spline` at moved pixels, u, v [h w]; beyond the picture's border its edge repeats.

  It passes through every value.
  """
  return sample_spline_rows(spline.reshape(-1, spline.shape[-1]), *spline_size(spline), *_positions(u, v))


def sample_spline_rows(
  spline: Float[AnyArray, "n c"], height: AnyArray | int, width: AnyArray | int, x: AnyArray, y: AnyArray
) -> Float[Array, "*m c"]:
  """Like `sample_spline` at places x, y [*m], of the rows of the spline one after the other [n c].

  Height and width are those of the picture and may be traced; what is behind the last row does not count.
  """
  x, y = (2 * jnp.clip(a, 0, size - 1) + SPLINE_MARGIN for a, size in ((x, width), (y, height)))
  rows, columns = (2 * size + 2 * SPLINE_MARGIN + 1 for size in (height, width))
  return _sample_rows(
    jnp.asarray(spline),
    rows,
    columns,
    x,
    y,
    lambda f: (
      (1 - f) ** 3 / 6,
      2 / 3 - f * f * (1 - f / 2),
      1 / 6 + f * (0.5 + f * (0.5 - f / 2)),
      f**3 / 6,
    ),
  )


def to_planes(values: Float[AnyArray, "*n c"]) -> Float[Array, "c *n"]:
  """Moves the channels of [*n c] first: [c *n].

  By a product, before which XLA computes its input once; a gather that is transposed it repeats for every use.
  """
  *places, channels = values.shape
  planes = jnp.einsum("pc,dc->dp", values.reshape(-1, channels), jnp.eye(channels), precision="highest")
  return planes.reshape(channels, *places)


def correlate(values: AnyArray, taps: tuple[float, ...], axis: int) -> Array:
  """Correlates one axis of an array [...] with `taps` where all of them fall inside: that axis gets shorter."""
  axis %= values.ndim
  size = values.shape[axis] - len(taps) + 1
  parts = [tap * jax.lax.slice_in_dim(values, i, i + size, axis=axis) for i, tap in enumerate(taps) if tap]
  return sum(parts[1:], parts[0])


def blur(values: Float[Array, "h w"], sigma: float) -> Float[Array, "h w"]:
  """Blurs [h w] by a Gaussian cut off at 3 sigma pixels; beyond the border the edge repeats."""
  reach = int(3 * sigma + 0.5)
  taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
  taps = tuple((taps / taps.sum()).tolist())
  return correlate(correlate(jnp.pad(values, reach, mode="edge"), taps, -1), taps, -2)
