"""The red-black solver against a sparse direct one, and against itself pixel by pixel."""

import functools

import numpy as np
import pytest
import scipy.sparse
from helpers import run

from gid_jax.flow.relaxation import relax

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make_system(height, width, seed=0):
  """A regular system of `relax`: a positive definite 2 x 2 matrix per pixel, weights between neighbours, b."""
  rng = np.random.default_rng(seed)
  root = rng.normal(size=(2, 2, height, width))
  xx, xy, yy = np.einsum("ik...,jk...->ij...", root, root)[[0, 0, 1], [0, 1, 1]]
  xx, yy = xx + 0.3, yy + 0.3
  right, below = rng.uniform(0.1, 2, (2, height, width))
  right[:, -1], below[-1] = 0, 0
  return xx, xy, yy, *rng.normal(size=(2, height, width)), right, below


def run_solve(system, **options):
  return np.stack(run(functools.partial(relax, **options), *system))


@pytest.mark.parametrize(("height", "width"), [(5, 6), (6, 5), (4, 4), (7, 3), (2, 2)])
def test_solver_finds_the_solution(height, width):
  system = make_system(height, width)
  xx, xy, yy, bx, by, right, below = (array.ravel() for array in system)
  size = height * width
  laplacian = scipy.sparse.lil_array((size, size))
  for weights, step in ((right, 1), (below, width)):
    for i in np.flatnonzero(weights):
      for a, b in ((i, i + step), (i + step, i)):
        laplacian[a, a] += weights[i]
        laplacian[a, b] -= weights[i]
  diagonals = [scipy.sparse.diags_array(values) for values in (xx, xy, yy)]
  blocks = [[diagonals[0] + laplacian, diagonals[1]], [diagonals[1], diagonals[2] + laplacian]]
  matrix = scipy.sparse.block_array(blocks, format="csc")
  expected = scipy.sparse.linalg.spsolve(matrix, np.concatenate([bx, by])).reshape(2, height, width)
  found = run_solve(system, num_sweeps=150, relaxation=1.5)
  np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_sweeps_are_red_black_over_relaxation():
  height, width = 5, 6
  system = make_system(height, width, seed=1)
  xx, xy, yy, bx, by, right, below = system
  d = np.zeros((height, width, 2))
  for _ in range(3):
    for colour in (0, 1):
      for i, j in np.ndindex(height, width):
        if (i + j) % 2 != colour:
          continue
        near = [(right[i, j], i, j + 1), (below[i, j], i + 1, j)]
        near += [(right[i, j - 1], i, j - 1)] * (j > 0) + [(below[i - 1, j], i - 1, j)] * (i > 0)
        total = sum(weight for weight, *_ in near)
        matrix = np.array([[xx[i, j] + total, xy[i, j]], [xy[i, j], yy[i, j] + total]])
        b = np.array([bx[i, j], by[i, j]]) + sum(weight * d[row, column] for weight, row, column in near if weight)
        d[i, j] += 1.8 * (np.linalg.solve(matrix, b) - d[i, j])
  found = run_solve(system, num_sweeps=3, relaxation=1.8)
  np.testing.assert_allclose(np.moveaxis(found, 0, -1), d, atol=1e-4, rtol=1e-4)
