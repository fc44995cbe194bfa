"""The picture of a simulated scene, and the command that draws it."""

import functools
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.synthetic import sheet
from data_pipeline.synthetic.scene import sample_scene
from gid_jax.app.sheet import COLUMN, LEFTS, WIDTH, Page

SIZE = dict(height=48, width=80, num_frames=12)


@pytest.fixture
def asked(monkeypatch, tmp_path):
  """An empty working folder, and small scenes instead of large ones; lists what was asked for."""
  calls, sample_bare = [], functools.cache(lambda seed: sample_scene(seed, **SIZE))

  def sample_small(seed, **options):
    calls.append((seed, options))
    return sample_scene(seed, **SIZE, **options) if any(options.values()) else sample_bare(seed)

  monkeypatch.setattr(sheet, "sample_scene", sample_small)
  monkeypatch.chdir(tmp_path)
  return calls


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert sheet.main([*map(str, arguments)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: ")
  assert re.search(match, lines[0]), lines[0]
  assert sorted(os.listdir()) == before


def test_the_command_writes_here_and_never_overwrites_without_force(asked, capsys):
  assert sheet.main(["20"]) == 0
  assert os.listdir() == ["synthetic_20.png"]
  assert Image.open("synthetic_20.png").size[0] > 1200
  assert [seed for seed, _ in asked] == list(range(20, 32))
  assert capsys.readouterr().out.splitlines()[-1] == "Wrote synthetic_20.png"
  Path("synthetic_20.png").write_bytes(b"precious")
  assert_refused(capsys, 20, match="synthetic_20.png already exists; use --force or --output")
  assert Path("synthetic_20.png").read_bytes() == b"precious"
  assert sheet.main(["20", "--force", "--output", "synthetic_20.png"]) == 0
  assert Image.open("synthetic_20.png").size[0] > 1200


def test_the_command_hands_over_photos_and_cut_outs(asked, monkeypatch):
  monkeypatch.setattr(sheet, "scenes_to_png", lambda drawn: b"%d" % len(drawn))
  for name, mode in (("photos", "RGB"), ("cutouts", "RGBA")):
    Path(name).mkdir()
    Image.new(mode, (64, 64), "red").save(f"{name}/a.png")
  assert sheet.main(["0", "--backgrounds", "photos", "--sprites", "cutouts", "--output", "a.png"]) == 0
  assert Path("a.png").read_bytes() == b"12"
  for _, options in asked:
    (background,), (sprite,) = options["backgrounds"], options["sprites"]
    assert background.shape == (64, 64, 3) and sprite.shape == (64, 64, 4)


def test_the_command_refuses(asked, capsys, monkeypatch):
  Path("empty").mkdir()
  refuses = functools.partial(assert_refused, capsys)
  refuses(2**32, match="seed 4294967296: choose one between 0 and 4294967295")
  refuses(3, "--backgrounds", "nowhere", match="no readable picture .* in nowhere")
  refuses(3, "--sprites", "empty", match="no readable picture .* in empty")
  refuses(3, "--output", "a.jpg", match="unknown picture format '.jpg'; use .png")
  refuses(3, "--output", "no/a.png", match="the folder no does not exist")
  assert asked == []
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
  refuses(3, match=r"matplotlib; install it with: pip install")


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
  picture = np.asarray(Image.open(io.BytesIO(sheet.scenes_to_png(drawn))).convert("RGB")).astype(int)
  panel = (COLUMN - 0.75) / 64 * 40

  def centre(column, top, x, y):
    """The colour at (x, y) of a panel, each from 0 to 1."""
    return picture[round(120 * (top + y * panel)), round(120 * (LEFTS[column] + x * (COLUMN - 0.75)))]

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
  assert picture.shape[1] == round(120 * WIDTH)


def test_the_slice_is_of_a_lively_row_away_from_the_edge(monkeypatch):
  class EdgyScene(WhiteScene):
    def displacement(self, times):
      motion = np.zeros((len(times), 40, 64, 2), np.float32)
      motion[:, 39, :, 0] = 9 * (np.asarray(times) > 0)[:, None]
      motion[:, 11, :, 0] = 3 * (np.asarray(times) > 0)[:, None]
      return motion

  rows = []
  monkeypatch.setattr(Page, "draw_row", lambda self, axes, row: rows.append(row))
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
  colours = sheet.parts_to_colors(ids)
  np.testing.assert_allclose(colours[0, 0], 0.3, atol=1e-6)
  flat = colours.reshape(60, 3)
  distances = np.linalg.norm(flat[:, None] - flat, axis=-1) + 9 * np.eye(60)
  assert distances.min() > 0.02
  assert min(distances[i, i + 1] for i in range(59)) > 0.3
