"""What each frame of a clip shows: turned and mirrored as the file says, over white where it is transparent."""

import itertools
import struct

import av
import numpy as np
import pytest
from PIL import Image
from videos import assert_refused, encode, sliding_frames, swatch_frame

from gid_jax.media import clips, decoding, encoding, shots

# (a, b, c, d): the pixel (x, y) is shown at (a x + c y, b x + d y).
MATRICES = {
  "as it is": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "upside down": (1, 0, 0, -1), "half turn": (-1, 0, 0, -1),
  "clockwise": (0, 1, -1, 0), "counterclockwise": (0, -1, 1, 0), "transposed": (0, 1, 1, 0),
  "transposed the other way": (0, -1, -1, 0),
}  # fmt: skip


def show_by_matrix(frame, a, b, c, d):
  """Carries every pixel to its place, one by one."""
  height, width, _ = frame.shape
  places = {(a * x + c * y, b * x + d * y): frame[y, x] for y, x in itertools.product(range(height), range(width))}
  columns, rows = (sorted({place[axis] for place in places}) for axis in (0, 1))
  return np.array([[places[x, y] for x in columns] for y in rows])


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_are_obeyed(tmp_path, name):
  encode(tmp_path / "a.mp4", sliding_frames(2, height=32, width=48))
  upright = clips.read_clip(tmp_path / "a.mp4").frames
  data = bytearray((tmp_path / "a.mp4").read_bytes())
  a, b, c, d = MATRICES[name]
  place = data.index(b"tkhd") + 4 + 40
  struct.pack_into(">9i", data, place, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
  (tmp_path / "b.mp4").write_bytes(data)
  np.testing.assert_array_equal(clips.read_clip(tmp_path / "b.mp4").frames[1], show_by_matrix(upright[1], a, b, c, d))


# Transparency


def sticker(number=3):
  """Frames [32 48 4]: soft colours, opaque at the left and transparent at the right, in a half-transparent frame."""
  alpha = np.full((32, 48), 128, np.uint8)
  alpha[4:-4, 4:20], alpha[4:-4, 28:-4] = 255, 0
  return [np.dstack([frame, alpha]) for frame in sliding_frames(number, height=32, width=48)]


def over_white(frame):
  alpha = frame[..., 3:] / 255
  return frame[..., :3] * alpha + 255 * (1 - alpha)


def opaque_or_not(pixels):
  return pixels[6:-6, 6:18], pixels[6:-6, 31:-6]


@pytest.mark.parametrize(
  "name, codec, pixel_format, tolerance",
  [
    ("a.webm", "libvpx-vp9", "yuva420p", 8),
    ("b.webm", "libvpx", "yuva420p", 12),
    ("c.mkv", "libvpx-vp9", "yuva420p", 8),
    ("a.mov", "prores_ks", "yuva444p10le", 6),
    ("b.mov", "qtrle", "argb", 0.51),
    ("c.mov", "png", "rgba", 0.51),
    ("a.mkv", "ffv1", "bgra", 0.51),
  ],
)
def test_transparency_is_over_white_whatever_the_codec(tmp_path, name, codec, pixel_format, tolerance):
  frames = sticker()
  options = {"crf": "10", "b": "20M", "auto-alt-ref": "0"} if codec.startswith("libvpx") else {}
  encode(tmp_path / name, frames, codec=codec, pixel_format=pixel_format, source="rgba", options=options)
  found = clips.read_clip(tmp_path / name).frames
  assert len(found) == 3
  for shown, expected in zip(opaque_or_not(found[1]), opaque_or_not(over_white(frames[1])), strict=True):
    assert np.abs(shown - expected).mean() < tolerance
  assert (found[1][6:-6, 31:-6] > 250).all()
  smaller = clips.read_clip(tmp_path / name, short_side=16).frames[1]
  assert smaller.shape == (16, 24, 3) and (smaller[4:-4, 16:-4] > 250).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_animated_pictures_are_clips(tmp_path, kind):
  frames = sticker(20)
  for frame in frames:
    frame[..., 3] = np.where(frame[..., 3] > 200, 255, 0)  # all that GIF can say
    if kind == "AVIF":
      frame[..., 3] = 255  # FFmpeg keeps the transparency of its sequences apart
  first, *others = map(Image.fromarray, frames)
  options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "AVIF" else {}
  first.save(tmp_path / "a.bin", kind, save_all=True, append_images=others, duration=50, disposal=2, loop=0, **options)
  assert shots.is_video(tmp_path / "a.bin")
  clip = clips.read_clip(tmp_path / "a.bin")
  np.testing.assert_allclose(clip.times, np.arange(20) / 20, atol=0.002)
  tolerance = {"GIF": 12, "PNG": 0.51, "WEBP": 0.51, "AVIF": 6}[kind]
  assert np.abs(clip.frames[7] - over_white(frames[7])).mean() < tolerance
  np.testing.assert_array_equal(decoding.describe_truncation(tmp_path / "a.bin", num_frames=20, seconds=0.95), None)


def test_our_own_animated_webp_is_a_clip(tmp_path):
  encoding.write_video(tmp_path / "a.webp", sliding_frames(20), fps=25, quality=100)
  assert shots.is_video(tmp_path / "a.webp")
  clip = clips.read_clip(tmp_path / "a.webp", short_side=24)
  assert clip.frames.shape == (20, 24, 32, 3)
  np.testing.assert_allclose(clip.times, np.arange(20) / 25, atol=0.002)
  shot = shots.read_shot(tmp_path / "a.webp", size=lambda height, width: (height, width))
  assert shot.source_size == (48, 64) and abs(shot.source_fps - 25) < 0.1


def test_a_broken_animation_is_refused_after_its_good_frames(tmp_path):
  encoding.write_video(tmp_path / "a.webp", sliding_frames(20), fps=25)
  data = (tmp_path / "a.webp").read_bytes()
  (tmp_path / "b.webp").write_bytes(data[: len(data) // 2])
  assert_refused(clips.read_clip, tmp_path / "b.webp", match=r"b\.webp cannot be decoded")


def test_a_still_is_no_clip(tmp_path):
  Image.fromarray(swatch_frame()).save(tmp_path / "a.webp")
  assert not shots.is_video(tmp_path / "a.webp")
  assert_refused(clips.read_clip, tmp_path / "a.webp", match="1 frame; a clip needs at least 2")


def test_the_decoders_with_transparency_are_there():
  assert {"libvpx", "libvpx-vp9"} <= av.codecs_available
