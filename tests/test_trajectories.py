"""From frames to training windows: filters, spectra and pairs, against scenes whose motion is known exactly."""

import cv2
import numpy as np
import pytest
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

from data_pipeline import trajectories
from gid_jax.errors import UserError
from gid_jax.flow.tracking import track_frames

pytestmark = pytest.mark.usefixtures("careful_flow")


def make_window(frames, **options):
  window, verdicts = trajectories.sequence_to_window(
    frames, scene="s", source="real", rng=np.random.default_rng(0), **options
  )
  assert window is not None, verdicts
  return window


def test_wall_is_still_and_moving_thing_moves():
  frames, path = make_moving_square(30)
  depth = make_window(frames).depth.astype(np.float32)
  assert depth[:, 85:].mean() < 0.05
  np.testing.assert_allclose(depth[22:58, 17:53], np.linalg.norm(path, axis=-1).mean(), rtol=0.1)


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


def test_camera_shift_leaves_the_spectrum_but_stays_in_the_pairs():
  frames, camera = make_shaken_square(24)
  window = make_window(frames, num_bands=8, num_pairs=23)
  background = np.s_[:, 10:-10, 70:-10]
  assert window.depth.astype(float)[background[1:]].mean() < 0.1
  np.testing.assert_allclose(window.flows[background].mean((1, 2)), camera[1:], atol=0.1)


def test_pairs_hold_frames_of_the_window_and_their_flow():
  frames, _ = make_moving_square(16)
  window = make_window(frames, num_bands=8, num_pairs=4)
  again = make_window(frames, num_bands=8, num_pairs=4)
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
  raw, _ = track_frames(frames)
  assert {rule: trajectories.filter_window(raw, rule=rule)[1] for rule in verdict} == verdict
  frames, _ = make_moving_square(12, amplitude=0.5)
  window, verdicts = trajectories.sequence_to_window(
    frames, scene="s", source="real", rng=np.random.default_rng(0), rule="supplement"
  )
  assert window is None
  assert verdicts == {"main": "", "supplement": "still"}
