"""Colours of motion, slices and heat maps against independent formulas."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.motion import visualize
from gid_jax.types import SpectralVolume

DIRECTIONS = st.floats(0, 2 * math.pi)


def color(dx, dy, *, max_magnitude=1.0):
  return visualize.flow_to_colors(np.array([[[dx, dy]]], np.float32), max_magnitude=max_magnitude)[0, 0]


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 40))
def test_flow_colors_are_those_of_the_hsv_cone(dx, dy, largest):
  hue = math.atan2(dy, dx) / (2 * math.pi) % 1
  expected = colorsys.hsv_to_rgb(hue, min(math.hypot(dx, dy) / largest, 1), 1)
  np.testing.assert_allclose(color(dx, dy, max_magnitude=largest), expected, atol=1e-4)


def test_flow_colors_of_the_four_directions():
  np.testing.assert_allclose(color(2, 0), (1, 0, 0), atol=1e-6)  # right: red
  np.testing.assert_allclose(color(0, 2), (0.5, 1, 0), atol=1e-6)  # down: yellow-green
  np.testing.assert_allclose(color(-2, 0), (0, 1, 1), atol=1e-6)  # left: cyan
  np.testing.assert_allclose(color(0, -2), (0.5, 0, 1), atol=1e-6)  # up: violet


@given(DIRECTIONS, st.floats(0.2, 1), DIRECTIONS)
def test_turning_the_direction_turns_the_hue(angle, length, turn):
  before = color(length * math.cos(angle), length * math.sin(angle))
  after = color(length * math.cos(angle + turn), length * math.sin(angle + turn))
  difference = colorsys.rgb_to_hsv(*map(float, after))[0] - colorsys.rgb_to_hsv(*map(float, before))[0]
  assert abs((difference - turn / (2 * math.pi) + 0.5) % 1 - 0.5) < 1e-3


@given(DIRECTIONS, st.floats(0, 0.9))
def test_rest_is_white_and_longer_is_stronger(angle, length):
  direction = np.array([math.cos(angle), math.sin(angle)])
  np.testing.assert_allclose(color(0, 0), 1)
  # The least of the three channels is what saturation takes away.
  np.testing.assert_allclose(color(*(length * direction)).min(), 1 - length, atol=1e-5)
  np.testing.assert_allclose(color(*(7 * direction)), color(*direction), atol=1e-5)


def test_flow_that_is_not_finite_is_grey_and_leaves_the_rest_alone():
  flow = np.zeros((2, 3, 4, 2), np.float32)
  flow[1, 2, 3, 0], flow[0, 0, 0, 1] = np.nan, np.inf
  colors = visualize.flow_to_colors(flow, max_magnitude=1.0)
  assert colors.shape == (2, 3, 4, 3) and colors.dtype == np.float32
  grey = np.all(colors == 0.5, axis=-1)
  assert grey[1, 2, 3] and grey[0, 0, 0] and grey.sum() == 2
  assert np.all(colors[~grey] == 1)


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan])
def test_a_scale_must_be_positive(largest):
  with pytest.raises(ValueError, match="positive"):
    color(1, 1, max_magnitude=largest)


def test_the_wheel_shows_the_colour_of_each_direction():
  wheel = visualize.draw_flow_wheel(65)
  assert wheel.shape == (65, 65, 4)
  assert wheel[0, 0, 3] == 0 and wheel[32, 32, 3] == 1
  np.testing.assert_allclose(wheel[32, 32, :3], 1, atol=1e-6)
  for row, column, (dx, dy) in ((32, 62, (60, 0)), (62, 32, (0, 60)), (32, 2, (-60, 0)), (12, 52, (40, -40))):
    np.testing.assert_allclose(wheel[row, column, :3], color(dx / 65, dy / 65), atol=1e-6)


@given(st.integers(0, 6), st.integers(0, 5))
def test_slices_are_the_rows_of_the_frames(row, time):
  frames = np.random.default_rng(0).integers(0, 256, (6, 7, 8, 3), np.uint8)
  sliced = visualize.slice_xt(frames, row)
  assert sliced.shape == (6, 8, 3)
  for x in range(8):
    np.testing.assert_array_equal(sliced[time, x], frames[time, row, x])


@pytest.mark.parametrize("row", [-1, 7])
def test_there_is_no_slice_outside(row):
  with pytest.raises(IndexError, match="rows 0 to 6"):
    visualize.slice_xt(np.zeros((2, 7, 3)), row)


@settings(max_examples=20)
@given(st.integers(5, 54))
def test_the_liveliest_row_swings_most(row):
  distance = np.abs(np.arange(60) - row)
  motion = np.zeros((10, 60, 8, 2))
  motion[..., 0] = np.sin(np.arange(10))[:, None, None] * np.exp(-((distance / 6) ** 2))[:, None]
  motion[..., 1] = 100 * np.cos(np.arange(10))[:, None, None] * (np.arange(60) == 3)[:, None]  # up and down: not seen
  motion[..., 0] += 50  # far away, but at rest there
  assert visualize.find_liveliest_row(motion) == row


def test_heatmaps_hold_the_amplitude_of_each_band():
  num_frames, amplitudes = 24, {0: 2.0, 3: 5.0, 12: 1.5}
  times = np.arange(num_frames)
  motion = np.zeros((num_frames, 2, 3, 2))
  for band, amplitude in amplitudes.items():
    swing = amplitude * np.cos(2 * np.pi * band * times / num_frames)
    motion[:, 1, 2] += swing[:, None] * (0.6, -0.8)  # along a slanted line
  bands = np.fft.rfft(motion, axis=0)
  coefficients = np.concatenate([bands.real, bands.imag], -1).astype(np.float32)
  maps = visualize.spectrum_to_heatmaps(SpectralVolume(coefficients, num_frames=num_frames, fps=30.0))
  expected = np.zeros((13, 2, 3))
  for band, amplitude in amplitudes.items():
    expected[band, 1, 2] = amplitude
  np.testing.assert_allclose(maps, expected, atol=1e-5)
