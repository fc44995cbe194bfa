"""Forward warping (splatting) of pixels along a displacement field, in four modes (section 5).

A source pixel at (x, y) lands at (x, y) + flow and is shared among the four pixels around that place by
bilinear shares b. With source weights a, a target pixel receives

  sum:      sum b v                     average:  a = 1
  linear:   a given                     softmax:  a = exp(depth)     ->  sum a b v / sum a b.

Targets outside the image and non-finite displacements are dropped. Everything that lands is added by one
segment_sum over the four corners of all sources, in float32. What nothing lands on is a hole; `fill_holes` closes it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.types import AnyArray

_SMALLEST_SHARE = 1e-30  # below this a corner is not landed on: exp(-log b) must stay finite in float32


class _Landing(NamedTuple):
  """Where the four corners of each source fall (`height * width` if nowhere) and with which shares."""

  targets: Int[Array, "4 n"]
  shares: Float[Array, "4 n"]


def _land(flow: Float[AnyArray, "h w 2"]) -> _Landing:
  height, width = flow.shape[:2]
  flow = jnp.asarray(flow, jnp.float32)
  finite = jnp.all(jnp.isfinite(flow), axis=-1)
  flow = jnp.where(finite[..., None], flow, 0.0)  # before any arithmetic, or gradients become NaN
  x = (jnp.arange(width, dtype=jnp.float32) + flow[..., 0]).ravel()
  y = (jnp.arange(height, dtype=jnp.float32)[:, None] + flow[..., 1]).ravel()
  inside = finite.ravel() & (x > -1) & (x < width) & (y > -1) & (y < height)
  x, y = jnp.where(inside, x, 0.0), jnp.where(inside, y, 0.0)
  left, top = jnp.floor(x), jnp.floor(y)
  right_share, lower_share = x - left, y - top
  left, top = left.astype(jnp.int32), top.astype(jnp.int32)
  targets, shares = [], []
  for dy, vertical in ((0, 1 - lower_share), (1, lower_share)):
    for dx, horizontal in ((0, 1 - right_share), (1, right_share)):
      column, row = left + dx, top + dy
      lands = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
      # Past the end is dropped; a negative index would wrap around.
      targets.append(jnp.where(lands, row * width + column, height * width))
      shares.append(jnp.where(lands, vertical * horizontal, 0.0))
  return _Landing(jnp.stack(targets), jnp.stack(shares))


def _add_up(rows: Float[Array, "4 n c"], landing: _Landing, height: int, width: int):
  """Sums the rows that land on each pixel: [h w c]."""
  flat = rows.reshape(-1, rows.shape[-1])
  total = jax.ops.segment_sum(flat, landing.targets.ravel(), num_segments=height * width)
  return total.reshape(height, width, -1)


def _blend(values: Float[AnyArray, "h w c"], landing: _Landing, weights: Float[AnyArray, "4 n"], eps: float):
  """Weighted mean of what lands on each pixel [h w c], and the mass of the plain shares [h w 1]."""
  height, width, channels = values.shape
  flat = jnp.asarray(values, jnp.float32).reshape(-1, channels)
  # Columns: the values, their weight, the mass; joined before the weighting, a quarter has to be copied.
  columns = jnp.concatenate([flat, jnp.ones_like(flat[:, :1]), jnp.zeros_like(flat[:, :1])], axis=-1)
  mass_column = (jnp.arange(channels + 2) == channels + 1).astype(jnp.float32)
  rows = columns * weights[..., None] + mass_column * landing.shares[..., None]
  total = _add_up(rows, landing, height, width)
  mass = total[..., -1:]
  warped = jnp.where(mass > 0, total[..., :-2] / (total[..., -2:-1] + eps), 0.0)
  return warped.astype(values.dtype), mass


def sum_splat(
  values: Float[AnyArray, "h w c"], flow: Float[AnyArray, "h w 2"]
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps `values` by `flow` pixels and adds up what lands together.

  Args:
    values: [h w c], any float type.
    flow: [h w 2] displacement (dx, dy) in pixels; non-finite entries drop their pixel.

  Returns:
    The sums [h w c] in the type of `values` and the mass [h w 1] float32: the sum of the bilinear shares that
    landed; mass 0 is a hole.
  """
  height, width, channels = values.shape
  landing = _land(flow)
  flat = jnp.asarray(values, jnp.float32).reshape(-1, channels)
  columns = jnp.concatenate([flat, jnp.ones_like(flat[:, :1])], axis=-1)
  total = _add_up(columns * landing.shares[..., None], landing, height, width)
  return total[..., :-1].astype(values.dtype), total[..., -1:]


def average_splat(
  values: Float[AnyArray, "h w c"], flow: Float[AnyArray, "h w 2"], *, eps: float = 1e-7
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps [h w c] by `flow` [h w 2] pixels; collisions are averaged. Otherwise as `softmax_splat`."""
  total, mass = sum_splat(jnp.asarray(values, jnp.float32), flow)
  return jnp.where(mass > 0, total / (mass + eps), 0.0).astype(values.dtype), mass


def linear_splat(
  values: Float[AnyArray, "h w c"],
  flow: Float[AnyArray, "h w 2"],
  weights: Float[AnyArray, "h w"],
  *,
  eps: float = 1e-7,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps `values` by `flow` pixels; collisions weighted by `weights` [h w] >= 0.

  The supplement's equation 11 writes the splatting so: its weights are W itself, not exp(W). Where all that lands
  has weight 0 the result is 0 although the mass is not. Otherwise as `softmax_splat`.
  """
  landing = _land(flow)
  return _blend(values, landing, landing.shares * jnp.asarray(weights, jnp.float32).ravel(), eps)


def _softmax_weights(landing: _Landing, depth: Float[Array, "n"], num_pixels: int) -> Float[Array, "4 n"]:
  """Shares times exp(depth - m), with m the largest depth + log(share) that meets in the same target pixel.

  One maximum for the whole image would not do: a pixel some 100 px less deep than it underflows to nothing
  although nothing nearer lands on it. m cancels in the quotient, so no gradient has to pass through it.
  """
  landed = landing.shares > _SMALLEST_SHARE
  logits = jnp.where(landed, depth + jnp.log(jnp.where(landed, landing.shares, 1.0)), -jnp.inf)
  highest = jax.ops.segment_max(
    jax.lax.stop_gradient(logits).ravel(), landing.targets.ravel(), num_segments=num_pixels
  )
  highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
  exponent = depth - highest[jnp.minimum(landing.targets, num_pixels - 1)]
  # A corner with share 0 has no say in m, so its exponent could be anything; bounded, its slope stays usable.
  exponent = jnp.where(landed, exponent, jnp.minimum(exponent, 0.0))
  return landing.shares * jnp.exp(exponent)


def softmax_splat(
  values: Float[AnyArray, "h w c"],
  flow: Float[AnyArray, "h w 2"],
  depth: Float[AnyArray, "h w"],
  *,
  eps: float = 1e-7,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps `values` by `flow` pixels; collisions weighted by exp(depth) (section 5).

  Args:
    values: [h w c], any float type.
    flow: [h w 2] displacement (dx, dy) in pixels; non-finite entries drop their pixel.
    depth: [h w], finite, of any range; larger is in front (the paper's W, mean motion in pixels).
    eps: added to the denominator.

  Returns:
    The warped values [h w c] in the type of `values`, 0 in holes, and the mass [h w 1] float32: the sum of
    the bilinear shares that landed, whatever their depth; mass 0 is a hole.
  """
  landing = _land(flow)
  flat_depth = jnp.asarray(depth, jnp.float32).ravel()
  return _blend(values, landing, _softmax_weights(landing, flat_depth, flat_depth.size), eps)


class InverseFlow(NamedTuple):
  """From where each pixel of a moved picture comes.

  Attributes:
    back: [h w 2] displacement (dx, dy) in pixels from the moved picture to the photo; in holes that of around them.
    mass: [h w 1] the bilinear shares that landed; 0 is a hole.
    spread: [h w 1] pixels, standard deviation of the displacements that meet in a pixel: where several surfaces do,
      no single place of the photo is what one sees.
  """

  back: Float[Array, "h w 2"]
  mass: Float[Array, "h w 1"]
  spread: Float[Array, "h w 1"]


def invert_flow(flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"]) -> InverseFlow:
  """Splats the displacements themselves and turns them round.

  A picture gathered along them is interpolated once, by any kernel; splatted colours are a blur.

  Args:
    flow: [h w 2] displacement (dx, dy) in pixels.
    depth: [h w] what is in front where pixels collide, as in `softmax_splat`.
  """
  flow = jnp.asarray(flow, jnp.float32)
  landed, mass = softmax_splat(jnp.concatenate([flow, jnp.square(flow)], -1), flow, depth)
  mean, square = jnp.split(landed, 2, -1)
  variance = (square - jnp.square(mean)).sum(-1, keepdims=True)
  return InverseFlow(-fill_holes(mean, mass), mass, jnp.sqrt(jnp.maximum(variance, 0.0)))


def fill_holes(warped: Float[Array, "h w c"], mass: Float[Array, "h w 1"]) -> Float[Array, "h w c"]:
  """Fills what splatting left open from its surroundings, coarse to fine.

  A pixel, and then each block of 2 x 2, 4 x 4, ... keeps its own value by the share of it that is covered and takes
  the rest from the next coarser scale. It is the simplest filling that does not leave behind what moved away.

  Args:
    warped: [h w c] the splatted values.
    mass: [h w 1] the bilinear shares that landed.

  Returns:
    [h w c]; 0 if nothing landed anywhere.
  """
  covered = jnp.minimum(mass, 1.0)
  scales = [(warped * covered, covered)]
  while max(scales[-1][0].shape[:2]) > 1:
    sums, covered = scales[-1]
    scales.append((_average_blocks(sums), _average_blocks(covered)))
  sums, covered = scales[-1]
  filled = sums / jnp.maximum(covered, 1e-12)
  for sums, covered in reversed(scales):
    height, width = sums.shape[:2]
    rows, columns, channels = filled.shape
    coarser = jax.image.resize(filled, (2 * rows, 2 * columns, channels), "bilinear")[:height, :width]
    # The sums are colour times cover already.
    filled = sums + (1 - covered) * coarser
  return filled


def _average_blocks(values):
  # Means over 2 x 2 pixels; an odd last row or column is half empty.
  height, width = values.shape[:2]
  padded = jnp.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
  return padded.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))
