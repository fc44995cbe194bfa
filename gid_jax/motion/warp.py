"""Backward warping: a field sampled where the pixels of a reference have moved to.

Pixel (x, y) of the reference is at (x + u, y + v), pixels from the centre of the first one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, UInt32

from gid_jax.types import AnyArray

DENSITY = 4  # steps of a lattice per pixel
LATTICE_HALO = (5, 6)  # pixels before and behind a tile that its lattice depends on
_SHARPENING = 1 / 8  # of a step against its two neighbours, see `_lattice_taps`
_BITS, _FLOOR = 10, 0.25  # of a colour in a word, and how far below 0 and above 1 it may lie
_LEVELS = (2**_BITS - 1) / (1 + 2 * _FLOOR)


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
  flat = jnp.asarray(values).reshape(-1, channels)
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


def make_lattice(values: Float[AnyArray, "h w 3"]) -> UInt32[Array, "h4 w4"]:
  """A picture [h w 3] in [0, 1] on a lattice four times as dense per axis, for `sample_lattice`: [4h 4w] words.

  Interpolating a picture linearly, or by cubics, takes its finest detail halfway between pixels. So values at quarters
  of a pixel are found first, by a sinc under Lanczos' window, and linear interpolation is left with little to take.
  What it takes on average is given back beforehand. The pixels themselves stay as they are; beyond the border the edge
  repeats.

  Returns:
    [4h 4w] uint32: red, green and blue of ten bits each, which hold -0.25 ... 1.25.
  """
  before, behind = LATTICE_HALO
  return make_lattice_tile(jnp.pad(jnp.asarray(values), ((before, behind), (before, behind), (0, 0)), mode="edge"))


def make_lattice_tile(tile: Float[AnyArray, "h w 3"]) -> UInt32[Array, "h4 w4"]:
  """A part of what `make_lattice` makes of a picture, by a program that suits pictures of every size.

  Args:
    tile: [h w 3] the part, with `LATTICE_HALO` pixels around it; outside the picture its edge repeats.

  Returns:
    [4(h-11) 4(w-11)] uint32.
  """
  taps = jnp.asarray(_lattice_taps())
  planes = jnp.moveaxis(jnp.asarray(tile, jnp.float32), -1, 0)
  height, width = (side - sum(LATTICE_HALO) for side in tile.shape[:2])

  # The phases are taken by loops: in one expression XLA would work out the first axis again for each tap of the second.
  def filter_axis(values, size, axis):
    parts = lambda taps: [tap * jax.lax.slice_in_dim(values, i, i + size, axis=axis) for i, tap in enumerate(taps)]
    return jax.lax.scan(lambda _, taps: (None, sum(parts(taps))), None, taps)[1]

  phases = filter_axis(filter_axis(planes, height, 1), width, 3)  # [columns' phase, rows' phase, 3, h, w]
  levels = jnp.clip((phases + _FLOOR) * _LEVELS + 0.5, 0, 2**_BITS - 1).astype(jnp.uint32)
  red, green, blue = jnp.moveaxis(levels, 2, 0)
  words = red | green << _BITS | blue << 2 * _BITS
  return words.transpose(2, 1, 3, 0).reshape(DENSITY * height, DENSITY * width)


def _lattice_taps() -> Float[np.ndarray, "4 12"]:
  """Of each quarter of a pixel its weights of the pixels from 5 before to 6 behind."""
  before, behind = LATTICE_HALO
  phases = np.arange(DENSITY)[:, None]
  places = np.arange(-before, behind + 1) - phases / DENSITY
  lanczos = lambda x: np.where(np.abs(x) < behind, np.sinc(x) * np.sinc(x / behind), 0)
  # Linear interpolation takes w^2 / 12 of a wave of w radians per step on average, and the window some more.
  neighbours = lanczos(places - 1 / DENSITY) + lanczos(places + 1 / DENSITY)
  taps = (1 + 2 * _SHARPENING) * lanczos(places) - _SHARPENING * neighbours
  return np.where(phases > 0, taps / taps.sum(1, keepdims=True), places == 0).astype(np.float32)


def sample_lattice(
  lattice: UInt32[AnyArray, "n"], height: AnyArray | int, width: AnyArray | int, x: AnyArray, y: AnyArray
) -> Float[Array, "*m 3"]:
  """Samples the lattice of `make_lattice` at places x, y [*m], pixels; beyond the picture's border its edge repeats.

  Where x and y are whole, the pixel itself comes out, to 0.001.

  Args:
    lattice: [n] its rows, one after the other; what is behind the last does not count.
    height: of the picture, pixels; may be traced.
    width: likewise.
    x: [*m] columns.
    y: [*m] rows.

  Returns:
    [*m 3] RGB.
  """
  x, y = (DENSITY * jnp.clip(a, 0, size - 1) for a, size in ((x, width), (y, height)))
  lattice, stride = jnp.asarray(lattice), DENSITY * width

  # A loop is given x and y. In one expression XLA works them out for each of their uses, not always with the same last
  # bit: the place would be that of one and its share that of the other.
  def add_corner(total, corner):
    below, beside = corner
    column, row = x.astype(jnp.int32), y.astype(jnp.int32)
    words = lattice.at[(row + below) * stride + column + beside].get(mode="promise_in_bounds")
    across, down = x - column, y - row
    weight = jnp.where(below, down, 1 - down) * jnp.where(beside, across, 1 - across)
    levels = ((words >> shift & 2**_BITS - 1).astype(jnp.int32) for shift in range(0, 3 * _BITS, _BITS))
    return tuple(colour + weight * level for colour, level in zip(total, levels, strict=True)), None

  corners = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1])
  total, _ = jax.lax.scan(add_corner, (jnp.zeros(jnp.shape(x)),) * 3, corners)
  return jnp.stack(total, -1) / _LEVELS - _FLOOR


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
