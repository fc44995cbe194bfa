"""Slice codecs: between raw spectral slices and the latents that are denoised (section 4.1).

Both begin with the frequency-adaptive normalisation and end with whitening per channel. `PaperCodec` encodes normalised
slices by an auto-encoder. `PhotoCodec` has none to train: it averages over cells, and divides by what the photo says of
how far each place is likely to swing and by the window's own strength, so that what is left for diffusion is of about
the same size everywhere, in every photo.

A codec is a Linen module with the methods of `SliceCodec`. Another one is named by `config.model.codec.kind`, as
"module:Class"; the remaining settings there are its fields, beside `num_bands`. Of its parameters those named
`band_scale` [K], `strength` [1], `latent_mean` and `latent_std` [z] are measured on training data; it need not have
them.
"""

from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.models.encoders import SwingHead
from gid_jax.models.vae import VAE
from gid_jax.motion.normalization import denormalize, denormalize_by_resolution, normalize, normalize_by_resolution
from gid_jax.motion.resize import resize
from gid_jax.motion.warp import blur
from gid_jax.parsing import Part, make_part
from gid_jax.types import AnyArray, PRNGKey

_DITHER = 1e-3  # normalised units
_EVEN_SIGMA = 1.0  # latent pixels
_LEAST = 1e-3  # of the mean square, below which places are enlarged no further


class SliceCodec(Protocol):
  """What a motion model asks of a codec.

  Attributes:
    num_bands: K.
    factor: motion-grid pixels a latent pixel, per axis.
    latent_channels: z.
    is_trained: whether it has an auto-encoder, the parameters `vae`, which stage "vae" trains with `reconstruct`.
    needs_photo: whether it wants the swing that `see` reads off frozen image features, and the windows' strength.
  """

  num_bands: int

  @property
  def factor(self) -> int:
    """See above."""
    ...

  @property
  def latent_channels(self) -> int:
    """See above."""
    ...

  @property
  def is_trained(self) -> bool:
    """See above."""
    ...

  @property
  def needs_photo(self) -> bool:
    """See above."""
    ...

  def see(self, features: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w"] | None:
    """What it takes from frozen image features [b h w c] on the latent grid: the swing, or nothing."""
    ...

  def slices_to_latents(self, slices: Any, bands: Any, *, swing: Any = None, strength: Any = None) -> Array:
    """Raw slices [b k h w 4], pixels of the motion grid, of bands [b k] to whitened latents [b k h/f w/f z]."""
    ...

  def latents_to_slices(self, latents: Any, bands: Any, *, swing: Any = None, evenness: float = 0.0) -> Array:
    """Inverse of `slices_to_latents`, smooth: gradients pass through it."""
    ...

  def latents_to_motion(self, latents: Any, *, swing: Any = None, evenness: float = 0.0) -> Array:
    """Raw slices of sampled latents of all K bands in order."""
    ...


class PaperCodec(nn.Module):
  """The paper's: scale per band and square root, a KL auto-encoder, whitening (section 4.1).

  Attributes:
    num_bands: K.
    normalization: "frequency" (section 4.1), or "resolution" for the ablation without it.
    channels, multipliers, num_blocks, latent_channels, groups, dtype: of the `VAE`.

  Raises:
    ValueError: unknown `normalization`, or a swing or strength that it has no use for.
  """

  num_bands: int
  normalization: str = "frequency"
  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4)
  num_blocks: int = 2
  latent_channels: int = 4
  groups: int = 32
  dtype: str = "float32"

  is_trained = True
  needs_photo = False

  def setup(self):
    if self.normalization not in ("frequency", "resolution"):
      raise ValueError(f"normalization must be 'frequency' or 'resolution', not {self.normalization!r}")
    self.vae = self.make_vae()
    self.band_scale = self.param("band_scale", nn.initializers.ones, (self.num_bands,))
    self.latent_mean = self.param("latent_mean", nn.initializers.zeros, (self.latent_channels,))
    self.latent_std = self.param("latent_std", nn.initializers.ones, (self.latent_channels,))

  def make_vae(self) -> VAE:
    """The auto-encoder; as a module of its own, to convert its parameters."""
    return VAE(
      channels=self.channels, multipliers=self.multipliers, num_blocks=self.num_blocks,
      latent_channels=self.latent_channels, groups=self.groups, dtype=self.dtype, parent=None,
    )  # fmt: skip

  @property
  def factor(self) -> int:
    """Motion-grid pixels a latent pixel, per axis."""
    return 2 ** (len(self.multipliers) - 1)

  def see(self, features: Any) -> None:
    """Nothing: it normalises all photos alike."""

  def normalize(self, slices: Float[AnyArray, "*b h w 4"], bands: Int[AnyArray, "*b"]) -> Float[AnyArray, "*b h w 4"]:
    """Raw slices [*b h w 4], pixels of the motion grid, of bands [*b] in units of their size in the training set."""
    if self.normalization == "resolution":
      return normalize_by_resolution(slices)
    return normalize(slices, self.band_scale[bands])

  def denormalize(self, slices: Float[AnyArray, "*b h w 4"], bands: Int[AnyArray, "*b"]) -> Float[AnyArray, "*b h w 4"]:
    """Inverse of `normalize`: slices [*b h w 4] of bands [*b] in pixels again."""
    if self.normalization == "resolution":
      return denormalize_by_resolution(slices)
    return denormalize(slices, self.band_scale[bands])

  def reconstruct(
    self, key: PRNGKey, slices: Float[AnyArray, "b h w 4"], bands: Int[AnyArray, "b"]
  ) -> tuple[Float[AnyArray, "b h w 4"], Float[Array, "b h w 4"], Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
    """Auto-encodes raw slices [b h w 4] of bands [b]; returns (normalised input, reconstruction, mean, log-var)."""
    normalized = self.normalize(slices, bands)
    # On a slice without motion every group norm multiplies gradients by 1 / sqrt(epsilon) and the product overflows,
    # so the encoder sees a little noise, less than what storing in 8 bits adds.
    noise_key, key = jax.random.split(key)
    noise = _DITHER * jax.random.normal(noise_key, normalized.shape)
    return normalized, *self.vae(key, normalized + noise)

  def slices_to_latents(
    self,
    slices: Float[AnyArray, "b k h w 4"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: None = None,
    strength: None = None,
  ) -> Float[Array, "b k h2 w2 z"]:
    """Normalises, encodes (mean) and whitens raw slices [b k h w 4] of bands [b k] into latents [b k h/f w/f z]."""
    _refuse_photo(swing, strength)
    b, k = bands.shape
    normalized = self.normalize(slices, bands)
    mean, _ = self.vae.encode(normalized.reshape(b * k, *normalized.shape[2:]))
    return (mean.reshape(b, k, *mean.shape[-3:]) - self.latent_mean) / self.latent_std

  def latents_to_slices(
    self,
    latents: Float[AnyArray, "b k h w z"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: None = None,
    evenness: float = 0.0,
  ) -> Float[AnyArray, "b k h2 w2 4"]:
    """Inverse of `slices_to_latents`: raw slices [b k h*f w*f 4] of latents [b k h w z]; for `evenness` see there."""
    _refuse_photo(swing, None)
    b, k, *cells = latents.shape
    raw = latents * self.latent_std + self.latent_mean
    with jax.default_matmul_precision("highest"):  # motion of a hundredth of a pixel counts; training may be coarser
      decoded = self.vae.decode(raw.reshape(b * k, *cells))
    slices = self.denormalize(decoded.reshape(b, k, *decoded.shape[-3:]), bands)
    return slices * even_gains(slices, bands, evenness=evenness) if evenness else slices

  def latents_to_motion(
    self, latents: Float[AnyArray, "b k h w z"], *, swing: None = None, evenness: float = 0.0
  ) -> Float[AnyArray, "b k h2 w2 4"]:
    """Raw slices [b k h*f w*f 4], pixels of the motion grid, of latents [b k h w z] of all K bands in order."""
    return self.latents_to_slices(latents, _all_bands(latents), swing=swing, evenness=evenness)


class PhotoCodec(nn.Module):
  """Ours: means over cells, relative to what the photo says of their swing and to the window's strength.

  Raw coefficients are averaged and interpolated, in pixels, and normalised in between, where there are cells: between
  places that swing in opposite phase there is rest. Motion is smooth, so little is lost: on measured motion less than a
  convolutional auto-encoder loses that was trained for 19 minutes on two CPU cores
  (`docs/experiments/embedded-model.md`).

  A head on frozen image features, `swing_head`, says how far each place is likely to swing. No photo tells the wind:
  windows are divided by their own strength, and sampled motion gets `strength`, the median of the scenes that move.

  Attributes:
    num_bands: K.
    factor: side of a cell, pixels of the motion grid.

  Raises:
    ValueError: a call without swing, or without strength where slices are encoded.
  """

  num_bands: int
  factor: int = 4

  latent_channels = 4  # those of a slice
  is_trained = False
  needs_photo = True

  def setup(self):
    self.swing_head = SwingHead()
    self.strength = self.param("strength", nn.initializers.ones, (1,))
    self.band_scale = self.param("band_scale", nn.initializers.ones, (self.num_bands,))
    self.latent_mean = self.param("latent_mean", nn.initializers.zeros, (self.latent_channels,))
    self.latent_std = self.param("latent_std", nn.initializers.ones, (self.latent_channels,))

  def see(self, features: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w"]:
    """Natural logarithm of how far places are likely to swing [b h w], of frozen image features [b h w c]."""
    return self.swing_head(features)

  def slices_to_latents(
    self,
    slices: Float[AnyArray, "b k h w 4"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: Float[AnyArray, "b h2 w2"] | None = None,
    strength: Float[AnyArray, "b"] | None = None,
  ) -> Float[Array, "b k h2 w2 4"]:
    """Averages, normalises and whitens raw slices [b k h w 4] of bands [b k] into latents [b k h/f w/f 4].

    `swing` [b h/f w/f] is that of the photos, see `View`, and `strength` [b] that of the windows, see
    `gid_jax.data.examples.measure_strength`.
    """
    if strength is None:
      raise ValueError("this codec needs the strength of the windows")
    slices = slices / strength[:, None, None, None, None]
    # Means of coefficients, not of their roots.
    cells = normalize(self.average(slices) / _swing_factors(swing), self.band_scale[bands])
    return (cells - self.latent_mean) / self.latent_std

  def latents_to_slices(
    self,
    latents: Float[AnyArray, "b k h w 4"],
    bands: Int[AnyArray, "b k"],
    *,
    swing: Float[AnyArray, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[Array, "b k h2 w2 4"]:
    """Inverse of `slices_to_latents`: raw slices [b k h*f w*f 4], pixels of the motion grid, of latents [b k h w 4].

    `evenness` takes chance off, see `even_gains`; it is for all K bands at once. The strength is the typical one.
    """
    slices = denormalize(latents * self.latent_std + self.latent_mean, self.band_scale[bands])
    if evenness:
      slices = slices * even_gains(slices, bands, evenness=evenness)
    return self.enlarge(slices * _swing_factors(swing) * self.strength)

  def latents_to_motion(
    self,
    latents: Float[AnyArray, "b k h w 4"],
    *,
    swing: Float[AnyArray, "b h w"] | None = None,
    evenness: float = 0.0,
  ) -> Float[Array, "b k h2 w2 4"]:
    """Raw slices [b k h*f w*f 4], pixels of the motion grid, of sampled latents [b k h w 4] of all K bands in order.

    Every sample gets the very strength that all windows had in training, the typical one, less what `swing` [b h w]
    takes off a photo in which nothing moves. For `evenness` see `even_gains`.
    """
    slices = self.latents_to_slices(latents, _all_bands(latents), swing=swing, evenness=evenness)
    assert swing is not None  # or it would have been refused
    # Percentiles as in `gid_jax.data.examples.measure_strength`.
    found = jnp.percentile(jnp.sqrt(jnp.square(slices[:, 1:]).sum((1, 4))), 95, axis=(1, 2))
    wanted = self.strength * jnp.exp(jnp.percentile(swing, 95, axis=(1, 2)))
    return slices * jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1.0), 1.0)[:, None, None, None, None]

  def average(self, slices: Float[AnyArray, "*b h w 4"]) -> Float[AnyArray, "*b h2 w2 4"]:
    """Means over cells [*b h/f w/f 4] of slices [*b h w 4]."""
    *b, h, w, c = slices.shape
    return slices.reshape(*b, h // self.factor, self.factor, w // self.factor, self.factor, c).mean((-4, -2))

  def enlarge(self, cells: Float[AnyArray, "*b h w 4"]) -> Float[Array, "*b h2 w2 4"]:
    """Slices [*b h*f w*f 4] of cells [*b h w 4], cubic."""
    height, width = (self.factor * side for side in cells.shape[-3:-1])
    return resize(cells, height, width, method="cubic")


CODECS = {"paper": PaperCodec, "photo": PhotoCodec}


def make_codec(part: Part, *, num_bands: int) -> Any:
  """The `SliceCodec` of a config's `codec` part, without a parent: to be asked for its sizes, or to join a model.

  Raises:
    UserError: nothing has this name, or it has no such setting.
  """
  return make_part(part, CODECS, what="codec", num_bands=num_bands, parent=None)


def _all_bands(latents):
  return jnp.broadcast_to(jnp.arange(latents.shape[1]), latents.shape[:2])


def _swing_factors(swing):
  # Factors [b 1 h w 1] on cells of slices.
  if swing is None:
    raise ValueError("this codec normalises by swing and needs that of the photos; see MotionModel.encode_image")
  return jnp.exp(swing)[:, None, :, :, None]


def _refuse_photo(swing, strength):
  if swing is not None or strength is not None:
    raise ValueError("this codec takes neither the swing of photos nor the strength of windows")


def even_gains(
  slices: Float[AnyArray, "b k h w 4"], bands: Int[AnyArray, "b k"], *, evenness: float
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
