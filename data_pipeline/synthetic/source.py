"""Simulated scenes as an endless data set that lies on no disk: item i is made when it is asked for."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from data_pipeline.synthetic.scene import Scene, sample_scene
from gid_jax.configuration import LiveSettings
from gid_jax.data.records import name_scene
from gid_jax.errors import UserError
from gid_jax.media.folders import load_photos
from gid_jax.motion.spectral import shrink_vectors
from gid_jax.types import Window

# Every tenth seed is for validation, as in a built data set, so that the two may be mixed.
_PERIOD = 10
_SIZES = ("height", "width", "num_frames", "fps")
_FOLDERS = ("backgrounds", "sprites")


class SceneRecord(NamedTuple):
  """A scene that has not been made yet; what a stage does not ask for is never made.

  Attributes:
    seed: of the scene.
    settings: the other arguments of `sample_scene`.
    motion_stride: photo pixels per pixel of the motion grid.
  """

  seed: int
  settings: Mapping[str, Any]
  motion_stride: int

  @property
  def number(self) -> int:
    """Number that names it in batches, below those of stored windows."""
    return -1 - self.seed

  @property
  def place(self) -> str:
    """Name of the scene, for errors."""
    return name_scene(self.seed)

  @property
  def num_bands(self) -> int:
    """Bands that the scene's spectrum has."""
    return self.settings["num_frames"] // 2 + 1

  @property
  def num_pairs(self) -> int:
    """Later frames that can be had; pair i is frame i + 1."""
    return self.settings["num_frames"] - 1

  def make_scene(self) -> Scene:
    """Simulates the scene."""
    return sample_scene(self.seed, **self.settings)

  def decode(self, *, fields: Sequence[str], bands: Sequence[int] = (), pairs: Sequence[int] = ()) -> Window:
    """Makes the arrays named in `fields`, with these bands and pairs; the others come back empty, with shape (0,).

    Spectrum [len(bands) hm wm 4], flows [len(pairs) h w 2] and depth [h w] are float32, exactly the scene's.
    """
    scene = self.make_scene()
    empty, times = np.zeros(0, np.float32), np.asarray(pairs, int) + 1
    spectrum = scene.spectral_volume(max(bands) + 1)[np.asarray(bands)] if "spectrum" in fields else None
    return Window(
      image=scene.image if "image" in fields else np.zeros(0, np.uint8),
      spectrum=empty if spectrum is None else shrink_vectors(spectrum, stride=self.motion_stride),
      frames=np.stack([scene.frame(float(time)) for time in times]) if "frames" in fields else np.zeros(0, np.uint8),
      flows=scene.displacement(times) if "flows" in fields else empty,
      depth=scene.mean_magnitude() if "depth" in fields else empty,
      scene=f"synthetic-{self.seed}",
      source="synthetic",
    )


class SceneSource:
  """Random access to simulated scenes: of the seeds 0, 1, … every tenth (9, 19, …) for validation, the others to train.

  Attributes:
    settings: arguments of `sample_scene` that all scenes share.
  """

  def __init__(self, settings: LiveSettings, split: str, *, motion_stride: int, num_scenes: int = 1_000_000):
    """Checks the `data.live` part of a config and reads its folders.

    Args:
      settings: size, frames and rate of the scenes, and folders of pictures.
      split: "train" or "validation".
      motion_stride: photo pixels per pixel of the motion grid.
      num_scenes: seeds of both splits together.

    Raises:
      UserError: a setting is out of range, or a folder has no pictures.
    """
    for name, least in zip(_SIZES, (16, 16, 2, 0.1), strict=True):
      value = getattr(settings, name)
      if not value >= least:
        raise UserError(f"config.data.live.{name}={value}; live scenes need it, {least} or more")
    if settings.height % motion_stride or settings.width % motion_stride:
      raise UserError(
        f"config.data.live: {settings.height}x{settings.width} px; both sides must be multiples of "
        f"config.data.motion_stride={motion_stride}"
      )
    photos = dict(zip(_FOLDERS, load_photos(settings.backgrounds, settings.sprites), strict=True))
    self.settings = {name: getattr(settings, name) for name in _SIZES} | photos
    self._split, self._motion_stride, self._num_scenes = split, motion_stride, num_scenes

  def __len__(self) -> int:
    num_held_out = self._num_scenes // _PERIOD
    return num_held_out if self._split == "validation" else self._num_scenes - num_held_out

  def __getitem__(self, index: SupportsIndex) -> SceneRecord:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f"scene {index} of {len(self)}")
    is_held_out = self._split == "validation"
    seed = _PERIOD * index + _PERIOD - 1 if is_held_out else index + index // (_PERIOD - 1)
    return SceneRecord(seed, self.settings, self._motion_stride)

  def __repr__(self) -> str:
    return f"SceneSource({self._split}, {len(self)} scenes)"

