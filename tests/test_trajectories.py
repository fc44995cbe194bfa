"""Optical flow, its clean-up and the window filters, against scenes whose motion is known exactly."""

import cv2
import numpy as np
import pytest

from data_pipeline import trajectories
from gid_jax import tracking
from gid_jax.errors import UserError

HEIGHT, WIDTH = 80, 112


def make_texture(seed, *, height=HEIGHT, width=WIDTH, sigma=1.5):
  rng = np.random.default_rng(seed)
  noise = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), sigma)
  return noise / noise.std() * 40 + 128


def translate(image, dx, dy, *, border=cv2.BORDER_REFLECT):
  matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
  return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=border)


def to_frames(images, *, noise=0.0, seed=0):
  images = np.stack(images)
  images = images + noise * np.random.default_rng(seed).standard_normal(images.shape)
  return np.clip(images + 0.5, 0, 255).astype(np.uint8)


def oscillate(num_frames, *, band=2, amplitude=3.0):
  t = np.arange(num_frames)
  angle = 2 * np.pi * band * t / num_frames
  return np.stack([amplitude * np.sin(angle), 0.4 * amplitude * (np.cos(angle) - 1)], -1)


def make_moving_square(num_frames, *, amplitude=3.0, hollow=False):
  """A textured square (50 x 50, its inside plain when `hollow`) swinging before a plain, noisy wall."""
  square = np.zeros((HEIGHT, WIDTH), np.float32)
  square[15:65, 10:60] = 1
  texture = make_texture(3)
  if hollow:
    texture[29:51, 24:46] = 128
  path = oscillate(num_frames, amplitude=amplitude)
  images = []
  for dx, dy in path:
    alpha = translate(square, dx, dy, border=cv2.BORDER_CONSTANT)[..., None]
    images.append(alpha * translate(texture, dx, dy) + (1 - alpha) * 170)
  return to_frames(images, noise=1.5), path


def test_flow_of_a_swinging_texture_is_subpixel():
  path = oscillate(12, amplitude=4)
  frames = to_frames([translate(make_texture(0), *d) for d in path], noise=1)
  flow = tracking.estimate_window_flow(frames)
  assert flow.shape == (12, HEIGHT, WIDTH, 2)
  assert not flow[0].any()
  error = np.linalg.norm(flow - path[:, None, None], axis=-1)[:, 10:-10, 10:-10]
  assert error.mean() < 0.06
  assert np.percentile(error, 99) < 0.25


def test_flow_runs_from_the_first_frame_and_not_along_a_chain():
  frames = to_frames([translate(make_texture(0), *d) for d in oscillate(5)])
  swapped = frames.copy()
  swapped[2] = make_texture(9).astype(np.uint8)
  straight, disturbed = (tracking.estimate_window_flow(f) for f in (frames, swapped))
  np.testing.assert_array_equal(straight[[1, 3, 4]], disturbed[[1, 3, 4]])
  assert np.abs(straight[2] - disturbed[2]).max() > 0.5


def test_texture_confidence_separates_texture_from_walls_and_blur():
  image = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
  image[:, :50] = make_texture(1)[:, :50]
  image[:, 62:] = make_texture(2, sigma=20)[:, 62:]
  confidence = tracking.texture_confidence(to_frames([image], noise=1)[0])
  assert confidence[:, 5:42].mean() > 0.7
  assert confidence[10:-10, 75:-10].mean() < 0.15
  assert confidence.min() >= 0 and confidence.max() <= 1


def make_window(frames, **options):
  window, verdicts = trajectories.sequence_to_window(
    frames, scene="s", source="real", rng=np.random.default_rng(0), **options
  )
  assert window is not None, verdicts
  return window


def test_wall_is_still_and_moving_thing_moves():
  frames, path = make_moving_square(30)
  raw = np.linalg.norm(tracking.estimate_window_flow(frames), axis=-1).mean(0)
  depth = make_window(frames).depth.astype(np.float32)
  true_depth = np.linalg.norm(path, axis=-1).mean()
  wall = np.s_[:, 85:]
  assert depth[wall].mean() < 0.05
  assert depth[wall].mean() < 0.5 * raw[wall].mean()
  np.testing.assert_allclose(depth[22:58, 17:53], true_depth, rtol=0.1)


def test_plain_inside_of_a_moving_thing_follows_its_edges():
  frames, path = make_moving_square(30, hollow=True)
  depth = make_window(frames).depth.astype(np.float32)
  true_depth = np.linalg.norm(path, axis=-1).mean()
  assert depth[29:51, 24:46].min() > 0.6 * true_depth


def test_support_drops_flow_that_rest_explains_as_well():
  frames = to_frames([make_texture(4)] * 8, noise=1)
  invented = np.zeros((8, HEIGHT, WIDTH, 2), np.float32)
  invented[1:, :, :40, 0] = 6
  _, support = tracking.flow_confidence(frames, invented)
  assert support[:, :30].max() < 0.05
  assert support[:, 55:].min() > 0.95


def test_spectrum_matches_the_dft_of_the_true_motion():
  frames, path = make_moving_square(30, amplitude=2)
  spectrum = make_window(frames, num_bands=5).spectrum.astype(np.float64)
  assert spectrum.shape == (5, HEIGHT // 2, WIDTH // 2, 4)
  t = np.arange(30)
  for band in range(5):
    true = sum(path[i] / 2 * np.exp(-2j * np.pi * band * i / 30) for i in t)
    inside = spectrum[band, 13:27, 10:25]
    found = inside[..., :2] + 1j * inside[..., 2:]
    assert np.abs(found - true).mean() < 0.05 * 30 * 0.5


def test_shrink_vectors_averages_blocks_and_rescales():
  motion = np.random.default_rng(0).standard_normal((3, 4, 6, 2)).astype(np.float32)
  half = trajectories.shrink_vectors(motion, stride=2)
  expected = np.array([
    [[motion[t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 2).mean(0) / 2 for x in range(3)] for y in range(2)]
    for t in range(3)
  ])
  np.testing.assert_allclose(half, expected, rtol=1e-5, atol=1e-6)


def test_camera_shift_is_found_and_removed_but_stays_in_the_pairs():
  square = np.zeros((HEIGHT, WIDTH), np.float32)
  square[25:55, 15:45] = 1
  camera, swing = oscillate(24, band=1, amplitude=0.8), oscillate(24, band=3, amplitude=3)
  images = []
  for shift, d in zip(camera, swing, strict=True):
    alpha = translate(square, *(d + shift), border=cv2.BORDER_CONSTANT)[..., None]
    images.append(alpha * translate(make_texture(5), *(d + shift)) + (1 - alpha) * translate(make_texture(6), *shift))
  frames = to_frames(images, noise=1)
  flow = tracking.estimate_window_flow(frames)
  confidence, _ = tracking.flow_confidence(frames, flow)
  found = tracking.find_camera_shift(flow, confidence)
  np.testing.assert_allclose(found, camera, atol=0.08)

  window = make_window(frames, num_pairs=23)
  background = np.s_[:, 10:-10, 70:-10]
  assert np.linalg.norm(window.depth.astype(float)[background[1:]]) / 60 < 0.1
  np.testing.assert_allclose(window.flows[background].mean((1, 2)), camera[1:], atol=0.1)


def test_camera_at_rest_is_left_alone_even_when_most_of_the_picture_sways():
  flow = np.zeros((20, HEIGHT, WIDTH, 2), np.float32)
  sway = oscillate(20)[:, None, None]
  flow[:, 30:] = sway * np.linspace(0.1, 1, HEIGHT - 30)[:, None, None]
  assert not tracking.find_camera_shift(flow, np.ones((HEIGHT, WIDTH), np.float32)).any()


def test_pairs_hold_frames_of_the_window_and_their_flow():
  frames, _ = make_moving_square(16)
  window = make_window(frames, num_pairs=4)
  again = make_window(frames, num_pairs=4)
  np.testing.assert_array_equal(window.frames, again.frames)
  assert window.image.dtype == np.uint8 and window.flows.dtype == np.float16 and window.depth.dtype == np.float16
  rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
  for frame, flow in zip(window.frames, window.flows.astype(np.float32), strict=True):
    assert any(np.array_equal(frame, later) for later in frames[1:])
    warped = cv2.remap(frame, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
    inside = np.s_[20:60, 15:55]
    assert np.abs(warped[inside].astype(float) - window.image[inside]).mean() < 4


@pytest.mark.parametrize(
  ("typical", "still_fraction", "main", "supplement"),
  [
    (9.0, 0.1, "large_motion", ""),  # 8.1 px on average
    (2.0, 0.0, "camera", "camera"),
    (2.0, 0.02, "", "camera"),  # something rests, but under 5 %
    (2.0, 0.2, "", ""),
    (0.5, 0.2, "", "still"),
  ],
)
def test_filters_drop_what_each_version_drops(typical, still_fraction, main, supplement):
  moves = np.arange(5000) >= still_fraction * 5000
  motion = np.zeros((10, 50, 100, 2), np.float32)
  motion[..., 1] = typical * moves.reshape(50, 100) * np.where(np.arange(10) % 2, 1, -1)[:, None, None]
  assert trajectories.filter_window(motion) == (not main, main)
  assert trajectories.filter_window(motion, rule="supplement") == (not supplement, supplement)


def test_unknown_rule_names_the_choices():
  with pytest.raises(UserError, match="main, supplement"):
    trajectories.filter_window(np.zeros((2, 4, 4, 2)), rule="paper")


def test_rejected_sequence_gives_its_verdicts():
  frames = to_frames([translate(make_texture(0), *d) for d in oscillate(12, amplitude=5)])
  verdict = {"main": "camera", "supplement": "camera"}
  raw = tracking.estimate_window_flow(frames)
  assert {rule: trajectories.filter_window(raw, rule=rule)[1] for rule in verdict} == verdict
  frames, _ = make_moving_square(12, amplitude=0.5)
  window, verdicts = trajectories.sequence_to_window(
    frames, scene="s", source="real", rng=np.random.default_rng(0), rule="supplement"
  )
  assert window is None
  assert verdicts == {"main": "", "supplement": "still"}
