"""Differences between rows of benchmarks/ablations.py."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from gid_jax.evaluation import frechet

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "ablations.py"))
estimate_difference = BENCHMARK["estimate_difference"]


def test_difference_of_two_distances_is_taken_on_the_same_scenes():
  rng = np.random.default_rng(0)
  real = rng.normal(size=(60, 4))
  # What is hard for both: every scene has its own large error, the second model's is larger by 1.
  error = np.repeat(rng.normal(size=(15, 4)) * 3, 4, axis=0)
  groups = [f"scene {i // 4}" for i in range(60)]
  x, y = real + error + 1, real + error
  difference = estimate_difference((x, groups), (y[::-1], groups[::-1]), (real, groups))
  expected = frechet.frechet_distance(x, real) - frechet.frechet_distance(y, real)
  assert difference.value == pytest.approx(expected, rel=1e-9) and difference.num_samples == 15
  alone = frechet.estimate_frechet(x, real, groups, groups)
  assert difference.high - difference.low < alone.high - alone.low
  same = estimate_difference((x, groups), (x, groups), (real, groups))
  assert same[:3] == pytest.approx((0, 0, 0), abs=1e-9)
  swapped = estimate_difference((y, groups), (x, groups), (real, groups))
  assert swapped.value == pytest.approx(-expected) and swapped.low < swapped.value
