"""Controlled damage to clips and spectral volumes, to see which metrics respond to what.

Each damage has a strength from 0, which changes nothing, to 1. Random damage nests: with one key, what a small
strength damages a larger one damages too. Metrics and their blind spots are read off a table damage x metric.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from gid_jax.errors import UserError
from gid_jax.spectral import magnify
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
  coefficients = jnp.asarray(volume.coefficients, jnp.float32)
  bands = np.arange(coefficients.shape[0])
  has_phase = (bands > 0) & (2 * bands != volume.num_frames)
  angles = jax.random.uniform(key, coefficients.shape[:3], minval=-1.0, maxval=1.0) * (np.pi * strength)
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
      " bring both to one grid with gid_jax.spectral.resize_spectrum and to as many bands and frames"
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
    acts_on: "frames" [t h w 3] or "volume", a `SpectralVolume`.
    meant_for: the metrics that it is there to worsen, step by step in the mean of several scenes; their names are
      those of `gid_jax.evaluation`.
    blind: metrics that by their definition it cannot worsen.
    apply: (key, sample, other, strength) to the damaged sample; `other` is a sample of another scene, which only
      the damage "wrong scene's motion" looks at.
  """

  acts_on: str
  meant_for: tuple[str, ...]
  blind: tuple[str, ...]
  apply: Callable[[PRNGKey, Any, Any, float], Any]


# Metrics of the size of the motion, and of its pattern.
_SIZE = ("median_ratio", "amplitude_error", "spectral_distance", "endpoint_error")
_PATTERN = ("auc", "peak_frequency_error", "phase_coherence_1_error", "phase_coherence_8_error")

DAMAGES: Mapping[str, Damage] = {
  "blur": Damage(
    "frames",
    ("fid", "kid", "psnr", "ssim", "perceptual"),
    (),
    lambda key, frames, other, strength: blur_frames(frames, strength),
  ),
  "frozen frames": Damage(
    "frames",
    ("fvd", "dtfvd"),
    ("between_frames",),
    lambda key, frames, other, strength: freeze_frames(key, frames, strength),
  ),
  "shuffled frames": Damage(
    "frames",
    ("fvd", "dtfvd"),
    ("fid", "kid"),
    lambda key, frames, other, strength: shuffle_frames(key, frames, strength),
  ),
  "motion x 2": Damage(
    "volume",
    _SIZE,
    _PATTERN,
    lambda key, volume, other, strength: scale_motion(volume, strength, factor=2.0),
  ),
  "motion x 0.5": Damage(
    "volume",
    _SIZE,
    _PATTERN,
    lambda key, volume, other, strength: scale_motion(volume, strength, factor=0.5),
  ),
  "phase noise": Damage(
    "volume",
    ("phase_coherence_1_error", "phase_coherence_8_error", "endpoint_error"),
    ("auc", "median_ratio", "amplitude_error", "spectral_distance", "peak_frequency_error", "band_correlation_error"),
    lambda key, volume, other, strength: scatter_phases(key, volume, strength),
  ),
  "wrong scene's motion": Damage(
    "volume",
    ("auc", "amplitude_error", "spectral_distance", "peak_frequency_error", "band_correlation_error", "endpoint_error"),
    (),
    lambda key, volume, other, strength: mix_motion(volume, other, strength),
  ),
}
