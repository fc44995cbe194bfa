"""Controlled damage to clips, spectral volumes and sets of them, to see which metrics respond to what.

Each damage has a strength from 0, which changes nothing, to 1. Random damage nests: with one key, what a small
strength damages a larger one damages too. `damage.py` tabulates what every metric makes of every damage.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from gid_jax.errors import UserError
from gid_jax.motion.spectral import magnify
from gid_jax.types import PRNGKey, SpectralVolume


def _check_strength(strength):
  if not 0 <= strength <= 1:
    raise UserError(f"damage of strength {strength}: give one from 0, which changes nothing, to 1")


def blur_frames(
  frames: Num[np.ndarray, "t h w 3"], strength: float, *, largest_sigma: float = 4.0
) -> Num[np.ndarray, "t h w 3"]:
  """Blurs every frame of [t h w 3] alike, by a Gaussian of sigma `strength * largest_sigma` pixels.

  Args:
    frames: [t h w 3] uint8, or floating point of any range.
    strength: 0 ... 1.
    largest_sigma: pixels.
  """
  _check_strength(strength)
  if strength == 0:
    return frames
  sigma = strength * largest_sigma
  blurred = np.stack([cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigma) for frame in frames])
  return (np.rint(blurred) if frames.dtype == np.uint8 else blurred).astype(frames.dtype)


def freeze_frames(key: PRNGKey, frames: Num[np.ndarray, "t h w 3"], strength: float) -> Num[np.ndarray, "t h w 3"]:
  """Lets a share `strength` of the frames after the first repeat the one shown before; at 1 the clip stands still.

  Args:
    key: chooses them.
    frames: [t h w 3].
    strength: 0 ... 1.
  """
  _check_strength(strength)
  num_later = len(frames) - 1
  frozen = np.zeros(len(frames), bool)
  frozen[1 + np.asarray(jax.random.permutation(key, num_later))[: round(strength * num_later)]] = True
  return frames[np.maximum.accumulate(np.where(frozen, 0, np.arange(len(frames))))]


def shuffle_frames(
  key: PRNGKey, frames: Num[np.ndarray, "t h w 3"], strength: float, *, block_size: int = 8
) -> Num[np.ndarray, "t h w 3"]:
  """Puts the frames within a share `strength` of the clip's blocks in random order; no frame is lost or repeated.

  Args:
    key: chooses the blocks and their order.
    frames: [t h w 3].
    strength: 0 ... 1, rounded to whole blocks.
    block_size: frames a block at most; sizes differ by one at most. Frames stay within their block.
  """
  _check_strength(strength)
  blocks = np.array_split(np.arange(len(frames)), -(-len(frames) // block_size))
  order = np.arange(len(frames))
  key, chooser = jax.random.split(key)
  chosen = np.asarray(jax.random.permutation(chooser, len(blocks)))[: round(strength * len(blocks))]
  for number in chosen.tolist():
    block = blocks[number]
    order[block] = jax.random.permutation(jax.random.fold_in(key, number), block)
  return frames[order]


def flicker_frames(
  key: PRNGKey, frames: Num[np.ndarray, "t h w 3"], strength: float, *, largest: float = 0.1
) -> Num[np.ndarray, "t h w 3"]:
  """Multiplies the brightness of every frame by its own random factor, within 1 +- `strength * largest`.

  Args:
    key: draws the factors.
    frames: [t h w 3] uint8, where what is brighter than white is cut off, or floating point of any range.
    strength: 0 ... 1.
    largest: share of the brightness.
  """
  _check_strength(strength)
  factors = 1 + strength * largest * np.asarray(jax.random.uniform(key, (len(frames), 1, 1, 1), minval=-1, maxval=1))
  lit = frames * factors
  return (np.rint(lit).clip(0, 255) if frames.dtype == np.uint8 else lit).astype(frames.dtype)


def scale_motion(volume: SpectralVolume, strength: float, *, factor: float) -> SpectralVolume:
  """Multiplies all displacements of a volume [k h w 4] by `factor ** strength`, geometric in `strength` 0 ... 1."""
  _check_strength(strength)
  return magnify(volume, factor**strength)


def scatter_phases(key: PRNGKey, volume: SpectralVolume, strength: float) -> SpectralVolume:
  """Turns the phase of every pixel and band by its own random angle, within +-180 degrees times `strength`.

  x and y turn together, so that every amplitude and the shape of every orbit stay, and neighbours fall out of step:
  the mean of cos(angle) is sin(pi s) / (pi s). The mean position and the Nyquist band have no phase and stay.

  Args:
    key: draws the angles.
    volume: [k h w 4].
    strength: s, 0 ... 1.
  """
  _check_strength(strength)
  shape = volume.coefficients.shape[:3]
  return _turn(volume, jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * (np.pi * strength))


def draw_takes(key: PRNGKey, volume: SpectralVolume, num: int) -> list[SpectralVolume]:
  """Other takes of a scene, `num` of them: what it might as well have done, had wind or hand come at another time.

  The phase of each band turns by one random angle for all pixels, so that takes are independent, and amplitudes,
  frequencies and what swings together are those of `volume` [k h w 4].
  """
  turns = jax.random.uniform(key, (num, len(volume.coefficients), 1, 1), minval=-np.pi, maxval=np.pi)
  return [_turn(volume, angles) for angles in turns]


def repeat_samples(key: PRNGKey, samples: Sequence[SpectralVolume], strength: float) -> list[SpectralVolume]:
  """Lets a share `strength` of the samples after the first repeat it, as a model does that knows one answer only.

  Args:
    key: chooses them.
    samples: of one photo.
    strength: 0 ... 1; at 1 all are the same.
  """
  _check_strength(strength)
  num_later = len(samples) - 1
  repeating = 1 + np.asarray(jax.random.permutation(key, num_later))[: round(strength * num_later)]
  return [samples[0] if number in repeating else sample for number, sample in enumerate(samples)]


def _turn(volume, angles):
  # By angles [k h w] or [k 1 1], bands that have a phase only.
  coefficients = jnp.asarray(volume.coefficients, jnp.float32)
  bands = np.arange(coefficients.shape[0])
  has_phase = (bands > 0) & (2 * bands != volume.num_frames)
  angles = jnp.where(has_phase[:, None, None], angles, 0.0)[..., None]
  real, imaginary = coefficients[..., :2], coefficients[..., 2:]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  turned = jnp.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)
  return volume.replace(coefficients=turned)


def mix_motion(volume: SpectralVolume, other: SpectralVolume, strength: float) -> SpectralVolume:
  """Turns a scene's motion gradually into another scene's, without changing how much moves in all.

  `other` is first scaled to the swing of `volume`, the root mean square of all coefficients but the mean position.
  The mix cos(a) volume + sin(a) other with a = 90 degrees times `strength` is then scaled to that swing once more. A
  plain blend would not do: two unlike motions cancel each other half way, and metrics of amplitude would respond to
  that. Its correlation with `volume` falls with every step.

  Args:
    volume: [k h w 4].
    other: [k h w 4] of another scene; if it stands still, nothing changes.
    strength: 0 ... 1.

  Raises:
    UserError: the two are not on one grid, or of different length.
  """
  _check_strength(strength)
  kept, wrong = (jnp.asarray(v.coefficients, jnp.float32) for v in (volume, other))
  if kept.shape != wrong.shape or volume.num_frames != other.num_frames:
    raise UserError(
      f"mix_motion: {kept.shape} over {volume.num_frames} frames and {wrong.shape} over {other.num_frames} differ;"
      " bring both to one grid with gid_jax.motion.spectral.resize_spectrum and to as many bands and frames"
    )
  swing, wrong_swing = _swing(kept), _swing(wrong)
  cos, sin = (1.0, 0.0) if strength == 0 else (np.cos(np.pi / 2 * strength), np.sin(np.pi / 2 * strength))
  mixed = cos * kept + sin * wrong * _divide(swing, wrong_swing)
  mixed = mixed * _divide(swing, _swing(mixed))
  return volume.replace(coefficients=jnp.where(wrong_swing > 0, mixed, kept))


def _swing(coefficients):
  return jnp.sqrt(jnp.mean(coefficients[1:] ** 2)) if len(coefficients) > 1 else jnp.zeros(())


def _divide(numerator, denominator):
  return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)


class Damage(NamedTuple):
  """One kind of damage.

  Attributes:
    acts_on: "frames" [t h w 3]; "volume", a `SpectralVolume`; or "samples", a list of such for one photo.
    meant_for: the metrics that it is there to worsen, step by step in the mean of several scenes. Distances of
      features have the names that a report prints, all others those of the results in `gid_jax.evaluation`.
    blind: metrics that by their definition it cannot worsen.
    apply: (key, sample, other, strength) to the damaged sample; `other` is a sample of another scene, which only
      the damage "wrong scene's motion" looks at.
  """

  acts_on: str
  meant_for: tuple[str, ...]
  blind: tuple[str, ...]
  apply: Callable[[PRNGKey, Any, Any, float], Any]


# Distances of the features of single frames and of videos, whichever networks are at hand.
_OF_FRAMES = (
  "FID", "KID", "ResNet34-Fréchet", "ResNet34-kernel", "VGG16-Fréchet", "VGG16-kernel", "EffLite0-Fréchet",
  "EffLite0-kernel",
)  # fmt: skip
_OF_VIDEOS = ("FVD", "FVD32", "DTFVD", "DTFVD32")
# Metrics of the size of the motion, of its pattern, and of how near it comes to the one motion that was filmed.
_SIZE = ("median_ratio", "amplitude_error", "spectral_distance")
_PATTERN = (
  "auc", "peak_frequency_error", "phase_coherence_1_error", "phase_coherence_8_error", "band_correlation_error",
)  # fmt: skip
_NEARNESS = ("endpoint_error_1", "energy_distance")

DAMAGES: Mapping[str, Damage] = {
  "blur": Damage(
    "frames",
    (*_OF_FRAMES, "psnr", "ssim", "perceptual"),
    (),
    lambda key, frames, other, strength: blur_frames(frames, strength),
  ),
  "flicker": Damage(
    "frames",
    ("between_frames", "from_photo", "psnr"),
    (),
    lambda key, frames, other, strength: flicker_frames(key, frames, strength),
  ),
  "frozen frames": Damage(
    "frames",
    _OF_VIDEOS,
    ("between_frames",),
    lambda key, frames, other, strength: freeze_frames(key, frames, strength),
  ),
  "shuffled frames": Damage(
    "frames",
    _OF_VIDEOS,
    (*_OF_FRAMES, "from_photo"),
    lambda key, frames, other, strength: shuffle_frames(key, frames, strength),
  ),
  "motion x 2": Damage(
    "volume",
    (*_SIZE, *_NEARNESS, "share_moving"),
    _PATTERN,
    lambda key, volume, other, strength: scale_motion(volume, strength, factor=2.0),
  ),
  "motion x 0.5": Damage(
    "volume",
    (*_SIZE, *_NEARNESS, "share_moving"),
    _PATTERN,
    lambda key, volume, other, strength: scale_motion(volume, strength, factor=0.5),
  ),
  "phase noise": Damage(
    "volume",
    ("phase_coherence_1_error", "phase_coherence_8_error", *_NEARNESS),
    ("auc", *_SIZE, "peak_frequency_error", "band_correlation_error", "share_moving"),
    lambda key, volume, other, strength: scatter_phases(key, volume, strength),
  ),
  "wrong scene's motion": Damage(
    "volume",
    ("auc", "amplitude_error", "spectral_distance", "peak_frequency_error", "band_correlation_error", *_NEARNESS),
    (),
    lambda key, volume, other, strength: mix_motion(volume, other, strength),
  ),
  "repeated samples": Damage(
    "samples",
    ("diversity", "energy_distance", "endpoint_error_4"),
    ("endpoint_error_1",),
    lambda key, samples, other, strength: repeat_samples(key, samples, strength),
  ),
}


def measure_worsening(values: Float[np.ndarray, "s"], *, better: str) -> Float[np.ndarray, "s"]:
  """How much worse a metric has become than without damage, in its own unit.

  Args:
    values: [s] at growing strengths, the first without damage; those that are NaN were not measured.
    better: "higher", "lower", or "" for a metric that should stay as it is.

  Returns:
    [s], 0 at first, positive where the metric says that it has become worse.
  """
  change = np.asarray(values, np.float64) - values[0]
  return {"higher": -change, "lower": change, "": np.abs(change)}[better]


def is_monotone(worsening: Float[np.ndarray, "s"], *, tolerance: float = 0.02) -> bool:
  """Whether no step of a damage [s] looks better than the one before and the last looks worse than none at all.

  Args:
    worsening: [s] see `measure_worsening`; NaN where not measured.
    tolerance: what a step may look better by, as a share of the largest worsening.
  """
  known = worsening[np.isfinite(worsening)]
  return bool(known[-1] > 0 and (np.diff(known) >= -tolerance * known.max()).all())
