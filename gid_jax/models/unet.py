"""The denoiser: latent diffusion's 2-D U-Net over every band, coordinated by frequency attention (section 4.2).

2-D layers map over the band axis with one set of parameters, an `nn.vmap` (`over_bands`); `FrequencyAttention` stands
between them and is the only place where bands meet. Without it (stage 1, or the "independent" ablation) bands are
separate.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gid_jax.errors import UserError
from gid_jax.models.layers import (
  Conv,
  Downsample,
  FrequencyAttention,
  GroupNorm,
  ResBlock,
  SpatialAttention,
  Upsample,
  over_bands,
  sinusoidal_embedding,
)
from gid_jax.models.operations import convolve
from gid_jax.models.transformer import SpatialTransformer
from gid_jax.parsing import look_up
from gid_jax.types import AnyArray

COORDINATIONS = {"attention": FrequencyAttention}


class UNet(nn.Module):
  """Predicts the noise (or v, or the clean latent) of K noisy latent slices.

  Attributes:
    channels: base channels (128 in the paper).
    multipliers: channel multiplier of each level, finest first ((1, 4, 8) in the paper).
    num_blocks: residual blocks a level.
    attention_levels: levels with spatial attention (0 is the finest).
    attention: "plain", or "transformer" for the blocks of text-conditioned latent diffusion, where a learned constant,
      the parameter `context`, stands in place of the prompt.
    head_channels: channels of an attention head.
    num_heads: heads of every attention, whatever its channels; by default the channels decide.
    context_tokens: tokens of the context.
    context_channels: channels of the context.
    out_channels: latent channels.
    coordination: what lets bands see each other after every block (stage 2): "attention" for `FrequencyAttention`,
      "module:Class" for a module with its call and its fields `num_heads`, `epsilon`, `groups` and `dtype`, or "" for
      nothing (stage 1).
    groups: group-norm groups.
    dtype: compute type, "float32" or "bfloat16"; parameters stay float32.
    remat: keep only the blocks' inputs for the gradient and compute the rest again: less memory, a third more work.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (1, 4, 8)
  num_blocks: int = 2
  attention_levels: tuple[int, ...] = (1, 2)
  attention: str = "plain"
  head_channels: int = 32
  num_heads: int | None = None
  context_tokens: int = 77
  context_channels: int = 768
  out_channels: int = 4
  coordination: str = "attention"
  groups: int = 32
  dtype: str = "float32"
  remat: bool = False

  # See `gid_jax.models.denoiser.Denoiser`.
  multiple: ClassVar[int] = 1
  output_layer: ClassVar[str] = "conv_out"
  coordination_path: ClassVar[str] = "frequency_attention"

  @property
  def favoured_multiple(self) -> int:
    """Sides of the latents that every level halves without remainder are multiples of it."""
    return 2 ** (len(self.multipliers) - 1)

  @nn.compact
  def __call__(
    self,
    latents: Float[AnyArray, "b k h w z"],
    timesteps: Int[AnyArray, "b k"],
    bands: Int[AnyArray, "b k"],
    condition: Float[AnyArray, "b h w d"],
  ) -> Float[Array, "b k h w z"]:
    """Denoises [b k h w z] at time steps [b k] for bands [b k], given image features [b h w d]; same shape out.

    h and w are free: a level with an odd side has half of it, rounded up, below.

    Raises:
      UserError: `attention` or `coordination` is unknown.
    """
    dtype = jnp.dtype(self.dtype)
    common = dict(epsilon=1e-5, groups=self.groups, dtype=dtype)
    keep = nn.remat if self.remat else lambda module: module
    res_block = keep(over_bands(ResBlock))

    def attend(x, name, spatial):
      heads = self.num_heads or max(1, x.shape[-1] // self.head_channels)
      if spatial and self.attention == "transformer":
        transformer = keep(over_bands(SpatialTransformer, in_axes=(1, None)))
        x = transformer(num_heads=heads, groups=self.groups, dtype=dtype, name=f"{name}_attention")(x, context)
      elif spatial:
        attention = keep(over_bands(SpatialAttention))
        x = attention(num_heads=heads, zero_out=True, name=f"{name}_attention", **common)(x)
      if self.coordination:
        coordinate = keep(look_up(self.coordination, COORDINATIONS, what="coordination"))
        x = coordinate(num_heads=heads, name=f"{name}_{self.coordination_path}", **common)(x, bands)
      return x

    context = None
    if self.attention == "transformer":
      # Small, so that the start is neutral, but not zero: tokens that are all alike would stay so.
      shape = (self.context_tokens, self.context_channels)
      context = self.param("context", nn.initializers.normal(0.02), shape, jnp.float32)
    elif self.attention != "plain":
      raise UserError(f"Unknown attention {self.attention!r} of the U-Net; use 'plain' or 'transformer'.")

    # The band's embedding stands beside the time step's, each through its own two-layer perceptron.
    def embed(positions, name):
      dense = functools.partial(nn.Dense, 4 * self.channels, dtype=dtype)
      hidden = dense(name=f"{name}_1")(sinusoidal_embedding(positions, self.channels).astype(dtype))
      return dense(name=f"{name}_2")(nn.silu(hidden))

    embedding = embed(timesteps, "time_embedding") + embed(bands, "frequency_embedding")

    x = _ConditionedConv(self.channels, dtype=dtype, name="conv_in")(latents, condition)
    skips = [x]
    for level, multiplier in enumerate(self.multipliers):
      for block in range(self.num_blocks):
        name = f"down{level}_block{block}"
        x = res_block(self.channels * multiplier, zero_out=True, name=name, **common)(x, embedding)
        x = attend(x, name, level in self.attention_levels)
        skips.append(x)
      if level < len(self.multipliers) - 1:
        x = over_bands(Downsample)(dtype=dtype, name=f"down{level}_downsample")(x)
        skips.append(x)

    width = self.channels * self.multipliers[-1]
    x = res_block(width, zero_out=True, name="middle_block0", **common)(x, embedding)
    x = attend(x, "middle", True)
    x = res_block(width, zero_out=True, name="middle_block1", **common)(x, embedding)

    for level, multiplier in reversed(list(enumerate(self.multipliers))):
      for block in range(self.num_blocks + 1):
        name = f"up{level}_block{block}"
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = res_block(self.channels * multiplier, zero_out=True, name=name, **common)(x, embedding)
        x = attend(x, name, level in self.attention_levels)
      if level > 0:
        x = over_bands(Upsample, in_axes=(1, None))(dtype=dtype, name=f"up{level}_upsample")(x, skips[-1].shape[2:4])

    x = over_bands(GroupNorm)(groups=self.groups, epsilon=1e-5, silu=True, name="norm_out")(x)
    conv = over_bands(Conv)
    x = conv(self.out_channels, kernel_init=nn.initializers.zeros, dtype=dtype, name="conv_out")(x)
    return x.astype(jnp.float32)


class _ConditionedConv(nn.Module):
  # A 3x3 convolution of latents [b k h w z] beside a condition [b h w d]; the condition's part is the same for all
  # bands and is done once.
  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, latents, condition):
    b, k, h, w, z = latents.shape
    shape = (3, 3, z + condition.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
    shared = convolve(condition.astype(self.dtype), kernel[:, :, z:]) + bias
    own = convolve(latents.astype(self.dtype).reshape(b * k, h, w, z), kernel[:, :, :z])
    return own.reshape(b, k, h, w, self.features) + shared[:, None]
