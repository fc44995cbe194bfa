"""Curves, ribbons and noise: the geometry of things at rest.

Coordinates are (x, y) pixels, +y down, integer pixel centres; colours are RGB 0..255.
"""

import cv2
import numpy as np


def rotate90(vectors: np.ndarray) -> np.ndarray:
  """Turns [... 2] vectors a quarter turn, (x, y) -> (-y, x), in pixels."""
  return np.stack([-vectors[..., 1], vectors[..., 0]], -1)


def make_ribbon(nodes: np.ndarray, half_widths: np.ndarray) -> np.ndarray:
  """Points [... n+1 3 2] (left, middle, right) of ribbons along `nodes` [... n+1 2], `half_widths` [... n+1] pixels."""
  tangent = np.gradient(nodes, axis=-2)
  tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9
  side = rotate90(tangent) * half_widths[..., None]
  return np.stack([nodes - side, nodes, nodes + side], -2)


def make_curve(root, *, angle, curl, length, num: int, bend: float = 1.0) -> np.ndarray:
  """Nodes [... num+1 2] of curves from `root` [... 2] that start at `angle` (radians, 0 = +x) and turn by `curl`.

  `angle`, `curl` and `length` are numbers or arrays [...]. A `bend` above 1 puts the turn near the tip, as weight does.
  """
  angle, curl, length = (np.asarray(value, float)[..., None] for value in (angle, curl, length))
  theta = angle + curl * ((np.arange(num) + 0.5) / num) ** bend
  steps = np.stack([np.cos(theta), np.sin(theta)], -1) * (length / num)[..., None]
  start = np.broadcast_to(np.asarray(root, float)[..., None, :], (*steps.shape[:-2], 1, 2))
  return np.concatenate([start, start + np.cumsum(steps, -2)], -2)


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, coarsest: int = 4, octaves: int = 5):
  """Fractal noise [h w] float32 of about unit deviation: octaves of upsampled random grids."""
  out = np.zeros((height, width), np.float32)
  for octave in range(octaves):
    cells = min(coarsest * 2**octave, max(height, width))
    grid = rng.normal(size=(max(2, cells * height // width + 1), max(2, cells))).astype(np.float32)
    out += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
  return out / (out.std() + 1e-6)
