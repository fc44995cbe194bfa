"""A photo in motion: gathered along the inverted flow, filled from behind, evaluated at any time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from gid_jax.motion import moving_photo, spectral, warp
from gid_jax.motion.moving_photo import MARGIN
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("quick_compilation")


@jax.jit
def show(photo, image, flow, depth, rest=None):
  """A frame of a photo of any size, whose flow and depth have no margin yet."""
  height, width = photo.shape[:2]
  rows = moving_photo.show(moving_photo.prepare(photo, image, depth), moving_photo.extend(flow), rest=rest)
  return rows[: height * width].reshape(height, width, 3)


def smooth_image(h, w):
  y, x = np.mgrid[:h, :w].astype(np.float32)
  return np.stack([0.5 + 0.3 * np.sin(x / 5), 0.4 + 0.3 * np.cos(y / 6), 0.5 + 0.2 * np.sin((x + y) / 9)], -1)


def test_what_does_not_move_is_the_photo_itself_at_any_size():
  rng = np.random.default_rng(6)
  for height, width in ((16, 24), (40, 50)):
    photo = rng.integers(0, 256, (height, width, 3)).astype(np.float32) / 255
    flow = np.zeros((16, 24, 2), np.float32)
    flow[3:7, 4:9] = rng.normal(size=(4, 5, 2))
    frame = show(photo, np.zeros((16, 24, 3)), flow, np.abs(flow[..., 0]))
    far = np.s_[height * 3 // 4 :, width * 3 // 4 :]
    np.testing.assert_array_equal(np.uint8(255 * frame + 0.5)[far], np.uint8(255 * photo + 0.5)[far])
    assert np.any(frame != photo)


@pytest.mark.parametrize("with_rest", [True, False])
def test_a_frame_is_the_photo_gathered_and_filled_where_it_is_uncovered(with_rest):
  rng = np.random.default_rng(7)
  photo = smooth_image(64, 96)
  flow = np.zeros((16, 24, 2), np.float32)
  flow[:, 12:] = [2.5, -0.3]  # the right half moves away, by (10, -1.2) pixels of the photo
  depth = np.hypot(*np.moveaxis(flow, -1, 0))
  image = np.zeros((16, 24, 3), np.float32)
  image[:, 12:] = 1.0  # the splatted colours say which side a hole is filled from
  rest = rng.uniform(size=(16, 24, 3)).astype(np.float32) if with_rest else None
  frame = np.asarray(show(photo, image, flow, depth, rest))
  assert frame.shape == (64, 96, 3) and frame.min() >= 0 and frame.max() <= 1
  y, x = np.mgrid[:64, :96]
  gathered = [map_coordinates(photo[..., c], [y + 1.2, x - 10], order=5, mode="nearest") for c in range(3)]
  np.testing.assert_allclose(frame[8:-8, 64:], np.stack(gathered, -1)[8:-8, 64:], atol=1e-3)
  np.testing.assert_allclose(frame[:, :40], photo[:, :40], atol=1e-3)
  hole = np.s_[8:-8, 50:54]
  if with_rest:
    enlarged = np.asarray(jax.image.resize(rest, (64, 96, 3), "linear"))
    np.testing.assert_allclose(frame[hole], enlarged[hole], atol=1e-4)
  else:
    assert frame[hole].mean() < 0.47  # more of what stands still, which is behind, than of what moves


def test_where_two_things_meet_in_a_pixel_both_are_seen():
  flow = np.zeros((16, 24, 2), np.float32)
  flow[:, :12, 0] = 0.8  # onto the column of the right half beside it, which stays
  rest = np.zeros((16, 24, 3), np.float32)
  photo = np.ones((16, 24, 3), np.float32)
  frame = show(photo, photo, flow, np.zeros((16, 24)), rest)
  # 0.8 of 1.8 parts of what lands in column 12 have come by 0.8 pixels: their deviation is 0.8 sqrt(0.8) / 1.8.
  np.testing.assert_allclose(frame[:, 12], 2 - 0.8 * np.sqrt(0.8) / 1.8 / 0.25, atol=1e-4)
  np.testing.assert_allclose(frame[:, 2:11], 1, atol=1e-5)
  np.testing.assert_allclose(frame[:, 13:], 1, atol=1e-5)


def test_a_thing_that_stretches_stays_whole():
  height, width = 24, 48
  y, x = np.mgrid[:height, :width].astype(np.float32)
  flow = np.stack([0.9 * np.clip(x - 8, 0, 16), 0 * y], -1)  # columns 8 ... 24 are stretched to 8 ... 38.4
  photo = np.repeat(np.sin(x / 3)[..., None] * 0.4 + 0.5, 3, -1).astype(np.float32)
  frame = show(photo, np.zeros_like(photo), flow, flow[..., 0])
  sources = np.where(x < 8, x, np.where(x < 38.4, 8 + (x - 8) / 1.9, x - 14.4))
  expected = np.sin(sources / 3) * 0.4 + 0.5
  np.testing.assert_allclose(frame[4:-4, 10:36, 0], expected[4:-4, 10:36], atol=0.06)


def test_steepness_is_the_largest_step_to_a_neighbour():
  flow = np.random.default_rng(11).normal(size=(5, 6, 2)).astype(np.float32)
  found = np.asarray(moving_photo.find_steepness(flow))[..., 0]
  for row, column in np.ndindex(5, 6):
    around = [(row + a, column + b) for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    steps = [np.linalg.norm(flow[row, column] - flow[p]) for p in around if 0 <= p[0] < 5 and 0 <= p[1] < 6]
    np.testing.assert_allclose(found[row, column], max(steps), rtol=1e-5)


def test_what_moves_in_from_outside_continues_the_photo():
  photo = smooth_image(16, 24)
  flow = np.broadcast_to(np.float32([3.0, -2.0]), (16, 24, 2))
  frame = show(photo, photo, flow, np.ones((16, 24)))
  y, x = np.mgrid[:16, :24]
  expected = photo[np.clip(y + 2, 0, 15), np.clip(x - 3, 0, 23)]
  np.testing.assert_allclose(frame, expected, atol=7.5e-4)


@pytest.mark.parametrize("anchored", [True, False])
def test_a_series_has_the_motion_of_its_volume_with_a_margin(anchored):
  rng = np.random.default_rng(8)
  volume = SpectralVolume(rng.normal(size=(4, 5, 6, 4)).astype(np.float32), num_frames=25)
  series = moving_photo.make_series(volume)
  times = np.float32([0, 3.5, 24, 31])
  table = spectral.series_table(times, 4, 25, anchor_first_frame=anchored)
  found = moving_photo.evaluate_series(series, table, 5, 6)
  expected = np.asarray(spectral.evaluate_motion(volume, times, anchor_first_frame=anchored))
  edges = [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)]
  np.testing.assert_allclose(found, np.pad(expected, edges, mode="edge"), atol=1e-5)
  depth = moving_photo.mean_magnitude(series, 5, 6, num_frames=25, anchor_first_frame=anchored)
  np.testing.assert_allclose(depth, spectral.motion_magnitude(volume, anchor_first_frame=anchored), atol=1e-5)


def test_strips_of_rows_make_the_frame(monkeypatch):
  rng = np.random.default_rng(10)
  photo = rng.uniform(size=(33, 40, 3)).astype(np.float32)
  flow = rng.normal(size=(16, 24, 2)).astype(np.float32)
  operands = photo, rng.uniform(size=(16, 24, 3)).astype(np.float32), flow, np.abs(flow[..., 0])
  whole = show(*operands)
  monkeypatch.setattr(moving_photo, "_STRIP", 400)  # ten rows, the last strip with three
  np.testing.assert_allclose(jax.jit(lambda *photo: show.__wrapped__(*photo))(*operands), whole, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 11), (13, 9), (8, 30)])
def test_fields_are_enlarged_bilinearly(size):
  values = jnp.asarray(np.random.default_rng(9).normal(size=(7, 9, 2)), jnp.float32)
  height, width = size
  row, column = (a.ravel() for a in np.mgrid[:height, :width])
  found = moving_photo._enlarge(values, row, column, height, width).reshape(height, width, 2)
  np.testing.assert_allclose(found, jax.image.resize(values, (height, width, 2), "linear"), atol=1e-5)


def test_one_program_shows_videos_of_every_size():
  rng = np.random.default_rng(12)
  flow = rng.normal(size=(16, 24, 2)).astype(np.float32)
  image, depth = rng.uniform(size=(16, 24, 3)).astype(np.float32), np.abs(flow[..., 0])
  extended = moving_photo.extend(image), moving_photo.extend(depth)
  flow_around = moving_photo.extend(flow)
  shows = jax.jit(lambda *photo: moving_photo.show(moving_photo.MovingPhoto(*photo), flow_around))
  for height, width in ((30, 40), (40, 22)):
    photo = rng.uniform(size=(height, width, 3)).astype(np.float32)
    lattice = np.full(16 * 1500, 2**32 - 1, np.uint32)  # room that must not be looked at
    lattice[: 16 * height * width] = np.asarray(warp.make_lattice(photo)).ravel()
    found = shows(lattice, np.int32([height, width]), *extended)[: height * width].reshape(height, width, 3)
    np.testing.assert_allclose(found, show(photo, image, flow, depth), atol=1e-5)
  assert shows._cache_size() == 1
