"""DINOv2's vision transformer ViT-S/14 (Oquab et al. 2023; Dosovitskiy et al. 2021), as a frozen image network.

Its features were learnt from photos without labels and tell things and their parts apart. It reads photos of any sides
that are multiples of 14: position embeddings, learnt on a grid of 37 x 37 patches, are resized to the photo's grid.
"""

import functools
import pathlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.models.operations import dot_product_attention
from gid_jax.models.tensor_files import read_tensors, take_tensor
from gid_jax.motion.resize import resize
from gid_jax.types import AnyArray

_NETWORK = "DINOv2's ViT-S/14"
PATCH = 14
DEPTH = 12
WIDTH = 384
_NUM_HEADS = 6
_HIDDEN = 4 * WIDTH
_EPSILON = 1e-6
_LEARNT_SIDE = 37  # of the grid that the position embeddings were learnt on
# Of Keys' cubic kernel, as PyTorch has it.
_CUBIC_SLOPE = -0.75
# Of ImageNet's photos, RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
# Of the features after each layer, measured once, on photographs read at 518x322.
_DEVIATIONS = (0.076, 0.052, 0.044, 0.048, 0.056, 0.088, 0.11, 0.14, 0.2, 0.31, 0.51, 2.1)

# Parameter -> name in Hugging Face's `Dinov2Model`, below `encoder.layer.N` for the layers; kernels are [out in] there.
_DENSE = {
  "query": ("attention.attention.query", WIDTH, WIDTH),
  "key": ("attention.attention.key", WIDTH, WIDTH),
  "value": ("attention.attention.value", WIDTH, WIDTH),
  "out": ("attention.output.dense", WIDTH, WIDTH),
  "expand": ("mlp.fc1", WIDTH, _HIDDEN),
  "project": ("mlp.fc2", _HIDDEN, WIDTH),
}
_NORMS = ("norm1", "norm2")
_SCALES = {"scale1": "layer_scale1.lambda1", "scale2": "layer_scale2.lambda1"}


class TransformerLayer(nn.Module):
  """Self-attention, then two dense layers, each normalised before and scaled by channel after, as a residual.

  Attributes:
    dtype: compute type of the dense layers and of attention; tokens, normalisation and softmax are float32.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, tokens: Float[Array, "b n 384"]) -> Float[Array, "b n 384"]:
    """Maps tokens [b n 384] to [b n 384] float32."""
    b, n, c = tokens.shape
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    norm = functools.partial(nn.LayerNorm, epsilon=_EPSILON, use_fast_variance=False, dtype=jnp.float32)
    scale = lambda name: self.param(name, nn.initializers.ones, (c,), jnp.float32)

    x = norm(name="norm1")(tokens)
    split = lambda name: dense(c, name=name)(x).reshape(b, n, _NUM_HEADS, c // _NUM_HEADS)
    attended = dot_product_attention(split("query"), split("key"), split("value")).reshape(b, n, c)
    tokens = tokens + scale("scale1") * dense(c, name="out")(attended)

    x = dense(_HIDDEN, name="expand")(norm(name="norm2")(tokens))
    x = dense(c, name="project")(jax.nn.gelu(x, approximate=False))
    return tokens + scale("scale2") * x


class DINOv2ViTS14(nn.Module):
  """DINOv2's ViT-S/14 as a trunk of `gid_jax.models.encoders`.

  Attributes:
    layers: after which of the 12 layers features are given, rising; those of layer 12 went through the final
      normalisation, the others are the plain tokens between two layers.
    long_side: photos are resized so that their long side is about this long, pixels, and both sides are multiples
      of 14; 0 reads them as they are, and they must have such sides.
    dtype: compute type, "float32" or "bfloat16"; parameters, tokens, normalisation and softmax stay float32.

  Raises:
    UserError: no such layers, or photos that cannot be read as they are.
  """

  layers: tuple[int, ...] = (3, 6, 9, 12)
  long_side: int = 37 * PATCH
  dtype: str = "float32"

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each map."""
    return (WIDTH,) * len(self.layers)

  @property
  def deviations(self) -> tuple[float, ...]:
    """Standard deviation of each map on photographs."""
    return tuple(_DEVIATIONS[layer - 1] for layer in self._check_layers())

  @staticmethod
  def read(path: str) -> dict:
    """Parameters from a file with Hugging Face's names; see `dinov2_vits14_params`."""
    return dinov2_vits14_params(path)

  def __call__(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b rows columns 384"], ...]:
    """Returns features [b rows columns 384] float32 of image [b h w 3], RGB in [0, 1], one map for each of `layers`.

    A map has a place for each patch of 14 x 14 pixels of the photo as it is read: 37 x 23 for one of 518 x 322 pixels.
    """
    if self.long_side:
      height, width = reading_size(*image.shape[1:3], long_side=self.long_side)
      image = resize_photo(image, height, width)
    rows, columns = (side // PATCH for side in image.shape[1:3])
    return tuple(x[:, 1:].reshape(-1, rows, columns, WIDTH) for x in self.tokens(image))

  @nn.compact
  def tokens(self, image: Float[AnyArray, "b h w 3"]) -> tuple[Float[Array, "b n 384"], ...]:
    """The tokens [b 1+rows*columns 384] after each of `layers`: the class token, then the patches row by row.

    Args:
      image: [b h w 3] RGB in [0, 1], sides multiples of 14; it is not resized.
    """
    layers = self._check_layers()
    b, height, width, _ = image.shape
    if height % PATCH or width % PATCH or not height * width:
      raise UserError(
        f"DINOv2 reads photos whose sides are multiples of {PATCH}, not {width}x{height}; resize them, or set long_side"
      )
    rows, columns, dtype = height // PATCH, width // PATCH, jnp.dtype(self.dtype)
    normal = nn.initializers.normal(0.02)
    class_token = self.param("class_token", normal, (1, 1, WIDTH), jnp.float32)
    positions = self.param("positions", normal, (1, 1 + _LEARNT_SIDE**2, WIDTH), jnp.float32)

    x = (image.astype(jnp.float32) - jnp.asarray(_MEAN)) / jnp.asarray(_DEVIATION)
    x = nn.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH), "VALID", dtype=dtype, name="patches")(x)
    grid = positions[0, 1:].reshape(_LEARNT_SIDE, _LEARNT_SIDE, WIDTH)
    x = x.astype(jnp.float32) + resize_positions(grid, rows, columns)
    first = jnp.broadcast_to(class_token + positions[:, :1], (b, 1, WIDTH))
    x = jnp.concatenate([first, x.reshape(b, rows * columns, WIDTH)], axis=1)

    seen = []
    for layer in range(1, DEPTH + 1):
      x = TransformerLayer(dtype, name=f"layer_{layer}")(x)
      seen.append(x)
    seen[-1] = nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name="norm")(x)
    return tuple(seen[layer - 1] for layer in layers)

  def _check_layers(self) -> tuple[int, ...]:
    layers = tuple(self.layers)
    if not layers or list(layers) != sorted(set(layers) & set(range(1, DEPTH + 1))):
      raise UserError(f"DINOv2's layers={layers}: give some of 1 ... {DEPTH}, rising")
    return layers


def reading_size(height: int, width: int, *, long_side: int) -> tuple[int, int]:
  """The size (h, w), multiples of 14, at which a photo of height x width is read with a long side of `long_side`.

  The long side is the multiple nearest to `long_side`, the other one that nearest to the photo's aspect; each is at
  least 14.
  """
  scale = max(1, round(long_side / PATCH)) * PATCH / max(height, width)
  nearest = lambda side: max(1, round(side * scale / PATCH)) * PATCH
  return nearest(height), nearest(width)


def resize_photo(image: Float[AnyArray, "b h w 3"], height: int, width: int) -> Float[AnyArray, "b {height} {width} 3"]:
  """Resizes photos [b h w 3] in [0, 1] bicubically, antialiased where they shrink, to [b height width 3] in [0, 1]."""
  if image.shape[1:3] == (height, width):
    return image
  return jnp.clip(resize(image, height, width, method="cubic"), 0, 1)


def resize_positions(grid: Float[AnyArray, "h w c"], rows: int, columns: int) -> Float[Array, "rows columns c"]:
  """Resizes position embeddings [h w c] bicubically to [rows columns c], as PyTorch's `interpolate` does.

  Centres of the outer places stay half a place inside the border, beyond which the border repeats; places that shrink
  are not averaged (Keys 1981, a = -0.75).
  """
  across_rows, across_columns = _cubic_weights(grid.shape[0], rows), _cubic_weights(grid.shape[1], columns)
  return jnp.einsum("rh,hwc,qw->rqc", across_rows, grid, across_columns, precision=jax.lax.Precision.HIGHEST)


def _cubic_weights(old: int, new: int) -> np.ndarray:
  """What each of `old` places gives to each of `new` ones, [new old]."""
  centres = (np.arange(new) + 0.5) * old / new - 0.5
  first = np.floor(centres).astype(int) - 1
  weights = np.zeros((new, old))
  for tap in range(4):
    distance = np.abs(centres - first - tap)
    near = ((_CUBIC_SLOPE + 2) * distance - (_CUBIC_SLOPE + 3)) * distance**2 + 1
    far = _CUBIC_SLOPE * (((distance - 5) * distance + 8) * distance - 4)
    taps = np.where(distance <= 1, near, far)
    np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), taps)
  return weights.astype(np.float32)


def dinov2_vits14_params(path: str | pathlib.Path) -> dict:
  """Reads weights of Hugging Face's `Dinov2Model` as the parameters of `DINOv2ViTS14`.

  Args:
    path: safetensors file with `embeddings.*`, `encoder.layer.N.*` and `layernorm.*` tensors; others are ignored.
  Returns:
    {"class_token", "positions", "patches": {"kernel" HWIO, "bias"}, "layer_1": {...}, ..., "norm": {...}} float32.
  Raises:
    UserError: the file cannot be read or a tensor is missing or has another shape.
  """
  return convert_dinov2_vits14(read_tensors(path, network=_NETWORK), source=str(path))


def convert_dinov2_vits14(tensors: Mapping[str, np.ndarray], *, source: str) -> dict:
  """Converts named PyTorch tensors to the parameters of `DINOv2ViTS14`; `source` is named in errors."""

  def take(name: str, *shape: int) -> np.ndarray:
    return take_tensor(tensors, name, shape, source=source, network=_NETWORK)

  def norm(name: str) -> dict[str, np.ndarray]:
    return {"scale": take(f"{name}.weight", WIDTH), "bias": take(f"{name}.bias", WIDTH)}

  patches = "embeddings.patch_embeddings.projection"
  params: dict = {
    "class_token": take("embeddings.cls_token", 1, 1, WIDTH),
    "positions": take("embeddings.position_embeddings", 1, 1 + _LEARNT_SIDE**2, WIDTH),
    "patches": {
      "kernel": take(f"{patches}.weight", WIDTH, 3, PATCH, PATCH).transpose(2, 3, 1, 0),
      "bias": take(f"{patches}.bias", WIDTH),
    },
    "norm": norm("layernorm"),
  }
  for number in range(DEPTH):
    layer = f"encoder.layer.{number}"
    dense = {
      part: {"kernel": take(f"{layer}.{name}.weight", outputs, inputs).T, "bias": take(f"{layer}.{name}.bias", outputs)}
      for part, (name, inputs, outputs) in _DENSE.items()
    }
    norms = {part: norm(f"{layer}.{part}") for part in _NORMS}
    scales = {part: take(f"{layer}.{name}", WIDTH) for part, name in _SCALES.items()}
    params[f"layer_{number + 1}"] = dense | norms | scales
  return params
