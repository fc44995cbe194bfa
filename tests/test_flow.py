"""Optical flow against scenes whose motion is known exactly, and its parts against NumPy and SciPy."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
from videos import assert_refused

from gid_jax import flow as flow_module
from gid_jax.flow import DEFAULT, REFERENCE, FlowSettings, estimate_flow

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEIGHT, WIDTH = 48, 64


def texture_at(x, y, *, seed=0):
  """Colours [... 3] in 0 ... 1 of an endless picture, a sum of waves 5 to 60 px long, at any position."""
  rng = np.random.default_rng(seed)
  lengths, angles = np.exp(rng.uniform(np.log(5), np.log(60), 40)), rng.uniform(0, 2 * np.pi, 40)
  phases, heights = rng.uniform(0, 2 * np.pi, (40, 3)), np.sqrt(lengths)
  heights *= 0.14 / np.sqrt(np.sum(heights**2) / 2)
  along = 2 * np.pi / lengths * (np.cos(angles) * x[..., None] + np.sin(angles) * y[..., None])
  return 0.5 + np.sum(heights[:, None] * np.sin(along[..., None] + phases), -2)


def grid(height, width):
  y, x = np.mgrid[:height, :width].astype(float)
  return x, y


def film(field, *, height=HEIGHT, width=WIDTH):
  """The picture after every point p of it has gone to p + field(p): the exact target of the exact flow."""
  to_x, to_y = grid(height, width)
  x, y = to_x, to_y
  for _ in range(60):  # The fields contract.
    u, v = field(x, y)
    x, y = to_x - u, to_y - v
  return texture_at(x, y).astype(np.float32)


def shift_by(dx, dy):
  return lambda x, y: (np.full_like(x, dx), np.full_like(x, dy))


def affine(matrix, dx=0.0, dy=0.0):
  """The field (matrix - 1)(p - centre) + (dx, dy)."""

  def field(x, y):
    x, y = x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2
    return tuple((row[0] - (i == 0)) * x + (row[1] - (i == 1)) * y + d for i, row, d in zip((0, 1), matrix, (dx, dy)))

  return field


def random_field(seed):
  """A smooth field of waves 40 to 90 px long, up to about 3 px."""
  rng = np.random.default_rng(seed)
  waves = rng.uniform(2 * np.pi / 90, 2 * np.pi / 40, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 2, 3))

  def field(x, y):
    numbers, (angles, phases) = waves[0], waves[1]
    return tuple(
      np.sin(n * (np.cos(a) * x[..., None] + np.sin(a) * y[..., None]) + p).sum(-1)
      for n, a, p in zip(numbers, angles, phases, strict=True)
    )

  return field


TURN = np.deg2rad(4)
# Each field with the mean and the largest end-point error allowed, px.
FIELDS = {
  "a fraction of a pixel": (shift_by(0.3, -0.45), 0.01, 0.05),
  "12 pixels": (shift_by(12.0, -3.0), 0.05, 0.5),
  "a turn about the centre": (affine([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]), 0.05, 0.5),
  "an affine field": (affine([[1.04, 0.03], [-0.02, 0.95]], 0.8, -0.5), 0.05, 0.5),
  "smooth field 0": (random_field(0), 0.05, 0.5),
  "smooth field 1": (random_field(1), 0.05, 0.5),
  "smooth field 2": (random_field(2), 0.05, 0.5),
  "rest": (shift_by(0.0, 0.0), 0.0, 0.0),
}


@pytest.fixture(scope="module")
def scene(quick_compilation):
  """The reference, one target of each field, and their flow and confidence."""
  reference = texture_at(*grid(HEIGHT, WIDTH)).astype(np.float32)
  targets = np.stack([film(field) for field, *_ in FIELDS.values()])
  return reference, targets, *estimate_flow(reference, targets)


def end_point_error(flow, field, *, margin):
  """Error [n] px where both ends of the true displacement are at least `margin` px inside."""
  height, width = flow.shape[:2]
  x, y = grid(height, width)
  u, v = field(x, y)
  inside = np.ones((height, width), bool)
  for end_x, end_y in ((x, y), (x + u, y + v)):
    inside &= (np.minimum(end_x, end_y) >= margin) & (end_x <= width - 1 - margin) & (end_y <= height - 1 - margin)
  return np.hypot(flow[..., 0] - u, flow[..., 1] - v)[inside]


# Accuracy


@pytest.mark.parametrize("name", FIELDS)
def test_flow_of_a_known_field(scene, name):
  field, mean, largest = FIELDS[name]
  flow = scene[2][list(FIELDS).index(name)]
  error = end_point_error(flow, field, margin=4)
  print(name, error.mean(), error.max())
  assert error.mean() <= mean and error.max() <= largest
