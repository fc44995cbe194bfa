"""Clips to judge by: which are taken, and whether their measured motion is the true one, measured once."""

import dataclasses

import helpers
import numpy as np
import pytest

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.configuration import ModelSettings
from gid_jax.errors import UserError
from gid_jax.evaluation import scenes
from gid_jax.media.encoding import write_video
from gid_jax.parsing import Part

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = ModelSettings(
  codec=Part("paper"), encoder=Part("condition"), denoiser=Part("unet"),
  image_size=(48, 64), num_frames=24, fps=30.0, num_bands=4, motion_stride=2,
)  # fmt: skip
AMPLITUDE, BAND = 1.5, 2


def write_clip(path, *, amplitude=AMPLITUDE, seed=0):
  """A textured picture, twice the model's size, whose right half swings by `amplitude` px of the model's grid in x."""
  rng = np.random.default_rng(seed)
  big = np.kron(rng.uniform(0.2, 0.8, (30, 40, 3)), np.ones((8, 8, 1)))
  smooth = 0.5 * big + 0.5 * helpers.smooth_image(240, 320)

  def frame(time):
    swing = 2 * amplitude * np.sin(2 * np.pi * BAND * time / MODEL.num_frames)
    x = np.arange(128) + 80 - swing * (np.arange(128) >= 64)
    low = np.floor(x).astype(int)
    share = (x - low)[:, None]
    rows = smooth[60:156]
    return np.uint8(255 * ((1 - share) * rows[:, low] + share * rows[:, low + 1]))

  write_video(path, map(frame, range(30)), fps=30.0, quality=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("clips") / "films"
  folder.mkdir()
  for seed, name in enumerate(("fern_0", "fern_1", "moss")):
    write_clip(folder / f"{name}.mp4", seed=seed)
  table = "file,scene,tier\nfern_0.mp4,fern,A\nfern_1.mp4,fern,B\nmoss.mp4,moss,A\n"
  folder.with_suffix(".csv").write_text(table)
  return folder


def test_clips_are_chosen_by_tier_and_scene(folder):
  names = lambda **options: [file.path.stem for file in scenes.list_clips(folder, **options)]
  assert names() == ["fern_0", "moss"]
  assert names(tiers=("A", "B")) == ["fern_0", "fern_1", "moss"]
  assert names(scenes=("moss",)) == ["moss"] == names(exclude=("fern",))
  assert names(tiers=("A", "B"), takes=1) == ["fern_0", "moss"] and names(tiers=("A", "B"), takes=2)[1] == "fern_1"
  with pytest.raises(UserError, match=r"no scene oak; see .*films\.csv"):
    names(scenes=("oak",))
  with pytest.raises(UserError, match="no clip of tier A is left"):
    names(exclude=("fern", "moss"))


def test_a_scene_without_a_table_has_the_name_of_its_file(folder, tmp_path):
  write_clip(tmp_path / "ivy.mp4")
  assert [file.scene for file in scenes.list_clips(tmp_path)] == ["ivy"]


def test_measured_motion_is_the_true_one_and_is_measured_once(folder, tmp_path, monkeypatch):
  file = scenes.list_clips(folder, scenes=("moss",))[0]
  read = lambda: scenes.read_clip(file, MODEL, source="real", cache=tmp_path)
  scene = read()
  assert scene.frames.shape == (24, 48, 64, 3) and scene.volume.coefficients.shape == (4, 24, 32, 4)
  assert scene.confidence.shape == (24, 32) and (scene.name, scene.scene) == ("moss", "moss")
  # A sine of amplitude A has |X| = A T / 2 in its band, here in pixels of the motion grid; away from the cut and rim.
  modulus = np.hypot(scene.volume.coefficients[..., 0], scene.volume.coefficients[..., 2])
  truth = AMPLITUDE / MODEL.motion_stride * MODEL.num_frames / 2
  np.testing.assert_allclose(np.median(modulus[BAND, 4:-4, 19:29]), truth, rtol=0.1)
  assert np.median(modulus[BAND, 4:-4, 3:13]) < 0.05 * truth > np.median(modulus[3, 4:-4, 19:29])
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])  # what is damaged is measured again
  read()
  assert path.read_bytes() == whole
  monkeypatch.setattr(scenes, "measure_motion", None)
  again = read()
  np.testing.assert_array_equal(again.volume.coefficients, scene.volume.coefficients)
  np.testing.assert_array_equal(again.confidence, scene.confidence)


def test_simulated_scenes_move_and_are_repeatable():
  model = dataclasses.replace(MODEL, num_frames=150)
  found = list(scenes.simulate_scenes(sample_scene, range(10**6, 10**6 + 4), model))
  assert found and all(scene.volume.coefficients.any() for scene in found)
  seed = int(found[-1].name.split("-")[1])
  again = next(iter(scenes.simulate_scenes(sample_scene, [seed], model)))
  np.testing.assert_array_equal(again.volume.coefficients, found[-1].volume.coefficients)
  np.testing.assert_array_equal(again.image, found[-1].image)
