"""Changed bytes of small valid files: whatever they are, they are read or refused in one line."""

import functools
import importlib.util
import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from stills import make_png, make_profile, make_rgb_tiff
from videos import encode, sliding_frames

from gid_jax.errors import UserError
from gid_jax.media import clips, photos, shots

FUZZ = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def save(kind, **options):
  buffer = io.BytesIO()
  Image.fromarray(NOISE).save(buffer, kind, **options)
  return buffer.getvalue()


def save_heif():
  import pillow_heif

  pillow_heif.register_heif_opener()
  return save("HEIF")


def save_jxl():
  import pillow_jxl  # noqa: F401 (registers itself)

  return save("JXL")


def exif():
  tags = Image.Exif()
  tags[0x0112] = 6
  tags[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
  return tags


STILLS = {
  "JPEG": lambda: save("JPEG", exif=exif(), icc_profile=make_profile()),
  "progressive JPEG": lambda: save("JPEG", progressive=True),
  "PNG": lambda: save("PNG", exif=exif(), icc_profile=make_profile(grey=False)),
  "deep PNG": lambda: make_png(
    NOISE.astype(np.uint16) * 257, (b"cICP", bytes([9, 16, 0, 1])), (b"gAMA", b"\0\1\x86\xa0"), (b"cHRM", bytes(32))),
  "WEBP": lambda: save("WEBP", exif=exif()),
  "TIFF": lambda: save("TIFF", compression="tiff_lzw"),
  "deep TIFF": lambda: make_rgb_tiff(NOISE.astype(np.uint16) * 257, profile=make_profile()),
  "GIF": lambda: save("GIF"),
  "BMP": lambda: save("BMP"),
  "AVIF": lambda: save("AVIF", exif=exif()),
  "JPEG2000": lambda: save("JPEG2000"),
  "HEIC": save_heif,
  "JPEG XL": save_jxl,
}
NEEDED = {"HEIC": "pillow_heif", "JPEG XL": "pillow_jxl"}
CLIPS = ("a.mp4", "a.webm", "a.avi", "a.mov", "a.gif", "a.webp", "a.png")


@functools.cache
def make_still(kind):
  return STILLS[kind]()


@functools.cache
def make_clip(folder, name):
  frames, path = sliding_frames(20, height=24, width=32), folder / f"good_{name}"
  if name.endswith((".gif", ".webp", ".png")):
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=40)
  else:
    codec, pixel_format = {
      "a.webm": ("libvpx-vp9", "yuva420p"), "a.avi": ("mjpeg", "yuvj420p"), "a.mov": ("png", "rgb24")}.get(
      name, ("libx264", "yuv420p"))  # fmt: skip
    encode(path, frames, codec=codec, pixel_format=pixel_format, options={})
  return path.read_bytes()


@st.composite
def changes(draw):
  """A function that changes bytes at a few places, leaves some out, doubles some, and cuts the end off."""
  places = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
  piece = draw(st.none() | st.tuples(st.floats(0, 1), st.integers(1, 64), st.integers(0, 2)))
  kept = draw(st.sampled_from([1.0, 1.0, 1.0, 0.99, 0.9, 0.5, 0.1]))
  early = draw(st.booleans())  # headers are where the most can go wrong

  def change(data):
    changed = bytearray(data)
    reach = min(len(changed), 300) if early else len(changed)
    for place, value in places:
      changed[int(place * (reach - 1))] = value
    if piece is not None:
      begin, length, copies = int(piece[0] * (reach - 1)), piece[1], piece[2]
      changed[begin : begin + length] = changed[begin : begin + length] * copies
    return bytes(changed[: max(1, int(kept * len(changed)))])

  return change


@pytest.mark.parametrize("kind", STILLS)
@settings(max_examples=15, **FUZZ)
@given(changes())
def test_changed_stills_are_read_or_refused_in_one_line(tmp_path, kind, change):
  if kind in NEEDED and importlib.util.find_spec(NEEDED[kind]) is None:
    pytest.skip("needs the extra photos")
  (tmp_path / "a").write_bytes(change(make_still(kind)))
  said = []
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("error")  # nothing of a library's reaches the user
      image = photos.read_image(tmp_path / "a", warn=said.append)
    assert image.dtype == np.float32 and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
  except UserError as error:
    said.append(str(error))
  assert all(line and "\n" not in line for line in said)


@pytest.mark.parametrize("name", CLIPS)
@settings(max_examples=8, **FUZZ)
@given(changes())
def test_changed_clips_are_read_or_refused_in_one_line(tmp_path_factory, tmp_path, name, change):
  (tmp_path / name).write_bytes(change(make_clip(tmp_path_factory.getbasetemp(), name)))
  said = []
  for read in (
    lambda path: shots.is_video(path),
    lambda path: clips.read_clip(path, max_frames=12),
    lambda path: shots.read_shot(path, size=lambda height, width: (24, 32), warn=said.append),
    lambda path: list(clips.clip_to_sequences(path, num_frames=15, height=24, width=32, zoom=1.0)),
  ):
    try:
      read(tmp_path / name)
    except UserError as error:
      said.append(str(error))
  assert all(line and "\n" not in line for line in said)
