"""Small clips of things that swing, whose motion is known exactly."""

import cv2
import numpy as np

HEIGHT, WIDTH = 80, 112


def make_texture(seed, *, height=HEIGHT, width=WIDTH, sigma=1.5):
  rng = np.random.default_rng(seed)
  noise = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), sigma)
  return noise / noise.std() * 40 + 128


def translate(image, dx, dy, *, border=cv2.BORDER_REFLECT):
  matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
  return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=border)


def to_frames(images, *, noise=0.0, seed=0):
  """Frames [t h w 3] uint8 of pictures [h w 3] of 0 ... 255, with Gaussian noise."""
  images = np.stack(images)
  images = images + noise * np.random.default_rng(seed).standard_normal(images.shape)
  return np.clip(images + 0.5, 0, 255).astype(np.uint8)


def oscillate(num_frames, *, band=2, amplitude=3.0):
  """Displacements [t 2] of a swing that starts at rest."""
  t = np.arange(num_frames)
  angle = 2 * np.pi * band * t / num_frames
  return np.stack([amplitude * np.sin(angle), 0.4 * amplitude * (np.cos(angle) - 1)], -1)


def make_moving_square(num_frames, *, amplitude=3.0, hollow=False):
  """A textured square (50 x 50, its inside plain when `hollow`) swinging before a plain, noisy wall."""
  square = np.zeros((HEIGHT, WIDTH), np.float32)
  square[15:65, 10:60] = 1
  texture = make_texture(3)
  if hollow:
    texture[29:51, 24:46] = 128
  path = oscillate(num_frames, amplitude=amplitude)
  images = []
  for dx, dy in path:
    alpha = translate(square, dx, dy, border=cv2.BORDER_CONSTANT)[..., None]
    images.append(alpha * translate(texture, dx, dy) + (1 - alpha) * 170)
  return to_frames(images, noise=1.5), path


def make_shaken_square(num_frames):
  """A textured square swinging before a textured wall, both shaken by the camera; frames and the camera's path."""
  square = np.zeros((HEIGHT, WIDTH), np.float32)
  square[25:55, 15:45] = 1
  camera, swing = oscillate(num_frames, band=1, amplitude=0.8), oscillate(num_frames, band=3, amplitude=3)
  images = []
  for shift, d in zip(camera, swing, strict=True):
    alpha = translate(square, *(d + shift), border=cv2.BORDER_CONSTANT)[..., None]
    images.append(alpha * translate(make_texture(5), *(d + shift)) + (1 - alpha) * translate(make_texture(6), *shift))
  return to_frames(images, noise=1), camera
