"""Cantilevers that bend in the wind and carry things: blades, stalks, trunks, and branches on branches."""

import functools
from collections.abc import Sequence

import numpy as np

from data_pipeline.synthetic.shapes import rotate90
from data_pipeline.synthetic.wind import COSINE, LINEAR, SINE, SQUARE, Wind, course_index

_ROOTS = (1.8751, 4.6941)  # of cos(x) cosh(x) = -1: the first two modes of a clamped uniform beam
_FREQUENCY_RATIO = (2.5, 6.27)  # of the second mode to the first: 6.27 for a uniform beam, less for one that tapers
_SECOND_SHARE = (0.08, 0.35)  # angle of the second mode at the tip, of the first's
_LARGEST_ANGLE = 0.7  # radians at the tip


def mode_slope(u: np.ndarray, mode: int) -> np.ndarray:
  """Slope [...] of a clamped uniform beam's bending mode (0 or 1) at arc u [...] in 0..1, one at the tip."""

  def slope(u):  # Euler-Bernoulli
    x, end = _ROOTS[mode] * u, _ROOTS[mode]
    sigma = (np.cosh(end) + np.cos(end)) / (np.sinh(end) + np.sin(end))
    return np.sinh(x) + np.sin(x) - sigma * (np.cosh(x) - np.cos(x))

  return slope(np.asarray(u, np.float64)) / slope(1.0)


@functools.lru_cache
def _sample_modes(num: int) -> tuple[np.ndarray, np.ndarray]:
  """Slopes of both modes at the nodes [2 num+1] and in the middle [2 num] of the segments of a beam of `num`."""
  u = np.linspace(0, 1, num + 1)
  middle = (u[1:] + u[:-1]) / 2
  return np.stack([mode_slope(u, 0), mode_slope(u, 1)]), np.stack([mode_slope(middle, 0), mode_slope(middle, 1)])


def _bend(nodes: np.ndarray) -> np.ndarray:
  """Travel [... n+1 3 2] of `nodes` [... n+1 2] per D and D**2 of the first mode and D of the second."""
  step = np.diff(nodes, axis=-2)
  first, second = _sample_modes(step.shape[-2])[1][..., None]
  travel = np.stack([first * rotate90(step), -(first**2) / 2 * step, second * rotate90(step)], -2)
  return np.concatenate([np.zeros_like(travel[..., :1, :, :]), np.cumsum(travel, -3)], -3)


def _turn(offset: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Travel [... 3 2] at `offset` [... 2] from a node, in the order of `_bend`, by both modes' slopes [... 1] there."""
  return np.stack([first * rotate90(offset), -(first**2) / 2 * offset, second * rotate90(offset)], -2)


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
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1).sum()
    self._slopes, (first, _) = _sample_modes(len(nodes) - 1)
    angle = min(reach / (length * first.mean()), _LARGEST_ANGLE)
    drivers = [
      wind.add_driver(hz, x=nodes[0, 0], scale=angle),
      wind.add_driver(
        wind.rng.uniform(*_FREQUENCY_RATIO) * hz, x=nodes[0, 0], scale=wind.rng.uniform(*_SECOND_SHARE) * angle
      ),
    ]
    own = [course_index(drivers[0], LINEAR), course_index(drivers[0], SQUARE), course_index(drivers[1], LINEAR)]
    self.index = np.concatenate([parent[0].index if parent else [], own]).astype(int)
    self._travel = _bend(nodes)

  def carry(self, points: np.ndarray, node: np.ndarray | int) -> np.ndarray:
    """Displacement basis [... m 2] of `points` [... 2] that ride rigidly on `node` (number or array [...])."""
    own = self._travel[node] + _turn(points - self.nodes[node], *self._slopes[:, node, None])
    if self._parent is None:
      return own
    return np.concatenate([self._parent[0].carry(points, self._parent[1]), own], -2)


class Sheaf:
  """Many stalks that bend as a few leaders do, each by its own factor, and whose upper parts flutter.

  Args:
    nodes: [r n+1 2] pixels, root first.
    leaders: stems without parents.
    choice: [r] the leader that each stalk follows.
    factor: [r] of the leader's angle.
    hinge: number of the node about which what lies beyond turns.
    flutter: [r] drivers of that turn.

  Attributes:
    nodes: as given.
    index: [r m] courses that move each stalk.
  """

  def __init__(
    self, nodes: np.ndarray, leaders: Sequence[Stem], choice: np.ndarray, *, factor, hinge: int, flutter: np.ndarray
  ):
    self.nodes, self._hinge, self._factor = nodes, hinge, np.asarray(factor)
    own = np.stack([course_index(flutter, SINE), course_index(flutter, COSINE)], -1)
    self.index = np.concatenate([np.stack([leader.index for leader in leaders])[choice], own], -1)
    self._slopes = _sample_modes(nodes.shape[1] - 1)[0]
    self._travel = _bend(nodes)

  def carry(self, points: np.ndarray, node: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Displacement basis [p ... m 2] of `points` [p ... 2] that ride rigidly on the nodes `node` of the stalks `who`.

    `node` and `who` are arrays that broadcast against [p ...].
    """
    factor = self._factor[who][..., None]
    first, second = (factor * slopes[node][..., None] for slopes in self._slopes)
    turned = _turn(points - self.nodes[who, node], first, second)
    grown = self._travel[who, node] * np.stack([factor, factor**2, factor], -2)
    arm = (points - self.nodes[who, self._hinge]) * (node > self._hinge)[..., None]
    return np.concatenate([grown + turned, np.stack([rotate90(arm), arm], -2)], -2)
