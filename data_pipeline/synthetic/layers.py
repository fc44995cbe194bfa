"""Layers of a simulated scene: many small ribbons, or one picture on a smooth deformation.

Coordinates are (x, y) pixels, +y down, integer pixel centres; colours are RGB 0..255; alpha is premultiplied.
"""

import dataclasses

import cv2
import numpy as np

SUPERSAMPLE = 3  # odd, so that one sub-pixel lies on each pixel centre
FIXED_POINT = 4  # fractional bits of polygon corners
MESH_TERMS = 5  # bending, its square, second bending mode, own rotation (sine and cosine)


class Strips:
  """A layer of many small ribbons (blades, leaves, petals), drawn as anti-aliased quads in the order added.

  Args: shape (h, w) of the picture; blur: standard deviation in pixels of the softness of the whole layer.
  """

  def __init__(self, shape: tuple[int, int], *, blur: float):
    self.shape, self.blur = shape, blur
    self._points, self._basis, self._index, self._faces, self._colors, self._parts = [], [], [], [], [], []
    self._count = 0

  def add(self, points, basis, index, colors, part: int) -> None:
    """Adds one ribbon.

    points [n+1 3 2]: left edge, middle, right edge; basis [n+1 3 m 2] displacement of each point per course;
    index [m] courses, m <= 5; colors [n 2 3] of the left and right quads; part: id of the thing it belongs to.
    """
    n, m = len(points) - 1, len(index)
    padded = np.zeros((3 * n + 3, MESH_TERMS, 2))
    padded[:, :m] = basis.reshape(-1, m, 2)
    corner = self._count + 3 * np.arange(n)[:, None, None] + np.array([[0, 1, 4, 3], [1, 2, 5, 4]])
    self._points.append(points.reshape(-1, 2))
    self._basis.append(padded)
    self._index.append(np.tile(np.pad(index, (0, MESH_TERMS - m)), (3 * n + 3, 1)))
    self._faces.append(corner.reshape(-1, 4))
    self._colors.append(np.clip(colors, 0, 255).reshape(-1, 3))
    self._parts.append(np.full(2 * n, part))
    self._count += 3 * n + 3

  def finish(self) -> "Strips":
    """Joins the ribbons into arrays; call once after the last `add`."""
    self.points, self.basis = np.concatenate(self._points), np.concatenate(self._basis)
    self.index, self.faces = np.concatenate(self._index), np.concatenate(self._faces)
    self.parts = np.concatenate(self._parts)
    colors = np.concatenate(self._colors).round().astype(int)
    self.colors = [(*c, 255) for c in colors.tolist()]
    return self

  def _corners(self, courses: np.ndarray) -> np.ndarray:
    moved = self.points + np.einsum("vm,vmc->vc", courses[self.index], self.basis)
    fine = moved * SUPERSAMPLE + (SUPERSAMPLE - 1) / 2
    return np.round(fine[self.faces] * 2**FIXED_POINT).astype(np.int32)

  def _fill(self, canvas: np.ndarray, courses: np.ndarray, values) -> np.ndarray:
    for corners, value in zip(self._corners(courses), values, strict=True):
      cv2.fillConvexPoly(canvas, corners, value, cv2.LINE_8, FIXED_POINT)
    return canvas

  def composite(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Draws the layer, at the time of `courses` [num_courses], over `canvas` [h w 3] float32 in place."""
    h, w = self.shape
    fine = self._fill(np.zeros((h * SUPERSAMPLE, w * SUPERSAMPLE, 4), np.uint8), courses, self.colors)
    rgba = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    rgba = cv2.GaussianBlur(rgba, (0, 0), self.blur)
    canvas *= 1 - rgba[..., 3:] / 255
    canvas += rgba[..., :3]

  def draw_parts(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Writes part ids over `canvas` [3h 3w] int32 in place, at the time of `courses`."""
    self._fill(canvas, courses, self.parts.tolist())

  def pixel_basis(self, rows: np.ndarray, columns: np.ndarray, faces: np.ndarray):
    """Basis [n m 2] and courses [n m] of the rest pixels (rows, columns) [n] that lie on `faces` [n].

    A face moves by the affine map that fits its four corners best; blades are cut finely enough for that to
    differ from the corners by a few hundredths of a pixel.
    """
    used, inverse = np.unique(faces, return_inverse=True)
    corners = self.points[self.faces[used]]
    middle = corners.mean(1, keepdims=True)
    fit = np.linalg.pinv(np.concatenate([np.ones((*corners.shape[:2], 1)), corners - middle], -1), rcond=1e-3)
    affine = np.einsum("fdv,fvmc->fdmc", fit, self.basis[self.faces[used]])
    where = np.stack([np.ones(len(rows)), columns - middle[inverse, 0, 0], rows - middle[inverse, 0, 1]], -1)
    return np.einsum("nd,ndmc->nmc", where, affine[inverse]), self.index[self.faces[faces, 0]]

  def face_ids(self) -> np.ndarray:
    """Front-most face + 1 at the centre of each pixel at rest, 0 where empty: [h w] int32."""
    h, w = self.shape
    fine = np.zeros((h * SUPERSAMPLE, w * SUPERSAMPLE), np.int32)
    self._fill(fine, np.zeros(int(self.index.max()) + 1), range(1, len(self.faces) + 1))
    return fine[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE]


@dataclasses.dataclass
class Texture:
  """A layer with one picture on a smooth, invertible deformation.

  Attributes: corner (x, y) of the patch in the picture; rgba [h w 4] uint8 premultiplied; basis [m h w 2]
  float32, pixels, given on the whole patch including its empty margin; index [m] courses; part id.
  """

  corner: tuple[int, int]
  rgba: np.ndarray
  basis: np.ndarray
  index: np.ndarray
  part: int

  def render(self, courses: np.ndarray) -> np.ndarray:
    """The patch [h w 4] uint8 at the time of `courses`: inverts the displacement, then samples bicubically."""
    if not len(self.index) or not courses[self.index].any():
      return self.rgba
    forward = np.einsum("m,mhwc->hwc", courses[self.index].astype(np.float32), self.basis)
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in forward.shape[1::-1])), -1)
    source = grid - forward
    for _ in range(10):  # p = q - d(p) contracts: |grad d| < 1
      source = grid - cv2.remap(forward, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.remap(self.rgba, source, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)

  def windows(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the picture of `shape` (h, w) and of the patch that cover each other."""
    picture, patch = [], []
    for start, size, limit in zip(self.corner[::-1], self.rgba.shape[:2], shape, strict=True):
      low, high = max(start, 0), max(min(start + size, limit), max(start, 0))
      picture.append(slice(low, high))
      patch.append(slice(low - start, high - start))
    return (picture[0], picture[1]), (patch[0], patch[1])

  def composite(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Draws the layer, at the time of `courses` [num_courses], over `canvas` [h w 3] float32 in place."""
    picture, patch = self.windows(canvas.shape[:2])
    rgba = self.render(courses)[patch].astype(np.float32)
    canvas[picture] = canvas[picture] * (1 - rgba[..., 3:] / 255) + rgba[..., :3]

  def draw_parts(self, canvas: np.ndarray, courses: np.ndarray) -> None:
    """Writes the part id over `canvas` [3h 3w] int32 in place where alpha is above a half."""
    picture, patch = self.windows((canvas.shape[0] // SUPERSAMPLE, canvas.shape[1] // SUPERSAMPLE))
    solid = self.render(courses)[patch][..., 3] > 127
    fine = np.repeat(np.repeat(solid, SUPERSAMPLE, 0), SUPERSAMPLE, 1)
    rows, columns = (slice(s.start * SUPERSAMPLE, s.stop * SUPERSAMPLE) for s in picture)
    canvas[rows, columns][fine] = self.part


