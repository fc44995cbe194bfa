"""Clips: what is decoded from any kind of file, at what times, and what is refused."""

import contextlib
import itertools
import os
import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from stills import srgb_to_hdr
from videos import SWATCHES, assert_refused, encode, moving_frames, read_swatches, sliding_frames, swatch_frame

from gid_jax.errors import UserError
from gid_jax.media import clips, decoding, encoding, shots
from gid_jax.types import Clip


@pytest.mark.parametrize("space, tag", [("ITU709", 1), ("ITU601", 6)])
@pytest.mark.parametrize("span, range_tag", [("MPEG", 1), ("JPEG", 2)])
def test_read_clip_obeys_matrix_and_range(tmp_path, space, tag, span, range_tag):
  encode(
    tmp_path / "a.mp4", [swatch_frame()] * 3, tags={"colorspace": tag, "color_range": range_tag},
    dst_colorspace=space, dst_color_range=span, src_color_range="JPEG")
  decoded = read_swatches(clips.read_clip(tmp_path / "a.mp4").frames[1])
  np.testing.assert_allclose(decoded.astype(int), SWATCHES, atol=5)


@pytest.mark.parametrize("height, space", [(64, "ITU601"), (720, "ITU709")])
def test_read_clip_takes_untagged_video_as_players_do(tmp_path, height, space):
  frame = swatch_frame(height=height, width=2 * height)
  encode(tmp_path / "a.mp4", [frame] * 2, dst_colorspace=space, dst_color_range="MPEG", src_color_range="JPEG")
  with av.open(str(tmp_path / "a.mp4")) as container:
    assert container.streams.video[0].codec_context.colorspace == 2  # unspecified, or this tests nothing
  decoded = read_swatches(clips.read_clip(tmp_path / "a.mp4").frames[1], height=height, width=2 * height)
  np.testing.assert_allclose(decoded.astype(int), SWATCHES, atol=5)


def test_read_clip_times_are_those_of_the_frames(tmp_path):
  stamps = [0, 1, 2, 6, 7, 15, 16, 30]
  encode(tmp_path / "a.mp4", list(moving_frames(len(stamps))), pts=stamps)
  clip = clips.read_clip(tmp_path / "a.mp4")
  assert clip.frames.shape == (8, 48, 64, 3) and clip.frames.dtype == np.uint8
  np.testing.assert_allclose(clip.times, np.array(stamps) / 30, atol=1e-3)
  bar = clip.frames[:, 24, :, 0].argmax(axis=-1)
  np.testing.assert_allclose(bar, 2 * np.arange(8) + 1.5, atol=2)


def test_read_clip_stops_at_max_frames(tmp_path):
  encode(tmp_path / "a.mp4", list(moving_frames(9)))
  assert len(clips.read_clip(tmp_path / "a.mp4", max_frames=4).frames) == 4


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_read_clip_obeys_the_rotation_of_a_phone(tmp_path, turns):
  encode(tmp_path / "a.mp4", [swatch_frame()] * 2)
  upright = clips.read_clip(tmp_path / "a.mp4").frames
  data = bytearray((tmp_path / "a.mp4").read_bytes())
  # The display matrix of the track header maps (x, y) to (a x + c y, b x + d y): clockwise quarter turns.
  a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[turns]
  matrix = data.index(b"tkhd") + 4 + 40
  struct.pack_into(">9i", data, matrix, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
  (tmp_path / "b.mp4").write_bytes(data)
  np.testing.assert_array_equal(
    clips.read_clip(tmp_path / "b.mp4").frames, np.rot90(upright, -turns, axes=(1, 2)))


def test_read_clip_refuses_in_one_line(tmp_path):
  (tmp_path / "empty.mp4").touch()
  (tmp_path / "text.mp4").write_text("hello\n" * 100)
  encode(tmp_path / "one.mp4", list(moving_frames(1)))
  encode(tmp_path / "whole.mp4", list(moving_frames(9)))
  (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
  with av.open(str(tmp_path / "sound.wav"), "w") as container:
    stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
    sound.sample_rate = 8000
    container.mux(stream.encode(sound))
  assert_refused(clips.read_clip, tmp_path / "missing.mp4", match="no such file")
  assert_refused(clips.read_clip, tmp_path, match="is a folder")
  assert_refused(clips.read_clip, tmp_path / "empty.mp4", match="empty")
  assert_refused(clips.read_clip, tmp_path / "text.mp4", match="cannot be decoded")
  assert_refused(clips.read_clip, tmp_path / "cut.mp4", match="cannot be decoded")
  assert_refused(clips.read_clip, tmp_path / "sound.wav", match="no video stream")
  assert_refused(clips.read_clip, tmp_path / "one.mp4", match="1 frame; a clip needs at least 2")


def decode(path, **options):
  return np.stack([frame for frame, _ in decoding.decode_frames(path, **options)])


def good_frames(path):
  with contextlib.suppress(UserError):
    yield from decoding.decode_frames(path)


def test_read_clip_believes_stamps_and_not_the_header(tmp_path):
  stamps = np.round(np.arange(12) * 1000 / 24 + 5000).astype(int)
  encode(tmp_path / "a.mkv", list(moving_frames(12)), rate=444, time_base=Fraction(1, 1000), pts=stamps.tolist())
  with av.open(str(tmp_path / "a.mkv")) as container:
    assert container.streams.video[0].guessed_rate > 400  # or this tests nothing
  np.testing.assert_allclose(clips.read_clip(tmp_path / "a.mkv").times, np.arange(12) / 24, atol=1.1e-3)


@pytest.mark.parametrize("shift", [-45, 90])
def test_read_clip_starts_at_zero_whatever_the_first_stamp(tmp_path, shift):
  encode(tmp_path / "a.ts", list(moving_frames(6)), pts=[shift + i for i in range(6)], options={"bf": "0"})
  np.testing.assert_allclose(clips.read_clip(tmp_path / "a.ts").times, np.arange(6) / 30, atol=1e-3)


@pytest.mark.parametrize("height, width", [(33, 47), (17, 80)])
def test_read_clip_accepts_odd_sizes(tmp_path, height, width):
  frames = sliding_frames(3, height=height, width=width)
  encode(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0", options={})
  np.testing.assert_array_equal(clips.read_clip(tmp_path / "a.mkv").frames, frames)


@pytest.mark.parametrize("codec, pixel_format", [("ffv1", "gray"), ("ffv1", "gray10le"), ("libx264", "yuv420p10le")])
def test_read_clip_accepts_grey_and_10_bit(tmp_path, codec, pixel_format):
  ramp = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (32, 128, 3)).copy()
  encode(tmp_path / "a.mkv", [ramp] * 2, codec=codec, pixel_format=pixel_format, options={})
  with av.open(str(tmp_path / "a.mkv")) as container:
    assert next(container.decode(video=0)).format.name == pixel_format
  np.testing.assert_allclose(clips.read_clip(tmp_path / "a.mkv").frames[1].astype(int), ramp, atol=4)


def test_interlaced_video_has_no_combs(tmp_path):
  fields = [np.repeat(frame[..., :1], 3, -1) for frame in sliding_frames(24, height=64, width=96, step=3)]
  even = (np.arange(64) % 2 == 0)[:, None, None]
  woven = [np.where(even, first, second) for first, second in zip(fields[::2], fields[1::2], strict=True)]
  encode(tmp_path / "a.mp4", woven, rate=25, options={"crf": "5", "x264-params": "tff=1"}, tags={"color_range": 1})
  clip = clips.read_clip(tmp_path / "a.mp4")
  np.testing.assert_allclose(clip.times, np.arange(12) / 25, atol=1e-3)
  # Each frame shows one moment, the same one of the two for all of them.
  errors = [np.abs(clip.frames - np.stack(fields[half::2]).astype(float)).mean() for half in (0, 1)]
  assert min(errors) < 4 and 5 * min(errors) < max(errors)


def test_decoding_progressive_video_leaves_it_alone(tmp_path):
  frames = sliding_frames(5)
  encode(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0", options={})
  np.testing.assert_array_equal(decode(tmp_path / "a.mkv"), frames)


def test_pixels_become_square(tmp_path):
  encode(tmp_path / "a.mp4", [swatch_frame(height=64, width=64)] * 2, aspect=Fraction(2, 1))
  frames = clips.read_clip(tmp_path / "a.mp4").frames
  assert frames.shape[1:3] == (64, 128)
  np.testing.assert_allclose(read_swatches(frames[1]).astype(int), SWATCHES, atol=8)


def test_transparency_is_shown_over_white(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 4), np.uint8)
  encode(tmp_path / "a.mov", [pixels] * 2, codec="png", pixel_format="rgba", source="rgba", options={})
  alpha = pixels[..., 3:] / 255
  expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
  np.testing.assert_allclose(clips.read_clip(tmp_path / "a.mov").frames[0], expected, atol=0.51)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_shown_as_sdr(tmp_path, transfer):
  signal = np.rint(srgb_to_hdr(swatch_frame() / 255, transfer) * 65535).astype(np.uint16)
  encode(
    tmp_path / "a.mkv", [signal] * 2, codec="ffv1", pixel_format="yuv444p10le", source="rgb48le", options={},
    tags={"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1},
    dst_colorspace=9, dst_color_range="MPEG", src_color_range="JPEG")
  found = read_swatches(clips.read_clip(tmp_path / "a.mkv").frames[1]).astype(int)
  np.testing.assert_allclose(found[5:], SWATCHES[5:], atol=4)  # mid-tones stay
  assert (found[3] > 225).all() and (found[4] < 4).all()
  assert (found[[0, 1, 2], [0, 1, 2]] > 225).all() and (found[:3].sum(-1) < 260).all()


@pytest.mark.parametrize("turns", [0, 1])
def test_large_frames_are_averaged_down_while_decoding(tmp_path, turns):
  frames = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), np.uint8)
  encode(tmp_path / "a.mkv", np.rot90(frames, turns, (1, 2)).copy(), codec="ffv1", pixel_format="bgr0", options={})
  expected = np.rot90(frames.reshape(2, 24, 4, 40, 4, 3).mean((2, 4)), turns, (1, 2))
  np.testing.assert_allclose(clips.read_clip(tmp_path / "a.mkv", short_side=24).frames, expected, atol=2)
  assert decode(tmp_path / "a.mkv", short_side=200).shape == np.rot90(frames, turns, (1, 2)).shape


def test_a_clip_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(clips, "MAX_CLIP_BYTES", 5 * 48 * 64 * 3)
  encode(tmp_path / "a.mp4", list(moving_frames(9)))
  assert_refused(clips.read_clip, tmp_path / "a.mp4", match="2 GB after 6 frames of 64 x 48; shorten it or make it")
  assert len(clips.read_clip(tmp_path / "a.mp4", short_side=24).frames) == 9


def test_damage_in_the_middle_ends_the_clip_with_a_reason(tmp_path):
  encode(tmp_path / "a.mp4", sliding_frames(60), options={"g": "10", "bf": "0", "crf": "10"})
  data = bytearray((tmp_path / "a.mp4").read_bytes())
  middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
  data[middle:middle + 3000] = bytes(3000)
  (tmp_path / "b.mp4").write_bytes(data)
  whole, good = decode(tmp_path / "a.mp4"), list(good_frames(tmp_path / "b.mp4"))
  good = [frame for frame, _ in good]
  assert 15 <= len(good) < 45
  np.testing.assert_array_equal(good, whole[:len(good)])
  assert_refused(clips.read_clip, tmp_path / "b.mp4", match=rf"(cannot be decoded|damaged) after {len(good)} frames")
  assert len(clips.read_clip(tmp_path / "b.mp4", max_frames=10).frames) == 10


def test_a_file_that_was_cut_off_says_so(tmp_path):
  # Bytes beyond the end are no error to FFmpeg where the container has no index; the header promised 2 s.
  encode(tmp_path / "a.mkv", sliding_frames(60), options={"bf": "0"})
  data = (tmp_path / "a.mkv").read_bytes()
  (tmp_path / "b.mkv").write_bytes(data[:len(data) * 2 // 3])
  for name, match in (("a.mkv", None), ("b.mkv", r"b\.mkv is cut off after [01]\.\d of 2\.0 s")):
    clip = clips.read_clip(tmp_path / name)
    note = decoding.describe_truncation(tmp_path / name, num_frames=len(clip.frames), seconds=clip.times[-1])
    assert note is None if match is None else re.search(match, note or "")


def test_a_header_that_counts_more_frames_than_there_are_says_so(tmp_path):
  encode(tmp_path / "a.avi", sliding_frames(60), codec="mjpeg", pixel_format="yuvj420p", options={})
  data = (tmp_path / "a.avi").read_bytes()
  (tmp_path / "b.avi").write_bytes(data[:len(data) // 2])
  num_frames = sum(1 for _ in good_frames(tmp_path / "b.avi"))
  assert 20 < num_frames < 40
  note = decoding.describe_truncation(tmp_path / "b.avi", num_frames=num_frames, seconds=num_frames / 30)
  assert note is not None and f"after {num_frames} of 60 frames" in note
  assert decoding.describe_truncation(tmp_path / "a.avi", num_frames=60, seconds=2.0) is None


def test_the_cover_of_an_album_is_no_video(tmp_path):
  with av.open(str(tmp_path / "a.mp4"), "w") as container:
    cover = container.add_stream("mjpeg", rate=1)
    cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
    cover.disposition = Disposition.attached_pic
    sound = container.add_stream("aac", rate=8000, layout="mono")
    container.mux(cover.encode(av.VideoFrame.from_ndarray(sliding_frames(1)[0], "rgb24")))
    container.mux(cover.encode(None))
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    silence.sample_rate = 8000
    container.mux(sound.encode(silence))
    container.mux(sound.encode(None))
  assert_refused(clips.read_clip, tmp_path / "a.mp4", match="no video stream")


def test_a_colon_in_a_path_is_no_protocol(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  os.mkdir("take:1")
  encoding.write_video("take:1/a.mp4", moving_frames(3), fps=30)
  assert len(clips.read_clip("take:1/a.mp4").frames) == 3


# Times


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_title_that_is_not_utf_8_does_no_harm(tmp_path, suffix):
  path = tmp_path / f"a{suffix}"
  with av.open(str(path), "w") as output:
    output.metadata["title"] = "meadow"
    stream = output.add_stream("mpeg4", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for frame in moving_frames(5):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
    output.mux(stream.encode())
  named = path.read_bytes()
  path.write_bytes(named.replace(b"meadow", b"for\xeats"))
  assert b"meadow" in named and shots.is_video(path)
  assert len(clips.read_clip(path).frames) == 5
  assert decoding.describe_truncation(path, num_frames=5, seconds=5 / 30) is None


def longest_increasing_by_brute_force(times):
  finite = [t for t in times if np.isfinite(t)]
  for length in range(len(finite), 0, -1):
    if any(all(a < b for a, b in itertools.pairwise(chosen)) for chosen in itertools.combinations(finite, length)):
      return length
  return 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 12).map(float), st.just(float("nan"))), min_size=2, max_size=8))
def test_repair_times_changes_as_few_stamps_as_possible(times):
  times = np.array(times)
  repaired = decoding.repair_times(times)
  assert repaired[0] == 0 and repaired.shape == times.shape
  assert (np.diff(repaired) > 0).all()
  kept = longest_increasing_by_brute_force(times)
  if kept >= 2:
    # Some shift of the result agrees with the input at least as often as the longest increasing run is long.
    shifts = (times[:, None] - repaired[None, :])[np.eye(len(times), dtype=bool)]
    assert max(np.sum(np.isclose(shifts, s, atol=1e-9)) for s in shifts if np.isfinite(s)) >= kept


def test_repair_times_fills_gaps_and_ends():
  nan = float("nan")
  np.testing.assert_allclose(decoding.repair_times(np.array([nan, 1.0, 1.1, nan, nan, 1.4, 0.2])), np.arange(7) * 0.1)
  np.testing.assert_allclose(decoding.repair_times(np.array([nan, nan, nan])), np.arange(3) / 30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.005, 0.3), min_size=1, max_size=12), st.floats(4.0, 90.0))
def test_resample_clip_takes_the_nearest_frame(intervals, fps):
  times = np.concatenate([[0.0], np.cumsum(intervals)])
  frames = np.broadcast_to(np.arange(len(times), dtype=np.uint8)[:, None, None, None], (len(times), 1, 1, 3))
  if times[-1] * fps < 0.5:
    assert_refused(lambda: clips.resample_clip(Clip(frames, times), fps=fps), match="at least 2 frames")
    return
  result = clips.resample_clip(Clip(frames, times), fps=fps)
  np.testing.assert_allclose(result.times, np.arange(len(result.times)) / fps)
  assert abs(result.times[-1] - times[-1]) <= 0.5 / fps + 1e-9
  chosen = times[result.frames[:, 0, 0, 0]]
  best = np.abs(times[None, :] - result.times[:, None]).min(axis=1)
  np.testing.assert_allclose(np.abs(chosen - result.times), best, atol=1e-9)


def test_resample_clip_at_its_own_rate_is_the_identity_despite_rounded_stamps():
  times = np.round(np.arange(150) / 30, 3)  # milliseconds, as in WebM
  frames = np.broadcast_to(np.arange(150, dtype=np.uint8)[:, None, None, None], (150, 1, 1, 3))
  np.testing.assert_array_equal(clips.resample_clip(Clip(frames, times), fps=30).frames, frames)


def test_a_stamp_of_nonsense_fills_no_memory():
  frames = np.zeros((3, 1, 1, 3), np.uint8)
  assert_refused(
    lambda: clips.resample_clip(Clip(frames, np.array([0, 0.03, 1e9])), fps=30), match="3 frames over 1000000000 s")
