"""Red-black over-relaxation of two coupled fields, laid out so that every access is one contiguous slice.

A row made odd gives neighbours opposite parity in the flattened image: then the pixels of one colour are one array, and
so are their neighbours to each side, in the array of the other colour.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def previous(values: Float[Array, "h w"], *, axis: int) -> Float[Array, "h w"]:
  """The value [h w] of the pixel before along an axis, 0 at the beginning."""
  kept = jax.lax.slice_in_dim(values, 0, values.shape[axis] - 1, axis=axis)
  return jnp.pad(kept, [(int(axis == i), 0) for i in range(2)])


def relax(
  xx: Float[Array, "h w"],
  xy: Float[Array, "h w"],
  yy: Float[Array, "h w"],
  bx: Float[Array, "h w"],
  by: Float[Array, "h w"],
  right: Float[Array, "h w"],
  below: Float[Array, "h w"],
  *,
  num_sweeps: int,
  relaxation: float,
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
  """Approximates the solution of (A + L) d = b for two fields d = (du, dv), both components of a pixel at once.

  Args:
    xx, xy, yy: [h w], the symmetric 2 x 2 matrix A of every pixel; A + L must be positive definite.
    bx, by: [h w], the right-hand side b.
    right: [h w], weight of the graph Laplacian L between a pixel and the one to its right; 0 in the last column.
    below: [h w], between a pixel and the one below it; 0 in the last row.
    num_sweeps: sweeps over all pixels, from d = 0.
    relaxation: omega, in (0, 2); 1 is Gauss-Seidel.

  Returns:
    du and dv, [h w] each.
  """
  height, width = xx.shape
  odd_width = width | 1
  half = (height * odd_width + 1) // 2
  # In the array of one colour, the pixels left, right, above and below are these steps away in the other's.
  up = odd_width // 2
  halo = up + 1
  offsets = ((-1, 0, -up - 1, up), (0, 1, -up, up + 1))

  left, above = previous(right, axis=1), previous(below, axis=0)
  total = left + right + above + below
  xx, yy = xx + total, yy + total
  inverse = 1 / (xx * yy - xy * xy)
  coefficients = jnp.stack([left, right, above, below, yy * inverse, -xy * inverse, xx * inverse, bx, by])
  coefficients = jnp.pad(coefficients, ((0, 0), (0, 0), (0, odd_width - width))).reshape(9, -1)
  coefficients = jnp.pad(coefficients, ((0, 0), (0, 2 * half - height * odd_width))).reshape(9, half, 2)
  by_colour = [[coefficients[i, :, colour] for i in range(9)] for colour in (0, 1)]

  def update(own, other, colour):
    wl, wr, wa, wb, ixx, ixy, iyy, cx, cy = by_colour[colour]

    def gather(values, constant):
      parts = [
        weight * jax.lax.slice_in_dim(values, halo + offset, halo + offset + half)
        for weight, offset in zip((wl, wr, wa, wb), offsets[colour], strict=True)
      ]
      return sum(parts, constant)

    sx, sy = gather(other[0], cx), gather(other[1], cy)
    solved = ixx * sx + ixy * sy, ixy * sx + iyy * sy
    updated = []
    for old, new in zip(own, solved, strict=True):
      centre = jax.lax.slice_in_dim(old, halo, halo + half)
      updated.append(jax.lax.dynamic_update_slice_in_dim(old, centre + relaxation * (new - centre), halo, 0))
    return tuple(updated)

  def sweep(_, state):
    red, black = state
    red = update(red, black, 0)
    return red, update(black, red, 1)

  zero = jnp.zeros(half + 2 * halo)
  red, black = jax.lax.fori_loop(0, num_sweeps, sweep, ((zero, zero), (zero, zero)))

  def unpack(component):
    pixels = jnp.stack([red[component], black[component]], -1)[halo : halo + half].reshape(-1)
    return pixels[: height * odd_width].reshape(height, odd_width)[:, :width]

  return unpack(0), unpack(1)
