"""What stands behind a simulated scene and never moves: a crop of a photo, or a painted place.

Pictures are RGB 0..255 float32.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from data_pipeline.synthetic.camera import defocus, sample_radius
from data_pipeline.synthetic.fabrics import paint_cloth
from data_pipeline.synthetic.places import PLACES, paint_room, paint_wall
from data_pipeline.synthetic.shapes import smooth_noise

PHOTO_SHARE = 0.8  # of the backdrops where there are photos
BLUR_SHARE = 0.5  # of the photos put out of focus
MAX_VEGETATION = 0.15  # of a photo's crop: it stands still, and plants that do would teach the wrong lesson


def sample_backdrop(
  rng: np.random.Generator,
  height: int,
  width: int,
  photos: Sequence[np.ndarray],
  *,
  side: float,
  vegetation: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
  """Draws a backdrop [h w 3] float32, 0..255: mostly a crop of a photo, else painted.

  Args:
    rng: the scene's random stream.
    height, width: of the picture in pixels.
    photos: [h w 3] uint8 RGB each; without any all is painted.
    side: where the light of a painted backdrop comes from: -1 left, 1 right.
    vegetation: gives the probability [h w] that a pixel of a picture [h w 3] uint8 shows a plant. With it the first
      of up to four crops, each of a photo drawn anew, with under 15 % of plants is taken, or else the one with least.
  """
  if not len(photos) or rng.random() >= PHOTO_SHARE:
    return paint_backdrop(rng, height, width, side)
  best, least = None, np.inf
  for _ in range(1 if vegetation is None else 4):
    crop = crop_photo(rng, photos[int(rng.integers(len(photos)))], height, width)
    share = 0.0 if vegetation is None else float(np.mean(vegetation(np.rint(crop).astype(np.uint8))))
    if share < least:
      best, least = crop, share
    if share < MAX_VEGETATION:
      break
  assert best is not None
  if rng.random() < BLUR_SHARE:
    best = defocus(best, sample_radius(rng, width, 1.0, 14), glow=rng.uniform(0.05, 0.5))
  return grade(rng, best)


def crop_photo(rng: np.random.Generator, photo: np.ndarray, height: int, width: int) -> np.ndarray:
  """A random crop of at least half of the sides of the largest one of this shape, mirrored: [h w 3] float32, 0..255."""
  fit = min(photo.shape[0] / height, photo.shape[1] / width) * rng.uniform(0.35, 1.0) ** 0.6
  h, w = max(1, int(height * fit)), max(1, int(width * fit))
  top, left = (int(rng.integers(n + 1)) for n in (photo.shape[0] - h, photo.shape[1] - w))
  crop = photo[top : top + h, left : left + w, :].astype(np.float32)[:, :: rng.choice([-1, 1])]
  crop = np.ascontiguousarray(crop)
  how = cv2.INTER_AREA if fit > 1 else cv2.INTER_CUBIC
  return np.clip(cv2.resize(crop, (width, height), interpolation=how), 0, 255)


def grade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """Another time of day or weather: shifts of colour, saturation and brightness of [h w 3], kept in 0..255."""
  luma = np.tile([0.299, 0.587, 0.114], (3, 1))
  saturation = rng.uniform(0.6, 1.1)
  matrix = np.exp(rng.normal(0, [[0.04], [0.015], [0.05]])) * (saturation * np.eye(3) + (1 - saturation) * luma)
  return np.clip(cv2.transform(image, matrix * np.exp(rng.normal(0, 0.13))), 0, 255)


def paint_backdrop(rng: np.random.Generator, height: int, width: int, side: float) -> np.ndarray:
  """A painted place [h w 3] float32, 0..255: landscape, water, greenery, wall, room, ground, town, fence or rocks."""
  paint = PLACES[rng.choice(len(PLACES), p=[share for _, share in PLACES])][0]
  light = _sample_light(rng, side)
  image = np.asarray(paint(rng, height, width, light), np.float32)
  image = image * _sample_lighting(rng, height, width)
  if rng.random() < 0.85:
    image = defocus(image, sample_radius(rng, width, 0.8, 9), glow=rng.uniform(0.1, 0.6))
  return grade(rng, image)


def paint_interior(rng: np.random.Generator, height: int, width: int, side: float) -> np.ndarray:
  """Indoors, often in focus: a patterned curtain or paper, a room or a wall: [h w 3] float32, 0..255."""
  light = _sample_light(rng, side)
  kind = rng.choice(["cloth", "room", "wall"], p=[0.45, 0.35, 0.2])
  if kind == "cloth":
    image = _hang_cloth(rng, height, width)
  else:
    image = (paint_room if kind == "room" else paint_wall)(rng, height, width, light)
  image = np.asarray(image * _sample_lighting(rng, height, width), np.float32)
  if rng.random() < 0.5:
    image = defocus(image, sample_radius(rng, width, 0.8, 4), glow=rng.uniform(0.1, 0.4))
  return grade(rng, image)


def _sample_light(rng: np.random.Generator, side: float) -> tuple[float, float]:
  """A unit vector (x, y) towards a sun that stands above on one side, -1 left or 1 right; y runs down."""
  across = rng.uniform(0.4, 0.9)
  return float(side * across), -float(np.sqrt(1 - across**2))


def _hang_cloth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """Patterned cloth in still folds: its pattern is squeezed where a fold turns away, and shaded there."""
  flat = paint_cloth(rng, height, 2 * width, plain=0.15).astype(np.float32)
  u, v = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
  wander = 0.25 * smooth_noise(rng, height, width, coarsest=2, octaves=2)
  phase = 2 * np.pi * (rng.uniform(1.5, 7) * u + rng.normal(0, 0.2) * v + wander)
  depth = rng.uniform(0, 0.09) * width / 4
  x = 2 * np.arange(width) + 2 * depth * np.sin(phase)
  y = np.broadcast_to(np.arange(height)[:, None], x.shape)
  cloth = cv2.remap(flat, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
  return cloth * (1 + rng.uniform(0.1, 0.35) * np.cos(phase) * (depth > 1))[..., None] * rng.uniform(0.6, 1.0)


def _sample_lighting(rng, height: int, width: int) -> np.ndarray:
  """Slow changes of brightness over the picture: [h w 1] float32."""
  x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)[:, None]
  slope = rng.normal(0, [0.14, 0.1])
  patch = cv2.resize(rng.normal(0, 0.04, (3, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
  return (1 + slope[0] * x + slope[1] * y + patch)[..., None].astype(np.float32)
