"""ResNet-34 without its classifier (He et al. 2016), with torchvision's ImageNet weights or new ones.

Layers have torchvision's names (`layer1.0.conv1`), and batch normalisation is part of kernel and bias.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.models.operations import SYMMETRIC
from gid_jax.models.torch_weights import fold_batch_norms
from gid_jax.types import AnyArray

# torchvision's weights expect RGB in [0, 1], normalised by these.
_MEANS = (0.485, 0.456, 0.406)
_DEVIATIONS = (0.229, 0.224, 0.225)
_EPSILON = 1e-5
_NUM_BLOCKS = (3, 4, 6, 3)
_CHANNELS = (64, 128, 256, 512)
# Nothing normalises new parameters: what 16 blocks add must be little beside what passes them by (Zhang et al. 2019).
_GENTLE = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")


class ResNet34(nn.Module):
  """The 512 features before the classifier, and those of every stage."""

  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> Float[Array, "b 512"]:
    """Returns the features [b 512] of image [b h w 3], RGB in [0, 1]."""
    return self.see(image)[-1].mean((1, 2))

  @nn.compact
  def see(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Returns the features of image [b h w 3], RGB in [0, 1], at strides 2, 4, 8, 16 and 32.

    Channels are 64, 64, 128, 256, 512; the size at stride s is ceil(h/s) x ceil(w/s). Convolutions pad symmetrically:
    feature (i, j) is of pixel (s i, s j).
    """
    x = (image - jnp.asarray(_MEANS)) / jnp.asarray(_DEVIATIONS)
    x = nn.relu(nn.Conv(64, (7, 7), (2, 2), ((3, 3), (3, 3)), name="conv1")(x))
    features = [x]
    padding: Any = SYMMETRIC  # Flax takes pairs, its annotation does not
    x = nn.max_pool(x, (3, 3), (2, 2), padding)
    for stage, (num_blocks, channels) in enumerate(zip(_NUM_BLOCKS, _CHANNELS, strict=True), start=1):
      for block in range(num_blocks):
        name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
        y = nn.relu(nn.Conv(channels, (3, 3), (stride, stride), SYMMETRIC, name=f"{name}.conv1")(x))
        y = nn.Conv(channels, (3, 3), (1, 1), SYMMETRIC, kernel_init=_GENTLE, name=f"{name}.conv2")(y)
        if stride > 1:
          x = nn.Conv(channels, (1, 1), (stride, stride), "VALID", name=f"{name}.downsample.0")(x)
        x = nn.relu(x + y)
      features.append(x)
    return tuple(features)


def resnet34_params(tensors: Mapping[str, np.ndarray], *, source: str) -> dict[str, dict[str, np.ndarray]]:
  """Converts torchvision's tensors (`layer1.0.conv1.weight`, `layer1.0.bn1.running_mean`, ...).

  Args:
    tensors: a state dict as arrays; its classifier is ignored.
    source: the file, for errors.

  Raises:
    UserError: a tensor is missing or has another shape.
  """
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(ResNet34().init, jax.random.key(0), image)["params"]
  # The batch normalisation of conv1 is bn1, that of downsample.0 is downsample.1.
  names = lambda layer: (layer, layer.replace("conv", "bn").replace("downsample.0", "downsample.1"))
  return fold_batch_norms(shapes, tensors, names, epsilon=_EPSILON, source=source)
