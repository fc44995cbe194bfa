"""The motion model: image encoder, slice codec and denoiser under one roof (section 4).

Everything that a photo's spectral volume depends on is one parameter tree: `encoder`, the codec's own parameters at the
top (`band_scale` [K], the whitening `latent_mean` and `latent_std` [z], `vae` or `swing_head` and `strength`), and the
denoiser under its own name (`unet` for ours).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.models.codec import make_codec
from gid_jax.models.denoiser import make_denoiser, name_denoiser
from gid_jax.models.encoders import make_encoder
from gid_jax.parsing import Part
from gid_jax.types import AnyArray, PRNGKey


class View(NamedTuple):
  """What the motion model sees in photos, on the latent grid.

  Attributes:
    condition: [b h w d] features for the denoiser.
    swing: [b h w] natural logarithm of how far places are likely to swing, of the typical moving place; None for a
      codec that does not normalise by it.
  """

  condition: Float[Array, "b h w d"]
  swing: Float[Array, "b h w"] | None


class MotionModel(nn.Module):
  """Photo and noisy latents to spectral slices (section 4).

  Attributes:
    codec_part: of the slice codec, see `gid_jax.models.codec`.
    encoder_part: of the image encoder, see `gid_jax.models.encoders`.
    denoiser_part: of the denoiser, see `gid_jax.models.denoiser`.
    num_bands: K.
    volume: predict all bands as channels of one image ("volume prediction", Table 2) instead of K coordinated images;
      then `denoise` wants all K bands in order at one time step.

  Raises:
    ValueError: the codec needs features of photos, and the encoder has none that are frozen.
  """

  codec_part: Part
  encoder_part: Part
  denoiser_part: Part
  num_bands: int = 16
  volume: bool = False

  def setup(self):
    self.codec = make_codec(self.codec_part, num_bands=self.num_bands)
    # The codec's parameters stand beside the other parts', not below a name of its own.
    nn.share_scope(self, self.codec)
    self.encoder = make_encoder(self.encoder_part)
    if self.codec.needs_photo and not self.encoder.trunks:
      raise ValueError("the codec reads frozen image features; name some in config.model.encoder.trunks")
    # A submodule's parameters stand under the name of the attribute.
    setattr(self, self.denoiser_name, self.make_denoiser())

  def make_codec(self) -> Any:
    """The codec without parameters, to be asked for its sizes."""
    return make_codec(self.codec_part, num_bands=self.num_bands)

  def make_denoiser(self) -> Any:
    """The denoiser; as a module of its own, to initialise or convert its parameters."""
    channels = self.latent_channels * (self.num_bands if self.volume else 1)
    return make_denoiser(self.denoiser_part, out_channels=channels)

  @property
  def denoiser_name(self) -> str:
    """Under which the denoiser's parameters stand."""
    return name_denoiser(self.denoiser_part)

  @property
  def latent_factor(self) -> int:
    """Motion-grid pixels a latent pixel, per axis."""
    return self.make_codec().factor

  @property
  def latent_channels(self) -> int:
    """Channels z of a latent."""
    return self.make_codec().latent_channels

  @property
  def cell(self) -> int:
    """Motion-grid pixels that the sides of a motion must be a multiple of."""
    return self.latent_factor * self.make_denoiser().multiple

  @property
  def favoured_cell(self) -> int:
    """Motion-grid pixels that these sides are best a multiple of."""
    return self.latent_factor * self.make_denoiser().favoured_multiple

  def reconstruct(
    self, key: PRNGKey, slices: Float[AnyArray, "b h w 4"], bands: Int[AnyArray, "b"]
  ) -> tuple[Float[AnyArray, "b h w 4"], Float[Array, "b h w 4"], Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
    """Auto-encodes raw slices [b h w 4] of bands [b]; returns (normalised input, reconstruction, mean, log-var)."""
    return self.codec.reconstruct(key, slices, bands)

  def slices_to_latents(
    self,
    slices: Float[AnyArray, "b k h w 4"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: Float[AnyArray, "b h2 w2"] | None = None,
    strength: Float[AnyArray, "b"] | None = None,
  ) -> Float[AnyArray, "b k h2 w2 z"]:
    """Raw slices [b k h w 4], pixels of the motion grid, of bands [b k] to whitened latents; see `SliceCodec`."""
    return self.codec.slices_to_latents(slices, bands, swing=swing, strength=strength)

  def latents_to_slices(
    self,
    latents: Float[AnyArray, "b k h w z"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: Float[AnyArray, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[AnyArray, "b k h2 w2 4"]:
    """Inverse of `slices_to_latents`: raw slices [b k h*f w*f 4] of latents [b k h w z]; see `SliceCodec`."""
    return self.codec.latents_to_slices(latents, bands, swing=swing, evenness=evenness)

  def latents_to_motion(
    self,
    latents: Float[AnyArray, "b k h w z"],
    *,
    swing: Float[AnyArray, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[AnyArray, "b k h2 w2 4"]:
    """Raw slices [b k h*f w*f 4] of sampled latents [b k h w z] of all K bands in order; see `SliceCodec`."""
    return self.codec.latents_to_motion(latents, swing=swing, evenness=evenness)

  def encode_image(self, image: Float[AnyArray, "b h w 3"], *, height: int, width: int) -> View:
    """What there is to see in images [b h w 3] in [0, 1], on a grid of height x width."""
    condition, features = self.encoder(image, height=height, width=width)
    return View(condition, self.codec.see(features) if self.codec.needs_photo else None)

  def predict_swing(
    self, image: Float[AnyArray, "b h w 3"], *, height: int, width: int
  ) -> Float[Array, "b h2 w2"] | None:
    """The part `swing` [b height width] of `encode_image` alone, for which the frozen parameters will do."""
    if not self.codec.needs_photo:
      return None
    return self.codec.see(self.encoder.see(image, height=height, width=width))

  def denoise(
    self,
    latents: Float[AnyArray, "b k h w z"],
    timesteps: Int[AnyArray, "b k"],
    bands: Int[AnyArray, "b k"],
    condition: Float[AnyArray, "b h w d"],
  ) -> Float[Array, "b k h w z"]:
    """The denoiser's output [b k h w z] for noisy latents at time steps [b k], bands [b k], condition [b h w d]."""
    denoiser = getattr(self, self.denoiser_name)
    if not self.volume:
      return denoiser(latents, timesteps, bands, condition)
    b, k, h, w, z = latents.shape
    channels = latents.transpose(0, 2, 3, 1, 4).reshape(b, 1, h, w, k * z)
    output = denoiser(channels, timesteps[:, :1], bands[:, :1], condition)
    return output.reshape(b, h, w, k, z).transpose(0, 3, 1, 2, 4)

  def __call__(
    self,
    slices: Float[AnyArray, "b k hm wm 4"],
    bands: Int[AnyArray, "b k"],
    image: Float[AnyArray, "b h w 3"],
    timesteps: Int[AnyArray, "b k"],
  ) -> Float[AnyArray, "b k hm wm 4"]:
    """One pass through every part, [b k hm wm 4] to [b k hm wm 4]; used to create the parameters."""
    height, width = (side // self.latent_factor for side in slices.shape[2:4])
    view = self.encode_image(image, height=height, width=width)
    strength = jnp.ones(len(slices)) if self.codec.needs_photo else None
    latents = self.slices_to_latents(slices, bands, swing=view.swing, strength=strength)
    return self.latents_to_slices(self.denoise(latents, timesteps, bands, view.condition), bands, swing=view.swing)
