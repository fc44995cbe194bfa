"""The auto-encoder of one frequency slice, as in latent diffusion (section 4.1).

A normalised slice [h w 4] becomes a latent [h/f w/f latent_channels], f = 2^(levels - 1).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gid_jax.models.layers import BOTTOM_RIGHT, SYMMETRIC, Downsample, GroupNorm, ResBlock, SpatialAttention, Upsample
from gid_jax.types import AnyArray, PRNGKey


class _Middle(nn.Module):
  channels: int
  groups: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x):
    common = dict[str, Any](groups=self.groups, dtype=self.dtype)
    x = ResBlock(self.channels, name="block1", **common)(x)
    x = SpatialAttention(name="attention", **common)(x)
    return ResBlock(self.channels, name="block2", **common)(x)


class Encoder(nn.Module):
  """Slice to the moments of its latent.

  Attributes:
    channels: base channels.
    multipliers: channel multiplier of each level, full resolution first.
    num_blocks: residual blocks a level.
    out_channels: twice the latent channels.
    groups: group-norm groups.
    dtype: compute type.
  """

  channels: int
  multipliers: tuple[int, ...]
  num_blocks: int
  out_channels: int
  groups: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    """Maps [b h w c] to [b h/f w/f out_channels]."""
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=SYMMETRIC, dtype=self.dtype)
    res_block = functools.partial(ResBlock, groups=self.groups, dtype=self.dtype)
    x = conv(self.channels, name="conv_in")(x)
    for level, multiplier in enumerate(self.multipliers):
      for block in range(self.num_blocks):
        x = res_block(self.channels * multiplier, name=f"level{level}_block{block}")(x)
      if level < len(self.multipliers) - 1:
        x = Downsample(padding=BOTTOM_RIGHT, dtype=self.dtype, name=f"level{level}_down")(x)
    x = _Middle(x.shape[-1], self.groups, self.dtype, name="middle")(x)
    x = nn.silu(GroupNorm(groups=self.groups, name="norm_out")(x))
    return conv(self.out_channels, name="conv_out")(x)


class Decoder(nn.Module):
  """Latent to slice, the mirror of `Encoder` with one residual block more a level.

  Attributes:
    channels: base channels.
    multipliers: channel multiplier of each level, full resolution first.
    num_blocks: residual blocks a level in the encoder.
    out_channels: channels of a slice.
    groups: group-norm groups.
    dtype: compute type.
  """

  channels: int
  multipliers: tuple[int, ...]
  num_blocks: int
  out_channels: int
  groups: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, z: Float[AnyArray, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    """Maps [b h w latent_channels] to [b h*f w*f out_channels]."""
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=SYMMETRIC, dtype=self.dtype)
    res_block = functools.partial(ResBlock, groups=self.groups, dtype=self.dtype)
    x = conv(self.channels * self.multipliers[-1], name="conv_in")(z)
    x = _Middle(x.shape[-1], self.groups, self.dtype, name="middle")(x)
    for level, multiplier in reversed(list(enumerate(self.multipliers))):
      for block in range(self.num_blocks + 1):
        x = res_block(self.channels * multiplier, name=f"level{level}_block{block}")(x)
      if level > 0:
        x = Upsample(dtype=self.dtype, name=f"level{level}_up")(x)
    x = nn.silu(GroupNorm(groups=self.groups, name="norm_out")(x))
    return conv(self.out_channels, name="conv_out")(x)


class VAE(nn.Module):
  """KL auto-encoder of normalised frequency slices.

  Attributes:
    channels: base channels (128 in the paper).
    multipliers: channel multipliers ((1, 2, 4): a factor of 4).
    num_blocks: residual blocks a level.
    latent_channels: 4 in the paper.
    slice_channels: channels of a slice, 4.
    groups: group-norm groups.
    dtype: compute type, "float32" or "bfloat16"; parameters, latents and slices stay float32.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4)
  num_blocks: int = 2
  latent_channels: int = 4
  slice_channels: int = 4
  groups: int = 32
  dtype: str = "float32"

  def setup(self):
    shared = dict[str, Any](
      channels=self.channels,
      multipliers=tuple(self.multipliers),
      num_blocks=self.num_blocks,
      groups=self.groups,
      dtype=jnp.dtype(self.dtype),
    )
    self.encoder = Encoder(out_channels=2 * self.latent_channels, **shared)
    self.decoder = Decoder(out_channels=self.slice_channels, **shared)
    self.quant_conv = nn.Conv(2 * self.latent_channels, (1, 1))
    self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1))

  @property
  def factor(self) -> int:
    """Down-sampling factor from slice to latent."""
    return 2 ** (len(self.multipliers) - 1)

  def encode(self, slices: Float[AnyArray, "b h w c"]) -> tuple[Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
    """Returns the latent's mean and log-variance (clamped to [-30, 20]), each [b h/f w/f z], of slices [b h w c]."""
    mean, log_variance = jnp.split(self.quant_conv(self.encoder(slices).astype(jnp.float32)), 2, axis=-1)
    return mean, jnp.clip(log_variance, -30.0, 20.0)

  def decode(self, latents: Float[AnyArray, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
    """Returns normalised slices [b h*f w*f c] of latents [b h w z]."""
    return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)

  def __call__(
    self, key: PRNGKey, slices: Float[AnyArray, "b h w c"]
  ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
    """Encodes, samples and decodes slices [b h w c]; returns (reconstruction, mean, log-variance)."""
    mean, log_variance = self.encode(slices)
    sample = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    return self.decode(sample), mean, log_variance

