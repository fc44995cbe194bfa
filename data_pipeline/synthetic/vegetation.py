"""Where in a photo plants are that could sway: colour, fine texture and position, without learned weights."""

import cv2
import numpy as np


def segment_vegetation(image: np.ndarray) -> np.ndarray:
  """Probability that a pixel shows a plant that sways (leaves, grass, flowers, straw, reeds): [h w] float32 in [0, 1].

  Three clues are multiplied: the colour of leaves or straw, or a vivid or bright petal beside such a colour; texture
  as fine as leaves and blades that are near enough to be seen to move; and height in the picture, since what is above
  needs more texture to be taken for a plant than what is below. Meant for pictures of 128 to 512 px.

  It knows no shapes, so it errs in plain ways. Missed: pale flowers before something not green, plants in silhouette,
  in black and white or at night, large smooth leaves, bokeh. Taken for plants: painted green, yellow, red or purple
  things with a pattern, red rock and evening skies, moss, ivied or mossy stone, tree trunks among leaves, grainy
  yellow ground, patterned brass, sunlit hills of strong texture.

  Args:
    image: [h w 3] uint8 RGB.
  """
  rgb = image.astype(np.float32) * np.float32(1 / 255)
  red, green, blue = cv2.split(rgb)
  total, top, low = red + green + blue, rgb.max(-1), rgb.min(-1)
  texture = _measure_texture(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
  excess = (2 * green - red - blue) / (total + 0.15)
  saturation = (top - low) / (top + 0.1)
  leaf = _rise(excess, 0.03, 0.11) * _rise(green - blue, -0.01, 0.04)
  # From olive through straw to reddish ears: red >= green > blue, and much finer than sand or a wall would be.
  warm = _rise(red - green, -0.05, 0.0) * (1 - _rise(red - green, 0.10, 0.22)) * _rise(green - blue, 0.03, 0.09)
  straw = warm * _rise(saturation, 0.22, 0.4) * _rise(texture, 0.9, 1.9)
  plant = np.maximum(leaf, 0.85 * straw)
  size = image.shape[1] // 6 | 1
  beside = _rise(cv2.boxFilter(leaf, -1, (size, size)), 0.1, 0.3)
  vivid = _rise(saturation, 0.3, 0.5) * _rise(red - green, -0.1, 0.05) * _rise(top, 0.25, 0.5)
  # Petals that fill much of a picture have nothing green near, but are more vivid than ground, and seen sharp or lit.
  petal = _rise(saturation, 0.5, 0.7) * _rise(red - green, 0.0, 0.12) * _rise(top, 0.4, 0.6)
  petal = np.maximum(petal, _rise(saturation, 0.2, 0.4) * _rise(np.minimum(red, blue) - green, 0.05, 0.12))
  petal *= _rise(texture, 0.1, 0.4)
  pale = _rise(low, 0.5, 0.65) * _rise(texture, 0.8, 1.5)
  plant = np.maximum(plant, np.maximum(vivid, 0.9 * pale) * beside)
  height = np.linspace(0.35, 0, len(image), dtype=np.float32)[:, None]
  score = np.maximum(plant * _rise(texture, 0.2 + height, 0.55 + 1.2 * height), 0.9 * petal)
  return np.clip(_smooth_along_edges(score, rgb.mean(-1)), 0, 1)


def _rise(value, low, high):
  """0 below `low`, 1 above `high`, a straight line between."""
  return np.clip((value - low) / (high - low), 0, 1)


def _measure_texture(gray: np.ndarray) -> np.ndarray:
  """Detail of a few pixels' size, as a share of what a lawn in the foreground has: [h w] float32 from 0."""
  level = gray.astype(np.float32)
  detail = np.abs(level - cv2.GaussianBlur(level, (0, 0), 1.5))
  size = gray.shape[1] // 28 | 1
  # A mean of roots: a lone strong edge, as between a roof and the sky, counts less than leaves all over.
  roots = cv2.boxFilter(np.sqrt(detail), -1, (size, size))
  light = cv2.boxFilter(level, -1, (size, size))
  return np.maximum(roots**2 - 0.6, 0) / (1.5 + 0.035 * light)


def _smooth_along_edges(score: np.ndarray, guide: np.ndarray) -> np.ndarray:
  """Guided filter: the score becomes, in every small box, the straight line of `guide` that fits it best."""
  size = score.shape[1] // 24 | 1
  mean = lambda x: cv2.boxFilter(x, -1, (size, size))
  guide_mean, score_mean = mean(guide), mean(score)
  slope = (mean(guide * score) - guide_mean * score_mean) / (mean(guide * guide) - guide_mean**2 + 2e-3)
  return mean(slope) * guide + mean(score_mean - slope * guide_mean)
