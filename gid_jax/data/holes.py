"""Holes to learn the plate with: cut along what moves, and along things that could."""

import cv2
import numpy as np
from jaxtyping import Float

# Shares of a picture that holes may cover; others are drawn again.
_LEAST, _MOST = 0.01, 0.4
_TRIES = 8


def draw_hole(rng: np.random.Generator, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 1"]:
  """Draws holes: the outline of what moves, brought to another place, or random strokes and blobs.

  What is behind a moving thing is not known, so its outline cuts what stands beside it.

  Args:
    depth: [h w] mean motion magnitude W of the picture, pixels.

  Returns:
    [h w 1] 1 in holes and 0 elsewhere; holes cover 1 % to 40 % of the picture wherever a few tries find such.
  """
  hole = np.zeros(depth.shape, np.uint8)
  for _ in range(_TRIES):
    hole = _move_outline(rng, depth) if rng.random() < 0.5 else _draw_shapes(rng, *depth.shape)
    if _LEAST < hole.mean() < _MOST:
      break
  return hole[..., None].astype(np.float32)


def _move_outline(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
  height, width = depth.shape
  thing = (depth > rng.uniform(0.1, 0.5) * max(float(depth.max()), 1e-6)).astype(np.uint8)
  if rng.random() < 0.5:
    thing = thing[:, ::-1]
  move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-30, 30), rng.uniform(0.6, 1.2))
  move[:, 2] += rng.uniform(-0.5, 0.5, 2) * [width, height]
  side = 2 * int(rng.integers(1, 4)) + 1  # a leaf's rim lies beside what moves
  moved = cv2.warpAffine(np.ascontiguousarray(thing), move, (width, height), flags=cv2.INTER_NEAREST)
  return cv2.dilate(moved, np.ones((side, side), np.uint8))


def _draw_shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  hole, side = np.zeros((height, width), np.uint8), min(height, width)
  for _ in range(int(rng.integers(1, 5))):
    start = rng.uniform(0, 1, 2) * [width, height]
    if rng.random() < 0.5:
      points = np.cumsum([start, *rng.normal(0, side / 6, (int(rng.integers(2, 6)), 2))], 0)
      cv2.polylines(hole, [points.astype(np.int32)], False, 1, max(1, int(rng.uniform(0.02, 0.12) * side)))
    else:
      axes = np.maximum(1, rng.uniform(0.03, 0.17, 2) * side).astype(int)
      cv2.ellipse(hole, start.astype(int).tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, 1, cv2.FILLED)
  return hole
