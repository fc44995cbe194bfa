"""Where a photo shows plants, on painted pictures of leaves, sky and ground."""

import cv2
import numpy as np
import pytest

from data_pipeline.synthetic.vegetation import segment_vegetation

SHAPE = (64, 96)


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
