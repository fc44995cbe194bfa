"""Claim: on a warm server a photo of 12 megapixels can be touched within six seconds of being sent.

  python -m benchmarks.serve [--width 4032] [--height 3024] [--rounds 4] [--weights FOLDER]

Starts `gid serve` and waits until it is warm, as the processor's time in /proc says (Linux). Sends the photo, the
bundled one enlarged with noise, again and again: seconds from the first byte to "ready", of which until its turn came;
then those to fetch its page. Then in a browser, as often: seconds from the address to the first frame of a pull, the
first of them while the browser itself starts, and from choosing the file to the first frame of a pull. At last sends it
once more, and ends the server by SIGTERM while it works. Needs the extra `serve`, httpx, and for what is measured in a
browser playwright and chromium.
"""

import argparse
import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

import gid_jax
from benchmarks.touch import BROWSER, processor_time

PHOTO = Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"
DEMO = PHOTO.with_suffix(".gid")


class Server(NamedTuple):
  """A server of its own: its address, and the number of its process."""

  address: str
  process: int


@contextlib.contextmanager
def start_server(weights: str | None) -> Iterator[Server]:
  """Starts a server, which is ended afterwards."""
  command = [sys.executable, "-m", "gid_jax", "serve", "--port", "0", *(["--weights", weights] if weights else [])]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  assert process.stdout is not None
  try:
    yield Server(process.stdout.readline().split()[2].rstrip("/"), process.pid)
  finally:
    start = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait()
    print(f"SIGTERM: ended within {time.perf_counter() - start:.2f} s")


def wait_until_warm() -> None:
  """Waits until the server, having compiled for the commonest shapes, does nothing for three seconds (Linux)."""
  spent = -1.0
  while processor_time() - spent > 0.3:
    spent = processor_time()
    time.sleep(3)


def make_photo(width: int, height: int) -> bytes:
  """A JPEG of the bundled photo at any size, with noise, so that it is as hard to read as a camera's."""
  pixels = np.asarray(Image.open(PHOTO).resize((width, height), Image.Resampling.BICUBIC), np.float32)
  pixels = pixels + np.random.default_rng(0).normal(scale=6, size=pixels.shape)
  buffer = io.BytesIO()
  Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
  return buffer.getvalue()


def wait_until_ready(client: httpx.Client, job: str) -> float | None:
  """Waits for a job; when its turn came, as `time.perf_counter` says, or None."""
  turn = None
  with client.stream("GET", "/events", params={"job": job}) as events:
    for line in events.iter_lines():
      phase = json.loads(line[6:])["motion"]["phase"] if line.startswith("data: ") else ""
      if phase not in ("", "queued"):
        turn = turn or time.perf_counter()
      if phase in ("failed", "cancelled"):
        sys.exit(line)
      if phase == "ready":
        return turn
  sys.exit("the server has ended")


def pull_in(page, job: str) -> None:
  """Waits until the page of a job is shown, by any other than this one's number, and pulls at it."""
  page.wait_for_function("(id) => document.querySelector('iframe.shown') && "
                         "document.querySelector('iframe').dataset.id !== id", arg=job)  # fmt: skip
  frame = page.query_selector("iframe").content_frame()
  frame.evaluate("gidTouch.pull(0.3, 0.35, 0.02, 0).then(() => new Promise(requestAnimationFrame))")


def measure_in_browser(address: str, photo: bytes, rounds: int) -> None:
  """Prints how long it takes to touch what is ready, and a photo of one's own."""
  from playwright.sync_api import sync_playwright

  opened, sent = [], []
  with sync_playwright() as player, tempfile.NamedTemporaryFile(suffix=".jpg") as file:
    file.write(photo)
    file.flush()
    browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
    for _ in range(rounds):
      page = browser.new_page()
      page.set_default_timeout(600_000)
      begin = time.perf_counter()
      page.goto(address)
      pull_in(page, "")
      opened.append(time.perf_counter() - begin)
      time.sleep(3)  # the server gets ready for the next photo
      shown = page.get_attribute("iframe", "data-id") or ""
      begin = time.perf_counter()
      page.set_input_files("#file", file.name)
      pull_in(page, shown)
      sent.append(time.perf_counter() - begin)
      page.close()
    browser.close()
  for what, times in (("first page touched after", opened), ("own photo touched after", sent)):
    print(f"in a browser: {what} {', '.join(f'{each:.2f}' for each in times)} s")


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--width", type=int, default=4032)
  parser.add_argument("--height", type=int, default=3024)
  parser.add_argument("--rounds", type=int, default=4)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  options = parser.parse_args()
  photo = make_photo(options.width, options.height)
  start = time.perf_counter()
  with (
    start_server(options.weights) as server,
    httpx.Client(base_url=server.address, headers={"origin": server.address}, timeout=None) as client,
  ):
    print(f"address after {time.perf_counter() - start:.2f} s")
    wait_until_warm()
    print(f"warm after {time.perf_counter() - start:.2f} s")
    for number in range(options.rounds):
      begin = time.perf_counter()
      job = client.post("/jobs", params={"name": "photo.jpg"}, content=photo).json()["id"]
      turn = wait_until_ready(client, job)
      end = time.perf_counter()
      size = len(client.get(f"/jobs/{job}/page").content)
      fetched = time.perf_counter()
      print(f"round {number + 1}: {len(photo) / 1e6:.1f} MB ready in {end - begin:.2f} s, of which until its turn "
            f"{(turn or end) - begin:.2f}; page of {size / 1e6:.1f} MB in {fetched - end:.3f} s")  # fmt: skip
    measure_in_browser(server.address, photo, options.rounds)
    client.post("/jobs", content=photo)
    time.sleep(1)


if __name__ == "__main__":
  main()
