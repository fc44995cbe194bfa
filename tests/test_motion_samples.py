"""Metrics of sets of motions against trajectories in float64, all subsets, SciPy, and sets with known distances."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_volumes import evaluate_trajectories, make_volume

from gid_jax.errors import UserError
from gid_jax.evaluation import motion_samples
from gid_jax.motion import spectral

LEFT = np.arange(8)[None].repeat(6, 0) < 4
NOWHERE = np.zeros((6, 8), bool)


@pytest.mark.parametrize("num_frames, num_bands", [(20, 4), (6, 4), (7, 4), (9, 1)])
def test_endpoint_error_is_that_of_the_trajectories(num_frames, num_bands):
  pair = [make_volume(seed, num_frames=num_frames, num_bands=num_bands) for seed in (0, 1)]
  difference = np.subtract(*map(evaluate_trajectories, pair))[:, LEFT]
  error = motion_samples.endpoint_error(*pair, LEFT, stride=2)
  assert error == pytest.approx(2 * np.linalg.norm(difference, axis=-1).mean(), rel=1e-5)
  assert motion_samples.endpoint_error(pair[0], pair[0], LEFT, stride=2) == 0
  assert math.isnan(motion_samples.endpoint_error(*pair, NOWHERE, stride=2))


def test_motions_of_different_kinds_do_not_compare():
  with pytest.raises(UserError, match="resample"):
    motion_samples.endpoint_error(make_volume(), make_volume(fps=25.0), LEFT, stride=1)
  with pytest.raises(UserError, match="resample"):
    motion_samples.pairwise_distances([make_volume(), make_volume(num_bands=3)], LEFT, stride=1)


@pytest.mark.parametrize("moving", [LEFT, NOWHERE])
def test_what_is_not_finite_is_refused_wherever_it_moves(moving):
  broken = make_volume()
  broken.coefficients[1] = np.nan
  with pytest.raises(UserError, match="finite"):
    motion_samples.endpoint_error(broken, make_volume(), moving, stride=1)
  with pytest.raises(UserError, match="finite"):
    motion_samples.pairwise_distances([broken, make_volume()], moving, stride=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=7))
def test_best_of_is_the_mean_over_all_subsets(errors):
  found = [motion_samples.best_of(errors, num) for num in range(1, len(errors) + 2)]
  for num, value in enumerate(found[:-1], 1):
    assert value == pytest.approx(np.mean([min(chosen) for chosen in itertools.combinations(errors, num)]))
  assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(found[:-1]))
  assert math.isnan(found[-1])


def test_pairwise_distances_are_those_of_the_trajectories():
  volumes = [make_volume(seed) for seed in range(3)]
  trajectories = [evaluate_trajectories(volume)[:, LEFT] for volume in volumes]
  expected = [[3 * np.sqrt(np.square(a - b).sum(-1).mean()) for b in trajectories] for a in trajectories]
  np.testing.assert_allclose(motion_samples.pairwise_distances(volumes, LEFT, stride=3), expected, rtol=1e-5)
  assert np.isnan(motion_samples.pairwise_distances(volumes, NOWHERE, stride=3)).all()


def test_energy_distance_on_a_line_is_that_of_scipy_but_for_its_bias():
  rng = np.random.default_rng(0)
  sampled, real = rng.normal(size=7), rng.normal(size=5) + 1
  both = np.concatenate([sampled, real])
  distances = np.abs(both[:, None] - both)
  expected = scipy.stats.energy_distance(sampled, real) ** 2
  # SciPy counts the distance of each member from itself among those within a set.
  within = [np.abs(x[:, None] - x).mean() for x in (sampled, real)]
  expected -= sum(mean * (1 / (1 - 1 / len(x)) - 1) for mean, x in zip(within, (sampled, real), strict=True))
  assert motion_samples.energy_distance(distances, 7) == pytest.approx(expected)
  turned = np.roll(distances, (5, 5), (0, 1))  # the real ones first
  assert motion_samples.energy_distance(turned, 5) == pytest.approx(expected)


def test_energy_distance_of_one_distribution_is_nought_on_average():
  rng = np.random.default_rng(0)
  found = []
  for shift in (0, 2):
    sets = rng.normal(size=(400, 9, 2))
    sets[:, :6, 0] += shift
    distances = np.linalg.norm(sets[:, :, None] - sets[:, None], axis=-1)
    found.append([motion_samples.energy_distance(d, 6) for d in distances])
  error = np.std(found[0]) / 20
  assert abs(np.mean(found[0])) < 4 * error
  assert np.mean(found[1]) > 10 * error


def test_sets_of_one_are_points():
  assert motion_samples.energy_distance(np.array([[0.0, 3.0], [3.0, 0.0]]), 1) == 6
  # Two samples 4 apart, both 3 from the only take.
  assert motion_samples.energy_distance(np.array([[0, 4, 3], [4, 0, 3], [3, 3, 0]], float), 2) == 2


def test_diversity_of_copies_of_opposites_and_of_independent_motions():
  volume = make_volume()
  diversity = lambda *samples: motion_samples.diversity(samples, LEFT, stride=2)
  assert diversity(volume, volume) == 0
  assert diversity(volume, spectral.magnify(volume, -1.0)) == pytest.approx(2, rel=1e-5)
  many = [make_volume(seed) for seed in range(8)]
  assert diversity(*many) == pytest.approx(math.sqrt(2), rel=0.05)
  assert diversity(*(spectral.magnify(v, 7.0) for v in many)) == pytest.approx(diversity(*many), rel=1e-5)
  shifted = [v.replace(coefficients=np.concatenate([v.coefficients[:1] * 0 + 1e4, v.coefficients[1:]])) for v in many]
  assert diversity(*shifted) == pytest.approx(diversity(*many), rel=1e-5)  # an offset from the photo is no motion
  assert math.isnan(diversity(volume))
  rest = spectral.magnify(volume, 0.0)
  assert math.isnan(diversity(rest, rest))
  assert math.isnan(motion_samples.diversity(many, NOWHERE, stride=2))


def test_judging_samples():
  takes = [make_volume(20), make_volume(21)]
  samples = [takes[0], *(make_volume(seed) for seed in range(3))]
  judged = motion_samples.judge_samples(samples, takes, LEFT, stride=2)
  errors = [motion_samples.endpoint_error(sample, takes[0], LEFT, stride=2) for sample in samples]
  assert judged["endpoint_error_1"] == pytest.approx(np.mean(errors))
  assert judged["endpoint_error_4"] == 0  # one of the four is the very take
  assert math.isnan(judged["endpoint_error_16"])
  assert judged["diversity"] == pytest.approx(math.sqrt(2), rel=0.1)
  far = motion_samples.judge_samples([spectral.magnify(s, 3.0) for s in samples], takes, LEFT, stride=2)
  assert far["energy_distance"] > judged["energy_distance"] + 1
