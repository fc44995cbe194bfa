"""The transformer block of text-conditioned latent diffusion, so that the motion U-Net can start from such weights.

Names and numbers follow the PyTorch originals (layer norm 1e-5, group norm 1e-6, exact GELU); `gid_jax.weights.convert`
maps the weights.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from gid_jax.models.layers import GroupNorm
from gid_jax.models.operations import dot_product_attention
from gid_jax.types import AnyArray


class _Attention(nn.Module):
  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, tokens, context):
    b, n, c = tokens.shape
    project = functools.partial(nn.Dense, c, dtype=self.dtype)
    split = lambda x, name: project(use_bias=False, name=name)(x).reshape(b, x.shape[1], self.num_heads, -1)
    query, key, value = split(tokens, "query"), split(context, "key"), split(context, "value")
    return project(name="out")(dot_product_attention(query, key, value).reshape(b, n, c))


class SpatialTransformer(nn.Module):
  """Self-attention over the pixels, attention to a context, and a gated feed-forward layer, as one residual.

  Attributes:
    num_heads: heads; the channels are split into them before q, k and v.
    groups: group-norm groups.
    dtype: compute type.
  """

  num_heads: int
  groups: int = 32
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"], context: Float[AnyArray, "n d"]) -> Float[AnyArray, "b h w c"]:
    """Maps [b h w c], with the same context tokens [n d] for the whole batch, to [b h w c]."""
    b, h, w, c = x.shape
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    norm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)
    attention = functools.partial(_Attention, self.num_heads, self.dtype)
    context = jnp.broadcast_to(context.astype(self.dtype), (b, *context.shape))

    tokens = GroupNorm(groups=self.groups, epsilon=1e-6, name="norm")(x)
    tokens = dense(c, name="proj_in")(tokens).reshape(b, h * w, c)
    normed = norm(name="norm1")(tokens)
    tokens = tokens + attention(name="self_attention")(normed, normed)
    tokens = tokens + attention(name="cross_attention")(norm(name="norm2")(tokens), context)
    hidden, gate = jnp.split(dense(8 * c, name="feed_forward_in")(norm(name="norm3")(tokens)), 2, axis=-1)
    tokens = tokens + dense(c, name="feed_forward_out")(hidden * jax.nn.gelu(gate, approximate=False))
    return x + dense(c, kernel_init=nn.initializers.zeros, name="proj_out")(tokens).reshape(b, h, w, c)
