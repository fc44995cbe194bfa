"""Photos and cut-outs for simulated scenes, read from folders."""

import functools
import pathlib

import cv2
import numpy as np

from gid_jax.errors import UserError

LONG_SIDE = 512


def load_backgrounds(folder: str | pathlib.Path) -> list[np.ndarray]:
  """Reads all pictures in `folder`, by name: [h w 3] uint8 RGB, long side at most 512 px.

  Raises:
    UserError: no file there can be read as a picture.
  """
  return [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in _load_images(folder, cv2.IMREAD_COLOR)]


def load_sprites(folder: str | pathlib.Path) -> list[np.ndarray]:
  """Reads the pictures with an alpha channel in `folder`, by name: [h w 4] uint8 RGBA, long side at most 512 px.

  Raises:
    UserError: no picture there has an alpha channel.
  """
  images = [image for image in _load_images(folder, cv2.IMREAD_UNCHANGED) if image.ndim == 3 and image.shape[2] == 4]
  if not images:
    raise UserError(f"load_sprites: no picture in {folder} has an alpha channel; give RGBA PNG files.")
  return [cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) for image in images]


@functools.lru_cache(maxsize=2)
def load_photos(backgrounds: str, sprites: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Reads backgrounds and cut-outs from their folders, once; "" is an empty list.

  Raises:
    UserError: a folder has no such pictures.
  """
  return load_backgrounds(backgrounds) if backgrounds else [], load_sprites(sprites) if sprites else []


def _load_images(folder: str | pathlib.Path, mode: int) -> list[np.ndarray]:
  names = sorted(p for p in pathlib.Path(folder).glob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
  images = []
  for name in names:
    image = cv2.imread(str(name), mode)
    if image is None:
      continue
    if image.dtype == np.uint16:
      image = (image // 257).astype(np.uint8)
    shrink = LONG_SIDE / max(image.shape[:2])
    if shrink < 1:
      height, width = (max(1, round(shrink * side)) for side in image.shape[:2])
      image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    images.append(image)
  if not images:
    raise UserError(f"no readable picture (jpg, png, webp) in {folder}; check the folder's name.")
  return images
