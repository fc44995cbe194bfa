"""How much a spectral volume moves."""

import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.motion.spectral import bin_weights
from gid_jax.types import SpectralVolume


def scale_coefficients(volume: SpectralVolume, stride: float) -> Float[np.ndarray, "k h w 4"]:
  """Scales a volume so that its squares add up to mean square displacements, [k h w 4] pixels of the photo.

  Raises:
    UserError: coefficients are not finite.
  """
  coefficients = np.asarray(volume.coefficients, np.float32)
  if not np.isfinite(coefficients).all():
    raise UserError("a spectral volume holds coefficients that are not finite; the model that made it has diverged")
  num_bands, num_frames = len(coefficients), volume.num_frames
  alone = (np.arange(num_bands) == 0) | (2 * np.arange(num_bands) == num_frames)
  gains = np.sqrt(bin_weights(num_bands, num_frames) / num_frames)[:, None].repeat(4, 1)
  gains[alone, 2:] = 0
  return coefficients * (stride * gains[:, None, None]).astype(np.float32)


def rms_swing(volume: SpectralVolume, *, stride: float) -> Float[np.ndarray, "h w"]:
  """Root mean square over a period of every pixel's displacement from its mean place: [h w] pixels of the photo.

  Band 0, how far the photo lies from the mean place, is no motion: in a scene that was let go when the photo was taken
  it exceeds the swing itself.

  Raises:
    UserError: coefficients are not finite.
  """
  return np.sqrt(np.square(scale_coefficients(volume, stride)[1:]).sum((0, -1)))
