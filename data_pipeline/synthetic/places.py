"""Painted places for backdrops: landscapes, lakes, greenery, walls, rooms, grounds, towns, fences and rocks.

Each `paint_...(rng, height, width, light)` gives a picture [h w 3], RGB about 0..255, lit from `light` (x, y), a unit
vector towards the sun, +y down. They are meant to be seen a little out of focus, as behind a plant.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.camera import defocus, sample_radius
from data_pipeline.synthetic.materials import (
  GROUNDS,
  PLASTERS,
  WALLS,
  lay_ground,
  paint_lawn,
  paint_planks,
  paint_plaster,
  paint_soil,
  paint_stones,
  pick_color,
  shade_relief,
  warp_image,
)
from data_pipeline.synthetic.shapes import smooth_noise
from data_pipeline.synthetic.still_life import draw_stone, place_still_life


def paint_sky(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A sky down to the horizon at the lower edge, clear, hazy, with clouds or overcast: [h w 3]."""
  v = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
  tops = np.array([(88, 134, 196), (120, 160, 205), (150, 165, 180), (70, 110, 170), (128, 130, 160)], float)
  lows = np.array([(205, 222, 234), (226, 228, 226), (240, 218, 190), (250, 200, 160)], float)
  top, low = pick_color(rng, tops, spread=5), pick_color(rng, lows, spread=5)
  image = np.repeat(top + (low - top) * v ** rng.uniform(0.6, 1.6), width, axis=1)
  if rng.random() < 0.3:
    return image
  # Clouds: thick where warped noise is high, grey below where thick, bright on the side of the sun, thin far off.
  long = rng.uniform(0.8, 2.5)
  size = (width, height)
  noise = cv2.resize(smooth_noise(rng, height, max(8, int(width / long)), coarsest=int(rng.integers(2, 5))), size)
  bend = smooth_noise(rng, height, width, coarsest=3, octaves=3)
  noise = warp_image(noise, 0.02 * width * bend, 0.01 * width * bend[:, ::-1])
  noise = cv2.GaussianBlur(noise, (0, 0), 0.005 * width + 0.3)
  cover = np.clip((noise - rng.uniform(-1.5, 1.0)) * rng.uniform(0.35, 0.9), 0, 1)[..., None]
  cover = cover * (2 - cover) * rng.uniform(0.6, 1)
  broad = cv2.GaussianBlur(noise, (0, 0), 0.02 * width + 0.5)
  body = np.clip(noise - broad, -1, 1)[..., None]
  grey = rng.uniform(0.02, 0.3) * np.clip(broad[..., None] + 0.3, 0, 1.5)
  lit = shade_relief(broad, light, 0.06 * width)
  white = (0.3 * low + 0.7 * 245) * np.clip((1 - grey) * (0.8 + 0.2 * lit) + 0.08 * body, 0.45, 1.06)
  white = np.maximum(white, image * (0.93 - 0.15 * cover))
  return image + (white - image) * cover * (1 - 0.45 * v)


def _sample_ridge(rng, width: int, size: float, trees: float, coarsest: int) -> np.ndarray:
  """Height of a skyline [1 w 1] of deviation `size`, with tree tops of height `trees` where woods grow."""
  line = smooth_noise(rng, 2, width, coarsest=coarsest, octaves=6)[:1]
  tops = np.abs(smooth_noise(rng, 2, width, coarsest=max(8, width // 5), octaves=2)[:1])
  woods = np.clip(smooth_noise(rng, 2, width, coarsest=4, octaves=3)[:1] + 0.5, 0, 1)
  return (size * line + trees * woods * (0.6 + tops))[..., None]


def paint_landscape(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Sky over hills and tree lines that fade in haze, and often a field before them: [h w 3]."""
  horizon = int(height * rng.uniform(0.35, 0.8)) + 2
  image = np.empty((height, width, 3), np.float32)
  image[:horizon] = paint_sky(rng, horizon, width, light)
  image[horizon:] = image[horizon - 1]
  haze, rows = image[horizon - 1].mean(0), np.arange(height, dtype=np.float32)[:, None, None] / height
  hills = np.array([(70, 84, 56), (88, 88, 66), (58, 74, 60), (110, 96, 74), (84, 80, 78)], float)
  count = int(rng.integers(1, 5))
  thick = rng.uniform(0.15, 0.9)
  for level in range(count):
    near = (level + 1) / count
    base = horizon / height - (1 - near) * rng.uniform(0.05, 0.16) + rng.uniform(-0.01, 0.02)
    wooded = rng.random() < 0.3 + 0.6 * near
    size = rng.uniform(0.015, 0.07) * (1.3 - near)
    trees = wooded * near * rng.uniform(0.008, 0.03)
    ridge = base - _sample_ridge(rng, width, size, trees, int(rng.integers(2, 5)))
    land = smooth_noise(rng, height, width, coarsest=10, octaves=5)
    color = (1 + 0.05 * land[..., None]) * shade_relief(land, light, 0.35) * pick_color(rng, hills).astype(np.float32)
    fade = thick * (1 - near) + 0.1
    color = color + (haze - color) * np.clip(fade + 0.9 * (rows - ridge) * (1 - near), 0, 0.93)
    image = image + (color - image) * np.clip((rows - ridge) * height + 0.5, 0, 1)
  ground = height - horizon
  if ground > 4:
    surface = (paint_lawn if rng.random() < 0.5 else paint_soil)(rng, 160, 256, light)
    field = lay_ground(rng, surface, ground, width, tilt=rng.uniform(5, 12))
    field = field * (1 + 0.09 * smooth_noise(rng, ground, width, coarsest=3))[..., None]
    far = np.clip(1 - np.arange(ground) / (0.5 * ground), 0, 1)[:, None, None] ** 2
    field = field + (haze - field) * far * 0.5 * thick
    edge = rows * height - horizon - _sample_ridge(rng, width, 0.006 * height, 0, 6)
    image[horizon:] += (field - image[horizon:]) * np.clip(edge[horizon:] + 0.5, 0, 1)
  return image


def paint_lake(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A landscape over water that mirrors it in ripples: [h w 3]."""
  shore = int(height * rng.uniform(0.3, 0.65)) + 2
  above = paint_landscape(rng, int(shore * 1.15), width, light)[:shore].astype(np.float32)
  rows = height - shore
  depth = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
  waves = np.repeat(smooth_noise(rng, 256, 256, coarsest=24, octaves=3)[..., None], 3, 2)
  ripple = cv2.resize(lay_ground(rng, waves, rows, max(8, width // 3), tilt=8)[..., 0], (width, rows))
  mirror = above[::-1][np.minimum(np.arange(rows) * (shore - 1) // max(rows, 1), shore - 1)]
  mirror = cv2.GaussianBlur(mirror, (0, 0), sigmaX=0.6, sigmaY=0.012 * height + 0.3)
  mirror = warp_image(mirror, 0, (0.005 + 0.1 * depth) * height * ripple * rng.uniform(0.1, 0.7))
  deep = pick_color(rng, np.array([(50, 74, 86), (62, 84, 78), (78, 88, 92), (40, 60, 84)], float))
  water = mirror + (deep - mirror) * (0.25 + 0.45 * depth[..., None])
  water *= (1 + rng.uniform(0.02, 0.09) * ripple * (0.4 + depth))[..., None]
  bank = np.clip(1 - np.arange(rows) / (0.012 * height + 1), 0, 1)[:, None, None]
  return np.concatenate([above, water * (1 - 0.25 * bank)])


def paint_greenery(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Leaves so far out of focus that only blobs and discs of light remain: [h w 3]."""
  h, w = height // 2 + 2, width // 2 + 2
  base = pick_color(rng, np.array([(52, 66, 40), (70, 84, 54), (44, 54, 44), (86, 88, 60)], float))
  glade = smooth_noise(rng, h, w, coarsest=2, octaves=3)
  image = base * np.exp(0.3 * glade)[..., None]
  image = np.ascontiguousarray(image, np.float32)
  for _ in range(int(rng.integers(80, 260))):  # leaves, the farther the darker
    x, y = int(rng.integers(w)), int(rng.integers(h))
    size = rng.uniform(0.01, 0.07) * w
    tone = image[y, x] * np.exp(rng.normal(0.05, 0.3)) * np.exp(rng.normal(0, 0.04, 3)) + rng.uniform(0, 8, 3)
    tone = 0.85 * tone + 0.15 * tone.mean()
    axes = (max(1, int(size)), max(1, int(size * rng.uniform(0.3, 0.8))))
    cv2.ellipse(image, (x, y), axes, rng.uniform(0, 180), 0, 360, tone.tolist(), -1)
  sky = rng.uniform(190, 255) * rng.uniform((0.9, 0.94, 0.8), 1)
  for _ in range(int(rng.integers(0, 2) * rng.integers(8, 70))):  # gaps and gleams, far brighter than the leaves
    x, y = int(rng.integers(w)), int(rng.integers(h))
    if glade[y, x] > -0.3:
      cv2.circle(image, (x, y), int(rng.integers(0, 2)), (sky * rng.uniform(0.6, 1)).tolist(), -1)
  image = defocus(image, sample_radius(rng, w, 4, 13), glow=rng.uniform(0.02, 0.15))
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def paint_wall(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A wall seen a little from the side, often with ground and things before it: [h w 3]."""
  wall = WALLS[rng.integers(len(WALLS))](rng, height, width, light)
  image = _turn_wall(rng, np.asarray(wall, np.float32))
  if rng.random() < 0.45:  # the shadow of a roof or another house
    slope, start = rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.9)
    far = (np.arange(height)[:, None] - start * height + slope * (np.arange(width) - width / 2)) * rng.choice([-1, 1])
    image *= (1 - rng.uniform(0.25, 0.5) * np.clip(far / rng.uniform(2, 9), 0, 1))[..., None]
  floor = int(height * rng.uniform(0.6, 1.25))
  return _stand_on_ground(rng, image, floor, light, things=0.6)


def _turn_wall(rng, image: np.ndarray) -> np.ndarray:
  h, w = image.shape[:2]
  corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
  far = rng.uniform(0, 0.35) * h
  moved = corners + np.array([(0, -far), (0, 0), (0, 0), (0, far)], np.float32)
  if rng.random() < 0.5:
    moved = corners + np.array([(0, 0), (0, -far), (0, far), (0, 0)], np.float32)
  turn = cv2.getPerspectiveTransform(corners, moved)
  return cv2.warpPerspective(image, turn, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _stand_on_ground(rng, image: np.ndarray, floor: int, light, *, things: float, surface=None) -> np.ndarray:
  """Lays ground from row `floor` down, dark where the wall meets it, with things on it at the chance `things`."""
  h, w = image.shape[:2]
  if floor < h - 3:
    surface = GROUNDS[rng.integers(len(GROUNDS))](rng, 160, 256, light) if surface is None else surface
    image[floor:] = lay_ground(rng, surface, h - floor, w)
    gap = np.abs(np.arange(h) - floor - 0.5) / h
    image *= (1 - 0.45 * np.exp(-gap / 0.012) - 0.2 * np.exp(-gap / 0.07))[:, None, None]
    if rng.random() < things:
      place_still_life(rng, image, floor + 0.03 * h, light, count=int(rng.integers(1, 5)))
  return image


def paint_room(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Indoors: a wall, curtain or window behind a table with things on it: [h w 3]."""
  image = np.asarray(paint_plaster(rng, height, width, light), np.float32)
  u, v = np.arange(width) / width, np.arange(height)[:, None] / height
  kind = rng.integers(3)
  if kind == 0:  # a curtain: folds deepen downwards
    phase = 2 * np.pi * rng.uniform(4, 14) * u + 1.2 * smooth_noise(rng, 2, width, coarsest=3, octaves=2)[:1]
    phase = phase + 0.5 * v * smooth_noise(rng, height, width, coarsest=3, octaves=1)
    fold = np.sin(phase) + 0.4 * np.sin(2.3 * phase + 1)
    cloth = pick_color(rng, PLASTERS) * (0.8 + 0.16 * (0.6 + 0.4 * v) * fold)[..., None]
    edge = rng.uniform(0.2, 1.2) + 0.01 * fold
    image = np.where((u < edge)[..., None], cloth, image)
  elif kind == 1:  # a window, overexposed
    x0, x1, y1 = rng.uniform(0, 0.5), rng.uniform(0.55, 1), rng.uniform(0.5, 0.9)
    outside = paint_landscape(rng, height, width, light) * 0.4 + 150
    pane = (u > x0) & (u < x1) & (v < y1) & (np.abs(u - (x0 + x1) / 2) > 0.012) & (np.abs(v - 0.4 * y1) > 0.015)
    frame = (u > x0 - 0.03) & (u < x1 + 0.03) & (v < y1 + 0.05)
    image = np.where(pane[..., None], outside, np.where(frame[..., None], 190 - 60 * v[..., None], image * 0.7))
  floor = int(height * rng.uniform(0.6, 0.9))
  if rng.random() < 0.7:
    table = paint_planks(rng, 160, 256, light, upright=False)
  else:
    table = paint_plaster(rng, 160, 256, light)
  image = _stand_on_ground(rng, np.asarray(image, np.float32), floor, light, things=0.9, surface=table)
  glow = np.exp(-2 * ((u - rng.uniform(-0.2, 1.2)) ** 2 + (v - rng.uniform(-0.2, 0.6)) ** 2))
  return image * (0.6 + 0.6 * glow)[..., None]


def paint_floor(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """The ground from above or before the feet, with stones on it at times: [h w 3]."""
  surface = GROUNDS[rng.integers(len(GROUNDS))](rng, 200, 300, light)
  image = np.asarray(lay_ground(rng, surface, height, width), np.float32)
  for _ in range(int(rng.integers(0, 2) * rng.integers(1, 6))):
    foot = rng.uniform(0.3, 1.05) * height
    draw_stone(rng, image, rng.uniform(0, width), foot, rng.uniform(0.1, 0.3) * foot, light)
  return image


def paint_town(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Houses with windows and roofs under a sky, before them a street: [h w 3]."""
  image = np.asarray(paint_sky(rng, height, width, light), np.float32)
  haze, floor = image[height // 2].mean(0), int(height * rng.uniform(0.7, 1.1))
  facades = np.concatenate([PLASTERS, [(168, 96, 76), (140, 130, 120), (205, 190, 150)]])
  for near in np.linspace(rng.uniform(0.3, 0.7), 1, rng.integers(1, 4)):
    x, storey = -rng.uniform(0, 0.2) * width, height * rng.uniform(0.1, 0.2) * near
    while x < width:
      wide = storey * rng.uniform(1.5, 5)
      top = floor - storey * (rng.integers(1, 5) + 0.2)
      color = (pick_color(rng, facades) * rng.uniform(0.6, 1)) * near + haze * (1 - near)
      cv2.rectangle(image, (int(x), int(top)), (int(x + wide), floor), color.tolist(), -1)
      turned = x + wide * (rng.uniform(0.6, 0.85) if light[0] < 0 else rng.uniform(0.15, 0.4))  # the side in shade
      ends = (turned, x + wide) if light[0] < 0 else (x, turned)
      cv2.rectangle(image, (int(ends[0]), int(top)), (int(ends[1]), floor), (0.72 * color).tolist(), -1)
      if rng.random() < 0.6:
        peak, eave = storey * rng.uniform(0.4, 0.9), 0.1 * storey
        inset = rng.uniform(0.05, 0.5) * wide
        roof = [(x - eave, top), (x + wide + eave, top), (x + wide - inset, top - peak), (x + inset, top - peak)]
        tiles = pick_color(rng, np.array([(120, 70, 56), (84, 80, 82), (104, 88, 76)], float))
        cv2.fillConvexPoly(image, np.array(roof).astype(np.int32), (tiles * near + haze * (1 - near)).tolist())
      pane = pick_color(rng, np.array([(60, 66, 76), (84, 96, 108), (46, 46, 48)], float))
      step, size = storey * rng.uniform(0.6, 1.1), storey * np.array([rng.uniform(0.25, 0.4), rng.uniform(0.4, 0.6)])
      for column in np.arange(x + 0.3 * step, x + wide - size[0], step):
        for row in np.arange(top + 0.25 * storey, floor - size[1], storey):
          a, b = (int(column), int(row)), (int(column + size[0]), int(row + size[1]))
          tone = (pane * np.exp(rng.normal(0, 0.25))) * near + haze * (1 - near)
          cv2.rectangle(image, a, b, (0.85 * color + 28).tolist(), -1)
          cv2.rectangle(image, (a[0] + 1, a[1] + 1), (b[0] - 1, b[1] - 1), tone.tolist(), -1)
      x += wide + (storey * rng.uniform(0, 1.5) if rng.random() < 0.3 else 0)
  street = (paint_soil if rng.random() < 0.5 else paint_plaster)(rng, 160, 256, light) * 0.8
  image = _stand_on_ground(rng, image, floor, light, things=0.15, surface=street)
  return defocus(image, sample_radius(rng, width, 1.2, 5))


def paint_fence(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A board or picket fence before a landscape or greenery: [h w 3]."""
  behind = (paint_landscape if rng.random() < 0.5 else paint_greenery)(rng, height, width, light)
  image = np.asarray(behind, np.float32)
  boards = paint_planks(rng, height, width, light, upright=True)
  pitch = rng.uniform(0.05, 0.14) * width
  x = (np.arange(width) + rng.uniform(0, pitch)) % pitch / pitch
  top = height * rng.uniform(0.15, 0.5) - 0.35 * pitch * (1 - np.abs(2 * x - 1)) * (rng.random() < 0.5)
  rows = np.arange(height)[:, None]
  width_share = rng.uniform(0.55, 0.97)
  rails = (np.abs(rows - height * rng.uniform(0.5, 0.6)) < 0.03 * height) & (x >= width_share)
  alpha = ((rows > top) & (x < width_share)) | rails
  side = np.where(x / width_share > 0.9, 0.7, 1) * np.where(x >= width_share, 0.6, 1)
  image = np.where(alpha[..., None], boards * side[:, None], image).astype(np.float32)
  return _stand_on_ground(rng, image, int(height * rng.uniform(0.75, 1.2)), light, things=0.3)


def paint_rocks(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A heap of boulders, the far ones small, under a sky or rock face: [h w 3]."""
  top = rng.uniform(0, 0.6)
  image = np.asarray(paint_sky(rng, height, width, light), np.float32)
  if rng.random() < 0.5:
    image = np.asarray(paint_stones(rng, height, width, light), np.float32) * 0.6
  image[int(top * height) :] = 0.85 * lay_ground(
    rng, paint_soil(rng, 160, 256, light), height - int(top * height), width
  )
  for depth in np.sort(rng.random(20)) ** 0.8:
    size = height * (0.1 + 0.3 * depth) * rng.uniform(0.6, 1.3)
    draw_stone(rng, image, rng.uniform(0, width), height * (top + (1.1 - top) * depth) + 0.4 * size, size, light)
  return image


# What is painted how often.
PLACES = (
  (paint_landscape, 0.13),
  (paint_lake, 0.09),
  (paint_greenery, 0.13),
  (paint_wall, 0.21),
  (paint_room, 0.14),
  (paint_floor, 0.12),
  (paint_town, 0.1),
  (paint_fence, 0.05),
  (paint_rocks, 0.03),
)
