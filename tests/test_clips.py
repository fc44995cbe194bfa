"""Cutting clips into sequences: rate, cuts, black frames, crops, loops."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cuts import make_shot
from videos import encode, sliding_frames

from gid_jax.errors import UserError
from gid_jax.media import clips
from gid_jax.media.clips import read_clip
from gid_jax.media.cuts import Crop, make_overview
from gid_jax.types import Clip


def make_clip(frames, *, fps=30.0):
  return Clip(frames, np.arange(len(frames)) / fps)


def number_frames(num_frames, *, height=16, width=16):
  """Frames of one texture in which two pixels tell the number, as an angle that goes round once."""
  angles = 2 * np.pi * np.arange(num_frames) / num_frames
  frames = np.random.default_rng(0).integers(40, 220, (1, height, width, 3), np.uint8).repeat(num_frames, 0)
  frames[:, 0, 0] = np.rint(128 + 100 * np.cos(angles))[:, None]
  frames[:, 0, 2] = np.rint(128 + 100 * np.sin(angles))[:, None]
  return frames


def read_numbers(sequence, num_frames):
  """The numbers of frames made by `number_frames(num_frames)`."""
  angles = np.arctan2(sequence[:, 0, 2, 0] - 128.0, sequence[:, 0, 0, 0] - 128.0)
  return np.rint(angles / (2 * np.pi) * num_frames).astype(int) % num_frames


def test_sequences_never_span_a_cut():
  first, second = make_shot(0, 25), make_shot(1, 33)
  sequences = list(clips.clip_to_sequences(
    make_clip(np.concatenate([first, second])), num_frames=20, height=48, width=80, stride=5, zoom=1
  ))
  assert len(sequences) == 2 + 3
  np.testing.assert_array_equal(sequences[1], first[5:25])
  np.testing.assert_array_equal(sequences[2], second[:20])


def test_black_lead_in_is_skipped():
  shot = make_shot(0, 24)
  frames = np.concatenate([np.full((7, *shot.shape[1:]), 4, np.uint8), shot])
  (sequence,) = clips.clip_to_sequences(make_clip(frames), num_frames=24, height=48, width=80, zoom=1)
  np.testing.assert_array_equal(sequence, shot)


def test_short_shot_is_completed_backwards():
  clip = make_clip(number_frames(16))
  (sequence,) = clips.clip_to_sequences(clip, num_frames=20, height=16, width=16, zoom=1)
  assert read_numbers(sequence, 16).tolist() == [*range(16), 14, 13, 12, 11]


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
    clip, num_frames=30, height=16, width=16, stride=10, zoom=1, loop=True
  ))
  assert len(sequences) == 3
  played = read_numbers(sequences[0], num_native)
  for start, sequence in zip((0, 10, 20), sequences, strict=True):
    np.testing.assert_array_equal(read_numbers(sequence, num_native), np.roll(played, -start))
  assert {*played.tolist()} == {*range(num_native)}


def test_seam_ratio_tells_a_loop_from_a_strip():
  loop = make_shot(0, 24, period=24)
  assert clips.seam_ratio(make_overview(loop)) < 2
  assert clips.seam_ratio(make_overview(loop[:19])) > 4


def test_a_strip_or_a_long_video_is_no_loop():
  cut = dict(num_frames=12, height=48, width=80, stride=6, zoom=1, loop=True)
  loop = make_shot(0, 24, period=24)
  assert len(list(clips.clip_to_sequences(make_clip(loop), **cut))) == 4
  assert len(list(clips.clip_to_sequences(make_clip(loop[:19]), **cut))) == 2
  long = np.tile(loop, (26, 1, 1, 1))
  assert len(list(clips.clip_to_sequences(make_clip(long), **cut))) == (len(long) - 12) // 6 + 1


def test_at_most_so_many_sequences_spread_over_time():
  clip = make_clip(number_frames(100))
  sequences = list(clips.clip_to_sequences(
    clip, num_frames=20, height=16, width=16, stride=10, zoom=1, max_sequences=3
  ))
  assert [read_numbers(s, 100)[0] for s in sequences] == [0, 40, 80]


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
  crop = Crop(4, 8, 20, 40)
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


# From files

SMALL = dict(num_frames=12, height=32, width=48, stride=5)


def collect(source, **options):
  """The sequences and the reason why there are not more, if any."""
  sequences = []
  try:
    for sequence in clips.clip_to_sequences(source, **{**SMALL, **options}):
      sequences.append(sequence)
  except UserError as error:
    assert "\n" not in str(error)
    return sequences, str(error)
  return sequences, ""


@pytest.mark.parametrize("rate", [24, 60])
def test_streaming_a_file_gives_what_reading_all_of_it_gives(tmp_path, rate):
  frames = [*make_shot(0, 40, height=64, width=96), *make_shot(1, 50, height=64, width=96)]
  encode(tmp_path / "a.mp4", frames, rate=rate)
  clip = read_clip(tmp_path / "a.mp4")
  sequences, reason = collect(tmp_path / "a.mp4")
  assert len(sequences) >= 6 and not reason
  np.testing.assert_array_equal(sequences, collect(clip)[0])
  # Every sequence must be one of the clip, and the decoded clip the frames that went in.
  assert np.abs(clip.frames.astype(int) - np.stack(frames)).mean() < 6


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
  peaks, options = [], {**SMALL, "height": 128, "width": 192}
  for repeats in (1, 6):
    frames = np.tile(make_shot(0, 30, height=192, width=288, period=30), (repeats, 1, 1, 1))
    encode(tmp_path / "a.mp4", list(frames), options={"preset": "ultrafast"})
    tracemalloc.start()
    num_sequences = sum(1 for _ in clips.clip_to_sequences(tmp_path / "a.mp4", **options))
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert num_sequences > 30
  # What grows is the overview: a few thumbnails a frame.
  assert peaks[1] - peaks[0] < 5 * 30 * frames[0].nbytes / 4


def test_a_damaged_file_gives_its_good_beginning_and_then_the_reason(tmp_path):
  encode(tmp_path / "a.mp4", sliding_frames(80, height=48, width=72), options={"g": "10", "bf": "0"})
  data = bytearray((tmp_path / "a.mp4").read_bytes())
  place = data.index(b"mdat") + (len(data) - data.index(b"mdat")) * 6 // 10
  data[place : place + 2000] = bytes(2000)
  (tmp_path / "b.mp4").write_bytes(data)
  whole, _ = collect(tmp_path / "a.mp4", zoom=1)
  sequences, reason = collect(tmp_path / "b.mp4", zoom=1)
  assert 3 <= len(sequences) < len(whole)
  np.testing.assert_array_equal(sequences, whole[: len(sequences)])
  assert "b.mp4" in reason and "only what comes before is used" in reason


def test_a_file_cut_off_gives_its_good_beginning_and_then_the_reason(tmp_path):
  encode(tmp_path / "a.mkv", sliding_frames(80, height=48, width=72), options={"bf": "0"})
  data = (tmp_path / "a.mkv").read_bytes()
  (tmp_path / "b.mkv").write_bytes(data[: len(data) * 6 // 10])
  sequences, reason = collect(tmp_path / "b.mkv", zoom=1)
  assert len(sequences) >= 2 and "cut off after" in reason and "only what comes before is used" in reason


def test_what_no_sequence_comes_from_says_why(tmp_path):
  moving = sliding_frames(40, height=48, width=72)
  encode(tmp_path / "still.mp4", [moving[0]] * 40)
  encode(tmp_path / "slow.mp4", [frame for frame in moving[:14] for _ in range(3)])
  encode(tmp_path / "black.mp4", [np.zeros_like(moving[0])] * 20 + moving[:5])
  encode(tmp_path / "short.mp4", moving[:8])
  encode(tmp_path / "one.mp4", moving[:1])
  (tmp_path / "text.mp4").write_text("hello\n" * 100)
  for name, reason in {
    "still": "nothing moves",
    "slow": r"\d+\.\d frames per second different from one another",
    "black": r"No shot of at least 0\.30 s: the longest in 0\.83 s lasts 0\.1\d s",
    "short": "No shot of at least",
    "one": "one frame",
    "text": "text.mp4 cannot be decoded",
    "missing": "no such file",
  }.items():
    sequences, found = collect(tmp_path / f"{name}.mp4")
    assert not sequences and re.search(reason, found), found


def test_variable_rate_is_sampled_by_time(tmp_path):
  # The bar stands at 2 pixels times the time in thirtieths of a second, whatever frames there are.
  stamps = np.cumsum(np.random.default_rng(0).integers(1, 4, 40))
  rng = np.random.default_rng(1)
  back = rng.integers(90, 110, (64, 320, 3)).astype(np.uint8)
  frames = []
  for stamp in stamps:
    frame = back.copy()
    frame[:, 2 * stamp : 2 * stamp + 12] = 230
    frames.append(frame)
  encode(tmp_path / "a.mp4", frames, pts=stamps.tolist())
  (sequence,) = clips.clip_to_sequences(
    tmp_path / "a.mp4", num_frames=60, height=64, width=320, stride=60, zoom=1, max_sequences=1)
  place = sequence[:, 32, :, 1].astype(float).clip(150) - 150
  centre = (place * np.arange(320)).sum(1) / place.sum(1)
  assert np.abs(centre - (2 * (stamps[0] + np.arange(60)) + 5.5)).max() <= 2.5  # the nearest stamp is 1 away at most


def test_black_bars_are_cropped():
  shot = make_shot(0, 20, height=60)
  shot[:, :10] = shot[:, 50:] = 2
  sequences, _ = collect(make_clip(shot), height=18, width=40, zoom=1)
  whole, _ = collect(make_clip(shot[:, 12:48]), height=18, width=40, zoom=1)
  assert len(sequences) > 1
  np.testing.assert_array_equal(sequences, whole)


def test_the_closer_crop_gets_the_pixels_it_needs(tmp_path):
  frames = make_shot(0, 14, height=256, width=144)
  encode(tmp_path / "a.mp4", frames)
  # Portrait: 72 of its 144 columns are 1.5 times 48, so decoding at half size loses nothing of the closer crop.
  sequences, _ = collect(tmp_path / "a.mp4", zoom=1.5)
  assert len(sequences) == 4
