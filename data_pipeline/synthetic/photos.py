"""Photographs moved by hand-made physics: pseudo-labels, since what moves in them and how is assumed.

The plants of a photo are cut into clumps. Each is a cantilever that sways in the gusty wind of the simulated world,
over a copy of the photo in which what lies behind the clumps' edges is made up from what lies beside them.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.layers import Texture
from data_pipeline.synthetic.scene import Scene, check_size
from data_pipeline.synthetic.vegetation import segment_vegetation
from data_pipeline.synthetic.wind import LINEAR, SQUARE, Wind, course_index
from data_pipeline.synthetic.world import World
from gid_jax.errors import UserError

MOST_BENT = 0.28  # reach by height, beyond which a picture looks like rubber
SURE = 0.4  # that it is a plant, for a pixel to be moved
STILL_SHARE = 0.04  # of the clumps, as trunks and thick stalks are
SMALLEST_SHARE = 0.003  # of the picture, for a clump
STEEPEST = 0.8  # gradient of a displacement below which it cannot fold
LARGEST = 1.3  # a driver's largest value in units of its scale
METRES = (0.5, 6.0)  # range of what a photo's width shows, which sets the frequencies
FLUTTER_HZ = 3.0  # the fastest; video shows little above


def move_photo(
  seed: int,
  photo: np.ndarray,
  *,
  mask: np.ndarray | None = None,
  height: int = 160,
  width: int = 256,
  num_frames: int = 150,
  fps: float = 30.0,
) -> Scene:
  """Moves the plants of a random crop of a photo in a wind: a `Scene` of source "pseudo".

  The displacement, its spectrum and the frames are exact for the scene as it is built, and frame 0 is the crop; but
  plants are guessed by `segment_vegetation` or given, and their motion is that of simulated plants of their size.

  Args:
    seed: decides the crop, the wind and the clumps.
    photo: [H W 3] uint8 RGB.
    mask: [H W] in [0, 1], how surely each pixel is of a plant that sways.
    height, width: size of the scene in pixels.
    num_frames, fps: its window.

  Raises:
    UserError: the photo is no [H W 3] uint8 array, the mask has another size, or the scene would be under 16 px or
      2 frames.
  """
  if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
    raise UserError(f"move_photo: photo is {photo.dtype} {photo.shape}; give [height, width, 3] uint8 RGB.")
  if mask is not None and mask.shape != photo.shape[:2]:
    raise UserError(f"move_photo: mask is {mask.shape}, the photo {photo.shape[:2]}; give a mask of the photo's size.")
  check_size("move_photo", height, width, num_frames)
  rng = np.random.default_rng(seed)
  window = _draw_window(rng, photo.shape[:2], (height, width))
  image = _crop(photo, window, (height, width))
  chance = segment_vegetation(image) if mask is None else _crop(mask.astype(np.float32), window, (height, width))
  wind = Wind(rng, num_frames=num_frames, fps=fps, width=width)
  metres = float(np.exp(rng.uniform(*np.log(METRES))))
  world = World(rng, wind, (height, width), metres=metres)
  background = _add_clumps(world, image, chance)
  return Scene(seed, background, world, num_frames=num_frames, fps=fps, camera=None, source="pseudo")


def _draw_window(rng: np.random.Generator, full: tuple[int, int], shape: tuple[int, int]):
  """Rows and columns of a random crop of the proportions of `shape`, mirrored in half of all draws."""
  fit = min(full[0] / shape[0], full[1] / shape[1]) * rng.uniform(0.6, 1.0)
  size = [max(1, int(n * fit)) for n in shape]
  top, left = (int(rng.integers(n - part + 1)) for n, part in zip(full, size, strict=True))
  columns = slice(left, left + size[1])
  if rng.random() < 0.5:
    columns = slice(left + size[1] - 1, left - 1 if left else None, -1)
  return slice(top, top + size[0]), columns


def _crop(image: np.ndarray, window, shape: tuple[int, int]) -> np.ndarray:
  crop = np.ascontiguousarray(image[window])
  shrinks = crop.shape[0] > shape[0]
  return cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _add_clumps(world: World, image: np.ndarray, chance: np.ndarray) -> np.ndarray:
  """Adds a layer for every clump, back to front; returns the still photo behind them: [h w 3] float32."""
  rng, (h, w) = world.rng, world.shape
  order = _split_clumps(rng, image, chance)
  wavelength = _measure_wavelength(image)
  # Clumps go on outside the picture, so that nothing empty comes in.
  pad = int(LARGEST * min(2 * world.strength * world.unit, MOST_BENT * h)) + 8
  wide = lambda x, kind: cv2.copyMakeBorder(x, pad, pad, pad, pad, kind)
  photo, order = wide(image, cv2.BORDER_REFLECT_101), wide(order, cv2.BORDER_REPLICATE)
  sure = wide(chance.astype(np.float32), cv2.BORDER_REPLICATE)
  for number in range(1, int(order.max()) + 1):
    region = (order == number).astype(np.uint8)
    reached = cv2.dilate(region, np.ones((pad | 1, pad | 1)))
    alpha = cv2.GaussianBlur((region | (reached & (order > number))).astype(np.float32), (0, 0), 0.7)
    rows, columns = (np.flatnonzero(reached.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = (255 * alpha[box]).round()[..., None]  # rounded first: rounding adds up where layers overlap
    rgba = np.concatenate([(photo[box] * (alpha / 255)).round(), alpha], -1).astype(np.uint8)
    corner = (int(columns[0]) - pad, int(rows[0]) - pad)
    basis, index = _move_clump(world, region[box] > 0, sure[box], corner, wavelength=wavelength)
    world.layers.append(Texture(world.shape, corner, rgba, basis, index, world.new_part()))
  return _fill_behind(photo, (order > 0).astype(np.uint8))[pad : pad + h, pad : pad + w].astype(np.float32)


def _split_clumps(rng: np.random.Generator, image: np.ndarray, chance: np.ndarray) -> np.ndarray:
  """Numbers the clumps 1, 2, ... back to front, 0 elsewhere: [h w] uint8.

  Each connected region is parted into pieces near in place and colour, so that their edges follow those in the photo.
  """
  h, w = chance.shape
  solid = cv2.medianBlur((chance > SURE).astype(np.uint8), 5)
  solid = _fill_holes(cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones((9, 9))))
  solid = cv2.dilate(solid, np.ones((5, 5)))  # its rim should show what is behind, or a ghost of it would stay there
  count, components, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
  color = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (0, 0), 2.0).astype(np.float32)
  cell = np.exp(rng.uniform(np.log(0.18), np.log(0.6))) * w
  clumps = []
  for component in range(1, count):
    area = statistics[component, cv2.CC_STAT_AREA]
    if area < SMALLEST_SHARE * h * w:
      continue
    rows, columns = np.nonzero(components == component)
    # Upright pieces: an edge across blades and stalks would cut them when they sway.
    place = np.stack([columns, 0.3 * rows], -1) / (0.5 * cell)
    features = np.concatenate([place, color[rows, columns] / 70], -1).astype(np.float32)
    pieces = _cluster(rng, features, int(np.clip(area / cell**2, 1, 10)))
    clumps += [(rows[pieces == piece], columns[pieces == piece]) for piece in range(pieces.max() + 1)]
  # Who has the lowest foot stands in front.
  clumps = [clump for clump in clumps if len(clump[0]) >= SMALLEST_SHARE * h * w]
  clumps.sort(key=lambda clump: float(np.percentile(clump[0], 95)))
  order = np.zeros((h, w), np.uint8)
  for number, (rows, columns) in enumerate(clumps, 1):
    order[rows, columns] = number
  return cv2.medianBlur(order, 5)


def _fill_holes(solid: np.ndarray) -> np.ndarray:
  """Fills what is empty but enclosed, as the smooth heart of a flower: [h w] uint8."""
  _, holes, statistics, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
  h, w = solid.shape
  left, top, wide, tall, _ = statistics.T
  inside = (left > 0) & (top > 0) & (left + wide < w) & (top + tall < h)
  inside[0] = False  # what is solid
  return solid | inside[holes].astype(np.uint8)


def _cluster(rng: np.random.Generator, features: np.ndarray, count: int) -> np.ndarray:
  """Parts [n c] features around `count` centres by a few steps of Lloyd's algorithm: [n] int."""
  centers = features[rng.choice(len(features), count, replace=False)]
  nearest = lambda points: np.stack([((points - center) ** 2).sum(-1) for center in centers]).argmin(0)
  some = features[::7]
  for _ in range(4):
    label = nearest(some)
    centers = [some[label == i].mean(0) if (label == i).any() else centers[i] for i in range(count)]
  return nearest(features)


def _measure_wavelength(image: np.ndarray) -> float:
  """Typical wavelength in pixels of the photo's texture: of a wave with its ratio of values to slopes."""
  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
  fine = gray - cv2.GaussianBlur(gray, (0, 0), image.shape[1] / 32)
  slope = np.hypot(cv2.Sobel(gray, -1, 1, 0, scale=1 / 8), cv2.Sobel(gray, -1, 0, 1, scale=1 / 8))
  return float(2 * np.pi * fine.std() / (slope.std() + 1e-3))


def _move_clump(world: World, region: np.ndarray, sure: np.ndarray, corner, *, wavelength: float):
  """Displacement basis [m h w 2] float32 and courses [m] of the clump that fills `region`, at `corner` (x, y).

  A cantilever from the clump's lower edge, or from its upper one if it hangs in from above the picture.
  """
  rng, (h, w), wind = world.rng, world.shape, world.wind
  rows, columns = np.nonzero(region)
  hangs = corner[1] + rows.min() <= 0 and corner[1] + rows.max() < 0.8 * h and rng.random() < 0.8
  up, tall = _measure_height(region[::-1] if hangs else region)
  if hangs:
    up, outside = up[::-1], True
  else:
    outside = corner[1] + rows.max() >= h
  if outside:  # the root is out of the picture
    root = rng.uniform(0.1, 0.5) * tall
    up, tall = up + root, tall + root
  if rng.random() < STILL_SHARE or tall < 4:
    return np.zeros((0, *region.shape, 2), np.float32), np.zeros(0, int)
  # Where it fades into what is no plant, so does its motion; at a sharp edge it does not.
  blur = lambda x: cv2.GaussianBlur(x.astype(np.float32), (0, 0), 0.05 * w)
  surely = (blur(region * sure) + 0.01 * sure[region].mean()) / (blur(region) + 0.01)
  trust = np.clip((surely - 0.15) / 0.35, 0, 1)
  u = np.clip(up / tall, 0, 1.25)
  near = 1 if hangs else np.clip((corner[1] + rows.max()) / h, 0.3, 1)  # a higher foot is farther away
  reach = near * min(world.reach(tall), MOST_BENT * tall)
  x, hz = corner[0] + columns.mean(), world.hz(tall)
  bend, second = trust * u**2 * (3 - u) / 2, trust * u * np.sin(1.5 * np.pi * np.minimum(u, 1))
  # Bending lowers a point by half the integral of the squared slope, which keeps lengths.
  drop = trust**2 * (3 * u**3 - 2.25 * u**4 + 0.45 * u**5) / (2 * tall) * (-1 if hangs else 1)
  tilt = 0.1 * rng.normal()
  main, fast = wind.add_driver(hz, x=x, scale=reach), wind.add_driver(2.6 * hz, x=x, scale=0.15 * reach)
  fields = [np.stack([bend, tilt * bend], -1), np.stack([0 * drop, drop], -1), np.stack([second, 0 * second], -1)]
  index = [course_index(main, LINEAR), course_index(main, SQUARE), course_index(fast, LINEAR)]
  scales = [reach, reach**2, 0.15 * reach]
  at_x, at_y = np.meshgrid(np.arange(region.shape[1]), np.arange(region.shape[0]))
  for _ in range(3):  # flutter
    wave, turn = np.clip(rng.uniform(1, 2.5) * wavelength, 8, 0.5 * w), rng.uniform(0, np.pi)
    size = min(rng.uniform(0.1, 0.3) * reach, 0.025 * wave)
    phase = 2 * np.pi * (np.cos(turn) * at_x + np.sin(turn) * at_y) / wave + rng.uniform(0, 2 * np.pi)
    ripple, along = trust * np.minimum(2 * u, 1) * np.sin(phase), rng.uniform(0, 2 * np.pi)
    driver = wind.add_driver(min(world.hz(wave), FLUTTER_HZ), x=corner[0] + rng.choice(columns), scale=size)
    fields.append(np.stack([np.cos(along) * ripple, np.sin(along) * ripple], -1))
    index.append(course_index(driver, LINEAR))
    scales.append(size)
  basis = np.stack(fields).astype(np.float32)
  slopes = [max(np.abs(np.diff(field, axis=axis)).max(initial=0) for axis in (0, 1)) for field in basis]
  return basis * np.float32(min(1, STEEPEST / (LARGEST * np.dot(slopes, scales) + 1e-9))), np.array(index)


def _measure_height(region: np.ndarray) -> tuple[np.ndarray, float]:
  """Height in pixels of every place above the region's smoothed lower edge, 0 below it, and the region's own."""
  rows, columns = np.nonzero(region)
  filled = np.unique(columns)
  lowest = len(region) - 1 - region[::-1].argmax(0)[filled]
  edge = np.interp(np.arange(region.shape[1]), filled, lowest + 1.0).astype(np.float32)
  edge = cv2.GaussianBlur(edge[None], (0, 0), max(0.15 * np.ptp(rows), 2.0), borderType=cv2.BORDER_REPLICATE)[0]
  up = np.maximum(edge - np.arange(len(region), dtype=np.float32)[:, None], 0)
  return up, float(np.percentile(up[region], 98))


def _fill_behind(photo: np.ndarray, solid: np.ndarray) -> np.ndarray:
  """Puts in place of the inside of `solid` [h w] the photo mirrored at its edge."""
  hidden = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 0.7) > 0.998
  around = cv2.dilate(solid, np.ones((5, 5)))  # beyond the edge's mixed colours
  if not hidden.any() or around.all():
    return photo
  _, label = cv2.distanceTransformWithLabels(around, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
  known_rows, known_columns = np.nonzero(around == 0)
  table = np.zeros((label.max() + 1, 2), int)
  table[label[known_rows, known_columns]] = np.stack([known_rows, known_columns], -1)
  place = np.argwhere(hidden)
  nearest = table[label[hidden]]
  mirrored = 2 * nearest - place
  inside = ((mirrored >= 0) & (mirrored < solid.shape)).all(-1)
  mirrored[~inside] = nearest[~inside]
  usable = (around[tuple(mirrored.T)] == 0)[:, None]
  source = np.where(usable, mirrored, nearest)
  out = photo.copy()
  out[hidden] = photo[tuple(source.T)]
  out[hidden] = cv2.GaussianBlur(out, (3, 3), 0)[hidden]
  return out
