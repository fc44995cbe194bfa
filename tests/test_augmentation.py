"""Augmentation: against exact coordinates, and against transforming the clip and measuring its motion again."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gid_jax import augmentation as aug
from gid_jax.errors import UserError
from gid_jax.types import Window

SIZE, NUM_BANDS, NUM_FRAMES = (32, 48), 3, 2
STRIDES = pytest.mark.parametrize("motion_stride", [1, 2])
few_examples = settings(max_examples=10, deadline=None)


def pixel_centres(size, stride=1):
  """Positions [h w 2] (x, y) of a grid's pixels among the photo's: pixel i covers photo pixels i s ... i s + s - 1."""
  y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
  return np.stack([x, y], -1) * stride + (stride - 1) / 2


# Exact: the oracle moves both ends of every vector by a formula on pixel centres.


def affine_window(seed, motion_stride):
  """A window whose every field is affine in position, so that bilinear interpolation is exact inside."""
  rng = np.random.default_rng(seed)
  gradient, offset = rng.uniform(-0.05, 0.05, (NUM_BANDS + NUM_FRAMES, 2, 2, 2)), rng.uniform(-3, 3, (2, 2))

  def motion(index, part, points):
    return points @ gradient[index, part].T + offset[part]

  points, grid_points = pixel_centres(SIZE), pixel_centres(SIZE, motion_stride)
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
  points, grid_points = pixel_centres(size), pixel_centres(size, motion_stride)
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


# Measured: the clip itself is transformed, by other code, and its optical flow estimated again.

CLIP_SIZE, CLIP_LENGTH = (112, 144), 16


def plane_waves(rng, count, wavelengths):
  angles, lengths = rng.uniform(0, 2 * np.pi, count), rng.uniform(*wavelengths, count)
  return 2 * np.pi / lengths * np.exp(1j * angles), rng.uniform(0, 2 * np.pi, count)


def sum_waves(waves, points):
  vectors, phases = waves
  x, y = points[..., 0, None], points[..., 1, None]
  return np.sin(vectors.real * x + vectors.imag * y + phases).sum(-1) / np.sqrt(len(phases))


class WavingClip:
  """A texture of plane waves, swinging by a smooth field in bands 1 ... 3; every pixel of every frame is exact."""

  def __init__(self, seed):
    rng = np.random.default_rng(seed)
    self.texture = plane_waves(rng, 40, (5, 30))
    # For each band: four smooth maps, Re and Im of x and y.
    self.maps = [[plane_waves(rng, 3, (120, 240)) for _ in range(4)] for _ in range(3)]

  def displacement(self, points):
    """[t *points 2] pixels from frame 0 on."""
    phase = 2 * np.pi * np.arange(CLIP_LENGTH) / CLIP_LENGTH
    total = 0
    for band, maps in enumerate(self.maps, 1):
      values = np.stack([sum_waves(waves, points) for waves in maps], -1) * 1.5 / band
      oscillation = np.stack([np.cos(band * phase) - 1, np.sin(band * phase)])
      total = total + np.einsum("ct,hwcd->thwd", oscillation, values.reshape(*values.shape[:2], 2, 2))
    return total

  def frames(self):
    points = pixel_centres(CLIP_SIZE)
    origin = np.broadcast_to(points, (CLIP_LENGTH, *points.shape))
    for _ in range(12):  # frame t at x + d(x) shows frame 0 at x: a contraction, solved by repetition
      origin = points - np.stack([self.displacement(origin[t])[t] for t in range(CLIP_LENGTH)])
    gray = np.stack([0.5 + 0.13 * sum_waves(self.texture, frame) for frame in origin])
    return np.uint8(np.clip(255 * np.stack([gray, gray, gray], -1), 0, 255).round())

  def window(self, frames, motion_stride):
    motion, points = self.displacement(pixel_centres(CLIP_SIZE)), pixel_centres(CLIP_SIZE, motion_stride)
    spectrum = np.fft.rfft(self.displacement(points) / motion_stride, axis=0)[:4]
    return Window(
      image=frames[0],
      spectrum=np.concatenate([spectrum.real, spectrum.imag], -1).astype(np.float16),
      frames=frames[1:],
      flows=motion[1:].astype(np.float16),
      depth=np.hypot(*np.moveaxis(motion, -1, 0)).mean(0).astype(np.float16),
      scene="s",
      source="synthetic",
    )


@pytest.fixture(scope="module")
def waving():
  clip = WavingClip(7)
  frames = clip.frames()
  return frames, {stride: clip.window(frames, stride) for stride in (1, 2)}


def transform_frames(frames, *, mirror, degrees, zoom, offset, size):
  """Mirrors, turns about the centre, enlarges by both zooms and cuts, by cubic splines at positions made here."""
  if mirror:
    frames = frames[:, :, ::-1]
  middle = (frames.shape[2] - 1) / 2 + 1j * (frames.shape[1] - 1) / 2
  x, y = (np.arange(n) + 0.5 for n in size[::-1])
  place = x / zoom + offset[0] - 0.5 + 1j * (y / zoom + offset[1] - 0.5)[:, None]
  ratio = max(frames.shape[2] / frames.shape[1], frames.shape[1] / frames.shape[2])
  fill = np.cos(np.radians(degrees)) + ratio * abs(np.sin(np.radians(degrees)))
  place = middle + (place - middle) * np.exp(-1j * np.radians(degrees)) / fill
  sample = lambda gray: ndimage.map_coordinates(gray, [place.imag, place.real], order=3, mode="nearest")
  return np.stack([sample(frame[..., 0].astype(float)) for frame in frames])  # the clip is grey


def measure_flow(frames):
  """Optical flow from frame 0 to every later one by OpenCV's DIS."""
  dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  dis.setFinestScale(0)
  gray = np.uint8(np.clip(frames, 0, 255).round())
  return np.stack([dis.calc(gray[0], frame, None) for frame in gray[1:]])  # pyright: ignore


def rms(vectors):
  return np.sqrt(np.mean(np.sum(np.square(vectors, dtype=np.float64), -1)))


@STRIDES
@pytest.mark.parametrize(
  "change",
  [
    dict(mirror=True, degrees=0.0, zoom=1.0, offset=(20.0, 10.0)),
    dict(mirror=False, degrees=5.0, zoom=1.0, offset=(16.0, 8.0)),
    dict(mirror=False, degrees=0.0, zoom=1.5, offset=(9.3, 7.9)),
    dict(mirror=True, degrees=-25.0, zoom=1.2, offset=(11.7, 13.1)),
  ],
  ids=["flip", "rotation", "zoom", "all"],
)
def test_augmented_motion_is_that_of_the_transformed_clip(waving, motion_stride, change):
  frames, window = waving[0], waving[1][motion_stride]
  size = (80, 96)
  transformed = transform_frames(frames, size=size, **change)
  matrix = aug.flip_matrix(CLIP_SIZE[1]) if change["mirror"] else np.eye(2, 3)
  matrix = aug.compose(aug.rotation_matrix(change["degrees"], CLIP_SIZE), matrix)
  matrix = aug.compose(aug.zoom_matrix(change["zoom"], change["offset"]), matrix)
  moved = aug.warp_window(window, matrix, size=size)
  # What only the field's place, not its vectors, would give: the mistake that must not pass.
  grid_matrix = matrix.copy()
  grid_matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
  unturned = np.stack(
    [cv2.warpAffine(np.float32(f), grid_matrix, size[::-1], flags=cv2.WARP_INVERSE_MAP) for f in window.flows]
  )

  inside = (slice(None), slice(10, -10), slice(10, -10))  # flow near the border sees pixels come and go
  measured = measure_flow(transformed)
  truth_error, mistake = rms((moved.flows - measured)[inside]), rms((unturned - measured)[inside])
  assert np.abs(transformed - np.concatenate([moved.image[None], moved.frames])[..., 1]).mean() < 1
  moved_by = rms(measured[inside])
  assert moved_by > 1.5 and truth_error < 0.04 * moved_by and truth_error < 0.3 * mistake

  trajectories = np.concatenate([np.zeros((1, *size, 2)), measured])
  depth = np.hypot(*np.moveaxis(trajectories, -1, 0)).mean(0)
  assert np.abs(moved.depth - depth)[inside[1:]].mean() < 0.1
  if motion_stride == 2:
    trajectories = trajectories.reshape(CLIP_LENGTH, size[0] // 2, 2, size[1] // 2, 2, 2).mean((2, 4)) / 2
  spectrum = np.fft.rfft(trajectories, axis=0)[:4]
  spectrum = np.concatenate([spectrum.real, spectrum.imag], -1)
  cut = (slice(None), *(slice(10 // motion_stride, -10 // motion_stride),) * 2)
  for band in range(4):
    error, size_of_band = rms((moved.spectrum - spectrum)[cut][band]), rms(spectrum[cut][band])
    assert error < 0.05 * size_of_band, (band, error, size_of_band)


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
