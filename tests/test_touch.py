"""The page that answers to touch: its engine beside `modal.py`, its file, and a finger in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gid_jax as gid
from gid_jax.errors import UserError
from gid_jax.motion import modal
from gid_jax.touch import export
from gid_jax.types import SpectralVolume

FOLDER = Path(export.__file__).parent
HEIGHT, WIDTH = 20, 30
NODE = shutil.which("node")
with_node = pytest.mark.skipif(NODE is None, reason="node is not installed; it runs the page's engine")

RUN = """
import * as engine from "%s";
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0, "utf8"));
const { width, height, omega } = given;
const basis = engine.makeBasis(Float32Array.from(given.modes), width, height, omega);
const state = (from) => ({ q: Float64Array.from(from.q), v: Float64Array.from(from.v) });
const plain = (value) =>
  ArrayBuffer.isView(value) ? [...value] : Array.isArray(value) ? value.map(plain)
  : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]))
  : value;
const result = await (async () => { %s })();
process.stdout.write(JSON.stringify(plain(result)));
"""


def make_volume(num_bands=8, num_frames=60, height=HEIGHT, width=WIDTH):
  """A plant around the middle that sways, before a wall that moves a thousand times less."""
  rng = np.random.default_rng(3)
  y, x = np.mgrid[:height, :width]
  far = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / (0.2 * width) ** 2
  reach = np.exp(-far) + 1e-3
  phases = rng.normal(size=(num_bands, 4)) * np.exp(-np.arange(num_bands) / 3)[:, None]
  rates, offsets = rng.uniform(0.2, 0.6, (num_bands, 1, 1)), rng.uniform(0, 6, (num_bands, 1, 1))
  texture = 1 + 0.4 * np.sin(x[None] * rates + offsets)
  values = 60 * phases[:, None, None, :] * (reach * texture)[..., None]
  return SpectralVolume(jnp.asarray(values, jnp.float32), num_frames, 30.0)


@pytest.fixture(scope="module")
def basis():
  return modal.spectrum_to_basis(make_volume())


def modes_to_channels(modes):
  modes = np.asarray(modes)
  return np.concatenate([modes.real, modes.imag], -1)


def to_pairs(values):
  return np.stack([np.real(values), np.imag(values)], -1).reshape(*np.shape(values)[:-1], -1)


def to_complex(pairs):
  pairs = np.asarray(pairs, np.float64)
  return pairs[..., ::2] + 1j * pairs[..., 1::2]


def run_engine(basis, body, **given):
  """What a piece of JavaScript returns, with the basis and more values before it."""
  given |= {
    "modes": modes_to_channels(basis.modes).ravel().tolist(), "height": basis.modes.shape[1],
    "width": basis.modes.shape[2], "omega": np.asarray(basis.omega, np.float64).tolist(),
  }  # fmt: skip
  script = RUN % ((FOLDER / "engine.js").as_uri(), body)
  command = [str(NODE), "--input-type=module", "-e", script]
  result = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


def assert_near(found, expected, tolerance=1e-4):
  """Equal to within a part of the largest value."""
  expected = np.asarray(expected)
  assert np.abs(np.asarray(found) - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-6)


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
