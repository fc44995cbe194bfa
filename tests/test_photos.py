"""Photos: what is read, and what is refused."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from videos import assert_refused

from gid_jax.media import photos


def png(width, height, *, rows=b""):
  """A 1-bit grey PNG with any declared size, whatever it really holds."""
  def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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
  read = photos.read_image(tmp_path / "a.png")
  np.testing.assert_allclose(read, ORIENTATIONS[orientation](pixels) / 255, atol=1e-6)
  assert photos.find_size(tmp_path / "a.png") == read.shape[:2]


def test_the_size_of_what_is_no_photo_is_not_known(tmp_path):
  (tmp_path / "a.jpg").write_text("nothing")
  assert photos.find_size(tmp_path / "a.jpg") is None and photos.find_size(tmp_path / "none.jpg") is None


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


def test_read_image_refuses_in_one_line(tmp_path):
  (tmp_path / "empty.jpg").touch()
  (tmp_path / "text.jpg").write_text("hello\n" * 100)
  (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
  (tmp_path / "dot.png").write_bytes(png(1, 1, rows=b"\0\0"))
  (tmp_path / "huge.png").write_bytes(png(20_000, 20_000))
  Image.fromarray(np.random.default_rng(6).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
  (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2000])
  (tmp_path / "cut.png").write_bytes(png(64, 64, rows=bytes(10)))
  assert_refused(photos.read_image, tmp_path / "missing.jpg", match=r"missing\.jpg: no such file")
  assert_refused(photos.read_image, tmp_path, match="is a folder")
  assert_refused(photos.read_image, tmp_path / "empty.jpg", match="empty")
  assert_refused(photos.read_image, tmp_path / "text.jpg", match="is not an image")
  assert_refused(photos.read_image, tmp_path / "photo.heic", match="HEIC")
  assert_refused(photos.read_image, tmp_path / "dot.png", match="1 x 1 pixels")
  assert_refused(photos.read_image, tmp_path / "huge.png", match=r"more than 250 megapixels \(20000 x 20000\)")
  assert_refused(photos.read_image, tmp_path / "cut.jpg", match="truncated or damaged")
  assert_refused(photos.read_image, tmp_path / "cut.png", match="truncated or damaged")


def test_read_image_refuses_a_fifo(tmp_path):
  os.mkfifo(tmp_path / "pipe.jpg")
  assert_refused(photos.read_image, tmp_path / "pipe.jpg", match="not a regular file")


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
    (b"zTXt", b"k\0\7of no known method"),
    (b"iCCP", b""),
    (b"pHYs", b"\0\0"),
    (b"gAMA", b"\0"),
  ],
)
def test_what_stands_beside_the_pixels_does_not_keep_a_photo_out(tmp_path, name, payload, recwarn):
  data, pixels = png_with(name, payload)
  (tmp_path / "a.png").write_bytes(data)
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)
  assert not recwarn.list


def test_a_damaged_chunk_beside_the_pixels_is_passed_over(tmp_path):
  data, pixels = png_with(b"tEXt", b"k\0v")
  place = data.index(b"tEXt") + 4 + 3  # its checksum
  (tmp_path / "a.png").write_bytes(data[:place] + b"\0\0\0\0" + data[place + 4 :])
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)


@pytest.mark.parametrize("payload", [b"\xff\xee\0\x08Adobe\0", b"\xff\xe0\0\x08JFIF\0\1"])
def test_a_broken_part_of_a_jpeg_does_not_cost_its_orientation(tmp_path, payload):
  pixels = np.full((24, 32, 3), 128, np.uint8)
  pixels[:8, :8] = 255
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif_block())
  data = buffer.getvalue()
  (tmp_path / "a.jpg").write_bytes(data[:2] + payload + data[2:])
  expected = np.rot90(np.asarray(Image.open(io.BytesIO(data))), -1) / 255
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.jpg"), expected, atol=1e-6)


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
