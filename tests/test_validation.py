"""Pictures of a training's progress: what stands where, and that a perfect prediction looks like the truth."""

import helpers
import jax
import numpy as np
import pytest
import training_runs

from configs import ldm, ldm_coordinated, renderer, vae
from gid_jax.configuration import TrainSettings
from gid_jax.models.build import make_motion_model
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.parsing import parse
from gid_jax.training import sharding, validation

HEIGHT, WIDTH, NUM_BANDS = training_runs.HEIGHT, training_runs.WIDTH, training_runs.NUM_BANDS
NUMBERS = dict(num_bands=NUM_BANDS, num_frames=150)
GAP = 4
pytestmark = pytest.mark.usefixtures("quick_compilation")


def make_batch(num_examples, num_bands, *, seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: np.float32(rng.normal(size=shape))
  return {
    "image": np.stack([np.float32(helpers.smooth_image(HEIGHT, WIDTH))] * num_examples),
    "slice": 20 * normal(num_examples, num_bands, HEIGHT // 2, WIDTH // 2, 4),
    "band": np.stack([rng.permutation(NUM_BANDS)[:num_bands] for _ in range(num_examples)]),
  }


def cut_panels(picture, num_rows, num_columns):
  """[1 h w 3] -> [rows columns h' w' 3], and checks that white lines lie between."""
  assert picture.shape[0] == 1 and picture.dtype == np.float32 and picture.min() >= 0 and picture.max() <= 1
  padded = np.pad(picture[0], ((0, GAP), (0, GAP), (0, 0)), constant_values=1.0)
  height, width = padded.shape[0] // num_rows, padded.shape[1] // num_columns
  assert padded.shape == (num_rows * height, num_columns * width, 3)
  panels = padded.reshape(num_rows, height, num_columns, width, 3).transpose(0, 2, 1, 3, 4)
  assert np.all(panels[:, :, -GAP:] == 1) and np.all(panels[:, :, :, -GAP:] == 1)
  return panels[:, :, :-GAP, :-GAP]


def test_a_perfect_volume_looks_like_the_truth_and_another_one_does_not():
  batch = make_batch(2, NUM_BANDS)
  draw = lambda sampled: cut_panels(
    validation.draw_volumes(batch["image"], batch["slice"], sampled, batch["band"], **NUMBERS), 4, 6
  )
  panels = draw(batch["slice"])
  np.testing.assert_array_equal(panels[0::2, 1:], panels[1::2, 1:])
  assert all(np.ptp(panels[0, column]) > 0.5 for column in range(1, 6))
  # Photos stand at the left of the truth, enlarged by a whole number.
  scale = panels.shape[2] // HEIGHT
  np.testing.assert_array_equal(panels[0, 0, ::scale, ::scale], batch["image"][0])
  assert np.all(panels[1::2, 0] == 1)
  weaker = draw(0.5 * batch["slice"])
  assert np.all(weaker[1::2, 1:].sum((2, 3, 4)) < 0.8 * panels[1::2, 1:].sum((2, 3, 4)))
  np.testing.assert_array_equal(weaker[0::2], panels[0::2])
  broken = draw(np.full_like(batch["slice"], np.nan))
  assert np.isfinite(broken).all()


def test_columns_are_bands_from_the_lowest_and_the_mean_motion():
  slices, bands = np.zeros((1, NUM_BANDS, 16, 24, 4), np.float32), np.array([[2, 0, 3, 1]])
  for place, band in enumerate(bands[0]):
    slices[0, place, :, 6 * band : 6 * band + 6] = 100.0  # band 0 swings at the left, band 3 at the right
  images = np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
  panels = cut_panels(validation.draw_volumes(images, slices, slices, bands, **NUMBERS), 2, 6)
  columns = panels[0].mean((1, 3))  # [column x]
  brightest = [np.flatnonzero(column > 0.9 * column.max()).mean() / panels.shape[3] for column in columns[1:5]]
  np.testing.assert_allclose(brightest, [0.125, 0.375, 0.625, 0.875], atol=0.02)
  assert np.all(columns[5][-panels.shape[3] * 3 // 4 :] > 0.3)


def test_of_many_bands_some_are_shown():
  bands = np.arange(16)[None, ::-1]
  slices = np.ones((1, 16, 16, 24, 4), np.float32) * bands[..., None, None, None]
  images = np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
  # The truth, 15, sets the scale: what is sampled shows its band as a level of the map.
  draw = lambda sampled: validation.draw_volumes(images, 0 * slices + 15, sampled, bands, num_bands=16, num_frames=150)
  panels = cut_panels(draw(slices), 2, 6)
  levels = panels[1, 1:5].mean((1, 2, 3))
  expected = [cut_panels(draw(0 * slices + band), 2, 6)[1, 1].mean() for band in (1, 2, 6, 15)]
  np.testing.assert_allclose(levels, expected, atol=1e-6)


def test_slices_are_sorted_by_band():
  batch = make_batch(NUM_BANDS, 1)
  slices, bands = batch["slice"][:, 0], np.array([3, 1, 0, 2])
  panels = cut_panels(validation.draw_slices(slices, slices, bands, **NUMBERS), 2, 4)
  np.testing.assert_array_equal(panels[0], panels[1])
  order = np.argsort(bands)
  np.testing.assert_array_equal(
    panels, cut_panels(validation.draw_slices(slices[order], slices[order], bands[order], **NUMBERS), 2, 4)
  )


def test_frames_show_the_difference():
  images = make_batch(2, 1)["image"]
  targets = 0.5 * images
  panels = cut_panels(validation.draw_frames(images, targets, targets), 2, 4)
  np.testing.assert_array_equal(panels[:, 1], panels[:, 2])
  black = panels[0, 3, 0, 0]
  assert np.all(panels[:, 3] == black) and black.max() < 0.1
  outputs = targets.copy()
  outputs[0, :, WIDTH // 2 :] += 0.25
  difference = cut_panels(validation.draw_frames(images, targets, outputs), 2, 4)[:, 3]
  middle = difference.shape[2] // 2
  assert np.all(difference[1] == black) and np.all(difference[0, :, :middle] == black)
  assert np.all(difference[0, :, middle:].sum(-1) > 2)


@pytest.mark.parametrize("module", [vae, ldm, ldm_coordinated])
def test_the_motion_model_is_drawn(module, tmp_path):
  config = parse(TrainSettings, training_runs.make_config(module, tmp_path))
  model = make_motion_model(config.model)
  batch = make_batch(8, {"vae": 1, "ldm": 2, "ldm_coordinated": NUM_BANDS}[config.stage])
  zeros = np.zeros((1, 1), np.int32)
  params = helpers.random_params(model.init, batch["slice"][:1, :1], zeros, batch["image"][:1], zeros)
  if config.stage == "vae":
    batch = {name: batch[name][:, 0] for name in ("slice", "band")}
  mesh = sharding.make_mesh(data=1)
  draw = validation.make_validation_drawing(config, mesh)
  pictures = draw(jax.random.key(0), params, sharding.put_batch(batch, mesh))
  (name,) = pictures
  if name == "slices":
    panels = cut_panels(pictures[name], 2, 6)
  else:
    panels = cut_panels(pictures["volumes"], 4, 6 if config.stage == "ldm_coordinated" else 4)
  assert np.any(panels[0] != panels[1])
  again = draw(jax.random.key(0), params, sharding.put_batch(batch, mesh))
  np.testing.assert_array_equal(again[name], pictures[name])


def test_the_renderer_is_drawn():
  config = renderer.get_config("tiny")
  config.model.renderer.channels = (8, 8)
  image = make_batch(3, 1)["image"]
  batch = {"image": image, "target": image, "flow": np.ones((*image.shape[:3], 2), np.float32), "depth": image[..., 0]}
  config = parse(TrainSettings, config)
  model = Renderer(RendererConfig(**config.model.renderer))
  noise = np.zeros((3, model.config.style_dim), np.float32)
  params = helpers.random_params(model.init, batch["image"], batch["flow"], batch["depth"], noise)
  mesh = sharding.make_mesh(data=1)
  draw = validation.make_validation_drawing(config, mesh)
  panels = cut_panels(draw(jax.random.key(0), params, sharding.put_batch(batch, mesh))["frames"], 3, 4)
  np.testing.assert_array_equal(panels[:, 0], panels[:, 1])
