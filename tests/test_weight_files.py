"""Single-file weights: exact round trips, a single changed byte is noticed, and no Orbax is needed to read them."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.configuration import WeightsSettings
from gid_jax.errors import UserError
from gid_jax.parsing import freeze
from gid_jax.weights.pretrained import checksum, export_weights, import_weights

SETTINGS = WeightsSettings("vae", label="0.1", training=freeze({"channels": [8, 16], "rate": 1e-4}))


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def make_params():
  rng = np.random.default_rng(0)
  return {
    "unet": {"conv": {"kernel": rng.normal(size=(3, 3, 2, 5)).astype(np.float32)}, "scale": np.ones(())},
    "table": np.arange(6, dtype=np.int32),
  }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weight_file_round_trip(tmp_path, dtype):
  path = tmp_path / "folder" / "weights.safetensors"
  export_weights(path, make_params(), settings=SETTINGS, dtype=dtype)
  params, found = import_weights(path)
  round_to = lambda x: x.astype(dtype).astype(np.float32) if x.dtype.kind == "f" else x
  assert_same(params, jax.tree.map(round_to, make_params()))
  assert params["unet"]["conv"]["kernel"].dtype == np.float32 and params["table"].dtype == np.int32
  assert found == SETTINGS
  assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


@pytest.fixture(scope="module")
def weight_bytes(tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "good.safetensors"
  export_weights(path, make_params(), settings=SETTINGS)
  return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(weight_bytes, tmp_path_factory, data):
  position = data.draw(st.integers(0, len(weight_bytes) - 1))
  change = data.draw(st.integers(1, 255))
  changed = bytearray(weight_bytes)
  changed[position] ^= change
  path = tmp_path_factory.getbasetemp() / "changed.safetensors"
  path.write_bytes(changed)
  try:
    params, found = import_weights(path)
  except UserError:
    return
  # Only a change that means nothing may pass, such as another kind of white space in the header.
  assert found == SETTINGS
  assert_same(params, import_weights_from(weight_bytes, path)[0])


def import_weights_from(content, path):
  path.write_bytes(content)
  return import_weights(path)


def test_changed_tensor_byte_names_the_checksum(weight_bytes, tmp_path):
  path = tmp_path / "changed.safetensors"
  path.write_bytes(weight_bytes[:-1] + bytes([weight_bytes[-1] ^ 1]))
  with pytest.raises(UserError, match="checksum"):
    import_weights(path)


def test_truncated_missing_foreign_and_newer_files_are_user_errors(weight_bytes, tmp_path):
  import safetensors.numpy

  path = tmp_path / "x.safetensors"
  with pytest.raises(UserError, match="no such"):
    import_weights(path)
  path.write_bytes(weight_bytes[:-7])
  with pytest.raises(UserError, match="not a readable"):
    import_weights(path)
  path.write_bytes(b"")
  with pytest.raises(UserError, match="not a readable"):
    import_weights(path)
  safetensors.numpy.save_file({"a": np.zeros(2)}, path)
  with pytest.raises(UserError, match="not a weight file"):
    import_weights(path)
  length = int.from_bytes(weight_bytes[:8], "little")
  metadata = json.loads(weight_bytes[8 : 8 + length])["__metadata__"]
  tensors = {"a": np.zeros(2)}
  safetensors.numpy.save_file(tensors, path, {**metadata, "settings": "{", "sha256": checksum(tensors, "{")})
  with pytest.raises(UserError, match="its settings are no JSON"):
    import_weights(path)
  safetensors.numpy.save_file({"a": np.zeros(2)}, path, {**metadata, "version": "2"})
  with pytest.raises(UserError, match="upgrade"):
    import_weights(path)


def test_values_too_large_for_float16_are_refused(tmp_path):
  path = tmp_path / "x.safetensors"
  with pytest.raises(UserError, match="float16"):
    export_weights(path, {"a": np.array([1e6])}, settings=SETTINGS)
  assert list(tmp_path.iterdir()) == []
  export_weights(path, {"a": np.array([1e6])}, settings=SETTINGS, dtype="float32")
  assert import_weights(path)[0]["a"] == 1e6


def test_weight_files_need_no_orbax(tmp_path):
  code = (
    "import sys; sys.modules['orbax'] = None; import numpy as np\n"
    "from gid_jax.configuration import WeightsSettings\n"
    "from gid_jax.weights.pretrained import export_weights, import_weights\n"
    f"path = {str(tmp_path / 'w.safetensors')!r}\n"
    "export_weights(path, {'a': np.ones(3)}, settings=WeightsSettings('vae'))\n"
    "assert import_weights(path)[0]['a'].sum() == 3\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
