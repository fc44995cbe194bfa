"""Input pipeline: shapes, mixtures, sharding, exact resume and the numbers of windows."""

import json
import subprocess
import sys

import helpers
import numpy as np
import pytest
from stored_windows import (
  AUGMENTATION,
  NUM_BANDS,
  SOURCES,
  make_config,
  make_window,
  numbers_of,
  read_all,
  write_sources,
)

from gid_jax.data import input_pipeline as ip
from gid_jax.data.examples import find_strength
from gid_jax.errors import UserError
from gid_jax.motion.normalization import WEAKEST
from gid_jax.parsing import to_plain


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  return directory, write_sources(directory, SOURCES)


@pytest.fixture
def data(written):
  return written[0]


# Training batches also tell the windows' numbers.
SHAPES = {
  "vae": {"slice": (3, 16, 24, 4), "band": (3,)},
  "ldm": {"image": (3, 32, 48, 3), "slice": (3, 2, 16, 24, 4), "band": (3, 2)},
  "ldm_coordinated": {"image": (3, 32, 48, 3), "slice": (3, 4, 16, 24, 4), "band": (3, 4)},
  "renderer": {"image": (3, 32, 48, 3), "target": (3, 32, 48, 3), "flow": (3, 32, 48, 2), "depth": (3, 32, 48)},
  "plate": {"image": (3, 32, 48, 3), "hole": (3, 32, 48, 1)},
}


@pytest.mark.parametrize("stage", ip.STAGES)
@pytest.mark.parametrize("augmentation", [{}, AUGMENTATION])
def test_batches_have_the_promised_shapes_and_types(data, stage, augmentation):
  config = make_config(data, augmentation=augmentation)
  batch = next(ip.make_train_iterator(config, stage=stage, seed=0, batch_size=3))
  assert {name: array.shape for name, array in batch.items()} == SHAPES[stage] | {"record": (3,)}
  for name, array in batch.items():
    assert array.dtype == (np.int32 if name in ("band", "record") else np.float32)
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


def test_strength_is_that_of_all_bands_but_the_first_of_the_whole_window(written):
  data, _ = written
  # Turned, mirrored and cut, but not enlarged.
  config = make_config(data, strength=True, augmentation=dict(flip=0.5, jitter=0.2), crop=(16, 24))
  batch = next(ip.make_train_iterator(config, stage="ldm", seed=0, batch_size=8))
  assert batch["strength"].shape == (8,) and len(set(batch["record"].tolist())) > 2
  spectra = [window.spectrum for window in read_all(data, "train")]  # in the order of the records' numbers
  for record, found in zip(batch["record"], batch["strength"], strict=True):
    by_place = np.moveaxis(spectra[record][1:], 0, -1).reshape(16 * 24, -1)
    lengths = np.sort(np.linalg.norm(by_place, axis=-1))
    at = 0.95 * (lengths.size - 1)
    expected = max(np.interp(at, np.arange(lengths.size), lengths), WEAKEST)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_enlarged_windows_are_stronger_by_as_much(tmp_path):
  # Everywhere the same motion: enlarged z times, slices and strength are z times larger, whatever is cut out.
  plain = make_window(np.random.default_rng(0))
  window = plain._replace(spectrum=np.full_like(plain.spectrum, 50))
  helpers.write_dataset(tmp_path, "real", {"train": [window], "validation": []}, statistics={"scale": [1.0] * 4})
  config = make_config(tmp_path, strength=True, augmentation=dict(zoom=(1.0, 3.0)), bands_per_example=1)
  batch = next(ip.make_train_iterator(config, stage="ldm", seed=0, batch_size=6))
  sizes = batch["slice"][:, 0, 8, 12, 0]
  assert sizes.min() < 90 and sizes.max() > 110
  np.testing.assert_allclose(batch["strength"], sizes * np.sqrt(12), rtol=1e-2)


def test_a_window_at_rest_has_the_least_strength(tmp_path):
  still = make_window(np.random.default_rng(0))
  still = still._replace(spectrum=np.zeros_like(still.spectrum))
  helpers.write_dataset(tmp_path, "real", {"train": [still], "validation": []}, statistics={"scale": [1.0] * 4})
  config = make_config(tmp_path, strength=True)
  batch = next(ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=1))
  assert batch["strength"] == [WEAKEST]


def test_typical_strength_is_the_median_of_scenes_that_move(tmp_path):
  def window(scene, source, size):
    plain = make_window(np.random.default_rng(0))
    return plain._replace(spectrum=np.full_like(plain.spectrum, size), scene=scene, source=source)

  # Of a constant c in bands 1 to 3 and four channels the strength is c sqrt(12). Scene a has three windows, of which
  # the strongest does not count more; b moves twice as far as a, d seven times, the loop e fifty times; c is at rest.
  films = [window(*item) for item in (
    ("a", "real", 10), ("a", "real", 10), ("a", "real", 40), ("b", "real", 20), ("c", "real", 0), ("d", "real", 70),
  )]  # fmt: skip
  loops = [window("e", "loop", 500)] * 5
  for source, windows in (("real", films), ("loop", loops)):
    helpers.write_dataset(tmp_path, source, {"train": windows, "validation": []}, statistics={"scale": [1.0] * 4})
  config = make_config(tmp_path)
  np.testing.assert_allclose(find_strength(config), [(20 + 70) / 2 * np.sqrt(12)], rtol=1e-2)
  config = make_config(tmp_path, sources=dict(real=0.0, loop=1.0))
  np.testing.assert_allclose(find_strength(config), [500 * np.sqrt(12)], rtol=1e-2)
  with pytest.raises(UserError, match="needs stored windows"):
    find_strength(make_config(""))
  with pytest.raises(UserError, match="give a share to others of"):
    find_strength(make_config(tmp_path, sources=dict(real=0.0, loop=0.0, live=1.0)))


@pytest.mark.parametrize("stage", ["vae", "ldm", "ldm_coordinated"])
def test_windows_begin_at_another_moment(data, stage):
  settings = dict(stage=stage, seed=0, batch_size=3)
  before = next(ip.make_train_iterator(make_config(data, augmentation={}), **settings))["slice"]
  moved = next(ip.make_train_iterator(make_config(data, augmentation=dict(shift=1.0)), **settings))["slice"]
  # The size of every band but the first stays; its phase does not.
  sizes = [np.hypot(slices[..., :2], slices[..., 2:]) for slices in (before, moved)]
  bands = next(ip.make_train_iterator(make_config(data), **settings))["band"].reshape(before.shape[: -3])
  np.testing.assert_allclose(sizes[0][bands > 0], sizes[1][bands > 0], rtol=1e-2)
  assert (np.abs(before - moved).max((-1, -2, -3))[bands > 0] > 0.1).all()


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


@pytest.mark.parametrize("sources", [{}, {"synthetic": 0.5, "real": 0.5}])
def test_every_example_tells_its_window(data, tmp_path, sources):
  write_sources(tmp_path, {"real": 2}, first=50)
  config = make_config(f"{data},{tmp_path}", sources=sources)
  (batch,) = helpers.take(ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=16), 1)
  # Numbers count through loop, real and synthetic windows; those of one source folder by folder.
  first, second = ([int(window.scene[6:]) for window in read_all(folder, "train")] for folder in (data, tmp_path))
  windows = first[:9] + second + first[9:]
  np.testing.assert_array_equal([windows[number] for number in batch["record"]], numbers_of(batch))
  assert {*batch["record"].tolist()} <= ({*range(3, 16)} if sources else {*range(16)})
  places = ip.name_records(config, [0, 10, 15])
  assert places == [
    f"{data}/gid_windows/loop/1.0.0: record 0",
    f"{tmp_path}/gid_windows/real/1.0.0: record 1",
    f"{data}/gid_windows/synthetic/1.0.0: record 4",
  ]


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


def test_workers_make_the_batches_of_threads_and_take_their_position(data):
  make = lambda **changes: ip.make_train_iterator(
    make_config(data, augmentation=AUGMENTATION, **changes), stage="vae", seed=0, batch_size=2
  )
  threads, workers = make(), make(num_workers=2)
  helpers.take(threads, 1)
  workers.set_state(threads.get_state())
  helpers.assert_same_batches(helpers.take(workers, 3), helpers.take(threads, 3))
  assert workers.get_state() == threads.get_state()
  workers.set_state({"next_index": 0})  # ends them


def test_processes_share_the_global_batch_and_resume_in_another_number(data):
  config = make_config(data, augmentation=AUGMENTATION)
  make = lambda **kwargs: ip.make_train_iterator(config, stage="vae", seed=0, batch_size=4, **kwargs)
  whole, shares = make(), [make(process_index=i, process_count=2) for i in range(2)]
  for _ in range(3):
    batch, parts = next(whole), [next(share) for share in shares]
    for name in batch:
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), batch[name])
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
  assert set(batches[0]) == set(SHAPES[stage])
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
  config = make_config(f"{data},{tmp_path}", crop=(32, 32))
  assert next(make())["image"].shape == (16, 32, 32, 3)


@pytest.mark.parametrize("stage", ip.STAGES)
def test_motion_on_the_full_grid(tmp_path, stage):
  write_sources(tmp_path, {"synthetic": 4}, motion_stride=1)
  config = make_config(tmp_path, motion_stride=1, crop=(16, 24), augmentation=AUGMENTATION)
  batch = next(ip.make_train_iterator(config, stage=stage, seed=0, batch_size=4))
  if stage == "renderer":
    assert batch["flow"].shape == (4, 16, 24, 2)
  elif stage == "plate":
    assert batch["hole"].shape == (4, 16, 24, 1)
  else:
    assert batch["slice"].shape[-3:] == (16, 24, 4)


def test_reading_needs_no_tensorflow(data, tmp_path):
  # A module of its name stands first on the path: whoever imports it ends the program.
  (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow is imported')")
  code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from gid_jax.configuration import DataSettings
from gid_jax.parsing import parse
from gid_jax.data import input_pipeline as ip
config = parse(DataSettings, {to_plain(make_config(data))})
assert next(ip.make_train_iterator(config, stage="ldm", seed=0, batch_size=3))["image"].shape == (3, 32, 48, 3)
assert len(list(ip.make_eval_batches(config, stage="renderer", batch_size=7, num_batches=2))) == 2
"""
  subprocess.run([sys.executable, "-c", code], check=True)
