"""Curves, ribbons, their colours and noise: the geometry of things at rest.

Coordinates are (x, y) pixels, +y down, integer pixel centres; colours are RGB 0..255.
"""

import cv2
import numpy as np


def rotate90(vectors: np.ndarray) -> np.ndarray:
  """Turns [... 2] vectors a quarter turn, (x, y) -> (-y, x), in pixels."""
  return np.stack([-vectors[..., 1], vectors[..., 0]], -1)


def make_ribbon(nodes: np.ndarray, half_widths: np.ndarray) -> np.ndarray:
  """Points [n+1 3 2] (left, middle, right) of a ribbon along `nodes` [n+1 2] with `half_widths` [n+1], pixels."""
  tangent = np.gradient(nodes, axis=0)
  tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
  side = rotate90(tangent) * half_widths[:, None]
  return np.stack([nodes - side, nodes, nodes + side], 1)


def make_curve(root, *, angle: float, curl: float, length: float, num: int) -> np.ndarray:
  """Nodes [num+1 2] of a curve from `root` that starts at `angle` (radians, 0 = +x) and turns by `curl`."""
  theta = angle + curl * (np.arange(num) + 0.5) / num
  steps = np.stack([np.cos(theta), np.sin(theta)], -1) * (length / num)
  return np.concatenate([[root], np.asarray(root) + np.cumsum(steps, 0)])


def shade_ribbon(rng: np.random.Generator, color, num: int, *, light: float, dark: float, vein=0.06):
  """Colours [num 2 3]: darker by `dark` at the root, lit from one side by `light`, streaked along its length."""
  along = (1 - dark * (1 - np.arange(num) / max(num - 1, 1)))[:, None, None]
  sides = np.array([1 + light, 1 - light])[None, :, None]
  return np.asarray(color) * along * sides * (1 + vein * rng.normal(size=(num, 2, 1)))


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, coarsest: int = 4, octaves: int = 5):
  """Fractal noise [h w] float32 of about unit deviation: octaves of upsampled random grids."""
  out = np.zeros((height, width), np.float32)
  for octave in range(octaves):
    cells = min(coarsest * 2**octave, max(height, width))
    grid = rng.normal(size=(max(2, cells * height // width + 1), max(2, cells))).astype(np.float32)
    out += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
  return out / (out.std() + 1e-6)
