"""Stills of light, and TIFF beyond what Pillow decodes, compared with the same picture in codes."""

import io
import struct

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from stills import decode_srgb, encode_srgb, make_tiff
from videos import SWATCHES, assert_refused, read_swatches, swatch_frame

from gid_jax.media import light, photos, tiff

FRAME = swatch_frame() // 2  # below what is rolled off
GREY = FRAME[..., 1]
LIGHT = decode_srgb(FRAME / 255).astype(np.float32)


def write_exr(path, light, **options):
  with av.open(str(path), "w", format="image2") as output:
    stream = output.add_stream("exr", rate=1, options=options)
    names = {1: "grayf32le", 3: "gbrpf32le", 4: "gbrapf32le"}
    stream.height, stream.width, stream.pix_fmt = *light.shape[:2], names[light.shape[2]]
    frame = av.VideoFrame.from_ndarray(light if light.shape[2] > 1 else light[..., 0], stream.pix_fmt)
    frame.pts = 0
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def read(tmp_path, name):
  return np.rint(255 * read_swatches(photos.read_image(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.hdr", "a.pfm", "a.exr", "half.exr", "a.tif"])
def test_light_is_shown_as_codes_of_the_same_picture(tmp_path, name):
  if name.endswith("exr"):
    write_exr(tmp_path / name, LIGHT, format="half" if name == "half.exr" else "float")
  else:
    cv2.imwrite(str(tmp_path / name), LIGHT[..., ::-1])
  np.testing.assert_allclose(read(tmp_path, name), SWATCHES // 2, atol=1)


def test_light_above_white_is_rolled_off_and_a_strange_scale_mended(tmp_path):
  light = np.full((32, 48, 3), 0.18, np.float32)
  light[:8] = (3, 2, 1)
  cv2.imwrite(str(tmp_path / "a.hdr"), light[..., ::-1])
  cv2.imwrite(str(tmp_path / "b.hdr"), 1000 * light[..., ::-1])
  found, scaled = (photos.read_image(tmp_path / name) for name in ("a.hdr", "b.hdr"))
  assert found[0, 0, 0] > found[0, 0, 1] > found[0, 0, 2] > encode_srgb(0.7)
  np.testing.assert_allclose(found[-1], encode_srgb(0.18), atol=0.01)
  assert 0.2 < scaled[-1, 0, 0] < 0.6
  assert scaled[0, 0, 1] > scaled[-1, 0, 1]


def test_transparent_light_is_over_white(tmp_path):
  alpha = np.ones((*LIGHT.shape[:2], 1), np.float32)
  alpha[: len(alpha) // 2] = 0.25
  write_exr(tmp_path / "a.exr", np.concatenate([LIGHT * alpha, alpha], -1))
  expected = np.concatenate([SWATCHES[:4] // 2 * 0.25 + 255 * 0.75, SWATCHES[4:] // 2])
  np.testing.assert_allclose(read(tmp_path, "a.exr"), expected, atol=1)


def test_broken_light_is_refused(tmp_path):
  cv2.imwrite(str(tmp_path / "a.hdr"), LIGHT)
  data = (tmp_path / "a.hdr").read_bytes()
  (tmp_path / "a.hdr").write_bytes(data[: len(data) // 2])
  assert_refused(photos.read_image, tmp_path / "a.hdr", match=r"is damaged \(invalid data")


@pytest.mark.parametrize("compression", ["none", "zip16"])
def test_an_openexr_that_ends_early_is_refused(tmp_path, compression):
  write_exr(tmp_path / "a.exr", LIGHT, compression=compression)
  data = (tmp_path / "a.exr").read_bytes()
  photos.read_image(tmp_path / "a.exr")
  for length in (len(data) - 1, len(data) * 3 // 4, len(data) // 2, 400, 200):
    (tmp_path / "a.exr").write_bytes(data[:length])
    assert_refused(photos.read_image, tmp_path / "a.exr", match=r"is damaged \(it ends early\)")


def test_a_tile_of_an_openexr_that_is_cut_is_missed():
  attributes, size = b"tiles\0tiledesc\0" + struct.pack("<I", 9) + bytes(9) + b"\0", 30
  head = struct.pack("<II", 20000630, 2 | 0x200) + attributes
  data = head + struct.pack("<Q", len(head) + 8) + struct.pack("<5i", 0, 0, 0, 0, size) + bytes(size)
  assert light._is_whole_exr(io.BytesIO(data))
  assert not any(light._is_whole_exr(io.BytesIO(data[:-lost])) for lost in (1, size, size + 1))


def raw_tiff(values, *, photometric, bits=None, more=None):
  """An uncompressed TIFF of [h w c] numbers, or of bytes that stand for them."""
  height, width, channels = values.shape
  kinds = {"u": 1, "i": 2, "f": 3}
  block = values.astype(values.dtype.newbyteorder("<")).tobytes() if bits is None else bits
  tags = {
    256: (4, [width]), 257: (4, [height]), 258: (3, [8 * values.itemsize] * channels), 259: (3, [1]),
    262: (3, [photometric]), 273: (4, [("at", 1)]), 277: (3, [channels]), 278: (4, [height]), 279: (4, [len(block)]),
    339: (3, [kinds[values.dtype.kind]] * channels), **(more or {}),
  }  # fmt: skip
  return make_tiff([tags], [block])


def grey(kind):
  """A TIFF of grey in numbers of some kind."""
  wide = GREY[..., None].astype(np.uint16)
  if kind == "12 bits":
    low = GREY.astype(np.int64) * 4095 // 255
    first, second = low[:, ::2], low[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    return raw_tiff(wide, photometric=1, bits=packed.tobytes(), more={258: (3, [12])})
  return {
    "white is zero": lambda: raw_tiff(65535 - wide * 257, photometric=0),
    "32 bits, white is zero": lambda: raw_tiff(~(wide.astype(np.uint32) * 16843009), photometric=0),
    "float, white is zero": lambda: raw_tiff((1 - wide / 255).astype(np.float32), photometric=0),
    "signed": lambda: raw_tiff((wide * 128).astype(np.int16), photometric=1),
    "float": lambda: raw_tiff((wide / 255).astype(np.float32), photometric=1),
    "float of 255": lambda: raw_tiff(wide.astype(np.float32), photometric=1),
    "double": lambda: raw_tiff(wide / 255, photometric=1),
    "double, white is zero": lambda: raw_tiff(1 - wide / 255, photometric=0),
  }[kind]()


@pytest.mark.parametrize("kind", [
  "12 bits", "white is zero", "32 bits, white is zero", "float, white is zero", "signed", "float", "float of 255",
  "double", "double, white is zero"])  # fmt: skip
def test_grey_of_every_kind_of_number(tmp_path, kind):
  (tmp_path / "a.tif").write_bytes(grey(kind))
  expected = read_swatches(GREY)[:, None]
  np.testing.assert_allclose(read(tmp_path, "a.tif"), np.repeat(expected, 3, 1), atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_white_is_zero_where_pillow_reads_nothing_too(dtype):
  """Pillow refuses some of any kind, by their compression or order of bytes."""
  codes = GREY[..., None].astype(dtype) * (np.iinfo(dtype).max // 255)
  pixels = tiff.open_tiff(io.BytesIO(raw_tiff(~codes, photometric=0)), max_pixels=1e9)
  found, _ = pixels.read_rows(0, len(GREY))
  np.testing.assert_array_equal(found[..., 0] >> (8 * (found.itemsize - 1)), GREY)


def test_bright_greys_of_32_bits_are_bright(tmp_path):
  bright = 255 - GREY
  (tmp_path / "a.tif").write_bytes(raw_tiff(bright[..., None].astype(np.uint32) * 16843009, photometric=1))
  expected = read_swatches(bright)[:, None]
  np.testing.assert_allclose(read(tmp_path, "a.tif"), np.repeat(expected, 3, 1), atol=1)


def test_colours_of_32_bits_and_of_luma_and_chroma(tmp_path):
  (tmp_path / "a.tif").write_bytes(raw_tiff(FRAME.astype(np.uint32) * 16843009, photometric=2))
  np.testing.assert_allclose(read(tmp_path, "a.tif"), SWATCHES // 2, atol=1)
  luma = np.asarray(Image.fromarray(FRAME).convert("YCbCr"))
  (tmp_path / "b.tif").write_bytes(raw_tiff(luma, photometric=6, more={530: (3, [1, 1])}))
  np.testing.assert_allclose(read(tmp_path, "b.tif"), SWATCHES // 2, atol=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("orientation, turn", [(3, 2), (6, 1), (8, -1)])
def test_a_tiff_is_turned_once(tmp_path, dtype, orientation, turn):
  values = LIGHT if dtype == np.float32 else FRAME.astype(dtype) * (257 if dtype == np.uint16 else 1)
  stored = np.ascontiguousarray(np.rot90(values, turn))
  (tmp_path / "a.tif").write_bytes(raw_tiff(stored, photometric=2, more={274: (3, [orientation])}))
  np.testing.assert_allclose(read(tmp_path, "a.tif"), SWATCHES // 2, atol=1)


def test_a_kind_of_tiff_that_nobody_reads_is_named(tmp_path, capfd):
  (tmp_path / "a.tif").write_bytes(raw_tiff(LIGHT.astype(np.float16), photometric=2))
  assert_refused(photos.read_image, tmp_path / "a.tif", match="a.tif is damaged or a kind of TIFF that cannot be read")
  assert capfd.readouterr().err == ""
