"""A simulated world with exactly known motion: a photo, where each of its pixels goes, and the later frames.

    scene = sample_scene(7)
    scene.image                    frame 0
    scene.displacement([12.5])     where every pixel of frame 0 is at frame 12.5
    scene.frame(12.5)              the picture then, with what was hidden now in view
    scene.spectral_volume(16)      the spectrum of the displacement (section 3)

A scene is a still background and layers of moving things (`plants.py`, `props.py`) made of ribbons and
textures (`sprites.py`), all drawn from one seed.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from data_pipeline.synthetic import plants, props
from data_pipeline.synthetic.backdrops import crop_photo, paint_backdrop
from data_pipeline.synthetic.camera import sample_tone
from data_pipeline.synthetic.layers import SUPERSAMPLE, Strips
from data_pipeline.synthetic.wind import Wind
from data_pipeline.synthetic.world import World
from gid_jax.errors import UserError


class Scene:
  """One simulated scene with its exact motion.

  Args: seed (names the scene); background [h w 3] float32; world (layers back to front, wind); num_frames T;
  fps; tone [256 1 3] uint8, the camera's response, the same for all frames.
  Attributes: image [h w 3] uint8; layer_ids [h w] int32, the front-most part at frame 0, 0 the background.
  """

  def __init__(self, seed: int, background, world: World, *, num_frames: int, fps: float, tone):
    self.seed, self.num_frames, self.fps = seed, num_frames, fps
    self._background, self._layers, self._wind, self._tone = background, world.layers, world.wind, tone
    self._shape = background.shape[:2]
    self.image = self.frame(0.0)
    self.layer_ids = self._draw_parts(0.0)[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE].copy()
    self._collect_motion()

  def frame(self, time: float) -> np.ndarray:
    """Renders the picture at `time` in frames: [h w 3] uint8 RGB."""
    canvas, courses = self._background.copy(), self._wind.courses(np.array([time]))[0]
    for layer in self._layers:
      layer.composite(canvas, courses)
    return cv2.LUT(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), self._tone)

  def displacement(self, times) -> np.ndarray:
    """Displacement of every pixel of frame 0 at `times` [n] in frames: [n h w 2] float32 pixels.

    Zero at time 0. A pixel that is hidden or out of the picture keeps following what it shows.
    """
    courses = self._wind.courses(np.atleast_1d(times))
    moved = self._combine(courses)
    out = np.zeros((len(courses), *self._shape, 2), np.float32)
    out[:, self._rows, self._columns] = moved
    return out

  def spectral_volume(self, num_bands: int) -> np.ndarray:
    """Lowest `num_bands` coefficients of the displacement (eq. 2): [k h w 4] float32, unnormalised rfft over T.

    Channels (Re x, Re y, Im x, Im y), pixels. Raises UserError when T frames do not have so many bands.
    """
    if not 1 <= num_bands <= self.num_frames // 2 + 1:
      raise UserError(
        f"spectral_volume: {num_bands} bands asked, but {self.num_frames} frames have 1 to "
        f"{self.num_frames // 2 + 1}; lower num_bands or raise num_frames."
      )
    courses = np.fft.rfft(self._wind.courses(np.arange(self.num_frames)), axis=0)[:num_bands]
    out = np.zeros((num_bands, *self._shape, 4), np.float32)
    out[:, self._rows, self._columns, :2] = self._combine(courses.real)
    out[:, self._rows, self._columns, 2:] = self._combine(courses.imag)
    return out

  def mean_magnitude(self) -> np.ndarray:
    """Mean length of the displacement over the T frames: [h w] float32 pixels (W in section 5)."""
    moved = self._combine(self._wind.courses(np.arange(self.num_frames)))
    out = np.zeros(self._shape, np.float32)
    out[self._rows, self._columns] = np.sqrt(np.einsum("npc,npc->np", moved, moved)).mean(0)
    return out

  def visible(self, time: float) -> np.ndarray:
    """Whether each pixel of frame 0 is still seen at `time` in frames: [h w] bool."""
    h, w = self._shape
    parts, there = self._draw_parts(time), self.displacement([time])[0]
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    x, y = x + there[..., 0], y + there[..., 1]
    inside = (x > -0.5) & (x < w - 0.5) & (y > -0.5) & (y < h - 0.5)
    column = np.clip(np.round(x * SUPERSAMPLE + SUPERSAMPLE // 2).astype(int), 0, parts.shape[1] - 1)
    row = np.clip(np.round(y * SUPERSAMPLE + SUPERSAMPLE // 2).astype(int), 0, parts.shape[0] - 1)
    return inside & (parts[row, column] == self.layer_ids)

  def _draw_parts(self, time: float) -> np.ndarray:
    fine = np.zeros((self._shape[0] * SUPERSAMPLE, self._shape[1] * SUPERSAMPLE), np.int32)
    courses = self._wind.courses(np.array([time]))[0]
    for layer in self._layers:
      layer.draw_parts(fine, courses)
    return fine

  def _collect_motion(self) -> None:
    """Finds the pixels that can move, sorted into groups that share their courses.

    A group is (courses [m], vectors [m 2n]); one small product then moves its n pixels (by einsum, since BLAS
    would start threads that fight over the cores of a busy data builder).
    """
    self._groups, places = [], [np.zeros((0, 2), int)]
    for layer in self._layers:
      if isinstance(layer, Strips):
        faces = layer.face_ids()
        place = np.argwhere((faces > 0) & np.isin(self.layer_ids, layer.parts))
        vectors, index = layer.pixel_basis(place[:, 0], place[:, 1], faces[tuple(place.T)] - 1)
      else:
        place = np.argwhere(self.layer_ids == layer.part)
        inside = layer.basis[:, place[:, 0] - layer.corner[1], place[:, 1] - layer.corner[0]]
        vectors, index = np.moveaxis(inside, 0, 1), np.tile(layer.index, (len(place), 1))
      if not index.size:
        continue
      rows, group = np.unique(index, axis=0, return_inverse=True)
      for number, row in enumerate(rows):
        members = np.flatnonzero(group.ravel() == number)
        used = row > 0
        stacked = np.moveaxis(vectors[members][:, used], 1, 0).reshape(used.sum(), -1)
        self._groups.append((row[used], stacked.astype(np.float32)))
        places.append(place[members])
    self._rows, self._columns = np.concatenate(places).T

  def _combine(self, courses: np.ndarray) -> np.ndarray:
    """Sums courses [n c] times each moving pixel's vectors: [n pixels 2] float32."""
    out, start = np.zeros((len(courses), 2 * len(self._rows)), np.float32), 0
    for index, vectors in self._groups:
      out[:, start : start + vectors.shape[1]] = np.einsum("nm,mp->np", courses[:, index].astype(np.float32), vectors)
      start += vectors.shape[1]
    return out.reshape(len(courses), -1, 2)


def sample_scene(
  seed: int,
  *,
  height: int = 160,
  width: int = 256,
  num_frames: int = 150,
  fps: float = 30.0,
  backgrounds: Sequence[np.ndarray] = (),
  sprites: Sequence[np.ndarray] = (),
) -> Scene:
  """Draws one scene of height x width pixels and `num_frames` frames at `fps`, the same for the same arguments.

  backgrounds: photos [h w 3] uint8 RGB; sprites: cut-outs [h w 4] uint8 RGBA, straight alpha. Without them
  background and things are all procedural. Raises UserError for a picture under 16 px or fewer than 2 frames.
  """
  if min(height, width) < 16 or num_frames < 2:
    raise UserError(
      f"sample_scene: {height}x{width} px and {num_frames} frames asked; give at least 16x16 px and 2 frames."
    )
  rng = np.random.default_rng(seed)
  wind = Wind(rng, num_frames=num_frames, fps=fps, width=width)
  world = World(rng, wind, (height, width))
  photo = backgrounds[rng.integers(len(backgrounds))] if len(backgrounds) and rng.random() < 0.8 else None
  background = crop_photo(rng, photo, height, width) if photo is not None else paint_backdrop(rng, height, width)
  still = rng.random() < 0.17
  if still:
    if rng.random() < 0.5:
      _add_thing(world, small=True)
  else:
    for _ in range(rng.choice([1, 2, 3, 4], p=[0.15, 0.3, 0.3, 0.25])):
      if len(sprites) and rng.random() < 0.35:
        sprite = sprites[rng.integers(len(sprites))]
        for _ in range(rng.choice([1, 1, 2, 4])):
          props.add_sprite(world, sprite)
      else:
        _add_thing(world, small=False)
  for _ in range(rng.choice([0, 1, 2], p=[0.75, 0.17, 0.08]) if not still else rng.integers(0, 3)):
    if rng.random() < 0.6:
      props.add_rock(world)
    else:
      props.add_pole(world, int(rng.uniform(0.05, 0.95) * width), int(rng.uniform(-0.2, 0.5) * height))
  return Scene(seed, background, world, num_frames=num_frames, fps=fps, tone=sample_tone(rng))


def _add_thing(world: World, *, small: bool) -> None:
  rng, width = world.rng, world.shape[1]
  kind = rng.choice(
    ["grass", "flowers", "closeup", "branches", "cloth", "ornament"], p=[0.27, 0.2, 0.13, 0.2, 0.1, 0.1]
  )
  if kind == "grass":
    plants.add_grass(world, amount=0.1 if small else rng.random() ** 0.7)
  elif kind == "flowers" or (kind == "closeup" and small):
    plants.add_flowers(world, size=rng.uniform(0.03, 0.15) * width, count=1 if small else int(rng.integers(2, 16)))
  elif kind == "closeup":
    plants.add_flowers(world, size=rng.uniform(0.25, 0.6) * width, count=int(rng.integers(1, 4)))
  elif kind == "branches":
    leaf = np.exp(rng.uniform(np.log(0.025), np.log(0.13))) * width
    plants.add_branches(world, count=1 if small else int(rng.integers(1, 9)), leaf=leaf)
  elif kind == "cloth":
    props.add_cloth(world)
  else:
    props.add_ornament(world)
