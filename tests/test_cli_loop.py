"""`gid loop`: guided or free, exactly one period, and what it says of the seam."""

import json
import os
import re
import sys

import fake_animator
import numpy as np
import pytest
from motion_volumes import evaluate_trajectories, make_volume
from PIL import Image

from gid_jax.app import cli
from gid_jax.app.seam import measure_seam
from gid_jax.media import clips


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
  """A working folder with beach.png, and an engine that compiles nothing."""
  fake_animator.install(monkeypatch)
  monkeypatch.chdir(tmp_path)
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)).save("beach.png")
  return fake_animator.FakeAnimator


def run(*arguments):
  return cli.main(["loop", *arguments])


def test_a_loop_is_guided_unless_it_is_free(engine):
  assert run("beach.png") == 0 and run("beach.png", "--free") == 0
  assert engine.loops == [True, False]
  assert sorted(os.listdir()) == ["beach.png", "beach_loop.mp4", "beach_loop_2.mp4"]
  assert cli.main(["animate", "beach.png"]) == 0 and engine.loops[-1] is False


def test_a_loop_repeats_no_frame_at_its_end():
  assert run("beach.png", "-o", "x.apng", "--fps", "12") == 0
  frames = clips.read_clip("x.apng").frames
  assert len(frames) == 24  # two seconds, the period of the motion
  photo = np.asarray(Image.open("beach.png"))
  np.testing.assert_array_equal(frames[0], photo)
  np.testing.assert_array_equal(frames[-1], np.roll(photo, round(2 * np.sin(-2 * np.pi / 24)), axis=1))
  assert (frames[-1] != frames[0]).any()


def test_the_seam_is_said_in_one_line(engine, capsys):
  assert run("beach.png", "--magnify", "1.5") == 0
  (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Seam: ")]
  gap, median, ratio = (float(text) for text in re.findall(r"\d[\d.e-]*\d", line))
  seam = measure_seam(engine.spectrum, num_frames=60, width=48)
  np.testing.assert_allclose((gap, median), (1.5 * seam.gap, 1.5 * seam.median), rtol=0.01)
  assert ratio == pytest.approx(gap / median, abs=0.01)


@pytest.mark.parametrize("num_frames, num_bands", [(20, 4), (20, 11), (47, 4)])
def test_seams_are_those_of_the_trajectories(num_frames, num_bands):
  volume = make_volume(num_bands=num_bands, scale=3.0)
  if num_bands == 11:
    volume.coefficients[10] = 0  # at the Nyquist frequency an interpolation has a choice
  # Between the samples of the period: the series as a sum over its bands, derived by differences.
  fine = 20 * num_frames
  motion = np.fft.irfft(
    np.asarray(volume.coefficients, np.float64)[..., :2] + 1j * np.asarray(volume.coefficients, np.float64)[..., 2:],
    n=fine, axis=0) * (fine / volume.num_frames)  # fmt: skip
  motion *= 48 / 8
  np.testing.assert_allclose(motion[:: fine // 20][:20], 6 * evaluate_trajectories(volume), atol=1e-6)
  velocity = (np.roll(motion, -1, 0) - np.roll(motion, 1, 0)) / 2 * (fine / num_frames)
  rms = lambda field: np.sqrt(np.square(np.roll(field, -1, 0) - field).sum(-1).mean((1, 2)))
  seam = measure_seam(volume, num_frames=num_frames, width=48)
  np.testing.assert_allclose(seam.steps, rms(motion[::20]), rtol=1e-6)
  np.testing.assert_allclose(seam.turns, rms(velocity[::20]), rtol=2e-2)
  assert seam.gap == seam.turns[-1] and seam.median == np.median(seam.turns[:-1])


def test_the_report_is_a_picture_of_the_seam(capsys, monkeypatch):
  assert run("beach.png", "--fps", "10", "--report", "seam.png", "--json") == 0
  with Image.open("seam.png") as picture:
    assert picture.size[0] > 1200
  assert json.loads(capsys.readouterr().out)["output"] == "beach_loop.mp4"
  assert run("beach.png", "--report", "seam.png") == 2
  assert "seam.png already exists" in capsys.readouterr().err
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  before = os.listdir()
  assert run("beach.png", "--report", "other.png") == 2
  assert "pip install '.[plots]'" in capsys.readouterr().err and os.listdir() == before


@pytest.mark.parametrize("options", [["--frames", "60"], ["--duration", "3"]])
def test_a_loop_has_no_other_length(options, capsys):
  with pytest.raises(SystemExit) as end:
    run("beach.png", *options)
  assert end.value.code == 2 and os.listdir() == ["beach.png"]


def test_a_bundle_is_not_sampled_again(capsys):
  assert run("beach.png", "--save", "x.gid") == 0
  assert run("x.gid", "--free") == 2
  assert "--free is for photos; the motion in x.gid is sampled already" in capsys.readouterr().err
  assert run("x.gid") == 0
