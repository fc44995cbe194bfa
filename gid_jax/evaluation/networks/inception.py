"""Inception-v3 as the Fréchet Inception Distance knows it (Heusel et al. 2017), with the weights of pytorch-fid.

It differs from torchvision's network: averages leave out the padding, and the pooling branch of the last block takes
a maximum. Layers have PyTorch's names (`Mixed_5b.branch1x1`), and batch normalisation is part of kernel and bias.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.models.torch_weights import fold_batch_norms
from gid_jax.types import AnyArray

_EPSILON = 1e-3


class FIDInception(nn.Module):
  """Inception-v3 up to the last average: the 2048 features of FID and KID."""

  @nn.compact
  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> Float[Array, "b 2048"]:
    """Returns the features [b 2048] of image [b h w 3], RGB in [-1, 1], 75 x 75 or more; FID has 299 x 299."""
    x = self._conv("Conv2d_1a_3x3", image, 32, (3, 3), stride=2, padding="VALID")
    x = self._conv("Conv2d_2a_3x3", x, 32, (3, 3), padding="VALID")
    x = _halve(self._conv("Conv2d_2b_3x3", x, 64, (3, 3)))
    x = self._conv("Conv2d_3b_1x1", x, 80, (1, 1))
    x = _halve(self._conv("Conv2d_4a_3x3", x, 192, (3, 3), padding="VALID"))
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
      x = self._block_a(name, x, pooled)
    x = self._block_b("Mixed_6a", x)
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
      x = self._block_c(name, x, width)
    x = self._block_d("Mixed_7a", x)
    x = self._block_e("Mixed_7b", x, _average)
    x = self._block_e("Mixed_7c", x, lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"))
    return x.mean((1, 2))

  def _conv(self, name, x, channels, size, *, stride=1, padding="SAME"):
    return nn.relu(nn.Conv(channels, size, (stride, stride), padding, name=name)(x))

  def _chain(self, name, x, *layers):
    # Layers as (suffix, channels, kernel size).
    for suffix, channels, size in layers:
      x = self._conv(f"{name}.{suffix}", x, channels, size)
    return x

  def _block_a(self, name, x, pooled):
    wide = (("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5)))
    double = (("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3)))
    branches = [
      self._chain(name, x, ("branch1x1", 64, (1, 1))),
      self._chain(name, x, *wide),
      self._chain(name, x, *double),
      self._chain(name, _average(x), ("branch_pool", pooled, (1, 1))),
    ]
    return jnp.concatenate(branches, axis=-1)

  def _block_b(self, name, x):
    double = self._chain(name, x, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
    half = dict[str, Any](stride=2, padding="VALID")
    branches = [
      self._conv(f"{name}.branch3x3", x, 384, (3, 3), **half),
      self._conv(f"{name}.branch3x3dbl_3", double, 96, (3, 3), **half),
      _halve(x),
    ]
    return jnp.concatenate(branches, axis=-1)

  def _block_c(self, name, x, width):
    row, column = (1, 7), (7, 1)
    single = (("branch7x7_1", width, (1, 1)), ("branch7x7_2", width, row), ("branch7x7_3", 192, column))
    double = (
      ("branch7x7dbl_1", width, (1, 1)), ("branch7x7dbl_2", width, column), ("branch7x7dbl_3", width, row),
      ("branch7x7dbl_4", width, column), ("branch7x7dbl_5", 192, row),
    )  # fmt: skip
    branches = [
      self._chain(name, x, ("branch1x1", 192, (1, 1))),
      self._chain(name, x, *single),
      self._chain(name, x, *double),
      self._chain(name, _average(x), ("branch_pool", 192, (1, 1))),
    ]
    return jnp.concatenate(branches, axis=-1)

  def _block_d(self, name, x):
    single = self._chain(name, x, ("branch3x3_1", 192, (1, 1)))
    long = self._chain(
      name, x, ("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))
    )
    half = dict[str, Any](stride=2, padding="VALID")
    branches = [
      self._conv(f"{name}.branch3x3_2", single, 320, (3, 3), **half),
      self._conv(f"{name}.branch7x7x3_4", long, 192, (3, 3), **half),
      _halve(x),
    ]
    return jnp.concatenate(branches, axis=-1)

  def _block_e(self, name, x, pool):
    single = self._chain(name, x, ("branch3x3_1", 384, (1, 1)))
    double = self._chain(name, x, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
    branches = [
      self._chain(name, x, ("branch1x1", 320, (1, 1))),
      self._chain(name, single, ("branch3x3_2a", 384, (1, 3))),
      self._chain(name, single, ("branch3x3_2b", 384, (3, 1))),
      self._chain(name, double, ("branch3x3dbl_3a", 384, (1, 3))),
      self._chain(name, double, ("branch3x3dbl_3b", 384, (3, 1))),
      self._chain(name, pool(x), ("branch_pool", 192, (1, 1))),
    ]
    return jnp.concatenate(branches, axis=-1)


def fid_inception_params(tensors: Mapping[str, np.ndarray], *, source: str) -> dict[str, dict[str, np.ndarray]]:
  """Converts the tensors of pytorch-fid (`Mixed_5b.branch1x1.conv.weight`, `.bn.running_mean`, ...).

  Args:
    tensors: a state dict as arrays; its classifier is ignored.
    source: the file, for errors.

  Raises:
    UserError: a tensor is missing or has another shape.
  """
  image = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
  shapes = jax.eval_shape(FIDInception().init, jax.random.key(0), image)["params"]
  names = lambda layer: (f"{layer}.conv", f"{layer}.bn")
  return fold_batch_norms(shapes, tensors, names, epsilon=_EPSILON, source=source)


def _average(x):
  # Over the pixels that exist, as TensorFlow does at the border.
  return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _halve(x):
  return nn.max_pool(x, (3, 3), (2, 2), "VALID")
