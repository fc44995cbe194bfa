"""Films ten seconds of the page that answers to touch: two pulls, and how they swing.

  gid animate examples/photos/blossom.jpg --output blossom.html
  python -m benchmarks.touch_film blossom.html --output docs/touch.webp

The page's clock is stepped from frame to frame, so the film is the same on slow and fast machines. Needs playwright and
chromium.
"""

import argparse
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.touch import BROWSER

FPS = 12
SECONDS = 10
SIZE = (720, 480)
MAX_BYTES = 3_000_000
QUALITIES = (80, 70, 60, 50, 40, 30)
# Start and end in seconds, and places in parts of that photo through which the finger goes in that time.
PULLS = (
  (0.6, 4.0, ((0.53, 0.72), (0.46, 0.73), (0.47, 0.76), (0.60, 0.72), (0.61, 0.70))),
  (6.0, 8.0, ((0.74, 0.60), (0.70, 0.62), (0.71, 0.63), (0.79, 0.59))),
)


def film(page_file: Path) -> list[Image.Image]:
  """Frames of the page, of which a finger pulls twice."""
  from playwright.sync_api import sync_playwright

  frames = []
  with sync_playwright() as player:
    browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
    page = browser.new_page(
      viewport={"width": SIZE[0], "height": SIZE[1]}, reduced_motion="reduce", color_scheme="light")
    page.set_default_timeout(600_000)
    page.clock.install()
    page.goto(page_file.resolve().as_uri())
    page.evaluate("gidTouch.release()")
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    corner, sides = np.array([box["x"], box["y"]]), np.array([box["width"], box["height"]])
    for index in range(FPS * SECONDS):
      time = index / FPS
      for start, end, places in PULLS:
        if not start - 0.5 / FPS <= time <= end + 1.5 / FPS:
          continue
        # Slow at first and at each turn, as a hand is.
        way = np.clip((time - start) / (end - start), 0, 1) * (len(places) - 1)
        step = min(int(way), len(places) - 2)
        part = way - step
        part = part * part * (3 - 2 * part)
        place = (1 - part) * np.array(places[step]) + part * np.array(places[step + 1])
        page.mouse.move(*(corner + place * sides))
        if abs(time - start) <= 0.5 / FPS:
          page.mouse.down()
        if time > end:
          page.mouse.up()
      page.clock.run_for(round(1000 / FPS))
      frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    browser.close()
  return frames


def encode(frames: list[Image.Image]) -> bytes:
  """An animated WebP of at most `MAX_BYTES`."""
  content = b""
  for quality in QUALITIES:
    buffer = io.BytesIO()
    frames[0].save(
      buffer, "WEBP", save_all=True, append_images=frames[1:], duration=round(1000 / FPS), loop=0, quality=quality,
      method=4)  # fmt: skip
    content = buffer.getvalue()
    if len(content) <= MAX_BYTES:
      break
  return content


def main() -> None:
  """Films and writes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("page", type=Path)
  parser.add_argument("--output", type=Path, required=True)
  options = parser.parse_args()
  content = encode(film(options.page))
  options.output.write_bytes(content)
  print(f"Wrote {options.output}: {FPS * SECONDS} frames, {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
  main()
