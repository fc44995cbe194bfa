"""Layers against brute force: textured ribbons sub-pixel by sub-pixel, and pictures on a deformation."""

import numpy as np
import pytest

from data_pipeline.synthetic import textures
from data_pipeline.synthetic.layers import SUPERSAMPLE, Strips, Texture, _invert_quads

SHAPE = (40, 56)
COURSES = np.array([0.0, 0.8, -1.3])  # course 0 is always zero
REST = np.zeros(3)


def make_textures() -> np.ndarray:
  """Two smooth textures that tell every place along and across apart: [2 12 10 3]."""
  along, across = np.meshgrid(np.linspace(0, 1, 12), np.linspace(0, 1, 10), indexing="ij")
  one = np.stack([0.3 + 0.7 * along, 0.3 + 0.7 * across, 1 - 0.6 * along * across], -1)
  return np.stack([one, one[::-1, ::-1, ::-1]])


def lay_ribbon(root, step, side, num: int) -> np.ndarray:
  """Points [num+1 3 2] of a straight ribbon: its quads are parallelograms."""
  nodes = np.array(root) + np.arange(num + 1)[:, None] * np.array(step)
  return nodes[:, None] + np.array([[-1.0], [0.0], [1.0]]) * np.array(side)


RIBBONS = (
  lay_ribbon((8.3, 9.1), (9.0, 5.2), (-3.5, 6.0), 3),
  lay_ribbon((15.0, 33.0), (8.2, -4.4), (2.5, 5.5), 4),
  lay_ribbon((40.0, 5.0), (0.4, 12.5), (-6.0, 1.5), 2),
)
MAPS = np.array([[[0.05, -0.2], [0.12, 0.02]], [[-0.1, 0.0], [0.05, 0.08]]])  # one for each course
SHIFTS = np.array([[1.5, -2.2], [0.7, 1.1]])


def displace(points) -> np.ndarray:
  """Displacement basis [... 2 2] of an affine motion of everything."""
  return np.stack([points @ matrix.T + shift for matrix, shift in zip(MAPS, SHIFTS, strict=True)], -2)


def make_strips(*, blur: float = 0.01, order=(0.0, 2.0, 1.0)) -> tuple[Strips, list[np.ndarray]]:
  """The three ribbons, the second before the third, with their colours."""
  layer, rng, colors = Strips(SHAPE, make_textures(), blur=blur), np.random.default_rng(0), []
  for number, points in enumerate(RIBBONS):
    colors.append(rng.uniform(80, 250, (len(points) - 1, 2, 3)))
    layer.add(points[None], displace(points)[None], np.array([[1, 2]]), colors[-1][None], np.array([number + 1]),
              np.array([order[number]]), texture=number % 2)  # fmt: skip
  return layer.finish(), colors


def paint_by_hand(courses: np.ndarray, colors, ranked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Colours, ids of parts, and the distance in pixels to the nearest edge of a quad, of every sub-pixel."""
  h, w = (n * SUPERSAMPLE for n in SHAPE)
  image, ids, margin = np.zeros((h, w, 3)), np.zeros((h, w), int), np.full((h, w), np.inf)
  pictures = make_textures()
  _, length, width, _ = pictures.shape
  y, x = ((np.arange(n) - (SUPERSAMPLE - 1) / 2) / SUPERSAMPLE for n in (h, w))
  spots = np.stack(np.meshgrid(x, y), -1)
  for number in ranked:
    points = RIBBONS[number]
    points = points + np.einsum("m,...mc->...c", courses[1:], displace(points))
    for segment in range(len(points) - 1):
      for half in (0, 1):
        corner, along, across = points[segment, half], points[segment + 1, half], points[segment, half + 1]
        sides = np.stack([along - corner, across - corner], -1)
        s, t = np.moveaxis((spots - corner) @ np.linalg.inv(sides).T, -1, 0)
        heights = np.abs(np.linalg.det(sides)) / np.linalg.norm(sides, axis=0)[::-1]
        edge = np.minimum(np.minimum(s, 1 - s) * heights[0], np.minimum(t, 1 - t) * heights[1])
        inside = edge > 0
        row = np.floor((segment + s) / (len(points) - 1) * length).astype(int)
        column = np.floor((half + t) / 2 * width).astype(int)
        texel = pictures[number % 2, np.clip(row, 0, length - 1), np.clip(column, 0, width - 1)]
        image[inside] = (texel * colors[number][segment, half])[inside]
        ids[inside] = number + 1
        margin = np.minimum(margin, np.abs(edge))
  return image, ids, margin


def gather(values: np.ndarray) -> np.ndarray:
  """The sub-pixels [h w 9 ...] of every pixel."""
  h, w = SHAPE
  blocks = values.reshape(h, SUPERSAMPLE, w, SUPERSAMPLE, *values.shape[2:])
  return np.moveaxis(blocks, 2, 1).reshape(h, w, SUPERSAMPLE**2, *values.shape[2:])


@pytest.mark.parametrize("courses", [REST, COURSES], ids=["rest", "moved"])
def test_ribbons_are_drawn_as_by_hand(courses):
  layer, colors = make_strips()
  fine, ids, margin = paint_by_hand(courses, colors, (0, 2, 1))
  clear = (gather(margin) > 0.4).all(-1)  # no edge passes: at one, quads own the sub-pixels that it touches
  expected, shown = gather(fine).mean(2), gather(ids).max(-1) > 0
  where, rgba = layer.draw(courses)
  assert (where[0].stop, where[1].stop) == SHAPE and rgba.shape == (*SHAPE, 4)
  assert (clear & shown).sum() > 250 and (clear & ~shown).sum() > 500
  np.testing.assert_array_equal(rgba[..., 3][clear], np.where(shown, 255, 0)[clear])
  # Texels are steps of about 15 levels; few sub-pixels fall on the other side of one.
  error = np.abs(rgba[..., :3] - expected)[clear]
  assert error.mean() < 0.8 and error.max() < 8
  assert np.ptp(expected[clear & shown], axis=0).min() > 120
  parts = np.zeros((SHAPE[0] * SUPERSAMPLE, SHAPE[1] * SUPERSAMPLE), np.int32)
  layer.draw_parts(parts, courses)
  np.testing.assert_array_equal(parts[margin > 0.4], ids[margin > 0.4])


def test_order_decides_what_is_in_front():
  ranks = [make_strips(order=order)[0].draw(REST).rgba for order in ((0, 2, 1), (-9, 4.5, 3), (0, 0, 0), (0, 1, 2))]
  np.testing.assert_array_equal(ranks[0], ranks[1])
  np.testing.assert_array_equal(ranks[2], ranks[3])  # of equals the later is in front
  assert (ranks[0] != ranks[2]).any()


def test_ribbons_of_one_call_are_those_of_many():
  one, many = (Strips(SHAPE, make_textures(), blur=0.6) for _ in range(2))
  points = np.stack([RIBBONS[0] + shift for shift in ((0, 0), (4, 9), (15, 3))])
  colors, order, parts = np.random.default_rng(1).uniform(0, 255, (3, 3, 2, 3)), np.array([2.0, 0, 1]), np.arange(3) + 5
  index = np.array([[1, 2], [2, 1], [1, 1]])
  one.add(points, displace(points), index, colors, parts, order, texture=1)
  one.add(points[:1, :2], displace(points[:1, :2])[..., :1, :], index[:1, :1], colors[:1, :1], parts[:1], order[:1],
          texture=0)  # fmt: skip
  for i in range(3):
    many.add(points[[i]], displace(points[[i]]), index[[i]], colors[[i]], parts[[i]], order[[i]], texture=1)
  many.add(points[:1, :2], displace(points[:1, :2])[..., :1, :], index[:1, :1], colors[:1, :1], parts[:1], order[:1],
           texture=0)  # fmt: skip
  one.finish(), many.finish()
  np.testing.assert_array_equal(one.draw(COURSES).rgba, many.draw(COURSES).rgba)
  np.testing.assert_array_equal(one.parts, many.parts)


def test_ribbons_move_their_pixels_exactly_where_their_corners_are_affine():
  layer, _ = make_strips()
  ids = np.zeros((SHAPE[0] * SUPERSAMPLE, SHAPE[1] * SUPERSAMPLE), np.int32)
  layer.draw_parts(ids, REST)
  ids = ids[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE].copy()
  ids[:, :20] = 99  # what another layer hides
  places, vectors, index = layer.motion(ids, REST)
  assert {tuple(place) for place in places} == {tuple(place) for place in np.argwhere((ids > 0) & (ids < 99))}
  assert len(places) > 200
  np.testing.assert_array_equal(index, np.tile([1, 2], (len(places), 1)))
  np.testing.assert_allclose(vectors, displace(places[:, ::-1].astype(float)), atol=2e-5)


def test_quads_are_inverted_and_degenerate_ones_give_zero():
  rng = np.random.default_rng(2)
  unit = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]])  # (along, across) of the corners
  frames, centers = rng.normal(size=(20, 2, 2)) * 6, rng.uniform(0, 50, (20, 1, 2))
  corners = unit @ frames + centers
  corners[3] = corners[3, :1] + np.outer([0, 1, 3, 2], [1.0, 2.0])  # a line
  corners[4] = corners[4, :1]  # a point
  found = _invert_quads(corners)
  assert not found[3:5].any()
  spots = rng.uniform(0, 50, (7, 2))
  for i in (0, 1, 2, *range(5, 20)):
    local = np.concatenate([np.ones((7, 1)), spots], 1) @ found[i].T
    np.testing.assert_allclose(local @ frames[i] + centers[i], spots, atol=1e-9)


def test_a_picture_is_cut_at_the_edges_and_goes_where_its_basis_says():
  rng = np.random.default_rng(3)
  rgba = np.zeros((30, 36, 4), np.uint8)
  rgba[8:22, 8:28] = np.concatenate([rng.integers(0, 255, (14, 20, 3)), np.full((14, 20, 1), 255)], -1)
  basis = np.broadcast_to(np.float32([[[[5, -4]]], [[[0, 3]]]]), (2, 30, 36, 2))
  for corner in ((-15, 5), (30, -10), (9, 20)):
    layer = Texture(SHAPE, corner, rgba, basis, np.array([1, 2]), 7, flicker=3)
    for one, two in ((0.0, 0.0), (1.0, -1.0), (-1.0, 0.0)):
      courses = np.array([0.0, one, two, 0.25])
      x, y = (corner[0] + round(5 * one), corner[1] + round(-4 * one + 3 * two))
      expected = np.zeros((SHAPE[0] + 200, SHAPE[1] + 200, 4), np.float32)
      expected[100 + y + 8 : 100 + y + 22, 100 + x + 8 : 100 + x + 28] = rgba[8:22, 8:28] * np.float32([1.25] * 3 + [1])
      expected = expected[100:-100, 100:-100]
      canvas, parts = np.zeros((*SHAPE, 4), np.float32), np.zeros((3 * SHAPE[0], 3 * SHAPE[1]), np.int32)
      where, drawn = layer.draw(courses)
      canvas[where] = drawn
      np.testing.assert_allclose(canvas, expected, atol=1e-3)
      layer.draw_parts(parts, courses)
      np.testing.assert_array_equal(parts, np.kron(np.where(expected[..., 3] > 0, 7, 0), np.ones((3, 3))))


def test_a_picture_without_courses_stays_and_its_motion_is_its_basis():
  rgba = np.full((10, 12, 4), 255, np.uint8)
  still = Texture(SHAPE, (4, 6), rgba, np.zeros((0, 10, 12, 2), np.float32), np.zeros(0, int), 3)
  np.testing.assert_array_equal(still.draw(COURSES).rgba, rgba)
  y, x = np.mgrid[6:16, 4:16]
  basis = displace(np.stack([x, y], -1).astype(float)).transpose(2, 0, 1, 3).astype(np.float32)
  layer = Texture(SHAPE, (4, 6), rgba, basis, np.array([2, 1]), 3)
  ids = np.zeros(SHAPE, np.int32)
  ids[8:12, 5:9] = 3
  places, vectors, index = layer.motion(ids, REST)
  np.testing.assert_array_equal(places, np.argwhere(ids == 3))
  np.testing.assert_allclose(vectors, displace(places[:, ::-1].astype(float)), atol=1e-5)
  np.testing.assert_array_equal(index, np.tile([2, 1], (16, 1)))


def test_textures_differ_and_keep_a_ribbons_colour():
  pictures = np.stack([textures.make_textures(np.random.default_rng(seed)) for seed in range(8)])
  assert pictures.shape == (8, 6, textures.LENGTH, textures.WIDTH, 3) and pictures.dtype == np.float32
  assert pictures.min() >= 0.2 and pictures.max() <= 2
  np.testing.assert_allclose(pictures.mean((0, 2, 3, 4)), 1, atol=0.15)
  flat = pictures.mean(-1).reshape(48, -1)
  assert np.max(np.corrcoef(flat) - np.eye(48)) < 0.99 and flat.std(1).min() > 0.03
