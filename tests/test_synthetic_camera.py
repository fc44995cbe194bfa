"""The simulated world's camera and what stands behind its scenes."""

import dataclasses

import cv2
import numpy as np
import pytest

from data_pipeline.synthetic import backdrops
from data_pipeline.synthetic.camera import Camera, defocus, sample_camera
from data_pipeline.synthetic.places import PLACES

PLAIN = Camera(
  softness=0.0,
  vignette=0.0,
  center=(0.5, 0.5),
  veil=0.0,
  veil_color=(200.0, 200.0, 200.0),
  gain=(1.0, 1.0, 1.0),
  gamma=1.0,
  contrast=0.0,
  saturation=1.0,
  read_noise=0.0,
  shot_noise=0.0,
  seed=5,
  jpeg_quality=0,
)


def fill(level, height=96, width=128):
  return np.full((height, width, 3), level, np.float32)


def paint_canvas(seed=0, height=96, width=128):
  """A canvas of soft spots of all colours."""
  noise = np.random.default_rng(seed).normal(size=(height, width, 3))
  smooth = cv2.GaussianBlur(noise, (0, 0), 4)
  return (128 + 50 * smooth / smooth.std()).astype(np.float32)


def measure_psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_a_plain_camera_rounds_the_canvas():
  canvas = np.random.default_rng(0).integers(0, 200, (37, 53, 3)).astype(np.float32)
  np.testing.assert_array_equal(PLAIN.expose(canvas, 3.0), canvas.astype(np.uint8))


def test_exposing_is_a_pure_function_of_seed_and_time():
  canvas = paint_canvas()
  before = canvas.copy()
  one, same = (sample_camera(np.random.default_rng(7)) for _ in range(2))
  np.testing.assert_array_equal(one.expose(canvas, 12.5), same.expose(canvas, 12.5))
  np.testing.assert_array_equal(one.expose(canvas, 0.0), one.expose(canvas, -0.0))
  np.testing.assert_array_equal(canvas, before)
  assert (one.expose(canvas, 12.5) != one.expose(canvas, 13.5)).any()
  other = dataclasses.replace(one, seed=one.seed + 1)
  assert (one.expose(canvas, 12.5) != other.expose(canvas, 12.5)).any()


@pytest.mark.parametrize("level", [20, 128, 190])
@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_noise_has_the_deviation_of_its_formula(level, gain):
  camera = dataclasses.replace(PLAIN, read_noise=4.0, shot_noise=3.0, gain=(gain,) * 3)
  frames = np.stack([camera.expose(fill(level), t) for t in range(4)]).astype(float)
  deviation = gain * np.hypot(3.0, 4.0 * np.exp(-level / 48))
  # Rounding adds 1/12 to the variance; 147456 correlated samples know a deviation to about 0.5 %.
  np.testing.assert_allclose(frames.std(), np.sqrt(deviation**2 + 1 / 12), rtol=0.025)
  np.testing.assert_allclose(frames.mean(), gain * level, atol=0.1)


def test_noise_is_new_for_every_frame_and_channel():
  camera = dataclasses.replace(PLAIN, shot_noise=4.0)
  a, b = (camera.expose(fill(120), t).astype(float) - 120 for t in (1.0, 1.0 + 1e-9))
  pairs = [(a, b), (a[..., 0], a[..., 1]), (a[:-3], a[3:]), (a[:, :-3], a[:, 3:])]
  for first, second in pairs:
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
  near = np.corrcoef(a[:, :-1].ravel(), a[:, 1:].ravel())[0, 1]
  assert 0.05 < near < 0.4  # neighbours share some, as after demosaicing


def test_two_exposures_of_a_still_canvas_agree_within_35_db():
  ratios = []
  for seed in range(60):
    camera, canvas = sample_camera(np.random.default_rng(seed)), paint_canvas(seed)
    ratios.append(measure_psnr(camera.expose(canvas, 0.0), camera.expose(canvas, 31.0)))
  assert min(ratios) >= 35 and 38 < np.median(ratios) < 48


def test_cameras_differ_and_keep_dark_below_bright():
  canvas, means = paint_canvas(), []
  for seed in range(40):
    camera = sample_camera(np.random.default_rng(seed))
    levels = camera.response(np.arange(0, 300, 2.0))
    assert (np.diff(levels, axis=0) >= 0).all() and levels.min() >= 0 and levels.max() <= 255
    means.append(camera.expose(canvas, 0.0).mean((0, 1)))
  means = np.array(means)
  assert means.std(0).min() > 5 and 90 < means.mean() < 165
  assert 0.3 < np.mean([sample_camera(np.random.default_rng(s)).jpeg_quality > 0 for s in range(200)]) < 0.7


def test_vignette_and_veil_change_light_as_stated():
  camera = dataclasses.replace(PLAIN, vignette=0.25)
  frame = camera.expose(fill(180, 61, 81), 0.0)
  assert frame[30, 40, 0] == 180
  # The far corner is half a diagonal from the middle, up to the half pixel between centre and edge.
  np.testing.assert_allclose(frame[0, 0], 180 / 1.25, atol=1.5)
  hazy = dataclasses.replace(PLAIN, veil=0.1, veil_color=(200.0, 180.0, 160.0))
  np.testing.assert_array_equal(hazy.expose(fill(0), 0.0)[0, 0], [20, 18, 16])
  np.testing.assert_array_equal(hazy.expose(fill(100), 0.0)[0, 0], [110, 108, 106])


def test_saturation_none_is_grey_and_softness_keeps_the_mean():
  canvas = paint_canvas()
  grey = dataclasses.replace(PLAIN, saturation=0.0).expose(canvas, 0.0)
  np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
  soft = dataclasses.replace(PLAIN, softness=0.6)
  stripes = np.tile(np.array([60.0, 160.0], np.float32).repeat(3).reshape(1, 2, 3), (16, 8, 1))
  out = soft.expose(stripes, 0.0).astype(float)
  assert out[:, 4:-4].std() < 0.5 * stripes.std() and abs(out.mean() - 110) < 1


def test_jpeg_is_the_picture_stored_and_read():
  camera = dataclasses.replace(PLAIN, shot_noise=2.0, gain=(1.1, 1.0, 0.7), jpeg_quality=60)
  raw = dataclasses.replace(camera, jpeg_quality=0).expose(paint_canvas(), 2.0)
  stored = cv2.imencode(".jpg", cv2.cvtColor(raw, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
  expected = cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
  out = camera.expose(paint_canvas(), 2.0)
  np.testing.assert_array_equal(out, expected)
  assert (out != raw).any() and measure_psnr(out, raw) > 25


@pytest.mark.parametrize("shape", [(16, 16), (33, 17), (41, 90)])
def test_any_size_can_be_exposed_and_painted(shape):
  for seed in range(8):
    rng = np.random.default_rng(seed)
    canvas = backdrops.sample_backdrop(rng, *shape, [], side=1)
    assert canvas.shape == (*shape, 3) and canvas.dtype == np.float32
    assert canvas.min() >= 0 and canvas.max() <= 255
    frame = sample_camera(rng).expose(canvas, 1.0)
    assert frame.shape == (*shape, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous


@pytest.mark.parametrize("paint", [paint for paint, _ in PLACES], ids=lambda paint: paint.__name__)
def test_every_place_is_painted_from_its_seed_alone(paint):
  for height, width in ((17, 33), (64, 96)):
    for seed in range(3):
      one, two = (np.asarray(paint(np.random.default_rng(seed), height, width, (0.6, -0.8))) for _ in range(2))
      np.testing.assert_array_equal(one, two)
      assert one.shape == (height, width, 3) and np.isfinite(one).all()
      assert one.std() > 0.5 and 2 < one.mean() < 253
  assert abs(sum(share for _, share in PLACES) - 1) < 1e-9


def test_defocus_spreads_light_over_a_disc():
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 255, (24, 30, 3))
  out = defocus(image, 3.0, glow=1e6)  # so much that levels squared are light itself
  offsets = np.arange(-4, 5)
  disc = np.clip(3.5 - np.hypot(offsets, offsets[:, None]), 0, 1)
  light = np.zeros((24, 30, 3))
  padded = np.pad((image / 255) ** 2, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
  for i, j in np.ndindex(9, 9):
    light += disc[i, j] / disc.sum() * padded[i : i + 24, j : j + 30]
  np.testing.assert_allclose(out, 255 * np.sqrt(light), atol=0.2)


def test_defocus_keeps_even_colour_and_lets_bright_points_bloom():
  np.testing.assert_allclose(defocus(fill(173), 9.0, glow=0.1), 173, atol=0.05)
  np.testing.assert_array_equal(defocus(fill(173), 0.3), fill(173))
  point = fill(20)
  point[48, 64] = 255
  dim, bright = (defocus(point, 6.0, glow=glow)[..., 0] for glow in (0.5, 0.02))
  rows, columns = np.nonzero(bright > 0.5 * (20 + bright.max()))
  assert 4 < np.hypot(rows - 48, columns - 64).max() < 8 and 60 < len(rows) < 180
  assert bright[48, 64] > dim[48, 64] > 21


def test_backdrops_repeat_by_seed_and_use_the_photos():
  photos = [np.full((60, 90, 3), (250, 5, 5), np.uint8), np.full((60, 90, 3), (245, 10, 0), np.uint8)]
  draw = lambda seed: backdrops.sample_backdrop(np.random.default_rng(seed), 32, 48, photos, side=-1)
  images = [draw(seed) for seed in range(60)]
  np.testing.assert_array_equal(images[3], draw(3))
  red = [image[..., 0].mean() > 2 * image[..., 1].mean() and image.std((0, 1)).max() < 1 for image in images]
  assert 0.6 < np.mean(red) < 0.95  # 0.8, over 60


def test_photo_crops_are_parts_of_the_photo_in_its_proportions():
  x, y = np.meshgrid(np.arange(120), np.arange(80))
  photo = np.stack([2 * x, 2 * y, 0 * x + 9], -1).astype(np.uint8)
  signs = set()
  for seed in range(30):
    crop = backdrops.crop_photo(np.random.default_rng(seed), photo, 40, 60)
    across, down = np.diff(crop[20, 5:-5, 0]).mean(), np.diff(crop[5:-5, 30, 1]).mean()
    np.testing.assert_allclose(abs(across), down, rtol=0.06)  # pixels stay square
    assert 0.5 < down / 2 * 40 / 80 <= 1.02 and np.ptp(crop[..., 2]) < 1.5
    signs.add(np.sign(across))
  assert signs == {-1, 1}


@pytest.mark.parametrize(
  ("shares", "taken", "asked"), [([0.9, 0.3, 0.5, 0.4], 1, 4), ([0.6, 0.1, 0.0], 1, 2), ([0.14], 0, 1)]
)
def test_the_crop_with_few_plants_is_taken(monkeypatch, shares, taken, asked):
  monkeypatch.setattr(backdrops, "PHOTO_SHARE", 1.1)
  monkeypatch.setattr(backdrops, "BLUR_SHARE", 0.0)
  monkeypatch.setattr(backdrops, "grade", lambda rng, image: image)
  seen = []

  def vegetation(image):
    assert image.dtype == np.uint8 and image.shape == (24, 36, 3)
    seen.append(image)
    return np.full(image.shape[:2], shares[len(seen) - 1], np.float32)

  photos = [np.full((50, 70, 3), 10 * n, np.uint8) for n in range(1, 25)]
  out = backdrops.sample_backdrop(np.random.default_rng(3), 24, 36, photos, side=1, vegetation=vegetation)
  assert len(seen) == asked
  np.testing.assert_allclose(out, seen[taken], atol=0.51)
  assert all((seen[taken] != other).any() for n, other in enumerate(seen) if n != taken)
