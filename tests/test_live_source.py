"""Scenes that are simulated while training: the scene's own arrays, no file, exact resume, mixing, errors."""

import functools
import json
import os

import helpers
import numpy as np
import pytest
from PIL import Image

from configs import common, ldm, ldm_coordinated, renderer, vae
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.source import SceneRecord, SceneSource
from gid_jax.configuration import DataSettings, LiveSettings, TrainSettings
from gid_jax.data import input_pipeline as ip
from gid_jax.data.holes import draw_hole
from gid_jax.data.input_pipeline import measure_scale
from gid_jax.errors import UserError
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.parsing import parse
from gid_jax.train import open_scenes
from gid_jax.types import Window

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = dict(height=32, width=48, num_frames=20, fps=10.0)
NUM_BANDS = 4
AUGMENTATION = dict(flip=0.5, max_degrees=5.0, zoom=(1.0, 1.5), jitter=0.2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """A working folder of the test's own, which must stay empty."""
  work = tmp_path / "work"
  work.mkdir()
  monkeypatch.chdir(work)
  yield work
  assert os.listdir(work) == []


@functools.cache
def simulate(seed):
  """A scene as the source should make it."""
  return sample_scene(seed, **SIZE)


@pytest.fixture(autouse=True)
def scenes_made_once(monkeypatch):
  """Each scene of this size is simulated once for all tests: it takes 0.2 s."""
  is_plain = lambda settings: settings == SIZE | dict(backgrounds=[], sprites=[])
  make = lambda seed, **settings: simulate(seed) if is_plain(settings) else sample_scene(seed, **settings)
  monkeypatch.setattr("data_pipeline.synthetic.source.sample_scene", make)


def make_config(**changes):
  settings = dict(
    directory="",
    num_bands=NUM_BANDS,
    sources={"live": 1.0},
    live={**SIZE, "backgrounds": "", "sprites": ""},
    motion_stride=2,
    augmentation={},
    bands_per_example=2,
    crop=None,
    num_threads=1,
  )
  return parse(DataSettings, settings | changes)


def make_train_iterator(config, **settings):
  """With live scenes to open."""
  return ip.make_train_iterator(config, open_live=open_scenes(config), **settings)


def make_eval_batches(config, **settings):
  """With live scenes to open."""
  return ip.make_eval_batches(config, open_live=open_scenes(config), **settings)


def expect_example(scene, stage, found, *, crop):
  """What an example without augmentation must be, cut by hand from the middle of the scene.

  Which bands and which frame were drawn is read from `found`.
  """
  (top, left), (height, width) = crop
  cut = (slice(top, top + height), slice(left, left + width))
  picture = np.float32(scene.image[cut]) / 255
  if stage == "renderer":
    cut_frame = lambda time: np.float32(scene.frame(time)[cut]) / 255
    # Frames of a still scene are all alike, and so are its flows.
    time = next(time for time in range(1, scene.num_frames) if np.array_equal(cut_frame(time), found["target"]))
    return {
      "image": picture,
      "target": found["target"],
      "flow": scene.displacement([time])[0][cut],
      "depth": scene.mean_magnitude()[cut],
    }
  if stage == "plate":
    rng = np.random.default_rng(scene.seed)
    rng.uniform(size=4)  # of the colours
    return {"image": picture, "hole": draw_hole(rng, scene.mean_magnitude()[cut])}
  motion = scene.displacement(range(scene.num_frames))
  # The grid: means of 2 x 2 pixels, in pixels twice as large.
  coarse = motion.reshape(len(motion), 16, 2, 24, 2, 2).mean((2, 4)) / 2
  bands = np.fft.rfft(coarse, axis=0)[np.atleast_1d(found["band"])]
  grid = (slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2))
  spectrum = np.concatenate([bands.real, bands.imag], -1)[(slice(None), *grid)]
  if stage == "vae":
    return {"slice": spectrum[0], "band": found["band"]}
  return {"image": picture, "slice": spectrum, "band": found["band"]}


@pytest.mark.parametrize("stage", ip.STAGES)
def test_an_example_is_the_scenes_own_arrays(stage):
  config = make_config(crop=(16, 24))
  source, moving = SceneSource(config.live, "train", motion_stride=2), 0
  for seed in (0, 1, 2, 3):
    rng = np.random.default_rng(seed)
    found = ip.make_example(rng, source[seed], config=config, stage=stage, ranges=None, strengths=None)
    scene = simulate(seed)
    expected = expect_example(scene, stage, found, crop=((8, 12), (16, 24)))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
      np.testing.assert_allclose(found[name], array, atol=2e-4, err_msg=name)
      assert found[name].dtype == (np.int32 if name == "band" else np.float32)
    moving += bool(np.any(expected[{"renderer": "flow", "plate": "hole"}.get(stage, "slice")]))
  assert moving >= 2


SHAPES = {
  "vae": {"slice": (2, 16, 24, 4), "band": (2,)},
  "ldm": {"image": (2, 32, 48, 3), "slice": (2, 2, 16, 24, 4), "band": (2, 2)},
  "ldm_coordinated": {"image": (2, 32, 48, 3), "slice": (2, 4, 16, 24, 4), "band": (2, 4)},
  "renderer": {"image": (2, 32, 48, 3), "target": (2, 32, 48, 3), "flow": (2, 32, 48, 2), "depth": (2, 32, 48)},
  "plate": {"image": (2, 32, 48, 3), "hole": (2, 32, 48, 1)},
}


@pytest.mark.parametrize("stage", ip.STAGES)
def test_batches_of_live_scenes(stage):
  config = make_config()
  (batch,) = helpers.take(make_train_iterator(config, stage=stage, seed=0, batch_size=2), 1)
  assert {name: array.shape for name, array in batch.items()} == SHAPES[stage] | {"record": (2,)}
  seeds = [int(place.removeprefix("live scene ")) for place in ip.name_records(config, batch["record"])]
  for example, seed in enumerate(seeds):
    image = np.float32(simulate(seed).image) / 255
    assert stage == "vae" or np.array_equal(batch["image"][example], image)
  make = lambda: list(make_eval_batches(config, stage=stage, batch_size=2, num_batches=1))
  validation = make()
  assert [{name: array.shape for name, array in batch.items()} for batch in validation] == [SHAPES[stage]]
  helpers.assert_same_batches(validation, make())


def test_only_what_a_stage_needs_is_made(monkeypatch):
  made, scene = [], simulate(0)

  class WatchedScene:
    image = scene.image

    def __getattr__(self, name):
      made.append(name)
      return getattr(scene, name)

  # Threads of another test's iterator may still make scenes.
  record, make_scene = SceneRecord(10**7, SIZE, motion_stride=2), SceneRecord.make_scene
  watch = lambda self: WatchedScene() if self is record else make_scene(self)
  monkeypatch.setattr(SceneRecord, "make_scene", watch)
  for stage in ip.STAGES:
    made.clear()
    ip.make_example(np.random.default_rng(0), record, config=make_config(), stage=stage, ranges=None, strengths=None)
    needed = {"renderer": ["displacement", "frame", "mean_magnitude"], "plate": ["mean_magnitude"]}
    assert sorted(made) == needed.get(stage, ["spectral_volume"])


def test_seeds_are_divided_between_training_and_validation():
  train, validation = (
    SceneSource(LiveSettings(**SIZE), split, motion_stride=2, num_scenes=95) for split in ("train", "validation"))
  seeds = [[source[i].seed for i in range(len(source))] for source in (train, validation)]
  assert seeds[1] == list(range(9, 95, 10))
  assert seeds[0] == [seed for seed in range(95) if seed % 10 != 9]
  for source in (train, validation):
    for index in (-1, len(source)):
      with pytest.raises(IndexError):
        source[index]
  assert len(SceneSource(LiveSettings(**SIZE), "train", motion_stride=2)) == 900_000


@pytest.mark.parametrize("stage", ["vae", "renderer"])
def test_resume_is_exact(stage):
  config = make_config(augmentation=AUGMENTATION)
  make = lambda seed: make_train_iterator(config, stage=stage, batch_size=1, seed=seed)
  iterator = make(3)
  helpers.take(iterator, 1)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = helpers.take(iterator, 3)
  resumed = make(3)
  resumed.set_state(state)
  helpers.assert_same_batches(helpers.take(resumed, 3), expected)
  name = "slice" if stage == "vae" else "image"
  assert any(not np.array_equal(a[name], b[name]) for a, b in zip(helpers.take(make(4), 3), expected, strict=True))


def test_photos_and_cut_outs_come_from_folders(tmp_path):
  for name, mode, colour in (("photos", "RGB", (250, 5, 5)), ("cutouts", "RGBA", (5, 250, 5, 255))):
    (tmp_path / name).mkdir()
    Image.new(mode, (64, 64), colour).save(tmp_path / name / "a.png")
  folders = dict(backgrounds=str(tmp_path / "photos"), sprites=str(tmp_path / "cutouts"))
  given = dict(backgrounds=load_backgrounds(tmp_path / "photos"), sprites=load_sprites(tmp_path / "cutouts"))
  source, num_changed = SceneSource(LiveSettings(**SIZE, **folders), "train", motion_stride=2), 0
  for seed in range(4):
    image = source[seed].make_scene().image
    np.testing.assert_array_equal(image, sample_scene(seed, **SIZE, **given).image)
    num_changed += not np.array_equal(image, simulate(seed).image)
  assert num_changed > 1


# Beside stored windows


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
  """A data folder whose pixels are all black and whose bands are all 7."""
  directory, shape = tmp_path_factory.mktemp("data"), (32, 48)
  window = Window(
    image=np.zeros((*shape, 3), np.uint8),
    spectrum=np.full((NUM_BANDS, 16, 24, 4), 7, np.float32),
    frames=np.zeros((1, *shape, 3), np.uint8),
    flows=np.zeros((1, *shape, 2), np.float32),
    depth=np.zeros(shape, np.float32),
    scene="black",
    source="real",
  )
  splits = {"train": [window, window], "validation": [window]}
  helpers.write_dataset(directory, "real", splits, statistics={"scale": [5.0, 4.0, 3.0, 2.0]})
  return str(directory)


def test_live_scenes_mix_with_stored_windows(stored):
  config = make_config(directory=stored, sources={"real": 0.25, "live": 0.75})
  batches = helpers.take(make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=4), 3)
  is_stored = np.concatenate([np.all(np.abs(batch["slice"] - 7) < 0.01, axis=(1, 2, 3, 4)) for batch in batches])
  assert is_stored.mean() == 0.25
  # Validation and scale are the folder's.
  (batch, *_) = make_eval_batches(config, stage="ldm_coordinated", batch_size=4, num_batches=1)
  np.testing.assert_allclose(batch["slice"], 7, atol=0.01)
  np.testing.assert_array_equal(ip.find_scale(config, open_live=open_scenes(config)), np.float32([5, 4, 3, 2]))


def test_a_weight_of_zero_reads_the_folder_as_without_it(stored):
  configs = [make_config(directory=stored, sources=sources) for sources in ({}, {"live": 0.0})]
  without, live = (
    helpers.take(make_train_iterator(config, stage="ldm", seed=0, batch_size=2), 3) for config in configs)
  helpers.assert_same_batches(live, without)


def test_the_order_of_stored_windows_does_not_depend_on_live_scenes():
  numbers = lambda **sources: [source for source in ip._mix_sources(
    {"live": [-1] * 100, "loop": range(50), "real": range(50, 100)}, sources, 3)[:40] if source >= 0]
  without, mixed = numbers(loop=1, real=1, live=0), numbers(loop=1, real=1, live=1)
  assert len(set(without)) > 20 and mixed == without[: len(mixed)]


# The scale


def test_the_scale_is_the_percentile_of_the_first_scenes():
  source = SceneSource(LiveSettings(**SIZE), "train", motion_stride=2)
  magnitudes = []
  for seed in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10):
    motion = simulate(seed).displacement(range(20)).reshape(20, 16, 2, 24, 2, 2).mean((2, 4)) / 2
    magnitudes.append(np.abs(np.fft.rfft(motion, axis=0)[:NUM_BANDS]).reshape(NUM_BANDS, -1))
  expected = np.percentile(np.concatenate(magnitudes, 1), 95, axis=1)
  scale = measure_scale(source, num_bands=NUM_BANDS, num_scenes=10)
  np.testing.assert_allclose(scale, expected, rtol=0.02)
  assert scale.dtype == np.float32


def test_the_scale_of_live_scenes_alone(monkeypatch):
  measured = []

  def measure(source, *, num_bands):
    measured.append((source[9].seed, num_bands))
    return np.ones(num_bands)

  monkeypatch.setattr(ip, "measure_scale", measure)
  ip.find_scale(make_config(), open_live=open_scenes(make_config()))
  assert measured == [(10, NUM_BANDS)]  # training scenes


# Settings


@pytest.mark.parametrize(
  ("stage", "changes", "message"),
  [
    ("vae", {"sources": {"live": 0.0}}, r"directory is empty; name a data folder, or give .*sources\.live=1"),
    ("vae", {"sources": {"live": 0.0, "real": 0.0}}, "directory is empty"),
    ("vae", {"sources": {"real": 0.4, "live": 1.0, "loop": 0.1}},
     r"sources\.loop=0\.1, but the data has only live; .*give --config\.data\.sources\.loop=0 .*sources\.real=0"),
    ("vae", {"live": {**SIZE, "fps": 0}}, r"config\.data\.live\.fps=0"),
    ("vae", {"live": {**SIZE, "height": 8}}, r"config\.data\.live\.height=8; live scenes need it, 16 or more"),
    ("vae", {"live": {**SIZE, "width": 47}}, "32x47 px; both sides must be multiples of .*motion_stride=2"),
    ("ldm", {"live": {**SIZE, "backgrounds": "nowhere"}}, "no readable picture .* in nowhere"),
    ("ldm", {"live": {**SIZE, "sprites": "nowhere"}}, "no readable picture .* in nowhere"),
    ("vae", {"num_bands": 12}, r"live scene \d+ has 11 bands but config\.data\.num_bands=12; lower it"),
    ("renderer", {"crop": (64, 64)}, r"live scene \d+ is 32x48 but config\.data\.crop=\(64, 64\)"),
  ],
)
def test_settings_that_do_not_fit_are_user_errors(stage, changes, message):
  config = make_config(**changes)
  with pytest.raises(UserError, match=message) as caught:
    next(make_train_iterator(config, stage=stage, seed=0, batch_size=2))
  assert "\n" not in str(caught.value)


def test_the_scale_needs_so_many_bands():
  with pytest.raises(UserError, match=r"live scenes have 11 bands but config\.data\.num_bands=12"):
    measure_scale(SceneSource(LiveSettings(**SIZE), "train", motion_stride=2), num_bands=12)


@pytest.mark.parametrize("size", common.SIZES)
def test_every_config_can_have_live_scenes(size):
  # Ours have no auto-encoder to train (`test_configs.py`).
  stages = (ldm, ldm_coordinated, renderer) if common.fits_photo(size) else (vae, ldm, ldm_coordinated, renderer)
  for module in stages:
    config = parse(TrainSettings, module.get_config(size))
    assert config.data.sources["live"] == 0
    source = SceneSource(config.data.live, "train", motion_stride=config.data.motion_stride)
    assert source[0].num_bands >= config.data.num_bands
    assert (config.data.live.height, config.data.live.width) == config.model.image_size
