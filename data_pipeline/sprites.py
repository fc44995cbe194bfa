"""What simulated scenes are made of: a wind, stems that bend in it, and layers of ribbons or textures.

Every displacement here is a sum of fixed vector fields, each times a function of time alone ("course"), so it is
exact at every time for every pixel. From one oscillator angle or amplitude `a(t)`, with `D = a(t) - a(0)`, four
courses are made: D, sin D, cos D - 1 and D**2; all are zero at frame 0, where the picture is at rest. Rotations
(sin, cos - 1) and length-preserving bending (D, D**2) are therefore exact to the order written below.

Coordinates are (x, y) pixels, +y down, integer pixel centres; colours are RGB 0..255; alpha is premultiplied.
"""

import dataclasses

import cv2
import numpy as np

LINEAR, SINE, COSINE, SQUARE = range(4)
SUPERSAMPLE = 3  # odd, so that one sub-pixel lies on each pixel centre
FIXED_POINT = 4  # fractional bits of polygon corners
NUM_BANDS = 24  # more than any model keeps, so that truncating a spectrum loses something
MESH_TERMS = 5  # bending, its square, second bending mode, own rotation (sine and cosine)


def rotate90(vectors: np.ndarray) -> np.ndarray:
  """Turns [... 2] vectors a quarter turn, (x, y) -> (-y, x), in pixels."""
  return np.stack([-vectors[..., 1], vectors[..., 0]], -1)


class Wind:
  """Random time courses of damped oscillators in one shared, gusty wind (driven form of section 7).

  Args: rng; num_frames and fps of the window; width of the picture in pixels. Half of the scenes are exactly
  periodic over the window, the others use frequencies between the bands; a few die away as after a poke.
  """

  def __init__(self, rng: np.random.Generator, *, num_frames: int, fps: float, width: int):
    self.rng, self.num_frames = rng, num_frames
    cycles = np.arange(1, NUM_BANDS + 1, dtype=np.float64)
    if rng.random() < 0.5:
      cycles = cycles + rng.uniform(-0.5, 0.5, NUM_BANDS)
    self.cycles, self.hz = cycles, cycles * fps / num_frames
    self.gust = self._noise()
    self.coherence = rng.uniform(0.4, 0.95)
    self.delay = rng.uniform(-1.2, 1.2) / width  # seconds a gust takes per pixel
    self.decay = rng.uniform(1.0, 3.0) if rng.random() < 0.15 else 0.0
    self.coefficients: list[np.ndarray] = []

  def _noise(self) -> np.ndarray:
    noise = self.rng.normal(size=NUM_BANDS) + 1j * self.rng.normal(size=NUM_BANDS)
    return noise * self.hz**-0.8

  def add_driver(self, hz: float, *, x: float, scale: float) -> int:
    """Adds an oscillator of natural frequency `hz` standing at column `x`; returns its number.

    `scale` is about the largest |D| it reaches, in radians or pixels as its user reads it.
    """
    q = self.rng.uniform(1.5, 6.0)
    response = hz**2 / (hz**2 - self.hz**2 + 1j * hz * self.hz / q)
    shared = self.gust * np.exp(-2j * np.pi * self.hz * self.delay * x)
    force = self.coherence * shared + np.sqrt(1 - self.coherence**2) * self._noise()
    c = force * response
    self.coefficients.append(c * (0.33 * scale / max(np.sqrt(0.5 * np.sum(np.abs(c) ** 2)), 1e-9)))
    return len(self.coefficients) - 1

  def add_quadrature(self, driver: int) -> int:
    """Adds the course a quarter cycle behind `driver`: the pair carries a travelling wave."""
    self.coefficients.append(-1j * self.coefficients[driver])
    return len(self.coefficients) - 1

  def courses(self, times: np.ndarray) -> np.ndarray:
    """Evaluates all courses at `times` [n] in frames: [n 1 + 4 drivers] float64; column 0 is zero."""
    times = np.asarray(times, np.float64)
    if not self.coefficients:
      return np.zeros((len(times), 1))
    at = np.concatenate([[0.0], times]) / self.num_frames
    waves = np.exp(2j * np.pi * at[:, None] * self.cycles - self.decay * at[:, None])
    amplitude = np.einsum("tj,cj->tc", waves, np.stack(self.coefficients)).real
    d = amplitude[1:] - amplitude[:1]
    four = np.stack([d, np.sin(d), np.cos(d) - 1, d**2], -1).reshape(len(d), -1)
    return np.concatenate([np.zeros((len(d), 1)), four], 1)


def course_index(driver: int, kind: int) -> int:
  """Column of `Wind.courses` with this driver's LINEAR, SINE, COSINE or SQUARE course."""
  return 1 + 4 * driver + kind


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


class Stem:
  """A cantilever along `nodes` [n+1 2], root first, that bends in two modes; things may ride on its nodes.

  The first mode turns the tangent at arc u in [0, 1] by `D * slope(u)`, exact to second order in D (length is
  kept to that order); the second mode, an order of magnitude smaller, to first order. `reach` is the tip's
  travel in pixels.
  """

  def __init__(self, wind: Wind, nodes: np.ndarray, *, reach: float, hz: float):
    self.nodes = nodes
    n = len(nodes) - 1
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1).sum()
    scale = min(1.5 * reach / length, 0.6)
    first = wind.add_driver(hz, x=nodes[0, 0], scale=scale)
    second = wind.add_driver(2.6 * hz, x=nodes[0, 0], scale=0.15 * scale)
    self.index = np.array([course_index(first, LINEAR), course_index(first, SQUARE), course_index(second, LINEAR)])
    u = np.arange(n + 1) / n
    self.slope, self.slope2 = u * (2 - u), np.sin(1.5 * np.pi * u) * u
    mid = (u[1:] + u[:-1])[:, None] / 2
    step = np.diff(nodes, axis=0)
    turn = mid * (2 - mid)
    travel = [turn * rotate90(step), -(turn**2) / 2 * step, np.sin(1.5 * np.pi * mid) * mid * rotate90(step)]
    self.travel = np.pad(np.cumsum(np.stack(travel, 1), 0), ((1, 0), (0, 0), (0, 0)))

  def carry(self, points: np.ndarray, node: np.ndarray | int) -> np.ndarray:
    """Displacement basis [... 3 2] of `points` [... 2] that ride rigidly on `node` (number or array [...])."""
    offset = points - self.nodes[node]
    slope, slope2 = self.slope[node], self.slope2[node]
    slope, slope2 = np.asarray(slope)[..., None], np.asarray(slope2)[..., None]
    turned = [slope * rotate90(offset), -(slope**2) / 2 * offset, slope2 * rotate90(offset)]
    return self.travel[node] + np.stack(turned, -2)


def make_ribbon(nodes: np.ndarray, half_widths: np.ndarray) -> np.ndarray:
  """Points [n+1 3 2] (left, middle, right) of a ribbon along `nodes` [n+1 2] with `half_widths` [n+1], pixels."""
  tangent = np.gradient(nodes, axis=0)
  tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
  side = rotate90(tangent) * half_widths[:, None]
  return np.stack([nodes - side, nodes, nodes + side], 1)


def make_curve(root, *, angle: float, curl: float, length: float, num: int) -> np.ndarray:
  """Nodes [num+1 2] of a curve from `root` that starts at `angle` (radians, 0 = +x) and turns by `curl`."""
  theta = angle + curl * (np.arange(num) + 0.5) / num
  steps = np.stack([np.cos(theta), np.sin(theta)], -1) * (length / num)
  return np.concatenate([[root], np.asarray(root) + np.cumsum(steps, 0)])


def shade_ribbon(rng: np.random.Generator, color, num: int, *, light: float, dark: float, vein=0.06):
  """Colours [num 2 3]: darker by `dark` at the root, lit from one side by `light`, streaked along its length."""
  along = (1 - dark * (1 - np.arange(num) / max(num - 1, 1)))[:, None, None]
  sides = np.array([1 + light, 1 - light])[None, :, None]
  return np.asarray(color) * along * sides * (1 + vein * rng.normal(size=(num, 2, 1)))


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, coarsest: int = 4, octaves: int = 5):
  """Fractal noise [h w] float32 of about unit deviation: octaves of upsampled random grids."""
  out = np.zeros((height, width), np.float32)
  for octave in range(octaves):
    cells = min(coarsest * 2**octave, max(height, width))
    grid = rng.normal(size=(max(2, cells * height // width + 1), max(2, cells))).astype(np.float32)
    out += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
  return out / (out.std() + 1e-6)
