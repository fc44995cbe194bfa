"""Whether the many motions that a model draws for one photo are those that the scene could have made: one of many.

Only one of all possible motions was filmed, so the best of several samples may come near it while each of them is right
to differ. Lengths are pixels of the photo, regions and `stride` are those of `gid_jax.evaluation.motion`.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from gid_jax.evaluation.motion import band_power, check_alike, covers_enough
from gid_jax.motion.measures import scale_coefficients
from gid_jax.motion.spectral import bin_weights
from gid_jax.types import SpectralVolume

BEST_OF = (1, 4, 16)


def endpoint_error(
  predicted: SpectralVolume, real: SpectralVolume, moving: Bool[np.ndarray, "h w"], *, stride: float
) -> float:
  """Mean distance between predicted and real places over all frames of a period and the moving region [h w].

  Returns:
    Pixels of the photo; NaN where the region covers less than 1 % of the picture.

  Raises:
    UserError: the volumes differ in shape, period or rate, or are not finite.
  """
  check_alike(predicted, real)
  difference = scale_coefficients(predicted, stride) - scale_coefficients(real, stride)  # refuses what is not finite
  if not covers_enough(moving):
    return math.nan
  difference = difference[:, moving]
  num_bands, num_frames = len(difference), real.num_frames
  turns = np.outer(np.arange(num_frames), np.arange(num_bands)) % num_frames / num_frames
  # What remains of the weights of the inverse transform after scaling: 1, or the square root of 2.
  gains = np.sqrt(bin_weights(num_bands, num_frames) * num_frames)
  table = np.stack([gains * np.cos(2 * np.pi * turns), -gains * np.sin(2 * np.pi * turns)], -1).astype(np.float32)
  # The two components apart, [t 2 n], so that every step below runs along contiguous rows.
  parts = np.moveaxis(difference.reshape(num_bands, -1, 2, 2), 1, -1)
  squares = np.square(table.reshape(num_frames, -1) @ parts.reshape(2 * num_bands, -1)).reshape(num_frames, 2, -1)
  return float(np.sqrt(squares[:, 0] + squares[:, 1]).mean(dtype=np.float64))


def best_of(errors: Sequence[float], num: int) -> float:
  """The expected least of `num` of the errors [n], over all ways to choose them; NaN where there are fewer.

  All samples serve every `num`, which varies less than the least of the first few.
  """
  ordered = np.sort(np.asarray(errors, np.float64))
  ways = [math.comb(len(ordered) - rank - 1, num - 1) for rank in range(len(ordered))]  # in which this is the least
  return float(np.dot(ordered, ways) / sum(ways)) if len(ordered) >= num else math.nan


def pairwise_distances(
  volumes: Sequence[SpectralVolume], moving: Bool[np.ndarray, "h w"], *, stride: float
) -> Float[np.ndarray, "n n"]:
  """Root mean square distance of the trajectories of every two volumes, over a period and the moving region [h w].

  Returns:
    [n n] pixels of the photo, symmetric, 0 on the diagonal; NaN where the region covers less than 1 % of the picture.

  Raises:
    UserError: the volumes differ in shape, period or rate, or are not finite.
  """
  check_alike(*volumes)
  points = [scale_coefficients(volume, stride)[:, moving].ravel() for volume in volumes]  # refuses what is not finite
  if not covers_enough(moving):
    return np.full((len(volumes),) * 2, math.nan)
  distances = np.zeros((len(points),) * 2)
  for i, j in itertools.combinations(range(len(points)), 2):
    distances[i, j] = distances[j, i] = np.linalg.norm(points[i] - points[j]) / math.sqrt(moving.sum())
  return distances


def energy_distance(distances: Float[np.ndarray, "n n"], num_sampled: int) -> float:
  """One of many: 2 E|X - Y| - E|X - X'| - E|Y - Y'| of sampled X and real Y (Székely and Rizzo 2013).

  Args:
    distances: [n n] between all, the sampled first; see `pairwise_distances`.
    num_sampled: how many are sampled; the others are takes of the real scene.

  Returns:
    Pixels of the photo; without bias, so that sets of one distribution give 0 on average and sometimes less. A
    set of one counts as a point: with a single real take it is twice the energy score, which ranks models but does
    not reach 0.
  """
  sampled, real = distances[:num_sampled, :num_sampled], distances[num_sampled:, num_sampled:]
  return 2 * float(distances[:num_sampled, num_sampled:].mean()) - _mean_pair(sampled) - _mean_pair(real)


def diversity(samples: Sequence[SpectralVolume], moving: Bool[np.ndarray, "h w"], *, stride: float) -> float:
  """One of many: mean distance of two samples' swings over their root mean square, in the moving region [h w].

  Band 0, the offset from the photo, is no motion and left out.

  Returns:
    0 where all are the same, about 1.4 where they share nothing; NaN of fewer than two samples, or where none moves.
  """
  swings = [sample.replace(coefficients=_without_offset(sample.coefficients)) for sample in samples]
  power = np.mean([band_power(swing, moving, stride=stride).sum() for swing in swings])
  if len(samples) < 2 or not power > 0:
    return math.nan
  return _mean_pair(pairwise_distances(swings, moving, stride=stride)) / math.sqrt(power)


def judge_samples(
  samples: Sequence[SpectralVolume], takes: Sequence[SpectralVolume], moving: Bool[np.ndarray, "h w"], *, stride: float
) -> dict[str, float]:
  """Every metric of a set of samples for one photo, against real takes of the scene.

  Args:
    samples: predicted volumes [k h w 4], of different seeds.
    takes: real ones; the first is what followed the photo, and the end-point error is measured against it.
    moving: [h w] region of the first take.
    stride: pixels of the photo a step of the grid.

  Raises:
    UserError: the volumes differ in shape, period or rate, or are not finite.
  """
  errors = [endpoint_error(sample, takes[0], moving, stride=stride) for sample in samples]
  distances = pairwise_distances([*samples, *takes], moving, stride=stride)
  return {f"endpoint_error_{num}": best_of(errors, num) for num in BEST_OF} | {
    "energy_distance": energy_distance(distances, len(samples)),
    "diversity": diversity(samples, moving, stride=stride),
  }


def _without_offset(coefficients):
  return np.concatenate([np.zeros_like(coefficients[:1]), coefficients[1:]])


def _mean_pair(distances):
  # Mean over pairs of different members; a set of one is a point.
  count = len(distances)
  return float(distances.sum()) / (count * (count - 1)) if count > 1 else 0.0
