"""Colours of photos: what numbers beside the pixels say of them is obeyed, whatever anything is called."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from stills import (
  DISPLAY_P3_COLUMNS,
  SRGB_CURVE,
  decode_srgb,
  encode_srgb,
  make_png,
  make_profile,
  make_rgb_tiff,
  parametric,
  png_chunk,
  srgb_to_hdr,
)
from videos import SWATCHES, read_swatches, swatch_frame

from gid_jax.media import icc, photos

LINEAR_GAMMA = (b"gAMA", struct.pack(">I", 100_000))
# White, red, green and blue of Display-P3, and of sRGB.
P3_CHRM = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
SRGB_CHRM = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
# sRGB's red, green and blue, and a grey, as Display-P3 writes them.
P3_OF_SRGB = np.array([[0.9175, 0.2003, 0.1387], [0.4584, 0.9853, 0.2983], [0, 0, 0.9597], [0.5, 0.5, 0.5]])


def read(tmp_path, data):
  (tmp_path / "a").write_bytes(data)
  return photos.read_image(tmp_path / "a")


def stripes(colours, dtype=np.uint8):
  """A picture [16 16n 3] of upright stripes."""
  codes = np.rint(np.asarray(colours) * np.iinfo(dtype).max).astype(dtype)
  return np.repeat(np.repeat(codes[None], 16, 0), 16, 1)


def profiled(pixels, profile, kind="PNG"):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, icc_profile=profile)
  return buffer.getvalue()


def noise(channels=3, dtype=np.uint8):
  rng = np.random.default_rng(0)
  return rng.integers(0, np.iinfo(dtype).max + 1, (20, 24, channels), dtype)


def littlecms(pixels, profile):
  """The 8-bit answer of LittleCMS."""
  source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
  relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
  converted = ImageCms.profileToProfile(Image.fromarray(pixels), source, target, relative, "RGB")
  return np.asarray(converted, np.float64)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_in_linear_light(tmp_path, dtype, channels):
  pixels = noise(channels, dtype)
  largest = np.iinfo(dtype).max
  expected = encode_srgb(pixels[..., : 3 if channels > 1 else 1] / largest)
  if channels == 4:
    alpha = pixels[..., 3:] / largest
    expected = expected * alpha + 1 - alpha
  found = read(tmp_path, make_png(pixels, LINEAR_GAMMA))
  np.testing.assert_allclose(found, np.broadcast_to(expected, (20, 24, 3)), atol=1e-5)


def test_16_bits_keep_the_shadows_of_linear_light(tmp_path):
  shadows = np.repeat(np.arange(64, dtype=np.uint16).reshape(1, 64, 1).repeat(16, 0), 3, -1)
  expected = encode_srgb(shadows / 65535)
  assert len(np.unique(expected)) == 64
  np.testing.assert_allclose(read(tmp_path, make_png(shadows, LINEAR_GAMMA)), expected, atol=1e-5)
  linear = make_profile(curve=b"curv" + bytes(8))
  np.testing.assert_allclose(read(tmp_path, make_rgb_tiff(shadows, profile=linear)), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bits_are_all_read(tmp_path, channels):
  pixels = noise(channels, np.uint16)
  colours = pixels[..., : 3 if channels > 2 else 1] / 65535
  alpha = pixels[..., -1:] / 65535 if channels % 2 == 0 else 1
  expected = np.broadcast_to(colours * alpha + 1 - alpha, (20, 24, 3))
  np.testing.assert_allclose(read(tmp_path, make_png(pixels)), expected, atol=2e-5)
  if channels == 3:
    np.testing.assert_allclose(read(tmp_path, make_rgb_tiff(pixels)), expected, atol=1e-6)


@pytest.mark.parametrize("gamma", [45455, 45000, 0])
def test_a_gamma_that_means_srgb_or_nothing_changes_nothing(tmp_path, gamma):
  pixels = noise()
  found = read(tmp_path, make_png(pixels, (b"gAMA", struct.pack(">I", gamma)), SRGB_CHRM))
  np.testing.assert_array_equal(found, np.float32(pixels) / np.float32(255))


def test_srgb_goes_before_gamma_and_broken_primaries_are_passed_over(tmp_path):
  pixels = noise()
  found = read(tmp_path, make_png(pixels, LINEAR_GAMMA, (b"sRGB", b"\0")))
  np.testing.assert_array_equal(found, np.float32(pixels) / np.float32(255))
  found = read(tmp_path, make_png(pixels, LINEAR_GAMMA, (b"cHRM", bytes(32))))
  np.testing.assert_allclose(found, encode_srgb(pixels / 255), atol=1e-5)


def test_primaries_of_a_png(tmp_path):
  found = read(tmp_path, make_png(stripes(P3_OF_SRGB), (b"gAMA", struct.pack(">I", 45455)), P3_CHRM))
  np.testing.assert_allclose(found[8, 8::16], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]], atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_display_p3_by_code_points(tmp_path, dtype):
  found = read(tmp_path, make_png(stripes(P3_OF_SRGB, dtype), (b"cICP", bytes([12, 13, 0, 1]))))
  np.testing.assert_allclose(found[8, 8::16], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]], atol=0.02)


def assert_tone_mapped(frame):
  found = read_swatches(np.rint(255 * frame)).astype(int)
  np.testing.assert_allclose(found[5:], SWATCHES[5:], atol=4)  # mid-tones stay
  assert (found[3] > 225).all() and (found[4] < 4).all()
  assert (found[[0, 1, 2], [0, 1, 2]] > 225).all() and (found[:3].sum(-1) < 260).all()


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_by_code_points_is_shown_as_sdr(tmp_path, transfer):
  signal = np.rint(srgb_to_hdr(swatch_frame() / 255, transfer) * 65535).astype(np.uint16)
  assert_tone_mapped(read(tmp_path, make_png(signal, (b"cICP", bytes([9, transfer, 0, 1])))))
  profile = make_profile(more=[(b"cicp", b"cicp\0\0\0\0" + bytes([9, transfer, 0, 1]))])
  assert_tone_mapped(read(tmp_path, make_rgb_tiff(signal, profile=profile)))


def test_hdr_of_avif(tmp_path):
  signal = np.rint(srgb_to_hdr(swatch_frame() / 255, 16) * 255).astype(np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(signal).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
  data = bytearray(buffer.getvalue())
  struct.pack_into(">HH", data, data.index(b"colrnclx") + 8, 9, 16)
  found = read_swatches(np.rint(255 * read(tmp_path, data)))
  np.testing.assert_allclose(found[5:], SWATCHES[5:], atol=18)  # 8 bits are few for so much light
  assert (found[3] > 225).all() and (found[4] < 8).all()


def test_code_points_go_before_a_profile_and_a_profile_before_gamma(tmp_path):
  pixels = noise()
  chunk = (b"iCCP", b"linear\0\0" + zlib.compress(make_profile(curve=parametric(1.0))))
  linear = encode_srgb(pixels / 255)
  strange = (b"gAMA", struct.pack(">I", 20_000))
  np.testing.assert_allclose(read(tmp_path, make_png(pixels, chunk, strange)), linear, atol=3e-3)
  srgb = (b"cICP", bytes([1, 13, 0, 1]))
  np.testing.assert_array_equal(read(tmp_path, make_png(pixels, srgb, chunk)), np.float32(pixels) / np.float32(255))
  for unknown in ((b"cICP", bytes([9, 77, 0, 1])), (b"cICP", bytes([2, 2, 0, 1]))):
    np.testing.assert_array_equal(read(tmp_path, make_png(pixels, unknown)), np.float32(pixels) / np.float32(255))
    np.testing.assert_allclose(read(tmp_path, make_png(pixels, unknown, chunk)), linear, atol=3e-3)
  more = [(b"cicp", b"cicp\0\0\0\0" + bytes([2, 2, 0, 1]))]
  found = read(tmp_path, profiled(pixels, make_profile(curve=parametric(1.0), more=more)))
  np.testing.assert_allclose(found, linear, atol=3e-3)


# Profiles


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "linear Rec709 RGB", "sRGB IEC61966-2.1"])
def test_the_name_of_a_profile_says_nothing(tmp_path, name):
  pixels = noise()
  found = read(tmp_path, profiled(pixels, make_profile(curve=parametric(1.0), name=name)))
  np.testing.assert_allclose(found, encode_srgb(pixels / 255), atol=3e-3)


def test_a_profile_of_srgb_changes_nothing_whatever_it_is_called(tmp_path):
  pixels = noise()
  for profile in (make_profile(), make_profile(name="Camera 7"), ImageCms.ImageCmsProfile(
    ImageCms.createProfile("sRGB")).tobytes()):
    np.testing.assert_array_equal(read(tmp_path, profiled(pixels, profile)), np.float32(pixels) / np.float32(255))


@pytest.mark.parametrize(
  "curve",
  [
    SRGB_CURVE, parametric(1.8), b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)), b"curv" + bytes(8),
    b"curv\0\0\0\0" + struct.pack(">I257H", 257, *np.rint(65535 * np.linspace(0, 1, 257) ** 2.6).astype(int)),
    struct.pack(">4sIHH3i", b"para", 0, 1, 0, round(2.4 * 65536), round(0.9 * 65536), round(0.1 * 65536)),
    struct.pack(">4sIHH4i", b"para", 0, 2, 0, 2 * 65536, round(0.9 * 65536), round(0.05 * 65536), round(0.01 * 65536)),
    struct.pack(">4sIHH7i", b"para", 0, 4, 0, *(round(65536 * v) for v in (2.4, 0.9, 0.1, 0.08, 0.04, 0.01, 0.002))),
  ],
  ids=["srgb", "power", "one", "linear", "table", "para1", "para2", "para4"],
)
@pytest.mark.parametrize("columns", [DISPLAY_P3_COLUMNS, ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609),
                                                          (0.1492, 0.0632, 0.7446))], ids=["P3", "Adobe"])
def test_profiles_of_numbers_agree_with_littlecms(tmp_path, curve, columns):
  pixels, profile = noise(), make_profile(columns=columns, curve=curve)
  expected = littlecms(pixels, profile)
  # LittleCMS counts in 16 bits at most, which shows where sRGB is steep.
  assert np.abs(255 * read(tmp_path, profiled(pixels, profile)) - expected).max() < 2.0
  assert icc.read_profile(profile, grey=False) is not None


def test_profiles_belong_to_grey_pictures_too(tmp_path):
  grey = noise(1)[..., 0]
  for profile in (make_profile(curve=parametric(1.0), grey=True), make_profile(curve=parametric(1.0))):
    found = read(tmp_path, profiled(grey, profile))
    np.testing.assert_allclose(found, encode_srgb(grey / 255)[..., None].repeat(3, -1), atol=1e-3)
  deep = noise(1, np.uint16)[..., 0]
  buffer = io.BytesIO()
  Image.fromarray(deep).save(buffer, "TIFF", icc_profile=make_profile(curve=parametric(1.0), grey=True))
  np.testing.assert_allclose(
    read(tmp_path, buffer.getvalue()), encode_srgb(deep / 65535)[..., None].repeat(3, -1), atol=1e-4)


def test_a_profile_of_another_model_or_a_broken_one_is_passed_over(tmp_path):
  pixels = noise()
  good = make_profile(curve=parametric(1.0))
  broken = [b"this is no profile", good[:140], make_profile(grey=True), make_profile(curve=b"para" + bytes(4))]
  for profile in broken:
    np.testing.assert_array_equal(read(tmp_path, profiled(pixels, profile)), np.float32(pixels) / np.float32(255))


@pytest.mark.parametrize("kind", [1, 2])
def test_a_curve_that_is_none_damages_no_photo(tmp_path, kind):
  flat = struct.pack(f">4sIHH{2 + kind}i", b"para", 0, kind, 0, 65536, 0, *[6553] * kind)
  with pytest.raises(ValueError, match="no curve"):
    icc.read_profile(make_profile(curve=flat), grey=False)
  assert read(tmp_path, profiled(noise(), make_profile(curve=flat))).shape == noise().shape


def test_a_profile_of_tables_is_littlecms_business(tmp_path):
  pixels = noise()
  lab = ImageCms.applyTransform(Image.fromarray(pixels), ImageCms.buildTransform(
    ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"))
  lab.save(tmp_path / "a.tif")
  # Colours of 8-bit Lab are coarse.
  assert np.abs(photos.read_image(tmp_path / "a.tif") - pixels / 255).mean() < 0.02


@pytest.mark.parametrize("channels", [3, 4])
def test_a_profile_with_a_table_too_is_littlecms_business(tmp_path, channels):
  pixels = noise(channels)
  profile = make_profile(columns=DISPLAY_P3_COLUMNS, more=[(b"A2B2", b"mft2" + bytes(60))])
  with pytest.raises(ValueError, match="no matrix"):
    icc.read_profile(profile, grey=False)
  shown = littlecms(pixels[..., :3].copy(), profile) / 255
  alpha = pixels[..., 3:] / 255 if channels == 4 else 1
  assert np.abs(read(tmp_path, profiled(pixels, profile)) - (shown * alpha + 1 - alpha)).max() < 0.02


def test_transparency_is_over_white_as_it_is_shown(tmp_path):
  pixels = noise(4)
  found = read(tmp_path, profiled(pixels, make_profile(columns=DISPLAY_P3_COLUMNS)))
  shown = littlecms(pixels[..., :3].copy(), make_profile(columns=DISPLAY_P3_COLUMNS)) / 255
  alpha = pixels[..., 3:] / 255
  np.testing.assert_allclose(found, shown * alpha + 1 - alpha, atol=2 / 255)


def test_linear_light_and_srgb_are_inverse():
  codes = np.linspace(0, 1, 1001)
  np.testing.assert_allclose(encode_srgb(decode_srgb(codes)), codes, atol=1e-9)
  assert png_chunk(b"IEND", b"").hex() == "0000000049454e44ae426082"  # the helpers themselves
