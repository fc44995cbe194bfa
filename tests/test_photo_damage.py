"""Photos that end too early: sound ones are shown with a word, broken ones are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from stills import make_png, png_chunk
from videos import assert_refused

from gid_jax.media import photos

SIZE = (400, 480)


def picture():
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  rng = np.random.default_rng(0)
  smooth = np.stack([128 + 90 * np.sin(rows / 17 + i) * np.cos(columns / 23 - i) for i in range(3)], -1)
  return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def encode(kind, **options):
  buffer = io.BytesIO()
  Image.fromarray(picture()).save(buffer, kind, **options)
  return buffer.getvalue()


def read(tmp_path, data):
  (tmp_path / "a").write_bytes(data)
  said = []
  return photos.read_image(tmp_path / "a", warn=said.append), said


JPEGS = {
  "baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1},
  "many restarts": {"restart_marker_blocks": 3}, "grey": {}, "full colour": {"subsampling": 0},
}  # fmt: skip


def make_jpeg(kind):
  if kind != "grey":
    return encode("JPEG", quality=90, **JPEGS[kind])
  buffer = io.BytesIO()
  Image.fromarray(picture()).convert("L").save(buffer, "JPEG", quality=90)
  return buffer.getvalue()


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_without_its_end_marker_is_whole(tmp_path, kind, lost):
  data = make_jpeg(kind)
  whole, nothing = read(tmp_path, data)
  assert nothing == []
  cut, said = read(tmp_path, data[:-lost])
  np.testing.assert_array_equal(cut, whole)
  # Some are complete before the marker is missed.
  line = f"{tmp_path / 'a'} is cut off at its end; all its pixels are there"
  assert said == [line] or (said == [] and kind in ("grey", "full colour", "restarts"))


@pytest.mark.parametrize("kind", ["baseline", "restarts", "many restarts", "grey", "full colour"])
def test_a_jpeg_without_its_last_bytes_lacks_its_last_blocks(tmp_path, kind):
  data = make_jpeg(kind)
  whole, _ = read(tmp_path, data)
  cut, said = read(tmp_path, data[:-12])
  (line,) = said
  assert "pixels" in line and "\n" not in line
  different = (np.abs(cut - whole) > 0.02).any(-1)
  assert different.mean() <= 0.005
  assert not different[:-17].any()  # colours of a row of blocks reach one pixel further


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.97])
def test_a_jpeg_that_lacks_more_is_refused(tmp_path, kind, share):
  data = make_jpeg(kind)
  (tmp_path / "a").write_bytes(data[: int(share * len(data))])
  assert_refused(photos.read_image, tmp_path / "a", match=r"a is (truncated or damaged|a damaged JPEG file).*again")


PNGS = {
  "plain": lambda: make_png(picture()),
  "16 bits": lambda: make_png(picture().astype(np.uint16) * 257),
  "filtered": lambda: encode("PNG"),
  "palette": lambda: (b := io.BytesIO(), Image.fromarray(picture()).quantize(64).save(b, "PNG"))[0].getvalue(),
}


@pytest.mark.parametrize("kind", PNGS)
@pytest.mark.parametrize("lost", [3, 12, 14, 16])
def test_a_png_without_its_end_is_whole(tmp_path, kind, lost):
  """12 bytes are the end marker, 4 before it the checksum of the pixels."""
  data = PNGS[kind]()
  whole, nothing = read(tmp_path, data)
  cut, said = read(tmp_path, data[:-lost])
  np.testing.assert_array_equal(cut, whole)
  assert nothing == [] and said in ([], [f"{tmp_path / 'a'} is cut off at its end; all its pixels are there"])


@pytest.mark.parametrize("kind", ["plain", "16 bits", "filtered"])
def test_a_png_that_lacks_little_is_shown_with_the_row_above(tmp_path, kind):
  data = PNGS[kind]()
  whole, _ = read(tmp_path, data)
  for lost in (24, 100):
    cut, said = read(tmp_path, data[:-lost])
    (line,) = said
    assert "% of its pixels are missing" in line
    np.testing.assert_array_equal(cut[:-2], whole[:-2])
    assert np.abs(cut[-2:] - whole[-2:]).mean() < 0.1


@pytest.mark.parametrize("kind", PNGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.98])
def test_a_png_that_lacks_more_is_refused(tmp_path, kind, share):
  data = PNGS[kind]()
  (tmp_path / "a").write_bytes(data[: int(share * len(data))])
  assert_refused(photos.read_image, tmp_path / "a", match=r"a is truncated or damaged \(.*\); save or download")


def test_an_interlaced_png_counts_all_its_passes(tmp_path):
  data = interlace(picture())
  whole, _ = read(tmp_path, data)
  np.testing.assert_allclose(whole, picture() / 255, atol=1e-6)
  cut, said = read(tmp_path, data[:-14])
  np.testing.assert_array_equal(cut, whole)
  assert said in ([], [f"{tmp_path / 'a'} is cut off at its end; all its pixels are there"])
  cut, said = read(tmp_path, data[:-400])
  assert len(said) == 1 and (cut != whole).any(-1).mean() < 0.005
  (tmp_path / "b").write_bytes(data[: len(data) * 9 // 10])
  assert_refused(photos.read_image, tmp_path / "b", match="truncated or damaged")


def interlace(pixels):
  """A PNG in the seven passes of Adam7, uncompressed."""
  height, width, _ = pixels.shape
  passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
  rows = b"".join(b"\0" + row.tobytes() for y, x, down, right in passes for row in pixels[y::down, x::right])
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
  parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_other_kinds_are_refused_by_name(tmp_path, kind):
  data = encode(kind)
  (tmp_path / "a").write_bytes(data[: len(data) // 2])
  match = rf"(?i)a is (truncated or|a) damaged( {kind} file| \(.*\)); save"
  assert_refused(photos.read_image, tmp_path / "a", match=match)


def test_a_photo_is_turned_upright_when_it_is_completed_too(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encode("JPEG", quality=90, exif=exif)
  whole, _ = read(tmp_path, data)
  cut, said = read(tmp_path, data[:-2])
  assert whole.shape == (480, 400, 3) and len(said) == 1
  np.testing.assert_array_equal(cut, whole)
