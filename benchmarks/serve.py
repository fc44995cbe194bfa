"""Claim: on a warm server a photo of 12 megapixels can be touched within six seconds of being sent.

  python -m benchmarks.serve [--width 4032] [--height 3024] [--rounds 4] [--weights FOLDER]

Starts `gid serve`, waits until its first page is ready, then sends the photo, the bundled one enlarged with noise,
again and again, and prints seconds from the first byte to "ready", of which until its turn came; then those to fetch
its page, and those in which SIGTERM ends the server. The first rounds may compile. Needs the extra `serve`, and httpx.
"""

import argparse
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

import gid_jax

PHOTO = Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"


@contextlib.contextmanager
def start_server(weights: str | None) -> Iterator[str]:
  """The address of a server of its own, which is ended afterwards."""
  command = [sys.executable, "-m", "gid_jax", "serve", "--port", "0", *(["--weights", weights] if weights else [])]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  assert process.stdout is not None
  try:
    yield process.stdout.readline().split()[2].rstrip("/")
  finally:
    start = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait()
    print(f"SIGTERM: ended in {time.perf_counter() - start:.2f} s")


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
    start_server(options.weights) as address,
    httpx.Client(base_url=address, headers={"origin": address}, timeout=None) as client,
  ):
    print(f"address after {time.perf_counter() - start:.2f} s")
    match = re.search('data-opening="(.*?)"', client.get("/").text)
    assert match is not None
    wait_until_ready(client, match[1])
    print(f"first page ready after {time.perf_counter() - start:.2f} s")
    for number in range(options.rounds):
      begin = time.perf_counter()
      job = client.post("/jobs", params={"name": "photo.jpg"}, content=photo).json()["id"]
      turn = wait_until_ready(client, job)
      end = time.perf_counter()
      size = len(client.get(f"/jobs/{job}/page").content)
      fetched = time.perf_counter()
      print(f"round {number + 1}: {len(photo) / 1e6:.1f} MB ready in {end - begin:.2f} s, of which until its turn "
            f"{(turn or end) - begin:.2f}; page of {size / 1e6:.1f} MB in {fetched - end:.3f} s")  # fmt: skip


if __name__ == "__main__":
  main()
