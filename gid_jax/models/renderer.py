"""The image-based renderer: a photo and where its pixels go become a frame (section 5).

  features  P_i     = encode(image), a pyramid from full resolution down
  warp      P_i, I  -> softmax splat by the flow of that scale, weighted by W (mean motion magnitude)
  fill      holes of the warped photo take the next coarser warped photo, so no hole starts black
  decode    coarse to fine, co-modulated by fixed noise and the photo's content: a correction and a mask
  frame     = mask * warped photo + (1 - mask) * (filled photo + correction)

Nothing is drawn per frame: with one style vector a video does not flicker. In a video (`gid_jax.pipeline`) the photo
itself is gathered along the inverted motion, as splatted colours are soft; the network's frame takes the edges of
motion and the holes.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.models.encoders import resize_image
from gid_jax.models.layers import ResBlock
from gid_jax.models.resnet import ResNet34
from gid_jax.motion import spectral, splat
from gid_jax.types import AnyArray

SPLATS = ("motion", "linear", "average", "learned")
PYRAMIDS = ("residual", "resnet34")

# From this share of a pixel's area on, what has landed on it counts as the whole pixel.
_FULL_COVERAGE = 0.5
# Full resolution and the strides 2 ... 32 of its stages.
_RESNET_SCALES = 6
# Where the warped photo covers, an untrained renderer shows this much of it.
_INITIAL_MASK = 0.9


@dataclasses.dataclass(frozen=True)
class RendererConfig:
  """Size of the renderer.

  Attributes:
    channels: features per scale, full resolution first; each further scale halves the sides.
    pyramid: what the photo's features are: "residual", a small network of `channels`, or "resnet34", the stages of
      ResNet-34 (the paper) behind a convolution at full resolution; then `channels`, at most six, are the decoder's.
    num_blocks: residual blocks per scale of a residual pyramid.
    style_dim: length of the style noise and of each half of the style vector.
    mapping_layers: dense layers from noise to style.
    splat: what decides where pixels collide: "motion" (by exp(W), the paper), "linear" (by W, the supplement's
      equation 11), "average" (nothing) or "learned" (a depth read off the photo's features); the last two are ablations
      of Table 2.
  """

  channels: tuple[int, ...] = (16, 48, 96, 192)
  pyramid: str = "residual"
  num_blocks: int = 1
  style_dim: int = 64
  mapping_layers: int = 2
  splat: str = "motion"


@flax.struct.dataclass
class Rendering:
  """A frame and its ingredients.

  Attributes:
    rgb: [b h w 3] the frame; near [0, 1] but not clipped, so that gradients pass.
    synthesis: [b h w 3] what the network would show everywhere.
    mask: [b h w 1] weight of the warped photo in [0, 1], 0 in holes.
  """

  rgb: Float[Array, "b h w 3"]
  synthesis: Float[Array, "b h w 3"]
  mask: Float[Array, "b h w 1"]


class Renderer(nn.Module):
  """Feature pyramid, softmax splatting and a co-modulated synthesis decoder (section 5); any h and w.

  Raises:
    UserError: unknown `config.splat` or `config.pyramid`, or more scales than ResNet-34 has.
  """

  config: RendererConfig = RendererConfig()

  def setup(self):
    """Makes the networks."""
    for name, known in (("splat", SPLATS), ("pyramid", PYRAMIDS)):
      if getattr(self.config, name) not in known:
        found = getattr(self.config, name)
        raise UserError(f"config.model.renderer.{name} must be one of {', '.join(known)}, not {found!r}")
    if self.config.pyramid == "resnet34" and len(self.config.channels) > _RESNET_SCALES:
      raise UserError(f"config.model.renderer.channels: the pyramid resnet34 has {_RESNET_SCALES} scales at most")
    self.pyramid = FeaturePyramid(self.config)
    self.decoder = SynthesisDecoder(self.config)
    if self.config.splat == "learned":
      self.depth = nn.Conv(1, (3, 3))

  def encode(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Features of image [b h w 3] in [0, 1], scale i of [b ceil(h/2^i) ceil(w/2^i) c]."""
    return self.pyramid(image)

  def decode(
    self,
    image: Float[AnyArray, "b h w 3"],
    pyramid: tuple[Float[AnyArray, "b _ _ _"], ...],
    flow: Float[AnyArray, "b h w 2"],
    depth: Float[AnyArray, "b h w"],
    style_noise: Float[AnyArray, "b style_dim"],
  ) -> Rendering:
    """Renders the frame in which each pixel of `image` has moved by `flow`.

    Args:
      image: [b h w 3] RGB in [0, 1].
      pyramid: from `encode(image)`.
      flow: [b h w 2] displacement in pixels of this image.
      depth: [b h w] splatting weight W, mean motion magnitude in pixels of this image.
      style_noise: [b style_dim] standard normal, the same for all frames of a video.
    """
    if self.config.splat == "average":
      depth = jnp.zeros_like(depth)
    elif self.config.splat == "learned":
      depth = self.depth(pyramid[0])[..., 0]
    scales = warp_pyramid(image, pyramid, flow, depth, is_linear=self.config.splat == "linear")
    correction, logit = self.decoder(scales, pyramid[-1], style_noise)
    warped = scales[0].rgb
    mask = jax.nn.sigmoid(logit) * _cover(scales[0].mass)
    synthesis = fill_holes(scales, image) + correction
    return Rendering(mask * warped + (1 - mask) * synthesis, synthesis, mask)

  def __call__(
    self,
    image: Float[AnyArray, "b h w 3"],
    flow: Float[AnyArray, "b h w 2"],
    depth: Float[AnyArray, "b h w"],
    style_noise: Float[AnyArray, "b style_dim"],
  ) -> Rendering:
    """`encode` and `decode` in one, for training: image and flow [b h w c], the other arguments as in `decode`."""
    return self.decode(image, self.encode(image), flow, depth, style_noise)


@flax.struct.dataclass
class WarpedScale:
  """One scale after splatting: features [b h w c], photo [b h w 3], and the mass [b h w 1] that landed."""

  features: Float[Array, "b h w c"]
  rgb: Float[Array, "b h w 3"]
  mass: Float[Array, "b h w 1"]


def warp_pyramid(
  image: Float[AnyArray, "b h w 3"],
  pyramid: tuple[Float[AnyArray, "b _ _ _"], ...],
  flow: Float[AnyArray, "b h w 2"],
  depth: Float[AnyArray, "b h w"],
  *,
  is_linear: bool = False,
) -> tuple[WarpedScale, ...]:
  """Splats every scale of a pyramid, and the photo at that scale, by the flow in pixels of that scale.

  Shapes and units as in `Renderer.decode`: image [b h w 3], pyramid of [b hs ws cs], flow [b h w 2], depth [b h w].
  W is resized but keeps its unit: it only ranks what collides. With `is_linear` the weights are W instead of exp(W),
  and where W is 0 nothing lands.
  """
  warp = _splat_linearly if is_linear else splat.softmax_splat
  scales, rgb, weight = [], image, depth[..., None]
  for features in pyramid:
    height, width = features.shape[1:3]
    rgb, weight = resize_image(rgb, height, width), resize_image(weight, height, width)
    motion = spectral.resize_motion(flow, height, width)
    values = jnp.concatenate([features, rgb], axis=-1)
    warped, mass = jax.vmap(warp)(values, motion, weight[..., 0])
    scales.append(WarpedScale(warped[..., :-3], warped[..., -3:], mass))
  return tuple(scales)


def _splat_linearly(values, flow, depth):
  present = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
  warped, mass = splat.linear_splat(present, flow, depth)
  return warped[..., :-1], mass * warped[..., -1:]


def fill_holes(scales: tuple[WarpedScale, ...], image: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """The warped photo at full resolution [b h w 3], its holes filled from ever coarser scales.

  What is still empty at the coarsest scale takes the mean colour of `image` [b h w 3].
  """
  filled = jnp.mean(image, axis=(1, 2), keepdims=True)
  for scale in reversed(scales):
    cover = _cover(scale.mass)
    filled = cover * scale.rgb + (1 - cover) * resize_image(filled, *scale.rgb.shape[1:3])
  return filled


def _cover(mass: AnyArray) -> Array:
  return jnp.clip(mass / _FULL_COVERAGE, 0.0, 1.0)


class FeaturePyramid(nn.Module):
  """Feature pyramid of a photo; scale i has half the sides of scale i - 1, rounded up."""

  config: RendererConfig

  @nn.compact
  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Features of image [b h w 3] in [0, 1], scale i of [b ceil(h/2^i) ceil(w/2^i) c]."""
    x = nn.Conv(self.config.channels[0], (3, 3), name="stem")(2.0 * image - 1.0)
    if self.config.pyramid == "resnet34":
      features = ResNet34(name="resnet34").see(image)[: len(self.config.channels) - 1]
      return x, *(_centre(map_, *image.shape[1:3], stride=2**scale) for scale, map_ in enumerate(features, start=1))
    pyramid = []
    for scale, channels in enumerate(self.config.channels):
      if scale > 0:
        # A resize keeps pixel centres where the flow of that scale has them; a strided convolution shifts them.
        x = resize_image(x, -(-x.shape[1] // 2), -(-x.shape[2] // 2))
      for block in range(self.config.num_blocks):
        x = ResBlock(channels, groups=4, name=f"scale{scale}_block{block}")(x)
      pyramid.append(x)
    return tuple(pyramid)


def _centre(features, height, width, *, stride):
  """Features [b h w c] of every `stride`-th pixel of an image, brought to the centres of as many cells that cover it.

  Bilinear; what lies behind the last pixel repeats it. The flow of that scale is of the cells' centres.
  """
  rows, columns = features.shape[1:3]
  scale = np.array([stride * rows / height, stride * columns / width])
  shift = (np.array([rows / height, columns / width]) - scale) / 2
  return jax.image.scale_and_translate(
    features, features.shape, (1, 2), jnp.float32(scale), jnp.float32(shift), "linear", antialias=False
  )


class SynthesisDecoder(nn.Module):
  """Coarse-to-fine modulated convolutions over the warped features (Zhao et al. 2021, co-modulation)."""

  config: RendererConfig

  @nn.compact
  def __call__(
    self,
    scales: tuple[WarpedScale, ...],
    content: Float[AnyArray, "b hs ws c"],
    style_noise: Float[AnyArray, "b style_dim"],
  ) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 1"]]:
    """Colour correction [b h w 3] and mask logit [b h w 1].

    Args:
      scales: from `warp_pyramid`.
      content: [b hs ws c] coarsest features before warping, the same for all frames of a video.
      style_noise: [b style_dim] standard normal.
    """
    style_dim = self.config.style_dim
    mapped = style_noise * jax.lax.rsqrt(jnp.mean(style_noise**2, axis=-1, keepdims=True) + 1e-8)
    for layer in range(self.config.mapping_layers):
      mapped = _activate(nn.Dense(style_dim, name=f"mapping_{layer}")(mapped))
    described = _activate(nn.Dense(style_dim, name="describe")(jnp.mean(content, axis=(1, 2))))
    style = jnp.concatenate([mapped, described], axis=-1)

    x = None
    for index in reversed(range(len(scales))):
      scale, channels = scales[index], self.config.channels[index]
      inputs = [scale.features, scale.rgb, jnp.clip(scale.mass, 0.0, 1.0)]
      if x is not None:
        x = nn.Conv(channels, (1, 1), name=f"narrow_{index}")(x)
        inputs.append(_double(x, *scale.rgb.shape[1:3]))
      x = jnp.concatenate(inputs, axis=-1)
      for conv in range(2):
        x = _activate(ModulatedConv(channels, name=f"scale{index}_conv{conv}")(x, style))
    # Small but not zero: the first step already has a gradient for every layer below.
    small = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")
    output = nn.Conv(3, (1, 1), kernel_init=small, name="correction")(x)
    start = nn.initializers.constant(jax.scipy.special.logit(_INITIAL_MASK))
    # Exact on accelerators too: where a photo rests, nothing else decides how much of it is kept.
    exact = jax.lax.Precision.HIGHEST
    return output, nn.Conv(1, (1, 1), kernel_init=small, bias_init=start, precision=exact, name="mask")(x)


class ModulatedConv(nn.Module):
  """3x3 convolution whose input channels are scaled by a style and whose outputs are brought back to unit size.

  Scaling the activations instead of the kernel gives the same numbers with one kernel for the whole batch.
  """

  channels: int

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"], style: Float[AnyArray, "b d"]) -> Float[Array, "b h w channels"]:
    """Filters x [b h w c] under style [b d] to [b h w channels]."""
    scale = nn.Dense(x.shape[-1], bias_init=nn.initializers.ones, name="style")(style)
    shape = (3, 3, x.shape[-1], self.channels)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.channels,))
    y = jax.lax.conv_general_dilated(
      jnp.asarray(x) * scale[:, None, None, :], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    demodulation = jax.lax.rsqrt(scale**2 @ jnp.sum(kernel**2, axis=(0, 1)) + 1e-8)
    return y * demodulation[:, None, None, :] + bias


def _activate(x: AnyArray) -> Array:
  return nn.leaky_relu(x, 0.2) * 2**0.5


def _double(x: Array, height: int, width: int) -> Array:
  """Repeats every pixel of [b h w c] 2 x 2 times and crops to height x width."""
  return x.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
