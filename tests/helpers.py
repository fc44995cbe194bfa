"""What several tests share: parameters without compiling an initialiser, and the layers once more in NumPy."""

import functools
import itertools
import json
import math
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

# For XLA_FLAGS: programs that are compiled with little care are then compiled in half the time. At a flag that it does
# not know, as that of JAX 0.12 does not know this one, XLA ends the process.
QUICK_XLA = "--xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""
# For one program among those that are compiled with little care, to be compiled as users do.
CAREFUL_XLA = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if QUICK_XLA:
  CAREFUL_XLA["xla_cpu_use_fusion_emitters"] = True


def random_params(init, *inputs, seed=0, **options):
  """Parameters with the names and shapes that `init(key, *inputs, **options)` makes, filled by NumPy.

  Nothing is compiled, which takes seconds, and nothing is zero, which would hide mistakes behind it.
  """
  shapes = jax.eval_shape(functools.partial(init, **options), jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    values = rng.normal(size=leaf.shape)
    if path[-1].key.endswith(("scale", "std")):
      values = np.exp(0.3 * values)
    else:
      values *= 0.3 if leaf.ndim < 2 else 1 / math.sqrt(math.prod(leaf.shape[:-1]))
    return values.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def smooth_image(height, width):
  """A smooth photo [h w 3] in 0.1 ... 0.8, different in every channel."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  return np.stack([0.5 + 0.3 * np.sin(x / 5), 0.4 + 0.3 * np.cos(y / 6), 0.5 + 0.2 * np.sin((x + y) / 9)], -1)


def pixel_centres(size, stride=1):
  """Positions [h w 2] (x, y) of a grid's pixels among the photo's: pixel i covers photo pixels i s ... i s + s - 1."""
  y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
  return np.stack([x, y], -1) * stride + (stride - 1) / 2


def silu(x):
  return x / (1 + np.exp(-x))


def softmax(logits):
  weights = np.exp(logits - logits.max())
  return weights / weights.sum()


def dense(params, x):
  return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def conv(params, x, *, stride=1, padding=None):
  """Convolution of one image [h w c], pixel by pixel; by default the padding keeps the size."""
  kernel = np.asarray(params["kernel"], np.float64)
  size = kernel.shape[0]
  x = np.pad(x, (*(padding or ((size // 2, size // 2),) * 2), (0, 0)))
  rows = range(0, x.shape[0] - size + 1, stride)
  columns = range(0, x.shape[1] - size + 1, stride)
  pixel = lambda y, x0: np.tensordot(x[y : y + size, x0 : x0 + size], kernel, 3) + np.asarray(params["bias"])
  return np.array([[pixel(row, column) for column in columns] for row in rows])


def group_norm(params, x, *, groups, epsilon):
  """Group normalisation of one image [h w c], group by group; parameters as flax names them."""
  x = np.asarray(x, np.float64)
  out = np.empty_like(x)
  for part in np.array_split(np.arange(x.shape[-1]), groups):
    out[..., part] = (x[..., part] - x[..., part].mean()) / np.sqrt(x[..., part].var() + epsilon)
  return out * params["GroupNorm_0"]["scale"] + params["GroupNorm_0"]["bias"]


def res_block(params, x, embedding=None, *, groups, epsilon):
  """Residual block of one image [h w c] and its embedding [d]."""
  norm = functools.partial(group_norm, groups=groups, epsilon=epsilon)
  hidden = conv(params["conv1"], silu(norm(params["norm1"], x)))
  if embedding is not None:
    hidden += dense(params["embedding"], silu(embedding))
  hidden = conv(params["conv2"], silu(norm(params["norm2"], hidden)))
  return hidden + (conv(params["shortcut"], x) if "shortcut" in params else x)


def spatial_attention(params, x, *, num_heads, groups, epsilon):
  """Self-attention over the pixels of one image [h w c], head by head and query by query."""
  tokens = group_norm(params["norm"], x, groups=groups, epsilon=epsilon).reshape(-1, x.shape[-1])
  query, key, value = (dense(params[name], tokens) for name in ("query", "key", "value"))
  attended = np.empty_like(tokens)
  for part in np.array_split(np.arange(x.shape[-1]), num_heads):
    for index in range(len(tokens)):
      weights = softmax(key[:, part] @ query[index, part] / math.sqrt(len(part)))
      attended[index, part] = weights @ value[:, part]
  return x + dense(params["out"], attended).reshape(x.shape)


def write_dataset(directory, source, windows, *, statistics=None):
  """Writes windows ({"train": [...], "validation": [...]}) as `data_pipeline.builder` does, but without Beam.

  A split without windows is left out. `statistics` becomes statistics.json, for example {"scale": [...]}.
  """
  import tensorflow_datasets as tfds

  from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION, make_features, window_to_example

  with tfds.core.registered.skip_registration():

    class GidWindows(tfds.core.GeneratorBasedBuilder):
      name = DATASET_NAME
      VERSION = tfds.core.Version(DATASET_VERSION)
      BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=source)]

      def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=make_features())

      def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in windows if windows[split]}

      def _generate_examples(self, split):
        yield from ((f"{split}-{i:05d}", window_to_example(window)) for i, window in enumerate(windows[split]))

  builder = GidWindows(data_dir=str(directory), file_format="array_record")
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats="skip"))
  if statistics is not None:
    (pathlib.Path(directory) / "statistics.json").write_text(json.dumps(statistics))


def run(function, *arrays):
  """Compiles and calls: one program is quicker than many small ones."""
  return jax.jit(function)(*(jnp.asarray(array, jnp.float32) for array in arrays))


def take(iterator, count):
  """The next `count` batches."""
  return list(itertools.islice(iterator, count))


def assert_same_batches(left, right):
  """Two lists of batches hold the same arrays, bit by bit."""
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
