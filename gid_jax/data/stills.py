"""Photos in which nothing moves, with the outlines of cut-outs as what could: endless, and made when asked for."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import cv2
import numpy as np

from gid_jax.configuration import LiveSettings
from gid_jax.errors import UserError
from gid_jax.media.folders import load_photos
from gid_jax.types import Window

# Every tenth photo is for validation.
_PERIOD = 10


class Still(NamedTuple):
  """A photo, not yet brought to its size.

  Attributes:
    number: that names it in batches, below those of stored windows.
    place: name, for errors.
    photo: [h w 3] uint8.
    outline: [h w] uint8 alpha of a cut-out.
    size: (h, w) wanted.
  """

  number: int
  place: str
  photo: np.ndarray
  outline: np.ndarray
  size: tuple[int, int]
  num_bands: int = 0
  num_pairs: int = 0

  def decode(self, *, fields: Sequence[str], bands: Any = (), pairs: Any = ()) -> Window:
    """The photo, cut to its size, and as depth [h w] the outline; everything else is empty."""
    del fields, bands, pairs
    empty, (height, width) = np.zeros(0, np.float32), self.size
    scale = max(height / self.photo.shape[0], width / self.photo.shape[1])
    rows, columns = max(height, round(scale * self.photo.shape[0])), max(width, round(scale * self.photo.shape[1]))
    image = cv2.resize(self.photo, (columns, rows), interpolation=cv2.INTER_AREA)
    top, left = (rows - height) // 2, (columns - width) // 2
    scale = 0.7 * min(height / self.outline.shape[0], width / self.outline.shape[1])
    thing = cv2.resize(self.outline, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    depth = np.zeros(self.size, np.float32)
    row, column = (height - thing.shape[0]) // 2, (width - thing.shape[1]) // 2
    depth[row : row + thing.shape[0], column : column + thing.shape[1]] = thing / np.float32(255)
    image = image[top : top + height, left : left + width]
    return Window(image, empty, np.zeros(0, np.uint8), empty, depth, scene=self.place, source="still")


class StillSource:
  """Random access to the photos of a folder, each with one cut-out after the other, if there are any.

  Every tenth photo is for validation.
  """

  def __init__(self, settings: LiveSettings, split: str):
    """Reads the folders.

    Raises:
      UserError: there are no photos, or one of the folders has no pictures.
    """
    if not settings.backgrounds:
      raise UserError("photos to cut holes into: give --config.data.live.backgrounds=FOLDER, "
                      "or --config.data.sources.live=0")  # fmt: skip
    photos, sprites = load_photos(settings.backgrounds, settings.sprites)
    chosen = [i for i in range(len(photos)) if (i % _PERIOD == _PERIOD - 1) == (split == "validation")]
    if not chosen:
      raise UserError(f"{settings.backgrounds} holds {len(photos)} photos; {_PERIOD} are needed at least, as every "
                      "tenth is for validation")  # fmt: skip
    self._photos, self._chosen, self._size = photos, chosen, (settings.height, settings.width)
    self._outlines = [sprite[..., 3] for sprite in sprites] or [np.zeros((2, 2), np.uint8)]

  def __len__(self) -> int:
    return len(self._chosen) * len(self._outlines)

  def __getitem__(self, index: SupportsIndex) -> Still:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f"photo {index} of {len(self)}")
    outline, photo = divmod(index, len(self._chosen))
    photo = self._chosen[photo]
    return Still(-1 - index, f"photo {photo}", self._photos[photo], self._outlines[outline], self._size)
