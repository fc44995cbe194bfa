"""`gid animate` of several inputs: one model, one video each, and a broken one does not stop the others."""

import os
import signal
import threading
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from motion_volumes import make_volume
from PIL import Image

from gid_jax import pipeline, rendering
from gid_jax.app import batch, cli, moving
from gid_jax.bundle import Bundle, save_bundle
from gid_jax.media import clips


class FakeAnimator:
  """Stands in for the engine: counts how often it is loaded, and shows the photo's own mean."""

  loaded = 0
  images: ClassVar[list] = []
  prepared: ClassVar[list] = []
  failure: BaseException | None = None
  motion_settings = types.SimpleNamespace(label="")

  @classmethod
  def from_pretrained(cls, directory=None):
    FakeAnimator.loaded += 1
    return cls()

  period = 5.0

  def prepare(self, height, width, **options):
    self.prepared.append((height, width))

  def predict_spectrum(self, key, image, **options):
    return make_volume(scale=0.5)

  def render(self, image, spectrum, *, frames, **options):
    self.images.append(image)
    for index in range(frames):
      if index == 1 and len(self.images) == 2 and self.failure is not None:
        raise self.failure
      yield np.full((32, 48, 3), round(255 * image.mean()), np.uint8)


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
  """A working folder with the photos a.png, b.jpg and photos/c.png, photos/d.JPG, each of its own grey."""
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.setattr(FakeAnimator, "loaded", 0)
  monkeypatch.setattr(FakeAnimator, "images", [])
  monkeypatch.setattr(FakeAnimator, "prepared", [])
  monkeypatch.setattr(FakeAnimator, "failure", None)
  monkeypatch.setattr(pipeline, "Animator", FakeAnimator)
  monkeypatch.setattr(rendering, "ImageRenderer", FakeAnimator)
  monkeypatch.chdir(tmp_path)
  Path("photos").mkdir()
  for grey, name in enumerate(("a.png", "b.jpg", "photos/c.png", "photos/d.JPG")):
    Image.new("RGB", (48, 32), (40 + 50 * grey,) * 3).save(name)
  return FakeAnimator


def find_greys(engine):
  return [round(255 * float(image.mean())) for image in engine.images]


def list_files():
  return sorted(str(path) for path in Path().rglob("*") if path.is_file())


INPUTS = ["a.png", "b.jpg", "photos/c.png", "photos/d.JPG"]


def run(*arguments):
  return cli.main(["animate", *arguments, "--frames", "2"])


def test_every_input_gets_its_video_from_one_model(engine, capsys):
  assert run("b.jpg", "a.png", "photos") == 0
  assert find_greys(engine) == [90, 40, 140, 190] and engine.loaded == 1
  videos = ["a_animated.mp4", "b_animated.mp4", "photos/c_animated.mp4", "photos/d_animated.mp4"]
  assert list_files() == sorted([*INPUTS, *videos])
  for name, grey in zip(videos, (40, 90, 140, 190), strict=True):
    np.testing.assert_allclose(clips.read_clip(name).frames.mean(), grey, atol=3)
  streams = capsys.readouterr()
  assert streams.out.splitlines()[-1] == "4 animated, 0 failed" and streams.err == ""
  assert streams.out.count("Wrote ") == 4


def test_the_next_photo_is_prepared_for(engine, monkeypatch):
  class Now(threading.Thread):
    def start(self):
      self.run()

  monkeypatch.setattr(moving.threading, "Thread", Now)
  Image.new("RGB", (20, 60)).save("photos/d.JPG")
  Path("e.jpg").write_text("no photo")
  assert run("a.png", "photos/d.JPG", "e.jpg", "b.jpg") == 2
  assert engine.prepared == [(32, 48), (60, 20), (60, 20), (32, 48)]


def test_a_pattern_stands_for_what_it_matches(engine):
  assert run("photos/*.[Jp]*", "photos/c.png") == 0
  assert find_greys(engine) == [140, 190]
  os.rename("a.png", "a[1].png")  # a file of such a name is no pattern
  assert run("a[1].png", "--output", "out.mp4") == 0
  assert find_greys(engine)[2:] == [40]
  assert run("photos/c*.png", "--force") == 0  # also when it is alone
  assert find_greys(engine)[3:] == [140]


def test_a_folder_gives_its_photos_only(engine):
  assert run("photos") == 0  # also when it is alone
  assert find_greys(engine) == [140, 190]
  engine.images.clear()
  Path("photos/notes.txt").write_text("none")
  Path("photos/old_animated.mp4").write_bytes(b"none")
  Path("photos/old_animated_2.webp").write_bytes(b"none")
  Path("photos/old_loop.png").write_bytes(b"none")
  Path("photos/.hidden.png").write_bytes(b"none")
  Path("photos/inner.png").mkdir()
  assert run("photos", "a.png") == 0
  assert find_greys(engine) == [140, 190, 40]


def test_videos_go_into_the_folder_that_is_asked_for(engine):
  assert run("a.png", "photos", "--output", "new/folder") == 0
  assert sorted(os.listdir("new/folder")) == ["a_animated.mp4", "c_animated.mp4", "d_animated.mp4"]
  assert run("a.png", "b.jpg", "--output", "new/folder") == 0  # a's is there
  assert sorted(os.listdir("new/folder"))[:3] == ["a_animated.mp4", "a_animated_2.mp4", "b_animated.mp4"]
  assert run("a.png", "b.jpg", "--output", "new/folder", "--force") == 0
  assert len(os.listdir("new/folder")) == 5
  assert find_greys(engine) == [40, 140, 190, 40, 90, 40, 90]


def test_a_broken_input_is_named_and_the_others_go_on(engine, capsys):
  Path("text.jpg").write_text("not a photo\n" * 50)
  Path("empty").mkdir()
  Path("b_animated.mp4").write_bytes(b"precious")
  assert run("missing.jpg", "a.png", "text.jpg", "none*.jpg", "empty", "b.jpg", "photos/c.png") == 2
  streams = capsys.readouterr()
  lines = streams.err.splitlines()
  assert all(line.startswith("gid: error: ") for line in lines)
  expected = (
    "cannot read missing.jpg: no such file", "text.jpg is not an image", "cannot read none*.jpg: no such file",
    "empty holds no photos",
  )  # fmt: skip
  assert len(lines) == len(expected)
  for line, match in zip(lines, expected, strict=True):
    assert match in line
  assert streams.out.splitlines()[-1] == "3 animated, 4 failed: missing.jpg, text.jpg, none*.jpg, empty"
  assert find_greys(engine) == [40, 90, 140] and engine.loaded == 1
  assert Path("b_animated.mp4").read_bytes() == b"precious"


def test_two_inputs_never_share_a_video(engine, capsys):
  Image.new("RGB", (48, 32)).save("photos/a.jpg")
  assert run("a.png", "photos/a.jpg", "b.jpg", "--output", "out", "--force") == 2
  error = capsys.readouterr().err
  assert error == "gid: error: photos/a.jpg: out/a_animated.mp4 is already that of a.png; rename one of them\n"
  assert find_greys(engine) == [40, 90]


def test_what_gid_has_written_is_no_photo_but_what_others_call_so_is(engine):
  Path("inner").mkdir()
  for name in ("gid_demo.webp", "gid_demo_2.png", "a_loop.png", "b_animated_3.webp", "garden_loop.jpg", "gid_demo.jpg"):
    Image.new("RGB", (48, 32)).save(f"inner/{name}")
  assert run("inner", "--output", "out") == 0
  assert sorted(os.listdir("out")) == ["garden_loop_animated.mp4", "gid_demo_animated.mp4"]


def test_a_folder_that_may_not_be_read_is_not_called_empty(engine, monkeypatch, capsys):
  access = os.access
  monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path("closed") and access(path, mode))
  Path("closed").mkdir()
  assert run("closed", "a.png") == 2
  assert capsys.readouterr().err == "gid: error: cannot read closed: permission denied\n"


def test_no_input_is_replaced_by_the_video_of_another(engine, capsys):
  Image.new("RGB", (48, 32), (40, 40, 40)).save("a_animated.png")
  os.rename("a_animated.png", "a_animated.mp4")  # by its name the video of a.png, by its bytes a photo
  before = Path("a_animated.mp4").read_bytes()
  assert run("a.png", "a_animated.mp4", "b.jpg", "--force") == 2
  error = capsys.readouterr().err.splitlines()[0]
  assert error == "gid: error: a.png: a_animated.mp4 is an input itself; choose another --output"
  assert Path("a_animated.mp4").read_bytes() == before
  assert "b_animated.mp4" in list_files()


def test_photos_and_bundles_may_come_together(engine):
  save_bundle("pond.gid", Bundle(np.full((32, 48, 3), 77, np.uint8), make_volume(scale=0.5)))
  assert run("a.png", "pond.gid") == 0
  assert find_greys(engine) == [40, 77]


def test_a_fault_of_ours_in_one_stops_no_other(engine, capsys, monkeypatch):
  monkeypatch.setattr(engine, "failure", ZeroDivisionError("a fault\nof ours"))
  assert run("a.png", "b.jpg", "photos/c.png") == 2
  streams = capsys.readouterr()
  assert streams.err.startswith("gid: error: b.jpg: ZeroDivisionError: a fault; this should not have happened")
  assert streams.out.splitlines()[-1] == "2 animated, 1 failed: b.jpg"
  assert list_files() == sorted([*INPUTS, "a_animated.mp4", "photos/c_animated.mp4"])


def test_an_interrupt_ends_all_and_says_what_is_done(engine, capsys, monkeypatch):
  monkeypatch.setattr(engine, "failure", KeyboardInterrupt())
  assert run("a.png", "b.jpg", "photos/c.png") == 130
  assert capsys.readouterr().err == "gid: interrupted; 1 animated, 0 failed\n"
  assert list_files() == sorted([*INPUTS, "a_animated.mp4"])


def test_sigterm_ends_all_and_says_what_is_done(engine, capsys, monkeypatch):
  def render(self, image, spectrum, **options):
    yield np.zeros((32, 48, 3), np.uint8)
    signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(engine, "render", render)
  assert run("a.png", "b.jpg") == 143
  assert capsys.readouterr().err == "gid: terminated; 0 animated, 0 failed\n"
  assert list_files() == INPUTS


@pytest.mark.parametrize(
  "options, match",
  [
    (["--output", "out.mp4"], "--output out.mp4: with several inputs, give a folder"),
    (["--output", "b.jpg"], "--output b.jpg: with several inputs, give a folder"),
    (["--output", "b.jpg/new"], "cannot make the folder b.jpg/new"),
    (["--save", "x.gid"], "--save x.gid: give one photo"),
    (["--fps", "0"], "--fps is 0"),
    (["--mask", "missing.png"], "cannot read missing.png"),
  ],
)
def test_wrong_options_are_said_once(engine, capsys, options, match):
  assert run("a.png", "b.jpg", *options) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"gid: error: {match}")
  assert list_files() == INPUTS and engine.loaded == 0


def test_folders_that_cannot_be_read_hold_nothing(monkeypatch):
  def refuse(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(Path, "iterdir", refuse)
  request = cli.AnimateRequest(sources=(Path("photos"), Path("a.png")))
  assert [one.sources for one in batch.split_batch(request)] == [(Path("photos"),), (Path("a.png"),)]
