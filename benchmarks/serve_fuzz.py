"""Claim: requests and uploads that make no sense leave the server as it was.

  python -m benchmarks.serve_fuzz [--number 1000] [--seed 0]

Starts `gid serve`, waits until it has compiled all that it compiles by itself, and sends it so many requests; every
twentieth is an upload, of a photo or a .gid file with a few wrong bytes, whose job is cancelled once it is read. Prints
how often each status came, the slowest answer, and before, half-way and after: resident memory, threads and open files.
Needs Linux, the extra `serve`, and httpx.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.serve import DEMO, start_server

LATE = 60.0  # seconds after which an answer counts as none


def ask(client: httpx.Client, method: str, path: str, headers=(), body: bytes = b"") -> int | None:
  """The status that raw bytes get, or None where the connection is closed without one."""
  address = client.base_url.host, client.base_url.port or 80
  origin = f"http://{address[0]}:{address[1]}"
  lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", f"Origin: {origin}", "Connection: close"]
  with socket.create_connection(address) as connection:
    connection.settimeout(LATE)
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", *headers, "", ""])
    try:
      connection.sendall(head.encode("latin-1", "replace") + body)
      answer = connection.recv(100)
    except ConnectionError:  # closed before all was sent
      return None
  return int(answer.split()[1]) if answer else None


def watch(client: httpx.Client, *ids: str) -> Iterator[dict]:
  """Everything that is said of some jobs, as long as it is asked for."""
  with client.stream("GET", "/events", params={"job": ids}) as response:
    for line in response.iter_lines():
      if line.startswith("data: "):
        yield json.loads(line.removeprefix("data: "))


def fuzz(client: httpx.Client, number: int, *, seed: int = 0, samples: tuple[bytes, ...]) -> Iterator[int | None]:
  """Sends that many requests, every twentieth one of the sample files with wrong bytes; gives each one's status."""
  rng = random.Random(seed)
  jobs = ["unknown"]
  for index in range(number):
    if index % 20:
      yield ask(client, *_invent(rng, jobs))
      continue
    answer = client.post("/jobs", content=_damage(rng, rng.choice(samples)), params={"name": _name(rng)})
    if answer.status_code == 201:
      jobs = [answer.json()["id"]]
      for state in watch(client, *jobs):
        if state.get("is_gone") or state["motion"]["phase"] != "queued":
          client.delete(f"/jobs/{jobs[0]}")
          break
    yield answer.status_code


def _invent(rng: random.Random, jobs: list[str]):
  """A request that makes little sense: method, path, headers, body."""
  method = rng.choice(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "get", "\x01"])
  parts = ["jobs", "events", "page", "again", "video", "gid", "..", "%2e%2e", "%ff", "%00", "\xff", "a" * 300, "?"]
  parts += jobs
  path = "/" + "/".join(rng.choice(parts) for _ in range(rng.randint(0, 5)))
  if rng.random() < 0.3:
    path += "?" + "&".join(f"{rng.choice(['job', 'name', 'token', '%'])}={rng.choice(parts)}" for _ in range(5))
  odd = ["Cookie: =;;=\x7f", "Content-Length: -1", "Transfer-Encoding: chunked", "Range: bytes=9-1", "Host: x"]
  headers = [rng.choice([*odd, "X: " + "y" * 9000])] if rng.random() < 0.3 else []
  body = b"zz\r\n" if headers == ["Transfer-Encoding: chunked"] else rng.randbytes(rng.choice([0, 0, 10, 3000]))
  return method, path, headers, body


def _damage(rng: random.Random, content: bytes) -> bytes:
  damaged = bytearray(content)
  for _ in range(rng.randint(1, 8)):
    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
  return bytes(damaged[: rng.randint(1, len(damaged))]) if rng.random() < 0.2 else bytes(damaged)


def _name(rng: random.Random) -> str:
  return "\u202e\x00../" + "n" * rng.randint(0, 200)


def _make_samples() -> tuple[bytes, ...]:
  noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
  samples = [DEMO.read_bytes()]
  for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    samples.append(buffer.getvalue())
  return tuple(samples)


def _wait_until_warm(client: httpx.Client, sample: bytes) -> None:
  is_warming = True
  while is_warming:
    job, is_warming = client.post("/jobs", content=sample).json()["id"], False
    for state in watch(client, job):
      is_warming = is_warming or state["motion"].get("warming", False)
      if state["motion"]["phase"] in ("ready", "failed", "cancelled"):
        break


def _measure(process: int) -> str:
  status = Path(f"/proc/{process}/status").read_text()
  found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
  files = len(os.listdir(f"/proc/{process}/fd"))
  return f"{int(found['VmRSS']) / 1e3:.0f} MB, {found['Threads']} threads, {files} files"


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--number", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  samples = _make_samples()
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(start_server(None))
    headers = {"origin": server.address}
    client = stack.enter_context(httpx.Client(base_url=server.address, headers=headers, timeout=None))
    _wait_until_warm(client, samples[1])
    print(f"before: {_measure(server.process)}")
    counts, slowest, last = collections.Counter(), 0.0, time.perf_counter()
    for index, status in enumerate(fuzz(client, options.number, seed=options.seed, samples=samples), 1):
      counts[status] += 1
      slowest, last = max(slowest, time.perf_counter() - last), time.perf_counter()
      if index == options.number // 2:
        print(f"half-way: {_measure(server.process)}")
    print(f"after: {_measure(server.process)}")
    said = ", ".join(f"{status or 'closed'}: {number}" for status, number in counts.most_common())
    print(f"{options.number} requests: {said}; the slowest took {slowest:.1f} s")
    if any(status and status >= 500 and status != 503 for status in counts):
      sys.exit("the server has failed")
    _wait_until_warm(client, samples[1])
    print("a sound photo is still taken")


if __name__ == "__main__":
  main()
