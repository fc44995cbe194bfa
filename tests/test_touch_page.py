"""The page that answers to touch, in a browser."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit
from touching import HEIGHT, HIDE_MARKS, WIDTH, find_dot, make_photo, make_volume, open_browser, open_page, take_picture

import gid_jax as gid
from benchmarks.touch import measure
from gid_jax.types import SpectralVolume


def wait_until(page, expression):
  """What `wait_for_function` does by an `eval` that the page's policy forbids wherever it has to wait."""
  while not page.evaluate(expression):
    page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def browser():
  with open_browser() as browser:
    yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("page") / "touch.html"
  photo = np.clip(make_photo() + 0.04 * np.sin(np.arange(540) / 6)[:, None], 0, 1).astype(np.float32)
  gid.export_html(photo, make_volume(), path)
  return path


DOUBLE_TAP = """(where) => {
  for (const kind of ["pointerdown", "pointerup", "pointerdown", "pointerup"]) {
    document.getElementById("canvas").dispatchEvent(new PointerEvent(kind, where));
  }
}"""


COUNT_FRAMES = """() => {
window.drawn = 0;
const clear = WebGL2RenderingContext.prototype.clear;
WebGL2RenderingContext.prototype.clear = function (...args) { window.drawn++; return clear.apply(this, args); };
}"""


def test_a_dragged_feature_stays_under_the_pointer_and_the_wall_stands(browser, page_file):
  page, complaints = open_page(browser, page_file)
  page.add_style_tag(content=HIDE_MARKS + "#hint { display: none }")
  start = find_dot(page)
  before, box = take_picture(page)
  page.mouse.move(*start)
  page.mouse.down()
  page.mouse.move(start[0] + 20, start[1], steps=5)
  page.wait_for_timeout(300)
  assert np.abs(find_dot(page) - start - [20, 0]).max() < 1.5
  during, _ = take_picture(page)
  left, top = round(box["x"]), round(box["y"])
  wall = np.s_[top + 5 : top + 60, left + 5 : left + 60]
  assert before[wall].std() > 2 and np.abs(during[wall] - before[wall]).mean() <= 0.5
  page.mouse.up()
  assert max(np.linalg.norm(find_dot(page) - start - [20, 0]) for _ in range(8)) > 1.5
  page.locator("#reset").click()
  page.wait_for_timeout(200)
  assert np.abs(find_dot(page) - start).max() < 0.5
  assert complaints == []


def test_what_is_let_go_swings_and_dies_as_its_spring_does(browser, tmp_path):
  path = tmp_path / "one.html"
  gid.export_html(make_photo(), make_volume(num_bands=2), path)
  page, complaints = open_page(browser, path, clock=True)
  page.add_style_tag(content=HIDE_MARKS + "#hint { display: none }")
  rest = find_dot(page)
  page.mouse.move(*rest)
  page.mouse.down()
  page.mouse.move(rest[0] + 20, rest[1] + 3, steps=3)
  for _ in range(6):
    page.clock.run_for(100)
  page.mouse.up()
  page.clock.run_for(20)
  times, places = 0.1 * np.arange(28), []
  for _ in times:
    places.append(find_dot(page)[0] - rest[0])
    page.clock.run_for(100)
  swing = lambda t, size, rate, decay, phase: size * np.exp(-decay * t) * np.cos(rate * t + phase)
  (_, rate, decay, _), _ = curve_fit(swing, times, places, (20, 3, 0.5, 0))
  omega = 2 * np.pi * 30 / 60
  half = (0.4 + 0.08 * omega**2) / 2
  assert rate == pytest.approx(np.sqrt(omega**2 - half**2), rel=0.05)
  assert decay == pytest.approx(half, rel=0.05)
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
  assert page.locator("#undo").is_enabled()
  page.keyboard.press("u")
  page.wait_for_selector(".pin", state="detached")
  page.keyboard.press("p")
  page.wait_for_selector(".pin", state="attached")
  page.keyboard.press("p")
  page.wait_for_selector(".pin", state="detached")
  page.keyboard.press("Control+z")
  page.wait_for_selector(".pin", state="attached")
  page.keyboard.press("Escape")
  page.wait_for_selector(".pin", state="detached")
  assert page.locator("#undo").is_disabled()
  page.keyboard.down("b")
  assert page.locator("#before").get_attribute("aria-pressed") == "true"
  page.keyboard.up("b")
  assert page.locator("#before").get_attribute("aria-pressed") == "false"
  page.keyboard.down("b")
  page.evaluate("dispatchEvent(new Event('blur'))")  # and is let go elsewhere
  assert page.locator("#before").get_attribute("aria-pressed") == "false"
  page.keyboard.up("b")
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
  wait_until(page, "document.querySelectorAll('.finger').length === 2")
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


@pytest.mark.parametrize("way", [0.04, -0.04])
def test_the_photo_goes_on_mirrored_beyond_its_edges(browser, tmp_path, way):
  values = np.zeros((2, HEIGHT, WIDTH, 4), np.float32)
  values[1, ..., 0] = 60
  shade = lambda x: 0.1 + 0.8 * x**2
  photo = np.broadcast_to(shade(np.arange(540)[None, :, None] / 540), (360, 540, 3)).astype(np.float32)
  gid.export_html(photo, SpectralVolume(jnp.asarray(values), 60, 30.0), tmp_path / "ramp.html")
  page, complaints = open_page(browser, tmp_path / "ramp.html")
  page.add_style_tag(content=HIDE_MARKS)
  page.evaluate(f"gidTouch.pull(0.5, 0.5, {way}, 0)")
  page.wait_for_timeout(300)
  image, box = take_picture(page)
  row = image[round(box["y"] + box["height"] / 4), round(box["x"]) + 2 : round(box["x"] + box["width"]) - 2]
  x = (np.arange(len(row)) + 2.5) / box["width"] - way
  assert np.abs(row - 255 * shade(1 - np.abs(1 - np.abs(x)))).max() < 4
  assert complaints == []


def test_grip_colours_what_moves_and_darkens_the_rest(browser, page_file):
  page, complaints = open_page(browser, page_file)
  page.add_style_tag(content=HIDE_MARKS)
  before, box = take_picture(page)
  page.locator("#grip").dispatch_event("click")
  page.wait_for_timeout(500)
  after, _ = take_picture(page)

  def at(image, x, y):
    return image[round(box["y"] + y * box["height"]) :, round(box["x"] + x * box["width"]) :][:9, :9].mean()

  assert at(after, 0.05, 0.05) < 0.6 * at(before, 0.05, 0.05)
  assert at(after, 0.53, 0.5) > 1.5 * at(before, 0.53, 0.5)
  page.locator("#grip").dispatch_event("click")
  page.wait_for_timeout(500)
  assert np.abs(take_picture(page)[0] - before).max() < 2
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(browser, page_file, scheme):
  page, complaints = open_page(
    browser, page_file, viewport={"width": 390, "height": 780}, device_scale_factor=3, has_touch=True, is_mobile=True,
    color_scheme=scheme)  # fmt: skip
  assert page.evaluate("document.documentElement.scrollWidth") <= 390
  assert page.evaluate("canvas.width / canvas.clientWidth") == pytest.approx(3, rel=0.01)
  canvas, hint = (page.locator(name).bounding_box() for name in ("#canvas", "#hint"))
  buttons = page.locator("#play").bounding_box()
  assert canvas["y"] + canvas["height"] < hint["y"] < buttons["y"] - hint["height"]
  page.locator("#more").click()
  page.wait_for_timeout(200)
  assert page.locator("#canvas").bounding_box()["height"] > 150
  for button in page.locator("button:visible").all():
    box = button.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 38
  bright = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
  assert bright > 200 if scheme == "light" else bright < 50
  assert complaints == []


def test_every_control_has_a_name(browser, page_file):
  page, _ = open_page(browser, page_file)
  page.locator("#more").click()
  names = page.evaluate("""[...document.querySelectorAll("button, input, canvas[tabindex]")].map((element) =>
    element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent)""")
  assert len(names) > 25 and all(name.strip() for name in names) and len(set(names)) == len(names)


def test_who_wants_less_motion_gets_a_photo_at_rest(browser, page_file):
  page, _ = open_page(browser, page_file)
  assert page.locator("#play").get_attribute("aria-pressed") == "false"
  # Of two changes within one frame a page hears nothing, so the first is waited for.
  page.evaluate("""() => {
    window.heard = false;
    window.wish = matchMedia("(prefers-reduced-motion: reduce)");
    window.wish.addEventListener("change", () => (window.heard = true));
  }""")
  page.emulate_media(reduced_motion="no-preference")
  wait_until(page, "heard")
  page.locator("#play").click()
  page.locator("#wind").click()
  page.emulate_media(reduced_motion="reduce")
  page.wait_for_selector("#controls [aria-pressed=true]", state="detached")


def test_a_frame_is_two_draw_calls_and_two_small_uploads(browser, page_file):
  counts = measure(browser, page_file, 3, (400, 360))
  assert counts["frames"] == 3 <= counts["shown"] and counts["calls"] == 2 * counts["frames"]
  places, triangles = 8 * (HEIGHT + 1) * (WIDTH + 1), 2 * 12 * HEIGHT * WIDTH
  assert places <= counts["bytes"] / counts["frames"] <= places + triangles


def test_what_is_held_still_is_not_drawn(browser, page_file):
  page, _ = open_page(browser, page_file, clock=True)
  page.evaluate(COUNT_FRAMES)
  x, y = find_dot(page)
  page.mouse.move(x, y)
  page.mouse.down()
  page.clock.run_for(1000)
  page.evaluate("drawn = 0")
  page.clock.run_for(500)
  assert page.evaluate("drawn") == 0
  page.mouse.move(x + 15, y)
  page.clock.run_for(100)
  assert page.evaluate("drawn") > 2
