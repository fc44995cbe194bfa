"""Cantilevers that bend in the wind and carry things."""

import numpy as np

from data_pipeline.synthetic.shapes import rotate90
from data_pipeline.synthetic.wind import LINEAR, SQUARE, Wind, course_index


class Stem:
  """A cantilever along `nodes` [n+1 2], root first, that bends in two modes; things may ride on its nodes.

  The first mode turns the tangent at arc u in [0, 1] by `D * slope(u)`, exact to second order in D (length is
  kept to that order); the second mode, an order of magnitude smaller, to first order. `reach` is the tip's
  travel in pixels.
  """

  def __init__(self, wind: Wind, nodes: np.ndarray, *, reach: float, hz: float):
    self.nodes = nodes
    n = len(nodes) - 1
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1).sum()
    scale = min(1.5 * reach / length, 0.6)
    first = wind.add_driver(hz, x=nodes[0, 0], scale=scale)
    second = wind.add_driver(2.6 * hz, x=nodes[0, 0], scale=0.15 * scale)
    self.index = np.array([course_index(first, LINEAR), course_index(first, SQUARE), course_index(second, LINEAR)])
    u = np.arange(n + 1) / n
    self.slope, self.slope2 = u * (2 - u), np.sin(1.5 * np.pi * u) * u
    mid = (u[1:] + u[:-1])[:, None] / 2
    step = np.diff(nodes, axis=0)
    turn = mid * (2 - mid)
    travel = [turn * rotate90(step), -(turn**2) / 2 * step, np.sin(1.5 * np.pi * mid) * mid * rotate90(step)]
    self.travel = np.pad(np.cumsum(np.stack(travel, 1), 0), ((1, 0), (0, 0), (0, 0)))

  def carry(self, points: np.ndarray, node: np.ndarray | int) -> np.ndarray:
    """Displacement basis [... 3 2] of `points` [... 2] that ride rigidly on `node` (number or array [...])."""
    offset = points - self.nodes[node]
    slope, slope2 = self.slope[node], self.slope2[node]
    slope, slope2 = np.asarray(slope)[..., None], np.asarray(slope2)[..., None]
    turned = [slope * rotate90(offset), -(slope**2) / 2 * offset, slope2 * rotate90(offset)]
    return self.travel[node] + np.stack(turned, -2)
