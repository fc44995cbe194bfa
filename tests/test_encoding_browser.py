"""Every format that is written, decoded by a browser: the frames that FFmpeg and Pillow find there (test_encoding)."""

import numpy as np
import pytest
from test_encoding import FORMATS, PILLOW, assert_same_picture, make_frames
from touching import open_browser, to_array

from gid_jax.media import encoding

TYPES = {".mp4": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".webp": "image/webp",
         ".avif": "image/avif", ".apng": "image/png", ".png": "image/png"}  # fmt: skip
# What is drawn on a canvas, frame by frame, as base64 of RGBA; null where the browser knows no such codec.
PICTURES = """async type => {
  const data = await (await fetch("/file")).arrayBuffer();
  const decoder = new ImageDecoder({data, type});
  await decoder.tracks.ready; await decoder.completed;
  const frames = [];
  for (let i = 0; i < decoder.tracks.selectedTrack.frameCount; i++)
    frames.push(draw((await decoder.decode({frameIndex: i})).image));
  return frames;
}"""
VIDEO = """async ([number, fps]) => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(await (await fetch("/file")).blob());
  const heard = await new Promise(done => {
    video.onloadeddata = () => done(true); video.onerror = () => done(false);
  });
  if (!heard) return null;
  const frames = [Math.round(video.duration * fps)];
  for (let i = 0; i < number; i++) {
    // A seek ends before its frame is there to be drawn: the frame's own time says when it is.
    const shown = new Promise(done => {
      const look = (now, {mediaTime}) =>
        Math.abs(mediaTime - i / fps) < 0.5 / fps ? done() : video.requestVideoFrameCallback(look);
      video.requestVideoFrameCallback(look);
    });
    await new Promise(done => { video.onseeked = done; video.currentTime = (i + 0.5) / fps; });
    await Promise.race([shown, new Promise(done => setTimeout(done, 5000))]);
    frames.push(draw(video));
  }
  return frames;
}"""
PAGE = """<!doctype html><canvas width=128 height=80></canvas><script>
const context = document.querySelector("canvas").getContext("2d", {willReadFrequently: true});
function draw(picture) {
  context.drawImage(picture, 0, 0);
  const bytes = context.getImageData(0, 0, 128, 80).data;
  return btoa(String.fromCharCode(...bytes.subarray(0, 20480)) + String.fromCharCode(...bytes.subarray(20480)));
}
</script>"""


@pytest.fixture(scope="module")
def browser():
  with open_browser() as opened:
    yield opened


@pytest.mark.parametrize("name, codec", FORMATS)
def test_a_browser_shows_the_frames_that_were_written(browser, tmp_path, name, codec):
  path = tmp_path / name
  encoding.write_video(path, make_frames(), fps=25, codec=codec)
  page = browser.new_page()
  page.set_default_timeout(120_000)
  # An address of its own, where the browser has all of its interfaces and nothing is asked from the network.
  page.route("https://pictures.test/", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
  page.route(
    "https://pictures.test/file",
    lambda route: route.fulfill(body=path.read_bytes(), content_type=TYPES[path.suffix]))
  page.goto("https://pictures.test/")
  if name in PILLOW:
    frames = page.evaluate(PICTURES, TYPES[path.suffix])
  else:
    frames = page.evaluate(VIDEO, [6, 25])
    if frames is None:
      pytest.skip("this browser lacks the codec")
    assert frames.pop(0) == 6
  page.close()
  assert len(frames) == 6
  for index, frame in enumerate(frames):
    shown = to_array(frame, np.uint8).reshape(80, 128, 4)
    assert (shown[..., 3] == 255).all()
    assert_same_picture(shown[..., :3], index, FORMATS[name, codec] + 2)
