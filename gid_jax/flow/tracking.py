"""From the frames of a clip to clean trajectories: flow from the first frame, confidence, clean-up (section 6).

Flow always runs directly from the first frame to each later one, so errors do not add up along time. The clean-up
is one factor per trajectory: it acts on every frame alike, so it neither creates nor removes frequencies and a
trajectory stays a trajectory.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gid_jax.errors import UserError
from gid_jax.flow.estimators import DEFAULT_FLOW, FlowEstimator, digest

# To be raised when this file gives other motion from the same flow: what was measured before then counts no more.
MEASURE_VERSION = 1
_NUM_CHECKS = 24


def digest_measurement(estimator: FlowEstimator) -> str:
  """Short name of all that decides `measure_motion` beside the frames: estimator, its version, `MEASURE_VERSION`."""
  return digest([MEASURE_VERSION, estimator.name, estimator.version])


class MeasuredMotion(NamedTuple):
  """Trajectories measured in the frames of one clip.

  Attributes:
    motion: [t h w 2] float32 displacement from frame 0, pixels; cleaned, and free of the camera's shift.
    confidence: [h w] float32 in [0, 1], how far a trajectory was measured rather than carried over from around it.
    shift: [t 2] float32 pixels, the translation all of the picture shares, which was taken out of `motion`.
  """

  motion: Float[np.ndarray, "t h w 2"]
  confidence: Float[np.ndarray, "h w"]
  shift: Float[np.ndarray, "t 2"]


def measure_motion(
  frames: UInt8[np.ndarray, "t h w 3"],
  *,
  estimator: FlowEstimator = DEFAULT_FLOW,
  progress: Callable[[int, int], None] | None = None,
) -> MeasuredMotion:
  """Measures the motion texture of a clip against its first frame (section 3).

  Args:
    frames: [t h w 3] uint8 RGB, without a cut, t >= 2.
    estimator: of the optical flow.
    progress: called as (done, total) frames from time to time.

  Returns:
    Clean trajectories: where flow cannot be trusted and nothing near can, they rest.

  Raises:
    UserError: the frames are too small for optical flow, there is only one, or the estimator gives other shapes.
  """
  flow, confidence = track_frames(frames, estimator=estimator, progress=progress)
  shift = find_camera_shift(flow, confidence)
  believed = find_support(frames, flow) * find_damping(confidence, sigma=0.025 * frames.shape[1])
  flow -= shift[:, None, None]
  flow *= believed[..., None]
  return MeasuredMotion(flow, confidence, shift)


def track_frames(
  frames: UInt8[np.ndarray, "t h w 3"],
  *,
  estimator: FlowEstimator = DEFAULT_FLOW,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[np.ndarray, "t h w 2"], Float[np.ndarray, "h w"]]:
  """Estimates flow from the first frame to every frame, and one confidence per trajectory.

  Args:
    frames: [t h w 3] uint8 RGB.
    estimator: of the optical flow.
    progress: called as (done, total) frames from time to time.

  Returns:
    [t h w 2] float32 pixels, frame 0 exactly zero, and [h w] float32 in [0, 1], the mean over the frames.

  Raises:
    UserError: the frames are too small for optical flow, there is only one, or the estimator gives other shapes.
  """
  if len(frames) < 2:
    raise UserError(f"a clip of {len(frames)} frame(s) shows no motion; give at least 2 frames")
  # A clip of a lower rate repeats frames: their flow is the same.
  fresh = [t for t in range(1, len(frames)) if t == 1 or not np.array_equal(frames[t], frames[t - 1])]
  unit = frames[[0, *fresh]].astype(np.float32) / 255
  flow, confidence = (np.asarray(x, np.float32) for x in estimator(unit[0], unit[1:], progress=progress))
  shape = unit[1:].shape[:3]
  if (flow.shape, confidence.shape) != ((*shape, 2), shape):
    given = f"flow {flow.shape} and confidence {confidence.shape}"
    raise UserError(f"flow estimator {estimator.name} gave {given}; it must give {(*shape, 2)} and {shape}")
  source = np.searchsorted(fresh, np.arange(1, len(frames)), side="right") - 1
  flow = np.concatenate([np.zeros_like(flow[:1]), flow[source]])
  return flow, np.mean(confidence[source], axis=0)


def find_support(
  frames: UInt8[np.ndarray, "t h w 3"], flow: Float[np.ndarray, "t h w 2"]
) -> Float[np.ndarray, "h w"]:
  """Rates how far each trajectory explains the frames better than rest would.

  Args:
    frames: [t h w 3] uint8 RGB.
    flow: [t h w 2] pixels from frame 0 to each frame.

  Returns:
    [h w] in [0, 1], by which to multiply the flow: low where flow of a pixel or more explains the frames no better
    than no motion, as where something passes in front of a still edge. One value per trajectory, so that the
    clean-up is the same at every frame.
  """
  gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames]
  height, width = gray[0].shape
  columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
  checks = np.unique(np.linspace(1, len(frames) - 1, min(_NUM_CHECKS, len(frames) - 1)).round().astype(int))
  moving, resting = np.zeros((2, height, width), np.float32)
  for t in checks:
    map_x, map_y = columns + flow[t, ..., 0], rows + flow[t, ..., 1]
    warped = cv2.remap(gray[t], map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moving += np.abs(warped - gray[0]) / len(checks)
    resting += np.abs(gray[t] - gray[0]) / len(checks)
  # A wide window, or the support would be speckled and tear the flow of one thing apart.
  moving, resting = (cv2.GaussianBlur(residual, (0, 0), 4) for residual in (moving, resting))
  improvement = np.clip(5 * (resting - moving) / (resting + 0.5), 0, 1)
  # Subtle motion changes the frames by less than their noise: it is taken on trust.
  large = np.clip(np.linalg.norm(flow[checks], axis=-1).mean(0) - 1, 0, 1)
  return 1 - large * (1 - improvement)


def find_enclosed(weight: Float[np.ndarray, "h w"], *, reach: int) -> Float[np.ndarray, "h w"]:
  """Rates how far each pixel [h w] is surrounded: 1 where there is weight within `reach` pixels on all four sides."""
  length, across = 2 * (reach // 2) + 1, 2 * (reach // 6) + 1
  sides = [
    cv2.boxFilter(weight, -1, size, anchor=anchor, borderType=cv2.BORDER_CONSTANT)
    for size, anchors in (((length, across), (0, length - 1)), ((across, length), (0, length - 1)))
    for anchor in ((place, across // 2) if size[0] == length else (across // 2, place) for place in anchors)
  ]
  return np.clip(np.min(sides, axis=0) / 0.02, 0, 1)


def find_damping(
  confidence: Float[np.ndarray, "h w"], *, sigma: float, rest: float = 0.04
) -> Float[np.ndarray, "h w"]:
  """Rates how far to believe the flow of each trajectory, where its own confidence does not suffice by that around it.

  With trust `r = c² / (c² + 0.1²)` and support from around `s = (G*c² + e H*c²) / (G*c² + e H*c² + rest)` it is
  `r + (1 - r) s`: the flat inside of a moving textured thing, to which the smoothness of the flow has brought the
  motion of its edges, keeps it; a flat wall of its own comes to rest. H is three times as wide as G and counts only
  where trusted flow is found on all sides (e), so that a petal's inside is kept and a wall beside it is not. c² keeps
  the many slightly trusted pixels of a wall from outvoting rest.

  Args:
    confidence: [h w] in [0, 1].
    sigma: width of the Gaussian G in pixels, how far trusted flow reaches.
    rest: weight of the assumption that things rest, as a squared confidence.

  Returns:
    [h w] in [0, 1], by which to multiply the flow.
  """
  weight = (confidence**2).astype(np.float32)
  enclosed = find_enclosed(weight, reach=round(8 * sigma))
  around = cv2.GaussianBlur(weight, (0, 0), sigma) + enclosed * cv2.GaussianBlur(weight, (0, 0), 3 * sigma)
  # Where the wide average counts, rest weighs less: it was ruled out on all sides.
  support = around / (around + np.float32(rest) * (1 - 0.9 * enclosed))
  trust = weight / (weight + np.float32(0.1**2))
  return trust + (1 - trust) * support


def find_camera_shift(
  flow: Float[np.ndarray, "t h w 2"],
  confidence: Float[np.ndarray, "h w"],
  *,
  tolerance: float = 0.2,
  largest: float = 2.0,
) -> Float[np.ndarray, "t 2"]:
  """Finds a small translation that the whole picture shares: what is left of the camera's own motion.

  Args:
    flow: [t h w 2] pixels.
    confidence: [h w] in [0, 1].
    tolerance: distance in pixels within which a trajectory agrees with the shift, root mean square over time.
    largest: a shift of more pixels than this is a thing that moves, not a camera that shakes.

  Returns:
    [t 2] float32 pixels. All zero unless most trusted pixels agree with the shift in most of the 4 x 4 parts of the
    picture, so that one large swinging thing is no camera, and more parts agree with it than with a camera at rest.
  """
  trusted = confidence > 0.4
  rest = np.zeros((len(flow), 2), np.float32)
  if trusted.mean() < 0.1:
    return rest
  paths = flow[:, trusted][:, ::4]
  shift = np.median(paths, axis=1)
  if np.linalg.norm(shift, axis=-1).max() > largest:
    return rest
  rows, columns = np.nonzero(trusted)
  part = (rows * 4 // trusted.shape[0] * 4 + columns * 4 // trusted.shape[1])[::4]
  size = np.bincount(part, minlength=16)

  def count_parts(path: np.ndarray) -> int:
    agrees = np.sqrt(((paths - path[:, None]) ** 2).sum(-1).mean(0)) < tolerance
    shares = np.bincount(part, weights=agrees, minlength=16) / np.maximum(size, 1)
    return int(((shares > 0.5) & (size >= 8)).sum())

  num_moved = count_parts(shift)
  return shift.astype(np.float32) if num_moved >= 9 and num_moved > count_parts(rest) else rest


def mean_magnitude(motion: Float[np.ndarray, "t h w 2"]) -> Float[np.ndarray, "h w"]:
  """Averages the length of each pixel's displacement [t h w 2] over time, as [h w] pixels."""
  return np.sqrt(motion[..., 0] ** 2 + motion[..., 1] ** 2).mean(0)
