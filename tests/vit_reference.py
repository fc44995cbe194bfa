"""DINOv2's ViT-S/14 in PyTorch with seeded weights, for `test_vit.py`.

The network is written here from its papers and from the names of Hugging Face's `Dinov2Model`, whose own code is not
needed. Every weight is drawn by NumPy from a generator seeded by the tensor's name: a wrong name is a wrong weight.
Outputs are stored in data/vit.npz, so that the tests need no PyTorch; made with torch 2.13 by

  python tests/vit_reference.py
"""

import math
import pathlib
import zlib

import numpy as np

PATH = pathlib.Path(__file__).parent / "data" / "vit.npz"
TOLERANCE = 1e-4  # of the largest output
LAYERS = (5, 12)
# Case -> (b, h, w): grids of 3 x 5 and, larger than what was learnt, 41 x 2.
CASES = {"wide": (2, 42, 70), "tall": (1, 574, 28)}
_EVERY = 5  # channel is stored


def load():
  """The stored outputs by case, [2 b n 77]: every fifth channel after layers 5 and 12."""
  with np.load(PATH) as arrays:
    return dict(arrays)


def thin(tokens):
  """Of tokens [... 384] the channels that are stored, [... 77]."""
  return tokens[..., ::_EVERY]


def make_photo(case):
  """The photos of a case, [b h w 3] in [0, 1]."""
  return np.random.default_rng(zlib.crc32(case.encode())).uniform(size=(*CASES[case], 3)).astype(np.float32)


def make_tensor(name, shape):
  """The weights of one tensor: of unit gain, scales about 1, embeddings as large as what patches give."""
  values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if name.endswith(("norm1.weight", "norm2.weight", "layernorm.weight", "lambda1")):
    values = np.exp(0.3 * values)
  elif len(shape) in (2, 4):
    values /= math.sqrt(math.prod(shape[1:]))
  elif len(shape) == 1:
    values *= 0.3
  return values.astype(np.float32)


def make_tensors():
  """The seeded state dict: NumPy arrays by the names of `Dinov2Model`."""
  shapes = {
    "embeddings.cls_token": (1, 1, 384),
    "embeddings.mask_token": (1, 384),
    "embeddings.position_embeddings": (1, 1370, 384),
    "embeddings.patch_embeddings.projection.weight": (384, 3, 14, 14),
    "embeddings.patch_embeddings.projection.bias": (384,),
    "layernorm.weight": (384,),
    "layernorm.bias": (384,),
  }
  for number in range(12):
    layer = f"encoder.layer.{number}."
    for name, outputs, inputs in (
      ("attention.attention.query", 384, 384), ("attention.attention.key", 384, 384),
      ("attention.attention.value", 384, 384), ("attention.output.dense", 384, 384),
      ("mlp.fc1", 1536, 384), ("mlp.fc2", 384, 1536),
    ):  # fmt: skip
      shapes |= {f"{layer}{name}.weight": (outputs, inputs), f"{layer}{name}.bias": (outputs,)}
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
      shapes[layer + name] = (384,)
    shapes |= {f"{layer}layer_scale{index}.lambda1": (384,) for index in (1, 2)}
  return {name: make_tensor(name, shape) for name, shape in shapes.items()}


def run(case):
  """PyTorch's tokens of a case after `LAYERS`, [2 b n 77]."""
  import torch
  from torch.nn import functional as F

  tensors = {name: torch.from_numpy(array) for name, array in make_tensors().items()}
  linear = lambda name, x: F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
  norm = lambda name, x: F.layer_norm(x, (384,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)

  def attend(layer, x):
    split = lambda part: linear(f"{layer}.attention.attention.{part}", x).unflatten(-1, (6, 64)).transpose(1, 2)
    query, key, value = split("query"), split("key"), split("value")
    weights = torch.softmax(query @ key.transpose(2, 3) / 8, -1)
    return linear(f"{layer}.attention.output.dense", (weights @ value).transpose(1, 2).flatten(2))

  mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
  photo = (torch.from_numpy(np.moveaxis(make_photo(case), -1, 1).copy()) - mean) / deviation
  patches = "embeddings.patch_embeddings.projection"
  x = F.conv2d(photo, tensors[f"{patches}.weight"], tensors[f"{patches}.bias"], stride=14)
  positions = tensors["embeddings.position_embeddings"]
  grid = positions[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
  grid = F.interpolate(grid, size=x.shape[2:], mode="bicubic", align_corners=False)
  x = (x + grid).flatten(2).transpose(1, 2)
  x = torch.cat([(tensors["embeddings.cls_token"] + positions[:, :1]).expand(len(x), -1, -1), x], 1)
  seen = []
  for number in range(12):
    layer = f"encoder.layer.{number}"
    x = x + tensors[f"{layer}.layer_scale1.lambda1"] * attend(layer, norm(f"{layer}.norm1", x))
    hidden = F.gelu(linear(f"{layer}.mlp.fc1", norm(f"{layer}.norm2", x)))
    x = x + tensors[f"{layer}.layer_scale2.lambda1"] * linear(f"{layer}.mlp.fc2", hidden)
    seen.append(norm("layernorm", x) if number == 11 else x)
  return thin(np.stack([seen[layer - 1].numpy() for layer in LAYERS]))


if __name__ == "__main__":
  np.savez_compressed(PATH, **{case: run(case) for case in CASES})
