"""VGG16 against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from gid_jax.errors import UserError
from gid_jax.models import vgg16

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHANNELS = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}


@pytest.fixture(scope="module")
def arrays():
  rng, previous, arrays = np.random.default_rng(0), 3, {}
  for block, channels in CHANNELS.items():
    for conv, c in enumerate(channels, start=1):
      kernel = rng.standard_normal((3, 3, previous, c), dtype=np.float32) * (2.0 / (9 * previous)) ** 0.5
      arrays[f"block{block}_conv{conv}_kernel"] = kernel.astype(np.float16)
      arrays[f"block{block}_conv{conv}_bias"] = rng.standard_normal(c).astype(np.float16)
      previous = c
  return arrays


@pytest.fixture(scope="module")
def params(arrays, tmp_path_factory):
  path = tmp_path_factory.mktemp("vgg") / "vgg16.npz"
  np.savez(path, **arrays)
  return vgg16.vgg16_params(path)


def scipy_vgg(arrays, image, num_blocks):
  """image [h w 3] in [0, 1] -> the last activation of each block, in float64."""
  x, out = 255.0 * image[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68), []
  for block in range(1, num_blocks + 1):
    for conv in range(1, len(CHANNELS[block]) + 1):
      kernel = arrays[f"block{block}_conv{conv}_kernel"].astype(np.float64)
      padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
      maps = [correlate(padded, kernel[..., o], mode="valid")[..., 0] for o in range(kernel.shape[-1])]
      x = np.maximum(np.stack(maps, -1) + arrays[f"block{block}_conv{conv}_bias"], 0)
    out.append(x)
    h, w = x.shape[0] // 2, x.shape[1] // 2
    x = np.max([x[i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)], axis=0)
  return out


def test_vgg16_matches_scipy(arrays, params):
  image = np.random.default_rng(1).uniform(size=(7, 10, 3)).astype(np.float32)
  found = vgg16.vgg16_features(params, image[None], layers=("relu1_2", "relu2_2"))
  for f, expected in zip(found, scipy_vgg(arrays, image, 2), strict=True):
    np.testing.assert_allclose(f[0], expected, atol=1e-3, rtol=1e-4)


def test_vgg16_layers_are_where_their_names_say(params):
  image = jnp.full((2, 32, 48, 3), 0.5)
  found = jax.eval_shape(lambda image: vgg16.vgg16_features(params, image), image)
  assert [f.shape for f in found] == [
    (2, 32, 48, 64), (2, 16, 24, 128), (2, 8, 12, 256), (2, 4, 6, 512), (2, 2, 3, 512)
  ]  # fmt: skip
  for layers in (("relu9_9",), ("relu2_2", "relu1_2")):
    with pytest.raises(UserError, match="VGG16 has no"):
      jax.eval_shape(lambda x, layers=layers: vgg16.vgg16_features(params, x, layers=layers), image)


def test_vgg16_refuses_other_files(arrays, tmp_path):
  with pytest.raises(UserError, match="absent"):
    vgg16.vgg16_params(tmp_path / "absent.npz")
  (tmp_path / "junk.npz").write_bytes(b"not an archive")
  with pytest.raises(UserError, match="junk"):
    vgg16.vgg16_params(tmp_path / "junk.npz")
  (tmp_path / "empty.npz").write_bytes(b"")
  np.save(tmp_path / "array.npy", np.zeros(3))
  for name in ("empty.npz", "array.npy"):
    with pytest.raises(UserError, match=name):
      vgg16.vgg16_params(tmp_path / name)
  np.savez(tmp_path / "other.npz", **{"block1_conv1_kernel": np.zeros((3, 3, 1, 64))})
  with pytest.raises(UserError, match="block1_conv1_kernel"):
    vgg16.vgg16_params(tmp_path / "other.npz")
