"""A photo in motion without a network (section 5).

  once a photo   lattice  the photo at the video's size, to be sampled anywhere
                 series   the spectral volume on the grid of motion, ready for any time; W, the depth of splatting
  each frame     F_t      is splatted, weighted by W, and turned round: from where each pixel comes
                 frame    the photo, gathered; where surfaces meet, the mixture of their colours; where nothing lands
                          between two of them, those of what is behind

The photo is interpolated once, at its own resolution, and stays as sharp as it is; splatted colours are a blur. Nothing
is drawn per frame, so nothing flickers.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt32

from gid_jax.motion import spectral, splat, warp
from gid_jax.types import AnyArray, SpectralVolume

# Pixels by which the grid of motion goes on beyond the photo, so that what moves in comes from somewhere.
MARGIN = 12
# From this share of a pixel's area on, what has landed on it counts as the whole pixel.
_FULL_COVERAGE = 0.5
# Pixels by which what meets in one pixel may have moved apart: more, and it is no longer one thing.
_SPREAD = 0.25
# Pixels by which neighbours move apart: from where on they may be, and are, two things.
_TORN = (1.5, 2.5)
_BESIDE = 9  # pixels across, in which an edge decides
_STRIP = 2**14  # pixels of a frame that are gathered at once
_CHUNK = 10  # frames of which the mean magnitude is summed at once


@flax.struct.dataclass
class MovingPhoto:
  """A photo and all that is the same in each of its frames; see `prepare`.

  Attributes:
    lattice: [n] of the photo at the video's size, from `warp.make_lattice`, row after row; more may come behind.
    size: [2] height and width of the video, so that one program suits videos of every size.
    image: [hm wm 3] the photo on the grid of motion with its margin.
    depth: [hm wm] W likewise, pixels of the grid.
  """

  lattice: UInt32[AnyArray, "n"]
  size: Int[AnyArray, "2"]
  image: Float[AnyArray, "hm wm 3"]
  depth: Float[AnyArray, "hm wm"]


def prepare(
  photo: Float[AnyArray, "height width 3"], image: Float[AnyArray, "h w 3"], depth: Float[AnyArray, "h w"]
) -> MovingPhoto:
  """What is the same in all frames of a video.

  Args:
    photo: [height width 3] RGB in [0, 1], of the video's size.
    image: [h w 3] the same on the grid of motion.
    depth: [h w] W, mean motion magnitude, pixels of the grid.
  """
  return MovingPhoto(
    lattice=warp.make_lattice(photo).ravel(),
    size=jnp.asarray(photo.shape[:2], jnp.int32),
    image=extend(jnp.asarray(image, jnp.float32)),
    depth=extend(jnp.asarray(depth, jnp.float32)),
  )


def make_series(spectrum: SpectralVolume) -> Float[Array, "k2 n"]:
  """A volume [k h w 4] on the grid of motion, laid out for `evaluate_series`, with the margin."""
  num_bands, height, width = spectrum.coefficients.shape[:3]
  parts = jnp.asarray(spectrum.coefficients, jnp.float32).reshape(num_bands, height, width, 2, 2)
  parts = jnp.moveaxis(parts, 3, 1).reshape(2 * num_bands, height, width, 2)
  return jax.vmap(extend)(parts).reshape(2 * num_bands, -1)


def evaluate_series(
  series: Float[AnyArray, "k2 n"], table: Float[AnyArray, "t k 2"], height: int, width: int
) -> Float[Array, "t hm wm 2"]:
  """Displacements with margin [t hm wm 2] of a grid of height x width, at the times of `spectral.series_table`."""
  flat = jnp.matmul(table.reshape(len(table), -1), series, precision=jax.lax.Precision.HIGHEST)
  return flat.reshape(len(table), height + 2 * MARGIN, width + 2 * MARGIN, 2)


def mean_magnitude(
  series: Float[AnyArray, "k2 n"], height: int, width: int, *, num_frames: int, anchor_first_frame: bool
) -> Float[Array, "h w"]:
  """W [h w] of `make_series`, like `spectral.motion_magnitude` over every frame of the period."""
  times = np.resize(np.arange(num_frames, dtype=np.float32), (-(-num_frames // _CHUNK), _CHUNK))
  counted = np.float32(np.arange(times.size) < num_frames).reshape(times.shape)

  def add_chunk(total, chunk):
    times, counted = chunk
    table = spectral.series_table(times, len(series) // 2, num_frames, anchor_first_frame=anchor_first_frame)
    motion = evaluate_series(series, table, height, width)
    return total + jnp.einsum("t,thw->hw", counted, jnp.sqrt(jnp.square(motion).sum(-1)), precision="highest"), None

  start = jnp.zeros((height + 2 * MARGIN, width + 2 * MARGIN))
  total, _ = jax.lax.scan(add_chunk, start, (times, counted))
  return jnp.asarray(crop(total)) / num_frames


def extend(values: Float[AnyArray, "h w *c"]) -> Float[Array, "hm wm *c"]:
  """Repeats the edge of [h w ...] over the margin."""
  return jnp.pad(values, [(MARGIN, MARGIN)] * 2 + [(0, 0)] * (values.ndim - 2), mode="edge")


def show(
  photo: MovingPhoto,
  flow: Float[AnyArray, "hm wm 2"],
  *,
  rest: Float[AnyArray, "h w 3"] | None = None,
  dtype: DTypeLike = jnp.float32,
) -> Array:
  """The frame in which each place has moved by `flow` [hm wm 2], pixels of the grid: its rows one after the other.

  Args:
    photo: from `prepare`.
    flow: of the grid with its margin; see `extend`.
    rest: [h w 3] what to show, instead of splatted colours, where surfaces meet and where nothing lands.
    dtype: float32 in [0, 1], or uint8.

  Returns:
    [m 3], of which the first height x width are the frame; m is the lattice's number of pixels, rounded up.
  """
  values = jnp.concatenate([photo.image, find_steepness(flow)], axis=-1)
  inverse = jax.tree.map(crop, splat.invert_flow(flow, photo.depth, values))
  colours, steepness = inverse.values[..., :3], inverse.values[..., 3:]
  # What one thing that stretches leaves open is still of this thing; what opens beside an edge is not.
  for axis in (0, 1):
    window = tuple(_BESIDE if i == axis else 1 for i in range(3))
    steepness = jax.lax.reduce_window(steepness, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")
  low, high = _TORN
  is_whole = jnp.clip((high - steepness) / (high - low), 0.0, 1.0)
  # Its gaps continue what has landed on either side.
  landed = jnp.clip(inverse.mass / _FULL_COVERAGE, 0.0, 1.0)
  sums = _blur(jnp.concatenate([landed * inverse.back, landed], axis=-1))
  beside = sums[..., :2] / jnp.maximum(sums[..., 2:], 1e-6)
  back = inverse.back + is_whole * (1 - landed) * (beside - inverse.back)
  mass = jnp.maximum(inverse.mass, _FULL_COVERAGE * is_whole)
  inverse = inverse._replace(back=back, mass=mass)
  return gather(photo.lattice, photo.size, inverse, colours if rest is None else rest, dtype=dtype)


def _blur(values: Array) -> Array:
  # Of [h w c], binomial over five pixels.
  taps = (0.0625, 0.25, 0.375, 0.25, 0.0625)
  padded = jnp.pad(values, ((2, 2), (2, 2), (0, 0)))
  return warp.correlate(warp.correlate(padded, taps, 0), taps, 1)


def find_steepness(flow: Float[AnyArray, "h w 2"]) -> Float[Array, "h w 1"]:
  """By how many pixels neighbours move apart, the most of a pixel's four [h w 1]: 1 doubles the space between them."""
  flow = jnp.asarray(flow)
  steepest = jnp.zeros(flow.shape[:2])
  for axis in (0, 1):
    step = jnp.linalg.norm(jnp.diff(flow, axis=axis), axis=-1)
    before, after = (jnp.pad(step, [(pad if i == axis else (0, 0)) for i in (0, 1)]) for pad in ((1, 0), (0, 1)))
    steepest = jnp.maximum(steepest, jnp.maximum(before, after))
  return steepest[..., None]


def crop(values: Float[AnyArray, "hm wm *c"]) -> Float[AnyArray, "h w *c"]:
  """Takes the margin of `extend` off [hm wm ...] again."""
  return values[MARGIN:-MARGIN, MARGIN:-MARGIN]


def gather(
  lattice: UInt32[AnyArray, "n"],
  size: Int[AnyArray, "2"],
  inverse: splat.InverseFlow,
  rest: Float[AnyArray, "h w 3"],
  *,
  dtype: DTypeLike,
) -> Array:
  """The photo along an inverted flow, and `rest` where several surfaces meet and where nothing has landed.

  Where nothing moves the photo is itself, to 0.001. So many pixels are worked on at once that memory stays small.

  Args:
    lattice: [n] of the photo at the output size; see `MovingPhoto`.
    size: [2] height and width of the output.
    inverse: the flow, on a grid [h w ...] of its own.
    rest: [h w 3] on that grid.
    dtype: of the frame, float32 or uint8.

  Returns:
    [m 3] RGB in [0, 1] or 0 ... 255, see `show`.
  """
  rows, columns = inverse.mass.shape[:2]
  height, width = size
  is_one = jnp.clip(2 - inverse.spread / _SPREAD, 0.0, 1.0)
  share = jnp.clip(inverse.mass / _FULL_COVERAGE, 0.0, 1.0) * is_one
  fields = jnp.concatenate([inverse.back, share, jnp.asarray(rest)], axis=-1)
  length = len(lattice) // warp.DENSITY**2
  strip = min(_STRIP, length)

  def gather_strip(number, frame):
    place = number * strip + jnp.arange(strip)
    row = place // width
    column = place - row * width
    # As planes they are worked out once, and not again for every tap of the kernel.
    u, v, share, *colours = warp.to_planes(_enlarge(fields, row, column, height, width))
    x, y = column + u * (width / columns), row + v * (height / rows)
    moved = warp.sample_lattice(lattice, height, width, x, y)
    share = share[:, None]
    pixels = jnp.clip(share * moved + (1 - share) * jnp.stack(colours, -1), 0.0, 1.0)
    pixels = (pixels * 255 + 0.5).astype(dtype) if dtype == jnp.uint8 else pixels
    return jax.lax.dynamic_update_slice(frame, pixels, (number * strip, 0))

  frame = jnp.zeros((-(-length // strip) * strip, 3), dtype)
  return jax.lax.fori_loop(0, (height * width + strip - 1) // strip, gather_strip, frame)


def _enlarge(fields, row, column, height, width):
  """Fields [h w c] at the pixels row, column [n] of a picture of height x width: bilinear, [n c]."""
  rows, columns = fields.shape[:2]
  flat = fields.reshape(rows * columns, -1)
  above, below, down = _find(row, rows, height)
  left, right, across = _find(column, columns, width)
  take = lambda row, column: flat.at[row * columns + column].get(mode="promise_in_bounds")
  # Of equal values none but themselves come out, which weights that add up to one would not promise.
  mix = lambda first, second, weight: first + weight[:, None] * (second - first)
  lines = [mix(take(row, left), take(row, right), across) for row in (above, below)]
  return mix(lines[0], lines[1], down)


def _find(place, side, size):
  # Between which two of `side` values each place of `size` lies, and the weight of the second; pixel centres kept.
  position = jnp.clip((place + 0.5) * (side / size) - 0.5, 0, side - 1)
  before = jnp.minimum(position.astype(jnp.int32), max(side - 2, 0))
  return before, jnp.minimum(before + 1, side - 1), position - before
