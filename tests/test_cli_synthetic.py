"""The gid command on simulated scenes: `gid inspect --synthetic SEED`."""

import functools
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.synthetic import scene as scenes
from gid_jax import cli, page, scene_drawing

SIZE = dict(height=48, width=80, num_frames=12)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
  """An empty working folder; the environment stays as it was."""
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch):
  """Small scenes instead of large ones; lists what was asked for."""
  calls, sample_scene = [], scenes.sample_scene
  sample_bare = functools.cache(lambda seed: sample_scene(seed, **SIZE))

  def sample_small(seed, **options):
    calls.append((seed, options))
    return sample_scene(seed, **SIZE, **options) if any(options.values()) else sample_bare(seed)

  monkeypatch.setattr(scenes, "sample_scene", sample_small)
  return calls


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert cli.main(["inspect", *map(str, arguments)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("gid: error: ")
  assert re.search(match, lines[0]), lines[0]
  assert sorted(os.listdir()) == before


def test_inspect_writes_here_and_never_overwrites_without_force(asked, capsys):
  assert cli.main(["inspect", "--synthetic", "20"]) == 0
  out = capsys.readouterr().out
  assert os.listdir() == ["synthetic_20_inspect.png"]
  assert Image.open("synthetic_20_inspect.png").size[0] > 1200
  assert [seed for seed, _ in asked] == list(range(20, 32))
  assert "Simulating" in out and "12/12" in out
  assert out.splitlines()[-1].startswith("Wrote synthetic_20_inspect.png: ")
  Path("synthetic_20_inspect.png").write_bytes(b"precious")
  assert_refused(
    capsys, "--synthetic", 20, match="synthetic_20_inspect.png already exists; use --force or --output")
  assert Path("synthetic_20_inspect.png").read_bytes() == b"precious"
  assert cli.main(["inspect", "--synthetic", "20", "--force", "--output", "synthetic_20_inspect.png"]) == 0
  assert Image.open("synthetic_20_inspect.png").size[0] > 1200


def test_inspect_hands_over_photos_and_cut_outs(asked, monkeypatch):
  monkeypatch.setattr(scene_drawing, "scenes_to_png", lambda drawn: b"%d" % len(drawn))
  for name, mode in (("photos", "RGB"), ("cutouts", "RGBA")):
    Path(name).mkdir()
    Image.new(mode, (64, 64), "red").save(f"{name}/a.png")
  arguments = ["--backgrounds", "photos", "--sprites", "cutouts", "--output", "a.png"]
  assert cli.main(["inspect", "--synthetic", "0", *arguments]) == 0
  assert Path("a.png").read_bytes() == b"12"
  for _, options in asked:
    (background,), (sprite,) = options["backgrounds"], options["sprites"]
    assert background.shape == (64, 64, 3) and sprite.shape == (64, 64, 4)


def test_inspect_refuses(asked, capsys, monkeypatch):
  Path("film.mp4").touch()
  Path("empty").mkdir()
  refuses = functools.partial(assert_refused, capsys)
  refuses(match="nothing to inspect; give a VIDEO, or --synthetic SEED")
  refuses("film.mp4", "--synthetic", 3, match="film.mp4 and --synthetic 3: inspect one of them")
  refuses("--synthetic", -1, match="--synthetic is -1; it must be between 0 and 4294967295")
  refuses("--synthetic", 2**32, match="--synthetic is 4294967296")
  refuses("--synthetic", 3, "--start", 1, match="--start is for videos")
  refuses("--synthetic", 3, "--start", "nan", match="--start is nan")
  refuses("film.mp4", "--backgrounds", "empty", match="--backgrounds is for simulated scenes; give it with --synthetic")
  refuses("film.mp4", "--sprites", "empty", match="--sprites is for simulated scenes")
  refuses("--synthetic", 3, "--backgrounds", "nowhere", match="--backgrounds nowhere is not a folder")
  refuses("--synthetic", 3, "--sprites", "film.mp4", match="--sprites film.mp4 is not a folder")
  refuses("--synthetic", 3, "--backgrounds", "empty", match="no readable picture .* in empty")
  refuses("--synthetic", 3, "--output", "a.jpg", match="unknown picture format '.jpg'; use .png")
  refuses("--synthetic", 3, "--output", "no/a.png", match="the folder no does not exist")
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  refuses("--synthetic", 3, match=r"pip install 'gid-jax\[plots\]'")
  assert asked == []


def test_help_names_the_options_of_scenes(capsys):
  with pytest.raises(SystemExit):
    cli.main(["inspect", "--help"])
  text = capsys.readouterr().out
  for option in ("--synthetic", "--backgrounds", "--sprites", "SEED"):
    assert option in text


# The picture


class WhiteScene:
  """A white photo whose left half swings by 4 px to the right and back; two parts, one of them hidden for a while."""

  seed, fps, num_frames, families = 5, 10.0, 20, ("cloth",)
  image = np.full((40, 64, 3), 255, np.uint8)
  layer_ids = np.repeat([[1] * 32 + [2] * 32], 40, 0)

  def frame(self, time):
    """The photo, darker with time."""
    return np.full((40, 64, 3), 255 - 10 * time, np.uint8)

  def displacement(self, times):
    """Half a swing in the whole time."""
    motion = np.zeros((len(times), 40, 64, 2), np.float32)
    motion[:, :, :32, 0] = 4 * np.sin(np.pi * np.asarray(times) / 20)[:, None, None]
    return motion

  def spectral_volume(self, num_bands):
    """By FFT."""
    bands = np.fft.rfft(self.displacement(range(20)), axis=0)[:num_bands]
    return np.concatenate([bands.real, bands.imag], -1).astype(np.float32)

  def visible(self, time):
    """The upper half is hidden at the time of the largest displacement, all of it otherwise."""
    seen = np.zeros((40, 64), bool)
    seen[20:] = time == 10
    return seen


def draw(drawn):
  picture = np.asarray(Image.open(io.BytesIO(scene_drawing.scenes_to_png(drawn))).convert("RGB")).astype(int)
  panel = (page.COLUMN - 0.75) / 64 * 40

  def centre(column, top, x, y):
    """The colour at (x, y) of a panel, each from 0 to 1."""
    return picture[round(120 * (top + y * panel)), round(120 * (page.LEFTS[column] + x * (page.COLUMN - 0.75)))]

  return picture, centre, 2.55 + panel + 0.85


def test_the_picture_shows_what_the_scene_knows():
  picture, colour, second = draw([WhiteScene()] * 12)
  assert np.all(colour(0, 2.55, 0.3, 0.2) == 255)  # photo
  np.testing.assert_allclose(colour(1, 2.55, 0.3, 0.2), 155, atol=2)  # frame 10, farthest from the first
  assert np.all(colour(2, 2.55, 0.97, 0.03) == 255)  # at rest
  np.testing.assert_allclose(colour(2, 2.55, 0.03, 0.03), [255, 0, 0], atol=3)  # full length to the right
  left, right = colour(0, second, 0.25, 0.5), colour(0, second, 0.75, 0.5)
  assert left.sum() > 200 and right.sum() < 10  # mean length
  assert np.abs(colour(1, second, 0.25, 0.5) - colour(1, second, 0.75, 0.5)).max() > 60  # parts
  np.testing.assert_allclose(colour(2, second, 0.5, 0.25), [255, 0, 170], atol=2)  # hidden
  assert np.all(colour(2, second, 0.5, 0.75) == 255)
  assert picture.shape[1] == round(120 * page.WIDTH)


def test_the_slice_is_of_a_lively_row_away_from_the_edge(monkeypatch):
  class EdgyScene(WhiteScene):
    def displacement(self, times):
      motion = np.zeros((len(times), 40, 64, 2), np.float32)
      motion[:, 39, :, 0] = 9 * (np.asarray(times) > 0)[:, None]
      motion[:, 11, :, 0] = 3 * (np.asarray(times) > 0)[:, None]
      return motion

  rows = []
  monkeypatch.setattr(page.Page, "draw_row", lambda self, axes, row: rows.append(row))
  draw([EdgyScene()])
  assert abs(rows[0] - 11) <= 1


def test_a_scene_without_motion_is_drawn():
  class StillScene(WhiteScene):
    families = ()
    layer_ids = np.zeros((40, 64), np.int32)

    def displacement(self, times):
      return np.zeros((len(times), 40, 64, 2), np.float32)

    def visible(self, time):
      return np.ones((40, 64), bool)

  _, colour, second = draw([StillScene()])
  assert np.all(colour(0, second, 0.25, 0.5) < 10) and np.all(colour(2, 2.55, 0.5, 0.5) == 255)


def test_every_part_has_its_own_colour():
  ids = np.arange(60).reshape(6, 10)
  colours = scene_drawing.parts_to_colors(ids)
  np.testing.assert_allclose(colours[0, 0], 0.3, atol=1e-6)
  flat = colours.reshape(60, 3)
  distances = np.linalg.norm(flat[:, None] - flat, axis=-1) + 9 * np.eye(60)
  assert distances.min() > 0.02
  assert min(distances[i, i + 1] for i in range(59)) > 0.3
