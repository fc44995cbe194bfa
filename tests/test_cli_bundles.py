"""The `gid` command on `.gid` files, written beside the video and rendered without sampling, and its editing."""

import os
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from motion_volumes import make_volume
from PIL import Image

from gid_jax import pipeline, rendering
from gid_jax.app import cli
from gid_jax.app.checks import parse_bands
from gid_jax.bundle import Bundle, load_bundle, save_bundle
from gid_jax.media import clips
from gid_jax.motion.editing import choose_bands, mask_motion, turn_motion


class FakeRenderer:
  """Stands in for the engine: records what it was asked, and gives frames of grey."""

  calls: ClassVar[list] = []
  period = 2.0
  num_bands = 4
  motion_settings = types.SimpleNamespace(label="of the test")

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, *, steps=None, loop=False, progress=None):
    self.calls.append(("predict", steps, loop))
    return make_volume(scale=0.5)

  def render(self, image, spectrum, **options):
    self.calls.append(("render", image, spectrum, options))
    for _ in range(options["frames"]):
      yield np.full((32, 48, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def calls(monkeypatch, tmp_path):
  """A working folder with a photo and a bundle, and the calls that reach the engine."""
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.setattr(FakeRenderer, "calls", [])
  monkeypatch.setattr(pipeline, "Animator", FakeRenderer)
  monkeypatch.setattr(rendering, "ImageRenderer", FakeRenderer)
  monkeypatch.chdir(tmp_path)
  photo = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
  Image.fromarray(photo).save("beach.png")
  save_bundle("pond.gid", Bundle(photo, make_volume(seed=1, scale=0.5), settings={"loop": False}))
  return FakeRenderer.calls


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert cli.main(["animate", *map(str, arguments)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("gid: error: ")
  assert match in lines[0]
  assert sorted(os.listdir()) == before


def test_save_writes_what_was_sampled_beside_the_video(calls, capsys):
  assert cli.main(["animate", "beach.png", "--frames", "3", "--seed", "5", "--steps", "4", "--save", "x.gid"]) == 0
  assert sorted(os.listdir()) == ["beach.png", "beach_animated.mp4", "pond.gid", "x.gid"]
  assert capsys.readouterr().out.splitlines()[-1].startswith("Wrote x.gid: ")
  bundle = load_bundle("x.gid")
  np.testing.assert_array_equal(bundle.photo, np.asarray(Image.open("beach.png")))
  np.testing.assert_allclose(bundle.spectrum.coefficients, make_volume(scale=0.5).coefficients, rtol=1e-3)
  assert (bundle.seed, bundle.settings, bundle.weights_label) == (5, {"steps": 4, "loop": False}, "of the test")


def test_save_never_overwrites_without_force_and_is_checked_first(calls, capsys):
  Path("x.gid").write_bytes(b"precious")
  Path("folder.gid").mkdir()
  assert_refused(capsys, "beach.png", "--save", "x.gid", match="x.gid already exists; use --force")
  assert_refused(capsys, "beach.png", "--save", "x.mp4", match="unknown bundle format '.mp4'; use .gid")
  assert_refused(capsys, "beach.png", "--save", "no/x.gid", match="the folder no does not exist")
  assert_refused(capsys, "beach.png", "--save", "folder.gid", match="is a folder")
  assert calls == [] and Path("x.gid").read_bytes() == b"precious"
  assert cli.main(["animate", "beach.png", "--frames", "3", "--save", "x.gid", "--force"]) == 0
  assert load_bundle("x.gid").seed == 0


def test_a_bundle_is_rendered_without_sampling(calls, capsys):
  options = ["--frames", "4", "--fps", "20", "--magnify", "3", "--wind", "calm", "--size", "64"]
  assert cli.main(["animate", "pond.gid", *options]) == 0
  ((kind, image, spectrum, asked),) = calls
  expected = load_bundle("pond.gid")
  assert kind == "render" and asked == {"frames": 4, "fps": 20, "magnify": 1.5, "size": 64}
  np.testing.assert_array_equal(np.round(image * 255), expected.photo)
  np.testing.assert_array_equal(spectrum.coefficients, expected.spectrum.coefficients)
  assert len(clips.read_clip("pond_animated.mp4").frames) == 4
  assert capsys.readouterr().out.splitlines()[-1].startswith("Wrote pond_animated.mp4: 48x32, 4 frames")


def test_a_saved_loop_is_a_loop_again(calls):
  assert cli.main(["loop", "beach.png", "--fps", "10", "--save", "loop.gid"]) == 0
  assert cli.main(["loop", "loop.gid", "--fps", "12.3"]) == 0
  assert cli.main(["animate", "loop.gid", "--duration", "0.7", "--fps", "20", "--output", "short.mp4"]) == 0
  assert cli.main(["animate", "loop.gid", "--frames", "7", "--output", "part.mp4"]) == 0
  asked = [options for kind, *_, options in calls if kind == "render"]
  assert [(options["frames"], options["fps"]) for options in asked] == [(20, 10), (25, 12.5), (14, 20), (7, 30)]


def test_a_bundle_is_refused_what_only_sampling_can_do(calls, capsys):
  for option in (["--seed", 1], ["--steps", 3], ["--save", "y.gid"]):
    match = f"{option[0]} is for photos; the motion in pond.gid is sampled already"
    assert_refused(capsys, "pond.gid", *option, match=match)
  assert calls == []


def test_broken_bundles_are_one_line(calls, capsys):
  Path("cut.gid").write_bytes(Path("pond.gid").read_bytes()[:-9])
  Path("photo.gid").write_bytes(Path("beach.png").read_bytes())
  Path("empty.gid").touch()
  assert_refused(capsys, "cut.gid", match="cut.gid: damaged, or not a .gid file")
  assert_refused(capsys, "photo.gid", match="photo.gid: damaged, or not a .gid file")
  assert_refused(capsys, "empty.gid", match="empty.gid is empty")
  assert_refused(capsys, "missing.gid", match="cannot read missing.gid: no such file")
  assert calls == []


# Editing


def save_mask(path, *, size=(32, 48), white=slice(24, None)):
  pixels = np.zeros(size, np.uint8)
  pixels[:, white] = 255
  Image.fromarray(pixels).save(path)


def find_rendered(calls):
  """The coefficients that were rendered last."""
  return np.asarray(calls[-1][2].coefficients)


@pytest.mark.parametrize("source", ["beach.png", "pond.gid"])
def test_edits_reach_the_renderer(calls, source):
  save_mask("white.png")
  volume = make_volume(scale=0.5) if source == "beach.png" else load_bundle(source).spectrum
  run = lambda *options: cli.main(["animate", source, "--frames", "2", "--force", *options])
  assert run("--bands", "1-2, 3") == 0
  np.testing.assert_allclose(find_rendered(calls), choose_bands(volume, [1, 2, 3]).coefficients)
  assert run("--direction", "30") == 0
  np.testing.assert_allclose(find_rendered(calls), turn_motion(volume, 30, pixel_aspect=6 / (32 / 6)).coefficients)
  right = np.zeros((32, 48), np.float32)
  right[:, 24:] = 1
  assert run("--mask", "white.png") == 0
  np.testing.assert_allclose(find_rendered(calls), mask_motion(volume, right).coefficients)
  assert run("--still", "white.png") == 0
  np.testing.assert_allclose(find_rendered(calls), mask_motion(volume, 1 - right).coefficients)
  assert run("--mask", "white.png", "--still", "white.png") == 0
  assert (find_rendered(calls) == 0).all()
  assert run() == 0
  np.testing.assert_array_equal(find_rendered(calls), volume.coefficients)


def test_what_is_saved_is_not_edited(calls):
  save_mask("white.png")
  options = ["--bands", "1", "--mask", "white.png", "--direction", "90", "--speed", "0.5", "--frames", "2"]
  assert cli.main(["animate", "beach.png", *options, "--save", "x.gid"]) == 0
  assert not (find_rendered(calls) == make_volume(scale=0.5).coefficients).all()
  np.testing.assert_allclose(load_bundle("x.gid").spectrum.coefficients, make_volume(scale=0.5).coefficients, rtol=1e-3)


def test_slow_motion_lies_closer_in_time(calls):
  run = lambda *options: cli.main(["animate", "--force", "--speed", "0.25", *options])
  assert run("pond.gid", "--frames", "5", "--fps", "20") == 0
  assert run("pond.gid", "--fps", "20") == 0
  assert run("beach.png", "--fps", "20") == 0
  asked = [options for kind, *_, options in calls if kind == "render"]
  # The period is 2 s, in slow motion 8 s.
  assert [(options["frames"], options["fps"]) for options in asked] == [(5, 80), (160, 80), (160, 80)]
  clip = clips.read_clip("beach_animated.mp4")
  np.testing.assert_allclose(np.diff(clip.times), 1 / 20, atol=1e-3)


def test_masks_of_another_size_and_of_another_photo(calls, capsys):
  save_mask("large.png", size=(320, 480), white=slice(240, None))
  save_mask("same.png")
  save_mask("tall.png", size=(48, 32))
  found = []
  for name in ("large.png", "same.png"):
    assert cli.main(["animate", "pond.gid", "--frames", "2", "--force", "--mask", name]) == 0
    found.append(find_rendered(calls))
  np.testing.assert_allclose(*found)
  calls.clear()
  Path("text.png").write_text("not a picture")
  match = "tall.png is 32 x 48 and the photo 48 x 32 pixels"
  for source in ("pond.gid", "beach.png"):
    assert_refused(capsys, source, "--output", "o.mp4", "--mask", "tall.png", match=match)
    assert_refused(capsys, source, "--output", "o.mp4", "--still", "missing.png", match="cannot read missing.png")
    assert_refused(capsys, source, "--output", "o.mp4", "--still", "text.png", match="text.png is not an image")
  assert calls == []


def test_refuses_edits_that_make_no_sense_before_sampling(calls, capsys):
  for source in ("pond.gid", "beach.png"):
    for bands in ("", "a", "3-1", "1,", "-1", "1.5", "99999", "\u0663"):
      assert_refused(capsys, source, f"--bands={bands}", match="give numbers and ranges such as 1-4,7")
    assert_refused(capsys, source, "--bands", "2-9", match="no band 4; this motion has the bands 0 to 3")
    assert_refused(capsys, source, "--direction", "nan", match="--direction is nan")
    for speed in ("0", "-1", "nan", "100"):
      assert_refused(capsys, source, "--speed", speed, match="--speed is")
  assert calls == []


def test_bands_are_parsed():
  assert parse_bands("1-4,7") == (1, 2, 3, 4, 7)
  assert parse_bands(" 0 , 2 - 3 ") == (0, 2, 3)


def test_a_film_is_not_edited(calls, capsys, monkeypatch):
  monkeypatch.setattr("gid_jax.media.shots.is_video", lambda path: True)
  save_mask("white.png")
  for option in (["--bands", 1], ["--mask", "white.png"], ["--still", "white.png"], ["--direction", 5],
                 ["--speed", 2], ["--save", "x.gid"]):
    assert_refused(capsys, "beach.png", *option, match=f"{option[0]} is for photos; the motion of the video")
