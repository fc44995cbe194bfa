"""Building blocks shared by the auto-encoder, the U-Net and the renderer.

Padding, normalisation and attention follow the PyTorch latent-diffusion originals to the letter (stride-2 padding,
epsilons, heads split before q/k/v), so that converted weights give the same numbers.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gid_jax.models.operations import SYMMETRIC, convolve, convolve_repeated, dot_product_attention, group_norm
from gid_jax.types import AnyArray

BOTTOM_RIGHT = ((0, 1), (0, 1))  # how the latent-diffusion auto-encoder pads before a stride-2 convolution
MAP_BANDS = "join"  # or "vmap": how `over_bands` maps


def sinusoidal_embedding(
  positions: Float[AnyArray, "*b"] | Int[AnyArray, "*b"], dim: int, *, max_period: float = 10000.0
) -> Float[Array, "*b d"]:
  """Embeds positions [*b] as [*b dim], all cosines and then all sines (latent-diffusion's time-step embedding)."""
  half = dim // 2
  rates = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
  angles = positions.astype(jnp.float32)[..., None] * rates
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def over_bands(module: type[nn.Module], *, in_axes: int | tuple[int | None, ...] = 1) -> type[nn.Module]:
  """Maps a module of [b h w c] over the bands of [b k h w c], one set of parameters for all: `nn.vmap` over axis 1.

  `MAP_BANDS` says how: "vmap" is `nn.vmap` itself, "join" the same numbers and parameters by `_join_bands`.

  Args:
    module: a module class.
    in_axes: 1 for what carries the band axis and None for what is the same for all bands; for all arguments of the
      call or each.
  """
  if MAP_BANDS == "join":
    return _join_bands(module, in_axes)
  axes: Any = in_axes  # Flax knows a tuple too, its annotation does not
  return nn.vmap(module, in_axes=axes, out_axes=1, variable_axes={"params": None}, split_rngs={"params": False})


def _join_bands(module, in_axes):
  # Bands join the batch behind their example. `nn.vmap` puts them before it, and a batch that is split over devices
  # would be gathered on every one of them for each convolution; and under it every custom gradient would make a
  # kernel's slope for each band before summing them.
  class OverBands(module):
    @nn.compact
    def __call__(self, *inputs):
      axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(inputs)
      b, k = inputs[axes.index(1)].shape[:2]
      join = lambda x, axis: x if axis is None else x.reshape(b * k, *x.shape[2:])
      output = super().__call__(*map(join, inputs, axes))
      return output.reshape(b, k, *output.shape[1:])

  OverBands.__name__ = module.__name__
  return OverBands


class _ScaleAndBias(nn.Module):
  @nn.compact
  def __call__(self, channels):
    scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
    return scale, self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)


class GroupNorm(nn.Module):
  """Group normalisation of [b ... c] in float32; `groups` falls to the largest divisor of the channels below it.

  Attributes:
    groups: groups of channels.
    epsilon: added to the variance.
    silu: apply SiLU to the result.
  """

  groups: int = 32
  epsilon: float = 1e-6
  silu: bool = False

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b *n c"]) -> Float[Array, "b *n c"]:
    """Normalises [b ... c] over everything but the batch, group by group of channels."""
    channels = x.shape[-1]
    groups = max(g for g in range(1, min(self.groups, channels) + 1) if channels % g == 0)
    scale, bias = _ScaleAndBias(name="GroupNorm_0")(channels)
    return group_norm(x, scale, bias, groups, self.epsilon, self.silu)


class Conv(nn.Module):
  """Convolution that keeps the size, with the parameters of `nn.Conv`.

  Attributes:
    features: output channels.
    size: of the kernel, 3 or 1.
    kernel_init: initialiser of the kernel.
    dtype: compute type.
  """

  features: int
  size: int = 3
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h w c2"]:
    """Maps [b h w c] to [b h w features]."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    x, kernel, bias = x.astype(self.dtype), kernel.astype(self.dtype), bias.astype(self.dtype)
    return (x @ kernel[0, 0] if self.size == 1 else convolve(x, kernel)) + bias


class ResBlock(nn.Module):
  """Residual block of two 3x3 convolutions; the embedding, when given, is added between them.

  Attributes:
    channels: output channels.
    epsilon: of the group norms (1e-5 in the U-Net, 1e-6 in the auto-encoder).
    groups: group-norm groups.
    zero_out: start the second convolution at zero, so that the block starts as its shortcut.
    dtype: compute type.
  """

  channels: int
  epsilon: float = 1e-6
  groups: int = 32
  zero_out: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[AnyArray, "b h w c"], embedding: Float[AnyArray, "b d"] | None = None
  ) -> Float[AnyArray, "b h w c2"]:
    """Maps [b h w c], with an optional embedding [b d], to [b h w channels]."""
    norm = functools.partial(GroupNorm, groups=self.groups, epsilon=self.epsilon, silu=True)
    conv = functools.partial(Conv, self.channels, dtype=self.dtype)
    hidden = conv(name="conv1")(norm(name="norm1")(x))
    if embedding is not None:
      shift = nn.Dense(self.channels, dtype=self.dtype, name="embedding")(nn.silu(embedding))
      hidden = hidden + shift[:, None, None, :]
    kernel_init = nn.initializers.zeros if self.zero_out else nn.initializers.lecun_normal()
    hidden = conv(name="conv2", kernel_init=kernel_init)(norm(name="norm2")(hidden))
    if x.shape[-1] != self.channels:
      x = conv(size=1, name="shortcut")(x)
    return x + hidden


class SpatialAttention(nn.Module):
  """Self-attention over the pixels of one image, as a residual.

  Attributes:
    num_heads: heads; the channels are split into them before q, k and v.
    epsilon: of the group norm.
    groups: group-norm groups.
    zero_out: start the output projection at zero.
    query_chunk: queries handled at once (see `dot_product_attention`).
    dtype: compute type.
  """

  num_heads: int = 1
  epsilon: float = 1e-6
  groups: int = 32
  zero_out: bool = False
  query_chunk: int = 128
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h w c"]:
    """Maps [b h w c] to [b h w c]."""
    b, h, w, c = x.shape
    tokens = GroupNorm(groups=self.groups, epsilon=self.epsilon, name="norm")(x).reshape(b, h * w, c)
    project = functools.partial(nn.Dense, c, dtype=self.dtype)
    split = lambda name: project(name=name)(tokens).reshape(b, h * w, self.num_heads, c // self.num_heads)
    attended = dot_product_attention(split("query"), split("key"), split("value"), query_chunk=self.query_chunk)
    kernel_init = nn.initializers.zeros if self.zero_out else nn.initializers.lecun_normal()
    return x + project(name="out", kernel_init=kernel_init)(attended.reshape(b, h * w, c)).reshape(b, h, w, c)


class FrequencyAttention(nn.Module):
  """Attention across the frequency bands at every pixel: the coordination of section 4.2.

  Each pixel sees its own K tokens, one a band, with learned relative positions on keys and values. Only the output
  projection starts at zero, so that stage 2 begins as stage 1 and every other parameter learns from the second step on.

  Attributes:
    max_distance: largest band distance with an embedding of its own; farther ones share the last.
    num_heads: heads.
    epsilon: of the group norm.
    groups: group-norm groups.
    dtype: compute type.
  """

  max_distance: int = 23
  num_heads: int = 4
  epsilon: float = 1e-5
  groups: int = 32
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b k h w c"], bands: Int[AnyArray, "b k"]) -> Float[AnyArray, "b k h w c"]:
    """Maps [b k h w c] with the band of every slice, [b k], to [b k h w c]."""
    b, k, h, w, c = x.shape
    head_dim = c // self.num_heads
    tokens = over_bands(GroupNorm)(groups=self.groups, epsilon=self.epsilon, name="norm")(x)
    tokens = tokens.transpose(0, 2, 3, 1, 4).reshape(b, h * w, k, c)
    split = lambda name: nn.Dense(c, dtype=self.dtype, name=name)(tokens).reshape(b, h * w, k, self.num_heads, head_dim)
    query, key, value = split("query"), split("key"), split("value")

    distance = jnp.clip(bands[:, :, None] - bands[:, None, :], -self.max_distance, self.max_distance)
    table = lambda name: self.param(
      name, nn.initializers.normal(head_dim**-0.5), (2 * self.max_distance + 1, head_dim), jnp.float32
    ).astype(self.dtype)[distance + self.max_distance]
    relative_key, relative_value = table("relative_key"), table("relative_value")  # [b k k d]

    einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits = einsum("bpqnd,bprnd->bpnqr", query, key) + einsum("bpqnd,bqrd->bpnqr", query, relative_key)
    weights = jax.nn.softmax(logits * head_dim**-0.5, axis=-1).astype(self.dtype)
    attended = einsum("bpnqr,bprnd->bpqnd", weights, value) + einsum("bpnqr,bqrd->bpqnd", weights, relative_value)
    attended = nn.Dense(c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(
      attended.astype(self.dtype).reshape(b, h * w, k, c)
    )
    return x + attended.reshape(b, h, w, k, c).transpose(0, 3, 1, 2, 4)


class Downsample(nn.Module):
  """Halves the resolution, rounding up, with a strided 3x3 convolution: [b h w c] -> [b h/2 w/2 c]."""

  padding: tuple = SYMMETRIC
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maps [b h w c] to [b h/2 w/2 c]."""
    return nn.Conv(x.shape[-1], (3, 3), strides=2, padding=self.padding, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
  """Doubles the resolution by repetition and a 3x3 convolution: [b h w c] -> [b 2h 2w c]."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"], size: tuple[int, int] | None = None) -> Float[Array, "b h2 w2 c"]:
    """Maps [b h w c] to [b 2h 2w c], or to `size`, the repeated pixels being cropped to it at the bottom and right."""
    conv = _UpsampledConv(x.shape[-1], dtype=self.dtype, name="conv")
    return conv(x, size or (2 * x.shape[1], 2 * x.shape[2]))


class _UpsampledConv(nn.Module):
  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x, size):
    h, w, c = x.shape[1:]
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, c, self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    x, kernel, bias = x.astype(self.dtype), kernel.astype(self.dtype), bias.astype(self.dtype)
    if size == (2 * h, 2 * w):
      return convolve_repeated(x, kernel) + bias
    return convolve(x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]], kernel) + bias
