"""What is seen where the moving things of a photo have moved away: made once, so that nothing in it can flicker."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from gid_jax.motion.patches import copy_patches
from gid_jax.types import AnyArray

# What a motion may uncover, as a part of the long side.
_REACH = 0.06
# What moves this many times as much as something within reach is in front of it.
_RATIO = 2.0
# What moves by this share as much as something in front beside it is of the same thing.
_SAME = 0.5


def make_plate(image: Float[np.ndarray, "h w 3"], depth: Float[AnyArray, "h2 w2"]) -> Float[np.ndarray, "h w 3"]:
  """What stands behind the moving things of a photo [h w 3], whose W [h2 w2] is of any grid.

  Filled is what `find_front` calls in front, with patches from beside the whole thing that it is a part of.
  """
  height, width = image.shape[:2]
  front, thing = find_front(depth, height, width)
  return np.where(front[..., None], copy_patches(image, thing), image)


def find_front(
  depth: Float[AnyArray, "h2 w2"], height: int, width: int
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
  """Which pixels of a photo of height x width are in front of others, and may uncover these.

  A place is in front when it moves much more than something near it.

  Args:
    depth: [h2 w2] W of any grid, mean motion magnitude in any unit.
    height: of the photo, pixels.
    width: of the photo, pixels.

  Returns:
    Where things in front may uncover what is behind them [h w], and the whole things [h w] that this is a part of.
  """
  depth = np.asarray(depth, np.float32)
  cell = max(height / depth.shape[0], width / depth.shape[1])
  depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR)
  highest = max(float(depth.max()), 1e-6)
  around = lambda radius: np.ones((2 * round(radius) + 1,) * 2, np.uint8)
  reach = _REACH * max(height, width)
  is_front = lambda least: ((depth > _RATIO * least) & (depth > 0.1 * highest)).astype(np.uint8)
  # Only beside a sharp edge: what moves more and more along a stem uncovers nothing.
  edge = is_front(cv2.erode(depth, around(2.5 * cell)))
  front = is_front(cv2.erode(depth, around(reach))) & cv2.dilate(edge, around(reach))
  # The grid of motion is coarse: a leaf's rim lies beside what moves.
  grown = around(3 * cell)
  # The middle of a thing has nothing still within reach; it says as little of what is behind.
  beside = cv2.dilate(depth * front, around(3 * reach))
  thing = cv2.dilate(((beside > 0) & (depth > _SAME * beside)).astype(np.uint8), grown)
  front = cv2.dilate(front, grown)
  thing = np.maximum(thing, front)
  return front > 0, thing > 0
