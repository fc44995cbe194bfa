"""A film whose motion is known exactly: a textured picture whose middle swings."""

import cv2
import numpy as np

HEIGHT, WIDTH = 80, 128


def make_texture(*, seed=0):
  """A picture [h w 3] uint8 of muted colours with detail of several sizes, on which any motion shows."""
  rng = np.random.default_rng(seed)
  grey = np.zeros((HEIGHT, WIDTH))
  for sigma in (2, 3, 6):
    layer = cv2.GaussianBlur(rng.normal(size=grey.shape), (0, 0), sigma)
    grey += layer / layer.std()
  return np.clip(np.array([120, 125, 110]) + np.array([26, 28, 22]) * grey[..., None], 0, 255).astype(np.uint8)


def make_swing(*, num_frames=30, cycles=2, extent=3.0):
  """Displacements [t h w 2] of a swing along x that starts at rest and is `extent` px wide in the middle."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  envelope = np.exp(-(((x - WIDTH / 2) / 20) ** 2) - ((y - HEIGHT / 2) / 16) ** 2)
  motion = np.zeros((num_frames, HEIGHT, WIDTH, 2), np.float32)
  motion[..., 0] = extent * envelope * np.sin(2 * np.pi * cycles * np.arange(num_frames) / num_frames)[:, None, None]
  return motion


def film(picture, motion):
  """Frames [t h w 3] uint8 of a picture each of whose pixels p is at p + motion[t, p]."""
  y, x = (grid.astype(np.float32) for grid in np.mgrid[: picture.shape[0], : picture.shape[1]])
  frames = []
  for flow in motion:
    source_x, source_y = x, y
    for _ in range(20):  # The pixel that has come to (x, y): a fixed point.
      there = cv2.remap(flow, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
      source_x, source_y = x - there[..., 0], y - there[..., 1]
    frames.append(cv2.remap(picture, source_x, source_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
  return np.stack(frames)
