"""Augmentation: the clip itself is transformed, by other code, and its optical flow estimated again."""

import cv2
import helpers
import numpy as np
import pytest
from scipy import ndimage

from gid_jax.data import augmentation as aug
from gid_jax.types import Window

STRIDES = pytest.mark.parametrize("motion_stride", [1, 2])
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

  def displacement(self, points, times=range(CLIP_LENGTH)):
    """[t *points 2] pixels from frame 0 to some others."""
    phase = 2 * np.pi * np.asarray(times) / CLIP_LENGTH
    total = 0
    for band, maps in enumerate(self.maps, 1):
      values = np.stack([sum_waves(waves, points) for waves in maps], -1) * 1.5 / band
      oscillation = np.stack([np.cos(band * phase) - 1, np.sin(band * phase)])
      total = total + np.einsum("ct,hwcd->thwd", oscillation, values.reshape(*values.shape[:2], 2, 2))
    return total

  def frames(self):
    points = helpers.pixel_centres(CLIP_SIZE)
    origin = np.broadcast_to(points, (CLIP_LENGTH, *points.shape))
    for _ in range(12):  # frame t at x + d(x) shows frame 0 at x: a contraction, solved by repetition
      origin = points - np.concatenate([self.displacement(origin[t], [t]) for t in range(CLIP_LENGTH)])
    gray = np.stack([0.5 + 0.13 * sum_waves(self.texture, frame) for frame in origin])
    return np.uint8(np.clip(255 * np.stack([gray, gray, gray], -1), 0, 255).round())

  def window(self, frames, motion_stride):
    motion = self.displacement(helpers.pixel_centres(CLIP_SIZE))
    points = helpers.pixel_centres(CLIP_SIZE, motion_stride)
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
