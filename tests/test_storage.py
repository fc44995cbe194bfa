"""Storing windows: what is lost, what is decoded, and the way through TensorFlow Datasets."""

import helpers
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from gid_jax.data import storage
from gid_jax.errors import UserError
from gid_jax.types import Window


def random_window(seed=0, *, scene="été", source="loop"):
  rng = np.random.default_rng(seed)
  return Window(
    image=rng.integers(0, 256, (12, 18, 3), dtype=np.uint8),
    spectrum=(rng.standard_normal((4, 6, 9, 4)) * [[[[50]]], [[[8]]], [[[1]]], [[[0]]]]).astype(np.float16),
    frames=rng.integers(0, 256, (3, 12, 18, 3), dtype=np.uint8),
    flows=rng.uniform(-20, 20, (3, 12, 18, 2)).astype(np.float16),
    depth=rng.uniform(0, 9, (12, 18)).astype(np.float16),
    scene=scene,
    source=source,
  )


def assert_near(stored, window):
  """What may differ, written down once more: 1/254 of the largest root in the spectrum and 1/64 px elsewhere."""
  for name in ("image", "frames"):
    np.testing.assert_array_equal(getattr(stored, name), getattr(window, name))
    assert getattr(stored, name).dtype == np.uint8
  for name in ("flows", "depth"):
    np.testing.assert_allclose(getattr(stored, name), getattr(window, name), rtol=0, atol=1 / 64)
  for found, band in zip(stored.spectrum, window.spectrum.astype(np.float64), strict=True):
    roots = lambda values: np.sign(values) * np.sqrt(np.abs(values))
    np.testing.assert_allclose(roots(found), roots(band), rtol=0, atol=np.sqrt(np.abs(band).max()) / 254 + 1e-6)
  assert (stored.scene, stored.source) == (window.scene, window.source)
  assert stored.spectrum.dtype == stored.flows.dtype == stored.depth.dtype == np.float32


def test_window_survives_within_its_bounds():
  window = random_window()
  assert_near(storage.example_to_window(storage.window_to_example(window)), window)


@hypothesis.given(
  hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.sampled_from([2, 4])),
    elements=st.floats(-1000, 1000, width=32),
  )
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_motion_is_stored_within_its_bounds(values):
  band = storage.decode_band(storage.encode_band(values))
  roots = lambda v: np.sign(v) * np.sqrt(np.abs(v.astype(np.float64)))
  largest = np.sqrt(np.abs(values).max())
  assert band.shape == values.shape and band.dtype == np.float32
  assert np.abs(roots(band) - roots(values)).max() <= largest / 254 * (1 + 1e-4) + 1e-12
  flow = storage.decode_flow(storage.encode_flow(values))
  assert flow.shape == values.shape
  assert np.abs(flow - values).max() <= 1 / 64


def test_stillness_stays_exactly_still():
  assert not storage.decode_band(storage.encode_band(np.zeros((3, 5, 4)))).any()
  values = np.zeros((3, 5, 4))
  values[0, 0, 0] = 300
  assert np.count_nonzero(storage.decode_band(storage.encode_band(values))) == 1
  assert not storage.decode_flow(storage.encode_flow(np.zeros((3, 5, 2)))).any()


def test_only_what_is_asked_for_is_decoded():
  window = random_window()
  example = storage.window_to_example(window)
  # Whatever is decoded beyond the wish fails.
  partial = {**example, "image": b"", "depth": b"", "flows": [b""] * 3, "frames": [b""] * 3}
  partial["spectrum"] = [b"", example["spectrum"][1], b"", example["spectrum"][3]]
  found = storage.example_to_window(partial, fields=("spectrum",), bands=[3, 1])
  full = storage.example_to_window(example)
  np.testing.assert_array_equal(found.spectrum, full.spectrum[[3, 1]])
  assert [getattr(found, name).shape for name in ("image", "frames", "flows", "depth")] == [(0,)] * 4
  partial = {**example, "image": b"", "depth": b"", "spectrum": [b""] * 4, "frames": [b"", b"", example["frames"][2]]}
  found = storage.example_to_window(partial, fields=("frames", "flows"), pairs=[2])
  np.testing.assert_array_equal(found.frames, window.frames[2:])
  np.testing.assert_array_equal(found.flows, full.flows[2:])
  assert found.spectrum.shape == (0,)


@pytest.mark.parametrize("damage", [b"", b"abc", b"\x00" * 40])
@pytest.mark.parametrize("name", ["image", "spectrum", "flows", "depth"])
def test_damage_is_one_clear_line(name, damage):
  example = storage.window_to_example(random_window())
  example[name] = [damage] if isinstance(example[name], list) else damage
  with pytest.raises(UserError, match=r"damaged.*build the data set again"):
    storage.example_to_window(example)
  with pytest.raises(UserError, match="damaged"):
    storage.example_to_window({k: v for k, v in example.items() if k != name})


def test_motion_that_cannot_be_stored_is_refused():
  window = random_window()
  for values in (np.nan, np.inf, 1100.0, -1100.0):
    with pytest.raises(UserError, match="not finite or over 1023 px"):
      storage.window_to_example(window._replace(flows=np.full((1, 4, 4, 2), values, np.float32)))
  with pytest.raises(UserError, match="not finite"):
    storage.window_to_example(window._replace(spectrum=np.full((1, 2, 2, 4), np.nan, np.float32)))
  with pytest.raises(UserError, match="too large to store"):
    storage.window_to_example(window._replace(spectrum=np.zeros((1, 4096, 2, 4), np.float32)))


def test_windows_survive_tensorflow_datasets(tmp_path):
  windows = [random_window(seed, scene=f"s{seed}") for seed in range(4)]
  helpers.write_dataset(tmp_path, "loop", {"train": windows[:3], "validation": windows[3:]})
  helpers.write_dataset(tmp_path, "real", {"train": windows[:1], "validation": []}, statistics={"scale": [1]})
  assert storage.list_sources(tmp_path) == ["loop", "real"]
  stored = {}
  for split in ("train", "validation"):
    examples = storage.open_split(tmp_path, "loop", split)
    for index in range(len(examples)):
      window = storage.example_to_window(examples[index])
      stored[window.scene] = (split, window)
  assert {scene: split for scene, (split, _) in stored.items()} == {
    "s0": "train", "s1": "train", "s2": "train", "s3": "validation"}
  for window in windows:
    assert_near(stored[window.scene][1], window)
  assert len(storage.open_split(tmp_path, "real", "train")) == 1
  assert len(storage.open_split(tmp_path, "real", "validation")) == 0


def test_bytes_that_end_in_zeros_survive(tmp_path):
  features = storage.make_features()
  example = {**storage.window_to_example(random_window()), "image": b"ab\0\0", "frames": [b"\0", b"c\0\0"]}
  again = features.deserialize_example_np(features.serialize_example(example))
  assert again["image"] == b"ab\0\0"
  assert list(again["frames"]) == [b"\0", b"c\0\0"]


def test_missing_data_says_what_to_do(tmp_path):
  with pytest.raises(UserError, match=r"No data set in .*data_pipeline\.builder"):
    storage.list_sources(tmp_path)
  helpers.write_dataset(tmp_path, "real", {"train": [random_window()]})
  with pytest.raises(UserError, match=r"No windows of source 'loop'.*\['real'\]"):
    storage.open_split(tmp_path, "loop", "train")
  (tmp_path / "gid_windows/real/1.0.0/dataset_info.json").write_text("{")
  with pytest.raises(UserError, match="not a readable data set"):
    storage.open_split(tmp_path, "real", "train")
