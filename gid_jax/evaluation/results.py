"""A figure with its uncertainty, which everything in this package returns and the report prints."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
  """A measured figure with its bootstrap interval.

  Attributes:
    value: the figure, on all samples.
    low: lower end of its 95 % interval; NaN where there are too few samples for one.
    high: upper end.
    num_samples: independent samples behind it (scenes, not frames or pixels).
    note: what a reader must know beside the figure, such as that the samples are too few; "" when nothing.
  """

  value: float
  low: float
  high: float
  num_samples: int
  note: str = ""


def estimate_mean(values: Sequence[float], *, groups: Sequence[str] | None = None, seed: int = 0) -> Estimate:
  """The mean of the finite ones among `values` [n]; with `groups` [n] every group counts once, by its own mean.

  Args:
    values: [n] one figure a sample; those that are not finite were not measurable and are left out.
    groups: [n] names of what is independent (scenes); samples of one group are not.
    seed: of the bootstrap.

  Returns:
    The mean with an interval over samples, or groups; NaN of zero samples where nothing is finite.
  """
  figures = np.asarray(values, np.float64)
  kept = np.isfinite(figures)
  samples = figures[kept]
  if groups is not None:
    names = np.asarray(groups)[kept]
    samples = np.array([samples[names == name].mean() for name in dict.fromkeys(names)])
  left_out = f"{np.count_nonzero(~kept)} of {len(values)} not measurable" if not kept.all() else ""
  return bootstrap(lambda chosen: float(samples[chosen].mean()), len(samples), note=left_out, seed=seed)


def bootstrap(
  statistic: Callable[[np.ndarray], float],
  num_samples: int,
  *,
  note: str = "",
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> Estimate:
  """A statistic of `num_samples` samples with its percentile bootstrap interval (Efron 1979).

  Args:
    statistic: indices [n] of samples, with repetitions, to the figure.
    num_samples: n; an interval takes two.
    note: travels with the estimate.
    num_resamples: fewer make the ends of the interval less certain.
    seed: of the resampling.
  """
  if num_samples == 0:
    return Estimate(float("nan"), float("nan"), float("nan"), 0, note)
  value = statistic(np.arange(num_samples))
  if num_samples == 1:
    return Estimate(value, float("nan"), float("nan"), 1, note)
  rng = np.random.default_rng(seed)
  resampled = [statistic(rng.integers(num_samples, size=num_samples)) for _ in range(num_resamples)]
  low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Estimate(value, float(low), float(high), num_samples, note)
