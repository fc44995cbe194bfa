"""Coarse-to-fine variational optical flow from one reference frame to many targets (section 6; Brox 2004, Liu 2009).

The flow w = (u, v) minimises, with psi(s) = sqrt(s + epsilon^2) and five features f_c of an image,

  sum_x  mean_c psi_d(|f_c(target, x + w) - f_c(reference, x)|^2) + alpha psi_s(|grad u|^2 + |grad v|^2) + rest |w|^2.

On every level of an image pyramid, from the coarsest, the target is warped by the flow so far, the energy linearised
about it, and the linear system solved by successive over-relaxation. Three things differ from the common CPU code:

- The over-relaxation is red-black on a width made odd: then the colour of a pixel is the parity of its index in the
  flattened image, the pixels of one colour are one contiguous array, and so are the neighbours of all of them.
- The target's gradients are warped, not taken of the warped target, where a torn flow would leave false edges; and a
  3 x 3 median cleans the flow after each step. Both let a pyramid of ratio 0.5 do what one of 0.75 did.
- `rest`, a weak pull to no motion, stronger where the reference is flat, decides where nothing else does. A
  confidence says where that is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.flow.pyramid import NUM_FEATURES, image_to_grey, image_to_pyramid, pyramid_sizes
from gid_jax.flow.relaxation import previous, relax
from gid_jax.motion.warp import blur, is_inside, sample_cubic, sample_linear, to_planes
from gid_jax.types import AnyArray

_MIN_SIDE = 8
# Shares of reference and warped target in the gradients about which the energy is linearised.
_REFERENCE_SHARE, _TARGET_SHARE = 0.4, 0.6


@dataclasses.dataclass(frozen=True)
class FlowSettings:
  """How to estimate flow; the defaults are the fast ones, `REFERENCE` the published ones.

  Attributes:
    smoothness: alpha, weight of the smoothness term on the finest level; images in [0, 1].
    coarse_smoothness: factor on it for each coarser level: a smooth beginning keeps repeated patterns apart, and a
      light end follows fine parts.
    pyramid_ratio: size of a level over that of the next finer one, in (0, 1).
    min_size: longer side of the coarsest level, pixels.
    num_warps: warps (outer iterations) on the finest level.
    extra_warps: more of them for each coarser level.
    num_sweeps: sweeps of the over-relaxation in each warp on the finest level.
    extra_sweeps: more of them for each coarser level.
    relaxation: omega, in (0, 2).
    data_epsilon: differences far below it, in units of the image, count as squares.
    smoothness_epsilon: likewise flow gradients, pixels per pixel.
    rest: weight of the pull to no motion where the reference is flat; a fifth of it where there is texture.
    median: clean the flow by a 3 x 3 median after every warp.
    check_backward: also estimate the flow back from each target and let disagreement lower the confidence; twice
      the time.
  """

  smoothness: float = 0.0024
  coarse_smoothness: float = 1.5
  pyramid_ratio: float = 0.5
  min_size: int = 20
  num_warps: int = 5
  extra_warps: int = 0
  num_sweeps: int = 10
  extra_sweeps: int = 0
  relaxation: float = 1.8
  data_epsilon: float = 1e-3
  smoothness_epsilon: float = 3e-2
  rest: float = 1e-4
  median: bool = True
  check_backward: bool = False


DEFAULT = FlowSettings()
REFERENCE = FlowSettings(
  smoothness=0.012,
  coarse_smoothness=1.0,
  pyramid_ratio=0.75,
  num_warps=7,
  extra_warps=1,
  num_sweeps=30,
  extra_sweeps=3,
  smoothness_epsilon=1e-3,
  rest=0.0,
  median=False,
)


def estimate_flow(
  reference: Float[AnyArray, "h w 3"],
  targets: Float[AnyArray, "n h w 3"],
  *,
  settings: FlowSettings = DEFAULT,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[np.ndarray, "n h w 2"], Float[np.ndarray, "n h w"]]:
  """Estimates the flow from a reference frame to each of many targets, split over this process's devices (section 6).

  Args:
    reference: [h w 3] RGB in [0, 1], at least 8 pixels a side.
    targets: [n h w 3] RGB in [0, 1].
    settings: of the method.
    progress: called as (done, total) from time to time.

  Returns:
    The displacement [n h w 2] (dx, dy) in pixels of each of the reference's pixels, and a confidence [n h w] in
    [0, 1]: low where the reference has no texture, where the warped target does not look like the reference, where
    the pixel has left the frame, and with `check_backward` where the flow back disagrees. Both float32, in the
    memory of the host.

  Raises:
    UserError: sizes differ or are too small, or a setting is out of its range.
  """
  _check(reference, targets, settings)
  devices = jax.local_devices()
  share = _share_size(devices[0].platform, *reference.shape[:2])
  devices = devices[: -(-len(targets) // share)]
  mesh = Mesh(np.asarray(devices), ("targets",))
  reference = jnp.asarray(reference, jnp.float32)
  flow = np.empty((*targets.shape[:3], 2), np.float32)
  confidence = np.empty(targets.shape[:3], np.float32)
  block = share * len(devices)
  pending = []

  def fetch(start, result):
    part = slice(start, start + block)
    for array, values in zip((flow[part], confidence[part]), result, strict=True):
      array[:] = np.asarray(values)[: len(array)]
    if progress is not None:
      progress(min(start + block, len(targets)), len(targets))

  for start in range(0, len(targets), block):
    part = np.asarray(targets[start : start + block], np.float32)
    padded = np.concatenate([part, np.repeat(part[-1:], block - len(part), 0)])
    pending.append((start, _estimate_block(reference, padded, settings=settings, mesh=mesh)))
    # One block ahead keeps the devices busy without filling their memory.
    if len(pending) == 2:
      fetch(*pending.pop(0))
  fetch(*pending.pop())
  return flow, confidence


def _share_size(platform: str, height: int, width: int) -> int:
  """Targets that a device takes per call.

  It depends on nothing else, so that another number of targets needs no other program, and a target's flow depends
  neither on how many there are nor on how many devices share them.
  """
  return 8 if platform == "cpu" else max(8, min(75, 3_100_000 // (height * width)))


def _count_together(platform: str, number: int) -> int:
  """Of its targets, how many a device works on at once: on a CPU one, whose arrays stay in the cache, else all."""
  return 1 if platform == "cpu" else number


def _check(reference, targets, settings: FlowSettings) -> None:
  if reference.ndim != 3 or reference.shape[-1] != 3 or targets.shape[1:] != reference.shape or not len(targets):
    shapes = f"reference {tuple(reference.shape)}, targets {tuple(targets.shape)}"
    raise UserError(f"flow needs a reference [h w 3] and targets [n h w 3] of its size, n >= 1; got {shapes}")
  if min(reference.shape[:2]) < _MIN_SIDE:
    raise UserError(f"frames of {reference.shape[1]}x{reference.shape[0]} pixels: flow needs {_MIN_SIDE} a side")
  positive = settings.smoothness, settings.coarse_smoothness, settings.data_epsilon, settings.smoothness_epsilon
  if not (0.1 <= settings.pyramid_ratio <= 0.95 and 0 < settings.relaxation < 2 and settings.min_size >= 2):
    raise UserError(f"{settings}: pyramid_ratio must be 0.1 ... 0.95, relaxation between 0 and 2, min_size at least 2")
  if not (min(positive) > 0 and settings.rest >= 0 and min(settings.num_warps, settings.num_sweeps) >= 1):
    raise UserError(f"{settings}: smoothness and epsilons must be positive, rest not negative, warps and sweeps >= 1")


@functools.partial(jax.jit, static_argnames=("settings", "mesh"))
def _estimate_block(reference, targets, *, settings: FlowSettings, mesh: Mesh):
  """Flow and confidence of a block of targets, each device its share."""

  def estimate_share(reference, targets):
    sizes = pyramid_sizes(
      *reference.shape[:2], ratio=settings.pyramid_ratio, min_size=settings.min_size
    )
    prepared = image_to_pyramid(reference, sizes)
    texture = _texture(reference)

    def estimate_one(target):
      pyramid = image_to_pyramid(target, sizes)
      u, v = _coarse_to_fine(prepared, pyramid, settings)
      confidence = texture * _agreement(reference, target, u, v)
      if settings.check_backward:
        confidence *= _consistency(u, v, *_coarse_to_fine(pyramid, prepared, settings))
      return jnp.stack([u, v], -1), confidence

    together = _count_together(mesh.devices.flat[0].platform, len(targets))
    return jax.lax.map(estimate_one, targets, batch_size=together)

  split = PartitionSpec("targets")
  share = jax.shard_map(
    estimate_share, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
  )
  return share(reference, targets)


# Energy


def _coarse_to_fine(reference: list[Array], target: list[Array], settings: FlowSettings):
  """Flow (u, v) [h w] between two pyramids, px of the finest level."""
  u = v = jnp.zeros(reference[-1].shape[1:])
  for level in range(len(reference) - 1, -1, -1):
    height, width = reference[level].shape[1:]
    if u.shape != (height, width):
      # Sizes are rounded: each axis has its own ratio.
      ratio_y, ratio_x = height / u.shape[0], width / u.shape[1]
      u, v = (jax.image.resize(x, (height, width), "linear") for x in (u * ratio_x, v * ratio_y))
    u, v = _refine(reference[level], target[level], u, v, level, settings)
  return u, v


def _refine(reference: Array, target: Array, u: Array, v: Array, level: int, settings: FlowSettings):
  """Improves the flow on one level: warp, linearise, solve, again and again."""
  features, gradients = target[:NUM_FEATURES], target[NUM_FEATURES:]
  # Gathers want the channels last.
  features, gradients = jnp.moveaxis(features, 0, -1), jnp.moveaxis(gradients, 0, -1)
  num_sweeps = settings.num_sweeps + settings.extra_sweeps * level
  smoothness = settings.smoothness * settings.coarse_smoothness**level
  rest = settings.rest * (0.2 + 0.8 * _flatness(reference))
  faces_x = jnp.ones(u.shape).at[:, -1].set(0)
  faces_y = jnp.ones(u.shape).at[-1].set(0)

  def warp_and_solve(_, flow):
    u, v = flow
    inside = is_inside(u, v)
    warped = to_planes(sample_cubic(features, u, v))
    warped_gradients = to_planes(sample_linear(gradients, u, v))
    # Weights psi' of the smoothness and of the data at the flow so far.
    steps = [_forward(x, axis) for x in (u, v) for axis in (0, 1)]
    smooth = 0.5 * smoothness * jax.lax.rsqrt(
      sum(step**2 for step in steps) + settings.smoothness_epsilon**2
    )
    right, below = smooth * faces_x, smooth * faces_y
    # A little on the diagonal keeps the system regular where there is neither texture nor a neighbour.
    floor = rest + 0.05 * smoothness
    xy: Any = 0.0  # until the first feature
    xx = yy = floor
    bx = _divergence(u, right, below) - rest * u
    by = _divergence(v, right, below) - rest * v
    # Plane by plane: XLA reduces over a short leading axis far more slowly.
    for c in range(NUM_FEATURES):
      difference = warped[c] - reference[c]
      gx = _REFERENCE_SHARE * reference[NUM_FEATURES + c] + _TARGET_SHARE * warped_gradients[c]
      gy = _REFERENCE_SHARE * reference[2 * NUM_FEATURES + c] + _TARGET_SHARE * warped_gradients[NUM_FEATURES + c]
      weight = inside * (0.5 / NUM_FEATURES) * jax.lax.rsqrt(difference**2 + settings.data_epsilon**2)
      xx, xy, yy = xx + weight * gx * gx, xy + weight * gx * gy, yy + weight * gy * gy
      bx, by = bx - weight * gx * difference, by - weight * gy * difference
    du, dv = relax(xx, xy, yy, bx, by, right, below, num_sweeps=num_sweeps, relaxation=settings.relaxation)
    u, v = u + du, v + dv
    return (_median(u), _median(v)) if settings.median else (u, v)

  return jax.lax.fori_loop(0, settings.num_warps + settings.extra_warps * level, warp_and_solve, (u, v))


def _flatness(reference: Float[Array, "15 h w"], *, threshold: float = 1 / 255) -> Float[Array, "h w"]:
  """1 where the grey of a level has no gradient, 0.5 where it changes by `threshold` a pixel."""
  energy = blur(reference[NUM_FEATURES] ** 2 + reference[2 * NUM_FEATURES] ** 2, 1.0)
  return threshold**2 / (energy + threshold**2)


def _forward(values: Float[Array, "h w"], axis: int) -> Float[Array, "h w"]:
  """Difference to the next pixel, 0 at the end."""
  return jnp.pad(jnp.diff(values, axis=axis), [(0, int(axis == i)) for i in range(2)])


def _divergence(values: Array, right: Array, below: Array) -> Array:
  across, down = right * _forward(values, 1), below * _forward(values, 0)
  return across - previous(across, axis=1) + down - previous(down, axis=0)


def _median(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
  """Median of 3 x 3 pixels, the edge repeated: sorted rows, then the median of (largest low, median, smallest high)."""
  padded = jnp.pad(values, 1, mode="edge")
  height, width = values.shape

  def sort(a, b, c):
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    low, middle = jnp.minimum(low, c), jnp.maximum(low, jnp.minimum(high, c))
    return low, middle, jnp.maximum(high, c)

  rows = [sort(*(padded[i : i + height, j : j + width] for j in range(3))) for i in range(3)]
  lows, middles, highs = zip(*rows, strict=True)
  low = jnp.maximum(jnp.maximum(lows[0], lows[1]), lows[2])
  high = jnp.minimum(jnp.minimum(highs[0], highs[1]), highs[2])
  return sort(low, sort(*middles)[1], high)[1]


# Confidence


def _texture(image: Float[Array, "h w 3"], *, threshold: float = 2 / 255) -> Float[Array, "h w"]:
  """How well an image pins motion down, from its structure tensor; 0.5 at a gradient of `threshold` a pixel."""
  grey = blur(image_to_grey(image), 0.8)
  padded = jnp.pad(grey, 1, mode="edge")
  gx, gy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
  xx, yy, xy = (blur(product, 1.5) for product in (gx * gx, gy * gy, gx * gy))
  half_trace, spread = (xx + yy) / 2, jnp.hypot((xx - yy) / 2, xy)
  # A plain edge leaves one direction open, yet the smoothness term resolves it well enough to earn some trust.
  energy = jnp.maximum(half_trace - spread, 0) + 0.1 * (half_trace + spread)
  return energy / (energy + threshold**2)


def _agreement(reference: Array, target: Array, u: Array, v: Array) -> Float[Array, "h w"]:
  """How like the reference the warped target is, measured by the reference's own contrast; 0 outside the frame."""
  grey = image_to_grey(reference)
  warped = sample_linear(image_to_grey(target)[..., None], u, v)[..., 0]
  residual = blur(jnp.abs(warped - grey), 1.5)
  mean = blur(grey, 3.0)
  contrast = jnp.sqrt(jnp.maximum(blur(grey**2, 3.0) - mean**2, 0))
  return is_inside(u, v) * jnp.exp(-((residual / (6 / 255 + contrast)) ** 2))


def _consistency(u: Array, v: Array, back_u: Array, back_v: Array) -> Float[Array, "h w"]:
  """How well the flow back returns each pixel: 1/e at 0.5 px plus a tenth of the way."""
  back = sample_linear(jnp.stack([back_u, back_v], -1), u, v)
  error = (u + back[..., 0]) ** 2 + (v + back[..., 1]) ** 2
  return jnp.exp(-error / (0.5 + 0.1 * jnp.sqrt(u * u + v * v)) ** 2)
