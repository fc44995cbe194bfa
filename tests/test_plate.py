"""What is behind moving things: the smooth filling, the network that corrects it, and what it learns from."""

import functools
from pathlib import Path

import helpers
import jax
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import training_runs

from configs import plate as plate_config
from gid_jax.configuration import LiveSettings, TrainSettings
from gid_jax.data.holes import draw_hole
from gid_jax.data.stills import StillSource
from gid_jax.errors import UserError
from gid_jax.models.plate import Plate, PlateConfig
from gid_jax.motion.fill import fill_smoothly
from gid_jax.motion.patches import copy_patches
from gid_jax.motion.plate import find_front, make_plate
from gid_jax.parsing import parse
from gid_jax.training import losses
from gid_jax.training.objectives import make_objective

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZES = [(17, 22), (16, 24)]


def make_holes(height, width, *, seed=0):
  """A photo and two holes, one at the border."""
  rng = np.random.default_rng(seed)
  hole = np.zeros((height, width, 1), np.float32)
  hole[4:9, 6:12], hole[-3:, :4] = 1, 1
  return rng.uniform(size=(height, width, 3)).astype(np.float32), hole


def solve_laplace(image, hole):
  """The membrane over the holes of [h w 3]: each pixel the mean of its neighbours, by SciPy's direct solver."""
  height, width = hole.shape[:2]
  inside = np.argwhere(hole[..., 0] > 0)
  number = {tuple(place): i for i, place in enumerate(inside)}
  matrix, right = scipy.sparse.lil_matrix((len(inside),) * 2), np.zeros((len(inside), 3))
  for (row, column), i in number.items():
    for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
      if not (0 <= other[0] < height and 0 <= other[1] < width):
        continue
      matrix[i, i] += 1
      if other in number:
        matrix[i, number[other]] -= 1
      else:
        right[i] += image[other]
  filled = image.astype(float)
  filled[tuple(inside.T)] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right)
  return filled


@pytest.mark.parametrize("size", SIZES)
def test_the_smooth_filling_is_a_membrane(size):
  image, hole = make_holes(*size)
  filled = np.asarray(jax.jit(fill_smoothly)(image + 9 * hole, hole))
  np.testing.assert_array_equal(filled[hole[..., 0] == 0], image[hole[..., 0] == 0])
  expected = solve_laplace(image, hole)
  assert np.abs(filled - expected).max() < 0.1 and np.sqrt(np.square(filled - expected)[hole[..., 0] > 0].mean()) < 0.03
  np.testing.assert_array_equal(jax.jit(fill_smoothly)(image, np.ones_like(hole)), 0)


@pytest.mark.parametrize("size", SIZES)
def test_the_network_begins_at_the_smooth_filling_and_touches_nothing_else(size):
  image, hole = make_holes(*size)
  network = Plate(PlateConfig(channels=(4, 8)))
  run = jax.jit(network.apply)
  params = jax.jit(network.init)(jax.random.key(0), image[None], hole[None])["params"]
  smooth = jax.jit(fill_smoothly)(image, hole)
  np.testing.assert_allclose(run({"params": params}, image[None], hole[None])[0], smooth, atol=1e-6)
  trained = helpers.random_params(network.init, image[None], hole[None])
  output, again = (np.asarray(run({"params": trained}, photo[None], hole[None])[0]) for photo in (image, image + hole))
  outside = hole[..., 0] == 0
  np.testing.assert_array_equal(output[outside], image[outside])
  # What the holes held does not count.
  np.testing.assert_allclose(again[~outside], output[~outside], atol=1e-6)
  assert np.abs(output - smooth)[~outside].min() > 1e-4


def test_patches_go_on_with_what_repeats():
  y, x = np.mgrid[:80, :120]
  stripes = np.where((x % 8 < 4)[..., None], np.float32([0.9, 0.2, 0.1]), np.float32([0.1, 0.3, 0.8]))
  image = np.where((y < 40)[..., None], stripes, np.float32([0.4, 0.6, 0.2])).astype(np.float32)
  hole = np.hypot(y - 40, x - 60) < 14
  filled = copy_patches(np.where(hole[..., None], np.float32(7), image), hole)
  np.testing.assert_array_equal(filled[~hole], image[~hole])
  assert np.abs(filled - image)[hole].mean() < 0.05
  smooth = np.asarray(jax.jit(fill_smoothly)(image, hole[..., None].astype(np.float32)))
  assert np.abs(smooth - image)[hole].mean() > 0.15
  np.testing.assert_array_equal(copy_patches(image, ~hole | hole), 0)
  np.testing.assert_array_equal(copy_patches(image, hole & ~hole), image)
  # Where no patch is wholly known it is smooth.
  few = np.ones((20, 20), bool)
  few[:, 0] = False
  np.testing.assert_allclose(copy_patches(np.full((20, 20, 3), 0.3, np.float32), few), 0.3, atol=1e-6)


def test_the_plate_is_the_photo_but_for_what_is_in_front():
  x = np.arange(144) + np.zeros((96, 1))
  image = np.random.default_rng(0).uniform(size=(96, 144, 3)).astype(np.float32)
  depth = np.float32(np.abs(x - 72) < 8)[::4, ::4]
  front, thing = find_front(depth, 96, 144)
  assert front[:, 66:78].all() and not front[:, :40].any() and not (front & ~thing).any()
  plate = make_plate(image, depth)
  np.testing.assert_array_equal(plate[~front], image[~front])
  assert not np.isclose(plate[front], image[front], atol=1e-3).all(-1).any()


def test_losses_within_holes():
  rng = np.random.default_rng(1)
  output, target = rng.uniform(size=(2, 2, 8, 9, 3)).astype(np.float32)
  mask = (rng.uniform(size=(2, 8, 9, 1)) < 0.3).astype(np.float32)
  inside = [(output[i][mask[i, ..., 0] > 0], target[i][mask[i, ..., 0] > 0]) for i in range(2)]
  np.testing.assert_allclose(
    losses.l1_within(output, target, mask), np.mean([np.abs(a - b).mean() for a, b in inside]), rtol=1e-5
  )
  expected = np.mean([-10 * np.log10(((a - b) ** 2).mean()) for a, b in inside])
  np.testing.assert_allclose(losses.psnr_within(output, target, mask), expected, rtol=1e-5)
  assert losses.l1_within(output, target, 0 * mask) == 0


def make_settings(**weights):
  config = plate_config.get_config("tiny")
  config.model.plate.channels, config.loss.weights = (4, 8), weights
  return parse(TrainSettings, config)


def test_the_loss_is_the_weighted_sum_of_its_terms():
  image, hole = (np.stack(arrays) for arrays in zip(*(make_holes(16, 24, seed=seed) for seed in range(2)), strict=True))
  objective = make_objective(make_settings(hole=0.7, structure=0.4))
  network = Plate(PlateConfig(channels=(4, 8)))
  params = helpers.random_params(network.init, image, hole)
  loss, metrics = jax.jit(objective.loss_fn)(jax.random.key(0), params, {"image": image, "hole": hole})
  output = jax.jit(network.apply)({"params": params}, image, hole)
  expected = {
    "hole": losses.l1_within(output, image, hole),
    "structure": losses.gradient_consistency(output, image, num_scales=2),
    "psnr": losses.psnr_within(output, image, hole),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
  np.testing.assert_allclose(loss, 0.7 * float(metrics["hole"]) + 0.4 * float(metrics["structure"]), rtol=1e-5)
  with pytest.raises(UserError, match="loss weight 'adversarial'"):
    loss_fn = make_objective(make_settings(adversarial=1.0)).loss_fn
    jax.eval_shape(loss_fn, jax.random.key(0), params, {"image": image, "hole": hole})


def test_holes_are_drawn_from_outlines_and_at_random():
  depth = np.zeros((64, 96), np.float32)
  depth[20:40, 30:60] = 2
  holes = [draw_hole(np.random.default_rng(seed), depth) for seed in range(20)]
  shares = [hole.mean() for hole in holes]
  assert {0, 1} == set(np.unique(holes)) and min(shares) > 0.01 and max(shares) < 0.4 and len(set(shares)) > 15
  np.testing.assert_array_equal(holes[0], draw_hole(np.random.default_rng(0), depth))
  # Where nothing moves nothing but strokes and blobs are left.
  assert draw_hole(np.random.default_rng(0), 0 * depth).any()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Twelve photos and two cut-outs."""
  import cv2

  root = tmp_path_factory.mktemp("stills")
  for name in ("photos", "cutouts"):
    (root / name).mkdir()
  for i in range(12):
    cv2.imwrite(str(root / "photos" / f"{i:02}.png"), np.full((40 + i, 60, 3), 20 * i, np.uint8))
  for i in range(2):
    cutout = np.full((10, 10 + i, 4), 255, np.uint8)
    cutout[:, :5, 3] = 0
    cv2.imwrite(str(root / "cutouts" / f"{i}.png"), cutout)
  return LiveSettings(height=32, width=48, backgrounds=str(root / "photos"), sprites=str(root / "cutouts"))


def test_nine_photos_are_too_few_to_judge_by(folders, tmp_path):
  for path in sorted(Path(folders.backgrounds).iterdir())[:9]:
    (tmp_path / path.name).symlink_to(path)
  with pytest.raises(UserError, match="holds 9 photos; 10 are needed at least"):
    StillSource(LiveSettings(backgrounds=str(tmp_path)), "validation")


def test_photos_are_split_and_cut_to_size(folders):
  train, validation = (StillSource(folders, split) for split in ("train", "validation"))
  assert (len(train), len(validation)) == (22, 2)
  shown = {int(train[i].decode(fields=()).image[0, 0, 0]) for i in range(len(train))}
  window = validation[1].decode(fields=())
  assert shown == {20 * i for i in range(12)} - {180} and window.image[0, 0, 0] == 180
  assert window.image.shape == (32, 48, 3) and window.depth.shape == (32, 48)
  assert window.depth.max() == 1 and 0.05 < window.depth.mean() < 0.5
  with pytest.raises(IndexError):
    validation[2]
  with pytest.raises(UserError, match="photos to cut holes into"):
    StillSource(LiveSettings(), "train")


def test_the_stage_trains_and_goes_on(folders, tmp_path):
  from gid_jax.train import train

  training_runs.write_windows(tmp_path / "data")
  config = plate_config.get_config("tiny")
  config.model.plate.channels, config.eval_pictures = (4,), True
  config.data.directory = str(tmp_path / "data")
  config.data.live.backgrounds, config.data.live.sprites = folders.backgrounds, folders.sprites
  config.data.sources = dict(synthetic=0.5, live=0.5)
  run = functools.partial(train, workdir=tmp_path / "run")
  config.optimizer.num_steps = 2
  first = run(config)
  config.optimizer.num_steps = 4
  state = run(config)
  assert (int(first.step), int(state.step)) == (2, 4)
  assert np.abs(np.asarray(state.params["correction"]["kernel"])).max() > 0
  pictures = [path.name for path in (tmp_path / "run" / "images").iterdir()]
  assert sorted(pictures) == ["plates-00000002.png", "plates-00000004.png"]
