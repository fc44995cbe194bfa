"""The `gid` command on `.gid` files: written beside the video, and rendered again without sampling."""

import os
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from motion_volumes import make_volume
from PIL import Image

from gid_jax import pipeline
from gid_jax.app import cli
from gid_jax.bundle import Bundle, load_bundle, save_bundle
from gid_jax.media import clips


class FakeRenderer:
  """Stands in for the engine: records what it was asked, and gives frames of grey."""

  calls: ClassVar[list] = []
  period = 2.0
  motion_settings = types.SimpleNamespace(label="of the test")

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, *, steps=None, loop=False, progress=None):
    self.calls.append(("predict", steps, loop))
    return make_volume()

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
  monkeypatch.setattr(pipeline, "ImageRenderer", FakeRenderer)
  monkeypatch.chdir(tmp_path)
  photo = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
  Image.fromarray(photo).save("beach.png")
  save_bundle("pond.gid", Bundle(photo, make_volume(seed=1), settings={"loop": False}))
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
  np.testing.assert_allclose(bundle.spectrum.coefficients, make_volume().coefficients, rtol=1e-3)
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
  assert cli.main(["animate", "beach.png", "--loop", "--fps", "10", "--save", "loop.gid"]) == 0
  assert cli.main(["animate", "loop.gid", "--fps", "12.3"]) == 0
  assert cli.main(["animate", "loop.gid", "--frames", "7", "--output", "part.mp4"]) == 0
  asked = [options for kind, *_, options in calls if kind == "render"]
  assert [(options["frames"], options["fps"]) for options in asked] == [(20, 10), (25, 12.5), (7, 30)]


def test_a_bundle_is_refused_what_only_sampling_can_do(calls, capsys):
  for option in (["--seed", 1], ["--steps", 3], ["--loop"], ["--save", "y.gid"]):
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
