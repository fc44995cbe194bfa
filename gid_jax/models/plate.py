"""What stands behind the moving things of a photo, invented once: a co-modulated inpainting network (Zhao et al. 2021).

  smooth    the holes closed from around them (`gid_jax.motion.fill`)
  encode    smooth photo and holes -> features from half the resolution down, with attention at the coarsest scale
  decode    coarse to fine, modulated by what the whole photo shows: a correction of the smooth filling
  plate     the photo where there is no hole, bit for bit; in holes smooth + correction

An untrained network corrects nothing. Nothing is drawn at random: without an adversarial term noise would be averaged
away, so the style is that of the content alone.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.models.encoders import resize_image
from gid_jax.models.layers import ResBlock, SpatialAttention
from gid_jax.models.renderer import ModulatedConv
from gid_jax.motion.fill import fill_smoothly
from gid_jax.types import AnyArray

_GROUPS = 4


@dataclasses.dataclass(frozen=True)
class PlateConfig:
  """Size of the plate network.

  Attributes:
    channels: features per scale, half the photo's resolution first; each further scale halves the sides.
    num_blocks: residual blocks per scale.
    style_dim: length of the style.
  """

  channels: tuple[int, ...] = (24, 48, 96, 128)
  num_blocks: int = 1
  style_dim: int = 64


class Plate(nn.Module):
  """Photo and holes to the photo without holes; any h and w."""

  config: PlateConfig = PlateConfig()

  @nn.compact
  def __call__(
    self, image: Float[AnyArray, "b h w 3"], hole: Float[AnyArray, "b h w 1"]
  ) -> Float[Array, "b h w 3"]:
    """Fills holes.

    Args:
      image: [b h w 3] RGB in [0, 1]; what is in the holes does not count.
      hole: [b h w 1], 1 in holes and 0 elsewhere.

    Returns:
      [b h w 3] `image`, holes filled; near [0, 1] there but not clipped, so that gradients pass.
    """
    smooth = jax.vmap(fill_smoothly)(image, hole)
    height, width = smooth.shape[1:3]
    x = _fold(jnp.concatenate([2.0 * smooth - 1.0, jnp.asarray(hole, jnp.float32)], axis=-1))
    pyramid = []
    for scale, channels in enumerate(self.config.channels):
      if scale == 0:
        x = nn.Conv(channels, (3, 3), name="stem")(x)
      else:
        x = resize_image(x, -(-x.shape[1] // 2), -(-x.shape[2] // 2))
      for block in range(self.config.num_blocks):
        x = ResBlock(channels, groups=_GROUPS, name=f"scale{scale}_block{block}")(x)
      pyramid.append(x)
    x = SpatialAttention(groups=_GROUPS, name="attention")(x)
    style = nn.leaky_relu(nn.Dense(self.config.style_dim, name="describe")(x.mean((1, 2))), 0.2)
    for scale in reversed(range(len(pyramid))):
      channels, features = self.config.channels[scale], pyramid[scale]
      x = nn.Conv(channels, (1, 1), name=f"narrow_{scale}")(x)
      rows, columns = features.shape[1:3]
      if x.shape[1:3] != (rows, columns):
        x = x.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
      x = jnp.concatenate([features, x], axis=-1)
      for conv in range(2):
        x = nn.leaky_relu(ModulatedConv(channels, name=f"scale{scale}_conv{conv}")(x, style), 0.2) * 2**0.5
    # From zero, so that training begins at the smooth filling.
    correction = nn.Conv(12, (3, 3), kernel_init=nn.initializers.zeros, name="correction")(x)
    correction = _unfold(correction)[:, :height, :width]
    return jnp.where(jnp.asarray(hole) > 0, smooth + correction, image)


def _fold(x: Array) -> Array:
  """Blocks of 2 x 2 pixels [b h w c] as the channels of one [b ceil(h/2) ceil(w/2) 4c]; odd sides are repeated."""
  _, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
  x = x.reshape(len(x), -(-h // 2), 2, -(-w // 2), 2, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), -(-h // 2), -(-w // 2), 4 * c)


def _unfold(x: Array) -> Array:
  """Undoes `_fold` of even sides: [b h w 4c] to [b 2h 2w c]."""
  b, h, w, c = x.shape
  return x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)
