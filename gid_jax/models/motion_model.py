"""The motion model: image features, slice auto-encoder and denoiser under one roof, with the constants they need.

Everything that a photo's spectral volume depends on is one parameter tree: `vae`, `encoder`, `unet`, the per-band
normalisation `band_scale` [K] and the whitening `latent_mean`, `latent_std` [z]. Two ablations of Table 2 are fields:
`normalization="resolution"` scales by the grid's size alone, and `volume=True` lets one U-Net predict the K slices as
K z channels instead of K coordinated images.

With `swing=True` the normalisation follows the photo too: a head on the frozen image features, `swing`, says how far
each place is likely to swing, and slices are divided by it. What is left for diffusion is of about the same size
everywhere, in every photo; how much moves where comes from few numbers fitted to all scenes at once.

With `unit_strength=True` windows are also divided by their own strength, as no photo tells the wind. Sampled motion
gets `strength`, the median of the scenes that move: whoever wants a storm magnifies it.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.flow.pyramid import blur
from gid_jax.models.encoders import ConditionEncoder, SwingHead
from gid_jax.models.unet import UNet
from gid_jax.models.vae import AreaCodec, make_codec
from gid_jax.motion.normalization import denormalize, denormalize_by_resolution, normalize, normalize_by_resolution
from gid_jax.types import PRNGKey

_DITHER = 1e-3  # normalised units
_EVEN_SIGMA = 1.0  # latent pixels
_LEAST = 1e-3  # of the mean square, below which places are enlarged no further


class View(NamedTuple):
  """What the motion model sees in photos, on the latent grid.

  Attributes:
    condition: [b h w d] features for the denoiser.
    swing: [b h w] natural logarithm of how far places are likely to swing, of the typical moving place; None for a
      model that does not normalise by it.
  """

  condition: Float[Array, "b h w d"]
  swing: Float[Array, "b h w"] | None


class MotionModel(nn.Module):
  """Photo and noisy latents to spectral slices (section 4).

  Attributes:
    vae_fields: `kind` and fields of the auto-encoder; see `make_codec`.
    encoder_fields: fields of `ConditionEncoder`.
    unet_fields: fields of `UNet`.
    num_bands: K.
    normalization: "frequency" (section 4.1), or "resolution" for the ablation without it.
    volume: predict all bands as channels of one image ("volume prediction"); then `denoise` wants all K bands in
      order at one time step.
    swing: normalise by what the photo says of how far its places swing.
    unit_strength: normalise every window to one strength.

  Raises:
    ValueError: unknown `normalization`, or parts that do not go with `swing` or `unit_strength`.
  """

  vae_fields: Any
  encoder_fields: Any
  unet_fields: Any
  num_bands: int = 16
  normalization: str = "frequency"
  volume: bool = False
  swing: bool = False
  unit_strength: bool = False

  def setup(self):
    if self.normalization not in ("frequency", "resolution"):
      raise ValueError(f"normalization must be 'frequency' or 'resolution', not {self.normalization!r}")
    self.vae = make_codec(self.vae_fields)
    latent_channels = self.vae.latent_channels
    self.encoder = ConditionEncoder(**self.encoder_fields)
    if (self.swing or self.unit_strength) and not self.averages:
      raise ValueError("swing=True and unit_strength=True need a vae of kind 'area', as stage vae learns from slices "
                       "as they are")  # fmt: skip
    if self.swing:
      if self.encoder.kind != "efficientnet_lite0":
        raise ValueError("swing=True needs an encoder of kind 'efficientnet_lite0', whose features it reads")
      self.swing_head = SwingHead()
    self.unet = make_unet(self)
    if self.unit_strength:
      self.strength = self.param("strength", nn.initializers.ones, (1,))
    self.band_scale = self.param("band_scale", nn.initializers.ones, (self.num_bands,))
    self.latent_mean = self.param("latent_mean", nn.initializers.zeros, (latent_channels,))
    self.latent_std = self.param("latent_std", nn.initializers.ones, (latent_channels,))

  @property
  def averages(self) -> bool:
    """Whether latents are means over cells, without an auto-encoder to train."""
    return isinstance(make_codec(self.vae_fields), AreaCodec)

  @property
  def latent_factor(self) -> int:
    """Motion-grid pixels a latent pixel, per axis."""
    return make_codec(self.vae_fields).factor

  @property
  def latent_channels(self) -> int:
    """Channels z of a latent."""
    return make_codec(self.vae_fields).latent_channels

  def normalize(self, slices: Float[Array, "*b h w 4"], bands: Int[Array, "*b"]) -> Float[Array, "*b h w 4"]:
    """Raw slices [*b h w 4], pixels of the motion grid, of bands [*b] in units of their size in the training set."""
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
    self,
    slices: Float[Array, "b k h w 4"],
    bands: Int[Array, "b k"],
    *,
    swing: Float[Array, "b h2 w2"] | None = None,
    strength: Float[Array, "b"] | None = None,
  ) -> Float[Array, "b k h2 w2 z"]:
    """Normalises, encodes (mean) and whitens raw slices [b k h w 4] of bands [b k] into latents [b k h/f w/f z].

    `swing` [b h/f w/f] is that of the photos, see `View`, and `strength` [b] that of the windows, see
    `gid_jax.data.examples.measure_strength`; both only where the model asks for them.
    """
    if (strength is None) == self.unit_strength:
      raise ValueError("a model of unit_strength, and no other, needs the strength of the windows")
    if strength is not None:
      slices = slices / strength[:, None, None, None, None]
    b, k = bands.shape
    # Means of coefficients, not of their roots: between places that swing in opposite phase there is rest.
    small = self.vae.average(slices) if self.averages else slices
    mean = self.normalize(small / self._swing_factors(swing), bands)
    if not self.averages:
      mean, _ = self.vae.encode(mean.reshape(b * k, *mean.shape[2:]))
    return (mean.reshape(b, k, *mean.shape[-3:]) - self.latent_mean) / self.latent_std

  def latents_to_slices(
    self,
    latents: Float[Array, "b k h w z"],
    bands: Int[Array, "b k"],
    *,
    swing: Float[Array, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[Array, "b k h2 w2 4"]:
    """Inverse of `slices_to_latents`: raw slices [b k h*f w*f 4], pixels of the motion grid, of latents [b k h w z].

    `evenness` takes chance off, see `even_gains`; it is for all K bands at once.
    """
    b, k, *cells = latents.shape
    raw = latents * self.latent_std + self.latent_mean
    if not self.averages:
      raw = self.vae.decode(raw.reshape(b * k, *cells))
    slices = self.denormalize(raw.reshape(b, k, *raw.shape[-3:]), bands)
    if evenness:
      slices = slices * even_gains(slices, bands, evenness=evenness)
    slices = slices * self._swing_factors(swing)
    if self.unit_strength:
      slices = slices * self.strength
    return self.vae.enlarge(slices) if self.averages else slices

  def latents_to_motion(
    self,
    latents: Float[Array, "b k h w z"],
    *,
    swing: Float[Array, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[Array, "b k h2 w2 4"]:
    """Raw slices [b k h*f w*f 4], pixels of the motion grid, of sampled latents [b k h w z] of all K bands in order.

    With `unit_strength` every sample gets the very strength that all windows had in training, the typical one, less
    what `swing` [b h w] takes off a photo in which nothing moves. For `evenness` see `even_gains`.
    """
    bands = jnp.broadcast_to(jnp.arange(latents.shape[1]), latents.shape[:2])
    slices = self.latents_to_slices(latents, bands, swing=swing, evenness=evenness)
    if not self.unit_strength:
      return slices
    # Percentiles as in `gid_jax.data.examples.measure_strength`.
    found = jnp.percentile(jnp.sqrt(jnp.square(slices[:, 1:]).sum((1, 4))), 95, axis=(1, 2))
    wanted = self.strength * (1.0 if swing is None else jnp.exp(jnp.percentile(swing, 95, axis=(1, 2))))
    return slices * jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1.0), 1.0)[:, None, None, None, None]

  def _swing_factors(self, swing: Float[Array, "b h w"] | None):
    """Factors [b 1 h w 1] on cells of slices; 1 for a model that does not normalise by swing."""
    if (swing is None) == self.swing:
      raise ValueError("a model that normalises by swing, and no other, needs that of the photos; see encode_image")
    return 1.0 if swing is None else jnp.exp(swing)[:, None, :, :, None]

  def encode_image(self, image: Float[Array, "b h w 3"], *, height: int, width: int) -> View:
    """What there is to see in images [b h w 3] in [0, 1], on a grid of height x width."""
    condition, features = self.encoder(image, height=height, width=width)
    return View(condition, self.swing_head(features) if self.swing else None)

  def predict_swing(self, image: Float[Array, "b h w 3"], *, height: int, width: int) -> Float[Array, "b h2 w2"]:
    """The part `swing` [b height width] of `encode_image` alone, for which the frozen parameters will do."""
    return self.swing_head(self.encoder.see(image, height=height, width=width))

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
    height, width = (side // self.latent_factor for side in slices.shape[2:4])
    view: Any = self.encode_image(image, height=height, width=width)
    strength = jnp.ones(len(slices)) if self.unit_strength else None
    latents = self.slices_to_latents(slices, bands, swing=view.swing, strength=strength)
    return self.latents_to_slices(self.denoise(latents, timesteps, bands, view.condition), bands, swing=view.swing)


def even_gains(
  slices: Float[Array, "b k h w 4"], bands: Int[Array, "b k"], *, evenness: float
) -> Float[Array, "b 1 h w 1"]:
  """Gains that bring places to the photo's mean swing, by a share of the way in logarithms, all bands alike.

  For slices divided by what the photo says of their swing: what a sample has more here and less there is mostly
  chance, and a chance rest in the middle of a flower looks wrong.

  Args:
    slices: [b k h w 4], all K bands.
    bands: [b k]; 0 is no swing.
    evenness: 0 leaves everything, 1 makes all places swing alike; those below 0.1 % of the mean square count as that.

  Returns:
    [b 1 h w 1], of the mean square over neighbouring places: from one to the next they change little.
  """
  square = jnp.sum(jnp.where(bands[..., None, None, None] > 0, slices, 0.0) ** 2, axis=(1, 4))
  square = jax.vmap(lambda values: blur(values, _EVEN_SIGMA))(square)
  mean = square.mean((1, 2), keepdims=True)
  relative = jnp.where(mean > 0, square / jnp.where(mean > 0, mean, 1.0), 1.0)
  return jnp.maximum(relative, _LEAST)[:, None, :, :, None] ** (-evenness / 2)


def make_unet(model: MotionModel) -> UNet:
  """The denoiser of a motion model; as a module of its own, to initialise or convert its parameters."""
  return UNet(
    out_channels=model.latent_channels * (model.num_bands if model.volume else 1), **model.unet_fields
  )
