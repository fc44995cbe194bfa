"""What walls and grounds are made of: brick, planks, stones, plaster, soil, gravel, leaf litter, lawn.

Pictures are RGB, about 0..255, floating point, as seen from the front, lit from `light` (x, y), +y down. `lay_ground`
lays one flat before the camera.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.shapes import smooth_noise

STONES = np.array([(140, 132, 120), (110, 105, 100), (165, 150, 128), (128, 122, 118), (95, 88, 80)], float)
BRICKS = np.array([(150, 82, 62), (125, 70, 58), (172, 118, 90), (190, 172, 150), (110, 95, 90)], float)
WOODS = np.array([(122, 88, 58), (92, 66, 46), (150, 132, 112), (168, 128, 84), (120, 116, 110), (70, 84, 86)], float)
PLASTERS = np.array([(205, 196, 180), (190, 165, 130), (150, 150, 148), (196, 150, 120), (165, 178, 182)], float)
SOILS = np.array([(98, 76, 56), (120, 100, 78), (76, 62, 50), (150, 128, 98)], float)
LAWNS = np.array([(88, 108, 52), (104, 116, 62), (70, 92, 46), (132, 128, 78)], float)


def pick_color(rng: np.random.Generator, colors: np.ndarray, *, spread: float = 3.5) -> np.ndarray:
  """One of `colors` [n 3], a little changed: [3] float64."""
  return np.clip(colors[rng.integers(len(colors))] * np.exp(rng.normal(0, 0.12)) + rng.normal(0, spread, 3), 8, 250)


def shade_relief(height: np.ndarray, light, strength: float) -> np.ndarray:
  """Brightness [h w 1] of a surface that rises `height` [h w] pixels towards the eye, lit from `light` (x, y)."""
  fall = cv2.filter2D(height, -1, np.array([[0, light[1], 0], [light[0], 0, -light[0]], [0, -light[1], 0]]) / 2)
  return np.clip(1 + strength * fall, 0.45, 1.7)[..., None]


def warp_image(image: np.ndarray, dx, dy) -> np.ndarray:
  """Looks up `image` [h w ...] at pixel (x + dx, y + dy), mirrored beyond its edges; dx, dy [h w] or scalars."""
  h, w = image.shape[:2]
  x, y = np.arange(w, dtype=np.float32) + dx, np.arange(h, dtype=np.float32)[:, None] + dy
  x, y = np.broadcast_to(x, (h, w)).astype(np.float32), np.broadcast_to(y, (h, w)).astype(np.float32)
  return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def pack_cells(rng: np.random.Generator, height: int, width: int, size: float, stretch: float):
  """Irregular cells about `size` pixels high, `stretch` times as wide: (ids [h w] int, distance to the edge [h w])."""
  narrow = max(8, int(width / stretch))
  y, x = np.meshgrid(np.arange(0, height, size), np.arange(0, narrow, size), indexing="ij")
  x = (x + rng.uniform(0, 0.85 * size, x.shape) + 0.5 * size * (np.arange(len(x)) % 2)[:, None]).astype(int)
  y = (y + rng.uniform(0, 0.85 * size, y.shape)).astype(int)
  empty = np.ones((height, narrow), np.uint8)
  empty[np.minimum(y, height - 1), np.minimum(x, narrow - 1)] = 0
  _, ids = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
  ids = cv2.resize(ids.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST).astype(int)
  inner = np.ones((height, width), np.uint8)
  inner[:, 1:][ids[:, 1:] != ids[:, :-1]] = 0
  inner[1:][ids[1:] != ids[:-1]] = 0
  return ids, cv2.distanceTransform(inner, cv2.DIST_L2, 3)


def _lay(rng, ids, edge, *, color, joint, spread, gap, rounding, light, grain=None):
  """Pieces `ids` [h w] of one material with joints, `edge` [h w] pixels from them: [h w 3]."""
  h, w = ids.shape
  tones = np.exp(spread * rng.normal(size=(ids.max() + 1, 1)) + 0.12 * spread * rng.normal(size=(ids.max() + 1, 3)))
  grain = smooth_noise(rng, h, w, coarsest=16, octaves=4) if grain is None else grain
  rise = np.clip((edge - gap) / rounding, 0, 1).astype(np.float32)
  body = (color * tones).astype(np.float32)[ids] * (1 + 0.07 * grain)[..., None]
  image = joint * (1 + 0.06 * grain[..., None]) + (body - joint) * np.minimum(1, 2.5 * rise)[..., None]
  dome = 0.6 * np.sqrt(1 - (1 - rise) ** 2) * np.sqrt(rounding) + 0.6 * grain
  return image * shade_relief(dome, light, 0.28)


def paint_bricks(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A brick wall: [h w 3]."""
  tall = rng.uniform(0.035, 0.11) * height + 2
  long = tall * rng.uniform(2, 3.3)
  wobble = 0.025 * tall * smooth_noise(rng, height, width, coarsest=12, octaves=3)
  y = np.arange(height)[:, None] + wobble + rng.uniform(0, tall)
  row = np.maximum(y // tall, 0)
  x = np.arange(width) + wobble + long * (1 + 0.5 * (row % 2))
  ids = (row * (width / long + 4) + x // long).astype(int)
  fx, fy = x % long, y - row * tall
  edge = np.minimum(np.minimum(fx, long - fx), np.minimum(fy, tall - fy))
  joint = np.array([165, 158, 148]) * rng.uniform(0.55, 1.1)
  color, gap = pick_color(rng, BRICKS), 0.06 * tall
  return _lay(rng, ids, edge, color=color, joint=joint, spread=0.14, gap=gap, rounding=0.08 * tall + 0.5, light=light)


def paint_planks(rng: np.random.Generator, height: int, width: int, light, *, upright=None) -> np.ndarray:
  """Boards side by side, upright or lying (at random): [h w 3]."""
  upright = rng.random() < 0.5 if upright is None else upright
  h, w = (width, height) if upright else (height, width)
  tall = rng.uniform(0.07, 0.25) * min(height, width) + 3
  y = np.arange(h)[:, None] + rng.uniform(0, tall) + 0.4 * smooth_noise(rng, h, w, coarsest=3, octaves=1)
  ids = np.maximum(y // tall, 0).astype(int)
  fy = y - ids * tall
  # Grain: noise drawn out along the board, shifted from board to board, bent round knots.
  fibre = cv2.resize(smooth_noise(rng, h, max(8, w // 10), coarsest=6, octaves=5), (w, h))
  fibre = warp_image(fibre, 0, 2.5 * smooth_noise(rng, h, w, coarsest=3, octaves=2))
  edge = np.minimum(fy, tall - fy)
  light = light[::-1] if upright else light
  color, grain = pick_color(rng, WOODS), 0.85 * fibre
  image = _lay(
    rng, ids, edge, color=color, joint=color * 0.3, spread=0.13, gap=0.4, rounding=1.2, light=light, grain=grain
  )
  return image.transpose(1, 0, 2) if upright else image


def paint_stones(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A wall of rough stones: [h w 3]."""
  size = rng.uniform(0.08, 0.25) * height + 4
  ids, edge = pack_cells(rng, height, width, size, rng.uniform(1.2, 2.2))
  rough = [0.06 * size * smooth_noise(rng, height, width, coarsest=10, octaves=3) for _ in range(2)]
  edge = warp_image(edge, *rough)
  ids = warp_image(ids.astype(np.float32), np.rint(rough[0]), np.rint(rough[1])).astype(int)
  color = pick_color(rng, STONES)
  gap, rounding = 0.02 * size + 0.2, 0.14 * size
  joint = color * rng.uniform(0.5, 1.1)
  grain = 0.7 * smooth_noise(rng, height, width, coarsest=12)
  return _lay(
    rng, ids, edge, color=color, joint=joint, spread=0.15, gap=gap, rounding=rounding, light=light, grain=grain
  )


def paint_plaster(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """A plastered or concrete wall with stains and trowel marks: [h w 3]."""
  noise = smooth_noise(rng, height, width, coarsest=5, octaves=6)
  stain = warp_image(smooth_noise(rng, height, width, coarsest=3), 0.08 * width * noise, 0.05 * height * noise)
  tone = 1 + rng.uniform(0.01, 0.035) * noise - rng.uniform(0, 0.12) * np.clip(stain - 0.5, 0, 1.5)
  image = pick_color(rng, PLASTERS, spread=5) * tone[..., None]
  return image * shade_relief(noise + 0.5 * stain, light, rng.uniform(0.02, 0.12))


WALLS = (paint_bricks, paint_planks, paint_stones, paint_plaster)


def paint_soil(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Bare soil or sand: [h w 3]."""
  clods = smooth_noise(rng, height, width, coarsest=10, octaves=5)
  image = pick_color(rng, SOILS) * (1 + 0.1 * clods + 0.08 * smooth_noise(rng, height, width, coarsest=3))[..., None]
  return image * shade_relief(clods, light, rng.uniform(0.1, 0.6))


def paint_gravel(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Pebbles or, larger, paving of rough stones: [h w 3]."""
  size = np.exp(rng.uniform(np.log(4), np.log(22)))
  ids, edge = pack_cells(rng, height, width, size, rng.uniform(1, 1.5))
  color = pick_color(rng, STONES)
  return _lay(rng, ids, edge, color=color, joint=color * 0.55, spread=0.16, gap=0.1, rounding=0.22 * size, light=light)


def paint_litter(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Fallen leaves on soil: [h w 3]."""
  image = (paint_soil(rng, height, width, light) * 0.75).astype(np.float32)
  base = pick_color(rng, np.array([(138, 104, 68), (122, 96, 70), (152, 124, 78), (126, 86, 62)], float))
  size = rng.uniform(7, 16)
  along = np.linspace(0, np.pi, 7)
  upper = np.stack([-np.cos(along), 0.5 * np.sin(along) ** 1.3], -1)
  outline = np.concatenate([upper, upper[-2:0:-1] * [1, -1]])
  for depth in np.linspace(0.55, 1, int(min(420, 2.2 * height * width / size**2))):
    turn, scale = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.6, 1.3)
    axis = np.array([np.cos(turn), np.sin(turn)])
    frame = np.stack([axis, np.array([-axis[1], axis[0]]) * rng.uniform(0.5, 1.1)])
    points = rng.uniform((0, 0), (width, height)) + scale * outline @ frame
    color = base * depth * np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.06, 3))
    shadow = (8 * (points - np.multiply(light, 1.2))).astype(np.int32)
    cv2.fillConvexPoly(image, shadow, (0.45 * color).tolist(), cv2.LINE_8, 3)
    cv2.fillConvexPoly(image, (8 * points).astype(np.int32), color.tolist(), cv2.LINE_8, 3)
    rib = (8 * points[[0, 6]]).astype(np.int32)
    cv2.line(image, rib[0].tolist(), rib[1].tolist(), (color * 1.12).tolist(), 1, cv2.LINE_8, 3)
  return image * (1 + 0.07 * smooth_noise(rng, height, width, coarsest=12))[..., None]


def paint_lawn(rng: np.random.Generator, height: int, width: int, light) -> np.ndarray:
  """Short turf from above, too short to move: [h w 3]."""
  patches, blades = smooth_noise(rng, height, width, coarsest=4), rng.normal(size=(height, width)).astype(np.float32)
  blades = cv2.GaussianBlur(blades, (0, 0), 0.6)
  tint = np.array([0.08, 0.03, 0.04]) * patches[..., None]
  dry = np.clip(smooth_noise(rng, height, width, coarsest=8) - 0.4, 0, 1.5)[..., None]
  color = pick_color(rng, LAWNS) * (1 + tint + 0.06 * patches[..., None] + 0.12 * dry * [1.2, 0.6, 0.6])
  return color * shade_relief(blades, light, 0.4)


GROUNDS = (paint_soil, paint_gravel, paint_litter, paint_lawn, paint_planks)


def lay_ground(rng: np.random.Generator, surface: np.ndarray, height: int, width: int, *, tilt=None) -> np.ndarray:
  """A surface [a b 3] seen lying flat, its horizon above the upper edge: [h w 3].

  tilt: how much farther the upper edge is than the lower (drawn in 1.5 to 7 unless given).
  """
  tilt = np.exp(rng.uniform(np.log(1.5), np.log(7))) if tilt is None else tilt
  depth = 1 / np.linspace(1 / tilt, 1, max(height, 2))[:height, None]
  a, b = surface.shape[:2]
  aside = (np.arange(width) - 0.5 * width) * depth * 0.8
  below = height / max(1 - 1 / tilt, 0.2)  # rows from the horizon to the lower edge
  squeeze = max(1.1 * width / below, 1.0)  # how much the flat view shortens the ground there
  ahead = 0.8 * below * squeeze * depth
  # Turned, since the surface repeats in mirrors, which the eye finds when they stand upright.
  turn = rng.uniform(0.2, 1.3)
  x = (np.cos(turn) * aside + np.sin(turn) * ahead + rng.uniform(0, b)).astype(np.float32)
  y = (np.cos(turn) * ahead - np.sin(turn) * aside + rng.uniform(0, a)).astype(np.float32)
  surface = np.ascontiguousarray(surface, np.float32)
  near = cv2.remap(surface, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
  soft = cv2.GaussianBlur(surface, (0, 0), 0.3 * tilt * np.sqrt(squeeze) + 0.3)
  far = cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
  share = np.clip((depth - 1) / max(tilt - 1, 0.1) * 2 + 0.15 * (squeeze - 1), 0, 1)[..., None].astype(np.float32)
  return near + (far - near) * share
