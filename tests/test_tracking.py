"""From frames to clean trajectories, against scenes whose motion is known exactly."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from swinging import (
  HEIGHT,
  WIDTH,
  make_moving_square,
  make_shaken_square,
  make_texture,
  oscillate,
  to_frames,
  translate,
)
from videos import assert_refused

from gid_jax.flow import tracking
from gid_jax.flow.estimate import estimate_flow

pytestmark = pytest.mark.usefixtures("careful_flow")

SQUARE, WALL = np.s_[22:58, 17:53], np.s_[:, 85:]


@pytest.fixture(scope="module")
def swing(careful_flow):
  """A square swinging before a wall: frames, its path, and what was measured."""
  frames, path = make_moving_square(30)
  return frames, path, tracking.measure_motion(frames)


# Flow


def test_flow_of_a_swinging_texture_is_subpixel():
  path = oscillate(12, amplitude=4)
  frames = to_frames([translate(make_texture(0), *d) for d in path], noise=1)
  calls = []
  flow, confidence = tracking.track_frames(frames, progress=lambda *call: calls.append(call))
  assert flow.shape == (12, HEIGHT, WIDTH, 2) and flow.dtype == np.float32
  assert confidence.shape == (HEIGHT, WIDTH) and confidence.dtype == np.float32
  assert not flow[0].any()
  assert calls[-1] == (11, 11)
  error = np.linalg.norm(flow - path[:, None, None], axis=-1)[:, 10:-10, 10:-10]
  assert error.mean() < 0.045  # found 0.036
  assert np.percentile(error, 99) < 0.12  # 0.083


def test_flow_runs_from_the_first_frame_and_not_along_a_chain():
  frames = to_frames([translate(make_texture(0), *d) for d in oscillate(5)])
  swapped = frames.copy()
  swapped[2] = make_texture(9).astype(np.uint8)
  straight, disturbed = (tracking.track_frames(f)[0] for f in (frames, swapped))
  np.testing.assert_array_equal(straight[[1, 3, 4]], disturbed[[1, 3, 4]])
  assert np.abs(straight[2] - disturbed[2]).max() > 0.5


def test_repeated_frames_share_the_flow_of_their_original():
  frames = to_frames([translate(make_texture(0), *d) for d in oscillate(5)])
  source = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4])
  calls = []
  flow, confidence = tracking.track_frames(frames[source], progress=lambda *call: calls.append(call))
  unit = frames.astype(np.float32) / 255
  expected, each = estimate_flow(unit[0], unit)
  np.testing.assert_array_equal(flow[1:], expected[source[1:]])
  np.testing.assert_allclose(confidence, each[source[1:]].mean(0), rtol=1e-5)
  assert calls[-1] == (5, 5)  # the repeat of frame 0, and 1 ... 4


def test_confidence_separates_texture_from_walls_and_blur():
  image = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
  image[:, :50] = make_texture(1)[:, :50]
  image[:, 62:] = make_texture(2, sigma=20)[:, 62:]
  _, confidence = tracking.track_frames(to_frames([image, image], noise=1))
  assert confidence[:, 5:42].mean() > 0.7
  assert confidence[10:-10, 75:-10].mean() < 0.15
  assert confidence.min() >= 0 and confidence.max() <= 1


# Measured motion


def test_measured_motion_is_that_of_the_square_and_the_wall_rests(swing):
  _, path, (motion, confidence, shift) = swing
  assert motion.shape == (30, HEIGHT, WIDTH, 2) and motion.dtype == np.float32
  assert not motion[0].any() and not shift.any()
  error = np.linalg.norm(motion - path[:, None, None], axis=-1)
  assert error[:, *SQUARE].mean() < 0.075 and error[:, *SQUARE].max() < 0.25  # found 0.055 and 0.16
  assert confidence[SQUARE].mean() > 0.7 and confidence[WALL].mean() < 0.05
  assert tracking.mean_magnitude(motion)[WALL].mean() < 0.05


def test_clean_up_brings_a_wall_to_rest_and_leaves_the_square(swing):
  frames, _, (motion, *_) = swing
  raw, _ = tracking.track_frames(frames)
  depth, raw_depth = tracking.mean_magnitude(motion), tracking.mean_magnitude(raw)
  assert depth[WALL].mean() < 0.05 * raw_depth[WALL].mean()
  np.testing.assert_allclose(motion[:, *SQUARE], raw[:, *SQUARE], atol=0.2)


def test_plain_inside_of_a_moving_thing_follows_its_edges():
  frames, path = make_moving_square(30, hollow=True)
  depth = tracking.mean_magnitude(tracking.measure_motion(frames).motion)
  assert depth[29:51, 24:46].min() > 0.6 * np.linalg.norm(path, axis=-1).mean()


@pytest.mark.parametrize(
  ("frames", "match"),
  [(np.zeros((1, 20, 20, 3), np.uint8), "1 frame"), (np.zeros((3, 20, 6, 3), np.uint8), "6x20 pixels")],
)
def test_too_few_or_too_small_frames_are_refused(frames, match):
  assert_refused(tracking.measure_motion, frames, match=match)


# Support


def test_support_drops_flow_that_rest_explains_as_well():
  frames = to_frames([make_texture(4)] * 8, noise=1)
  invented = np.zeros((8, HEIGHT, WIDTH, 2), np.float32)
  invented[1:, :, :40, 0] = 6
  support = tracking.find_support(frames, invented)
  assert support[:, :30].max() < 0.05
  assert support[:, 55:].min() > 0.95


def test_support_keeps_flow_that_explains_the_frames_and_subtle_flow():
  path = oscillate(8, amplitude=4)
  frames = to_frames([translate(make_texture(4), *d) for d in path], noise=1)
  flow = np.broadcast_to(path[:, None, None], (8, HEIGHT, WIDTH, 2)).astype(np.float32)
  assert tracking.find_support(frames, flow)[10:-10, 10:-10].min() > 0.95
  assert tracking.find_support(frames, -flow)[10:-10, 10:-10].mean() < 0.05
  subtle = flow * 0.9 / tracking.mean_magnitude(flow[1:]).max()
  np.testing.assert_array_equal(tracking.find_support(frames, -subtle), 1)


# Clean-up


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sigma=st.floats(1, 6))
def test_belief_has_its_formula(seed, sigma):
  rng = np.random.default_rng(seed)
  confidence = scipy.ndimage.gaussian_filter(rng.normal(size=(24, 32)), 2)
  confidence = np.clip(confidence / confidence.std(), 0, 1) * rng.uniform(0, 1)
  believed = tracking.find_damping(confidence.astype(np.float32), sigma=sigma)
  assert believed.min() >= 0 and believed.max() <= 1
  # Independent averages; the two kernels are cut off at different widths, so they agree to a few per cent.
  enclosed = tracking.find_enclosed((confidence**2).astype(np.float32), reach=round(8 * sigma))
  average = lambda width: scipy.ndimage.gaussian_filter(confidence**2, width, mode="mirror", truncate=4)
  around = average(sigma) + enclosed * average(3 * sigma)
  trust = confidence**2 / (confidence**2 + 0.1**2)
  expected = trust + (1 - trust) * around / (around + 0.04 * (1 - 0.9 * enclosed))
  np.testing.assert_allclose(believed, expected, atol=0.04)


def test_more_confidence_is_never_less_belief():
  rng = np.random.default_rng(0)
  low = scipy.ndimage.gaussian_filter(rng.uniform(0, 0.6, size=(24, 32)), 2).astype(np.float32)
  high = low + np.float32(0.1)
  assert (tracking.find_damping(high, sigma=3) > tracking.find_damping(low, sigma=3)).all()
  np.testing.assert_array_equal(tracking.find_damping(0 * low, sigma=3), 0)


def test_what_is_enclosed_is_believed_and_nothing_beside_it():
  confidence = np.zeros((80, 80), np.float32)
  confidence[25:55, 25:55] = 0.9
  confidence[30:50, 30:50] = 0
  believed = tracking.find_damping(confidence, sigma=3)
  assert believed[37:43, 37:43].min() > 0.9
  assert believed[37:43, 11:16].max() < 0.1
  confidence[:, 40:] = 0
  assert tracking.find_damping(confidence, sigma=3)[37:43, 41:43].max() < 0.5  # open on one side


def test_enclosed_is_what_has_weight_on_all_four_sides():
  weight = np.zeros((90, 90), np.float32)
  weight[25:65, 25:65] = 1
  weight[30:60, 30:60] = 0
  enclosed = tracking.find_enclosed(weight, reach=40)
  assert enclosed[35:55, 35:55].min() == 1
  outside = np.ones((90, 90), bool)
  outside[18:72, 18:72] = False
  assert enclosed[outside].max() == 0
  for side in (np.s_[25:65, :30], np.s_[25:65, 60:], np.s_[:30, 25:65], np.s_[60:, 25:65]):
    opened = weight.copy()
    opened[side] = 0
    assert tracking.find_enclosed(opened, reach=40)[41:49, 41:49].max() == 0


# Camera


def test_camera_shift_is_found_and_removed():
  frames, camera = make_shaken_square(24)
  motion, _, shift = tracking.measure_motion(frames)
  assert shift.dtype == np.float32
  np.testing.assert_allclose(shift, camera, atol=0.08)
  assert tracking.mean_magnitude(motion)[10:-10, 70:-10].mean() < 0.1
  assert tracking.mean_magnitude(motion)[32:48, 22:38].min() > 1.5


def test_camera_at_rest_is_left_alone_even_when_most_of_the_picture_sways():
  flow = np.zeros((20, HEIGHT, WIDTH, 2), np.float32)
  sway = oscillate(20)[:, None, None]
  flow[:, 30:] = sway * np.linspace(0.1, 1, HEIGHT - 30)[:, None, None]
  assert not tracking.find_camera_shift(flow, np.ones((HEIGHT, WIDTH), np.float32)).any()


def test_camera_shift_must_be_small_and_rest_on_enough_trusted_pixels():
  flow = np.broadcast_to(oscillate(10, amplitude=1)[:, None, None], (10, 32, 40, 2)).astype(np.float32)
  ones = np.ones((32, 40), np.float32)
  np.testing.assert_allclose(tracking.find_camera_shift(flow, ones), flow[:, 0, 0], atol=1e-6)
  assert not tracking.find_camera_shift(4 * flow, ones).any()
  assert not tracking.find_camera_shift(flow, 0.3 * ones).any()
  few = np.zeros((128, 160), np.float32)
  few[::4, ::4] = 1  # in every part, but 6 % of all
  wide = np.broadcast_to(flow[:, :1, :1], (10, 128, 160, 2))
  assert not tracking.find_camera_shift(wide, few).any()
  few[::2, ::4] = 1  # 12 %
  assert tracking.find_camera_shift(wide, few).any()
  in_a_corner = np.zeros((32, 40), np.float32)
  in_a_corner[:16, :20] = 1
  assert not tracking.find_camera_shift(flow, in_a_corner).any()


def test_mean_magnitude():
  motion = np.zeros((2, 2, 3, 2))
  motion[0, 0, 1], motion[1, 0, 1] = (3, 4), (0, -1)
  np.testing.assert_allclose(tracking.mean_magnitude(motion), [[0, 3, 0], [0, 0, 0]])
