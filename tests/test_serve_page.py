"""The server's page in a browser: a photo is sent, waited for, and touched."""

import numpy as np
import pytest
from PIL import Image
from serving import FakeMaker, run_server, until
from test_touch import make_photo, make_volume
from touching import listen, open_browser

import gid_jax as gid
from gid_jax.bundle import Bundle

INSIDE = "document.querySelector('iframe').contentDocument"


COUNT_FRAMES = """
window.drawn = 0;
const clear = WebGL2RenderingContext.prototype.clear;
WebGL2RenderingContext.prototype.clear = function (...args) { window.drawn++; return clear.apply(this, args); };
"""


class QuickMaker(FakeMaker):
  """A motion at once, and the page that answers to touch."""

  def sample(self, photo, seed, report):
    self._wait(seed, "sampling", report)
    return Bundle(photo, make_volume(), seed, {})

  def write_page(self, bundle, path, *, title):
    gid.export_html(bundle.photo.astype(np.float32) / 255, bundle.spectrum, path, title=title)


@pytest.fixture(scope="module")
def browser():
  with open_browser() as browser:
    yield browser


def test_a_photo_is_sent_waited_for_grabbed_and_dragged(browser, tmp_path):
  """And nothing is asked from anywhere else, nothing is against the policy, and all of it can be saved."""
  photo = tmp_path / "garden.png"
  Image.fromarray(np.uint8(255 * make_photo())).save(photo)
  folder = tmp_path / "jobs"
  folder.mkdir()
  maker = QuickMaker(is_patient=True)
  with run_server(maker, folder, max_upload=1_000_000) as client:
    page = browser.new_page(viewport={"width": 800, "height": 640}, reduced_motion="reduce")
    page.set_default_timeout(300_000)
    complaints = []
    listen(page, complaints)
    own = (str(client.base_url), "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or complaints.append(request.url))
    page.goto(str(client.base_url))
    assert page.get_by_role("status").first.text_content() is not None
    page.set_input_files("#file", photo)
    page.locator("#text", has_text="Sampling").wait_for()
    assert page.get_by_role("button", name="Cancel").is_visible()
    assert page.get_by_role("button", name="Another motion").is_disabled()
    maker.permit()
    frame = page.frame_locator("iframe")
    canvas = frame.locator("#canvas")
    canvas.wait_for()
    until(lambda: page.evaluate(f"{INSIDE}.getElementById('canvas').width") > 200)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    frame.locator(".finger").wait_for(state="attached")
    page.mouse.move(x + 20, y, steps=4)
    ring = frame.locator(".finger")
    until(lambda: abs(ring.bounding_box()["x"] + 17 - (x + 20)) < 3)
    page.mouse.up()
    frame.locator(".finger").wait_for(state="detached")
    # What docs/serving.md shows for one's own page.
    page.evaluate(f"{INSIDE}.getElementById('grip').click()")
    assert frame.locator("#grip").get_attribute("aria-pressed") == "true"
    # What cannot be read says so, and leads back.
    (tmp_path / "notes.jpg").write_text("no photo")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    page.get_by_role("alert").filter(has_text="use JPEG, PNG or WebP.").wait_for()
    page.get_by_role("button", name="garden, motion 1").click()
    canvas.wait_for()
    assert not page.locator("#strip").is_visible()
    maker.permit()
    page.get_by_role("button", name="Another motion").click()
    page.get_by_role("button", name="garden, motion 2").wait_for()
    page.locator("#motion", has_text="motion 2").wait_for()
    page.locator("#save summary").click()
    for name in ("html", "gid"):
      with page.expect_download() as download:
        page.locator(f"#{name}").click()
      assert download.value.suggested_filename == f"garden.{name}"
      page.locator("#save summary").click()
    maker.permit()
    with page.expect_download() as download:
      page.locator("#mp4").click()
    assert download.value.suggested_filename == "garden.mp4"
    job = next(job for job in client.desk._jobs.values() if job.seed == 1)
    assert job.num_listeners == 1
    page.close()
    assert complaints == []


def test_the_page_rests_while_the_server_works_and_then_goes_on(browser, tmp_path):
  """Nothing is drawn over and over, in the frame or around it, and the motion that was played plays again."""
  Image.fromarray(np.uint8(255 * make_photo())).save(tmp_path / "garden.png")
  (tmp_path / "jobs").mkdir()
  maker = QuickMaker(is_patient=True)
  with run_server(maker, tmp_path / "jobs", max_upload=1_000_000) as client:
    page = browser.new_page(viewport={"width": 500, "height": 500}, reduced_motion="no-preference")
    page.set_default_timeout(300_000)
    page.add_init_script(COUNT_FRAMES)
    page.goto(str(client.base_url))
    page.set_input_files("#file", tmp_path / "garden.png")
    page.locator("#text", has_text="Sampling").wait_for()
    endless = "document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime === Infinity).length"
    assert page.evaluate(endless) == 0
    maker.permit()
    play = page.frame_locator("iframe").locator("#play[aria-pressed=true]")
    play.wait_for()
    drawn = "document.querySelector('iframe').contentWindow.drawn"
    until(lambda: page.evaluate(drawn) > 3)
    page.get_by_role("button", name="Another motion").click()
    play.wait_for(state="detached")
    counts = [-1, page.evaluate(drawn)]
    while counts[-1] != counts[-2]:  # its motion fades
      page.wait_for_timeout(300)
      counts.append(page.evaluate(drawn))
    before = page.evaluate(drawn)
    page.evaluate("document.querySelector('iframe').contentWindow.gidTouch.pull(0.5, 0.5, 0.03, 0)")
    until(lambda: page.evaluate(drawn) > before)
    another = next(job.id for job in client.desk._jobs.values() if job.seed == 1)
    before = page.evaluate(drawn)
    client.delete(f"/jobs/{another}")
    play.wait_for()
    until(lambda: page.evaluate(drawn) > before + 3)
    page.close()


def test_cancel_ends_an_upload_and_a_page_that_cannot_be_had_is_told(browser, tmp_path):
  Image.fromarray(np.uint8(255 * make_photo())).save(tmp_path / "garden.png")
  (tmp_path / "jobs").mkdir()
  with run_server(QuickMaker(), tmp_path / "jobs", max_upload=1_000_000) as client:
    page = browser.new_page(viewport={"width": 500, "height": 500}, reduced_motion="reduce")
    page.set_default_timeout(300_000)
    complaints, failed = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: failed.append(request.method))
    page.goto(str(client.base_url))
    page.route("**/jobs?name=*", lambda route: None)  # is never answered
    page.set_input_files("#file", tmp_path / "garden.png")
    page.get_by_role("button", name="Cancel").click()
    until(lambda: page.evaluate("1") and failed == ["POST"])
    page.unroute("**/jobs?name=*")
    page.route("**/page", lambda route: route.fulfill(status=404, body="gone"))
    page.set_input_files("#file", tmp_path / "garden.png")
    page.get_by_role("status").first.filter(has_text="could not be loaded").wait_for()
    assert page.locator("iframe").count() == 0
    page.unroute("**/page")
    page.reload()
    page.frame_locator("iframe").locator("#canvas").wait_for()
    assert complaints == []
    page.close()
