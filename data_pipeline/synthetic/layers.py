"""Layers of a simulated scene: many small ribbons, or one picture on a smooth deformation.

Both kinds draw themselves at any time, say which part is seen where, and know the exact displacement basis of the
pixels that they show at rest. Coordinates are (x, y) pixels, +y down, integer pixel centres; colours are RGB
0..255; alpha is premultiplied.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

SUPERSAMPLE = 3  # odd, so that one sub-pixel lies on each pixel centre
FIXED_POINT = 4  # fractional bits of polygon corners
NO_MAP = np.empty(0, np.float32)  # where OpenCV wants a second map and the first one holds x and y


class Motion(NamedTuple):
  """The pixels at rest that a layer shows and moves: its displacement there is the sum of courses times vectors.

  Attributes:
    places: [n 2] (row, column).
    vectors: [n m 2] pixels.
    index: [n m] courses; course 0 is always zero.
  """

  places: np.ndarray
  vectors: np.ndarray
  index: np.ndarray


class Drawing(NamedTuple):
  """What a layer looks like at one time.

  Attributes:
    where: rows and columns of the picture that it covers.
    rgba: [h w 4] float32, premultiplied, 0..255.
  """

  where: tuple[slice, slice]
  rgba: np.ndarray


class Strips:
  """A layer of many small ribbons (blades, leaves, petals), drawn as anti-aliased textured quads, back to front.

  Args:
    shape: (h, w) of the picture.
    textures: [n length width 3] factors of the ribbons' colours.
    blur: standard deviation in pixels of the softness of the whole layer.
    shadow: how dark its shadow on what lies behind is, 0..1.

  Attributes:
    parts: [faces] part id of every quad, back to front; from `finish` on.
  """

  def __init__(self, shape: tuple[int, int], textures: np.ndarray, *, blur: float, shadow: float = 0.0):
    self.shape, self.textures, self.blur, self.shadow = shape, textures, blur, shadow
    self._ribbons: list[tuple] = []
    self._latest: tuple[np.ndarray, np.ndarray] | None = None

  def add(self, points, basis, index, colors, parts, order, *, texture: int) -> None:
    """Adds r ribbons of n segments each.

    Args:
      points: [r n+1 3 2] pixels: left edge, middle and right edge at every node.
      basis: [r n+1 3 m 2] displacement of each point per course, pixels.
      index: [r m] courses.
      colors: [r n 2 3] of the left and right quads, 0..255.
      parts: [r] ids of the things they belong to.
      order: [r]; a ribbon with a higher one is in front, of equals the one added later.
      texture: number of the one laid along all of them.
    """
    self._ribbons.append((points, basis, np.asarray(index, int), colors, parts, order, texture))

  def finish(self) -> "Strips":
    """Joins the ribbons into arrays; call once after the last `add`."""
    terms = max(index.shape[-1] for _, _, index, *_ in self._ribbons)
    joined = [[] for _ in range(8)]
    first = 0
    for points, basis, index, colors, parts, order, texture in self._ribbons:
      num, rows, m = len(points), points.shape[1], index.shape[-1]
      n, corners = rows - 1, num * rows * 3
      padded = np.zeros((corners, terms, 2), np.float32)
      padded[:, :m] = basis.reshape(corners, m, 2)
      courses = np.pad(index, ((0, 0), (0, terms - m)))
      start = first + 3 * rows * np.arange(num)[:, None, None, None] + 3 * np.arange(n)[:, None, None]
      place = np.empty((n, 2, 4))  # of a quad's middle along and across the texture, and its size there
      place[..., 0], place[..., 1] = (np.arange(n)[:, None] + 0.5) / n, [0.25, 0.75]
      place[..., 2:] = 1 / n, 0.5
      faces = (start + np.array([[0, 1, 4, 3], [1, 2, 5, 4]])).reshape(-1, 4)
      columns = (points.reshape(-1, 2), padded, np.repeat(courses, 3 * rows, 0), faces, colors.reshape(-1, 3),
                 np.repeat(np.stack([parts, np.full(num, texture)], -1), 2 * n, 0),
                 np.tile(place.reshape(-1, 4), (num, 1)), np.repeat(order, 2 * n))  # fmt: skip
      for column, values in zip(joined, columns, strict=True):
        column.append(values)
      first += corners
    self._points, self._basis, self._index, faces, colors, ids, places, order = map(np.concatenate, joined)
    ranks = np.argsort(order, kind="stable")
    self._faces, self._colors, self._places = faces[ranks], colors[ranks], places[ranks]
    self.parts, self._texture = ids[ranks].T.copy()
    self._ribbons.clear()
    return self

  def _corners(self, courses: np.ndarray) -> np.ndarray:
    """Where the corners of every face are [faces 4 2], sub-pixels."""
    moved = self._points + np.einsum("vm,vmc->vc", courses[self._index], self._basis)
    return (moved * SUPERSAMPLE + (SUPERSAMPLE - 1) / 2)[self._faces]

  def _fill_faces(self, courses: np.ndarray) -> np.ndarray:
    """Front-most face + 1 of every sub-pixel, 0 where empty: [3h 3w] int32. The latest time is remembered."""
    if self._latest is None or not np.array_equal(self._latest[0], courses):
      h, w = self.shape
      canvas = np.zeros((h * SUPERSAMPLE, w * SUPERSAMPLE), np.int32)
      fixed = np.round(self._corners(courses) * 2**FIXED_POINT).astype(np.int32)
      for face, polygon in enumerate(fixed, 1):
        cv2.fillConvexPoly(canvas, polygon, face, cv2.LINE_8, FIXED_POINT)
      self._latest = courses, canvas
    return self._latest[1]

  def draw(self, courses: np.ndarray) -> Drawing:
    """Draws the layer at the time of `courses` [num_courses]."""
    h, w = self.shape
    corners = self._corners(courses)
    faces = self._fill_faces(courses).ravel()
    covered = np.flatnonzero(faces)
    face = faces[covered] - 1
    local = (self._places[:, 2:, None] * _invert_quads(corners)).astype(np.float32)
    local[..., 0] += self._places[:, :2]
    table = local.reshape(-1, 6)[face]
    row, column = np.divmod(covered, w * SUPERSAMPLE)
    _, length, width, _ = self.textures.shape
    texel = self._texture[face] * (length * width)
    for i, size in enumerate((length, width)):
      value = table[:, 3 * i] + table[:, 3 * i + 1] * column + table[:, 3 * i + 2] * row
      texel += np.clip(value * size, 0, size - 1).astype(np.int64) * (width if i == 0 else 1)
    rgba = np.zeros((len(faces), 4), np.uint8)
    color = self._colors.astype(np.float32)[face] * self.textures.reshape(-1, 3)[texel]
    rgba[covered, :3] = np.clip(color, 0, 255)
    rgba[covered, 3] = 255
    rgba = cv2.resize(rgba.reshape(h * SUPERSAMPLE, w * SUPERSAMPLE, 4), (w, h), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(rgba.astype(np.float32), (0, 0), self.blur)
    return Drawing((slice(0, h), slice(0, w)), soft)

  def draw_parts(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Writes part ids over `canvas` [3h 3w] int32 in place, at the time of `courses`."""
    faces = self._fill_faces(courses)
    shown = faces > 0
    canvas[shown] = self.parts[faces[shown] - 1]

  def motion(self, layer_ids: np.ndarray, rest: np.ndarray) -> Motion:
    """The motion of the pixels where the front-most part `layer_ids` [h w] at the courses `rest` is of this layer.

    A face moves by the affine map that fits its four corners best; ribbons are cut finely enough for that to differ
    from the corners by a few hundredths of a pixel.
    """
    corners = self._corners(rest)
    centre = SUPERSAMPLE // 2
    faces = self._fill_faces(rest)[centre::SUPERSAMPLE, centre::SUPERSAMPLE]
    places = np.argwhere((faces > 0) & np.isin(layer_ids, self.parts))
    face = faces[tuple(places.T)] - 1
    local = np.einsum("fdk,fk->fd", _invert_quads(corners)[face], np.concatenate([
      np.ones((len(face), 1)), places[:, ::-1] * SUPERSAMPLE + centre], -1))  # fmt: skip
    a, b, c, d = np.moveaxis(self._basis[self._faces[face]], 1, 0)
    along, across = (d - a + c - b) / 2, (b - a + c - d) / 2
    vectors = (a + b + c + d) / 4 + local[:, 0, None, None] * along + local[:, 1, None, None] * across
    return Motion(places, vectors, self._index[self._faces[face, 0]])


def _invert_quads(corners: np.ndarray) -> np.ndarray:
  """Maps of (1, x, y) to (along, across), both in -1/2..1/2, of quads [f 4 2]: [f 2 3], zero for degenerate ones."""
  a, b, c, d = np.moveaxis(corners, 1, 0)
  along, across, centre = (d - a + c - b) / 2, (b - a + c - d) / 2, corners.mean(1)
  area = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
  inverse = np.stack([across[:, 1], -across[:, 0], -along[:, 1], along[:, 0]], -1).reshape(-1, 2, 2)
  inverse *= np.where(np.abs(area) > 0.1, 1 / np.where(area == 0, 1, area), 0)[:, None, None]
  return np.concatenate([-np.einsum("fdk,fk->fd", inverse, centre)[..., None], inverse], -1)


@dataclasses.dataclass
class Texture:
  """A layer with one picture on a smooth, invertible deformation.

  Attributes:
    shape: (h, w) of the picture.
    corner: (x, y) of the patch in the picture.
    rgba: [h w 4] uint8 premultiplied.
    basis: [m h w 2] float32, pixels, given on the whole patch including its empty margin.
    index: [m] courses.
    part: id of the thing.
    shadow: how dark its shadow on what lies behind is, 0..1.
    flicker: the course whose value is added to 1 to scale the picture's light (flames); course 0 for none.
  """

  shape: tuple[int, int]
  corner: tuple[int, int]
  rgba: np.ndarray
  basis: np.ndarray
  index: np.ndarray
  part: int
  shadow: float = 0.0
  flicker: int = 0

  def _render(self, courses: np.ndarray) -> np.ndarray:
    """The patch [h w 4] uint8 at the time of `courses`: inverts the displacement, then samples bicubically."""
    if not len(self.index) or not courses[self.index].any():
      return self.rgba
    forward = np.einsum("m,mhwc->hwc", courses[self.index].astype(np.float32), self.basis)
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in forward.shape[1::-1])), -1)
    source = grid - forward
    for _ in range(10):  # p = q - d(p) contracts: |grad d| < 1
      source = grid - cv2.remap(forward, source, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.remap(self.rgba, source, NO_MAP, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)

  def _windows(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the picture and of the patch that cover each other."""
    picture, patch = [], []
    for start, size, limit in zip(self.corner[::-1], self.rgba.shape[:2], self.shape, strict=True):
      low = min(max(start, 0), limit)
      high = max(min(start + size, limit), low)
      picture.append(slice(low, high))
      patch.append(slice(low - start, high - start))
    return (picture[0], picture[1]), (patch[0], patch[1])

  def draw(self, courses: np.ndarray) -> Drawing:
    """Draws the layer at the time of `courses` [num_courses]."""
    picture, patch = self._windows()
    rgba = self._render(courses)[patch].astype(np.float32)
    rgba[..., :3] *= 1 + courses[self.flicker]
    return Drawing(picture, rgba)

  def draw_parts(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Writes the part id over `canvas` [3h 3w] int32 in place where alpha is above a half."""
    picture, patch = self._windows()
    solid = self._render(courses)[patch][..., 3] > 127
    fine = np.repeat(np.repeat(solid, SUPERSAMPLE, 0), SUPERSAMPLE, 1)
    rows, columns = (slice(s.start * SUPERSAMPLE, s.stop * SUPERSAMPLE) for s in picture)
    canvas[rows, columns][fine] = self.part

  def motion(self, layer_ids: np.ndarray, rest: np.ndarray) -> Motion:
    """The motion of the pixels where the front-most part `layer_ids` [h w] at the courses `rest` is this one."""
    del rest  # Its basis is given for every pixel.
    places = np.argwhere(layer_ids == self.part)
    inside = self.basis[:, places[:, 0] - self.corner[1], places[:, 1] - self.corner[0]]
    return Motion(places, np.moveaxis(inside, 0, 1), np.tile(self.index, (len(places), 1)))
