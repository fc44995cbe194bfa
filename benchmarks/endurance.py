"""Claim: a thousand animations in one process take no more memory than ten.

  python -m benchmarks.endurance [--number 1000] [--steps 1] [--frames 8] [--size 96] [--weights FOLDER]

Animates the bundled photo and two parts of it of other aspects in turn, each with a seed of its own, and writes every
video. Prints the memory of the process after 10, 30, 100, 300, 1000 of them, and what one takes from the tenth on.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import gid_jax as gid

PHOTO = Path(gid.__file__).parent / "pretrained" / "photo.jpg"


def resident_bytes() -> int:
  """Memory that this process holds now; of Linux."""
  line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
  return 1024 * int(line.split()[1])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--number", type=int, default=1000)
  parser.add_argument("--steps", type=int, default=1, help="of sampling")
  parser.add_argument("--frames", type=int, default=8)
  parser.add_argument("--size", type=int, default=96, help="long side of the videos")
  parser.add_argument("--weights", help="folder of weights; the embedded ones by default")
  options = parser.parse_args()
  photo, animator = gid.read_image(PHOTO), gid.Animator.from_pretrained(options.weights)
  height, width = photo.shape[:2]
  photos = (photo, photo[:, : height // 2], photo[: height // 2, :width])
  start, seen = time.process_time(), {}
  with tempfile.TemporaryDirectory() as folder:
    for number in range(1, options.number + 1):
      image = np.ascontiguousarray(photos[number % len(photos)])
      volume = animator.predict_spectrum(jax.random.key(number), image, steps=options.steps)
      frames = animator.render(image, volume, frames=options.frames, fps=30.0, size=options.size)
      gid.write_video(Path(folder) / "video.mp4", frames, fps=30, overwrite=True)
      if number in (10, 30, 100, 300, 1000) or number == options.number:
        seen[number] = resident_bytes()
        seconds = time.process_time() - start
        print(f"{number:5} animations: {seen[number] / 1e6:.0f} MB, {seconds:.0f} s of the processor", flush=True)
  first, last = min(seen), max(seen)
  if last > first:
    print(f"from animation {first} on each leaves {(seen[last] - seen[first]) / (last - first) / 1e3:.1f} kB")


if __name__ == "__main__":
  main()
