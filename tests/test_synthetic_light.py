"""One sun for all of a simulated scene: which side of things it lights, and where shadows fall."""

import numpy as np
import pytest

from data_pipeline.synthetic import backdrops, families, foliage, materials, scene, still_life
from data_pipeline.synthetic.layers import Texture
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.wind import Wind
from data_pipeline.synthetic.world import World

SHAPE = (96, 128)
SIDES = pytest.mark.parametrize("side", [-1, 1])


def make_world(seed: int, side: int) -> World:
  rng = np.random.default_rng(seed)
  world = World(rng, Wind(rng, num_frames=30, fps=30.0, width=SHAPE[1]), SHAPE)
  return world if np.sign(world.light) == side else make_world(seed + 1, side)


def mean_aside(picture) -> float:
  """How far right of the middle the brightness of a picture [h w] lies, weighted by what is above its mean, px."""
  x = np.arange(picture.shape[1]) - (picture.shape[1] - 1) / 2
  above = np.maximum(picture - picture.mean(), 0)
  return float((above * x).sum() / above.sum())


@pytest.mark.parametrize("light", [(0.6, -0.8), (-0.6, -0.8), (0.0, -1.0), (0.8, 0.6)])
def test_relief_is_bright_where_it_faces_the_light(light):
  y, x = np.mgrid[:40, :50]
  height = np.sqrt(np.maximum(15.0**2 - (x - 24.5) ** 2 - (y - 19.5) ** 2, 0))  # a ball that lies in the plane
  height[height < 8] = 8
  down, right = np.gradient(height)
  normal = np.stack([-right, -down, np.ones_like(height)], -1)  # of the surface, towards the eye, not normalised
  expected = 1 + 0.2 * normal @ [*light, 0.0]
  found = materials.shade_relief(height.astype(np.float32), light, 0.2)[..., 0]
  inner = np.s_[1:-1, 1:-1]
  np.testing.assert_allclose(found[inner], np.clip(expected, 0.45, 1.7)[inner], atol=1e-5)
  towards = (x - 24.5) * light[0] + (y - 19.5) * light[1]
  ball = height > 8
  assert found[ball & (towards > 3)].min() > 1 > found[ball & (towards < -3)].max()


@SIDES
def test_a_stone_is_lit_from_the_light_and_darkens_the_ground_on_the_other_side(side):
  stones, shadows = [], []
  for seed in range(8):
    image = np.full((80, 160, 3), 200, np.float32)
    still_life.draw_stone(np.random.default_rng(seed), image, 80, 60, 30, (0.7 * side, -0.71))
    grey = image.mean(-1)
    stones.append(mean_aside(grey[34:54, 65:96]))
    shadows.append(mean_aside(200 - grey[56:64]))
  assert np.mean(np.sign(stones) == side) > 0.8 and np.mean(stones) * side > 1
  assert np.mean(np.sign(shadows) == -side) == 1


@SIDES
def test_the_sun_stands_above_on_the_side_that_is_lit(side):
  for seed in range(20):
    sun = make_world(seed, side).sun
    assert sun[0] * side > 0.1 and sun[1] < -0.3 and np.linalg.norm(sun) == pytest.approx(1)


@SIDES
def test_trees_throw_their_shadow_away_from_the_sun(side):
  world = make_world(3, side)
  edge, colour = np.full(SHAPE[1], 20.0), np.array([80.0, 90, 50])
  grounds = []
  for shadows in ((), [(64.0, 50.0, 30.0)]):
    world.rng = np.random.default_rng(0)
    foliage.add_ground(world, edge, colour, shadows=shadows)
    ground = world.layers[-1]
    assert isinstance(ground, Texture)
    grounds.append(ground.rgba.astype(float)[..., :3].mean(-1))
  dark = (grounds[0] - grounds[1]).sum(0)
  assert ((np.arange(SHAPE[1]) - 64) * dark).sum() / dark.sum() == pytest.approx(-side * 0.25 * 30, abs=1.5)


@SIDES
@pytest.mark.parametrize("setting", ["meadow", "indoors"])
def test_what_is_painted_is_lit_from_the_asked_side(monkeypatch, setting, side):
  asked = []

  def paint(rng, height, width, light):
    asked.append(light)
    return np.full((height, width, 3), 90, np.float32)

  monkeypatch.setattr(backdrops, "PLACES", [(paint, 1.0)])
  monkeypatch.setattr(backdrops, "paint_room", paint)
  monkeypatch.setattr(backdrops, "paint_wall", paint)
  for seed in range(12):
    families.paint_for_setting(np.random.default_rng(seed), 20, 30, [], setting, side=side)
  assert len(asked) > 4
  assert all(x * side >= 0.4 and y < -0.4 and np.hypot(x, y) == pytest.approx(1) for x, y in asked)


def test_a_scene_and_its_backdrop_have_the_same_sun(monkeypatch):
  painted, shown = [], []
  paint, show = families.paint_for_setting, scene.Scene.__init__

  def remember(*arguments, side):
    painted.append(side)
    return paint(*arguments, side=side)

  def remember_world(self, seed, background, world, **options):
    shown.append(np.sign(world.light))
    show(self, seed, background, world, **options)

  monkeypatch.setattr(families, "paint_for_setting", remember)
  monkeypatch.setattr(scene.Scene, "__init__", remember_world)
  for seed in range(6):
    sample_scene(seed, height=16, width=16, num_frames=2)
  assert painted == shown and set(painted) == {-1, 1}
