"""Parts that somebody could write outside the package: a transformer, another coordination, features, a codec."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gid_jax.models.codec import PaperCodec
from gid_jax.models.encoders import resize_image
from gid_jax.models.layers import sinusoidal_embedding


class DiT(nn.Module):
  """A small diffusion transformer over patches of 2 x 2 latent pixels; bands meet in an attention of their own."""

  out_channels: int = 4
  channels: int = 16
  depth: int = 1
  coordinated: bool = True

  multiple: ClassVar[int] = 2
  favoured_multiple: ClassVar[int] = 2
  output_layer: ClassVar[str] = "head"
  coordination_path: ClassVar[str] = "across_bands"

  @nn.compact
  def __call__(self, latents, timesteps, bands, condition):
    b, k, h, w, _ = latents.shape
    seen = jnp.broadcast_to(condition[:, None], (b, k, *condition.shape[1:]))
    patches = jnp.concatenate([latents, seen], -1).reshape(b, k, h // 2, 2, w // 2, 2, -1)
    tokens = patches.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, k, h * w // 4, -1)
    embed = lambda positions: sinusoidal_embedding(positions, self.channels)[:, :, None]
    tokens = nn.Dense(self.channels, name="patch")(tokens) + embed(timesteps) + embed(bands)
    for index in range(self.depth):
      tokens += nn.MultiHeadDotProductAttention(2, name=f"block{index}")(nn.LayerNorm()(tokens))
      if self.coordinated:
        turned = tokens.transpose(0, 2, 1, 3)
        zeros = dict(out_kernel_init=nn.initializers.zeros)
        tokens += nn.MultiHeadDotProductAttention(2, name=f"across_bands{index}", **zeros)(turned).transpose(0, 2, 1, 3)
    output = nn.Dense(4 * self.out_channels, kernel_init=nn.initializers.zeros, name="head")(tokens)
    output = output.reshape(b, k, h // 2, w // 2, 2, 2, self.out_channels)
    return output.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, k, h, w, self.out_channels)


class Perceptron(nn.Module):
  """Each place for itself, in three layers: compiled in a moment, for tests in which the model does not matter."""

  out_channels: int = 4
  channels: int = 16

  multiple: ClassVar[int] = 1
  favoured_multiple: ClassVar[int] = 1
  output_layer: ClassVar[str] = "out"
  coordination_path: ClassVar[str] = "across_bands"

  @nn.compact
  def __call__(self, latents, timesteps, bands, condition):
    seen = jnp.broadcast_to(condition[:, None], (*latents.shape[:-1], condition.shape[-1]))
    embed = lambda positions: sinusoidal_embedding(positions, self.channels)[:, :, None, None]
    hidden = nn.Dense(self.channels, name="in")(jnp.concatenate([latents, seen], -1)) + embed(timesteps) + embed(bands)
    hidden = nn.Dense(self.channels, name="hidden")(nn.gelu(hidden))
    return nn.Dense(self.out_channels, name="out")(nn.gelu(hidden))


class MeanOverBands(nn.Module):
  """Tells every band the mean of all of them."""

  num_heads: int
  epsilon: float
  groups: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, bands):
    mean = jnp.broadcast_to(x.mean(axis=1, keepdims=True), x.shape)
    return x + nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="out")(mean)


class Glance(nn.Module):
  """An image encoder of one layer."""

  channels: int = 4

  trunks: ClassVar[tuple[str, ...]] = ()

  @nn.compact
  def __call__(self, image, *, height, width):
    return nn.Dense(self.channels, name="out")(resize_image(image, height, width)), None


class Edges(nn.Module):
  """Two maps of image gradients, as a frozen network might give them."""

  widths: ClassVar[tuple[int, ...]] = (3, 1)
  deviations: ClassVar[tuple[float, ...]] = (0.5, 2.0)

  @staticmethod
  def read(path):
    """Nothing but a gain."""
    return {"gain": jnp.full((1,), float(path))}

  @nn.compact
  def __call__(self, image):
    gain = self.param("gain", nn.initializers.ones, (1,))
    steps = gain * jnp.diff(image, axis=1, append=image[:, -1:])
    return steps, steps.mean(-1, keepdims=True)[:, ::2, ::2]


class Still(Edges):
  """Another one with a name of its own."""


class CornerCodec(nn.Module):
  """Every other pixel in units of 10 px: nothing to train, to measure or to see."""

  num_bands: int
  step: int = 2

  latent_channels = 4
  is_trained = False
  needs_photo = False

  @property
  def factor(self):
    return self.step

  def see(self, features):
    return None

  def slices_to_latents(self, slices, bands, *, swing=None, strength=None):
    return slices[:, :, :: self.step, :: self.step] / 10

  def latents_to_slices(self, latents, bands, *, swing=None, evenness=0.0):
    return 10 * latents.repeat(self.step, 2).repeat(self.step, 3)

  def latents_to_motion(self, latents, *, swing=None, evenness=0.0):
    return self.latents_to_slices(latents, None)


class HalfCodec(PaperCodec):
  """The paper's codec, of half the motion."""

  def slices_to_latents(self, slices, bands, *, swing=None, strength=None):
    return super().slices_to_latents(slices / 2, bands, swing=swing, strength=strength)

  def latents_to_slices(self, latents, bands, *, swing=None, evenness=0.0):
    return 2 * super().latents_to_slices(latents, bands, swing=swing, evenness=evenness)


def colourfulness(rendered):
  """A term of one's own for the renderer: how far its frames are from grey."""
  return jnp.abs(rendered.rendering.rgb - rendered.rendering.rgb.mean(-1, keepdims=True)).mean()


def loudness(denoised):
  """A term of one's own for the denoiser."""
  return jnp.square(jax.lax.stop_gradient(denoised.noisy)).mean() + jnp.square(denoised.output).mean()
