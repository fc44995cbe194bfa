"""The `gid` command on videos: `gid inspect VIDEO`, and `gid animate VIDEO` against the film itself."""

import os
import re
import sys
from pathlib import Path

import av
import filming
import numpy as np
import pytest
from motion_volumes import make_volume
from PIL import Image

from gid_jax import pipeline, rendering
from gid_jax.app import cli, inspection, moving
from gid_jax.media import clips, encoding

pytestmark = pytest.mark.usefixtures("careful_flow")
NUM_FRAMES = 18


@pytest.fixture(scope="module")
def film():
  return filming.film(filming.make_texture(), filming.make_swing(num_frames=NUM_FRAMES, cycles=2, extent=8.0))


@pytest.fixture(autouse=True)
def folder(film, monkeypatch, tmp_path):
  """A working folder that holds the film as swing.mp4; the environment stays as it was."""
  monkeypatch.setattr(moving, "configure_jax", lambda: None)
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.chdir(tmp_path)
  encoding.write_video("swing.mp4", film, fps=30, quality=95)


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert cli.main([*map(str, arguments)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("gid: error: ")
  assert re.search(match, lines[0]), lines[0]
  assert sorted(os.listdir()) == before


# inspect


def test_inspect_writes_beside_the_video_and_never_overwrites_without_force(capsys):
  assert cli.main(["inspect", "swing.mp4"]) == 0
  out = capsys.readouterr().out
  assert sorted(os.listdir()) == ["swing.mp4", "swing_inspect.png"]
  assert Image.open("swing_inspect.png").size[0] > 1200
  assert "Measuring" in out and "17/17" in out
  assert out.splitlines()[-1].startswith("Wrote swing_inspect.png: ")
  Path("swing_inspect.png").write_bytes(b"precious")
  named = ["-o", "swing_inspect.png"]
  assert_refused(capsys, "inspect", "swing.mp4", *named, match="swing_inspect.png already exists; use --force")
  assert Path("swing_inspect.png").read_bytes() == b"precious"
  assert cli.main(["inspect", "swing.mp4", "--force"]) == 0
  assert Image.open("swing_inspect.png").size[0] > 1200


def test_inspect_refuses(capsys, monkeypatch):
  Path("folder.png").mkdir()
  Path("text.mp4").write_text("not a video\n" * 50)
  Path("empty.mp4").touch()
  Image.new("RGB", (20, 20)).save("photo.png")
  write_sound("sound.mp4")
  encoding.write_video("short.mp4", np.zeros((8, 16, 16, 3), np.uint8), fps=30)
  assert_refused(capsys, "inspect", "missing.mp4", match="cannot read missing.mp4: no such file")
  assert_refused(capsys, "inspect", ".", match=". is not a file; give a video")
  assert_refused(capsys, "inspect", "empty.mp4", match="empty.mp4 is empty")
  assert_refused(capsys, "inspect", "text.mp4", match="text.mp4 cannot be decoded")
  assert_refused(capsys, "inspect", "sound.mp4", match="sound.mp4 has no video stream")
  assert_refused(capsys, "inspect", "photo.png", match=r"photo.png lasts 0\.0\d s; .* needs 0.5 s or more")
  assert_refused(capsys, "inspect", "short.mp4", match=r"short.mp4 lasts 0.27 s; measuring motion needs 0.5 s or more")
  assert_refused(capsys, "inspect", "swing.mp4", "--start", "5", match="--start is 5 s, but swing.mp4 ends after 0.6 s")
  assert_refused(capsys, "inspect", "swing.mp4", "--start", "nan", match="--start is nan")
  assert_refused(capsys, "inspect", "swing.mp4", "--start", "-1", match="--start is -1")
  assert_refused(capsys, "inspect", "swing.mp4", "--output", "a.mp4", match="unknown picture format '.mp4'; use .png")
  assert_refused(capsys, "inspect", "swing.mp4", "--output", "no/a.png", match="the folder no does not exist")
  assert_refused(capsys, "inspect", "swing.mp4", "--output", "folder.png", match="folder.png is a folder")
  assert_refused(capsys, "inspect", "photo.png", "--output", "photo.png", "--force", match="is the input itself")
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  assert_refused(capsys, "inspect", "swing.mp4", match=r"pip install '\.\[plots\]'")


def write_sound(path):
  with av.open(path, "w") as container:
    stream = container.add_stream("aac", rate=8000)
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
    sound.sample_rate = 8000
    for packet in [*stream.encode(sound), *stream.encode(None)]:
      container.mux(packet)


# animate


def test_animate_reproduces_a_film_from_its_first_frame(film, capsys, monkeypatch):
  monkeypatch.setattr(pipeline.Animator, "from_pretrained", None)  # The motion model is not for videos.
  assert cli.main(["animate", "swing.mp4", "--seed", "5"]) == 0
  assert sorted(os.listdir()) == ["swing.mp4", "swing_animated.mp4"]
  video = clips.read_clip("swing_animated.mp4").frames.astype(np.float64)
  assert video.shape == film.shape
  differences = np.abs(video - film).mean((1, 2, 3))
  at_rest = np.abs(film[:1].astype(np.float64) - film).mean((1, 2, 3))
  moved = at_rest > at_rest.mean()
  assert np.all(differences[moved] < 0.75 * at_rest[moved])
  out = capsys.readouterr().out
  said = re.search(r"Against the film, over 18 frames: ([\d.]+) grey levels; its first frame at rest: ([\d.]+)", out)
  assert said is not None
  error, still_error = (float(text) for text in said.groups())
  # Measured on frames that were not compressed, so a little less.
  assert differences.mean() - 2.5 < error < differences.mean() and abs(still_error - at_rest.mean()) < 1
  assert out.splitlines()[-2].startswith("Wrote swing_animated.mp4: 128x80, 18 frames, 30 fps, 0.6 s, ")


class FakeRenderer:
  """Takes the renderer's place: records what it was asked and yields grey frames."""

  def __init__(self, directory, calls):
    self.calls = calls
    calls.append(directory)

  def render(self, image, spectrum, **options):
    self.calls.append((image.shape, spectrum.coefficients.shape, options))
    return (np.full((20, 32, 3), 128, np.uint8) for _ in range(options["frames"]))


@pytest.fixture
def calls(monkeypatch):
  calls = []
  monkeypatch.setattr(
    rendering.ImageRenderer, "from_pretrained", classmethod(lambda cls, directory: FakeRenderer(directory, calls)))
  return calls


def test_animate_hands_over_the_options_of_a_video(calls, capsys):
  options = ["--frames", "7", "--fps", "12.5", "--magnify", "2", "--size", "64", "--weights", "mine"]
  assert cli.main(["animate", "swing.mp4", "--output", "out.webm", *options]) == 0
  directory, (image_shape, spectrum_shape, given) = calls
  assert directory == Path("mine") and image_shape == (80, 128, 3) and spectrum_shape == (10, 80, 128, 4)
  assert given == {"frames": 7, "fps": 12.5, "magnify": 2.0, "size": 64, "anchor_first_frame": False}
  assert "Against the film" not in capsys.readouterr().out  # twice the motion is not the film's
  assert cli.main(["animate", "swing.mp4", "--fps", "60"]) == 0
  assert calls[-1][2]["frames"] == 36


@pytest.mark.parametrize("command", ["animate", "inspect"])
def test_a_cut_is_left_out_with_one_line(film, calls, capsys, command):
  other = np.repeat(filming.make_texture(seed=9)[None], 12, 0)
  encoding.write_video("cut.mp4", np.concatenate([other, film]), fps=30, quality=95)
  assert cli.main([command, "cut.mp4"]) == 0
  out, err = capsys.readouterr()
  assert err.splitlines() == [
    "gid: warning: cut.mp4: used are the 0.6 s from 0.4 s on, the longest stretch without cuts, fades and black frames"]
  assert "17/17" in out  # measured is what comes behind the cut
  if command == "animate":
    assert calls[1][0] == (80, 128, 3) and calls[1][1] == (10, 80, 128, 4) and calls[1][2]["frames"] == 18


class Captured(BaseException):
  """Carries a renderer out of the command."""


@pytest.mark.parametrize("source", ["swing.mp4", "photo.png"])
def test_a_folder_of_weights_may_have_a_renderer(film, capsys, monkeypatch, source):
  Image.fromarray(film[0]).save("photo.png")
  embedded, folder = Path(pipeline.__file__).parent / "pretrained", Path("mine")
  folder.mkdir()
  (folder / "motion.safetensors").symlink_to(embedded / "motion.safetensors")
  monkeypatch.setattr(inspection, "measure_spectrum", lambda *_, **options: "spectrum")
  monkeypatch.setattr(pipeline.Animator, "predict_spectrum", lambda *_, **options: make_volume(scale=0.5))

  def render(renderer, image, spectrum, **options):
    raise Captured(renderer)

  monkeypatch.setattr(rendering.ImageRenderer, "render", render)
  with pytest.raises(Captured) as captured:
    cli.main(["animate", source, "--weights", "mine"])
  assert captured.value.args[0].renderer_settings is None
  assert not capsys.readouterr().err
  # A renderer that is there must be one.
  (folder / "renderer.safetensors").write_bytes(b"none")
  assert_refused(capsys, "animate", source, "--weights", "mine", match="mine/renderer.safetensors: not a readable")
  assert_refused(capsys, "animate", source, "--weights", "nobody", match="no such")


def test_animate_takes_a_long_gif_for_a_video_and_a_short_one_for_a_photo(film, calls, monkeypatch):
  encoding.write_video("long.gif", film, fps=30)
  encoding.write_video("short.gif", film[:5], fps=30)
  assert cli.main(["animate", "long.gif"]) == 0
  assert len(calls) == 2

  def stop(directory):
    raise cli.UserError("this is a photo")

  monkeypatch.setattr(pipeline.Animator, "from_pretrained", stop)
  assert cli.main(["animate", "short.gif"]) == 2
  assert len(calls) == 2


def test_animate_refuses_videos_it_cannot_follow(calls, capsys):
  encoding.write_video("short.mp4", np.zeros((8, 16, 16, 3), np.uint8), fps=30)
  Path("text.mov").write_text("not a video\n" * 50)
  write_sound("sound.mp4")
  assert_refused(capsys, "animate", "swing.mp4", "--steps", "5", match="--steps is for photos; .* is measured")
  assert_refused(capsys, "loop", "swing.mp4", match="swing.mp4: a loop is sampled for a photo, and this is a video")
  assert_refused(capsys, "animate", "swing.mp4", "--wind", "calm", match="--wind is for photos; .* is measured")
  assert_refused(capsys, "animate", "short.mp4", match="short.mp4 lasts 0.27 s; measuring motion needs 0.5 s or more")
  assert_refused(capsys, "animate", "text.mov", match="text.mov cannot be decoded")
  assert_refused(capsys, "animate", "sound.mp4", match="sound.mp4 has no video stream")
  assert_refused(capsys, "animate", ".", match=". holds no photos")
  assert_refused(capsys, "animate", "swing.mp4", "--output", "swing.mp4", "--force", match="is the input itself")
  assert calls == []
