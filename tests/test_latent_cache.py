"""Cached latents: those of fresh encoding, shared between processes, continued, replaced, and read in exact order."""

import dataclasses
import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored_windows import AUGMENTATION, NUM_BANDS, make_config, write_sources

from gid_jax.configuration import TrainSettings
from gid_jax.data import latent_cache
from gid_jax.data.augmentation import config_to_augmentation
from gid_jax.data.examples import draw_window
from gid_jax.data.input_pipeline import make_cached_iterator, make_train_iterator
from gid_jax.data.latent_cache import build_latent_cache
from gid_jax.data.records import open_records
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model
from gid_jax.parsing import parse

pytestmark = pytest.mark.usefixtures("quick_compilation")
SOURCES, DRAWS, CROP = {"loop": 3, "real": 9}, 3, (16, 24)
SHARED = {"image": (4, *CROP, 3), "record": (4,)}


def make_whole_config(data, *, seed=5, stage="ldm", **changes):
  model = dict(
    image_size=CROP, num_bands=NUM_BANDS, motion_stride=2,
    codec=dict(kind="paper", latent_channels=3, channels=4, groups=2, num_blocks=1, multipliers=(1, 2)),
    encoder=dict(kind="condition", channels=2, hidden=4),
    denoiser=dict(kind="unet", channels=4, multipliers=(1,), num_blocks=1, attention_levels=(), groups=2),
  )
  changes = {"augmentation": AUGMENTATION, "crop": CROP, "latent_draws": DRAWS, **changes}
  data = make_config(data, **changes)
  return parse(TrainSettings, {"stage": stage, "seed": seed, "model": model, "data": data})


def make_params(config, seed=0):
  model = make_motion_model(config.model)
  bands = jnp.zeros((1, 1), jnp.int32)
  inputs = jnp.zeros((1, 1, 8, 12, 4)), bands, jnp.zeros((1, *CROP, 3)), bands
  return helpers.random_params(model.init, *inputs, seed=seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  write_sources(directory, SOURCES)
  return directory


@pytest.fixture(scope="module")
def params(data):
  return make_params(make_whole_config(data))


@pytest.fixture(scope="module")
def cached(data, params, tmp_path_factory):
  """A work folder with a cache, and the draws in it by source."""
  workdir = tmp_path_factory.mktemp("run")
  return workdir, build_latent_cache(workdir, make_whole_config(data), params)


def read_folder(workdir):
  return {path.name: path.read_bytes() for path in sorted((workdir / "latents").iterdir())}


def assert_same_draws(left, right):
  assert left.keys() == right.keys()
  for name in left:
    assert len(left[name]) == len(right[name])
    for a, b in zip(left[name], right[name], strict=True):
      assert a.number == b.number
      np.testing.assert_array_equal(a.image, b.image)
      np.testing.assert_array_equal(a.latents, b.latents)


def encode(config, params, slices):
  """Whitened latents [k h w z] of raw slices of all bands, by the model itself."""
  model = make_motion_model(config.model)
  apply = jax.jit(functools.partial(model.apply, method="slices_to_latents"))
  return np.asarray(apply({"params": params}, slices[None], np.arange(NUM_BANDS)[None]))[0]


def test_cached_latents_are_those_of_the_augmented_window(data, params, cached):
  config, draws = make_whole_config(data), cached[1]
  assert {name: len(source) for name, source in draws.items()} == {"loop": 9, "real": 27}
  records, ranges, item = open_records(data, "train"), config_to_augmentation(AUGMENTATION), 0
  for name in SOURCES:
    for index in range(len(draws[name])):
      found, record = draws[name][index], records[name][index // DRAWS]
      rng = np.random.default_rng([config.seed, item])
      window, _ = draw_window(rng, record, np.arange(NUM_BANDS), config=config.data, ranges=ranges)
      assert found.number == record.number
      np.testing.assert_array_equal(found.image, window.image)
      if index < 4:
        assert found.latents.shape == (NUM_BANDS, 4, 6, 3) and found.latents.dtype == np.float16
        np.testing.assert_allclose(found.latents, encode(config, params, window.spectrum), rtol=1e-3, atol=1e-3)
      item += 1
  # Every draw is another one.
  images = {draw.image.tobytes() for source in draws.values() for draw in source}
  assert len(images) == DRAWS * 12


@pytest.mark.parametrize(("stage", "num_bands"), [("ldm", 2), ("ldm_coordinated", NUM_BANDS)])
def test_batches_are_drawn_from_the_cache(data, cached, stage, num_bands):
  draws = [draw for source in cached[1].values() for draw in source]
  config = make_whole_config(data, augmentation=AUGMENTATION | {"jitter": 0.0}).data
  iterator = make_cached_iterator(config, cached[1], stage=stage, seed=0, batch_size=4)
  seen, bands_seen = [], set()
  for batch in helpers.take(iterator, 9):
    shapes = SHARED | {"latent": (4, num_bands, 4, 6, 3), "band": (4, num_bands)}
    assert {name: array.shape for name, array in batch.items()} == shapes
    for name, array in batch.items():
      assert array.dtype == (np.int32 if name in ("band", "record") else np.float32)
    for image, latents, bands, number in zip(*(batch[n] for n in ("image", "latent", "band", "record")), strict=True):
      (item,) = [i for i, draw in enumerate(draws) if np.array_equal(np.float32(draw.image) / 255, image)]
      assert draws[item].number == number
      np.testing.assert_array_equal(latents, np.float32(draws[item].latents[bands]))
      assert len(set(bands)) == num_bands
      seen.append(item)
      bands_seen |= set(bands.tolist())
  assert sorted(seen) == list(range(36)) and seen != sorted(seen)  # an epoch: every draw of every window once
  assert bands_seen == set(range(NUM_BANDS))


def test_colours_are_still_changed(data, cached):
  plain, jittered = (
    make_whole_config(data, augmentation=AUGMENTATION | {"jitter": jitter}).data for jitter in (0.0, 0.2))
  first, second = (
    next(make_cached_iterator(config, cached[1], stage="ldm", seed=0, batch_size=4)) for config in (plain, jittered))
  np.testing.assert_array_equal(first["latent"], second["latent"])
  assert np.all(np.abs(first["image"] - second["image"]).max(axis=(1, 2, 3)) > 0.01)


def test_sources_are_mixed_by_weight(data, cached):
  config = make_whole_config(data, sources={"real": 0.25, "loop": 0.75}).data
  batches = helpers.take(make_cached_iterator(config, cached[1], stage="ldm", seed=0, batch_size=8), 4)
  assert np.mean(np.concatenate([batch["record"] for batch in batches]) < 3) == 0.75


def test_resume_is_exact_also_from_the_position_of_an_iterator_that_encodes(data, cached):
  config = make_whole_config(data).data
  make = lambda **share: make_cached_iterator(config, cached[1], stage="ldm", seed=3, batch_size=4, **share)
  iterator = make()
  helpers.take(iterator, 3)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = helpers.take(iterator, 12)
  plain = make_train_iterator(config, stage="ldm", seed=3, batch_size=4)
  helpers.take(plain, 3)
  for position in (state, plain.get_state()):
    resumed = make()
    resumed.set_state(position)
    helpers.assert_same_batches(helpers.take(resumed, 12), expected)
  shares = [make(process_index=index, process_count=2) for index in range(2)]
  for share in shares:
    share.set_state(state)
  left, right = (next(share) for share in shares)
  for name, array in expected[0].items():
    np.testing.assert_array_equal(np.concatenate([left[name], right[name]]), array)


# Building


def test_two_processes_share_the_work_and_make_the_same_cache(data, params, cached, tmp_path, monkeypatch):
  barrier, written, results = threading.Barrier(2), {0: [], 1: []}, {}
  write_shard = latent_cache._write_shard

  def build(index):
    synchronize = lambda name: barrier.wait(timeout=60)
    results[index] = build_latent_cache(
      tmp_path, make_whole_config(data), params, process_index=index, process_count=2, synchronize=synchronize)

  def note(path, *rest, **options):
    written[threads.index(threading.current_thread())].append(path.name)
    write_shard(path, *rest, **options)

  monkeypatch.setattr(latent_cache, "_write_shard", note)
  threads = [threading.Thread(target=build, args=(index,)) for index in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert written[0] and written[1] and not set(written[0]) & set(written[1])
  assert sorted(written[0] + written[1]) == [f"shard-{index:05d}-of-00003.npy" for index in range(3)]
  assert read_folder(tmp_path) == read_folder(cached[0])
  assert_same_draws(results[1], cached[1])


def test_a_folder_that_processes_do_not_share_is_told(data, params, tmp_path):
  with pytest.raises(UserError, match=r"shard-00001-of-00003.npy is missing; give all processes the same --workdir"):
    build_latent_cache(tmp_path, make_whole_config(data), params, process_count=2, synchronize=lambda name: None)


def test_a_complete_cache_is_not_made_again(data, params, cached, monkeypatch, capsys):
  monkeypatch.setattr(latent_cache, "_write_shard", lambda *args, **options: pytest.fail("written again"))
  # What is still done on the way does not matter.
  augmentation = AUGMENTATION | {"jitter": 0.4}
  config = make_whole_config(data, stage="ldm_coordinated", augmentation=augmentation, bands_per_example=1)
  assert_same_draws(build_latent_cache(cached[0], config, params), cached[1])
  assert capsys.readouterr().out == ""


_KILLED = """
import os, pickle, signal, sys
from gid_jax.data import latent_cache
write_shard, count = latent_cache._write_shard, 0
def write_and_die(path, items, length, *, left):
  global count
  count += 1
  if count == 2:
    def dying(items):
      for index, item in enumerate(items):
        if index == 5:
          os.kill(os.getpid(), signal.SIGKILL)
        yield item
    items = dying(items)
  write_shard(path, items, length, left=left)
latent_cache._write_shard = write_and_die
latent_cache.build_latent_cache(*pickle.load(open(sys.argv[1], "rb")))
"""


def test_a_killed_build_goes_on_and_nothing_half_written_is_read(data, params, cached, tmp_path):
  arguments = tmp_path / "arguments"
  # Compiled as in this process, for the same bits.
  environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  arguments.write_bytes(pickle.dumps((str(tmp_path), make_whole_config(data), params)))
  killed = subprocess.run([sys.executable, "-c", _KILLED, arguments], cwd=Path(__file__).parents[1], env=environment)
  assert killed.returncode == -signal.SIGKILL
  left = sorted(path.name for path in (tmp_path / "latents").iterdir())
  assert len(left) == 3 and left[0].startswith(".gid-") and left[1:] == ["building.json", "shard-00000-of-00003.npy"]
  first = (tmp_path / "latents/shard-00000-of-00003.npy").stat()
  draws = build_latent_cache(tmp_path, make_whole_config(data), params)
  assert (tmp_path / "latents/shard-00000-of-00003.npy").stat().st_ino == first.st_ino  # kept
  assert read_folder(tmp_path) == read_folder(cached[0])
  assert_same_draws(draws, cached[1])


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_shard_is_made_again(data, params, cached, tmp_path, damage):
  (tmp_path / "latents").mkdir()
  for name, content in read_folder(cached[0]).items():
    (tmp_path / "latents" / name).write_bytes(content)
  path = tmp_path / "latents" / "shard-00001-of-00003.npy"
  path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1])
  build_latent_cache(tmp_path, make_whole_config(data), params)
  assert read_folder(tmp_path) == read_folder(cached[0])


def test_another_auto_encoder_data_or_setting_replaces_the_cache(data, params, tmp_path, capsys):
  config = make_whole_config(data, sources={"loop": 1.0})
  first = build_latent_cache(tmp_path, config, params)["loop"]
  assert len(first) == 9
  before = [draw.latents for draw in first]

  def rebuild(reason, config, params):
    draws = build_latent_cache(tmp_path, config, params)
    lines = [line for line in capsys.readouterr().out.splitlines() if "made with" in line]
    assert lines == [f"{tmp_path / 'latents'}: made with another {reason}; encoding again"]
    return draws

  other = make_params(config, seed=1)
  changed = rebuild("auto-encoder", config, other)["loop"]
  np.testing.assert_array_equal(changed[4].image, np.array(first[4].image))
  assert np.abs(changed[4].latents - before[4]).max() > 0.1
  config = dataclasses.replace(config, seed=6)
  assert len(rebuild("seed", config, other)["loop"]) == 9
  changes = dict(sources={"loop": 1.0}, seed=6, latent_draws=1)
  config = make_whole_config(data, **changes)
  assert len(rebuild("latent_draws", config, other)["loop"]) == 3
  config = make_whole_config(data, **changes, augmentation=AUGMENTATION | {"max_degrees": 4.0})
  rebuild("augmentation", config, other)
  (file,) = (data / "gid_windows/loop/1.0.0").glob("*train.array_record*")
  status = file.stat()
  os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
  rebuild("data", config, other)
  os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
  assert len(list((tmp_path / "latents").glob("shard-*"))) == 1


def test_what_cannot_be_cached_is_told(data, params, tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r"live scenes never come again.*latent_draws=0"):
    build_latent_cache(tmp_path, make_whole_config(data, sources={"live": 1.0}), params)
  broken = params | {"latent_std": np.full_like(params["latent_std"], 1e-9)}
  with pytest.raises(UserError, match=r"not finite; train the auto-encoder again$"):
    build_latent_cache(tmp_path, make_whole_config(data), broken)
  usage = latent_cache.shutil.disk_usage(tmp_path)
  monkeypatch.setattr(latent_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
  with pytest.raises(UserError, match=r"latents need .* GiB, 0.0 GiB are free; free some .* lower .*latent_draws"):
    build_latent_cache(tmp_path, make_whole_config(data), params)
  assert {path.name for path in (tmp_path / "latents").iterdir()} == {"building.json"}


def test_windows_of_several_sizes_need_a_crop(data, params, tmp_path):
  write_sources(tmp_path / "data", {"real": 1}, size=(40, 48))
  config = make_whole_config(f"{data},{tmp_path / 'data'}", crop=None)
  with pytest.raises(UserError, match=r"several sizes; cut them alike with config\.data\.crop$"):
    build_latent_cache(tmp_path, config, params)


@pytest.mark.parametrize("platform, expected", [("cpu", 3), ("gpu", 3 * 16), ("tpu", 3 * 16)])
def test_accelerators_encode_more_windows_at_once(platform, expected, monkeypatch):
  monkeypatch.setattr(jax, "local_devices", lambda: 3 * [types.SimpleNamespace(platform=platform)])
  assert latent_cache.count_together() == expected
