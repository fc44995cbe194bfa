"""Augmentation of one training window: flip, rotation, zoom, crop, colour (supplement, training details), and time.

Geometry. A transform is a 2 x 3 matrix from output to source position, in pixels of the photo measured from its upper
left *corner* (pixel x covers x to x + 1), where the photo and its motion grid, full or half, agree: one matrix moves
both. A displacement d becomes A^-1 d, with A the matrix's 2 x 2 part: moving a field without turning and scaling its
vectors would teach wrong motion.

Time. Nothing in a photo tells which moment of its motion it shows, so another moment of the window, or the window
backwards, is another motion of the same photo: the photo of that moment differs by a few pixels, less than a cell of
the latent grid. Without it a model of few scenes learns their phases by heart.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from gid_jax.errors import UserError
from gid_jax.types import Window

Matrix = Float[np.ndarray, "2 3"]
_MAX_DEGREES = 45.0
# Luma of red, green and blue (Rec. 601), about which saturation changes.
_LUMA = np.array([0.299, 0.587, 0.114])


class Augmentation(NamedTuple):
  """Ranges of the random changes; the defaults change nothing.

  Attributes:
    flip: probability of a horizontal mirror, 0 ... 1.
    max_degrees: largest rotation to either side, 0 ... 45.
    zoom: (least, most) enlargement, 1 or more.
    jitter: gamma, brightness, contrast and saturation are factors of 1 - jitter ... 1 + jitter; 0 ... below 1.
    shift: largest share of the period by which windows start later, 0 ... 1.
    reverse: probability that a window runs backwards, 0 ... 1.
  """

  flip: float = 0.0
  max_degrees: float = 0.0
  zoom: tuple[float, float] = (1.0, 1.0)
  jitter: float = 0.0
  shift: float = 0.0
  reverse: float = 0.0


def config_to_augmentation(config: Mapping[str, Any]) -> Augmentation:
  """Checks the `data.augmentation` part of a config; a name that is left out is a change that is not made.

  Raises:
    UserError: an unknown name, or a value out of its range.
  """
  unknown = sorted(set(config) - set(Augmentation._fields))
  if unknown:
    raise UserError(f"config.data.augmentation.{unknown[0]} is unknown; use {', '.join(Augmentation._fields)}")
  ranges = Augmentation(**config)
  least, most = ranges.zoom
  for name, fits, allowed in (
    ("flip", 0 <= ranges.flip <= 1, "a probability, 0 to 1"),
    ("max_degrees", 0 <= ranges.max_degrees <= _MAX_DEGREES, f"0 to {_MAX_DEGREES:g}"),
    ("zoom", 1 <= least <= most < np.inf, "(least, most), both 1 or more"),
    ("jitter", 0 <= ranges.jitter < 1, "0 to below 1"),
    ("shift", 0 <= ranges.shift <= 1, "a share of the period, 0 to 1"),
    ("reverse", 0 <= ranges.reverse <= 1, "a probability, 0 to 1"),
  ):
    if not fits:
      raise UserError(f"config.data.augmentation.{name}={getattr(ranges, name)}; choose {allowed}")
  return ranges


def flip_matrix(width: int) -> Matrix:
  """The matrix of a horizontal mirror of a photo `width` pixels wide."""
  return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def zoom_matrix(zoom: float, offset: tuple[float, float]) -> Matrix:
  """The matrix that enlarges by `zoom` and starts the output at source position `offset` (x, y)."""
  return np.array([[1 / zoom, 0.0, offset[0]], [0.0, 1 / zoom, offset[1]]])


def rotation_matrix(degrees: float, size: tuple[int, int]) -> Matrix:
  """The matrix that turns a photo of `size` (h, w) about its centre, from +x towards +y.

  It also enlarges by the least zoom that keeps the photo's outside out of the picture.
  """
  height, width = size
  cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  zoom = cos + abs(sin) * max(width / height, height / width)
  linear = np.array([[cos, sin], [-sin, cos]]) / zoom  # the inverse turn: output -> source
  centre = np.array([width / 2, height / 2])
  return np.concatenate([linear, (centre - linear @ centre)[:, None]], axis=1)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
  """The matrix of doing `outer` to the result of `inner`: one interpolation instead of two."""
  return np.concatenate([inner[:, :2] @ outer[:, :2], inner[:, :2] @ outer[:, 2:] + inner[:, 2:]], axis=1)


def draw_matrix(
  rng: np.random.Generator, size: tuple[int, int], *, crop: tuple[int, int], ranges: Augmentation
) -> Matrix:
  """Draws flip, rotation, zoom and the place of the crop for a photo of `size` (h, w); `crop` (h, w) is at most it."""
  height, width = size
  mirror, degrees = rng.random() < ranges.flip, ranges.max_degrees * rng.uniform(-1, 1)
  zoom = rng.uniform(*ranges.zoom)
  offset = rng.uniform(0, 1, 2) * [width - crop[1] / zoom, height - crop[0] / zoom]
  if degrees == 0 and zoom == 1:
    # Whole pixel pairs: photo and half-size grid are then copied without interpolation.
    offset = offset // 2 * 2
  matrix = flip_matrix(width) if mirror else np.eye(2, 3)
  matrix = compose(rotation_matrix(degrees, size), matrix)
  return compose(zoom_matrix(zoom, tuple(offset)), matrix)


def measure_enlargement(matrix: Matrix) -> float:
  """How many times larger things become under a similarity transform."""
  return float(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def centre_matrix(size: tuple[int, int], *, crop: tuple[int, int]) -> Matrix:
  """The matrix that cuts `crop` (h, w) from the middle of a photo of `size` (h, w), at whole pixel pairs."""
  return zoom_matrix(1.0, ((size[1] - crop[1]) // 4 * 2, (size[0] - crop[0]) // 4 * 2))


def move_in_time(
  spectrum: Float[np.ndarray, "n h w 4"], bands: Int[np.ndarray, "n"], *, shift: float, backwards: bool
) -> Float[np.ndarray, "n h w 4"]:
  """Bands of the same motion, periodic, seen from another moment on, or backwards from it.

  Args:
    spectrum: [n h w 4] channels (Re x, Re y, Im x, Im y) of `bands`.
    bands: [n] of the spectrum, distinct.
    shift: the moment, as a share of the period.
    backwards: time runs from there into the past.

  Returns:
    [n h w 4] float32. Band 0, the mean distance from the photo's moment, follows where all bands up to the highest
    given are there, in order; alone it stays, as it cannot be told.
  """
  turned = spectrum.astype(np.float32)
  real, imaginary = turned[..., :2], turned[..., 2:]
  angles = 2 * np.pi * (np.asarray(bands) * shift % 1)
  cos, sin = (function(angles).astype(np.float32)[:, None, None, None] for function in (np.cos, np.sin))
  turned = np.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)
  if len(bands) > 1 and np.array_equal(bands, np.arange(len(bands))):
    turned[0, ..., :2] -= 2 * (turned[1:, ..., :2] - real[1:]).sum(0)
  if backwards:
    turned[..., 2:] *= -1
  return turned


def warp_window(window: Window, matrix: Matrix, *, size: tuple[int, int] | None = None) -> Window:
  """Applies one similarity transform to photo, frames and every motion field of a window.

  Args:
    window: frames, flows, depth and spectrum may be empty; the motion grid may be as fine as the photo or coarser.
    matrix: output -> source position, photo pixels from the corner; see the head of this file.
    size: (h, w) of the output photo in pixels; the input's when None.

  Returns:
    The transformed window; motion arrays are float32. Places outside the source repeat its edge.
  """
  size = size or window.image.shape[:2]
  spectrum, flows, depth, frames = window.spectrum, window.flows, window.depth, window.frames
  if spectrum.size:
    stride = round(window.image.shape[0] / spectrum.shape[1])
    spectrum = warp_motion(spectrum, matrix, size=size, stride=stride)
  if flows.size:
    flows = warp_motion(flows, matrix, size=size)
  if depth.size:
    depth = _warp(depth.astype(np.float32), matrix, size) / np.float32(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
  if frames.size:
    frames = np.stack([_warp(frame, matrix, size) for frame in frames])
  image = _warp(window.image, matrix, size)
  return window._replace(image=image, spectrum=spectrum, frames=frames, flows=flows, depth=depth)


def warp_motion(
  fields: Float[np.ndarray, "n hm wm c"], matrix: Matrix, *, size: tuple[int, int], stride: int = 1
) -> Float[np.ndarray, "n hm2 wm2 c"]:
  """Applies a transform to vector fields [n hm wm c], c / 2 vectors a pixel: to their place and to themselves.

  Args:
    fields: on a grid whose pixels are `stride` photo pixels wide and high, in pixels of that grid.
    matrix: output -> source position, photo pixels from the corner.
    size: (h, w) of the output photo in pixels; the output grid is `stride` times smaller.
    stride: photo pixels per pixel of the grid.

  Returns:
    [n hm2 wm2 c] float32. Places outside the source repeat its edge.
  """
  grid_size = (size[0] // stride, size[1] // stride)
  vectors = np.kron(np.eye(fields.shape[-1] // 2), np.linalg.inv(matrix[:, :2]))
  # Written in place: many arrays of this size at once cost more in page faults than the warping itself.
  moved = np.empty((len(fields), *grid_size, fields.shape[-1]), np.float32)
  for source, target in zip(fields, moved, strict=True):
    warped = _warp(source.astype(np.float32, copy=False), matrix / [1, 1, stride], grid_size)
    cv2.transform(warped, vectors, dst=target)
  return moved


def _warp(array: np.ndarray, matrix: Matrix, size: tuple[int, int]) -> np.ndarray:
  # From corners to the pixel centres OpenCV counts from: x_centre = x_corner - 1/2.
  centred = matrix.copy()
  centred[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  return cv2.warpAffine(array, centred, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def jitter_colours(
  rng: np.random.Generator, images: Sequence[UInt8[np.ndarray, "h w 3"]], *, jitter: float
) -> list[Float[np.ndarray, "h w 3"]]:
  """Changes gamma, brightness, contrast and saturation of some images, all alike; float32 in [0, 1] comes out.

  With `jitter` 0 the images are only brought to [0, 1]; see `Augmentation` for its meaning.
  """
  gamma, brightness, contrast, saturation = rng.uniform(1 - jitter, 1 + jitter, 4)
  curve = brightness * (np.arange(256) / 255) ** gamma
  # One mean for all, so that a pair of frames stays photometrically consistent.
  mean = np.bincount(images[0].ravel(), minlength=256) @ curve / images[0].size
  # Contrast about the mean, then saturation about the luma: one affine map of (r, g, b).
  colours = contrast * (saturation * np.eye(3) + (1 - saturation) * _LUMA)
  colours = np.concatenate([colours, np.full((3, 1), mean * (1 - contrast))], axis=1)
  table = curve.astype(np.float32)
  return [np.clip(cv2.transform(cv2.LUT(image, table), colours), 0, 1) for image in images]
