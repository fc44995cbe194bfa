"""Shots: what divides them, what does not, and black bars."""

import cv2
import numpy as np
import pytest

from gid_jax.media import cuts

FPS = 30.0


def make_shot(seed, num_frames, *, height=48, width=80, amplitude=2.0, period=12):
  """A soft coloured texture that swings to and fro."""
  rng = np.random.default_rng(seed)
  image = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), 2)
  image = image / image.std() * 30 + rng.uniform(60, 190, 3).astype(np.float32)
  shot = []
  for t in range(num_frames):
    matrix = np.array([[1, 0, amplitude * np.sin(2 * np.pi * t / period)], [0, 1, 0]], np.float32)
    shot.append(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT))
  return np.clip(np.stack(shot), 0, 255).astype(np.uint8)


def thumbnails(frames):
  return cuts.make_overview(frames).thumbnails


def find_shots(frames, *, times=None):
  return cuts.find_shots(cuts.make_overview(frames), np.arange(len(frames)) / FPS if times is None else times)


def blend(first, second, weight):
  weight = np.asarray(weight)[:, None, None, None]
  return (first * (1 - weight) + second * weight).astype(np.uint8)


def test_overview_is_that_of_the_frames():
  frames = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 1), np.uint8).repeat(3, -1)
  overview = cuts.make_overview(frames)
  gray = frames[..., 0].astype(float)
  np.testing.assert_allclose(overview.thumbnails, gray.reshape(5, 32, 2, 48, 2).mean((2, 4)), atol=0.51)
  half = gray[:, ::2, ::2]
  np.testing.assert_allclose(overview.changes, [0, *np.abs(np.diff(half, axis=0)).mean((1, 2))], atol=1e-3)
  np.testing.assert_array_equal(overview.brightest, gray.max(0))
  np.testing.assert_allclose(overview.seam, np.abs(half[-1] - half[0]).mean(), atol=1e-3)


def test_cut_is_found_between_two_shots_and_nowhere_else():
  frames = np.concatenate([make_shot(0, 17), make_shot(1, 25), make_shot(2, 9)])
  assert cuts.find_cuts(thumbnails(frames)) == [17, 42]
  assert find_shots(frames) == [(0, 17), (17, 42), (42, 51)]


def test_fast_motion_and_flicker_are_no_cuts():
  assert find_shots(make_shot(0, 40, amplitude=15, period=8)) == [(0, 40)]
  gain = np.random.default_rng(0).uniform(0.5, 1, (90, 1, 1, 1))
  assert find_shots((make_shot(0, 90) * gain).astype(np.uint8)) == [(0, 90)]


def test_a_cut_between_two_flickering_shots_is_found():
  gain = np.random.default_rng(3).uniform(0.6, 1, (60, 1, 1, 1))
  frames = (np.concatenate([make_shot(0, 30), make_shot(1, 30)]) * gain).astype(np.uint8)
  found = cuts.find_cuts(thumbnails(frames))
  assert 30 in found and all(27 <= cut <= 33 for cut in found)


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_in_no_shot(length):
  frames = make_shot(0, 60)
  frames[30 : 30 + length] = np.clip(frames[30 : 30 + length].astype(int) + 90, 0, 255)
  shots = find_shots(frames)
  assert [shot for shot in shots if shot[1] - shot[0] > 2] == [(0, 30), (30 + length, 60)]


@pytest.mark.parametrize("length", [10, 20, 50])
def test_a_dissolve_is_in_no_shot(length):
  first, second = make_shot(0, 60 + length), make_shot(1, 60 + length)
  weight = np.clip((np.arange(120 + length) - 59) / (length + 1), 0, 1)
  frames = blend(first[np.arange(120 + length) % len(first)], second[np.arange(120 + length) % len(second)], weight)
  shots = find_shots(frames)
  assert len(shots) == 2
  # At most a third of the dissolve is lost beside it, and a fifth stays.
  assert 57 - length / 3 <= shots[0][1] <= 60 + length / 5
  assert 60 + length * 4 / 5 <= shots[1][0] <= 63 + length * 4 / 3


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_through_black_or_white_is_in_no_shot(level):
  weight = np.interp(np.arange(130), [50, 65, 70, 85], [0, 1, 1, 0])
  shots = find_shots(blend(make_shot(0, 130), np.float64(level), weight))
  assert len(shots) == 2
  assert 45 <= shots[0][1] <= 52 and 83 <= shots[1][0] <= 90


def test_black_frames_are_in_no_shot():
  frames = make_shot(0, 70)
  frames[:7] = 4
  frames[40:44] = 0
  (first_begin, first_end), (second_begin, second_end) = find_shots(frames)
  assert 7 <= first_begin <= 9 and 38 <= first_end <= 40 and 44 <= second_begin <= 46 and second_end == 70
  assert find_shots(np.zeros((20, 48, 80, 3), np.uint8)) == []


def test_a_gap_in_time_divides_shots():
  times = np.arange(40) / FPS
  times[10:] += 0.1  # three frames lost: nothing of 3 Hz is missed
  times[25:] += 0.2
  assert find_shots(make_shot(0, 40), times=times) == [(0, 25), (25, 40)]


def test_long_videos_are_judged_in_parts_without_a_seam():
  frames = thumbnails(make_shot(0, 24))
  long = np.concatenate([np.tile(frames, (100, 1, 1)), thumbnails(make_shot(1, 24))])
  assert cuts.find_cuts(long) == [2400]
  assert not cuts.find_dissolves(long, fps=FPS).any()


@pytest.mark.parametrize("bars, expected", [
  ((10, 10, 0, 0), cuts.Crop(12, 0, 36, 80)),
  ((0, 0, 12, 13), cuts.Crop(0, 14, 60, 51)),
  ((10, 0, 0, 0), cuts.Crop(0, 0, 60, 80)),  # one side only: part of the picture
])
def test_black_bars_are_no_picture(bars, expected):
  frames = make_shot(0, 4, height=60)
  top, bottom, left, right = bars
  frames[:, :top] = frames[:, 60 - bottom :] = frames[:, :, :left] = frames[:, :, 80 - right :] = 3
  assert cuts.find_picture(cuts.make_overview(frames).brightest) == expected


def test_a_flame_in_the_dark_has_no_bars():
  rows, columns = np.mgrid[-1:1:60j, -1:1:80j]
  glow = (255 * np.exp(-4 * (rows**2 + columns**2))).astype(np.uint8)
  assert (glow[0] < 24).all()
  assert cuts.find_picture(glow) == cuts.Crop(0, 0, 60, 80)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_repeats_are_counted(times):
  frames = make_shot(0, 30, period=40).repeat(times, 0)
  assert abs(cuts.measure_repeats(cuts.make_overview(frames).changes) - (1 - 1 / times)) < 0.05
