"""The page's engine, in Node, beside `modal.py` and NumPy."""

import json
import subprocess

import jax
import numpy as np
import pytest
from touching import (
  FOLDER,
  NODE,
  assert_near,
  make_volume,
  run_engine,
  to_complex,
  to_pairs,
  with_node,
)

from gid_jax.motion import modal

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def basis():
  return modal.spectrum_to_basis(make_volume())


POINTS = np.float32([[15, 10], [12.25, 8.5], [18, 12.75], [40, -3]])
TARGETS = np.float32([[3, -1], [0, 0], [1.5, 2], [0, 0]])
VELOCITIES = np.float32([[-40, 25], [0, 0], [10, 5], [0, 0]])


@with_node
def test_basis_field_and_grabability_are_those_of_modal(basis):
  q = modal.playback(basis, 0.7)
  found = run_engine(
    basis,
    """return { grabability: engine.grabability(basis), compliance: basis.compliance, mobility: basis.mobility,
      gamma: basis.gamma, playback: given.times.map((t) => engine.playback(basis, t)),
      field: engine.displacementField(basis, given.q, new Float32Array(2 * width * height)),
      at: given.points.map((p) => engine.displacementAt(basis, given.q, p)) };""",
    q=to_pairs(q).tolist(), points=POINTS.tolist(), times=[0.0, 0.7, 9.3])  # fmt: skip
  assert_near(found["grabability"], np.ravel(modal.grabability(basis)))
  for name in ("compliance", "mobility", "gamma"):
    assert_near(found[name], getattr(basis, name))
  assert_near(to_complex(found["playback"]), modal.playback(basis, np.array([0.0, 0.7, 9.3])))
  assert_near(found["field"], np.ravel(modal.modal_field(basis, q)))
  assert_near(found["at"], modal.modal_displacement(basis, q, POINTS))


@with_node
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_grab_release_and_poke_are_those_of_modal(basis, count):
  points, targets, velocities = POINTS[:count], TARGETS[:count], VELOCITIES[:count]
  found = run_engine(
    basis,
    """const released = engine.release(basis, given.points, given.targets, given.velocities);
    return { grab: engine.grab(basis, given.points, given.targets), released,
      poked: engine.poke(basis, released, given.points, given.velocities),
      tight: engine.grab(basis, given.points, given.targets, { epsilon: 1e-2, threshold: 0.9 }) };""",
    points=points.tolist(), targets=targets.tolist(), velocities=velocities.tolist())  # fmt: skip
  with jax.enable_x64(True):  # several points near each other need more digits than float32 has
    exact = jax.tree.map(lambda x: x.astype(complex if x.dtype.kind == "c" else float), basis)
    released = modal.release(exact, points, targets, velocities)
    poked = modal.poke(exact, released, points, velocities)
    grabbed = modal.grab(exact, points, targets)
    tight = modal.grab(exact, points, targets, epsilon=1e-2, threshold=0.9)
  assert_near(to_complex(found["grab"]), grabbed)
  assert_near(to_complex(found["tight"]), tight)
  for state, expected in (("released", released), ("poked", poked)):
    assert_near(to_complex(found[state]["q"]), expected.q)
    assert_near(to_complex(found[state]["v"]), expected.v)


@with_node
@pytest.mark.parametrize("rate", [30, 60, 120, 144])
def test_ten_seconds_are_those_of_modal_at_every_rate(basis, rate):
  start = modal.release(basis, POINTS[:1], TARGETS[:1], VELOCITIES[:1])
  force = 0.3 * basis.omega**2 * modal.playback(basis, 0.2)
  seconds = np.arange(1, 11)
  found = run_engine(
    basis,
    """const now = state(given.start), path = [];
    for (let i = 1; i <= 10 * given.rate; i++) {
      engine.step(basis, now, given.force, 1 / given.rate);
      if (i % given.rate === 0) path.push({ q: now.q.slice(), v: now.v.slice() });
    }
    return path;""",
    start={"q": to_pairs(start.q).tolist(), "v": to_pairs(start.v).tolist()},
    force=to_pairs(force).tolist(), rate=rate)  # fmt: skip
  advance = lambda _, state: modal.step(basis, state, force, 1 / rate)
  path, state = [], start
  second = jax.jit(lambda state: jax.lax.fori_loop(0, rate, advance, state))
  for _ in seconds:
    state = second(state)
    path.append(state)
  for name in ("q", "v"):
    values = np.array([getattr(state, name) for state in path])
    assert_near(to_complex([state[name] for state in found]), values)


@with_node
def test_wind_has_the_strength_and_the_band_of_modal(basis):
  count, dt, band = 4096, 1 / 30, (0.1, 6.0)
  found = run_engine(
    basis, "return engine.wind(basis, 4096, 1 / 30, { strength: 0.5, band: [0.1, 6] });")
  found = to_complex(found)
  expected = np.asarray(modal.wind(jax.random.key(0), basis, count, dt, strength=0.5, band=band))
  power = lambda force: np.mean(np.abs(force) ** 2, axis=0)
  np.testing.assert_allclose(power(found), power(expected), rtol=0.25)
  spectrum, frequencies = np.abs(np.fft.fft(found, axis=0)), np.abs(np.fft.fftfreq(count, dt))
  outside = (frequencies < band[0]) | (frequencies > band[1])
  assert spectrum[outside].max() < 1e-6 * spectrum.max()
  assert abs(np.mean(found.real * found.imag)) < 0.1 * np.mean(np.abs(found) ** 2)  # no direction is favoured


@with_node
def test_held_points_stay_under_the_fingers_whatever_else_moves(basis):
  missed = run_engine(
    basis,
    """const scene = new engine.Scene(basis), missed = [];
    scene.playing = scene.windy = true;
    for (let i = 0; i < 90; i++) scene.advance(1 / 60);
    const before = engine.displacementAt(basis, scene.total(), [15, 10]);
    const [x, y] = before;
    scene.hold(1, [15, 10]);
    scene.hold("pin", [12, 8], { pin: true });
    const taken = engine.displacementAt(basis, scene.total(), [15, 10]);
    missed.push(Math.hypot(taken[0] - before[0], taken[1] - before[1]));
    for (let i = 0; i < 120; i++) {
      const at = [x + 2 * Math.sin(i / 20), y - i / 60];
      scene.move(1, at);
      scene.advance(1 / 60);
      const now = engine.displacementAt(basis, scene.total(), [15, 10]);
      missed.push(Math.hypot(now[0] - at[0], now[1] - at[1]));
    }
    missed.push(Math.hypot(...engine.displacementAt(basis, scene.total(), [12, 8])));
    return missed;""")
  assert max(missed) < 0.02


@with_node
def test_a_flick_moves_on_and_everything_comes_to_rest(basis):
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis), p = [15, 10];
    scene.hold(1, p);
    for (let i = 1; i <= 30; i++) { scene.move(1, [i / 15, 0]); scene.advance(1 / 60); }
    scene.letGo(1);
    const before = engine.displacementAt(basis, scene.total(), p);
    scene.advance(1 / 120);
    const after = engine.displacementAt(basis, scene.total(), p);
    const energies = [];
    for (let i = 0; i < 40; i++) {
      energies.push(scene.basis.omega.reduce((sum, w, k) => sum + Math.hypot(scene.free.v[2 * k],
        scene.free.v[2 * k + 1], w * scene.free.q[2 * k], w * scene.free.q[2 * k + 1]) ** 2, 0));
      scene.advance(1);
    }
    return { before, after, energies, still: scene.isStill() };""")
  assert found["before"] == pytest.approx([2, 0], abs=1e-2)
  assert found["after"][0] > 2.005  # 4 px/s, less what already pulls it back
  assert np.all(np.diff(found["energies"]) <= 0) and found["still"]


@with_node
def test_the_point_that_is_seen_somewhere_is_found(basis):
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis);
    scene.hold(1, [15, 10]);
    scene.move(1, [2, -1.5]);
    scene.advance(1 / 60);
    return scene.findPoint([17, 8.5]);""")
  assert found == pytest.approx([15, 10], abs=0.05)


@with_node
def test_what_moves_less_beside_what_moves_more_moves_along():
  rng = np.random.default_rng(0)
  modes = rng.normal(size=(3, 4, 5, 4)).astype(np.float32)
  depth = np.float32([[1, 1, 1, 1, 1], [1, 1.2, 1, 1, 1], [1, 1, 1, 9, 1], [1, 1, 1, 1, 1]])
  script = f"""
    import {{ widen }} from "{(FOLDER / "engine.js").as_uri()}";
    const {{ modes, depth }} = widen(
      Float32Array.from({modes.ravel().tolist()}), Float32Array.from({depth.ravel().tolist()}), 5, 4);
    process.stdout.write(JSON.stringify([[...modes], [...depth]]));"""
  result = subprocess.run([str(NODE), "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
  found_modes, found_depth = json.loads(result.stdout)
  beside = np.zeros((4, 5), bool)
  beside[1:4, 2:5] = True
  expected = np.where(beside[..., None], modes[:, 2:3, 3:4], modes)
  np.testing.assert_allclose(np.reshape(found_modes, modes.shape), expected, rtol=1e-6)
  np.testing.assert_allclose(np.reshape(found_depth, depth.shape), np.where(beside, 9, depth))


def field_of(basis, q):
  """Displacements [h w 2] of coordinates [k]."""
  return np.einsum("khwc,k->hwc", np.asarray(basis.modes, np.complex128), q).real


def stretch_of(field):
  """How much the space between neighbours grows, of each pixel [h w]."""
  right = np.linalg.norm(np.diff(field, axis=1, append=field[:, -1:]), axis=-1)
  below = np.linalg.norm(np.diff(field, axis=0, append=field[-1:]), axis=-1)
  return np.maximum(right, below)


@with_node
def test_a_pull_beyond_reason_tears_nothing_beside_it(basis):
  points = [[15, 10], [12.5, 8.5], [4, 10], [21, 14], [1, 1], [27, 3]]
  ways = [[1e3, 0], [0, -1e3], [-600, 600], [900, 200]]
  found = run_engine(
    basis,
    """return given.points.map((point) => given.ways.map((way) => {
      const scene = new engine.Scene(basis);
      scene.hold(1, point);
      scene.pull(1, way);
      scene.advance(1 / 60);
      return { q: scene.total(), farthest: scene.farthest };
    }));""", points=points, ways=ways)  # fmt: skip
  for point, pulls in zip(points, found, strict=True):
    for way, pull in zip(ways, pulls, strict=True):
      q, most = to_complex(pull["q"]), pull["farthest"]
      field = field_of(basis, q)
      own = np.linalg.norm(modal.modal_displacement(basis, np.complex64(q), np.float32([point])))
      farthest = np.linalg.norm(field, axis=-1).max()
      # The more anything is flung about beside the point, the less far.
      assert farthest <= 1.36 * most * min(1, own / farthest) + 0.1, (point, way)
      assert np.percentile(stretch_of(field), 99) < 0.68, (point, way)
      if point == [15, 10]:
        assert own > 0.7
      if point == [1, 1]:
        assert farthest < 0.7


@with_node
def test_reach_is_what_brute_force_finds(basis):
  point, most, strain = [12.5, 8.5], 2.0, 0.5
  found = run_engine(
    basis, "return engine.findReach(basis, given.point, { most: 2 });", point=point)  # fmt: skip
  expected = []
  for angle in np.pi * np.arange(8) / 8:
    way = np.float32([[np.cos(angle), np.sin(angle)]])
    q = modal.grab(basis, np.float32([point]), way)
    field = field_of(basis, np.asarray(q))
    own = np.linalg.norm(modal.modal_displacement(basis, q, np.float32([point])))
    farthest = np.linalg.norm(field, axis=-1).max()
    steep = np.sort(stretch_of(field).ravel())[int(0.99 * (field[..., 0].size - 1))]
    expected.append(min(most / farthest * min(own / farthest, 1), strain / steep))
  np.testing.assert_allclose(found, expected, rtol=1e-3)


@with_node
def test_muted_bands_fall_silent_and_nothing_held_slips(basis):
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis), missed = [];
    scene.playing = scene.windy = true;
    for (let i = 0; i < 90; i++) scene.advance(1 / 60);
    scene.hold(1, [15, 10]);
    const at = scene.holds.get(1).at;
    scene.setActive(basis.omega.map((_, k) => (k === 0 || k === 3 ? 0 : 1)));
    for (let i = 0; i < 120; i++) {
      scene.advance(1 / 60);
      const now = engine.displacementAt(basis, scene.total(), [15, 10]);
      missed.push(Math.hypot(now[0] - at[0], now[1] - at[1]));
    }
    return { missed, total: scene.total() };""")
  assert max(found["missed"]) < 0.02
  sizes = np.abs(to_complex(found["total"]))
  assert sizes[[0, 3]].max() < 1e-3 < 1e-2 < sizes[[1, 2, 4]].min()


@with_node
@pytest.mark.parametrize("degrees", [0, 90, 225])
def test_a_steady_wind_leans_everything_its_way(basis, degrees):
  angle = np.deg2rad(degrees)
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis);
    scene.windy = true;
    scene.gustiness = 0;
    scene.windAngle = given.angle;
    const mean = new Float64Array(2 * basis.omega.length);
    for (let i = 0; i < 2 * 2048; i++) {
      scene.advance(1 / 30);
      if (i >= 2048) scene.total().forEach((value, j) => (mean[j] += value / 2048));
    }
    return { mean, load: engine.loadEvenly(basis, [Math.cos(given.angle), Math.sin(given.angle)]) };""",
    angle=angle)  # fmt: skip
  modes, omega = np.asarray(basis.modes, np.complex128), np.asarray(basis.omega, np.float64)
  expected = (modes.conj() @ [np.cos(angle), np.sin(angle)]).sum((1, 2)) / omega**2
  expected /= np.linalg.norm(field_of(basis, expected), axis=-1).max()
  assert_near(to_complex(found["load"]), expected)
  # On average it stands where the load holds it.
  assert_near(to_complex(found["mean"]), 0.7 * np.sqrt(float(basis.mobility)) * expected, 0.02)


@with_node
@pytest.mark.parametrize("apart", [0.5, 2.0])
def test_two_fingers_close_together_each_keep_their_own_point(basis, apart):
  """Half a point of the grid apart, and pulled apart and together."""
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis), missed = [];
    const points = [[15, 10], [15 + given.apart, 10]], id = ["a", "b"];
    points.forEach((point, i) => scene.hold(id[i], point));
    for (let t = 0; t < 60; t++) {
      const way = 0.1 * given.apart * Math.sin(t / 6);
      scene.pull("a", [0.4 - way, 0.2]);
      scene.pull("b", [0.4 + way, 0.2]);
      scene.advance(1 / 60);
      points.forEach((point, i) => {
        const [x, y] = engine.displacementAt(basis, scene.total(), point);
        const { at } = scene.holds.get(id[i]);
        missed.push(Math.hypot(x - at[0], y - at[1]));
      });
    }
    scene.letGo("a");
    scene.advance(1 / 60);
    const { at } = scene.holds.get("b");
    const [x, y] = engine.displacementAt(basis, scene.total(), points[1]);
    return { missed, kept: Math.hypot(x - at[0], y - at[1]), names: [...scene.holds.keys()], at };""",
    apart=apart)  # fmt: skip
  assert max(found["missed"]) < 0.03 and found["kept"] < 0.03
  assert found["names"] == ["b"] and np.abs(np.array(found["at"]) - [0.4, 0.2]).max() < 0.11 * apart + 0.01


@with_node
def test_what_is_held_still_comes_to_rest(basis):
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis), still = [];
    scene.hold(1, [15, 10]);
    for (let t = 0; t < 20; t++) {
      scene.pull(1, [0.1 * (t + 1), 0]);
      scene.advance(1 / 60);
      still.push(scene.isStill());
    }
    for (let t = 0; t < 1200; t++) scene.advance(1 / 60);
    const rested = scene.isStill();
    scene.letGo(1);
    scene.advance(1 / 60);
    return { still, rested, after: scene.isStill() };""")
  assert not any(found["still"]) and found["rested"] and not found["after"]


@with_node
def test_without_loop_the_motion_is_played_once(basis):
  found = run_engine(
    basis,
    """const scene = new engine.Scene(basis), playing = [];
    scene.looping = false;
    scene.play(true);
    for (let i = 0; i < 14; i++) { scene.advance(scene.period / 10); playing.push(scene.playing); }
    return { playing, period: scene.period };""")
  assert found["period"] == pytest.approx(2.0)  # 60 frames at 30 a second
  assert found["playing"] == [True] * 9 + [False] * 5


@with_node
def test_only_the_rims_of_what_moves_more_are_cut():
  depth = np.full((5, 9), 0.2)
  depth[1:4, 3:6] = 0.6
  script = f"""
    import {{ findRims }} from "{(FOLDER / "engine.js").as_uri()}";
    process.stdout.write(JSON.stringify([...findRims(Float32Array.from({depth.ravel().tolist()}), 9, 5)]));"""
  result = subprocess.run([str(NODE), "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
  expected = np.zeros((5, 9))
  expected[:, 2:7] = 1
  expected[2, 4] = 0
  np.testing.assert_array_equal(np.reshape(json.loads(result.stdout), (5, 9)), expected)
