"""How far generated motion is like the real motion of the same photo: where, how much, how fast, how much together.

Volumes compare on the same motion grid. Lengths are pixels of the photo: `stride` is how many of them one step of the
grid spans. With S_k the coefficients of band k and T the period, everything rests on the scaled coefficients

  c_0 = Re S_0 / T,    c_k = sqrt(2) S_k / T,    c_{T/2} = Re S_{T/2} / T,

whose squares add up to the mean square displacement over a period (Parseval), so no trajectory is evaluated. What
cannot be measured in a scene is NaN. Coefficients that are not finite are an error, so that a model that diverges does
not escape its mean.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from gid_jax.errors import UserError
from gid_jax.motion.measures import rms_swing, scale_coefficients
from gid_jax.types import SpectralVolume

# Two grey levels in 255 per pixel. Chosen on the filmed clips themselves, where it brings a gradient filter near chance
# (area 0.54 over 14 scenes; 0.75 on loops): higher ones leave too few scenes, lower ones reward the filter more.
TEXTURE = 0.008
CONFIDENCE = 0.2
MIN_SHARE = 0.01  # of the picture that a region must cover to be judged
MOVING = 0.5  # px, more than this is seen as motion
FAINT = 0.05  # px, amplitudes below it count as this in logarithms: they cannot be told apart
FAINT_BAND = 0.01  # px, the same for the share of one band
DISTANCES = (1, 8)  # steps of the grid over which coherence is reported


class Regions(NamedTuple):
  """The pixels of a real clip that testify of motion or of rest; all others say nothing.

  Attributes:
    moving: [h w] seen to move.
    still: [h w] seen to rest.
  """

  moving: Bool[np.ndarray, "h w"]
  still: Bool[np.ndarray, "h w"]


def measure_texture(image: Float[np.ndarray, "h w 3"], *, height: int, width: int) -> Float[np.ndarray, "hm wm"]:
  """Rates how well motion in any direction could be seen at each point of the motion grid.

  Args:
    image: [h w 3] photo in [0, 1].
    height: hm of the motion grid.
    width: wm.

  Returns:
    [hm wm] root of the smaller eigenvalue of the structure tensor (Shi and Tomasi 1994), averaged over a Gaussian of
    one step of the grid: the slope in the direction of least, grey values in [0, 1] per pixel of the photo.
  """
  gray = cv2.cvtColor(np.asarray(image, np.float32), cv2.COLOR_RGB2GRAY)
  dx, dy = cv2.Sobel(gray, -1, 1, 0, scale=1 / 8), cv2.Sobel(gray, -1, 0, 1, scale=1 / 8)
  products = cv2.GaussianBlur(np.stack([dx * dx, dx * dy, dy * dy], -1), (0, 0), max(1.0, gray.shape[1] / width))
  xx, xy, yy = np.moveaxis(cv2.resize(products, (width, height), interpolation=cv2.INTER_AREA), -1, 0)
  smaller = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
  return np.sqrt(np.maximum(smaller, 0))


def find_moving(
  amplitude: Float[np.ndarray, "h w"],
  confidence: Float[np.ndarray, "h w"],
  texture: Float[np.ndarray, "h w"],
  *,
  min_texture: float = TEXTURE,
) -> Regions:
  """Finds what surely moves and what surely rests in a real clip, over textured and confident pixels only.

  With p the 95th percentile of the amplitude over these pixels, those above max(0.5 px, p / 4) move and those below
  max(0.2 px, p / 10) rest. Flat pixels testify of neither: counted as still they would reward a gradient filter.

  Args:
    amplitude: [h w] of the real motion, pixels of the photo; see `rms_swing`.
    confidence: [h w] in [0, 1] of the measurement; more than 0.2 counts.
    texture: [h w] see `measure_texture`.
    min_texture: what more of counts.
  """
  judged = (np.asarray(confidence) > CONFIDENCE) & (np.asarray(texture) > min_texture)
  top = np.percentile(amplitude[judged], 95) if judged.any() else 0.0
  moving = judged & (amplitude > max(MOVING, 0.25 * top))
  return Regions(moving, judged & (amplitude < max(0.2, 0.1 * top)))


def check_alike(*volumes: SpectralVolume) -> None:
  """Refuses with a UserError to compare volumes of different shape, period or rate."""
  kinds = {(np.shape(volume.coefficients), volume.num_frames, float(volume.fps)) for volume in volumes}
  if len(kinds) != 1:
    raise UserError(f"motions of different shape, period or rate do not compare: {sorted(kinds)}; resample them first")


def covers_enough(region: Bool[np.ndarray, "h w"]) -> bool:
  """Whether a region [h w] covers the 1 % of the picture without which nothing is measured."""
  return bool(region.sum() >= max(1, MIN_SHARE * region.size))


def share_moving(amplitude: Float[np.ndarray, "h w"]) -> float:
  """Share of the pixels [h w] that swing by more than 0.5 px: what a photo of nothing that moves should keep at 0."""
  return float((amplitude > MOVING).mean())


def area_under_curve(scores: Float[np.ndarray, "h w"], regions: Regions) -> float:
  """Where: probability that a moving pixel scores higher than a still one, ties half; the area under the ROC curve.

  Args:
    scores: [h w] anything that should be larger where things move, such as the predicted amplitude.
    regions: of the real clip.

  Returns:
    0.5 is chance; NaN where moving or still pixels cover less than 1 % of the picture.

  Raises:
    UserError: scores are not finite.
  """
  if not np.isfinite(scores).all():
    raise UserError("scores of where things move are not finite; the model that made them has diverged")
  if not (covers_enough(regions.moving) and covers_enough(regions.still)):
    return math.nan
  moving, still = scores[regions.moving], np.sort(scores[regions.still])
  below_twice = np.searchsorted(still, moving, "left") + np.searchsorted(still, moving, "right")
  return float(below_twice.mean() / (2 * len(still)))


def median_ratio(
  predicted: Float[np.ndarray, "h w"], real: Float[np.ndarray, "h w"], moving: Bool[np.ndarray, "h w"]
) -> float:
  """How much: |log2| of the ratio of the median amplitudes [h w] over the moving region; 1 is twice or half.

  Amplitudes under 0.05 px count as 0.05 px. NaN where the region covers less than 1 % of the picture.
  """
  if not covers_enough(moving):
    return math.nan
  medians = [max(FAINT, float(np.median(amplitude[moving]))) for amplitude in (predicted, real)]
  return abs(math.log2(medians[0] / medians[1]))


def amplitude_error(
  predicted: Float[np.ndarray, "h w"], real: Float[np.ndarray, "h w"], moving: Bool[np.ndarray, "h w"]
) -> float:
  """How much, pixel by pixel: mean |log2| of the ratio of the amplitudes [h w] over the moving region.

  Amplitudes under 0.05 px count as 0.05 px. NaN where the region covers less than 1 % of the picture.
  """
  if not covers_enough(moving):
    return math.nan
  ratio = np.maximum(predicted[moving], FAINT) / np.maximum(real[moving], FAINT)
  return float(np.abs(np.log2(ratio)).mean())


def band_power(volume: SpectralVolume, moving: Bool[np.ndarray, "h w"], *, stride: float) -> Float[np.ndarray, "k"]:
  """Mean square displacement that each band contributes, averaged over the moving region [h w]: [k] px^2 of the photo.

  NaN where the region covers less than 1 % of the picture.
  """
  if not covers_enough(moving):
    return np.full(len(volume.coefficients), math.nan)
  return np.square(scale_coefficients(volume, stride)[:, moving]).sum(-1).mean(-1)


def spectral_distance(predicted: Float[np.ndarray, "k"], real: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k-1"]:
  """How fast: 10 log10 of the ratio of the powers [k] in each band but the constant one, as [k-1] dB.

  Positive where too much moves at this frequency; the root of its mean square is the log-spectral distance. Bands
  under 0.01 px (root mean square) count as 0.01 px. Takes the results of `band_power`.
  """
  floored = [np.maximum(power[1:], FAINT_BAND**2) for power in (predicted, real)]
  return 10 * np.log10(floored[0] / floored[1])


def peak_frequency_error(
  predicted: Float[np.ndarray, "k"], real: Float[np.ndarray, "k"], *, num_frames: int, fps: float
) -> float:
  """How fast: distance in Hz of the bands with the most power [k], the constant one aside; see `band_power`.

  It comes in steps of fps / num_frames. NaN where one of the two does not move, or the powers are NaN.
  """
  if not all(power[1:].max(initial=-1) > FAINT_BAND**2 for power in (predicted, real)):
    return math.nan
  return abs(int(predicted[1:].argmax()) - int(real[1:].argmax())) * fps / num_frames


def phase_coherence(
  volume: SpectralVolume, moving: Bool[np.ndarray, "h w"], *, stride: float, distance: int
) -> Float[np.ndarray, "n"]:
  """Together: how far pixels `distance` steps of the grid apart swing in phase, in each band but the constant one.

  sum Re(S_p conj S_q) / sum |S_p| |S_q|: the mean cosine of their phase difference, weighted by both amplitudes, over
  horizontal and vertical pairs p, q that both lie in the moving region, x and y.

  Returns:
    [n], n = K - 1, in [-1, 1], 0 for independent phases; NaN for bands under 0.01 px, and where no pair, or less than
    1 % of the picture, is in the region [h w].
  """
  coherence = np.full(max(len(volume.coefficients) - 1, 0), math.nan)
  if not covers_enough(moving):
    return coherence
  scaled = scale_coefficients(volume, stride)[1:]
  height, width = moving.shape
  dot, size = np.zeros((2, len(scaled)))
  for axis, length in ((0, height), (1, width)):
    if distance >= length:
      continue
    first, second = np.arange(length - distance), np.arange(distance, length)
    both = moving.take(first, axis) & moving.take(second, axis)
    one, other = (scaled.take(part, axis + 1)[:, both] for part in (first, second))
    dot += np.einsum("knc,knc->k", one, other)
    size += (_modulus(one) * _modulus(other)).sum((1, 2))
  known = (_mean_square(scaled, moving) > FAINT_BAND**2) & (size > 0)
  coherence[known] = dot[known] / size[known]
  return coherence


def band_correlation(
  volume: SpectralVolume, moving: Bool[np.ndarray, "h w"], *, stride: float
) -> Float[np.ndarray, "n n"]:
  """Together: correlation over the moving region [h w] between the log amplitudes of two bands, the constant one aside.

  Returns:
    [n n], n = K - 1, in [-1, 1]; NaN for bands under 0.01 px or of the same amplitude everywhere, and where the region
    covers less than 1 % of the picture.
  """
  correlation = np.full((max(len(volume.coefficients) - 1, 0),) * 2, math.nan)
  if not covers_enough(moving):
    return correlation
  scaled = scale_coefficients(volume, stride)[1:]
  # A tenth of what counts as faint keeps the logarithms of pixels at rest finite.
  logs = np.log(np.maximum(np.linalg.norm(scaled[:, moving], axis=-1), FAINT_BAND / 10)).astype(np.float64)
  logs -= logs.mean(1, keepdims=True)
  deviation = np.sqrt(np.square(logs).mean(1))
  known = (_mean_square(scaled, moving) > FAINT_BAND**2) & (deviation > 1e-4)  # or it is rounding
  unit = logs[known] / deviation[known, None]
  correlation[np.ix_(known, known)] = unit @ unit.T / moving.sum()
  return correlation


def judge_prediction(
  predicted: SpectralVolume, real: SpectralVolume, regions: Regions, *, stride: float
) -> dict[str, float]:
  """Every metric that compares one predicted volume [k h w 4] with the real one of the same photo.

  Coherence and correlation are means over the bands that can be measured in both, and `_error` is how far they differ.

  Raises:
    UserError: the volumes differ in shape, period or rate, or are not finite.
  """
  check_alike(predicted, real)
  pair = predicted, real
  amplitude, real_amplitude = (rms_swing(volume, stride=stride) for volume in pair)
  powers = [band_power(volume, regions.moving, stride=stride) for volume in pair]
  judged = {
    "auc": area_under_curve(amplitude, regions),
    "median_ratio": median_ratio(amplitude, real_amplitude, regions.moving),
    "amplitude_error": amplitude_error(amplitude, real_amplitude, regions.moving),
    "spectral_distance": float(np.sqrt(np.square(spectral_distance(*powers)).mean())),
    "peak_frequency_error": peak_frequency_error(*powers, num_frames=real.num_frames, fps=real.fps),
    "share_moving": share_moving(amplitude),
  }
  for distance in DISTANCES:
    coherence = [phase_coherence(v, regions.moving, stride=stride, distance=distance) for v in pair]
    judged |= _compare_means(f"phase_coherence_{distance}", *coherence)
  above = np.triu_indices(len(powers[0]) - 1, 1)
  return judged | _compare_means(
    "band_correlation", *(band_correlation(v, regions.moving, stride=stride)[above] for v in pair))


def _modulus(scaled):
  return np.hypot(scaled[..., :2], scaled[..., 2:])


def _mean_square(scaled, moving):
  return np.square(scaled[:, moving]).sum(-1).mean(-1)


def _compare_means(name, predicted, real):
  known = np.isfinite(predicted) & np.isfinite(real)
  means = [float(values[known].mean()) if known.any() else math.nan for values in (predicted, real)]
  return {name: means[0], f"{name}_real": means[1], f"{name}_error": abs(means[0] - means[1])}
