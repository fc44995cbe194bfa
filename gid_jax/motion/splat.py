"""Forward warping (splatting) of pixels along a displacement field, in four modes (section 5).

A source pixel at (x, y) lands at (x, y) + flow and is shared among the four pixels around that place by
bilinear shares b. With source weights a, a target pixel receives

  sum:      sum b v                     average:  a = 1
  linear:   a given                     softmax:  a = exp(depth)     ->  sum a b v / sum a b.

Targets outside the image and non-finite displacements are dropped. Everything that lands is added by segment_sum in
float32: of the four corners of all sources at once, or on CPUs of one corner after the other. What nothing lands on is
a hole; `fill_holes` closes it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.types import AnyArray

_SMALLEST_SHARE = 1e-30  # below this a corner is not landed on: exp(-log b) must stay finite in float32
_EPS = 1e-7
_DEPTH_RANGE = 25.0  # of depths that one maximum tells apart: their weights e^15 ... e^40 have squares in float32
_SWEEPS = 2  # of smoothing at each scale of a filling
_HEADROOM = 15.0  # by which the least of them exceeds eps


class _Landing(NamedTuple):
  """Where each source falls: of its four corners the first, on the image with a margin around it, and their shares.

  Attributes:
    first: [n] the corner above and to the left, counted along the rows.
    right: [n] the share of the two corners to the right.
    lower: [n] that of the two below.
    stride: from a row to the next.
  """

  first: Int[Array, "n"]
  right: Float[Array, "n"]
  lower: Float[Array, "n"]
  stride: int

  def corner(self, below, beside) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """Targets and shares of the corners `below` (0 or 1) and `beside` (0 or 1) the first; these may be traced."""
    vertical, horizontal = (jnp.where(far, x, 1 - x) for far, x in ((below, self.lower), (beside, self.right)))
    return self.first + (below * self.stride + beside), vertical * horizontal

  def corners(self) -> tuple[Int[Array, "4 n"], Float[Array, "4 n"]]:
    """Targets and shares of all four."""
    targets, shares = zip(*(self.corner(*place) for place in _CORNERS), strict=True)
    return jnp.stack(targets), jnp.stack(shares)


# What misses the image lands on a margin of 1 before and 2 behind, which is cut off: every index is good, and with
# nothing to check the sums take a third of the time.
_MARGIN = (1, 2)
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _land(flow: Float[AnyArray, "h w 2"]) -> _Landing:
  height, width = flow.shape[:2]
  flow = jnp.asarray(flow, jnp.float32)
  finite = jnp.all(jnp.isfinite(flow), axis=-1)
  flow = jnp.where(finite[..., None], flow, 0.0)  # before any arithmetic, or gradients become NaN
  x = jnp.arange(width, dtype=jnp.float32) + flow[..., 0]
  y = jnp.arange(height, dtype=jnp.float32)[:, None] + flow[..., 1]
  inside = finite & (x > -1) & (x < width) & (y > -1) & (y < height)
  x, y = (jnp.where(inside, position, -1.0).ravel() for position in (x, y))
  left, top = jnp.floor(x), jnp.floor(y)
  stride = width + sum(_MARGIN)
  first = (top.astype(jnp.int32) + _MARGIN[0]) * stride + left.astype(jnp.int32) + _MARGIN[0]
  return _Landing(first, x - left, y - top, stride)


def _count_places(height: int, width: int) -> int:
  return (height + sum(_MARGIN)) * (width + sum(_MARGIN))


def _add_up(
  columns: Float[Array, "n c"], weights: Float[Array, "4 n"] | None, landing: _Landing, height: int, width: int
) -> Float[Array, "h w c"]:
  """Sums the columns [n c] of the sources, times the weights of their corners, that land on each pixel.

  The weights are the bilinear shares, or others [4 n].
  """
  sizes = dict(stride=landing.stride, num_places=_count_places(height, width))
  total = jax.lax.platform_dependent(
    columns, weights, *landing[:3],
    cpu=functools.partial(_add_corners, **sizes),
    default=functools.partial(_add_rows, **sizes),
  )  # fmt: skip
  before, _ = _MARGIN
  total = total.reshape(height + sum(_MARGIN), width + sum(_MARGIN), -1)
  return total[before : before + height, before : before + width]


def _add_rows(columns, weights, first, right, lower, *, stride, num_places):
  targets, shares = _Landing(first, right, lower, stride).corners()
  weights = shares if weights is None else weights
  rows = (columns * weights[..., None]).reshape(-1, columns.shape[-1])
  return jax.ops.segment_sum(rows, targets.ravel(), num_segments=num_places, mode="promise_in_bounds")


def _add_corners(columns, weights, first, right, lower, *, stride, num_places):
  # A loop is given its columns; in one program with the products of all corners they would be worked out four times.
  def add_corner(total, corner):
    place, weights = corner
    targets, shares = _Landing(first, right, lower, stride).corner(*place)
    rows = columns * (shares if weights is None else weights)[:, None]
    return total + jax.ops.segment_sum(rows, targets, num_segments=num_places, mode="promise_in_bounds"), None

  start = jnp.zeros((num_places, columns.shape[-1]), jnp.float32)
  return jax.lax.scan(add_corner, start, (jnp.array(_CORNERS), weights))[0]


def _blend(values: Float[AnyArray, "h w c"], landing: _Landing, weights: Float[AnyArray, "*k n"], eps: float):
  """Weighted mean of what lands on each pixel [h w c], and the mass of the plain shares [h w 1].

  `weights` are of the sources [n], or of the four corners of each [4 n] with their shares in them.
  """
  height, width, channels = values.shape
  flat = jnp.asarray(values, jnp.float32).reshape(-1, channels)
  one = jnp.ones_like(flat[:, :1])
  add_up = functools.partial(_add_up, landing=landing, height=height, width=width)
  if weights.ndim == 1:
    total = add_up(jnp.concatenate([flat * weights[:, None], weights[:, None], one], axis=-1), None)
    sums, mass = total[..., :-1], total[..., -1:]
  else:
    sums, mass = add_up(jnp.concatenate([flat, one], axis=-1), jnp.asarray(weights)), add_up(one, None)
  warped = jnp.where(mass > 0, sums[..., :-1] / (sums[..., -1:] + eps), 0.0)
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
  total = _add_up(columns, None, landing, height, width)
  return total[..., :-1].astype(values.dtype), total[..., -1:]


def average_splat(
  values: Float[AnyArray, "h w c"], flow: Float[AnyArray, "h w 2"], *, eps: float = _EPS
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps [h w c] by `flow` [h w 2] pixels; collisions are averaged. Otherwise as `softmax_splat`."""
  total, mass = sum_splat(jnp.asarray(values, jnp.float32), flow)
  return jnp.where(mass > 0, total / (mass + eps), 0.0).astype(values.dtype), mass


def linear_splat(
  values: Float[AnyArray, "h w c"],
  flow: Float[AnyArray, "h w 2"],
  weights: Float[AnyArray, "h w"],
  *,
  eps: float = _EPS,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
  """Forward-warps `values` by `flow` pixels; collisions weighted by `weights` [h w] >= 0.

  The supplement's equation 11 writes the splatting so: its weights are W itself, not exp(W). Where all that lands
  has weight 0 the result is 0 although the mass is not. Otherwise as `softmax_splat`.
  """
  landing = _land(flow)
  return _blend(values, landing, jnp.asarray(weights, jnp.float32).ravel(), eps)


def _weigh_neighbours(landing: _Landing, depth: Float[Array, "n"], num_places: int) -> Float[Array, "4 n"]:
  """Shares times exp(depth - m), with m the largest depth + log(share) that meets in the same target pixel.

  m cancels in the quotient, so no gradient has to pass through it.
  """
  targets, shares = landing.corners()
  landed = shares > _SMALLEST_SHARE
  logits = jnp.where(landed, depth + jnp.log(jnp.where(landed, shares, 1.0)), -jnp.inf)
  highest = jax.ops.segment_max(
    jax.lax.stop_gradient(logits).ravel(), targets.ravel(), num_segments=num_places, mode="promise_in_bounds"
  )
  highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
  exponent = depth - highest[targets]
  # A corner with share 0 has no say in m, so its exponent could be anything; bounded, its slope stays usable.
  exponent = jnp.where(landed, exponent, jnp.minimum(exponent, 0.0))
  return shares * jnp.exp(exponent)


def softmax_splat(
  values: Float[AnyArray, "h w c"],
  flow: Float[AnyArray, "h w 2"],
  depth: Float[AnyArray, "h w"],
  *,
  eps: float = _EPS,
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
  landing, depth = _land(flow), jnp.asarray(depth, jnp.float32).ravel()
  return _blend(values, landing, _weigh_neighbours(landing, depth, _count_places(*flow.shape[:2])), eps)


class InverseFlow(NamedTuple):
  """From where each pixel of a moved picture comes.

  Attributes:
    back: [h w 2] displacement (dx, dy) in pixels from the moved picture to the photo.
    values: [h w c] the values that moved along, splatted; in holes, like `back`, those of what is behind around them.
    mass: [h w 1] the bilinear shares that landed; 0 is a hole.
    spread: [h w 1] pixels, standard deviation of the displacements that meet in a pixel: where several surfaces do,
      no single place of the photo is what one sees.
  """

  back: Float[Array, "h w 2"]
  values: Float[Array, "h w c"]
  mass: Float[Array, "h w 1"]
  spread: Float[Array, "h w 1"]


def invert_flow(
  flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"], values: Float[AnyArray, "h w c"]
) -> InverseFlow:
  """Splats the displacements themselves and turns them round.

  A picture gathered along them is interpolated once, by any kernel; splatted colours are a blur. What has moved away
  uncovers what is behind it, so holes are filled from what lies less deep: each pixel around by exp(-depth).

  Args:
    flow: [h w 2] displacement (dx, dy) in pixels.
    depth: [h w] what is in front where pixels collide, as in `softmax_splat`.
    values: [h w c] what moves along with each pixel.
  """
  flow, depth = jnp.asarray(flow, jnp.float32), jnp.asarray(depth, jnp.float32)[..., None]
  # Weights by one maximum for the whole image are half the work of `softmax_splat`, and equal: their range is that of
  # float32, and the least is far above the epsilon of the quotient, which would darken what lies less deep.
  depth = jnp.maximum(depth - depth.max(), -_DEPTH_RANGE)
  weights = jnp.exp(depth + (_DEPTH_RANGE + _HEADROOM)).ravel()
  square = jnp.square(flow).sum(-1, keepdims=True)
  landed, mass = _blend(jnp.concatenate([square, depth, flow, values], -1), _land(flow), weights, _EPS)
  square, depth, landed = landed[..., :1], landed[..., 1:2], landed[..., 2:]
  variance = square - jnp.square(landed[..., :2]).sum(-1, keepdims=True)
  filled = fill_holes(landed, mass, weights=jnp.exp(-depth))
  return InverseFlow(-filled[..., :2], filled[..., 2:], mass, jnp.sqrt(jnp.maximum(variance, 0.0)))


def fill_holes(
  warped: Float[Array, "h w c"], mass: Float[Array, "h w 1"], *, weights: Float[Array, "h w 1"] | None = None
) -> Float[Array, "h w c"]:
  """Fills what splatting left open from its surroundings, coarse to fine.

  A pixel, and then each block of 2 x 2, 4 x 4, ... keeps its own value by the share of it that is covered and takes
  the rest from the next coarser scale. It is the simplest filling that does not leave behind what moved away.

  Args:
    warped: [h w c] the splatted values.
    mass: [h w 1] the bilinear shares that landed.
    weights: [h w 1] positive, how much each pixel counts in the mean of a block; all alike without. With them each
      scale but the finest is also smoothed where it is open, so that blocks do not show.

  Returns:
    [h w c]; 0 if nothing landed anywhere.
  """
  covered = jnp.minimum(mass, 1.0)
  counted = covered if weights is None else covered * weights
  scales = [(warped * counted, counted, covered)]
  while max(scales[-1][0].shape[:2]) > 1:
    sums, counted, covered = (_average_blocks(array) for array in scales[-1])
    scales.append((sums, counted, covered))
  sums, counted, covered = scales.pop()
  filled, weight = sums / jnp.maximum(counted, 1e-30), counted / jnp.maximum(covered, 1e-30)
  while scales:
    sums, counted, covered = scales.pop()
    height, width = sums.shape[:2]
    enlarge = lambda values, height=height, width=width: _double(_double(values, 0), 1)[:height, :width]
    own = covered * sums / jnp.maximum(counted, 1e-30)
    filled = own + (1 - covered) * enlarge(filled)
    if weights is not None and scales:
      weight = counted + (1 - covered) * enlarge(weight)
      for _ in range(_SWEEPS):
        around = _average_around(filled * weight) / jnp.maximum(_average_around(weight), 1e-30)
        filled = own + (1 - covered) * around
  return filled


def _average_around(values):
  # Over the four neighbours of each pixel; at the border some are the pixel itself.
  height, width = values.shape[:2]
  padded = jnp.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
  rows, columns = padded[:, 1:-1], padded[1:-1]
  return (rows[:height] + rows[2:] + columns[:, :width] + columns[:, 2:]) / 4


def _average_blocks(values):
  # Means over 2 x 2 pixels; an odd last row or column is half empty.
  height, width = values.shape[:2]
  padded = jnp.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
  return padded.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))


def _double(values, axis):
  # Bilinear to twice the size along an axis; a product with a matrix, as `jax.image.resize` is, costs far more.
  before, after = (
    jnp.concatenate(parts, axis)
    for parts in (
      (values.take(jnp.array([0]), axis), jax.lax.slice_in_dim(values, 0, -1, axis=axis)),
      (jax.lax.slice_in_dim(values, 1, None, axis=axis), values.take(jnp.array([-1]), axis)),
    )
  )
  phases = jnp.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
  return phases.reshape(*(side * (1 + (i == axis)) for i, side in enumerate(values.shape)))
