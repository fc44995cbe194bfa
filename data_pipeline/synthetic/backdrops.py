"""What stands behind a simulated scene: a crop of a photo, or a painted sky, greenery or wall."""

import cv2
import numpy as np

from data_pipeline.synthetic.shapes import smooth_noise


def crop_photo(rng: np.random.Generator, photo: np.ndarray, height: int, width: int) -> np.ndarray:
  """A random crop of the photo, mirrored and out of focus at random: [h w 3] float32."""
  fit = min(photo.shape[0] / height, photo.shape[1] / width) * rng.uniform(0.6, 1.0)
  h, w = max(1, int(height * fit)), max(1, int(width * fit))
  top, left = (int(rng.integers(n + 1)) for n in (photo.shape[0] - h, photo.shape[1] - w))
  crop = photo[top : top + h, left : left + w, :: rng.choice([-1, 1])].astype(np.float32)
  out = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if fit > 1 else cv2.INTER_CUBIC)
  return _defocus(rng, np.clip(out, 0, 255))


def _defocus(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  if rng.random() < 0.5:
    return image
  return cv2.GaussianBlur(image, (0, 0), np.exp(rng.uniform(np.log(0.5), np.log(5))) * image.shape[1] / 256)


def paint_backdrop(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """A painted background [h w 3] float32: sky and hills, blurred greenery, or a wall."""
  v = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
  noise = lambda coarsest: smooth_noise(rng, height, width, coarsest=coarsest)[..., None]
  kind = rng.integers(3)
  if kind == 0:
    top, low = rng.uniform((60, 110, 150), (150, 180, 235)), rng.uniform((180, 190, 190), (240, 235, 240))
    image = top * (1 - v) + low * v + np.clip(noise(3), 0, 3) * rng.uniform(0, 25)
    for level in np.sort(rng.uniform(0.3, 0.95, rng.integers(1, 5))):
      ridge = level + 0.05 * smooth_noise(rng, 2, width, coarsest=3)[:1, :, None]
      hill = rng.uniform((45, 70, 35), (120, 140, 95)) * (1 + 0.1 * noise(14)) + 60 * (1 - level)
      image = np.where(v > ridge, hill, image)
  elif kind == 1:
    image = rng.uniform((35, 55, 25), (110, 130, 80)) * (1 + 0.25 * noise(5)) + 8 * noise(8) * rng.normal(size=3)
    for _ in range(rng.integers(5, 40)):  # spots of light out of focus
      spot = np.zeros((height, width), np.float32)
      center = (int(rng.integers(width)), int(rng.integers(height)))
      cv2.circle(spot, center, max(1, int(rng.uniform(0.01, 0.06) * width)), 1.0, -1)
      image = image + cv2.GaussianBlur(spot, (0, 0), 1.5)[..., None] * rng.uniform(10, 45) * rng.uniform(0.6, 1, 3)
  else:
    wall = rng.uniform(70, 220) * rng.uniform(0.85, 1.1, 3)
    image = wall * (1 + rng.uniform(0.01, 0.08) * noise(12)) * (0.8 + 0.3 * v[::-1])
    floor = rng.uniform(0.6, 1.1)
    image = np.where(v > floor, image * rng.uniform(0.5, 0.9) + 6 * noise(20), image)
  image = image * (1 - 0.3 * np.clip(v - 0.7, 0, 1))
  return np.clip(_defocus(rng, image.astype(np.float32)), 0, 255)
