"""The frozen trunk against a NumPy/SciPy forward with batch norms unfolded, and the condition encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy.signal import correlate2d

from gid_jax.errors import UserError
from gid_jax.models import encoders
from gid_jax.parsing import Part

pytestmark = pytest.mark.usefixtures("quick_compilation")

EPS = 1e-3


def random_tensors(rng):
  """All tensors of the network under their PyTorch names, with lively batch norm statistics."""
  tensors = {}

  def conv(name, norm, shape):
    tensors[f"{name}.weight"] = rng.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
    tensors[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)
    tensors[f"{norm}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    tensors[f"{norm}.running_mean"] = rng.normal(size=shape[0]).astype(np.float32)
    tensors[f"{norm}.running_var"] = rng.uniform(0.01, 2.0, shape[0]).astype(np.float32)

  conv("_conv_stem", "_bn0", (32, 3, 3, 3))
  index, previous = 0, 32
  for blocks, kernel, expansion, channels in (
    (1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320)
  ):  # fmt: skip
    for _ in range(blocks):
      name, width = f"_blocks.{index}", previous * expansion
      if expansion > 1:
        conv(f"{name}._expand_conv", f"{name}._bn0", (width, previous, 1, 1))
      conv(f"{name}._depthwise_conv", f"{name}._bn1", (width, 1, kernel, kernel))
      conv(f"{name}._project_conv", f"{name}._bn2", (channels, width, 1, 1))
      index, previous = index + 1, channels
  return tensors


def conv_norm(tensors, x, conv, norm, stride=1, depthwise=False):
  """x [c h w]: convolution with TensorFlow's padding, then batch norm as written in its definition."""
  weight = tensors[f"{conv}.weight"].astype(np.float64)
  size = weight.shape[-1]
  pads = [(0, 0)]
  for length in x.shape[1:]:
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    pads.append((total // 2, total - total // 2))
  x = np.pad(x, pads)
  rows = []
  for o in range(weight.shape[0]):
    if depthwise:
      y = correlate2d(x[o], weight[o, 0], mode="valid")
    else:
      y = sum(correlate2d(x[i], weight[o, i], mode="valid") for i in range(weight.shape[1]))
    rows.append(y[::stride, ::stride])
  gamma, beta, mean, variance = (
    tensors[f"{norm}.{k}"][:, None, None] for k in ("weight", "bias", "running_mean", "running_var")
  )
  return (np.stack(rows) - mean) / np.sqrt(variance + EPS) * gamma + beta


def block(tensors, x, index, stride, expanded):
  name, inputs = f"_blocks.{index}", x
  if expanded:
    x = np.clip(conv_norm(tensors, x, f"{name}._expand_conv", f"{name}._bn0"), 0, 6)
  x = np.clip(conv_norm(tensors, x, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True), 0, 6)
  x = conv_norm(tensors, x, f"{name}._project_conv", f"{name}._bn2")
  return x + inputs if x.shape == inputs.shape else x


@pytest.fixture(scope="module")
def tensors():
  return random_tensors(np.random.default_rng(0))


def test_trunk_matches_the_unfolded_network(tensors, tmp_path):
  path = tmp_path / "weights.safetensors"
  safetensors.numpy.save_file(tensors, path)
  params = encoders.efficientnet_lite0_params(path)
  image = np.random.default_rng(1).uniform(size=(18, 23, 3)).astype(np.float32)
  features = jax.jit(encoders.EfficientNetLite0().apply)({"params": params}, image[None])

  x = (255.0 * image.transpose(2, 0, 1).astype(np.float64) - 127.0) / 128.0
  x = np.clip(conv_norm(tensors, x, "_conv_stem", "_bn0", 2), 0, 6)
  stride_2 = block(tensors, x, 0, 1, expanded=False)
  stride_4 = block(tensors, block(tensors, stride_2, 1, 2, expanded=True), 2, 1, expanded=True)
  stride_8 = block(tensors, block(tensors, stride_4, 3, 2, expanded=True), 4, 1, expanded=True)
  for found, expected in zip(features[:3], (stride_2, stride_4, stride_8), strict=True):
    np.testing.assert_allclose(found[0], expected.transpose(1, 2, 0), atol=1e-4, rtol=1e-4)
  assert [f.shape[1:] for f in features[3:]] == [(2, 2, 112), (1, 1, 320)]


def test_folded_tree_is_the_module_tree(tensors):
  params = encoders.fold_efficientnet_lite0(tensors, source="test")
  shapes = jax.eval_shape(encoders.EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes["params"])


def test_wrong_files_are_named(tensors, tmp_path):
  with pytest.raises(UserError, match=r"absent\.safetensors"):
    encoders.efficientnet_lite0_params(tmp_path / "absent.safetensors")
  (tmp_path / "junk.safetensors").write_bytes(b"not weights")
  with pytest.raises(UserError, match="junk"):
    encoders.efficientnet_lite0_params(tmp_path / "junk.safetensors")
  incomplete = {name: tensor for name, tensor in tensors.items() if name != "_blocks.3._bn1.bias"}
  with pytest.raises(UserError, match=r"_blocks\.3\._bn1\.bias"):
    encoders.fold_efficientnet_lite0(incomplete, source="test")


@pytest.mark.parametrize("trunks", [(), ("efficientnet_lite0",)])
def test_condition_encoder_trains_all_but_the_trunk(trunks):
  module = encoders.ConditionEncoder(channels=4, hidden=8, trunks=trunks)
  image = jax.random.uniform(jax.random.key(1), (2, 36, 50, 3))
  size = {"height": 9, "width": 13}
  shapes = jax.eval_shape(lambda key: module.init(key, image, **size), jax.random.key(0))["params"]
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.1).astype(np.float32), shapes)

  def loss(params):
    out, features = module.apply({"params": params}, image, **size)
    assert (features is None) == (not trunks)
    return jnp.mean((out - 1.0) ** 2), out

  (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  assert out.shape == (2, 9, 13, 4) and out.dtype == jnp.float32
  assert not np.allclose(out[0], out[1], atol=1e-3)
  assert [name for name in params if "frozen" in name] == [f"frozen_trunk_{name}" for name in trunks]
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    frozen = path[0].key.startswith("frozen_trunk")
    assert np.all(np.isfinite(gradient)), path
    assert np.any(gradient) != frozen, path


def test_unknown_encoder_is_refused():
  module = encoders.ConditionEncoder(channels=4, hidden=8, trunks=("vgg",))
  with pytest.raises(UserError, match="vgg"):
    module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), height=4, width=4)
  with pytest.raises(UserError, match="unknown image encoder 'resnet'"):
    encoders.make_encoder(Part("resnet"))
