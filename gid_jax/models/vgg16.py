"""Fixed image features: the convolutions of VGG16 (Simonyan and Zisserman 2015), trained on ImageNet.

Parameters are explicit pytrees and every function is pure: a loss passes them along and never trains them.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.types import AnyArray

# Convolutions of each block; every block but the last ends in a 2x2 maximum.
_BLOCK_SIZES = (2, 2, 3, 3, 3)
_BLOCK_CHANNELS = (64, 128, 256, 512, 512)
# The Keras weights expect BGR in 0-255 minus these means.
_BGR_MEANS = (103.939, 116.779, 123.68)

VGG16_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
# The inverse of the mean absolute feature difference between photographs (160 px) and the same blurred
# (sigma 1.5) or shifted (1 px), measured with the Keras ImageNet weights: each layer then gives about 1 on such
# a pair.
VGG16_LAYER_WEIGHTS = (0.037, 0.013, 0.014, 0.116, 2.74)


def vgg16_params(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
  """Reads the 13 convolutions of VGG16.

  Args:
    path: npz file with `blockB_convC_kernel` (HWIO) and `blockB_convC_bias`, trained on BGR in 0-255.
  Returns:
    {"conv1_1": {"kernel" [3 3 3 64], "bias" [64]}, ..., "conv5_3": {...}} float32.
  Raises:
    UserError: the file cannot be read or an array is missing or has another shape.
  """
  try:
    with np.load(path) as arrays:
      tensors = {name: arrays[name] for name in arrays.files}
  except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(f"Cannot read {path}: {error}. Give the npz of VGG16's convolutions.") from error
  params, previous = {}, 3
  for block, (size, channels) in enumerate(zip(_BLOCK_SIZES, _BLOCK_CHANNELS, strict=True), start=1):
    for conv in range(1, size + 1):
      shapes = {"kernel": (3, 3, previous, channels), "bias": (channels,)}
      layer = {}
      for part, shape in shapes.items():
        name = f"block{block}_conv{conv}_{part}"
        if name not in tensors or tensors[name].shape != shape:
          found = tensors[name].shape if name in tensors else "nothing"
          raise UserError(f"{path} is not VGG16: {name} should have shape {shape}, found {found}.")
        layer[part] = tensors[name].astype(np.float32)
      params[f"conv{block}_{conv}"] = layer
      previous = channels
  return params


def vgg16_features(
  params: Mapping[str, Mapping[str, AnyArray]],
  image: Float[AnyArray, "b h w 3"],
  *,
  layers: Sequence[str] = VGG16_LAYERS,
) -> tuple[Float[Array, "b _ _ _"], ...]:
  """Activations of VGG16 (Simonyan and Zisserman 2015), computed no deeper than asked.

  Args:
    params: from `vgg16_params`.
    image: [b h w 3] RGB in [0, 1].
    layers: names `reluB_C`, in the order of the network.
  Returns:
    One array per layer, [b floor(h/2^(B-1)) floor(w/2^(B-1)) channels], non-negative.
  Raises:
    UserError: a layer does not exist, or the names are not in the order of the network.
  """
  wanted, features = list(layers), []
  x = 255.0 * jnp.asarray(image)[..., ::-1] - jnp.asarray(_BGR_MEANS, image.dtype)
  for block, size in enumerate(_BLOCK_SIZES, start=1):
    for conv in range(1, size + 1):
      if len(features) == len(wanted):
        return tuple(features)
      layer = params[f"conv{block}_{conv}"]
      x = jax.lax.conv_general_dilated(
        x, jnp.asarray(layer["kernel"]), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
      )
      x = jax.nn.relu(x + layer["bias"])
      if f"relu{block}_{conv}" == wanted[len(features)]:
        features.append(x)
    x = _pool(x)
  if len(features) < len(wanted):
    name = wanted[len(features)]
    raise UserError(f"VGG16 has no {name!r} after the layers before it; choose like {VGG16_LAYERS}.")
  return tuple(features)


def _pool(x: AnyArray) -> Array:
  """Maxima of 2x2 blocks of [b h w c], dropping an odd last row or column."""
  b, h, w, c = x.shape
  return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
