"""Cantilevers that bend in the wind and carry things: blades, stalks, trunks, and branches on branches."""

import numpy as np

from data_pipeline.synthetic.shapes import rotate90
from data_pipeline.synthetic.wind import LINEAR, SQUARE, Wind, course_index

_ROOTS = (1.8751, 4.6941)  # of cos(x) cosh(x) = -1: the first two modes of a clamped uniform beam
_FREQUENCY_RATIO = (2.5, 6.27)  # of the second mode to the first: 6.27 for a uniform beam, less for one that tapers
_SECOND_SHARE = (0.05, 0.25)  # angle of the second mode at the tip, of the first's
_LARGEST_ANGLE = 0.7  # radians at the tip


def mode_slope(u: np.ndarray, mode: int) -> np.ndarray:
  """Slope of a clamped uniform beam's bending mode (0 or 1) at arc u in [0, 1], one at the tip (Euler-Bernoulli)."""

  def slope(u):
    x, end = _ROOTS[mode] * u, _ROOTS[mode]
    sigma = (np.cosh(end) + np.cos(end)) / (np.sinh(end) + np.sin(end))
    return np.sinh(x) + np.sin(x) - sigma * (np.cosh(x) - np.cos(x))

  return slope(np.asarray(u, np.float64)) / slope(1.0)


class Stem:
  """A cantilever along `nodes` [n+1 2], root first, that bends in two modes; things may ride on its nodes.

  The first mode turns the tangent at arc u by `D * slope(u)`, exact to second order in D (length is kept to that
  order); the second, much smaller, to first order. A stem on a parent is carried rigidly by the parent's node and
  adds its own bending.

  Args:
    wind: drives both modes.
    nodes: [n+1 2] pixels.
    reach: the tip's travel by its own bending, pixels.
    hz: natural frequency of the first mode.
    parent: (stem, node) that it grows from.

  Attributes:
    nodes: as given.
    index: [m] courses that move it.
  """

  def __init__(
    self, wind: Wind, nodes: np.ndarray, *, reach: float, hz: float, parent: tuple["Stem", int] | None = None
  ):
    self.nodes, self._parent = nodes, parent
    step = np.diff(nodes, axis=0)
    length = np.linalg.norm(step, axis=1).sum()
    u = np.linspace(0, 1, len(nodes))
    middle = (u[1:] + u[:-1]) / 2
    first, second = mode_slope(middle, 0), mode_slope(middle, 1)
    angle = min(reach / (length * first.mean()), _LARGEST_ANGLE)
    drivers = [
      wind.add_driver(hz, x=nodes[0, 0], scale=angle),
      wind.add_driver(
        wind.rng.uniform(*_FREQUENCY_RATIO) * hz, x=nodes[0, 0], scale=wind.rng.uniform(*_SECOND_SHARE) * angle
      ),
    ]
    own = [course_index(drivers[0], LINEAR), course_index(drivers[0], SQUARE), course_index(drivers[1], LINEAR)]
    self.index = np.concatenate([parent[0].index if parent else [], own]).astype(int)
    self._slopes = mode_slope(u, 0), mode_slope(u, 1)
    travel = [
      first[:, None] * rotate90(step), -(first[:, None] ** 2) / 2 * step, second[:, None] * rotate90(step)
    ]  # fmt: skip
    self._travel = np.pad(np.cumsum(np.stack(travel, 1), 0), ((1, 0), (0, 0), (0, 0)))

  def carry(self, points: np.ndarray, node: np.ndarray | int) -> np.ndarray:
    """Displacement basis [... m 2] of `points` [... 2] that ride rigidly on `node` (number or array [...])."""
    offset = points - self.nodes[node]
    slope, slope2 = (np.asarray(slopes[node])[..., None] for slopes in self._slopes)
    turned = [slope * rotate90(offset), -(slope**2) / 2 * offset, slope2 * rotate90(offset)]
    own = self._travel[node] + np.stack(turned, -2)
    if self._parent is None:
      return own
    return np.concatenate([self._parent[0].carry(points, self._parent[1]), own], -2)
