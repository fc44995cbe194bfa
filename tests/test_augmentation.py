"""Augmentation against exact coordinates, and its random draws."""

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.data import augmentation as aug
from gid_jax.errors import UserError
from gid_jax.types import Window

SIZE, NUM_BANDS, NUM_FRAMES = (32, 48), 3, 2
STRIDES = pytest.mark.parametrize("motion_stride", [1, 2])
few_examples = settings(max_examples=10, deadline=None)


# Exact: the oracle moves both ends of every vector by a formula on pixel centres.


def affine_window(seed, motion_stride):
  """A window whose every field is affine in position, so that bilinear interpolation is exact inside."""
  rng = np.random.default_rng(seed)
  gradient, offset = rng.uniform(-0.05, 0.05, (NUM_BANDS + NUM_FRAMES, 2, 2, 2)), rng.uniform(-3, 3, (2, 2))

  def motion(index, part, points):
    return points @ gradient[index, part].T + offset[part]

  points, grid_points = helpers.pixel_centres(SIZE), helpers.pixel_centres(SIZE, motion_stride)
  spectrum = [np.concatenate([motion(k, part, grid_points) for part in (0, 1)], -1) for k in range(NUM_BANDS)]
  x, y = points[..., 0], points[..., 1]
  image = np.stack([x * 4, y * 6, x + y], -1).astype(np.uint8)
  window = Window(
    image=image,
    spectrum=np.stack(spectrum).astype(np.float32) / motion_stride,
    frames=np.stack([image] * NUM_FRAMES),
    flows=np.stack([motion(NUM_BANDS + n, 0, points) for n in range(NUM_FRAMES)]).astype(np.float32),
    depth=(1 + 0.1 * x).astype(np.float32),
    scene="s",
    source="synthetic",
  )
  return window, motion


def check_transform(motion, moved, motion_stride, *, forward, backward, zoom):
  """`forward` maps points of the source photo to the new one, `backward` the other way; both on pixel centres."""
  size = moved.image.shape[:2]
  points, grid_points = helpers.pixel_centres(size), helpers.pixel_centres(size, motion_stride)
  inside = (slice(3, -3), slice(3, -3))

  def expected(index, part, where):
    start = backward(where)
    return (forward(start + motion(index, part, start)) - where)[inside]

  assert moved.spectrum.shape == (NUM_BANDS, *grid_points.shape[:2], 4)
  for n in range(NUM_FRAMES):
    np.testing.assert_allclose(moved.flows[n][inside], expected(NUM_BANDS + n, 0, points), atol=0.01)
  for k in range(NUM_BANDS):
    for part, channels in enumerate((slice(0, 2), slice(2, 4))):
      vectors = moved.spectrum[k][inside][..., channels] * motion_stride
      np.testing.assert_allclose(vectors, expected(k, part, grid_points), atol=0.02)
  source = backward(points)
  np.testing.assert_allclose(moved.depth[inside], (zoom * (1 + 0.1 * source[..., 0]))[inside], atol=0.01)
  colours = np.stack([source[..., 0] * 4, source[..., 1] * 6, source.sum(-1)], -1)
  np.testing.assert_allclose(moved.image[inside], colours[inside], atol=1)
  np.testing.assert_array_equal(moved.frames[0], moved.image)


@STRIDES
def test_flip_is_an_exact_mirror_and_its_own_inverse(motion_stride):
  window, motion = affine_window(2, motion_stride)
  flipped = aug.warp_window(window, aug.flip_matrix(SIZE[1]))
  mirror = lambda p: np.stack([SIZE[1] - 1 - p[..., 0], p[..., 1]], -1)
  check_transform(motion, flipped, motion_stride, forward=mirror, backward=mirror, zoom=1.0)
  np.testing.assert_array_equal(flipped.image, window.image[:, ::-1])
  np.testing.assert_array_equal(flipped.spectrum, window.spectrum[:, :, ::-1] * np.float32([-1, 1, -1, 1]))
  twice = aug.warp_window(flipped, aug.flip_matrix(SIZE[1]))
  for name in Window._fields[:-2]:
    np.testing.assert_array_equal(getattr(twice, name), getattr(window, name))


@STRIDES
@few_examples
@given(zoom=st.floats(1, 1.5), left=st.floats(0, 1), top=st.floats(0, 1), size=st.sampled_from([SIZE, (24, 32)]))
def test_zoom_and_crop_scale_vectors(motion_stride, zoom, left, top, size):
  window, motion = affine_window(3, motion_stride)
  offset = np.array([left * (SIZE[1] - size[1] / zoom), top * (SIZE[0] - size[0] / zoom)])
  moved = aug.warp_window(window, aug.zoom_matrix(zoom, tuple(offset)), size=size)
  assert moved.image.shape[:2] == size
  forward = lambda p: (p + 0.5 - offset) * zoom - 0.5
  backward = lambda p: (p + 0.5) / zoom + offset - 0.5
  check_transform(motion, moved, motion_stride, forward=forward, backward=backward, zoom=zoom)


@STRIDES
@few_examples
@given(degrees=st.floats(-20, 20))
def test_rotation_turns_vectors(motion_stride, degrees):
  window, motion = affine_window(4, motion_stride)
  moved = aug.warp_window(window, aug.rotation_matrix(degrees, SIZE))
  turn = np.exp(1j * np.radians(degrees))
  half = np.array([SIZE[1] / 2, SIZE[0] / 2])
  # The least zoom at which the turned-back corners of the output lie inside the photo.
  corners = np.array([half[0] + 1j * half[1], half[0] - 1j * half[1]]) / turn
  zoom = max((abs(corners.real) / half[0]).max(), (abs(corners.imag) / half[1]).max())

  def rotate_points(p, factor):
    z = (p[..., 0] + 0.5 - half[0] + 1j * (p[..., 1] + 0.5 - half[1])) * factor
    return np.stack([z.real + half[0] - 0.5, z.imag + half[1] - 0.5], -1)

  forward, backward = (lambda p: rotate_points(p, zoom * turn)), (lambda p: rotate_points(p, 1 / (zoom * turn)))
  check_transform(motion, moved, motion_stride, forward=forward, backward=backward, zoom=zoom)


matrices = st.builds(
  lambda degrees, zoom, x, y, mirror: aug.compose(
    aug.zoom_matrix(zoom, (x, y)),
    aug.compose(aug.rotation_matrix(degrees, SIZE), aug.flip_matrix(SIZE[1]) if mirror else np.eye(2, 3)),
  ),
  st.floats(-5, 5), st.floats(1, 1.5), st.floats(0, 4), st.floats(0, 4), st.booleans(),
)


@few_examples
@given(matrices, matrices, matrices)
def test_composition_is_that_of_homogeneous_matrices(first, second, third):
  full = lambda matrix: np.concatenate([matrix, [[0, 0, 1]]])
  np.testing.assert_allclose(full(aug.compose(second, first)), full(first) @ full(second), atol=1e-12)
  np.testing.assert_allclose(
    aug.compose(third, aug.compose(second, first)), aug.compose(aug.compose(third, second), first), atol=1e-12
  )


@STRIDES
@few_examples
@given(first=matrices, second=matrices)
def test_one_composed_warp_equals_two(motion_stride, first, second):
  window, _ = affine_window(5, motion_stride)
  twice = aug.warp_window(aug.warp_window(window, first), second)
  once = aug.warp_window(window, aug.compose(second, first))
  inside = (slice(None), slice(6, -6), slice(6, -6))
  # Where the second step looks past the edge of the first one's output, the two differ by design.
  corners = np.array([[6, 6], [SIZE[1] - 6, 6], [6, SIZE[0] - 6], [SIZE[1] - 6, SIZE[0] - 6]])
  sources = corners @ second[:, :2].T + second[:, 2]
  if np.all(sources > 2) and np.all(sources < np.array(SIZE[::-1]) - 2):
    np.testing.assert_allclose(once.flows[inside], twice.flows[inside], atol=0.02)


@STRIDES
@few_examples
@given(degrees=st.floats(-5, 5))
def test_turning_there_and_back_is_only_the_zoom(motion_stride, degrees):
  window, _ = affine_window(6, motion_stride)
  back = aug.warp_window(
    aug.warp_window(window, aug.rotation_matrix(degrees, SIZE)), aug.rotation_matrix(-degrees, SIZE)
  )
  zoom = (np.cos(np.radians(degrees)) + np.sin(np.radians(abs(degrees))) * SIZE[1] / SIZE[0]) ** 2
  offset = np.array(SIZE[::-1]) * (1 - 1 / zoom) / 2
  only_zoom = aug.warp_window(window, aug.zoom_matrix(zoom, tuple(offset)))
  inside = (slice(None), slice(4, -4), slice(4, -4))
  for name, atol in (("flows", 0.01), ("spectrum", 0.01), ("depth", 0.01), ("frames", 2)):
    left, right = (np.asarray(getattr(w, name) if name != "depth" else w.depth[None]) for w in (back, only_zoom))
    np.testing.assert_allclose(left[inside].astype(float), right[inside].astype(float), atol=atol)


# Random draws


RANGES = aug.Augmentation(flip=0.5, max_degrees=5.0, zoom=(1.1, 1.5), jitter=0.2)


@few_examples
@given(seed=st.integers(0, 2**32 - 1), crop=st.sampled_from([SIZE, (16, 24), (32, 24)]))
def test_drawn_transforms_stay_inside_the_photo_and_their_ranges(seed, crop):
  matrix = aug.draw_matrix(np.random.default_rng(seed), SIZE, crop=crop, ranges=RANGES)
  corners = np.array([[0, 0], [crop[1], 0], [0, crop[0]], [crop[1], crop[0]]])
  sources = corners @ matrix[:, :2].T + matrix[:, 2]
  assert np.all(sources > -1e-9) and np.all(sources < np.array(SIZE[::-1]) + 1e-9)
  enlargement = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
  fill = np.cos(np.radians(5)) + np.sin(np.radians(5)) * SIZE[1] / SIZE[0]
  assert 1.1 - 1e-9 <= enlargement <= 1.5 * fill + 1e-9
  turned = np.degrees(np.arctan2(-matrix[1, 0], matrix[1, 1]))
  assert abs(turned) <= 5 + 1e-9
  assert matrix[0, 0] != 0 and abs(np.degrees(np.arctan2(matrix[0, 1], abs(matrix[0, 0])))) <= 5 + 1e-9


def test_draws_cover_their_ranges():
  rng = np.random.default_rng(0)
  drawn = np.stack([aug.draw_matrix(rng, SIZE, crop=(16, 24), ranges=RANGES) for _ in range(400)])
  flipped = drawn[:, 0, 0] < 0
  assert 0.4 < flipped.mean() < 0.6
  turned = np.degrees(np.arctan2(-drawn[:, 1, 0], drawn[:, 1, 1]))
  assert turned.min() < -4.5 and turned.max() > 4.5
  never = [aug.draw_matrix(rng, SIZE, crop=(16, 24), ranges=aug.Augmentation()) for _ in range(100)]
  offsets = np.array([matrix[:, 2] for matrix in never])
  np.testing.assert_array_equal(np.array([matrix[:, :2] for matrix in never]), np.broadcast_to(np.eye(2), (100, 2, 2)))
  assert set(offsets[:, 0]) == set(range(0, 24, 2)) and set(offsets[:, 1]) == set(range(0, 16, 2))


def test_an_enlarged_crop_lies_anywhere_in_the_photo():
  # As large as the photo, it shows 32 x 21.3 of 48 x 32 pixels, from any corner of it to the other.
  ranges = aug.Augmentation(zoom=(1.5, 1.5))
  rng = np.random.default_rng(1)
  drawn = np.stack([aug.draw_matrix(rng, SIZE, crop=SIZE, ranges=ranges) for _ in range(400)])
  for axis, room in enumerate((16.0, 32 / 3)):
    offsets = drawn[:, axis, 2]
    assert offsets.min() >= 0 and offsets.max() <= room
    assert offsets.min() < 0.02 * room and offsets.max() > 0.98 * room and abs(offsets.mean() / room - 0.5) < 0.06


@pytest.mark.parametrize("crop, corner", [(SIZE, (0, 0)), ((16, 24), (8, 12)), ((30, 22), (0, 12)), ((28, 46), (2, 0))])
def test_the_middle_is_cut_at_whole_pixel_pairs(crop, corner):
  matrix = aug.centre_matrix(SIZE, crop=crop)
  window, _ = affine_window(8, 2)
  moved = aug.warp_window(window, matrix, size=crop)
  top, left = corner
  np.testing.assert_array_equal(moved.image, window.image[top : top + crop[0], left : left + crop[1]])
  rows, columns = (slice(start // 2, (start + side) // 2) for start, side in zip(corner, crop, strict=True))
  np.testing.assert_array_equal(moved.spectrum, window.spectrum[:, rows, columns])


def test_colour_jitter_treats_a_pair_alike_and_follows_its_formula():
  pixels = np.random.default_rng(6).integers(0, 256, (8, 9, 3), dtype=np.uint8)
  first, second = aug.jitter_colours(np.random.default_rng(7), [pixels, pixels], jitter=0.2)
  np.testing.assert_array_equal(first, second)
  assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1
  # The same draw written out step by step.
  image = pixels / 255
  gamma, brightness, contrast, saturation = np.random.default_rng(7).uniform(0.8, 1.2, 4)
  expected = image**gamma * brightness
  expected = (expected - expected.mean()) * contrast + expected.mean()
  gray = (expected @ [0.299, 0.587, 0.114])[..., None]
  expected = np.clip(gray + (expected - gray) * saturation, 0, 1)
  np.testing.assert_allclose(first, expected, atol=1e-5)
  assert abs(expected - image).max() > 0.01
  (same,) = aug.jitter_colours(np.random.default_rng(8), [pixels], jitter=0.0)
  np.testing.assert_array_equal(same, np.float32(image))


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"flips": 0.5}, "augmentation.flips is unknown; use flip, max_degrees, zoom, jitter"),
    ({"flip": 1.5}, "flip=1.5"),
    ({"max_degrees": -5.0}, "max_degrees=-5"),
    ({"max_degrees": 90.0}, "max_degrees=90"),
    ({"zoom": (0.5, 1.0)}, "zoom"),
    ({"zoom": (1.5, 1.2)}, "zoom"),
    ({"zoom": (1.0, float("nan"))}, "zoom"),
    ({"jitter": 1.0}, "jitter=1.0"),
  ],
)
def test_senseless_ranges_are_user_errors(config, message):
  with pytest.raises(UserError, match=message):
    aug.config_to_augmentation(config)


def test_what_a_config_leaves_out_is_not_changed():
  assert aug.config_to_augmentation({}) == aug.Augmentation()
  assert aug.config_to_augmentation({"flip": 0.5}) == aug.Augmentation(flip=0.5)


# Time: the oracle is the series itself, evaluated at other moments.


@few_examples
@given(seed=st.integers(0, 99), start=st.integers(0, 19), backwards=st.booleans())
def test_a_moved_window_is_the_same_motion_from_another_moment(seed, start, backwards):
  num_frames, bands = 20, np.arange(5)
  spectrum = np.random.default_rng(seed).normal(size=(5, 3, 4, 4)).astype(np.float32)
  trajectory = lambda bins: np.fft.irfft(bins[..., :2] + 1j * bins[..., 2:], n=num_frames, axis=0)
  order = (start + (-1 if backwards else 1) * np.arange(num_frames)) % num_frames
  before = trajectory(spectrum)
  expected = before[order] - before[start] + before[0]  # displacements from the photo of that moment
  moved = aug.move_in_time(spectrum, bands, shift=start / num_frames, backwards=backwards)
  np.testing.assert_allclose(trajectory(moved), expected, atol=1e-5)
  # A few bands of the same: those of the whole, but for the first, which needs the others.
  some = aug.move_in_time(spectrum[[3, 0, 1]], np.array([3, 0, 1]), shift=start / num_frames, backwards=backwards)
  np.testing.assert_allclose(some[[0, 2]], moved[[3, 1]], atol=1e-5)
  np.testing.assert_allclose(some[1, ..., :2], spectrum[0, ..., :2], atol=1e-5)


@pytest.mark.parametrize("change", [dict(shift=1.5), dict(shift=-0.1), dict(reverse=2.0)])
def test_times_out_of_range_are_refused(change):
  with pytest.raises(UserError, match=rf"augmentation.{next(iter(change))}={next(iter(change.values()))}"):
    aug.config_to_augmentation(change)
