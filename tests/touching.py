"""What the tests of the page that answers to touch share: a plant before a wall, the engine in Node, a browser."""

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

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


@contextlib.contextmanager
def open_browser():
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


def listen(page, complaints):
  """Adds what the page says to its complaints, but not what a driver says of the pixels that tests read."""
  page.on("console", lambda message: "OpenGL, Performance" in message.text or complaints.append(message.text))
  page.on("pageerror", lambda error: complaints.append(str(error)))


def open_page(browser, path, *, clock=False, **options):
  """The page in a window of its own, drawn and at rest, and what it complains of; with a clock that stands still."""
  options = {"viewport": {"width": 800, "height": 640}, "reduced_motion": "reduce"} | options
  page = browser.new_page(**options)
  page.set_default_timeout(120_000)
  complaints = []
  listen(page, complaints)
  known = ("data:", "file:", "blob:")
  page.on("request", lambda request: request.url.startswith(known) or complaints.append(request.url))
  if clock:
    page.clock.install()
  page.goto(path.as_uri())
  page.evaluate("gidTouch.release()")
  if clock:
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    page.clock.run_for(50)
  else:
    page.wait_for_timeout(300)
  return page, complaints


def take_picture(page):
  """What the window shows, grey [h w] float64, and the canvas's box."""
  image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), np.float64)
  return image, page.locator("#canvas").bounding_box()


def find_dot(page):
  """The centre of the white dot, pixels of the window."""
  image, box = take_picture(page)
  left, top = round(box["x"]), round(box["y"])
  image = image[top + 12 : round(top + box["height"] - 60), left + 12 : round(left + box["width"]) - 12]
  weights = np.clip(image - 140, 0, None)
  y, x = np.mgrid[: image.shape[0], : image.shape[1]]
  return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum() + [left + 12.5, top + 12.5]


# The ring around a finger would be taken for the dot.
HIDE_MARKS = "#marks { display: none }"
