"""Image encoders: a photo becomes the condition channels of the diffusion U-Net (section 4).

The paper's is a small residual network trained from scratch. Ours reads a photo with frozen networks, so that little
motion data goes further, and trains only the head that turns their features into condition channels. The frozen
parameters live in the tree under names that begin with `frozen_trunk`: an optimiser masks them by that, and an export
carries them along.

The same frozen features tell `SwingHead` how far each place is likely to swing.
"""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.models.layers import GroupNorm, ResBlock
from gid_jax.models.tensor_files import read_tensors, take_tensor
from gid_jax.models.vit import DINOv2ViTS14
from gid_jax.motion.resize import resize
from gid_jax.parsing import Part, make_part, suggest
from gid_jax.types import AnyArray

FROZEN_TRUNK = "frozen_trunk"
_NETWORK = "EfficientNet-Lite0"

# EfficientNet-Lite0, one row a stage: (blocks, kernel, stride of the first block, expansion, channels).
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
# The last stage at each of the strides 2, 4, 8, 16, 32.
_FEATURE_STAGES = (0, 1, 2, 4, 6)
# Natural logarithms that the swing within a photo is held to, so that an odd photo gives no absurd motion.
SWING_RANGE = (-3.0, 2.0)
_STEM_CHANNELS = 32
_BATCH_NORM_EPS = 1e-3
_NUM_GROUPS = 4


class DepthwiseConv(nn.Module):
  """Depthwise convolution with TensorFlow's "SAME" padding, as a sum of shifted products.

  XLA on a CPU runs a convolution of one channel a group about thirty times slower than this sum.
  """

  kernel_size: int
  stride: int

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Filters x [b h w c], channel by channel, to [b ceil(h/stride) ceil(w/stride) c]."""
    size, stride = self.kernel_size, self.stride
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, x.shape[-1]))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    spans = [(-(-length // stride) - 1) * stride + 1 for length in x.shape[1:3]]
    total = [max(span + size - 1 - length, 0) for span, length in zip(spans, x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in total), (0, 0)))
    shifted = lambda row, column: x[:, row : row + spans[0] : stride, column : column + spans[1] : stride]
    products = (shifted(i, j) * kernel[i, j, 0] for i in range(size) for j in range(size))
    return sum(products, start=bias)


class InvertedResidual(nn.Module):
  """Expand 1x1, depthwise, project 1x1; the batch normalisation is already part of kernel and bias."""

  kernel_size: int
  stride: int
  expansion: int
  channels: int

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h2 w2 d"]:
    """Filters x [b h w c] to [b ceil(h/stride) ceil(w/stride) channels]."""
    inputs, width = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      x = nn.relu6(nn.Conv(width, (1, 1), name="expand")(x))
    x = DepthwiseConv(self.kernel_size, self.stride, name="depthwise")(x)
    x = nn.Conv(self.channels, (1, 1), name="project")(nn.relu6(x))
    return x + inputs if x.shape == inputs.shape else x


class EfficientNetLite0(nn.Module):
  """EfficientNet-Lite0 without its classifier (Tan and Le 2019, Lite variant).

  Convolutions pad like TensorFlow's "SAME": with the public weights that gives surer ImageNet classes than
  PyTorch's symmetric padding.
  """

  widths: ClassVar[tuple[int, ...]] = (16, 24, 40, 112, 320)
  # Measured once, on photographs.
  deviations: ClassVar[tuple[float, ...]] = (6.8, 8.6, 7.3, 5.8, 2.4)

  @staticmethod
  def read(path: str) -> dict:
    """Parameters from a PyTorch file; see `efficientnet_lite0_params`."""
    return efficientnet_lite0_params(path)

  @nn.compact
  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Returns the features of image [b h w 3], RGB in [0, 1], at strides 2, 4, 8, 16 and 32.

    Channels are 16, 24, 40, 112, 320; the size at stride s is ceil(h/s) x ceil(w/s).
    """
    x = (255.0 * image - 127.0) / 128.0
    x = nn.relu6(nn.Conv(_STEM_CHANNELS, (3, 3), (2, 2), name="stem")(x))
    features, index = [], 0
    for stage, (num_blocks, kernel_size, stride, expansion, channels) in enumerate(_STAGES):
      for block in range(num_blocks):
        block_stride = stride if block == 0 else 1
        x = InvertedResidual(kernel_size, block_stride, expansion, channels, name=f"block_{index}")(x)
        index += 1
      if stage in _FEATURE_STAGES:
        features.append(x)
    return tuple(features)


def efficientnet_lite0_params(path: str | pathlib.Path) -> dict:
  """Reads PyTorch EfficientNet-Lite0 weights as the parameters of `EfficientNetLite0`.

  Args:
    path: safetensors file with `_conv_stem`, `_blocks.N._*_conv`, `_bn*` tensors; a classifier is ignored.
  Returns:
    {"stem": {"kernel" HWIO, "bias"}, "block_0": {...}, ...} float32, batch norms folded in.
  Raises:
    UserError: the file cannot be read or a tensor is missing or has another shape.
  """
  return fold_efficientnet_lite0(read_tensors(path, network=_NETWORK), source=str(path))


def fold_efficientnet_lite0(tensors: Mapping[str, np.ndarray], *, source: str) -> dict:
  """Converts named PyTorch tensors to the parameters of `EfficientNetLite0`; `source` is named in errors."""

  def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return take_tensor(tensors, name, shape, source=source, network=_NETWORK)

  def fold(conv: str, norm: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    weight = read(f"{conv}.weight", shape)
    gamma, beta, mean, variance = (
      read(f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + _BATCH_NORM_EPS)
    # OIHW -> HWIO; a depthwise kernel is (C, 1, k, k) -> (k, k, 1, C), what feature_group_count expects.
    return {"kernel": weight.transpose(2, 3, 1, 0) * scale, "bias": beta - mean * scale}

  params: dict = {"stem": fold("_conv_stem", "_bn0", (_STEM_CHANNELS, 3, 3, 3))}
  index, previous = 0, _STEM_CHANNELS
  for num_blocks, kernel_size, _, expansion, channels in _STAGES:
    for _ in range(num_blocks):
      name, width = f"_blocks.{index}", previous * expansion
      block = {}
      if expansion > 1:
        block["expand"] = fold(f"{name}._expand_conv", f"{name}._bn0", (width, previous, 1, 1))
      depthwise = (width, 1, kernel_size, kernel_size)
      block["depthwise"] = fold(f"{name}._depthwise_conv", f"{name}._bn1", depthwise)
      block["project"] = fold(f"{name}._project_conv", f"{name}._bn2", (channels, width, 1, 1))
      params[f"block_{index}"] = block
      index, previous = index + 1, channels
  return params


class Trunk(Protocol):
  """A frozen image network whose features the encoder reads; a Linen module whose fields, if any, have defaults.

  Attributes:
    widths: channels of its feature maps.
    deviations: standard deviation of each map on photographs, which brings them to one scale.
  """

  @property
  def widths(self) -> tuple[int, ...]:
    """See above; a class attribute does as well."""
    ...

  @property
  def deviations(self) -> tuple[float, ...]:
    """See above."""
    ...

  @staticmethod
  def read(path: str) -> dict:
    """Parameters from a file that a user names by `config.init.encoder`, which has one for each trunk."""
    ...

  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Feature maps of images [b h w 3], RGB in [0, 1]."""
    ...


TRUNKS = {"efficientnet_lite0": EfficientNetLite0, "dinov2_vits14": DINOv2ViTS14}


class ConditionEncoder(nn.Module):
  """Turns a photo into condition channels on the latent grid of the motion (section 4, supplement).

  Attributes:
    channels: condition channels, 16 in the paper.
    hidden: width of the trained layers on the latent grid.
    trunks: frozen networks, names of `TRUNKS` or "module:Class", whose features are seen side by side; with none a
      residual network is trained from scratch, as in the paper.
    trunk_fields: one of `trunks` -> its fields that differ from their defaults.

  Raises:
    UserError: a frozen network does not exist, has no such field, or has the name of another.
  """

  channels: int
  hidden: int
  trunks: tuple[str, ...] = ()
  trunk_fields: Mapping[str, Any] = FrozenDict()

  def setup(self):
    names = [name_trunk(kind) for kind in self.trunks]
    if len(set(names)) < len(names):
      raise UserError(f"config.model.encoder.trunks={self.trunks}: two have the same name; rename one's class")
    for kind in self.trunk_fields:
      if kind not in self.trunks:
        known = suggest(kind, self.trunks) if self.trunks else ""
        raise UserError(f"config.model.encoder.trunk_fields.{kind}: the trunks have no such name{known}")
    parts = [Part(kind, self.trunk_fields.get(kind, FrozenDict())) for kind in self.trunks]
    self.frozen_trunk = {name_trunk(part.kind): make_part(part, TRUNKS, what="image encoder") for part in parts}

  def see(self, image: Float[AnyArray, "b h w 3"], *, height: int, width: int) -> Float[Array, "b height width c"]:
    """The features of all frozen networks of image [b h w 3], RGB in [0, 1], on a grid [b height width c]."""
    seen = []
    for trunk in self.frozen_trunk.values():
      maps = trunk(image.astype(jnp.float32))
      # Resizing is linear, so it may come before any projection; down-sampled first, the wide maps cost little.
      scaled = (jax.lax.stop_gradient(x) / deviation for x, deviation in zip(maps, trunk.deviations, strict=True))
      seen += [resize_image(x, height, width) for x in scaled]
    return jnp.concatenate(seen, axis=-1)

  @nn.compact
  def __call__(
    self, image: Float[AnyArray, "b h w 3"], *, height: int, width: int
  ) -> tuple[Float[Array, "b height width channels"], Float[Array, "b height width c"] | None]:
    """Encodes image [b h w 3], RGB in [0, 1], as [b height width channels] float32 without a fixed range.

    For the residual network the number of stride-2 stages, and so the parameters, follow from log2(h / height).

    Returns:
      The condition, and the frozen features [b height width c] that it was made of; None without frozen networks.
    """
    image, features = image.astype(jnp.float32), None
    if self.trunks:
      x, features = self._project(image, height, width)
    else:
      x = self._resnet(image, height, width)
    for index in range(2):
      x = ResBlock(self.hidden, groups=_NUM_GROUPS, name=f"block_{index}")(x)
    x = nn.silu(GroupNorm(groups=_NUM_GROUPS, name="norm")(x))
    return nn.Conv(self.channels, (1, 1), name="out")(x), features

  def _resnet(self, image: AnyArray, height: int, width: int) -> AnyArray:
    num_stages = max(0, round(math.log2(image.shape[1] / height)))
    widths = [max(8, self.hidden >> (num_stages - stage)) for stage in range(num_stages + 1)]
    x = nn.Conv(widths[0], (3, 3), name="stem")(2.0 * image - 1.0)
    for stage, channels in enumerate(widths[1:]):
      x = nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
      x = ResBlock(channels, groups=_NUM_GROUPS, name=f"stage_{stage}")(x)
    return resize_image(x, height, width)

  def _project(self, image: AnyArray, height: int, width: int) -> tuple[Array, Array]:
    features = self.see(image, height=height, width=width)
    ends = np.cumsum([width for trunk in self.frozen_trunk.values() for width in trunk.widths])[:-1]
    projected = nn.Conv(self.hidden, (3, 3), name="project_image")(resize_image(2.0 * image - 1.0, height, width))
    for index, feature in enumerate(jnp.split(features, ends, axis=-1)):
      projected += nn.Conv(self.hidden, (1, 1), name=f"project_{index}")(feature)
    return projected, features


ENCODERS = {"condition": ConditionEncoder}


def make_encoder(part: Part) -> Any:
  """The image encoder of a config's `encoder` part, without a parent.

  Another one is a Linen module with the call, `see` and `trunks` of `ConditionEncoder`.

  Raises:
    UserError: nothing has this name, or it has no such setting.
  """
  return make_part(part, ENCODERS, what="image encoder", parent=None)


def name_trunk(kind: str) -> str:
  """Under which name, after `FROZEN_TRUNK`, the parameters of a frozen network stand."""
  return kind.rpartition(":")[2]


def combine_odds(odds: Float[AnyArray, "b h w"]) -> Float[Array, "b h w"]:
  """Log odds [b h w] that places move: of each by itself, and for three tenths of the photo's surest tenth.

  A leaf that looks odd is among leaves, and a rock that looks like a leaf is among rocks.
  """
  surest = jnp.percentile(odds, 90, axis=(1, 2), keepdims=True)
  return 0.7 * jnp.asarray(odds) + 0.3 * surest


class SwingHead(nn.Module):
  """Frozen image features to how far each place is likely to swing; `gid_jax.training.swing` fits it.

  What moves more or less within a photo is linear in the features less their mean over the photo: the logarithm of the
  swing and a little more, `faint`, which flow cannot tell from rest and which is taken off again. It is relative to the
  place that 5 % of the photo exceed, as the strength of windows is (`gid_jax.data.examples.measure_strength`): how
  strongly things move has nothing to do with how little beside them does. Whether a place is of a thing that moves at
  all, as leaves are and rock is not, is a logistic function, see `combine_odds`: it lowers the place by up to `depth`.
  """

  @nn.compact
  def __call__(self, features: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w"]:
    """Features [b h w c] to the natural logarithm [b h w] of the swing, 0 where 5 % of a moving photo swing more."""
    channels = features.shape[-1]
    kernel = self.param("kernel", nn.initializers.zeros, (channels,))
    gate = self.param("gate", nn.initializers.zeros, (channels,))
    bias = self.param("gate_bias", nn.initializers.zeros, (1,))
    depth = self.param("depth", nn.initializers.zeros, (1,))
    faint = self.param("faint", nn.initializers.zeros, (1,))
    mean = features.mean(axis=(1, 2), keepdims=True)
    # The fit is exact, and hundreds of products add up; the default would round them on accelerators.
    project = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    is_moving = jax.nn.sigmoid(combine_odds(project(features, gate) + bias))
    swing = (jnp.exp(jnp.minimum(project(features - mean, kernel), SWING_RANGE[1])) - faint) / (1 - faint)
    swing = jnp.log(jnp.maximum(swing, math.exp(SWING_RANGE[0])))
    return swing - jnp.percentile(swing, 95, axis=(1, 2), keepdims=True) - depth * (1 - is_moving)


def resize_image(x: Float[AnyArray, "b h w c"], height: int, width: int) -> Float[AnyArray, "b height width c"]:
  """Resizes [b h w c] bilinearly, antialiased on an axis that shrinks; the same array at the same size."""
  if x.shape[1:3] == (height, width):
    return x
  return resize(x, height, width)
