"""`gid animate --watch FOLDER`: each picture once, when it has been written to its end, until interrupted."""

import itertools
import os
import signal
from pathlib import Path

import fake_animator
import pytest
from PIL import Image

from gid_jax.app import animate, cli
from gid_jax.app.watch import wait_for_pictures
from gid_jax.errors import UserError


def follow(events, count):
  """The pictures that are found while `events` happen, one between two looks."""
  happening = iter(events)

  def wait():
    next(happening, lambda: None)()

  return list(itertools.islice(wait_for_pictures(Path(), wait=wait), count))


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
  """An empty working folder."""
  fake_animator.install(monkeypatch)
  monkeypatch.chdir(tmp_path)


def append(name, data=b"x"):
  with open(name, "ab") as file:
    file.write(data)


def test_pictures_are_given_once_when_they_stand_still():
  append("old.jpg")
  seen = []

  def look(*arguments):
    seen.append(arguments)

  events = [
    lambda: append("a.jpg", b""), lambda: append("a.jpg"), lambda: append("a.jpg"), look,  # found after this
    lambda: append("b.PNG"), lambda: append("c.txt"), lambda: (append(".d.jpg"), append("e_animated.png")),
    lambda: os.rename("c.txt", "c.jpg"), look, look, lambda: os.remove("a.jpg"), lambda: append("a.jpg"), look,
  ]  # fmt: skip
  assert [path.name for path in follow(events, 4)] == ["a.jpg", "b.PNG", "c.jpg", "a.jpg"]
  assert len(seen) == 4


def test_a_folder_that_goes_away_is_one_line():
  Path("inner").mkdir()
  found = wait_for_pictures(Path("inner"), wait=lambda: os.rmdir("inner"))
  with pytest.raises(UserError, match="cannot watch inner: no such file"):
    next(found)


@pytest.mark.parametrize("end, failed", [(None, False), (signal.SIGTERM, False), (None, True)])
def test_what_appears_is_animated_until_interrupted(monkeypatch, capsys, end, failed):
  def appear(folder):
    assert folder == Path("in")
    for name in ("in/a.png", "in/b.png"):
      Image.new("RGB", (48, 32)).save(name)
      if failed:
        Path(name).write_bytes(b"none")
      yield Path(name)
    if end is None:
      raise KeyboardInterrupt
    signal.raise_signal(end)

  Path("in").mkdir()
  monkeypatch.setattr(animate, "wait_for_pictures", appear)
  status = cli.main(["animate", "--watch", "in", "--output", "out", "--frames", "2"])
  assert status == (2 if failed else 0)
  videos = sorted(os.listdir("out"))
  last = capsys.readouterr().out.splitlines()[-1]
  if failed:
    assert videos == [] and last == "0 animated, 2 failed: in/a.png, in/b.png"
  else:
    assert videos == ["a_animated.mp4", "b_animated.mp4"] and last == "2 animated, 0 failed"


def test_a_picture_in_the_place_of_another_replaces_its_video_only_where_that_is_asked_for(monkeypatch, capsys):
  def appear(folder):
    for color in ("red", "green"):
      Image.new("RGB", (48, 32), color).save("in/a.png")
      yield Path("in/a.png")
    raise KeyboardInterrupt

  Path("in").mkdir()
  monkeypatch.setattr(animate, "wait_for_pictures", appear)
  for force, expected in (["--force"], ["a_animated.mp4"]), ([], ["a_animated.mp4", "a_animated_2.mp4"]):
    out = f"out{len(expected)}"
    assert cli.main(["animate", "--watch", "in", "--output", out, "--frames", "2", *force]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 animated, 0 failed"
    assert sorted(os.listdir(out)) == expected


@pytest.mark.parametrize(
  "options, match",
  [
    (["--watch", "missing"], "--watch missing: no such folder"),
    (["a.png", "--watch", "."], "--watch .: leave out a.png"),
    (["--watch", ".", "--save", "x.gid"], "--save x.gid: give one photo"),
    (["--watch", ".", "-o", "-"], "- is for one photo"),
    (["--watch", ".", "--fps", "0"], "--fps is 0"),
  ],
)
def test_wrong_options_are_said_at_once(capsys, options, match):
  assert cli.main(["animate", *options]) == 2
  assert capsys.readouterr().err.startswith(f"gid: error: {match}")
