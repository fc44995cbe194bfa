"""Distances between two sets of features: Fréchet (FID, FVD) and kernel (KID), with intervals; all in float64.

A Gaussian is fitted to each set. With covariances C1 = F1' F1 and C2 = F2' F2 of factors [r d] the Fréchet distance is

  |mean1 - mean2|^2 + tr C1 + tr C2 - 2 |F1 F2'|_*

where |F1 F2'|_*, tr (C1 C2)^(1/2), is the sum of singular values of the product of the two factors. It needs no
square root of a matrix that is not symmetric, and where there are fewer samples than dimensions the factors are the
centred samples themselves.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.evaluation.results import Estimate, bootstrap

# Below this a Fréchet distance says so; Heusel et al. (2017) advise 10,000 samples, and video sets hold 2,048.
ENOUGH_SAMPLES = 2048
# Of a Fréchet distance's interval; each takes a singular value decomposition.
NUM_RESAMPLES = 200
_BLOCK = 1024


def frechet_distance(features: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
  """Squared Fréchet distance of the Gaussians fitted to features [n d] and [m d] (Dowson and Landau 1982).

  Raises:
    UserError: a set has fewer than two samples, or the sets differ in their dimension.
  """
  features, other = _check_pair(features, other)
  return _weighted_frechet(features, np.ones(len(features)), other, np.ones(len(other)))


def kernel_distance(
  features: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"], *, unbiased: bool = True
) -> float:
  """Squared maximum mean discrepancy of features [n d] and [m d] under (x.y / d + 1)^3: KID (Binkowski et al. 2018).

  Args:
    features: [n d] one set.
    other: [m d] the other; its size may differ.
    unbiased: leave out each sample's kernel with itself, as KID does; may then be slightly negative.

  Raises:
    UserError: a set has fewer than two samples, or the sets differ in their dimension.
  """
  features, other = _check_pair(features, other)
  one_group, other_group = np.zeros(len(features), int), np.zeros(len(other), int)
  return _KernelSums(features, one_group, other, other_group, num_groups=1).distance(np.ones(1), unbiased=unbiased)


def estimate_frechet(
  features: Float[np.ndarray, "n d"],
  other: Float[np.ndarray, "m d"],
  groups: Sequence[str],
  other_groups: Sequence[str],
  *,
  seed: int = 0,
) -> Estimate:
  """The Fréchet distance of two feature sets of the same scenes, with an interval over scenes.

  A resampled set repeats samples and so knows fewer, which raises a Fréchet distance whatever the truth; the interval
  is moved back by the mean rise, and shows how far the figure depends on the choice of scenes. It does not undo the
  bias of the figure itself, of which the note speaks.

  Args:
    features: [n d] one set.
    other: [m d] the other.
    groups: [n] scene of each sample; samples of one scene are not independent and are drawn together.
    other_groups: [m] scenes of `other`; the same set of names, drawn together with those of `groups`.
    seed: of the bootstrap.

  Returns:
    The estimate; NaN with a note where a set has fewer than two samples.

  Raises:
    UserError: the sets differ in their dimension or in their scenes.
  """
  if min(len(features), len(other)) < 2:
    return _unmeasurable(features, other, groups)
  features, other = _check_pair(features, other)
  names, indices, other_indices = _index_groups(groups, other_groups)
  values: list[float] = []

  def measure(chosen):
    times = np.bincount(chosen, minlength=len(names)).astype(np.float64)
    values.append(_weighted_frechet(features, times[indices], other, times[other_indices]))
    return values[-1]

  note = describe_sample_size(min(len(features), len(other)), features.shape[1])
  estimate = bootstrap(measure, len(names), note=note, num_resamples=NUM_RESAMPLES, seed=seed)
  rise = float(np.mean(values[1:])) - estimate.value if len(values) > 1 else 0.0
  return estimate._replace(low=_keep_positive(estimate.low - rise), high=_keep_positive(estimate.high - rise))


def estimate_kernel_distance(
  features: Float[np.ndarray, "n d"],
  other: Float[np.ndarray, "m d"],
  groups: Sequence[str],
  other_groups: Sequence[str],
  *,
  unbiased: bool = True,
  seed: int = 0,
) -> Estimate:
  """The kernel distance of two feature sets [n d] and [m d] of the same scenes, with an interval over scenes.

  Arguments, result and errors as of `estimate_frechet`. A scene drawn twice is not compared with its copy.
  """
  if min(len(features), len(other)) < 2:
    return _unmeasurable(features, other, groups)
  features, other = _check_pair(features, other)
  names, indices, other_indices = _index_groups(groups, other_groups)
  sums = _KernelSums(features, indices, other, other_indices, num_groups=len(names))

  def measure(chosen):
    return sums.distance(np.bincount(chosen, minlength=len(names)).astype(np.float64), unbiased=unbiased)

  estimate = bootstrap(measure, len(names), seed=seed)
  if estimate.value < 0:
    note = f"below zero: unbiased for two independent sets, and these two show the same {len(names)} scenes"
    return estimate._replace(note=note)
  return estimate


def describe_sample_size(num_samples: int, dimension: int) -> str:
  """What a reader must know of a Fréchet distance from so few samples of this dimension; "" when they are enough."""
  if num_samples <= dimension:
    return (
      f"{num_samples} samples in {dimension} dimensions: the covariance is singular and the distance too high; "
      "compare only with figures from as many samples"
    )
  if num_samples < ENOUGH_SAMPLES:
    return f"{num_samples} samples are few and make the distance too high; thousands are customary"
  return ""


class _KernelSums:
  """Sums of the kernel over all pairs of two groups, from which any resampling of groups follows without samples."""

  def __init__(self, features, indices, other, other_indices, *, num_groups):
    members, other_members = np.eye(num_groups)[indices], np.eye(num_groups)[other_indices]
    self._between = _add_up_kernel(features, members, other, other_members), members.sum(0), other_members.sum(0)
    self._within = [
      (_add_up_kernel(x, m, x, m), m.sum(0), (((x * x).sum(1) / x.shape[1] + 1) ** 3) @ m)
      for x, m in ((features, members), (other, other_members))
    ]

  def distance(self, times, *, unbiased):
    """The distance where group g is there `times[g]` times."""
    # Pairs within a group count once for each time it is drawn: a drawn scene is not compared with its own copy.
    pairs = np.outer(times, times)
    np.fill_diagonal(pairs, times)
    means = []
    for sums, counts, own in self._within:
      pair_sum, num_pairs = (pairs * sums).sum(), counts @ pairs @ counts
      if unbiased:
        pair_sum, num_pairs = pair_sum - times @ own, num_pairs - times @ counts
      # One sample, drawn again and again, has no other to be compared with.
      means.append(pair_sum / num_pairs if num_pairs else times @ own / (times @ counts))
    sums, counts, other_counts = self._between
    return float(means[0] + means[1] - 2 * (pairs * sums).sum() / (counts @ pairs @ other_counts))


def _add_up_kernel(x, x_members, y, y_members):
  # Samples [n d] and [m d] with their memberships [n g] and [m g] to sums over pairs of groups [g g], block by block.
  sums = np.zeros((x_members.shape[1], y_members.shape[1]))
  for rows in (slice(start, start + _BLOCK) for start in range(0, len(x), _BLOCK)):
    for columns in (slice(start, start + _BLOCK) for start in range(0, len(y), _BLOCK)):
      values = (x[rows] @ y[columns].T / x.shape[1] + 1) ** 3
      sums += x_members[rows].T @ values @ y_members[columns]
  return sums


def _weighted_frechet(features, weights, other, other_weights):
  # Rows of weight w count as w equal samples.
  return _frechet(*_mean_and_factor(features, weights), *_mean_and_factor(other, other_weights))


def _mean_and_factor(features, weights):
  kept = weights > 0
  features, weights = features[kept], weights[kept]
  total = weights.sum()
  mean = weights @ features / total
  # One sample has no spread.
  factor = (features - mean) * np.sqrt(weights / max(total - 1, 1))[:, None]
  return mean, factor if len(factor) <= factor.shape[1] else np.linalg.qr(factor, mode="r")


def _frechet(mean, factor, other_mean, other_factor):
  # Factors [r d], of covariances F' F.
  shift = mean - other_mean
  overlap = np.linalg.svd(factor @ other_factor.T, compute_uv=False).sum()
  return _keep_positive(float(shift @ shift + (factor**2).sum() + (other_factor**2).sum() - 2 * overlap))


def _keep_positive(value):
  # A distance below zero is rounding; NaN stays.
  return value if not value < 0 else 0.0


def _index_groups(groups, other_groups):
  names = sorted(set(groups))  # in one order for all sets, for the same ones are drawn from each
  if set(names) != set(other_groups):
    different = sorted(set(names) ^ set(other_groups))
    raise UserError(f"both feature sets must be of the same scenes; only one of them has {', '.join(different[:3])}")
  position = {name: index for index, name in enumerate(names)}
  return names, np.array([position[name] for name in groups]), np.array([position[name] for name in other_groups])


def _unmeasurable(features, other, groups):
  nan = float("nan")
  note = f"{len(features)} and {len(other)} samples: a distance takes two of each"
  return Estimate(nan, nan, nan, len(set(groups)), note)


def _check_pair(features, other):
  features, other = np.asarray(features, np.float64), np.asarray(other, np.float64)
  if features.ndim != 2 or features.shape[1:] != other.shape[1:]:
    raise UserError(f"features of shape {features.shape} and {other.shape} cannot be compared; give [n d] and [m d]")
  _require_samples(min(len(features), len(other)))
  return features, other


def _require_samples(count):
  if count < 2:
    raise UserError(f"{count} sample of features has no covariance; give at least two")
