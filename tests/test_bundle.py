"""The `.gid` file: exact round trips, and one line for whatever is wrong with a file."""

import io
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_volumes import make_volume
from PIL import Image

import gid_jax
from gid_jax.bundle import Bundle, load_bundle, save_bundle
from gid_jax.errors import UserError
from gid_jax.weights.pretrained import checksum

SETTINGS = {"steps": 3, "loop": False, "names": ["a", "b"]}


def make_bundle(**changes):
  photo = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
  return Bundle(photo, make_volume(), 7, SETTINGS, "0.9", "first")._replace(**changes)


def assert_same(actual, expected):
  np.testing.assert_array_equal(actual.photo, expected.photo)
  np.testing.assert_array_equal(actual.spectrum.coefficients, expected.spectrum.coefficients)
  assert actual[2:] == expected[2:]
  period = lambda volume: (volume.num_frames, volume.fps)
  assert period(actual.spectrum) == period(expected.spectrum)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  """The bytes of a good file, and what it holds."""
  path = tmp_path_factory.mktemp("bundle") / "good.gid"
  save_bundle(path, make_bundle())
  return path.read_bytes(), load_bundle(path)


def test_round_trip(tmp_path):
  bundle = make_bundle()
  coefficients = bundle.spectrum.coefficients * np.array([1e-9, 1.0, 1e6, 0.0], np.float32)[:, None, None, None]
  bundle = bundle._replace(spectrum=bundle.spectrum.replace(coefficients=coefficients))
  save_bundle(tmp_path / "a.gid", bundle)
  found = load_bundle(tmp_path / "a.gid")
  np.testing.assert_array_equal(found.photo, bundle.photo)
  assert found.spectrum.coefficients.dtype == np.float32
  # Every band has 11 digits of its own, however weak it is beside the others.
  for stored, true in zip(found.spectrum.coefficients, coefficients, strict=True):
    np.testing.assert_allclose(stored, true, rtol=2.0**-11, atol=2.0**-38 * np.abs(true).max())
  assert (found.spectrum.num_frames, found.spectrum.fps) == (20, 10.0)
  assert found[2:] == (7, SETTINGS, "0.9", "first")
  save_bundle(tmp_path / "b.gid", found)
  assert_same(load_bundle(tmp_path / "b.gid"), found)  # writing again loses nothing more


def test_what_is_not_said(tmp_path):
  save_bundle(tmp_path / "a.gid", Bundle(np.zeros((8, 8, 3), np.uint8), make_volume()))
  assert load_bundle(tmp_path / "a.gid")[2:] == (0, {}, gid_jax.__version__, "")


def test_large_photos_are_shrunk(tmp_path):
  photo = np.zeros((12, 5000, 3), np.uint8)
  photo[:, 2500:] = 200
  save_bundle(tmp_path / "a.gid", make_bundle(photo=photo))
  found = load_bundle(tmp_path / "a.gid").photo
  assert found.shape == (10, 4096, 3)
  assert (found[:, :2047] == 0).all() and (found[:, 2049:] == 200).all()


def test_never_overwrites_unless_asked(tmp_path):
  path = tmp_path / "a.gid"
  path.write_bytes(b"precious")
  with pytest.raises(UserError, match=r"a\.gid already exists"):
    save_bundle(path, make_bundle())
  assert path.read_bytes() == b"precious"
  save_bundle(path, make_bundle(), overwrite=True)
  assert load_bundle(path).seed == 7
  assert [file.name for file in tmp_path.iterdir()] == ["a.gid"]


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"photo": np.zeros((20, 30), np.uint8)}, "a photo is"),
    ({"photo": np.zeros((20, 30, 3), np.float32)}, "a photo is"),
    ({"spectrum": make_volume(num_bands=12)}, "12 bands cannot come from 20 frames"),
    ({"spectrum": make_volume(scale=np.nan)}, "not finite"),
    ({"spectrum": make_volume(fps=np.inf)}, "at inf fps"),
  ],
)
def test_refuses_to_write(tmp_path, changes, match, unchecked):
  with pytest.raises(UserError, match=match):
    save_bundle(tmp_path / "a.gid", make_bundle(**changes))
  assert list(tmp_path.iterdir()) == []


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_changes_nothing(good, tmp_path_factory, data):
  content, expected = bytearray(good[0]), good[1]
  if data.draw(st.booleans(), "cut"):
    del content[data.draw(st.integers(0, len(content) - 1)):]
  else:
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
      content[position] ^= data.draw(st.integers(1, 255))
  path = tmp_path_factory.getbasetemp() / "damaged.gid"
  path.write_bytes(content)
  try:
    found = load_bundle(path)
  except UserError as error:
    assert len(str(error).splitlines()) == 1 and "damaged.gid" in str(error)
  else:  # white space in the header means nothing
    assert_same(found, expected)


def forge(path, good, *, version="1", kind="gid-jax bundle", facts=None, drop=None, **tensors):
  """A file with a right checksum and a wrong content."""
  path.write_bytes(good)
  with safetensors.safe_open(str(path), framework="numpy") as file:
    metadata = file.metadata()
    tensors = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118
  tensors.pop(drop, None)
  text = facts if isinstance(facts, str) else json.dumps(json.loads(metadata["facts"]) | (facts or {}))
  told = {"format": kind, "version": version, "facts": text, "sha256": checksum(tensors, text)}
  path.write_bytes(safetensors.numpy.save(tensors, told))


def write_png(mode, size):
  buffer = io.BytesIO()
  Image.new(mode, size).save(buffer, "PNG")
  return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.mark.parametrize(
  "change, match",
  [
    ({"version": "2"}, "of format 2, this gid-jax reads 1; upgrade"),
    ({"version": "9" * 5000}, "upgrade"),
    ({"version": "-1"}, "checksum"),
    ({"kind": "gid-jax weights"}, "not a .gid file"),
    ({"facts": "{"}, "not JSON"),
    ({"facts": "[" * 100_000}, "not JSON"),
    ({"facts": "[]"}, "give settings by their names"),
    ({"facts": {"seed": "x"}}, "seed"),
    ({"facts": {"colour": 1}}, "colour"),
    ({"facts": {"fps": float("nan")}}, "at nan fps"),
    ({"facts": {"num_frames": 10**12}}, "frames"),
    ({"facts": {"num_frames": 4}}, "4 bands cannot come from 4 frames"),
    ({"drop": "scale"}, "other arrays"),
    ({"more": np.zeros(3)}, "other arrays"),
    ({"scale": np.ones(3, np.float32)}, "3 factors for 4 bands"),
    ({"scale": np.full(4, np.inf, np.float32)}, "not finite"),
    ({"scale": np.full(4, 1e38, np.float32)}, "not finite"),
    ({"spectrum": np.zeros((4, 6, 8, 2), np.float16)}, r"\[k h w 4\], not \[4, 6, 8, 2\]"),
    ({"spectrum": np.zeros((4, 0, 8, 4), np.float16)}, r"\[k h w 4\]"),
    ({"spectrum": np.full((4, 6, 8, 4), np.nan, np.float16)}, "not finite"),
    ({"spectrum": np.zeros((4, 6, 8, 4), np.float32)}, "other arrays"),
    ({"photo": np.zeros(50, np.uint8)}, "its photo is damaged"),
    ({"photo": write_png("RGB", (30, 20))[:-30]}, "its photo is damaged"),
    ({"photo": write_png("L", (30, 20))}, "its photo is 30 x 20 L"),
    ({"photo": write_png("RGB", (4097, 2))}, "its photo is 4097 x 2"),
    ({"photo": write_png("RGB", (1, 2))}, "its photo is 1 x 2"),
  ],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_forged_files_are_one_line(good, tmp_path, change, match):
  path = tmp_path / "forged.gid"
  forge(path, good[0], **change)
  with pytest.raises(UserError, match=match) as caught:
    load_bundle(path)
  assert "forged.gid" in str(caught.value) and len(str(caught.value)) < 400


def test_other_files_are_one_line(tmp_path):
  with pytest.raises(UserError, match=r"cannot read .*missing\.gid: no such file"):
    load_bundle(tmp_path / "missing.gid")
  with pytest.raises(UserError, match="is a folder"):
    load_bundle(tmp_path)
  for name, content in {"empty": b"", "text": b"hello " * 50, "zeros": bytes(100)}.items():
    path = tmp_path / f"{name}.gid"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.gid"):
      load_bundle(path)
  safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "plain.gid")
  with pytest.raises(UserError, match=r"not a \.gid file; make one with"):
    load_bundle(tmp_path / "plain.gid")
