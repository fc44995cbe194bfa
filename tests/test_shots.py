"""Which seconds of somebody's clip are measured: those without cuts, fades and black frames, and a word about it."""

import cv2
import numpy as np
import pytest
from PIL import Image
from videos import assert_refused, encode, sliding_frames

from gid_jax.errors import UserError
from gid_jax.media import encoding, shots

SIZE = (48, 64)


def write(path, frames, *, fps=30):
  if path.suffix == ".gif":
    encoding.write_video(path, frames, fps=fps)
  else:
    encode(path, frames, rate=fps, options={"crf": "13"})
  return path


def swing(number, *, seed=0, rate=2.0, fps=30, extent=3.0):
  """Frames of a texture that sways by `extent` pixels at `rate` Hz."""
  texture = sliding_frames(1, height=SIZE[0], width=SIZE[1] + 8, seed=seed)[0]
  frames = []
  for index in range(number):
    offset = 4 + extent * np.sin(2 * np.pi * rate * index / fps + 0.3)
    shift = np.array([[1, 0, -offset], [0, 1, 0]], np.float32)
    frames.append(cv2.warpAffine(texture, shift, SIZE[::-1], flags=cv2.INTER_LINEAR))
  return frames


def fade_in(frames, number):
  return [(frame * min(1.0, i / number)).astype(np.uint8) for i, frame in enumerate(frames)]


def read(path, **options):
  said = []
  return shots.read_shot(path, size=lambda height, width: (height, width), warn=said.append, **options), said


def test_a_good_clip_is_read_from_its_beginning_without_a_word(tmp_path):
  frames = swing(200)
  shot, said = read(write(tmp_path / "a.mp4", frames))
  assert said == [] and (shot.start, shot.index) == (0.0, 0) and len(shot.frames) == 150
  assert np.abs(shot.frames.astype(int) - np.stack(frames[:150])).mean() < 8


def test_a_long_black_beginning_is_passed_over(tmp_path):
  # Longer than what is looked at first, so that no frame of it may be shown.
  frames = [np.zeros((*SIZE, 3), np.uint8)] * 210 + swing(160)
  shot, _ = read(write(tmp_path / "a.mp4", frames))
  assert 210 <= shot.index <= 216 and len(shot.frames) >= 144


def test_what_fades_in_from_black_is_left_out(tmp_path):
  frames = fade_in(swing(120), 30)
  shot, said = read(write(tmp_path / "a.mp4", frames))
  assert 25 <= shot.index <= 36 and abs(shot.start - shot.index / 30) < 0.01
  assert len(shot.frames) == 120 - shot.index
  assert np.abs(shot.frames[0].astype(int) - frames[shot.index]).mean() < 8
  (line,) = said
  assert f"from {shot.start:.1f} s on" in line and "\n" not in line
  whole = shots.read_frame(tmp_path / "a.mp4", index=shot.index)
  assert np.abs(whole.astype(int) - frames[shot.index]).mean() < 8


def test_the_longer_side_of_a_cut_is_taken(tmp_path):
  for name, first, second, begin in (("a.mp4", 30, 60, 30), ("b.mp4", 60, 30, 0)):
    frames = swing(first, seed=1) + swing(second, seed=2)
    shot, said = read(write(tmp_path / name, frames))
    assert shot.index == begin and len(shot.frames) == 60
    assert len(said) == 1 and "2.0 s from" in said[0]


def test_a_cut_behind_the_seconds_wanted_does_not_matter(tmp_path):
  shot, said = read(write(tmp_path / "a.mp4", swing(70, seed=1) + swing(50, seed=2)), num_frames=60)
  assert said == [] and shot.index == 0 and len(shot.frames) == 60


def test_a_later_stretch_is_found_if_it_is_the_first_that_is_long_enough(tmp_path):
  frames = swing(40, seed=1) + swing(40, seed=2) + swing(70, seed=3) + swing(90, seed=4)
  shot, said = read(write(tmp_path / "a.mp4", frames), num_frames=60)
  assert shot.index == 80 and len(shot.frames) == 60 and len(said) == 1


@pytest.mark.parametrize("number", [90, 200])
def test_a_still_title_is_passed_over(tmp_path, number):
  for name, frames, begin in (
    ("before.mp4", swing(1, seed=1) * number + swing(60, seed=2), number),
    ("behind.mp4", swing(60, seed=2) + swing(1, seed=1) * number, 0),
  ):
    shot, said = read(write(tmp_path / name, frames))
    assert (shot.index, len(shot.frames), len(said)) == (begin, 60, 1)
    assert "2.0 s from" in said[0]


def test_start_is_where_the_search_begins(tmp_path):
  path = write(tmp_path / "a.mp4", swing(60, seed=1) + swing(60, seed=2))
  shot, said = read(path, start=1.0, num_frames=30)
  assert (shot.index, said) == (30, []) and abs(shot.start - 1) < 0.01
  shot, said = read(path, start=1.6)
  assert shot.index == 60 and abs(shot.start - 2) < 0.01 and len(shot.frames) == 60


def test_a_start_within_a_long_pause_is_refused_in_one_line(tmp_path):
  path = tmp_path / "slides.gif"
  slides = [Image.fromarray(frame) for frame in swing(3, seed=1)]
  slides[0].save(path, save_all=True, append_images=slides[1:], duration=10_000)
  with pytest.raises(UserError) as caught:
    read(path, start=1.0)
  assert "\n" not in str(caught.value) and "NaN" not in str(caught.value)


def test_repeated_frames_and_slow_clips_are_told_or_refused(tmp_path):
  twos = [frame for frame in swing(60, rate=1.1, fps=10, extent=1.5) for _ in range(3)]
  shot, said = read(write(tmp_path / "twos.mp4", twos))
  assert len(shot.frames) == 150 and len(said) == 1 and " different frames per second" in said[0]
  shot, said = read(write(tmp_path / "slow.gif", swing(40, rate=1.1, fps=10, extent=1.5), fps=10))
  assert shot.source_fps == pytest.approx(10, abs=0.2) and " different frames per second" in said[0]
  assert_refused(read, write(tmp_path / "a.mp4", swing(6), fps=1), match=r"1\.0 different frames per second.*6 or more")
  tens = [frame for frame in swing(12, rate=0.7, fps=3) for _ in range(10)]
  assert_refused(read, write(tmp_path / "b.mp4", tens), match="nothing moves in .*: four of five frames repeat the one")


def test_what_has_no_good_stretch_is_refused(tmp_path):
  black = [np.zeros((*SIZE, 3), np.uint8)] * 60
  assert_refused(read, write(tmp_path / "a.mp4", black), match=r"0\.00 s at most without cuts, fades and black frames")
  scraps = [frame for seed in range(8) for frame in swing(8, seed=seed)]
  assert_refused(read, write(tmp_path / "b.mp4", scraps), match="at most without cuts.* needs 0.5 s or more")
  still = swing(1) * 60
  assert_refused(read, write(tmp_path / "c.mkv.mp4", still), match="nothing moves in .*: four of five frames repeat")


def test_a_fast_camera_is_read_for_as_long_as_others(tmp_path):
  frames = swing(1000, rate=1.3, fps=480)
  shot, said = read(write(tmp_path / "a.mp4", frames, fps=480), num_frames=60)
  assert len(shot.frames) == 60 and shot.source_fps == pytest.approx(480, rel=0.01)
  assert np.abs(shot.frames[30].astype(int) - frames[480]).mean() < 8
  assert said == []


def test_a_frame_that_is_not_there_is_refused(tmp_path):
  path = write(tmp_path / "a.mp4", swing(5))
  with pytest.raises(UserError, match="ends before frame 9"):
    shots.read_frame(path, index=9)
