"""The page's calls for other scripts and for a page around its frame; its mixer; what it lets one save."""

import functools
import http.server
import json
import re
import threading

import numpy as np
import pytest
from touching import HIDE_MARKS, find_dot, make_photo, make_volume, open_browser, open_page

import gid_jax as gid


@pytest.fixture(scope="module")
def browser():
  with open_browser() as browser:
    yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A page, and two pages around it in a frame, of which one asks from another site."""
  folder = tmp_path_factory.mktemp("site")
  gid.export_html(make_photo(), make_volume(), folder / "touch.html", title="A plant")
  (folder / "around.html").write_text("""<!doctype html><title>around</title><iframe src="touch.html"></iframe><script>
    const answers = [];
    addEventListener("message", ({ data }) => answers.push(data));
    const ask = (gidTouch, ...args) => frames[0].postMessage({ gidTouch, args, id: answers.length }, "*");
  </script>""")
  return folder


@pytest.fixture(scope="module")
def site(folder):
  """Its address; the same on "localhost" is another site."""

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{server.server_port}"
  server.shutdown()


def test_calls_pull_pin_and_let_go(browser, folder):
  page, complaints = open_page(browser, folder / "touch.html")
  page.add_style_tag(content=HIDE_MARKS + "#hint { display: none }")
  start = find_dot(page)
  box = page.locator("#canvas").bounding_box()
  name = page.evaluate("gidTouch.pull(0.5, 0.5, 0.03, 0)")
  page.wait_for_timeout(300)
  assert np.abs(find_dot(page) - start - [0.03 * box["width"], 0]).max() < 1.5
  pin = page.evaluate("gidTouch.pin(0.4, 0.5)")
  page.wait_for_selector(".pin", state="attached")
  assert page.locator(".finger").count() == 1
  page.evaluate("([a, b]) => Promise.all([gidTouch.release(a), gidTouch.release(b)])", [name, pin])
  page.evaluate("gidTouch.wind({ direction: 90, gusts: 0.2, strength: 2 })")
  page.evaluate("gidTouch.play(true, { speed: 0.5, loop: false })")
  state = "['wind', 'play'].map((id) => $(id)).concat(['direction', 'gusts', 'magnify', 'speed'].map((id) => $(id)))"
  state = state.replace("$(", "document.getElementById(")
  found = page.evaluate(f"{state}.map((element) => element.getAttribute('aria-pressed') ?? element.value)")
  assert found == ["true", "true", "90", "0.2", "2", "0.5"]
  # The slider has eight directions, and the wind goes round.
  for direction, shown in ((-90, "270"), (360, "0"), (350, "0"), (100, "90")):
    page.evaluate(f"gidTouch.wind({{ direction: {direction} }})")
    assert page.input_value("#direction") == shown
  page.evaluate("gidTouch.reset()")
  found = page.evaluate(f"{state}.map((element) => element.getAttribute('aria-pressed') ?? element.value)")
  assert found == ["false", "false", "0", "0.5", "1", "1"]
  for wrong in ("gidTouch.pull(0.5, NaN, 0, 0)", "gidTouch.pin('left', 0)", "gidTouch.load('<p>no page')",
                "gidTouch.record(null)", "gidTouch.record(-1)"):  # fmt: skip
    assert page.evaluate(f"{wrong}.then(() => 'done', (error) => error.name)") == "TypeError"
  assert complaints == []


def test_pins_that_a_script_takes_out_come_back_by_undo(browser, folder):
  page, complaints = open_page(browser, folder / "touch.html")
  page.evaluate("gidTouch.pin(0.4, 0.5)")
  page.wait_for_selector(".pin", state="attached")
  page.evaluate("gidTouch.release()")
  page.wait_for_selector(".pin", state="detached")
  page.locator("#undo").click()
  page.wait_for_selector(".pin", state="attached")
  assert complaints == []


def test_what_a_person_stops_does_not_go_on_by_itself(browser, folder):
  page, complaints = open_page(browser, folder / "touch.html")
  pressed = lambda: page.get_attribute("#play", "aria-pressed")
  page.evaluate("gidTouch.play()")
  page.evaluate("gidTouch.rest()")
  page.evaluate("gidTouch.rest(false)")
  assert pressed() == "true"
  page.evaluate("gidTouch.rest()")
  page.locator("#reset").click()
  page.evaluate("gidTouch.rest(false)")
  assert pressed() == "false" and complaints == []


def test_another_photo_is_opened_in_the_same_page(browser, folder, tmp_path):
  gid.export_html(make_photo(400, 400), make_volume(5, height=24, width=24), tmp_path / "other.html")
  page, complaints = open_page(browser, folder / "touch.html")
  page.evaluate("(text) => gidTouch.load(text)", (tmp_path / "other.html").read_text())
  page.wait_for_timeout(300)
  box = page.locator("#canvas").bounding_box()
  assert box["width"] == pytest.approx(box["height"], abs=2)
  assert page.locator(".band").count() == 4
  with page.expect_download() as download:
    page.locator("#more").click()
    page.locator("#download").click()
  saved = download.value.path().read_text()
  data = re.compile(r'<script type="application/json" id="data">(.*?)</script>')
  assert json.loads(data.search(saved)[1]) == json.loads(data.search((tmp_path / "other.html").read_text())[1])
  assert download.value.suggested_filename == "A plant.html" and saved.startswith("<!doctype html>")
  again, complaints_again = open_page(browser, download.value.path().rename(tmp_path / "saved.html"))
  assert again.locator("#canvas").bounding_box()["width"] > 100 and not again.locator("#panel").is_visible()
  assert complaints == complaints_again == []


def test_only_allowed_sites_move_the_photo_by_messages(browser, site, folder):
  page = browser.new_page(reduced_motion="reduce")
  page.set_default_timeout(120_000)
  page.goto(f"{site}/around.html")
  page.evaluate("ask('pull', 0.5, 0.5, 0.02, 0, 'mine')")
  page.wait_for_function("answers.length === 1")
  page.evaluate("ask('pin', 'nowhere', 0)")
  page.wait_for_function("answers.length === 2")
  answers = page.evaluate("answers")
  assert answers[0] == {"gidTouch": "pull", "id": 0, "result": "mine"}
  assert answers[1]["gidTouch"] == "pin" and answers[1]["error"].startswith("a point is two numbers")
  # The page around is now of another site than the page in the frame.
  (folder / "abroad.html").write_text(
    (folder / "around.html").read_text().replace('src="touch.html"', f'src="{site}/touch.html"'))  # fmt: skip
  page.goto(f"{site}/abroad.html".replace("127.0.0.1", "localhost"))
  page.evaluate("ask('pull', 0.5, 0.5, 0.02, 0)")
  page.wait_for_timeout(1000)
  assert page.evaluate("answers") == []
  abroad = site.replace("127.0.0.1", "localhost")
  gid.export_html(make_photo(), make_volume(), folder / "friendly.html", origins=[abroad])
  around = (folder / "abroad.html").read_text()
  (folder / "friends.html").write_text(around.replace("touch.html", "friendly.html"))
  page.goto(f"{abroad}/friends.html")
  page.evaluate("ask('pin', 0.5, 0.5)")
  page.wait_for_function("answers.length === 1")
  assert page.evaluate("answers[0].result").startswith("pin")


def test_bands_are_heard_alone_or_not_at_all(browser, folder):
  page, complaints = open_page(browser, folder / "touch.html")
  page.locator("#more").click()
  assert page.locator(".band").count() == 5
  assert [page.locator(".band span").nth(i).inner_text() for i in (0, 4)] == ["0.5 Hz", "2.5–3.5 Hz"]
  page.get_by_role("button", name="Only 0.5 Hz").click()
  assert page.locator(".band.off").count() == 4
  page.get_by_role("button", name="Only 0.5 Hz").click()
  page.get_by_role("button", name="Without 0.5 Hz").click()
  assert page.locator(".band.off").count() == 1
  page.get_by_role("button", name="Show where 0.5 Hz swings").click()
  assert page.locator(".map[aria-pressed=true]").count() == 1
  page.keyboard.press("Escape")
  assert page.locator(".band.off").count() == page.locator(".map[aria-pressed=true]").count() == 0
  assert complaints == []


def test_a_video_of_the_motion_is_recorded(browser, folder, tmp_path):
  page, complaints = open_page(browser, folder / "touch.html")
  page.evaluate("gidTouch.play()")
  # A busy machine may draw nothing in the first seconds.
  call = "gidTouch.record({}).then((video) => [video.type, video.size], (error) => [error.message, 0])"
  tries = ((seconds, page.evaluate(call.format(seconds))) for seconds in (2, 8, 32))
  seconds, (kind, size) = next(found for found in tries if found[1][1])
  assert kind in ("video/mp4", "video/webm") and size > 1000
  page.locator("#record").click()
  page.wait_for_timeout(2000 * seconds)
  with page.expect_download() as download:
    page.locator("#record").click()
  path = tmp_path / download.value.suggested_filename
  download.value.save_as(path)
  assert path.name in ("A plant.mp4", "A plant.webm")
  from gid_jax.media.shots import read_frame

  frame = read_frame(path, index=0)
  assert frame.shape[1] / frame.shape[0] == pytest.approx(1.5, abs=0.02) and frame.max() > 180
  assert complaints == []
