"""Plants: what rides on what, roots, lengths, and that pixels go where the displacement says."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import scipy.linalg

from data_pipeline.synthetic import branches, flowers, foliage, grasses, trees
from data_pipeline.synthetic.scene import Scene
from data_pipeline.synthetic.shapes import make_curve
from data_pipeline.synthetic.stems import Sheaf, Stem, mode_slope
from data_pipeline.synthetic.wind import COSINE, SINE, Wind, course_index
from data_pipeline.synthetic.world import World

SHAPE = (96, 128)
NUM_FRAMES = 30
BUILDERS: dict[str, tuple[Callable[[World], None], float]] = {  # and what the picture's width shows, metres
  "grass": (grasses.add_grass, 1.0),
  "bed": (lambda world: flowers.add_flowers(world, near=False), 1.0),
  "flower": (lambda world: flowers.add_flowers(world, near=True), 0.3),
  "branches": (branches.add_branches, 0.6),
  "trees": (trees.add_trees, 12.0),
}


class Recorder:
  """Stands for a layer and remembers what was added."""

  def __init__(self):
    self.added: list[tuple] = []

  def add(self, *ribbons, texture: int) -> None:
    self.added.append(ribbons)


def make_world(seed: int, shape=SHAPE, *, metres: float = 1.0, num_frames: int = NUM_FRAMES) -> World:
  rng = np.random.default_rng(seed)
  world = World(rng, Wind(rng, num_frames=num_frames, fps=num_frames / 5, width=shape[1]), shape, metres=metres)
  world.strength = 8.0  # ordinary, whatever scenes draw
  return world


def show(world: World, *, num_frames: int = NUM_FRAMES) -> Scene:
  """The scene of a world on plain gray, as light, without a camera."""
  background = np.full((*world.shape, 3), 90, np.float32)
  return Scene(0, background, world, num_frames=num_frames, fps=num_frames / 5, camera=None)


def build_scene(kind: str, seed: int, shape=SHAPE, *, num_frames: int = NUM_FRAMES) -> Scene:
  build, metres = BUILDERS[kind]
  world = make_world(seed, shape, metres=metres, num_frames=num_frames)
  build(world)
  return show(world, num_frames=num_frames)


def grow_stem(world: World, root=(60.0, 80.0), *, parent=None, length: float = 60.0) -> Stem:
  nodes = make_curve(root, angle=-1.5, curl=0.4, length=length, num=12)
  return Stem(world.wind, nodes, reach=14.0, hz=0.9, parent=parent)


def move(world: World, points, basis, index, time: float) -> np.ndarray:
  """Where points [... 2] are at `time`, by basis [... m 2] and courses index [m]."""
  return points + np.einsum("m,...mc->...c", world.wind.courses(np.array([time]))[0][index], basis)


@pytest.mark.parametrize("kind", BUILDERS)
def test_scene_is_exact_at_frame_zero_and_the_same_for_the_same_seed(kind):
  one, two, other = (build_scene(kind, seed) for seed in (3, 3, 4))
  assert not one.displacement([0.0]).any()
  np.testing.assert_array_equal(one.frame(0), one.image)
  np.testing.assert_array_equal(one.frame(7.5), two.frame(7.5))
  np.testing.assert_array_equal(one.displacement([7.5]), two.displacement([7.5]))
  assert (one.image != other.image).any()


@pytest.mark.parametrize("kind", BUILDERS)
def test_pixels_go_where_the_displacement_says(kind):
  shape = (240, 320)  # blades and leaves are small: draw them larger
  errors = {1.0: [], 0.8: [], 1.2: [], -1.0: []}
  y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
  for seed in range(3):
    scene = build_scene(kind, seed, shape)
    ids = scene.layer_ids.astype(np.float32)
    inside = (cv2.dilate(ids, np.ones((3, 3))) == cv2.erode(ids, np.ones((3, 3)))) & (scene.layer_ids > 0)
    for time in (4.0, 17.0):
      there = scene.displacement([time])[0]
      trusted = inside & scene.visible(time) & (np.hypot(there[..., 0], there[..., 1]) > 1)
      frame = scene.frame(time).astype(np.float32)
      for factor, found in errors.items():
        sampled = cv2.remap(frame, x + factor * there[..., 0], y + factor * there[..., 1], cv2.INTER_LINEAR)
        found.append(np.abs(sampled - scene.image)[trusted].ravel())
  assert sum(map(len, errors[1.0])) > 300
  mean = {factor: np.concatenate(found).mean() for factor, found in errors.items()}
  assert mean[1.0] < 0.92 * min(mean[0.8], mean[1.2]) and mean[1.0] < 0.5 * mean[-1.0], mean


@pytest.mark.parametrize("kind", BUILDERS)
def test_motion_has_little_power_above_sixteen_bands_but_some(kind):
  shares = []
  for seed in range(4):
    motion = build_scene(kind, seed, num_frames=150).displacement(np.arange(150))
    if (np.hypot(motion[..., 0], motion[..., 1]).max(0) > 1).sum() > 50:
      power = np.abs(np.fft.rfft(motion, axis=0)) ** 2
      shares.append(power[16:].sum() / power[1:].sum())
  assert 1e-3 < np.mean(shares) < 0.25


def test_root_pixels_are_still_and_tip_pixels_move():
  world = make_world(1)
  stem = grow_stem(world)
  layer = world.new_strips(blur=0.5)
  foliage.add_stem(world, layer, stem, np.full(13, 2.0), np.array([90.0, 120, 60]), order=0.0)
  world.layers.append(layer.finish())
  moved = np.linalg.norm(show(world).displacement(np.arange(NUM_FRAMES)), axis=-1).max(0)
  tip = np.rint(stem.nodes[-2]).astype(int)
  assert moved[79, 60] < 0.1 and moved[tip[1], tip[0]] > 1


def test_leaf_bases_move_with_their_twig():
  world = make_world(2)
  twig = grow_stem(world, parent=(grow_stem(world), 8), length=30.0)
  along, layer = np.linspace(0.05, 1.0, 15), Recorder()
  pool = foliage.add_flutters(world, 5, scale=(0.2, 0.3))
  ones = np.ones(15)
  foliage.add_leaves(world, layer, twig, along, angle=0.7 * ones, length=9 * ones, kind=foliage.LeafKind(0.3, 1.0),
                     color=np.full((15, 3), 120.0), open=ones, order=ones, flutter=pool[np.arange(15) % 5])  # fmt: skip
  (points, basis, index, *_rest) = layer.added[0]
  carried = twig.carry(twig.nodes, np.arange(13))
  for time in (3.0, 11.0, 26.0):
    nodes = move(world, twig.nodes, carried, twig.index, time)
    there = np.stack([np.interp(along, np.linspace(0, 1, 13), nodes[:, i]) for i in (0, 1)], -1)
    bases = np.stack([move(world, points[i, 0, 1], basis[i, 0, 1], index[i], time) for i in range(15)])
    assert np.abs(nodes - twig.nodes).max() > 1
    np.testing.assert_allclose(bases, there, atol=0.1)


def test_leaves_keep_their_length_when_they_flutter():
  world, layer = make_world(2), Recorder()
  stem = grow_stem(world)
  foliage.add_leaves(world, layer, stem, np.zeros(1), angle=0.7 * np.ones(1), length=9 * np.ones(1), order=np.ones(1),
                     kind=foliage.LeafKind(0.3, 1.0), color=np.full((1, 3), 120.0), open=np.ones(1),
                     flutter=foliage.add_flutters(world, 1, scale=(0.9, 1.0)))  # fmt: skip
  points, basis, index = (value[0] for value in layer.added[0][:3])
  moved = [move(world, points, basis, index, time) for time in range(0, NUM_FRAMES, 3)]
  assert np.abs(np.array(moved) - points).max() > 0.5
  for now in moved:
    lengths = [np.linalg.norm(at[1:, 1] - at[0, 1], axis=-1) for at in (now, points)]
    np.testing.assert_allclose(*lengths, rtol=1e-9)


@pytest.mark.parametrize("mode", [0, 1])
def test_mode_slopes_are_those_of_a_clamped_free_beam(mode):
  num, step = 24, 1 / 24  # Hermite finite elements: deflection and slope at every node
  stiff = np.array([[12, 6, -12, 6], [6, 4, -6, 2], [-12, -6, 12, -6], [6, 2, -6, 4]], float)
  mass = np.array([[156, 22, 54, -13], [22, 4, 13, -3], [54, 13, 156, -22], [-13, -3, -22, 4]], float)
  scale = np.outer([1, step, 1, step], [1, step, 1, step])
  stiffness, inertia = np.zeros((2 * num + 2, 2 * num + 2)), np.zeros((2 * num + 2, 2 * num + 2))
  for i in range(num):
    part = slice(2 * i, 2 * i + 4)
    stiffness[part, part] += stiff * scale / step**3
    inertia[part, part] += mass * scale * step / 420
  shapes = scipy.linalg.eigh(stiffness[2:, 2:], inertia[2:, 2:])[1]
  slope = np.append(0, shapes[1::2, mode])
  u = np.linspace(0, 1, num + 1)
  np.testing.assert_allclose(mode_slope(u, mode), slope / slope[-1], atol=1e-4)
  end = mode_slope(1 + 1e-3 * np.arange(-2, 1), mode)
  assert abs(end[2] - end[1]) < 1e-4 and abs(end[2] - 2 * end[1] + end[0]) < 1e-4 * abs(end).max()
  assert mode_slope(0.0, mode) == 0


def test_bending_stem_keeps_its_length_to_second_order():
  world = make_world(0)
  nodes = make_curve((10.0, 60.0), angle=-1.4, curl=0.3, length=50.0, num=20)
  stem = Stem(world.wind, nodes, reach=12.0, hz=1.0)
  basis = stem.carry(nodes, np.arange(21))
  for bend in (0.1, 0.3):
    bent = nodes + np.einsum("m,nmc->nc", [bend, bend**2, 0.0], basis)
    length = np.linalg.norm(np.diff(bent, axis=0), axis=1).sum()
    assert abs(length - 50) < 50 * bend**4
    assert np.linalg.norm(bent[-1] - nodes[-1]) > 30 * bend


def test_branch_on_a_bough_inherits_its_motion_exactly():
  world = make_world(4)
  bough = grow_stem(world)
  branch = grow_stem(world, tuple(bough.nodes[7]), parent=(bough, 7), length=25.0)
  spots = branch.nodes + np.array([0.5, -1.0])
  basis, m = branch.carry(spots, np.arange(13)), len(bough.index)
  np.testing.assert_array_equal(branch.index[:m], bough.index)
  np.testing.assert_allclose(basis[:, :m], bough.carry(spots, 7), rtol=1e-12)
  np.testing.assert_allclose(basis[0, m:][:, None], branch.carry(spots[:1], 0)[:, m:].swapaxes(0, 1))
  root = branch.carry(branch.nodes[:1], 0)[0]
  np.testing.assert_allclose(root[m:], 0, atol=1e-12)  # the branch stays on the bough
  np.testing.assert_allclose(root[:m], bough.carry(bough.nodes[7], 7), atol=1e-9)


def test_stalks_of_a_sheaf_bend_as_their_leader_times_their_factor():
  world = make_world(5)
  leaders = [grow_stem(world), grow_stem(world, (30.0, 80.0))]
  nodes = np.stack([leaders[1].nodes, leaders[1].nodes, leaders[0].nodes])
  flutter = foliage.add_flutters(world, 3, scale=(0.1, 0.2))
  sheaf = Sheaf(nodes, leaders, np.array([1, 1, 0]), factor=[1.0, 2.0, 1.0], hinge=8, flutter=flutter)
  at, who = np.arange(13), np.arange(3)[:, None]
  basis = sheaf.carry(nodes, at[None], who)
  np.testing.assert_array_equal(sheaf.index[1, :3], leaders[1].index)
  np.testing.assert_allclose(basis[0, :, :3], leaders[1].carry(leaders[1].nodes, at), rtol=1e-12)
  np.testing.assert_allclose(basis[1, :, :3], basis[0, :, :3] * np.array([2.0, 4.0, 2.0])[:, None], rtol=1e-12)
  np.testing.assert_allclose(basis[2, :, :3], leaders[0].carry(leaders[0].nodes, at), rtol=1e-12)
  assert not basis[:, 0].any()  # roots are still
  assert not basis[:, :9, 3:].any() and basis[:, 9:, 3:].any()
  turn = np.array([np.sin(0.4), np.cos(0.4) - 1])  # of the courses SINE and COSINE
  assert sheaf.index[0, 3:].tolist() == [course_index(int(flutter[0]), kind) for kind in (SINE, COSINE)]
  arms = nodes[0, 9:] - nodes[0, 8]
  turned = arms + np.einsum("m,nmc->nc", turn, basis[0, 9:, 3:])
  spin = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
  np.testing.assert_allclose(turned, arms @ spin.T, atol=1e-9)


def test_light_falls_on_the_side_of_the_sun_and_less_where_little_sky_is_seen():
  world = make_world(7)
  towards, away = world.sun, -world.sun * [1, -1, -1]  # the second is lit from the other side, as much from above
  lit, dark, deep = (
    foliage.shade(world, np.full(3, 100.0), normal, open=open, thin=0.0).sum()
    for normal, open in ((towards, 1.0), (away, 1.0), (towards, 0.3))
  )
  assert lit > dark and lit > 1.5 * deep
  through = foliage.shade(world, np.full(3, 100.0), -towards, open=1.0, thin=0.8)
  solid = foliage.shade(world, np.full(3, 100.0), -towards, open=1.0, thin=0.0)
  assert (through > solid).all() and through[2] / through[1] < solid[2] / solid[1]  # light through leaves is yellow


def test_ground_covers_what_lies_below_its_edge_and_is_still():
  world = make_world(8)
  foliage.add_ground(world, np.linspace(40, 60, SHAPE[1]), np.array([80.0, 90, 50]))
  scene = show(world)
  shown = scene.layer_ids > 0
  rows = np.arange(SHAPE[0])[:, None] - np.linspace(40, 60, SHAPE[1])
  assert shown[rows > 2].all() and not shown[rows < -1].any()
  assert not scene.displacement([5.0, 9.0]).any()
  foliage.add_ground(world, np.full(SHAPE[1], float(SHAPE[0])), np.zeros(3))
  assert len(world.layers) == 1  # nothing to see


@pytest.mark.parametrize("layout", grasses.LAYOUTS)
@pytest.mark.parametrize("make", grasses.MAKES)
def test_every_grass_in_every_layout_is_seen_and_moves(make, layout):
  for seed in range(5):
    world = make_world(seed, (60, 80))
    grasses.lay_grass(world, grasses.MAKES[make], layout)
    scene = show(world)
    assert (scene.layer_ids > 0).mean() > 0.01
    if np.linalg.norm(scene.displacement([7.0, 20.0]), axis=-1).max() > 0.5:
      return
  raise AssertionError("no scene of five moves")


@pytest.mark.parametrize("kind", [kind for kind in flowers.KINDS if flowers.KINDS[kind].rings])
def test_heads_ride_on_their_stems_tip(kind):
  world, layer = make_world(9), Recorder()
  stem, size = grow_stem(world), 12.0
  nod = int(foliage.add_flutters(world, 1, scale=(0.1, 0.1))[0])
  color = np.array([200.0, 60, 50])
  flowers.add_head(world, layer, stem, -1, size, flowers.KINDS[kind], color, color, nod, 0.0)
  tip = stem.nodes[-1]
  bent = tip + np.einsum("m,mc->c", [0.3, 0.09, 0.0], stem.carry(tip, -1))
  nodding = np.array([0.0, 0.0, 0.0, np.sin(0.4), np.cos(0.4) - 1])
  spin = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
  for points, basis, index, *_rest in layer.added:
    assert np.linalg.norm(points - tip, axis=-1).max() < 2.5 * size
    expected = np.concatenate([stem.index, [course_index(nod, SINE), course_index(nod, COSINE)]])
    np.testing.assert_array_equal(index, np.tile(expected, (len(points), 1)))
    nodded = points + np.einsum("m,...mc->...c", nodding, basis)
    np.testing.assert_allclose(nodded, tip + (points - tip) @ spin, atol=1e-9)
    # When the stem bends, the head turns with its tip and to second order does not grow.
    ridden = points + np.einsum("m,...mc->...c", [0.3, 0.09, 0.0, 0.0, 0.0], basis)
    lengths = [np.linalg.norm(spots - middle, axis=-1) for spots, middle in ((ridden, bent), (points, tip))]
    np.testing.assert_allclose(*lengths, rtol=0.3**4 / 7, atol=1e-9)
  assert len({int(part) for ribbons in layer.added for part in ribbons[4]}) == 1


@pytest.mark.parametrize("kind", trees.KINDS)
def test_every_part_of_a_tree_rides_on_its_trunk_whose_foot_is_still(kind):
  world, layer, base = make_world(10, metres=12.0), Recorder(), np.array([60.0, 90.0])
  look = trees._Look(np.array([90.0, 110, 60]), 2.0, 0.1, foliage.add_flutters(world, 6, scale=(0.2, 0.4)))
  trees._add_tree(world, layer, trees.KINDS[kind], base, 80.0, look, 500, 0.0, 1.0)
  points, basis, index, *_rest = layer.added[0]
  np.testing.assert_allclose(points[0, 0, 1], base)
  assert not basis[0, 0, 1].any() and basis[0, -1, 1].any()
  leaves = 0
  for spots, inherited, courses, *_rest in layer.added[1:]:
    assert (courses[:, : index.shape[1]] == index[0]).all()
    assert (np.abs(inherited[:, :, :, 0]).sum((1, 2, 3)) > 0).all()
    leaves += len(spots) * (len(spots) > 1)
  assert leaves > 200
  crown = np.concatenate([spots.reshape(-1, 2) for spots, *_rest in layer.added])
  assert crown[:, 1].min() < 40 and np.ptp(crown[:, 0]) > 10
