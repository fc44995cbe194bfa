"""Fréchet and kernel distances against SciPy's matrix square root, plain loops and their own invariances."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.evaluation import frechet


def make_features(seed, n, d):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def scipy_frechet(x, y):
  """As the reference of FID computes it, with a general matrix square root."""
  c, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  root = scipy.linalg.sqrtm(c @ c2)
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c + c2 - 2 * np.real(root))


def loop_kernel_distance(x, y, unbiased):
  kernel = lambda a, b: (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3
  inside = lambda z: [kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j or not unbiased]
  return np.mean(inside(x)) + np.mean(inside(y)) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def names(n, *, each=1):
  return [f"scene {i // each}" for i in range(n)]


@pytest.mark.parametrize("n, m", [(40, 60), (7, 40)])
def test_frechet_matches_scipy(n, m):
  x, y = make_features(0, n, 6), make_features(1, m, 6)
  expected = scipy_frechet(x, y)
  assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_few_samples_matches_a_square_root_of_symmetric_matrices():
  # With fewer samples than dimensions SciPy's general root fails; that of S C S, S = C'^(1/2), does not.
  x, y = make_features(2, 5, 9), make_features(3, 8, 9)
  c, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  values, vectors = scipy.linalg.eigh(c)
  root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
  overlap = np.sqrt(np.clip(scipy.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
  expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c) + np.trace(c2) - 2 * overlap
  assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_known_gaussians():
  # Diagonal covariances: the squared difference of the deviations. Two samples at mean +- s sqrt(n - 1) / sqrt(2)
  # along each axis, n in all, have deviation s there.
  def draw(mean, deviations):
    axes = np.diag(deviations) * np.sqrt((2 * len(deviations) - 1) / 2)
    return mean + np.concatenate([axes, -axes])

  distance = frechet.frechet_distance(draw([0, 0, 0], [2.0, 3, 0]), draw([1, 0, 2], [1.0, 1, 0]))
  assert distance == pytest.approx(5 + (2 - 1) ** 2 + (3 - 1) ** 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(2, 12), st.integers(1, 6))
def test_both_distances_have_their_invariances(seed, n, m, d):
  x, y = make_features(seed, n, d), make_features(seed + 1, m, d)
  rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
  for distance in (frechet.frechet_distance, frechet.kernel_distance):
    value = distance(x, y)
    scale = 1e-9 * (1 + abs(value) + np.abs(x).max() ** 6 + np.abs(y).max() ** 6)
    assert distance(y, x) == pytest.approx(value, abs=scale)
    assert distance(x @ rotation, y @ rotation) == pytest.approx(value, abs=scale)
    assert distance(x[::-1], y) == pytest.approx(value, abs=scale)
  assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * (x**2).sum())
  assert frechet.frechet_distance(x + 1, x) == pytest.approx(d, abs=1e-9 * ((x + 1) ** 2).sum())
  assert frechet.kernel_distance(x, x, unbiased=False) == pytest.approx(0, abs=1e-9 * (1 + np.abs(x).max() ** 6))


@pytest.mark.parametrize("unbiased", [True, False])
def test_kernel_distance_matches_loops(unbiased, monkeypatch):
  x, y = make_features(4, 9, 3), make_features(5, 6, 3)
  expected = loop_kernel_distance(x, y, unbiased)
  assert frechet.kernel_distance(x, y, unbiased=unbiased) == pytest.approx(expected, rel=1e-10)
  estimate = frechet.estimate_kernel_distance(x, x[:8], names(9, each=3), names(8, each=3), unbiased=unbiased)
  assert estimate.value == pytest.approx(loop_kernel_distance(x, x[:8], unbiased), rel=1e-10)
  assert estimate.num_samples == 3
  monkeypatch.setattr(frechet, "_BLOCK", 4)
  assert frechet.kernel_distance(x, y, unbiased=unbiased) == pytest.approx(expected, rel=1e-10)


def test_unbiased_kernel_distance_is_unbiased():
  rng = np.random.default_rng(0)
  draws = [(rng.normal(size=(6, 2)), rng.normal(size=(6, 2))) for _ in range(400)]
  unbiased, biased = (
    np.array([frechet.kernel_distance(x, y, unbiased=option) for x, y in draws]) for option in (True, False)
  )
  error = unbiased.std() / 20
  assert abs(unbiased.mean()) < 4 * error and biased.mean() > 10 * error


def test_intervals_cover_and_stand_around_the_value():
  x, y = make_features(8, 40, 3), make_features(9, 40, 3)
  for estimate in (frechet.estimate_frechet, frechet.estimate_kernel_distance):
    found = estimate(x, y, names(40, each=2), names(40, each=2))
    assert found.low < found.value < found.high and found.num_samples == 20
    # Doubling every sample within its scene brings no new scene, and so no narrower interval.
    twice = estimate(np.repeat(x, 2, 0), np.repeat(y, 2, 0), names(80, each=4), names(80, each=4))
    assert twice.num_samples == 20
    assert twice.high - twice.low > 0.8 * (found.high - found.low)


@pytest.mark.parametrize("estimate, truth", [(frechet.estimate_frechet, 1), (frechet.estimate_kernel_distance, 22)])
def test_intervals_cover_the_truth(estimate, truth):
  # Two normal distributions a deviation apart; with moments m and m', the kernel's is 3 dm1^2 + 3 dm2^2 + dm3^2.
  rng = np.random.default_rng(1)
  covered = 0
  for trial in range(40):
    found = estimate(rng.normal(size=(80, 1)), rng.normal(1, size=(80, 1)), names(80), names(80), seed=trial)
    covered += found.low < truth < found.high
  assert covered >= 33  # of 40, where 38 are promised


def test_kernel_distance_of_the_same_scenes_says_so():
  x = make_features(13, 10, 4)
  found = frechet.estimate_kernel_distance(x, x + 1e-3, names(10), names(10))
  assert found.value < 0 and "same 10 scenes" in found.note
  assert not frechet.estimate_kernel_distance(x, x + 9, names(10), names(10)).note


def test_scenes_are_drawn_together():
  # The distance is the same whichever scenes are drawn, if both sets are the same scenes.
  x = make_features(10, 12, 2)
  found = frechet.estimate_frechet(x, x, names(12), names(12))
  assert found.high == pytest.approx(0, abs=1e-9)
  order = np.random.default_rng(0).permutation(12)
  shuffled = frechet.estimate_frechet(x, x[order], names(12), [names(12)[i] for i in order])
  assert shuffled.high == pytest.approx(0, abs=1e-9)


def test_few_samples_are_said_in_words():
  x = make_features(11, 4, 6)
  assert "singular" in frechet.estimate_frechet(x, x, names(4), names(4)).note
  assert "thousands" in frechet.describe_sample_size(500, 400)
  assert frechet.describe_sample_size(5000, 400) == ""
  for estimate in (frechet.estimate_frechet, frechet.estimate_kernel_distance):
    found = estimate(x[:1], x[:1], names(1), names(1))
    assert np.isnan(found.value) and "1 and 1 samples" in found.note
  one_scene = frechet.estimate_frechet(x, x + 1, ["a"] * 4, ["a"] * 4)
  assert one_scene.value == pytest.approx(6) and np.isnan(one_scene.low)


@pytest.mark.usefixtures("unchecked")
def test_refusals():
  x = make_features(12, 4, 3)
  with pytest.raises(UserError, match="at least two"):
    frechet.frechet_distance(x[:1], x)
  with pytest.raises(UserError, match="cannot be compared"):
    frechet.kernel_distance(x, x[:, :2])
  with pytest.raises(UserError, match=r"same scenes.*other"):
    frechet.estimate_frechet(x, x, names(4), [*names(3), "other"])
