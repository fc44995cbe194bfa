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
from gid_jax.app import cli
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


DOT = (0.5, 0.5)  # of the picture; the brightest place, in the middle of what moves


def make_photo(height=360, width=540, *, noise=0.0):
  """A dark picture with a white dot in the middle."""
  y, x = np.mgrid[:height, :width]
  image = np.full((height, width, 3), 0.2, np.float32)
  image += np.random.default_rng(0).uniform(-noise, noise, image.shape).astype(np.float32)
  far = np.hypot(x - DOT[0] * width, y - DOT[1] * height)
  return np.where((far < 5)[..., None], 1.0, np.clip(image, 0, 1)).astype(np.float32)


def read_data(path):
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


def to_array(text, dtype):
  return np.frombuffer(base64.b64decode(text), dtype)


def test_the_file_holds_photo_and_modes_and_asks_for_nothing(tmp_path):
  path, volume, photo = tmp_path / "a.html", make_volume(), make_photo()
  gid.export_html(photo, volume, path, title='</title><script>alert("x")</script> {{data}} & more')
  text = path.read_text()
  assert not re.search(r"(https?:)?//[\w.-]+\.\w", re.sub(r'"[A-Za-z0-9+/=]{200,}"', "", text))
  assert not re.search(r"<(link|img|iframe)\b|\bfetch\(|XMLHttpRequest|\bimport\b.*\bfrom\b|@import|url\(", text)
  assert "<title>&lt;/title&gt;&lt;script&gt;alert(&quot;x&quot;)" in text and "{{data}} &amp; more" in text
  assert "alert(" not in text.replace("&lt;script&gt;alert(", "")
  data, basis = read_data(path), modal.spectrum_to_basis(volume)
  modes, scales = modes_to_channels(basis.modes), np.float32(data["scales"])
  found = to_array(data["modes"], "<i2").reshape(modes.shape) * scales[:, None, None, None]
  assert (data["height"], data["width"]) == (HEIGHT, WIDTH)
  assert np.all(np.abs(found - modes) <= 0.51 * scales[:, None, None, None])
  assert np.all(scales < 1e-4 * np.abs(modes).max((1, 2, 3)))
  np.testing.assert_allclose(data["omega"], basis.omega, rtol=1e-6)
  depth = to_array(data["depth"], "<u2").reshape(HEIGHT, WIDTH) / 65535
  assert depth.max() == 1 and depth[0, 0] < 0.01 and depth[HEIGHT // 2, WIDTH // 2] > 0.5
  shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["photo"]))).convert("RGB")) / 255
  assert shown.shape == photo.shape and np.abs(shown - photo).mean() < 0.01


@with_node
def test_the_engine_reads_the_modes_as_they_were_written(tmp_path):
  path, volume = tmp_path / "a.html", make_volume()
  gid.export_html(make_photo(), volume, path)
  data, basis = read_data(path), modal.spectrum_to_basis(volume)
  values = to_array(data["modes"], "<i2").tolist()
  found = run_engine(
    basis, "return engine.decodeModes(Int16Array.from(given.values), given.scales);",
    values=values, scales=data["scales"])  # fmt: skip
  assert_near(found, modes_to_channels(basis.modes).ravel())


def test_a_large_noisy_photo_and_a_fine_grid_stay_below_six_megabytes(tmp_path):
  path = tmp_path / "large.html"
  gid.export_html(make_photo(1080, 1920, noise=0.2), make_volume(16, 150, 144, 256), path)
  assert path.stat().st_size <= 6e6
  data = read_data(path)
  assert 0.95e6 < (len(data["scales"]) * data["width"] * data["height"] * 4) <= 1e6
  assert data["width"] / data["height"] == pytest.approx(256 / 144, rel=0.02)
  photo = Image.open(io.BytesIO(base64.b64decode(data["photo"])))
  assert photo.size == (1920, 1080)


def test_a_photo_is_brought_to_the_size_asked_for(tmp_path):
  gid.export_html(make_photo(), make_volume(), tmp_path / "a.html", size=270)
  photo = Image.open(io.BytesIO(base64.b64decode(read_data(tmp_path / "a.html")["photo"])))
  assert photo.size == (270, 180)


def test_pages_that_cannot_be_written_are_refused(tmp_path):
  photo, volume, path = make_photo(), make_volume(), tmp_path / "a.html"
  with pytest.raises(UserError, match=r"unknown page format '\.htm'; use \.html"):
    gid.export_html(photo, volume, tmp_path / "a.htm")
  path.write_text("mine")
  with pytest.raises(UserError, match="already exists"):
    gid.export_html(photo, volume, path)
  with pytest.raises(UserError, match="take one of the batch"):
    gid.export_html(photo, volume.replace(coefficients=volume.coefficients[None]), path, overwrite=True)
  assert path.read_text() == "mine" and [file.name for file in tmp_path.iterdir()] == ["a.html"]
  gid.export_html(photo, volume, path, overwrite=True)
  assert path.read_text().startswith("<!doctype html>")


def test_the_plate_shows_what_is_behind_and_leaves_the_rest():
  height, width = 96, 144
  y, x = np.mgrid[:height, :width]
  plant = np.abs(x - 72) < 8
  image = np.where(plant[..., None], np.float32([0.1, 0.9, 0.1]), np.float32([0.6, 0.5, 0.4]))
  plate = export.make_plate(image, np.float32(plant)[::4, ::4] * 3)
  np.testing.assert_allclose(plate, np.broadcast_to(np.float32([0.6, 0.5, 0.4]), plate.shape), atol=0.02)
  # What moves more and more without an edge hides nothing.
  np.testing.assert_allclose(export.make_plate(image, np.float32(1 + y / height)), image, atol=1e-6)
  np.testing.assert_allclose(export.make_plate(image, np.zeros((24, 36), np.float32)), image, atol=1e-6)


class FakeAnimator:
  """Predicts one motion at once."""

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, **_):
    return make_volume()


def test_the_command_writes_a_page_of_a_photo_and_refuses_a_video(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("gid_jax.pipeline.Animator", FakeAnimator)
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.chdir(tmp_path)
  Image.fromarray(np.uint8(255 * make_photo(90, 120))).save("garden.png")
  assert cli.main(["animate", "garden.png", "--output", "a.html", "--magnify", "3", "--wind", "calm"]) == 0
  assert "Wrote a.html: " in capsys.readouterr().out
  assert "<title>garden</title>" in Path("a.html").read_text()
  largest = np.abs(modes_to_channels(modal.spectrum_to_basis(make_volume()).modes)).max((1, 2, 3))
  np.testing.assert_allclose(read_data(Path("a.html"))["scales"], 1.5 * largest / 32767, rtol=1e-5)
  gid.write_video("film.mp4", (np.full((32, 48, 3), 20 * i, np.uint8) for i in range(10)), fps=10)
  assert cli.main(["animate", "film.mp4", "--output", "b.html"]) == 2
  assert "b.html: a page answers to touch with a photo, and film.mp4 is a video" in capsys.readouterr().err
  assert not Path("b.html").exists()


@pytest.fixture(scope="module")
def browser():
  """A browser that draws without a graphics card."""
  playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
  path = shutil.which("chromium")
  if path is None:
    pytest.skip("chromium is not installed")
  options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
  with playwright.sync_playwright() as player:
    browser = player.chromium.launch(executable_path=path, args=options)
    yield browser
    browser.close()


def open_page(browser, path, **options):
  """The page in a window of its own, drawn and at rest, and what it complains of."""
  page = browser.new_page(viewport={"width": 800, "height": 640}, reduced_motion="reduce", **options)
  complaints = []
  page.on("console", lambda message: complaints.append(message.text))
  page.on("pageerror", lambda error: complaints.append(str(error)))
  page.on("request", lambda request: request.url.startswith(("data:", "file:")) or complaints.append(request.url))
  page.goto(path.as_uri())
  page.wait_for_function("document.getElementById('canvas').width > 400")
  page.wait_for_timeout(300)
  return page, complaints


def find_dot(page):
  """The centre of the white dot, pixels of the window."""
  image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), np.float64)
  box = page.locator("#canvas").bounding_box()
  left, top = round(box["x"]), round(box["y"])
  image = image[top + 12 : round(top + box["height"] - 60), left + 12 : round(left + box["width"]) - 12]
  weights = np.clip(image - 140, 0, None)
  y, x = np.mgrid[: image.shape[0], : image.shape[1]]
  return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum() + [left + 12.5, top + 12.5]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("page") / "touch.html"
  gid.export_html(make_photo(), make_volume(), path)
  return path


DOUBLE_TAP = """(where) => {
  for (const kind of ["pointerdown", "pointerup", "pointerdown", "pointerup"]) {
    document.getElementById("canvas").dispatchEvent(new PointerEvent(kind, where));
  }
}"""
# The ring around a finger would be taken for the dot.
HIDE_MARKS = "#marks { display: none }"


def test_a_dragged_feature_stays_under_the_pointer_and_swings_back(browser, page_file):
  page, complaints = open_page(browser, page_file)
  page.add_style_tag(content=HIDE_MARKS)
  start = find_dot(page)
  page.mouse.move(*start)
  page.mouse.down()
  page.mouse.move(start[0] + 20, start[1], steps=5)
  page.wait_for_timeout(300)
  assert np.abs(find_dot(page) - start - [20, 0]).max() < 1.5
  page.mouse.up()
  page.wait_for_timeout(150)
  assert np.linalg.norm(find_dot(page) - start - [20, 0]) > 1.5
  page.locator("#reset").click()
  page.wait_for_timeout(200)
  assert np.abs(find_dot(page) - start).max() < 0.5
  assert complaints == []


def test_keys_pull_play_and_pin(browser, page_file):
  page, complaints = open_page(browser, page_file)
  page.keyboard.press("Tab")
  assert page.evaluate("document.activeElement.id") == "canvas"
  assert page.locator("#crosshair").is_visible()
  page.keyboard.press("Space")
  assert page.locator("#play").get_attribute("aria-pressed") == "true"
  page.keyboard.press("Space")
  page.keyboard.press("p")
  page.wait_for_selector(".pin", state="attached")
  assert page.locator("#unpin").is_enabled()
  page.keyboard.press("u")
  page.wait_for_selector(".pin", state="detached")
  page.keyboard.down("ArrowRight")
  page.wait_for_selector(".finger", state="attached")
  page.keyboard.up("ArrowRight")
  page.wait_for_selector(".finger", state="detached")
  assert complaints == []


def test_several_fingers_a_tap_and_a_double_tap(browser, page_file):
  page, complaints = open_page(browser, page_file, has_touch=True)
  x, y = find_dot(page)
  client = page.context.new_cdp_session(page)

  def touch(kind, *points):
    client.send("Input.dispatchTouchEvent", {
      "type": kind, "touchPoints": [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]})  # fmt: skip

  touch("touchStart", (x, y), (x + 60, y))
  touch("touchMove", (x - 15, y), (x + 60, y - 12))
  page.wait_for_function("document.querySelectorAll('.finger').length === 2")
  touch("touchEnd")
  page.wait_for_selector(".finger", state="detached")
  page.locator("#reset").click()
  page.add_style_tag(content=HIDE_MARKS)
  page.wait_for_timeout(500)
  page.touchscreen.tap(x, y)
  assert max(np.linalg.norm(find_dot(page) - [x, y]) for _ in range(10)) > 1
  page.locator("#reset").click()
  # Both taps in one go, however busy the machine is.
  page.evaluate(DOUBLE_TAP, {"clientX": x, "clientY": y, "pointerId": 7, "pointerType": "touch"})
  page.wait_for_selector(".pin", state="attached")
  assert complaints == []


def test_a_lost_context_comes_back(browser, page_file):
  page, complaints = open_page(browser, page_file)
  page.add_style_tag(content=HIDE_MARKS)
  before = find_dot(page)
  lose = "window.lost = document.getElementById('canvas').getContext('webgl2').getExtension('WEBGL_lose_context')"
  page.evaluate(f"{lose}; window.lost.loseContext()")
  page.wait_for_timeout(200)
  page.evaluate("window.lost.restoreContext()")
  page.wait_for_timeout(500)
  assert np.abs(find_dot(page) - before).max() < 0.5
  assert [text for text in complaints if "CONTEXT_LOST" not in text] == []


def test_without_webgl_the_page_says_so(browser, page_file):
  page = browser.new_page()
  page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
  page.goto(page_file.as_uri())
  page.wait_for_timeout(200)
  assert "WebGL 2" in page.locator("#message").inner_text()
  assert not page.locator("#controls").is_visible()
