"""What `gid animate` draws and says beside a video: pictures, notes, JSON and remarks."""

import json
from pathlib import Path

import av
import cli_runs
import numpy as np
import pytest
from cli_runs import run
from motion_volumes import evaluate_trajectories, make_volume
from PIL import Image, ImageDraw, ImageFont

from gid_jax.app import cli, pictures, remarks
from gid_jax.media import clips, photos
from gid_jax.types import SpectralVolume


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
  """A working folder with beach.png, and an engine that compiles nothing."""
  return cli_runs.install(monkeypatch, tmp_path)


def read_frames(path):
  return clips.read_clip(path).frames.astype(int)


def test_side_by_side_shows_the_photo_and_the_motion():
  assert run("beach.png", "--frames", "8", "-o", "x.apng", "--side-by-side") == 0
  frames, photo = read_frames("x.apng"), np.asarray(Image.open("beach.png"))
  assert frames.shape == (8, 32, 96, 3)
  np.testing.assert_array_equal(frames[:, :, :48], np.broadcast_to(photo, (8, 32, 48, 3)))
  np.testing.assert_array_equal(frames[2, :, 48:], np.roll(photo, 2, axis=1))


def test_xt_shows_the_liveliest_row_over_time(engine, monkeypatch):
  coefficients = np.zeros((3, 8, 12, 4), np.float32)
  coefficients[1, 5:7] = 5.0  # rows 20 ... 28 of the photo
  monkeypatch.setattr(engine, "spectrum", SpectralVolume(coefficients, num_frames=20, fps=10.0))
  assert run("beach.png", "--frames", "6", "--xt", "xt.png") == 0
  picture, photo = (np.asarray(Image.open(name)) for name in ("xt.png", "beach.png"))
  marked = np.flatnonzero((picture[:32] != photo).any((1, 2)))
  assert len(marked) == 1 and 20 <= marked[0] < 28
  slice_xt = picture[32 + 8 :]
  height = len(slice_xt) // 6
  assert len(slice_xt) == 6 * height
  for index in range(6):
    shift = round(2 * np.sin(2 * np.pi * index / 6))
    np.testing.assert_array_equal(slice_xt[index * height], np.roll(photo[marked[0]], shift, axis=0))


def test_motion_is_brightest_where_most_moves(engine, monkeypatch):
  coefficients = np.zeros((3, 8, 12, 4), np.float32)
  coefficients[1, :, 8:] = 5.0
  monkeypatch.setattr(engine, "spectrum", SpectralVolume(coefficients, num_frames=20, fps=10.0))
  Image.new("RGB", (48, 32), (90, 90, 90)).save("beach.png")
  assert run("beach.png", "--frames", "2", "--motion", "m.png") == 0
  picture = np.asarray(Image.open("m.png")).astype(int)
  assert picture.shape[1] == 48 and len(picture) > 32
  assert picture[16, 40].sum() > picture[16, 8].sum() + 100


def test_the_scale_of_the_motion_is_the_swing():
  volume = make_volume(seed=3, scale=2.0)
  motion = evaluate_trajectories(volume)
  rms = np.sqrt(np.square(motion - motion.mean(0)).sum(-1).mean(0)) * 48 / 8
  drawn, blank = [], np.zeros((2, 48, 3), np.uint8)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pictures, "_draw_scale", lambda width, largest: drawn.append(largest) or blank)
    pictures.draw_motion(photos.read_image("beach.png"), volume, size=(36, 48))
  assert np.quantile(rms, 0.9) < drawn[0] < 2 * rms.max()


def test_the_scale_says_how_much_in_narrow_pictures_too(monkeypatch):
  drawn = []
  monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **options: drawn.append((xy[0], text)))
  widths = (1024, 150, 105, 90, 56)
  heights = [pictures._draw_scale(width, 1.5).shape[0] for width in widths]
  assert [text for _, text in drawn] == ["0 to 1.5 px, rms swing", "0 to 1.5 px", "1.5 px", "0 to 1.5 px", "1.5 px"]
  assert heights == [34, 34, 34, 51, 51]
  font = ImageFont.load_default(14)
  assert all(x + font.getlength(text) <= width for (x, text), width in zip(drawn, widths, strict=True))


# Notes, JSON, remarks


def test_the_note_says_what_made_the_video():
  from gid_jax import __version__

  assert run("beach.png", "--frames", "2", "-o", "a.mp4") == 0
  assert run("beach.png", "--frames", "2", "-o", "b.mp4", "--no-note") == 0
  comments = []
  for name in ("a.mp4", "b.mp4"):
    with av.open(name) as container:
      comments.append(container.metadata.get("comment"))
  assert comments == [f"Generated video, not a recording: gid-jax {__version__}", None]


def test_json_is_one_line_for_each_input_and_nothing_else(capsys):
  Path("text.jpg").write_text("not a photo\n" * 50)
  assert run("beach.png", "text.jpg", "--frames", "2", "--json", "--seed", "4", "--magnify", "9") == 2
  streams = capsys.readouterr()
  good, bad = (json.loads(line) for line in streams.out.splitlines())
  assert good["source"] == "beach.png" and good["output"] == "beach_animated.mp4" and good["seed"] == 4
  assert set(good["seconds"]) == {"load", "sample", "render", "total"}
  assert good["seconds"]["total"] >= good["seconds"]["render"] > 0
  assert len(good["warnings"]) == 1 and good["warnings"][0].startswith("--magnify 9 will tear")
  assert bad["source"] == "text.jpg" and "text.jpg is not an image" in bad["error"]
  assert "1 animated, 1 failed: text.jpg" in streams.err and "Wrote beach_animated.mp4" in streams.err
  assert run("missing.jpg", "--json") == 2
  assert json.loads(capsys.readouterr().out)["error"] == "cannot read missing.jpg: no such file"


def test_motion_that_cannot_be_seen_is_said_once(engine, monkeypatch, capsys):
  monkeypatch.setattr(engine, "spectrum", make_volume(scale=0.001))
  assert run("beach.png", "--frames", "2") == 0
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("gid: warning: almost nothing will move") and "--magnify" in line
  assert run("beach.png", "--frames", "2", "--magnify", "0") == 0  # which is what was asked for
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seed", [0, 1])
def test_strain_is_that_of_the_trajectories(seed):
  volume = make_volume(seed, num_frames=15, num_bands=4)
  motion = evaluate_trajectories(volume)
  motion -= motion[0]
  expected = np.zeros((5, 7))
  for y in range(5):
    for x in range(7):
      steps = [np.linalg.norm(motion[:, y, x] - motion[:, y + dy, x + dx], axis=-1) for dy, dx in ((0, 1), (1, 0))]
      expected[y, x] = np.max(steps)
  np.testing.assert_allclose(remarks.find_strain(volume), expected, rtol=1e-4)


def test_more_than_is_there_is_suggested_where_nothing_moves():
  volume = make_volume(scale=0.5)
  suggest = lambda **options: remarks.find_remarks(volume, option="", **options)[0].split("; try ")[1]
  still = remarks._STILL / float(np.quantile(remarks.rms_swing(volume, stride=1.0), 0.98)) * 8  # seen from here on
  assert suggest(factor=0.5 * still).startswith("--wind windy, --magnify 4, another")
  assert suggest(factor=0.5 * still, magnify=1.5, is_windy=True).startswith("--magnify 6, another")
  assert suggest(factor=0.01 * still, magnify=9.0, is_windy=True).startswith("another --seed")


def test_what_holds_is_said_and_holds():
  volume = make_volume(scale=0.5)
  (text,) = remarks.find_remarks(volume, factor=8, option="--magnify 8")
  held = float(text.split("about ")[1].split()[0])
  assert not remarks.find_remarks(volume, factor=0.9 * 8 * held, option="")
  assert remarks.find_remarks(volume, factor=1.2 * 8 * held, option="")


def test_a_photo_that_is_very_long_is_told(engine, capsys):
  for width, words in ((128, []), (136, ["the photo is 136 x 32, over 4", "the video will be 68 x 16"])):
    Image.new("RGB", (width, 32)).save("long.png")
    assert cli.main(["animate", "long.png", "--frames", "2", "--size", "68", "--force"]) == 0
    said = capsys.readouterr().err
    assert said.count("gid: warning: ") == bool(words) and all(word in said for word in words)


def test_the_photos_of_a_long_run_are_let_go(engine, monkeypatch):
  import weakref

  alive, made = [], []

  def render(self, image, spectrum, **options):
    made.append(weakref.ref(image))
    alive.append(sum(reference() is not None for reference in made))
    yield np.zeros((32, 48, 3), np.uint8)

  monkeypatch.setattr(engine, "render", render)
  Path("many").mkdir()
  for number in range(6):
    Image.open("beach.png").save(f"many/{number}.png")
  assert run("many", "--frames", "2") == 0
  assert len(alive) == 6 and max(alive) <= 2

