"""Claim: of a hundred photos of which some are broken `gid animate` names these, animates the others and does not grow.

  python -m benchmarks.batch [--photos examples/photos] [--number 100] [--broken 5] [--size 1080] [--frames 150]

Makes photos of the usual aspects and several sizes from parts of those in a folder, breaks some, each in another way,
and runs one command on all of them. Prints how many videos were written and which photos were named as broken, the
seconds of each photo (median, largest, and of the ones that were the first of their aspect), and the memory of the
process after 10, 50 and 100 photos. Exit status 1 where a count is not as it should be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ASPECTS = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (1, 1))
LONG_SIDES = (1280, 960, 1600)
BREAKAGES: tuple[Callable[[bytes], bytes], ...] = (
  lambda data: data[: len(data) // 2],
  lambda data: b"",
  lambda data: b"<html><body>Not found</body></html>",
  lambda data: bytes(len(data)),
  lambda data: data[:20],
)
LOOKS = (10, 50, 100)  # after so many photos memory is printed


class Result(NamedTuple):
  """What a command did.

  Attributes:
    status: its exit status.
    lines: what it said of each photo, in JSON.
    seconds: from each photo's line to the next one's.
    memory: photos that were done -> MiB that the process held then.
    peak: MiB at most.
  """

  status: int
  lines: list[dict]
  seconds: list[float]
  memory: dict[int, float]
  peak: float


def main() -> int:
  """Makes the photos, runs the command and prints what came of it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
  parser.add_argument("--number", type=int, default=100)
  parser.add_argument("--broken", type=int, default=5)
  parser.add_argument("--size", type=int, default=1080)
  parser.add_argument("--frames", type=int, default=150)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    photos, videos = Path(folder) / "photos", Path(folder) / "videos"
    broken = make_photos(photos, options.photos, number=options.number, num_broken=options.broken)
    command = [sys.executable, "-m", "gid_jax", "animate", str(photos), "--output", str(videos), "--json"]
    result = run([*command, "--size", str(options.size), "--frames", str(options.frames)])
    written = sorted(path.stem.removesuffix("_animated") for path in videos.iterdir())
  return report(result, broken=broken, written=written, number=options.number)


def make_photos(folder: Path, source: Path, *, number: int, num_broken: int) -> list[str]:
  """Writes photos 000.jpg, 001.jpg, ... into a new folder.

  Returns:
    The names of those that are broken, spread evenly.
  """
  folder.mkdir()
  given = [Image.open(path).convert("RGB") for path in sorted(source.glob("*.jpg"))]
  rng = np.random.default_rng(0)
  broken = set(np.linspace(1, number - 1, num_broken).round().astype(int).tolist())
  for index in range(number):
    (across, down), picture = ASPECTS[index % len(ASPECTS)], given[index % len(given)]
    share = rng.uniform(0.6, 1) * min(picture.width / across, picture.height / down)
    left = rng.uniform(0, 1) * (picture.width - share * across)
    top = rng.uniform(0, 1) * (picture.height - share * down)
    long_side = LONG_SIDES[index % len(LONG_SIDES)]
    size = round(long_side * across / max(across, down)), round(long_side * down / max(across, down))
    path = folder / f"{index:03d}.jpg"
    picture.resize(size, Image.Resampling.LANCZOS, (left, top, left + share * across, top + share * down)).save(path)
    if index in broken:
      path.write_bytes(BREAKAGES[sorted(broken).index(index) % len(BREAKAGES)](path.read_bytes()))
  return [f"{index:03d}" for index in sorted(broken)]


def run(command: list[str]) -> Result:
  """Runs a command that prints a line of JSON for each photo, and watches it."""
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  lines, seconds, memory, before = [], [], {}, time.perf_counter()
  for line in process.stdout:
    now = time.perf_counter()
    lines.append(json.loads(line))
    seconds.append(now - before)
    before = now
    if len(lines) in LOOKS:
      memory[len(lines)] = read_memory(process.pid)
  _, status, used = os.wait4(process.pid, 0)
  return Result(os.waitstatus_to_exitcode(status), lines, seconds, memory, used.ru_maxrss / 1024)


def read_memory(process: int) -> float:
  """MiB that a process holds; nan where the system does not say."""
  try:
    status = Path(f"/proc/{process}/status").read_text()
  except OSError:
    return float("nan")
  return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:")), float("nan"))


def report(result: Result, *, broken: list[str], written: list[str], number: int) -> int:
  """Prints a result, and returns 1 where it is not what it should be."""
  named = sorted(Path(line["source"]).stem for line in result.lines if "error" in line)
  print(f"{len(written)} of {number} written, {len(named)} named as broken: {', '.join(named)}; "
        f"exit status {result.status}")  # fmt: skip
  done = [(line, seconds) for line, seconds in zip(result.lines, result.seconds, strict=True) if "error" not in line]
  if done:
    later = [seconds for line, seconds in done if int(Path(line["source"]).stem) >= len(ASPECTS)]
    everything = [seconds for _, seconds in done]
    print(f"seconds a photo: median {np.median(everything):.1f}, largest {max(everything):.1f}"
          + (f"; once every aspect was seen: median {np.median(later):.1f}" if later else ""))  # fmt: skip
  print("; ".join(f"after {count}: {mebibytes:.0f} MiB" for count, mebibytes in result.memory.items())
        + f"; peak {result.peak:.0f} MiB")  # fmt: skip
  return int(not (named == broken and len(written) == number - len(broken) and result.status == (2 if broken else 0)))


if __name__ == "__main__":
  raise SystemExit(main())
