"""Input pipeline: reading the stored data, shapes, mixtures, sharding and exact resume."""

import itertools
import json
import shutil
import subprocess
import sys

import helpers
import ml_collections
import numpy as np
import pytest

from gid_jax import input_pipeline as ip
from gid_jax.errors import UserError
from gid_jax.storage import DATASET_VERSION, example_to_window
from gid_jax.types import Window

SIZE, NUM_BANDS, NUM_FRAMES = (32, 48), 4, 3
SOURCES = {"real": 6, "loop": 3, "synthetic": 5}
AUGMENTATION = dict(flip=0.5, max_degrees=5.0, zoom=(1.0, 1.5), jitter=0.2)


def make_window(rng, source="real", *, number=0, size=SIZE, motion_stride=2):
  """Band k of window i holds the value 100 i + k, so that a batch tells what it was made from."""
  height, width = size
  pixels = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
  vectors = lambda *shape: (rng.integers(-64, 64, shape) / 32).astype(np.float16)  # stored without loss
  spectrum = np.zeros((NUM_BANDS, height // motion_stride, width // motion_stride, 4), np.float32)
  return Window(
    image=pixels(height, width, 3),
    spectrum=spectrum + (100 * number + np.arange(NUM_BANDS))[:, None, None, None],
    frames=pixels(NUM_FRAMES, height, width, 3),
    flows=vectors(NUM_FRAMES, height, width, 2),
    depth=abs(vectors(height, width)),
    scene=f"meadow{number}",
    source=source,
  )


def write_sources(directory, sources, *, first=0, **options):
  """Writes numbered windows of some sources, training ones first: {number: window}."""
  rng, numbers = np.random.default_rng(first), itertools.count(first)
  windows = {source: {} for source in sources}
  for split, (source, count) in itertools.product(("train", "validation"), sources.items()):
    windows[source][split] = [make_window(rng, source, number=next(numbers), **options) for _ in range(count)]
  for source in sources:
    helpers.write_dataset(
      directory, source, windows[source], statistics={"scale": [3.0, 2.0, 1.5, 1.0], "percentile": 95}
    )
  return {int(window.scene[6:]): window for splits in windows.values() for part in splits.values() for window in part}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  return directory, write_sources(directory, SOURCES)


@pytest.fixture
def data(written):
  return written[0]


@pytest.fixture
def copy(data, tmp_path):
  """A data set to damage, and its folder of filmed windows."""
  shutil.copytree(data, tmp_path / "copy")
  return tmp_path / "copy", tmp_path / "copy" / "gid_windows" / "real" / DATASET_VERSION


def numbers_of(batch):
  """The windows that an `ldm_coordinated` batch was made from."""
  return np.rint(batch["slice"][:, 0, 0, 0, 0] / 100).astype(int)


def make_config(data, **changes):
  config = ml_collections.ConfigDict(
    {
      "directory": str(data),
      "num_bands": NUM_BANDS,
      "sources": {},
      "motion_stride": 2,
      "augmentation": {},
      "bands_per_example": 2,
      "crop": ml_collections.config_dict.placeholder(tuple),
      "num_threads": 2,
    }
  )
  config.update(changes)
  return config


# Reading


def read_all(directory, split):
  """All windows of a split, source by source."""
  return [
    example_to_window(source[i].example)
    for source in ip.open_records(directory, split).values()
    for i in range(len(source))
  ]


def test_records_are_the_windows_written(written):
  directory, windows = written
  read = read_all(directory, "train")
  assert [window.source for window in read] == ["loop"] * 3 + ["real"] * 6 + ["synthetic"] * 5
  assert {window.scene for window in read} == {windows[number].scene for number in range(14)}
  for window in read:
    stored = windows[int(window.scene[6:])]
    for name in ("image", "frames", "flows", "depth"):
      np.testing.assert_array_equal(getattr(window, name), getattr(stored, name))
    np.testing.assert_allclose(window.spectrum, stored.spectrum, rtol=1e-5)


def test_several_folders_are_read_as_one(data, tmp_path):
  write_sources(tmp_path, {"loop": 2, "other": 1}, first=50)
  sizes = {name: len(source) for name, source in ip.open_records(f"{data},{tmp_path}", "train").items()}
  assert sizes == {"loop": 5, "other": 1, "real": 6, "synthetic": 5}
  config = make_config(f"{data},{tmp_path}", sources={"loop": 1.0})
  iterator = ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=5)
  assert set(numbers_of(next(iterator))) == {6, 7, 8, 50, 51}
  np.testing.assert_array_equal(ip.read_scale(f"{data},{tmp_path}", num_bands=1), [3])


def test_scale_is_read_and_checked(tmp_path, data):
  np.testing.assert_array_equal(ip.read_scale(data, num_bands=2), np.float32([3, 2]))
  with pytest.raises(UserError, match="4 bands"):
    ip.read_scale(data, num_bands=5)
  with pytest.raises(UserError, match=r"statistics.*python -m data_pipeline\.builder"):
    ip.read_scale(tmp_path, num_bands=2)


def open_first(directory):
  return next(ip.make_train_iterator(make_config(directory), stage="ldm_coordinated", seed=0, batch_size=14))


def test_a_folder_without_a_data_set_names_the_command(tmp_path):
  for folder in (tmp_path, tmp_path / "nowhere"):
    with pytest.raises(UserError, match=rf"No data set in {folder}.*data_pipeline\.builder"):
      open_first(folder)
  write_sources(tmp_path, {"real": 1})
  with pytest.raises(UserError, match="no test windows"):
    ip.open_records(tmp_path, "test")


def test_another_format_is_told(copy):
  directory, real = copy
  real.rename(real.with_name("0.9.0"))
  with pytest.raises(UserError, match=r"format 0\.9\.0, but this release reads 1\.0\.0.*data_pipeline\.builder"):
    open_first(directory)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("change", ["missing", "damaged"])
def test_a_damaged_description_is_told(copy, name, change):
  directory, real = copy
  (real / name).unlink() if change == "missing" else (real / name).write_text("{")
  with pytest.raises(UserError, match=rf"{real}.* not .*readable.*build it again"):
    open_first(directory)


def flip_byte(content):
  middle = len(content) // 2
  return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flip_byte, lambda content: content[: len(content) // 2], None])
def test_an_unreadable_record_names_its_place(copy, damage):
  directory, real = copy
  (file,) = real.glob("*train.array_record*")
  if damage is None:
    file.unlink()
  else:
    file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(UserError, match=rf"{real}: record \d is not readable.*data_pipeline\.builder") as caught:
    open_first(directory)
  assert "\n" not in str(caught.value)


def test_a_record_that_is_no_window_is_told(data):
  bad = {"image": b"", "frames": [b""], "spectrum": [b"."] * NUM_BANDS, "scene": b"s", "source": b"real"}
  (record,) = ip.RecordSource([("folder", [bad])])
  for stage in ip.STAGES:
    with pytest.raises(UserError, match="folder: record 0 is not readable"):
      ip.make_example(np.random.default_rng(0), record, config=make_config(data), stage=stage, ranges=None)


def test_the_renderer_needs_later_frames(data):
  (record,) = ip.RecordSource([("folder", [{"frames": []}])])
  with pytest.raises(UserError, match="folder: record 0 has no later frames"):
    ip.make_example(np.random.default_rng(0), record, config=make_config(data), stage="renderer", ranges=None)


def test_reading_needs_no_tensorflow(data, tmp_path):
  # A module of its name stands first on the path: whoever imports it ends the program.
  (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow is imported')")
  code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import ml_collections
from gid_jax import input_pipeline as ip
config = ml_collections.ConfigDict({make_config(data).to_dict()})
assert next(ip.make_train_iterator(config, stage="ldm", seed=0, batch_size=3))["image"].shape == (3, 32, 48, 3)
assert len(list(ip.make_eval_batches(config, stage="renderer", batch_size=7, num_batches=2))) == 2
"""
  subprocess.run([sys.executable, "-c", code], check=True)


# Batches

SHAPES = {
  "vae": {"slice": (3, 16, 24, 4), "band": (3,)},
  "ldm": {"image": (3, 32, 48, 3), "slice": (3, 2, 16, 24, 4), "band": (3, 2)},
  "ldm_coordinated": {"image": (3, 32, 48, 3), "slice": (3, 4, 16, 24, 4), "band": (3, 4)},
  "renderer": {"image": (3, 32, 48, 3), "target": (3, 32, 48, 3), "flow": (3, 32, 48, 2), "depth": (3, 32, 48)},
}


@pytest.mark.parametrize("stage", ip.STAGES)
@pytest.mark.parametrize("augmentation", [{}, AUGMENTATION])
def test_batches_have_the_promised_shapes_and_types(data, stage, augmentation):
  config = make_config(data, augmentation=augmentation)
  batch = next(ip.make_train_iterator(config, stage=stage, seed=0, batch_size=3))
  assert {name: array.shape for name, array in batch.items()} == SHAPES[stage]
  for name, array in batch.items():
    assert array.dtype == (np.int32 if name == "band" else np.float32)
  if "image" in batch:
    assert batch["image"].min() >= 0 and 0.5 < batch["image"].max() <= 1


@pytest.mark.parametrize("stage", ["vae", "ldm", "ldm_coordinated"])
def test_slices_are_of_the_bands_named(data, stage):
  seen = set()
  for batch in helpers.take(ip.make_train_iterator(make_config(data), stage=stage, seed=0, batch_size=3), 10):
    values = batch["slice"][..., 0, 0, 0]
    np.testing.assert_array_equal(np.rint(values) % 100, batch["band"])
    bands = batch["band"].reshape(3, -1)
    assert all(len(set(row)) == len(row) for row in bands)
    seen |= set(bands.ravel().tolist())
  assert seen == set(range(NUM_BANDS))


def test_crop_without_augmentation_copies_pixels(written):
  data, windows = written[0], [written[1][number] for number in range(14)]
  config = make_config(data, crop=(16, 24))
  for batch in helpers.take(ip.make_train_iterator(config, stage="renderer", seed=0, batch_size=3), 3):
    assert batch["target"].shape == (3, 16, 24, 3) and batch["flow"].shape == (3, 16, 24, 2)
    for image, target, flow in zip(batch["image"], batch["target"], batch["flow"], strict=True):
      places = [
        (window, top, left)
        for window in windows
        for top in range(0, 17, 2)
        for left in range(0, 25, 2)
        if np.array_equal(image, np.float32(window.image[top : top + 16, left : left + 24]) / 255)
      ]
      assert len(places) == 1
      window, top, left = places[0]
      cut = (slice(top, top + 16), slice(left, left + 24))
      assert any(
        np.array_equal(target, np.float32(frame[cut]) / 255) and np.array_equal(flow, vectors[cut])
        for frame, vectors in zip(window.frames, window.flows, strict=True)
      )


def test_every_window_once_an_epoch(data):
  batches = helpers.take(ip.make_train_iterator(make_config(data), stage="ldm_coordinated", seed=0, batch_size=7), 4)
  windows = np.concatenate([numbers_of(batch) for batch in batches])
  for epoch in (windows[:14], windows[14:]):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(14))
  assert not np.array_equal(windows[:14], windows[14:])


def test_mixture_has_the_asked_proportions(data):
  config = make_config(data, sources={"real": 0.25, "loop": 0.75, "synthetic": 0.0})
  batches = helpers.take(ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=8), 10)
  windows = np.concatenate([numbers_of(batch) for batch in batches])
  real, loop = windows < 6, (windows >= 6) & (windows < 9)
  assert real.mean() == 0.25
  assert loop.mean() == 0.75


@pytest.mark.parametrize("stage", ["vae", "renderer"])
def test_resume_is_exact(data, stage):
  config = make_config(data, augmentation=AUGMENTATION, sources={"real": 1.0, "synthetic": 2.0})
  make = lambda **kwargs: ip.make_train_iterator(config, stage=stage, batch_size=2, **{"seed": 3, **kwargs})
  iterator = make()
  helpers.take(iterator, 3)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = helpers.take(iterator, 12)
  resumed = make()
  resumed.set_state(state)
  helpers.assert_same_batches(helpers.take(resumed, 12), expected)
  iterator.set_state(state)
  helpers.assert_same_batches(helpers.take(iterator, 2), expected[:2])
  name = "slice" if stage == "vae" else "flow"
  assert not np.array_equal(helpers.take(make(seed=4), 1)[0][name], helpers.take(make(), 1)[0][name])


def test_processes_share_the_global_batch_and_resume_in_another_number(data):
  config = make_config(data, augmentation=AUGMENTATION)
  make = lambda **kwargs: ip.make_train_iterator(config, stage="vae", seed=0, batch_size=4, **kwargs)
  whole, shares = make(), [make(process_index=i, process_count=2) for i in range(2)]
  for _ in range(3):
    batch, parts = next(whole), [next(share) for share in shares]
    for name in batch:
      np.testing.assert_array_equal(np.stack([part[name] for part in parts], 1).reshape(batch[name].shape), batch[name])
  alone = make()
  alone.set_state(shares[0].get_state())
  helpers.assert_same_batches(helpers.take(alone, 1), helpers.take(whole, 1))
  with pytest.raises(UserError, match="divide"):
    ip.make_train_iterator(config, stage="vae", seed=0, batch_size=3, process_count=2)


@pytest.mark.parametrize("stage", ip.STAGES)
def test_eval_batches_repeat_and_come_from_validation(data, stage):
  config = make_config(data, augmentation=AUGMENTATION, crop=(16, 24))
  make = lambda: list(ip.make_eval_batches(config, stage=stage, batch_size=4, num_batches=10))
  batches = make()
  assert len(batches) == 4  # 14 windows
  helpers.assert_same_batches(batches, make())
  if "slice" in batches[0]:
    values = np.concatenate([batch["slice"][..., 0, 0, 0].ravel() for batch in batches])
    assert {round(value) // 100 for value in values} == set(range(14, 28))
  if "image" in batches[0]:
    centres = [window.image[8:24, 12:36] for window in read_all(data, "validation")]
    assert any(np.array_equal(batches[0]["image"][0], np.float32(centre) / 255) for centre in centres)


@pytest.mark.parametrize(
  ("stage", "changes", "message"),
  [
    ("unet", {}, "unknown stage"),
    ("ldm", {"bands_per_example": 5}, "bands_per_example"),
    ("vae", {"num_bands": 9}, "num_bands=9"),
    ("renderer", {"crop": (64, 64)}, "crop"),
    ("renderer", {"crop": (15, 24)}, "even"),
    ("vae", {"sources": {"film": 1.0}}, r"only loop, real, synthetic; .*sources\.film=0"),
    ("vae", {"sources": {"real": 0.0}}, "weight"),
    ("vae", {"motion_stride": 1}, "photo 32x48, motion 16x24, which does not fit config.data.motion_stride=1"),
    ("vae", {"augmentation": {"flip": 2.0}}, "flip=2.0"),
  ],
)
def test_settings_that_do_not_fit_are_user_errors(data, stage, changes, message):
  with pytest.raises(UserError, match=message):
    next(ip.make_train_iterator(make_config(data, **changes), stage=stage, seed=0, batch_size=2))


def test_windows_of_several_sizes_need_a_crop(data, tmp_path):
  write_sources(tmp_path, {"real": 2}, size=(40, 48))
  config = make_config(f"{data},{tmp_path}")
  make = lambda: ip.make_train_iterator(config, stage="renderer", seed=0, batch_size=16)
  with pytest.raises(UserError, match="several sizes"):
    next(make())
  config.crop = (32, 32)
  assert next(make())["image"].shape == (16, 32, 32, 3)


@pytest.mark.parametrize("stage", ip.STAGES)
def test_motion_on_the_full_grid(tmp_path, stage):
  write_sources(tmp_path, {"synthetic": 4}, motion_stride=1)
  config = make_config(tmp_path, motion_stride=1, crop=(16, 24), augmentation=AUGMENTATION)
  batch = next(ip.make_train_iterator(config, stage=stage, seed=0, batch_size=4))
  if stage == "renderer":
    assert batch["flow"].shape == (4, 16, 24, 2)
  else:
    assert batch["slice"].shape[-3:] == (16, 24, 4)
