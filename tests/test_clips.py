"""Cutting clips into sequences: rate, cuts, black frames, crops, loops."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import clips
from gid_jax.errors import UserError
from gid_jax.types import Clip


def make_shot(seed, num_frames, *, height=48, width=80, amplitude=2.0, period=12):
  rng = np.random.default_rng(seed)
  image = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), 2)
  image = image / image.std() * 30 + rng.uniform(60, 190, 3).astype(np.float32)
  shot = []
  for t in range(num_frames):
    matrix = np.array([[1, 0, amplitude * np.sin(2 * np.pi * t / period)], [0, 1, 0]], np.float32)
    shot.append(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT))
  return np.clip(np.stack(shot), 0, 255).astype(np.uint8)


def make_clip(frames, *, fps=30.0):
  return Clip(frames, np.arange(len(frames)) / fps)


def number_frames(num_frames, *, height=16, width=16):
  """Frames whose grey level is 60 plus their number, so that a sequence tells where it came from."""
  levels = 60 + np.arange(num_frames, dtype=np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3))


def test_cut_is_found_between_two_shots_and_nowhere_else():
  frames = np.concatenate([make_shot(0, 17), make_shot(1, 25), make_shot(2, 9)])
  assert clips.find_cuts(frames) == [17, 42]


def test_fast_motion_and_flicker_are_no_cuts():
  assert clips.find_cuts(make_shot(0, 40, amplitude=15, period=8)) == []
  flicker = make_shot(0, 40) * np.random.default_rng(0).uniform(0.5, 1, (40, 1, 1, 1))
  assert clips.find_cuts(flicker.astype(np.uint8)) == []


def test_sequences_never_span_a_cut():
  first, second = make_shot(0, 25), make_shot(1, 33)
  sequences = list(clips.clip_to_sequences(
    make_clip(np.concatenate([first, second])), num_frames=20, height=48, width=80, stride=5, zoom=1
  ))
  assert len(sequences) == 2 + 3
  for sequence in sequences:
    assert clips.find_cuts(sequence) == []
  np.testing.assert_array_equal(sequences[1], first[5:25])
  np.testing.assert_array_equal(sequences[2], second[:20])


def test_black_lead_in_is_skipped():
  shot = make_shot(0, 24)
  black = np.full((7, *shot.shape[1:]), 4, np.uint8)
  frames = np.concatenate([black, shot])
  assert clips.count_black_lead(frames) == 7
  (sequence,) = clips.clip_to_sequences(make_clip(frames), num_frames=24, height=48, width=80, zoom=1)
  np.testing.assert_array_equal(sequence, shot)


def test_short_shot_is_completed_backwards():
  clip = make_clip(number_frames(16))
  (sequence,) = clips.clip_to_sequences(clip, num_frames=20, height=16, width=16, zoom=1)
  assert (sequence[:, 0, 0, 0] - 60).tolist() == [*range(16), 14, 13, 12, 11]


def test_too_short_and_too_slow_clips_say_so():
  with pytest.raises(UserError, match="No shot"):
    next(clips.clip_to_sequences(make_clip(number_frames(14)), num_frames=20, height=16, width=16))
  with pytest.raises(UserError, match=r"10\.0 frames per second"):
    next(clips.clip_to_sequences(make_clip(number_frames(40), fps=10), num_frames=20, height=16, width=16))


@pytest.mark.parametrize("fps", [30.0, 29.0])
def test_loop_wraps_around(fps):
  num_native = round(fps)
  clip = make_clip(number_frames(num_native), fps=fps)
  sequences = list(clips.clip_to_sequences(
    clip, num_frames=30, height=16, width=16, stride=10, zoom=1, wrap=True
  ))
  assert len(sequences) == 3
  played = sequences[0][:, 0, 0, 0]
  for start, sequence in zip((0, 10, 20), sequences, strict=True):
    np.testing.assert_array_equal(sequence[:, 0, 0, 0], np.roll(played, -start))
  assert set(played - 60) == set(range(num_native))


def test_seam_ratio_tells_a_loop_from_a_strip():
  loop = make_shot(0, 24, period=24)
  assert clips.seam_ratio(loop) < 2
  assert clips.seam_ratio(loop[:19]) > 4


def test_at_most_so_many_sequences_spread_over_time():
  clip = make_clip(number_frames(100))
  sequences = list(clips.clip_to_sequences(
    clip, num_frames=20, height=16, width=16, stride=10, zoom=1, max_sequences=3
  ))
  assert [int(s[0, 0, 0, 0]) - 60 for s in sequences] == [0, 40, 80]


@given(st.integers(20, 800), st.integers(20, 800), st.sampled_from([(160, 256), (16, 16), (90, 160)]))
def test_crops_are_the_largest_of_the_aspect_inside_the_frame(height, width, target):
  for crop in clips.plan_crops((height, width), target):
    assert crop.top >= 0 and crop.left >= 0
    assert crop.top + crop.height <= height and crop.left + crop.width <= width
    assert crop.height == height or crop.width == width
    exact = min(height / target[0], width / target[1])
    assert abs(crop.height - exact * target[0]) <= 1 and abs(crop.width - exact * target[1]) <= 1


def test_portrait_clip_gets_several_crops():
  assert [crop.top for crop in clips.plan_crops((640, 360), (160, 256))] == [0, 208, 415]
  assert len(clips.plan_crops((360, 640), (160, 256))) == 1


def test_shrinking_averages_areas():
  frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
  crop = clips.Crop(4, 8, 20, 40)
  small = clips.cut_frames(frames, crop, height=10, width=20)
  expected = frames[:, 4:24, 8:48].reshape(2, 10, 2, 20, 2, 3).mean((2, 4))
  assert np.abs(small - expected).max() <= 0.5


def test_close_crop_goes_where_things_move():
  frames = np.full((20, 80, 128, 3), 100, np.uint8)
  frames[::2, 60:75, 100:120] = 200
  crop = clips.find_active_crop(frames, (32, 48), 2.0)
  assert crop is not None
  assert crop.top <= 60 and crop.left <= 100
  assert crop.top + crop.height >= 75 and crop.left + crop.width >= 120
  assert clips.find_active_crop(frames, (60, 96), 2.0) is None


def test_find_clips_lists_videos_only(tmp_path):
  for name in ("b.mp4", "a.MOV", "notes.txt"):
    (tmp_path / name).touch()
  assert [path.name for path in clips.find_clips(tmp_path)] == ["a.MOV", "b.mp4"]
  with pytest.raises(UserError, match="No videos"):
    clips.find_clips(tmp_path / "nowhere")
