"""A simulated world with exactly known motion: a photo, where each of its pixels goes, and the later frames.

    scene = sample_scene(7)
    scene.image                    frame 0
    scene.displacement([12.5])     where every pixel of frame 0 is at frame 12.5
    scene.frame(12.5)              the picture then, with what was hidden now in view
    scene.visible(12.5)            which pixels of frame 0 are still seen
    scene.spectral_volume(16)      the spectrum of the displacement (section 3)

A scene is a still backdrop and layers of moving things, drawn from one seed, seen by a camera. docs/simulation.md
tells of the families, their physics and its sources.
"""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from data_pipeline.synthetic import families
from data_pipeline.synthetic.camera import Camera, sample_camera
from data_pipeline.synthetic.layers import SUPERSAMPLE, Drawing
from data_pipeline.synthetic.wind import Wind
from data_pipeline.synthetic.world import World
from gid_jax.errors import UserError


class Scene:
  """One simulated scene with its exact motion.

  Args:
    seed: names the scene.
    background: [h w 3] float32, 0..255.
    world: the layers, back to front, and the wind.
    num_frames: T.
    fps: frames per second.
    camera: turns light into pictures; None keeps the colours as they are.
    families: what is in it.

  Attributes:
    image: [h w 3] uint8, frame 0.
    layer_ids: [h w] int32, the front-most part at frame 0, 0 the background.
  """

  def __init__(
    self,
    seed: int,
    background: np.ndarray,
    world: World,
    *,
    num_frames: int,
    fps: float,
    camera: Camera | None,
    families: Sequence[str] = (),
  ):
    self.seed, self.num_frames, self.fps = seed, num_frames, fps
    self.families = tuple(families)
    self._background, self._layers, self._wind, self._camera = background, world.layers, world.wind, camera
    self._light = world.light
    self._shape = background.shape[:2]
    self.image = self.frame(0.0)
    self.layer_ids = self.parts(0.0)
    self._collect_motion()

  def frame(self, time: float) -> np.ndarray:
    """Renders the picture at `time` in frames: [h w 3] uint8 RGB."""
    canvas, courses = self._background.copy(), self._wind.courses(np.array([time]))[0]
    for layer in self._layers:
      drawing = layer.draw(courses)
      if layer.shadow:
        _cast_shadow(canvas, drawing, layer.shadow, self._light)
      part = canvas[drawing.where]
      part *= 1 - drawing.rgba[..., 3:] / 255
      part += drawing.rgba[..., :3]
    return self._expose(canvas, time)

  def backdrop(self) -> np.ndarray:
    """What stands behind all layers, as the camera would see it at frame 0: [h w 3] uint8 RGB."""
    return self._expose(self._background, 0.0)

  def parts(self, time: float) -> np.ndarray:
    """The front-most part at each pixel's centre at `time` in frames: [h w] int32, 0 the backdrop."""
    return self._draw_parts(time)[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE].copy()

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

    Channels (Re x, Re y, Im x, Im y), pixels.

    Raises:
      UserError: T frames do not have so many bands.
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

  def visible(self, time: float, *, wholly: bool = False) -> np.ndarray:
    """Whether each pixel of frame 0 is still seen at `time` in frames: [h w] bool.

    A pixel shows what is at its centre. With `wholly` only pixels count that one part fills at both times, whose
    colour is therefore not mixed with another part's.
    """
    h, w = self._shape
    parts, there = self._draw_parts(time), self.displacement([time])[0]
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    x, y = x + there[..., 0], y + there[..., 1]
    inside = (x > -0.5) & (x < w - 0.5) & (y > -0.5) & (y < h - 0.5)
    column = np.clip(np.round(x * SUPERSAMPLE + SUPERSAMPLE // 2).astype(int), 1, parts.shape[1] - 2)
    row = np.clip(np.round(y * SUPERSAMPLE + SUPERSAMPLE // 2).astype(int), 1, parts.shape[0] - 2)
    seen = inside & (parts[row, column] == self.layer_ids)
    if wholly:
      at_rest = self._draw_parts(0.0).reshape(h, SUPERSAMPLE, w, SUPERSAMPLE)
      seen &= (at_rest == self.layer_ids[:, None, :, None]).all((1, 3))
      for i, j in itertools.product((-1, 0, 1), repeat=2):
        seen &= parts[row + i, column + j] == self.layer_ids
    return seen

  def _expose(self, canvas: np.ndarray, time: float) -> np.ndarray:
    if self._camera is None:
      return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return self._camera.expose(canvas, time)

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
    rest = self._wind.courses(np.zeros(1))[0]
    for layer in self._layers:
      place, vectors, index = layer.motion(self.layer_ids, rest)
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


def _cast_shadow(canvas: np.ndarray, drawing: Drawing, strength: float, light: float) -> None:
  """Darkens [h w 3] in place, softly, below a layer and beside it: where it keeps `World.light` from what is behind."""
  h, w = canvas.shape[:2]
  alpha = np.zeros((h, w), np.float32)
  alpha[drawing.where] = drawing.rgba[..., 3]
  small = cv2.resize(alpha, (max(w // 4, 1), max(h // 4, 1)), interpolation=cv2.INTER_AREA)
  small = cv2.GaussianBlur(small, (0, 0), 0.006 * w)
  move = np.array([[1, 0, -0.004 * w * np.sign(light)], [0, 1, 0.006 * w]])
  small = cv2.warpAffine(small, move, small.shape[::-1])
  canvas *= 1 - strength / 255 * cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)[..., None]


def check_size(caller: str, height: int, width: int, num_frames: int) -> None:
  """Refuses scenes too small to hold anything.

  Raises:
    UserError: a picture under 16 px or fewer than 2 frames.
  """
  if min(height, width) < 16 or num_frames < 2:
    raise UserError(
      f"{caller}: {height}x{width} px and {num_frames} frames asked; give at least 16x16 px and 2 frames."
    )


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
  """Draws one scene, the same for the same arguments.

  Args:
    seed: names the scene.
    height, width: of the picture in pixels.
    num_frames: T, the window of its spectral volume.
    fps: frames per second.
    backgrounds: photos [h w 3] uint8 RGB to stand behind; without them all is painted.
    sprites: cut-outs [h w 4] uint8 RGBA, straight alpha, to stand among drawn things.

  Raises:
    UserError: a picture under 16 px or fewer than 2 frames.
  """
  check_size("sample_scene", height, width, num_frames)
  rng = np.random.default_rng(seed)
  setting, metres = families.draw_setting(rng)
  wind = Wind(rng, num_frames=num_frames, fps=fps, width=width)
  world = World(rng, wind, (height, width), metres=metres)
  background = families.paint_for_setting(rng, height, width, backgrounds, setting, side=np.sign(world.light))
  found = families.compose(world, setting, sprites)
  return Scene(
    seed, background, world, num_frames=num_frames, fps=fps, camera=sample_camera(rng), families=found
  )  # fmt: skip
