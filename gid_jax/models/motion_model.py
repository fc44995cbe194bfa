"""The motion model: image features, slice auto-encoder and denoiser under one roof, with the constants they need.

Everything that a photo's spectral volume depends on is one parameter tree: `vae`, `encoder`, `unet`, the per-band
normalisation `band_scale` [K] and the whitening `latent_mean`, `latent_std` [z]. Two ablations of Table 2 are fields:
`normalization="resolution"` scales by the grid's size alone, and `volume=True` lets one U-Net predict the K slices as
K z channels instead of K coordinated images.
"""

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from gid_jax.models.encoders import ConditionEncoder
from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE
from gid_jax.normalization import denormalize, denormalize_by_resolution, normalize, normalize_by_resolution
from gid_jax.types import PRNGKey

_DITHER = 1e-3  # normalised units


class MotionModel(nn.Module):
  """Photo and noisy latents to spectral slices (section 4).

  Attributes:
    vae_fields: fields of `VAE`.
    encoder_fields: fields of `ConditionEncoder`.
    unet_fields: fields of `UNet`.
    num_bands: K.
    normalization: "frequency" (section 4.1), or "resolution" for the ablation without it.
    volume: predict all bands as channels of one image ("volume prediction"); then `denoise` wants all K bands in
      order at one time step.

  Raises:
    ValueError: unknown `normalization`.
  """

  vae_fields: Any
  encoder_fields: Any
  unet_fields: Any
  num_bands: int = 16
  normalization: str = "frequency"
  volume: bool = False

  def setup(self):
    if self.normalization not in ("frequency", "resolution"):
      raise ValueError(f"normalization must be 'frequency' or 'resolution', not {self.normalization!r}")
    latent_channels = self.vae_fields["latent_channels"]
    self.vae = VAE(**self.vae_fields)
    self.encoder = ConditionEncoder(**self.encoder_fields)
    self.unet = make_unet(self)
    self.band_scale = self.param("band_scale", nn.initializers.ones, (self.num_bands,))
    self.latent_mean = self.param("latent_mean", nn.initializers.zeros, (latent_channels,))
    self.latent_std = self.param("latent_std", nn.initializers.ones, (latent_channels,))

  @property
  def latent_factor(self) -> int:
    """Motion-grid pixels a latent pixel, per axis."""
    return 2 ** (len(self.vae_fields["multipliers"]) - 1)

  def normalize(self, slices: Float[Array, "*b h w 4"], bands: Int[Array, "*b"]) -> Float[Array, "*b h w 4"]:
    """Raw slices [*b h w 4], pixels of the motion grid, of bands [*b] as the auto-encoder sees them."""
    if self.normalization == "resolution":
      return normalize_by_resolution(slices)
    return normalize(slices, self.band_scale[bands])

  def denormalize(self, slices: Float[Array, "*b h w 4"], bands: Int[Array, "*b"]) -> Float[Array, "*b h w 4"]:
    """Inverse of `normalize`: slices [*b h w 4] of bands [*b] in pixels again."""
    if self.normalization == "resolution":
      return denormalize_by_resolution(slices)
    return denormalize(slices, self.band_scale[bands])

  def reconstruct(
    self, key: PRNGKey, slices: Float[Array, "b h w 4"], bands: Int[Array, "b"]
  ) -> tuple[Float[Array, "b h w 4"], ...]:
    """Auto-encodes raw slices [b h w 4] of bands [b]; returns (normalised input, reconstruction, mean, log-var)."""
    normalized = self.normalize(slices, bands)
    # On a slice without motion every group norm multiplies gradients by 1 / sqrt(epsilon) and the product overflows,
    # so the encoder sees a little noise, less than what storing in 8 bits adds.
    noise_key, key = jax.random.split(key)
    noise = _DITHER * jax.random.normal(noise_key, normalized.shape)
    return normalized, *self.vae(key, normalized + noise)

  def slices_to_latents(
    self, slices: Float[Array, "b k h w 4"], bands: Int[Array, "b k"]
  ) -> Float[Array, "b k h2 w2 z"]:
    """Normalises, encodes (mean) and whitens raw slices [b k h w 4] of bands [b k] into latents [b k h/f w/f z]."""
    b, k, h, w, c = slices.shape
    normalized = self.normalize(slices, bands)
    mean, _ = self.vae.encode(normalized.reshape(b * k, h, w, c))
    return ((mean - self.latent_mean) / self.latent_std).reshape(b, k, *mean.shape[1:])

  def latents_to_slices(
    self, latents: Float[Array, "b k h w z"], bands: Int[Array, "b k"]
  ) -> Float[Array, "b k h2 w2 4"]:
    """Inverse of `slices_to_latents`: raw slices [b k h*f w*f 4], pixels of the motion grid, of latents [b k h w z]."""
    b, k, h, w, z = latents.shape
    raw = latents * self.latent_std + self.latent_mean
    slices = self.vae.decode(raw.reshape(b * k, h, w, z))
    return self.denormalize(slices.reshape(b, k, *slices.shape[1:]), bands)

  def encode_image(self, image: Float[Array, "b h w 3"], *, height: int, width: int) -> Float[Array, "b h2 w2 d"]:
    """Condition features [b height width d] of images [b h w 3] in [0, 1]."""
    return self.encoder(image, height=height, width=width)

  def denoise(
    self,
    latents: Float[Array, "b k h w z"],
    timesteps: Int[Array, "b k"],
    bands: Int[Array, "b k"],
    condition: Float[Array, "b h w d"],
  ) -> Float[Array, "b k h w z"]:
    """The U-Net's prediction [b k h w z] for noisy latents at time steps [b k], bands [b k], condition [b h w d]."""
    if not self.volume:
      return self.unet(latents, timesteps, bands, condition)
    b, k, h, w, z = latents.shape
    channels = latents.transpose(0, 2, 3, 1, 4).reshape(b, 1, h, w, k * z)
    output = self.unet(channels, timesteps[:, :1], bands[:, :1], condition)
    return output.reshape(b, h, w, k, z).transpose(0, 3, 1, 2, 4)

  def __call__(
    self,
    slices: Float[Array, "b k h w 4"],
    bands: Int[Array, "b k"],
    image: Float[Array, "b h w 3"],
    timesteps: Int[Array, "b k"],
  ) -> Float[Array, "b k h2 w2 4"]:
    """One pass through every part, [b k h w 4] to [b k h w 4]; used to create the parameters."""
    latents = self.slices_to_latents(slices, bands)
    condition = self.encode_image(image, height=latents.shape[2], width=latents.shape[3])
    return self.latents_to_slices(self.denoise(latents, timesteps, bands, condition), bands)


def make_unet(model: MotionModel) -> UNet:
  """The denoiser of a motion model; as a module of its own, to initialise or convert its parameters."""
  return UNet(
    out_channels=model.vae_fields["latent_channels"] * (model.num_bands if model.volume else 1), **model.unet_fields
  )
