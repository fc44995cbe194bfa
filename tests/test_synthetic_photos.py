"""Photos moved by assumed physics: exact for the scene as built, frame 0 the photo, what is no plant still."""

import cv2
import numpy as np
import pytest

from data_pipeline.synthetic.photos import move_photo
from data_pipeline.synthetic.vegetation import segment_vegetation
from data_pipeline.synthetic.windows import scene_to_window
from gid_jax.errors import UserError

SHAPE = (64, 96)
SMALL = {"height": SHAPE[0], "width": SHAPE[1], "num_frames": 24, "fps": 12.0}


def make_noise(seed, *, sigma=1.0, shape=SHAPE):
  noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), (0, 0), sigma)
  return noise / noise.std()


def make_photo(*, plant: bool):
  """A blue smooth sky over grey smooth ground, with or without a block of leafy texture: photo and where leaves are."""
  photo = np.zeros((*SHAPE, 3), np.float32)
  photo[:] = np.linspace(170, 220, SHAPE[0])[:, None, None] * [0.6, 0.8, 1.0]
  photo[48:] = [120, 118, 116]
  leaves = np.zeros(SHAPE, np.float32)
  if plant:
    leaves[14:58, 24:70] = 1
    photo = np.where(leaves[..., None] > 0, [70, 125, 45] * (1 + 0.35 * make_noise(1)[..., None]), photo)
  return np.clip(photo, 0, 255).astype(np.uint8), leaves


def find_lively(**options):
  """The first moved photo with a displacement of some pixels, with all its displacements."""
  photo, leaves = make_photo(plant=True)
  for seed in range(20):
    scene = move_photo(seed, photo, mask=leaves, **{**SMALL, **options})
    moved = scene.displacement(np.arange(scene.num_frames))
    if np.linalg.norm(moved, axis=-1).max() > 2:
      return scene, moved
  raise AssertionError("no photo of twenty moves by 2 px")


def test_leaves_are_vegetation_and_sky_and_ground_are_not():
  photo, leaves = make_photo(plant=True)
  chance = segment_vegetation(photo)
  assert chance.shape == SHAPE and chance.dtype == np.float32 and chance.min() >= 0 and chance.max() <= 1
  deep = cv2.erode(leaves, np.ones((9, 9))) > 0
  far = cv2.dilate(leaves, np.ones((9, 9))) == 0
  assert chance[deep].mean() > 0.8 and chance[far].max() < 0.1


@pytest.mark.parametrize("color", [(130, 130, 130), (160, 120, 110), (60, 90, 190)])
def test_texture_without_the_colour_of_plants_is_not_vegetation(color):
  photo = np.clip(np.array(color) * (1 + 0.35 * make_noise(1)[..., None]), 0, 255).astype(np.uint8)
  assert segment_vegetation(photo).max() < 0.1


def test_smooth_green_is_less_sure_than_textured_green():
  smooth = np.full((*SHAPE, 3), (70, 125, 45), np.uint8)
  assert segment_vegetation(smooth).max() < 0.1
  textured = np.clip(smooth * (1 + 0.35 * make_noise(1)[..., None]), 0, 255).astype(np.uint8)
  assert segment_vegetation(textured).mean() > 0.8


def test_photo_without_plants_stays_still():
  photo, _ = make_photo(plant=False)
  scene = move_photo(3, photo, **SMALL)
  assert not scene.displacement([5.0, 17.5]).any() and not scene.spectral_volume(4).any()
  np.testing.assert_array_equal(scene.frame(11.0), scene.image)


def test_frame_zero_is_the_crop():
  # With nothing marked as a plant, the picture is the crop itself.
  photo, leaves = make_photo(plant=True)
  for seed in range(6):
    moved, still = (move_photo(seed, photo, mask=mask, **SMALL) for mask in (leaves, np.zeros(SHAPE)))
    assert moved.layer_ids.any() and not still.layer_ids.any()
    assert np.abs(moved.image.astype(int) - still.image).max() <= 2
    np.testing.assert_array_equal(moved.frame(0.0), moved.image)
    assert not moved.displacement([0.0]).any()


def test_crop_has_the_photos_proportions_and_is_sometimes_mirrored():
  x = np.tile(np.linspace(0, 255, 300), (100, 1))
  y = np.tile(np.linspace(0, 255, 100)[:, None], (1, 300))
  photo = np.stack([x, y, 0 * x], -1).astype(np.uint8)
  mirrored = []
  for seed in range(12):
    image = move_photo(seed, photo, height=40, width=40, num_frames=4).image.astype(float)
    across, down = (image[20, -3, 0] - image[20, 2, 0]) / 255 * 300, (image[-3, 20, 1] - image[2, 20, 1]) / 255 * 100
    assert abs(abs(across) - down) < 4 and 50 < down < 101
    mirrored.append(across < 0)
  assert 0 < sum(mirrored) < 12


@pytest.mark.parametrize("num_bands", [1, 5, 13])
def test_spectrum_is_the_fft_of_the_displacement(num_bands):
  scene, moved = find_lively()
  truth = np.fft.rfft(moved.astype(np.float64), axis=0)[:num_bands]
  spectrum = scene.spectral_volume(num_bands)
  np.testing.assert_allclose(spectrum[..., :2], truth.real, atol=1e-3)
  np.testing.assert_allclose(spectrum[..., 2:], truth.imag, atol=1e-3)


def test_roots_and_what_is_outside_the_mask_are_still():
  photo, leaves = make_photo(plant=True)
  found = 0
  for seed in range(12):
    scene = move_photo(seed, photo, mask=leaves, **SMALL)
    farthest = np.linalg.norm(scene.displacement(np.arange(24)), axis=-1).max(0)
    inside = scene.layer_ids > 0
    assert not farthest[~inside].any()
    for column in range(0, SHAPE[1], 4):
      rows = np.flatnonzero(inside[:, column])
      if not len(rows):
        continue
      clump = scene.layer_ids == scene.layer_ids[rows[-1], column]  # the lowest here
      rows = rows[clump[rows, column]]
      if len(rows) > 20 and not clump[-2:].any() and rows[0] > 3 and farthest[rows, column].max() > 0.3:
        assert farthest[rows[-3:], column].max() < 0.1 * farthest[rows, column].max()
        found += 1
  assert found > 5


def test_pixels_go_where_the_displacement_says():
  scene, moved = find_lively()
  y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
  ids = scene.layer_ids.astype(np.float32)
  deep = (cv2.erode(ids, np.ones((7, 7))) == cv2.dilate(ids, np.ones((7, 7)))) & (ids > 0)
  errors = {1.0: [], 0.5: [], -1.0: []}
  for time in np.argsort(-np.linalg.norm(moved, axis=-1).mean((1, 2)))[:4]:
    there = moved[time]
    seen = deep & scene.visible(time) & (np.linalg.norm(there, axis=-1) > 1)
    frame = scene.frame(time).astype(np.float32)
    for factor, found in errors.items():
      back = cv2.remap(frame, x + factor * there[..., 0], y + factor * there[..., 1], cv2.INTER_CUBIC)
      found.append(np.abs(back - scene.image)[seen].ravel())
  mean = {factor: np.concatenate(found).mean() for factor, found in errors.items()}
  assert len(np.concatenate(errors[1.0])) > 100
  assert mean[1.0] < 5 and mean[1.0] < 0.4 * min(mean[0.5], mean[-1.0]), mean


def test_displacement_never_folds():
  for seed in range(8):
    photo, leaves = make_photo(plant=True)
    scene = move_photo(seed, photo, mask=leaves, **SMALL)
    for there in scene.displacement(np.arange(0, 24, 3)):
      for axis in (0, 1):
        same = np.diff(scene.layer_ids, axis=axis) == 0
        assert (np.diff(there[..., 1 - axis], axis=axis)[same] > -1).all()


def test_same_seed_same_scene_and_it_is_marked_as_pseudo():
  photo, leaves = make_photo(plant=True)
  one, two, other = (move_photo(seed, photo, mask=leaves, **SMALL) for seed in (4, 4, 5))
  np.testing.assert_array_equal(one.frame(7.5), two.frame(7.5))
  np.testing.assert_array_equal(one.displacement([7.5]), two.displacement([7.5]))
  assert (one.image != other.image).any()
  window = scene_to_window(one, num_bands=3, num_pairs=1, rng=np.random.default_rng(0))
  assert (window.source, window.scene) == ("pseudo", "pseudo-4")


def test_errors_say_what_to_give():
  photo, _ = make_photo(plant=False)
  with pytest.raises(UserError, match="uint8 RGB"):
    move_photo(0, photo.astype(np.float32))
  with pytest.raises(UserError, match="mask of the photo's size"):
    move_photo(0, photo, mask=np.zeros((3, 4)))
  with pytest.raises(UserError, match="16x16"):
    move_photo(0, photo, height=8)
