"""Formats of photos: camera raws are refused by name, HEIC and JPEG XL need a library, large ones are made smaller."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from stills import make_tiff, srgb_to_hdr
from videos import SWATCHES, assert_refused, read_swatches, swatch_frame

from gid_jax.media import photos, shots


def noise(height=24, width=32, channels=3):
  return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def camera_tiff(*, sensor=32803, more=None, thumbnail=(48, 32)):
  """A TIFF whose own picture is a thumbnail and whose other is a sensor's."""
  width, height = thumbnail
  block = noise(height, width).tobytes()
  first = {
    254: (4, [1]), 256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [2]),
    271: (2, list(b"CAMERA\0")), 273: (4, [("at", 2)]), 277: (3, [3]), 278: (4, [height]), 279: (4, [len(block)]),
    330: (4, [("at", 1)]), **(more or {}),
  }  # fmt: skip
  second = {256: (4, [96]), 257: (4, [64]), 258: (3, [16]), 259: (3, [1]), 262: (3, [sensor]), 277: (3, [1])}
  return make_tiff([first, second], [block])


RAWS = {
  "a.nef": (camera_tiff(), "NEF"),
  "a.tif": (camera_tiff(), "raw"),
  "b.dng": (camera_tiff(sensor=1, more={50706: (1, [1, 4, 0, 0])}), "DNG"),
  "c.tiff": (camera_tiff(sensor=34892), "raw"),
  "d.arw": (camera_tiff(sensor=1), "ARW"),
  "a.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(200), "CR2"),
  "a.cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200), "CR3"),
  "a.raf": (b"FUJIFILMCCD-RAW 0201" + bytes(200), "RAF"),
  "a.orf": (b"IIRO\x08\0\0\0" + bytes(200), "ORF"),
  "a.rw2": (b"IIU\0\x18\0\0\0" + bytes(200), "RW2"),
  "a.x3f": (b"FOVb" + bytes(200), "X3F"),
  "a.jpg": (b"FUJIFILMCCD-RAW 0201" + bytes(200), "raw"),
}


@pytest.mark.parametrize("name", RAWS)
def test_camera_raws_are_refused_by_name(tmp_path, name):
  data, kind = RAWS[name]
  (tmp_path / name).write_bytes(data)
  assert not shots.is_video(tmp_path / name)
  assert_refused(photos.read_image, tmp_path / name, match=rf"{name} is a camera raw \({kind}\).*JPEG or TIFF")


def test_what_pillow_logs_of_a_file_is_not_printed_beside_what_is_said(tmp_path):
  Image.new("RGB", (24, 32)).save(tmp_path / "a.tif")
  data = bytearray((tmp_path / "a.tif").read_bytes())
  start = int.from_bytes(data[4:8], "little") + 2
  entry = next(at for at in range(start, len(data), 12) if int.from_bytes(data[at : at + 2], "little") == 277)
  data[entry + 8] = 181  # samples a pixel, which Pillow refuses and logs
  (tmp_path / "a.tif").write_bytes(data)
  # In a process of its own, as pytest handles what is logged.
  code = """
import sys
from gid_jax.errors import UserError
from gid_jax.media.photos import read_image
try:
  read_image(sys.argv[1])
except UserError as error:
  print(error)
"""
  ended = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tif"], capture_output=True, text=True)
  assert "a kind of TIFF that cannot be read here" in ended.stdout and ended.stderr == ""


def test_a_tiff_with_a_thumbnail_is_no_raw(tmp_path):
  data = camera_tiff(sensor=1)
  (tmp_path / "a.tif").write_bytes(data)
  assert photos.read_image(tmp_path / "a.tif").shape == (32, 48, 3)
  Image.fromarray(noise()).save(tmp_path / "b.jpg")  # a name alone says nothing of other kinds of files
  (tmp_path / "b.jpg").rename(tmp_path / "b.raw")
  assert photos.read_image(tmp_path / "b.raw").shape == (24, 32, 3)


# HEIC, AVIF and JPEG XL


def save_heif(path, pixels, **options):
  pillow_heif = pytest.importorskip("pillow_heif")
  height, width, _ = pixels.shape
  mode = "RGB;16" if pixels.dtype == np.uint16 else "RGB"
  pillow_heif.from_bytes(mode=mode, size=(width, height), data=pixels.tobytes()).save(path, quality=-1, **options)


def test_heic_is_read(tmp_path):
  save_heif(tmp_path / "a.heic", swatch_frame())
  assert not shots.is_video(tmp_path / "a.heic")
  found = read_swatches(np.rint(255 * photos.read_image(tmp_path / "a.heic")))
  np.testing.assert_allclose(found, SWATCHES, atol=8)


def test_heic_of_10_bits_and_hdr_is_shown_as_sdr(tmp_path):
  signal = np.rint(srgb_to_hdr(swatch_frame() / 255, 16) * 65535).astype(np.uint16)
  save_heif(tmp_path / "a.heic", signal, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9)
  found = read_swatches(np.rint(255 * photos.read_image(tmp_path / "a.heic")))
  np.testing.assert_allclose(found[5:], SWATCHES[5:], atol=10)
  assert (found[3] > 225).all() and (found[4] < 8).all()


def test_heic_is_turned_once(tmp_path):
  pillow_heif = pytest.importorskip("pillow_heif")
  pillow_heif.register_heif_opener()
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(swatch_frame()).save(tmp_path / "a.png", exif=exif)
  with Image.open(tmp_path / "a.png") as turned:  # pillow-heif turns what was opened with an orientation
    turned.save(tmp_path / "a.heic", quality=-1)
  found = np.rint(255 * photos.read_image(tmp_path / "a.heic"))
  assert found.shape == (128, 64, 3)
  np.testing.assert_allclose(read_swatches(np.rot90(found)), SWATCHES, atol=8)


@pytest.mark.parametrize("lossless", [True, False])
def test_jpeg_xl_is_read(tmp_path, lossless):
  pytest.importorskip("pillow_jxl")
  Image.fromarray(swatch_frame()).save(tmp_path / "a.jxl", lossless=lossless)
  assert not shots.is_video(tmp_path / "a.jxl")
  found = read_swatches(np.rint(255 * photos.read_image(tmp_path / "a.jxl")))
  np.testing.assert_allclose(found, SWATCHES, atol=0 if lossless else 8)


def test_jpeg_xl_is_not_turned_twice(tmp_path):
  """Of JPEG XL the decoder obeys the file's own orientation, and EXIF's says nothing."""
  pytest.importorskip("pillow_jxl")
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(swatch_frame()).save(tmp_path / "a.jxl", lossless=True, exif=exif.tobytes())
  assert photos.read_image(tmp_path / "a.jxl").shape == (64, 128, 3)


def test_avif_is_read(tmp_path):
  Image.fromarray(swatch_frame()).save(tmp_path / "a.avif", quality=95)
  assert not shots.is_video(tmp_path / "a.avif")
  found = read_swatches(np.rint(255 * photos.read_image(tmp_path / "a.avif")))
  np.testing.assert_allclose(found, SWATCHES, atol=8)


@pytest.mark.parametrize(
  "head, module, package",
  [
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif", "pillow-heif"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "pillow_heif", "pillow-heif"),
    (b"\xff\x0a", "pillow_jxl", "pillow-jxl-plugin"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "pillow_jxl", "pillow-jxl-plugin"),
  ],
)
def test_what_a_format_needs_is_named(tmp_path, monkeypatch, head, module, package):
  monkeypatch.setitem(sys.modules, module, None)
  (tmp_path / "a.jpg").write_bytes(head + bytes(100))
  assert_refused(photos.read_image, tmp_path / "a.jpg", match=rf"install it with: pip install {package}$")


# Large and long ones


def test_a_large_jpeg_is_decoded_smaller(tmp_path, monkeypatch):
  monkeypatch.setattr(photos, "MAX_MEGAPIXELS", 0.01)
  pixels = np.repeat(np.repeat(noise(30, 40), 8, 0), 8, 1)
  Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, subsampling=0)
  found = photos.read_image(tmp_path / "a.jpg")
  assert found.shape == (60, 80, 3)  # 320 x 240 pixels are 8 times too many
  np.testing.assert_allclose(found, pixels.reshape(60, 4, 80, 4, 3).mean((1, 3)) / 255, atol=0.04)


@pytest.mark.parametrize("orientation", [1, 6])
def test_other_large_photos_are_averaged_down(tmp_path, monkeypatch, orientation):
  monkeypatch.setattr(photos, "MAX_MEGAPIXELS", 0.01)
  monkeypatch.setattr(photos, "_STRIP", 1000)
  pixels = noise(200, 302)
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
  expected = pixels[:198, :300].reshape(66, 3, 100, 3, 3).mean((1, 3)) / 255
  found = photos.read_image(tmp_path / "a.png")
  np.testing.assert_allclose(found, expected if orientation == 1 else np.rot90(expected, -1), atol=1e-5)


def test_strips_are_one_picture(tmp_path, monkeypatch):
  pixels = noise(50, 70, 4)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  whole = photos.read_image(tmp_path / "a.png")
  monkeypatch.setattr(photos, "_STRIP", 3 * 70)
  np.testing.assert_array_equal(photos.read_image(tmp_path / "a.png"), whole)


def test_more_than_can_be_decoded_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(photos, "MAX_MEGAPIXELS", 0.001)
  monkeypatch.setattr(photos, "MAX_DECODED_MEGAPIXELS", 0.01)
  Image.fromarray(noise(101, 100)).save(tmp_path / "a.png")
  assert_refused(photos.read_image, tmp_path / "a.png", match=r"more than 0\.01 megapixels \(100 x 101\); resize it")
  Image.fromarray(noise(300, 300)).save(tmp_path / "a.jpg")
  assert_refused(photos.read_image, tmp_path / "a.jpg", match=r"more than 0\.001 megapixels \(300 x 300\); resize it")


def test_a_long_panorama_is_read(tmp_path):
  pixels = noise(16, 3000)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  np.testing.assert_allclose(photos.read_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)


def test_a_damaged_file_of_a_known_kind_is_called_so(tmp_path):
  buffer = io.BytesIO()
  Image.fromarray(noise()).save(buffer, "WEBP")
  (tmp_path / "a.webp").write_bytes(buffer.getvalue()[:30])
  assert_refused(photos.read_image, tmp_path / "a.webp", match=r"a\.webp is (a damaged WebP file|truncated)")
  (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR")
  assert_refused(photos.read_image, tmp_path / "b.png", match="a damaged PNG file")


@pytest.mark.parametrize(
  "head, name",
  [
    (b"%PDF-1.7", "a PDF document"), (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript document"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\xef\xbb\xbf <!DOCTYPE html><html>", "a web page"), (b"<?xml version='1.0'?><svg width='9'>", "an SVG drawing"),
    (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"), (bytes(64), "full of zeros"),
  ],
)  # fmt: skip
def test_what_is_no_photo_is_refused_by_name(tmp_path, head, name):
  (tmp_path / "a.jpg").write_bytes(head + b" more" * 50)
  assert_refused(photos.read_image, tmp_path / "a.jpg", match=f"a.jpg is {name}")
