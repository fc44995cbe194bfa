"""Photos and clips: what is read, what is refused, and that what is written comes back."""

import io
import os
import struct
import subprocess
import sys
import weakref
import zlib

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from videos import SWATCHES, assert_refused, moving_frames, read_swatches, swatch_frame

from gid_jax.errors import UserError
from gid_jax.media import clips, encoding, photos


def png(width, height, *, rows=b""):
  """A 1-bit grey PNG with any declared size, whatever it really holds."""
  def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Reading photos


def test_read_image_returns_the_pixels(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  image = photos.read_image(tmp_path / "a.png")
  assert image.dtype == np.float32
  np.testing.assert_allclose(image, pixels / 255, atol=1e-6)


# What each EXIF orientation asks of a viewer, as array operations.
ORIENTATIONS = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_read_image_obeys_exif_orientation(tmp_path, orientation):
  pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), ORIENTATIONS[orientation](pixels) / 255, atol=1e-6)


def test_read_image_shows_transparency_over_white(tmp_path):
  pixels = np.random.default_rng(2).integers(0, 256, (16, 16, 4), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  alpha = pixels[..., 3:] / 255
  expected = pixels[..., :3] / 255 * alpha + (1 - alpha)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), expected, atol=1e-6)


def test_read_image_palette_with_a_transparent_colour(tmp_path):
  indices = np.random.default_rng(3).integers(0, 3, (16, 16), np.uint8)
  picture = Image.fromarray(indices, "P")
  picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  picture.save(tmp_path / "a.png", transparency=1)
  expected = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]], np.float32)[indices]
  np.testing.assert_array_equal(photos.read_image(tmp_path / "a.png"), expected)


def test_read_image_keeps_the_precision_of_16_bit_grey(tmp_path):
  values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
  Image.fromarray(values).save(tmp_path / "a.png")
  expected = np.repeat(values[..., None] / 65535, 3, axis=-1)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_read_image_accepts_grey(tmp_path, mode):
  values = np.random.default_rng(4).integers(0, 2, (16, 18), np.uint8) * 255
  Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
  np.testing.assert_array_equal(photos.read_image(tmp_path / "a.png"), np.repeat(values[..., None] / 255, 3, axis=-1))


def test_read_image_accepts_cmyk(tmp_path):
  ink = np.zeros((24, 24, 4), np.uint8)
  ink[..., 1] = 255  # magenta ink alone absorbs green
  Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100)
  image = photos.read_image(tmp_path / "a.jpg")
  np.testing.assert_allclose(image[12, 12], [1, 0, 1], atol=0.02)


def test_read_image_takes_the_first_frame_of_an_animation(tmp_path):
  frames = [Image.new("RGB", (20, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
  frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
  np.testing.assert_array_equal(photos.read_image(tmp_path / "a.gif"), np.broadcast_to([1.0, 0, 0], (16, 20, 3)))


def gamma_profile(gamma):
  """A matrix profile with sRGB primaries and a plain power curve, made by editing the curves of an sRGB one."""
  profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
  num_tags = struct.unpack_from(">I", profile, 128)[0]
  for index in range(num_tags):
    name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
    if name in (b"rTRC", b"gTRC", b"bTRC"):
      curve = struct.pack(">4sIHHi", b"para", 0, 0, 0, round(gamma * 65536))
      profile[offset:offset + size] = curve.ljust(size, b"\0")
    if name == b"desc":
      profile[offset + 12:offset + size] = bytes(profile[offset + 12:offset + size]).replace(
        "sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
  return bytes(profile)


def test_read_image_converts_its_profile_to_srgb(tmp_path):
  values = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=-1)
  Image.fromarray(values).save(tmp_path / "a.png", icc_profile=gamma_profile(1.0))
  linear = values / 255
  expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), expected, atol=0.015)


def test_read_image_ignores_a_broken_profile(tmp_path):
  pixels = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=b"this is no profile")
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)


def test_read_image_refuses_in_one_line(tmp_path):
  (tmp_path / "empty.jpg").touch()
  (tmp_path / "text.jpg").write_text("hello\n" * 100)
  (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
  (tmp_path / "dot.png").write_bytes(png(1, 1, rows=b"\0\0"))
  (tmp_path / "huge.png").write_bytes(png(20_000, 20_000))
  (tmp_path / "large.png").write_bytes(png(10_001, 10_000))
  Image.fromarray(np.random.default_rng(6).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
  (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2000])
  (tmp_path / "cut.png").write_bytes(png(64, 64, rows=bytes(10)))
  assert_refused(photos.read_image, tmp_path / "missing.jpg", match=r"missing\.jpg: no such file")
  assert_refused(photos.read_image, tmp_path, match="is a folder")
  assert_refused(photos.read_image, tmp_path / "empty.jpg", match="empty")
  assert_refused(photos.read_image, tmp_path / "text.jpg", match="is not an image")
  assert_refused(photos.read_image, tmp_path / "photo.heic", match="HEIC")
  assert_refused(photos.read_image, tmp_path / "dot.png", match="1 x 1 pixels")
  assert_refused(photos.read_image, tmp_path / "huge.png", match="megapixels.*resize it below")
  assert_refused(photos.read_image, tmp_path / "large.png", match=r"megapixels \(10001 x 10000\)")
  assert_refused(photos.read_image, tmp_path / "cut.jpg", match="truncated or damaged")
  assert_refused(photos.read_image, tmp_path / "cut.png", match="truncated or damaged")


def test_read_image_refuses_a_fifo(tmp_path):
  os.mkfifo(tmp_path / "pipe.jpg")
  assert_refused(photos.read_image, tmp_path / "pipe.jpg", match="not a regular file")


# Writing


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
def test_write_video_keeps_colours_and_times(tmp_path, suffix):
  frames = [swatch_frame() for _ in range(5)]
  for index, frame in enumerate(frames):
    frame[0, index] = 77  # identical frames may be merged
  written = encoding.write_video(tmp_path / f"a{suffix}", iter(frames), fps=25)
  assert written == (tmp_path / f"a{suffix}", 128, 64, 5, (tmp_path / f"a{suffix}").stat().st_size)
  assert os.listdir(tmp_path) == [f"a{suffix}"]
  if suffix == ".webp":
    with Image.open(tmp_path / "a.webp") as picture:
      assert picture.n_frames == 5 and picture.info["loop"] == 0
      picture.seek(3)
      decoded = np.asarray(picture.convert("RGB"))
      assert picture.info["timestamp"] == 3 * 40
  else:
    clip = clips.read_clip(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(clip.times, np.arange(5) / 25, atol=1e-3)
    decoded = clip.frames[3]
  np.testing.assert_allclose(read_swatches(decoded).astype(int), SWATCHES, atol=4)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_write_video_says_bt709_limited_range(tmp_path, suffix):
  encoding.write_video(tmp_path / f"a{suffix}", [swatch_frame()] * 2, fps=30)
  with av.open(str(tmp_path / f"a{suffix}")) as container:
    context = container.streams.video[0].codec_context
    assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    assert context.pix_fmt == "yuv420p"
    luma = next(container.decode(video=0)).to_ndarray()[:64]
  white, black = luma[16, 112], luma[48, 16]
  assert abs(int(white) - 235) <= 1 and abs(int(black) - 16) <= 1


def test_write_video_puts_the_index_first(tmp_path):
  encoding.write_video(tmp_path / "a.mp4", moving_frames(5), fps=30)
  data = (tmp_path / "a.mp4").read_bytes()
  assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_write_video_repeats_the_edge_of_odd_sizes(tmp_path, suffix):
  frame = np.full((33, 47, 3), 100, np.uint8)
  frame[-1] = 200
  written = encoding.write_video(tmp_path / f"a{suffix}", [frame] * 2, fps=30, quality=100)
  assert (written.height, written.width) == (34, 48)
  decoded = clips.read_clip(tmp_path / f"a{suffix}").frames[0].astype(int)
  np.testing.assert_allclose(decoded[33, :40], 200, atol=8)
  np.testing.assert_allclose(decoded[16], 100, atol=4)


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
def test_write_video_lets_go_of_frames_as_it_goes(tmp_path, suffix):
  alive = []

  def frames():
    made = []
    for frame in moving_frames(30):
      made.append(weakref.ref(frame))
      alive.append(sum(reference() is not None for reference in made))
      yield frame

  encoding.write_video(tmp_path / f"a{suffix}", frames(), fps=30)
  assert max(alive) <= 4


def test_write_video_quality_trades_size(tmp_path):
  frames = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(4)]
  for suffix in (".mp4", ".webm", ".webp"):
    sizes = [
      encoding.write_video(tmp_path / f"{quality}{suffix}", frames, fps=30, quality=quality).num_bytes
      for quality in (20, 60, 95)
    ]
    assert sizes == sorted(sizes) and sizes[0] < 0.7 * sizes[2]


@pytest.mark.usefixtures("unchecked")
def test_write_video_refuses_in_one_line(tmp_path):
  def write(name, frames=(), **options):
    encoding.write_video(tmp_path / name, frames, **{"fps": 30, **options})

  (tmp_path / "there.mp4").write_bytes(b"precious")
  assert_refused(write, "a.avi", match=r"'\.avi'; use one of \.mp4, \.webm, \.mov, \.gif")
  assert_refused(write, "a", match="unknown video format")
  assert_refused(write, "there.mp4", match="already exists; use --force or --output")
  assert_refused(write, "none.mp4", match="no frames")
  assert_refused(write, "no/a.mp4", match=r"the folder .*no does not exist")
  assert_refused(lambda: write("a.gif", moving_frames(2), fps=60), match="at most 50")
  assert_refused(lambda: write("a.mp4", moving_frames(2), fps=float("nan")), match="must be positive")
  with pytest.raises(ValueError, match="expected uint8"):
    write("float.mp4", [np.zeros((16, 16, 3), np.float32)])
  with pytest.raises(ValueError, match="expected uint8"):
    write("sizes.mp4", [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8)])
  assert os.listdir(tmp_path) == ["there.mp4"]
  assert (tmp_path / "there.mp4").read_bytes() == b"precious"


def test_write_video_overwrites_when_told(tmp_path):
  (tmp_path / "a.mp4").write_bytes(b"old")
  encoding.write_video(tmp_path / "a.mp4", moving_frames(3), fps=30, overwrite=True)
  assert len(clips.read_clip(tmp_path / "a.mp4").frames) == 3


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, UserError])
def test_write_video_leaves_nothing_when_the_frames_fail(tmp_path, suffix, error):
  def frames():
    yield from moving_frames(4)
    raise error("stop")

  (tmp_path / f"a{suffix}").write_bytes(b"precious")
  with pytest.raises(error):
    encoding.write_video(tmp_path / f"a{suffix}", frames(), fps=30, overwrite=True)
  assert os.listdir(tmp_path) == [f"a{suffix}"]
  assert (tmp_path / f"a{suffix}").read_bytes() == b"precious"


FULL_DISK = """
import resource, sys
import numpy as np
from gid_jax.errors import UserError
from gid_jax.media import encoding
noise = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(12)]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for name in sys.argv[1:]:
  try:
    encoding.write_video(name, noise, fps=30)
  except UserError as error:
    print(error)
"""


def test_writing_to_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  # A limit on the size of files makes the kernel refuse writes half way, as a full disk does.
  names = [str(tmp_path / f"a{suffix}") for suffix in encoding.VIDEO_SUFFIXES]
  result = subprocess.run([sys.executable, "-c", FULL_DISK, *names], capture_output=True, text=True, check=True)
  lines = result.stdout.splitlines()
  assert len(lines) == len(names) and result.stderr == ""
  for name, line in zip(names, lines, strict=True):
    assert line.startswith(f"cannot write {name}: ")
  assert os.listdir(tmp_path) == []


def png_with(name, payload):
  """A 20 x 30 PNG with a chunk of that name before its pixels, and the pixels."""
  pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  data, chunk = buffer.getvalue(), name + payload
  chunk = struct.pack(">I", len(payload)) + chunk + struct.pack(">I", zlib.crc32(chunk))
  return data[:33] + chunk + data[33:], pixels


@pytest.mark.parametrize(
  "name, payload",
  [
    (b"zTXt", b"workflow\0\0" + zlib.compress(b'{"node": 1}' * 300_000)),
    (b"iTXt", b"prompt\0\0\0\0\0" + b"x" * 3_000_000),
    (b"iCCP", b"monitor\0\0" + zlib.compress(bytes(4_000_000))),
    (b"eXIf", b"MM\0*\0\0\0\x08\0\x01broken"),
  ],
)
def test_what_stands_beside_the_pixels_does_not_keep_a_photo_out(tmp_path, name, payload, recwarn):
  data, pixels = png_with(name, payload)
  (tmp_path / "a.png").write_bytes(data)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)
  assert not recwarn.list


def exif_block(*, orientation=(3, b"\0\x06\0\0"), altitude=(5, b"\0\0\0\x40")):
  """An EXIF block of two tags, of the (type, four bytes) that are given; the altitude stands in the block of GPS."""
  entry = lambda tag, kind, value: struct.pack(">HHI", tag, kind, 4 if kind == 2 else 1) + value
  first = struct.pack(">H", 2) + entry(0x0112, *orientation) + entry(0x8825, 4, struct.pack(">I", 38)) + bytes(4)
  return b"Exif\0\0MM\0*\0\0\0\x08" + first + struct.pack(">H", 1) + entry(6, *altitude) + bytes(4)


@pytest.mark.parametrize("wrong", ["altitude", "orientation", "end"])
def test_a_wrong_exif_tag_does_not_keep_a_photo_out(tmp_path, wrong, recwarn):
  pixels = np.full((24, 32, 3), 128, np.uint8)
  pixels[:8, :8] = 255
  text = (2, b"12m\0")
  block = exif_block() if wrong == "end" else exif_block(**{wrong: text})
  Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=block[: -20 if wrong == "end" else None])
  found = photos.read_image(tmp_path / "a.jpg")
  upright = pixels if wrong == "orientation" else np.rot90(pixels, -1)
  np.testing.assert_allclose(found, upright / 255, atol=0.15)
  assert not recwarn.list


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"]), st.integers(0, 2**32 - 1))
def test_broken_files_are_photos_or_one_line(tmp_path, kind, seed):
  """Bytes changed at random places, and a cut: a picture or a `UserError`, never an exception of a library."""
  rng = np.random.default_rng(seed)
  buffer = io.BytesIO()
  Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(buffer, kind)
  data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
  places = rng.integers(0, len(data), rng.integers(1, 8))
  data[places] = rng.integers(0, 256, len(places))
  (tmp_path / "a").write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)].tobytes())
  try:
    assert photos.read_image(tmp_path / "a").dtype == np.float32
  except UserError as error:
    assert "\n" not in str(error)
