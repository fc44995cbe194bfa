"""Claim: `gid animate` is quick, small in memory, and moves what should move.

  python -m benchmarks.animate [--weights FOLDER] [--photo PHOTO] [--size 256] [--frames 150] [--batch 0]

Runs the command as a new process with an empty cache (first), then with a full one (second), then on the photo and a
part of it of another aspect (pair), and with --batch on as many parts of assorted aspects (batch), and prints seconds
on the wall and of the processor, peak memory, and what the command says of its phases. Then how the second run's time
divides (each part alone, in a process that has compiled already; the rest is starting and loading), and reads the video
back: displacement of the most- and least-moving fifth of the pixels (pixels of the working grid), first frame against
the photo (dB), and flicker: the part of the change from frame to frame that is left in the calmest fifth of the pixels,
in grey levels.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import gid_jax
from gid_jax.devices import count_cores
from gid_jax.media import clips, encoding, photos
from gid_jax.motion import spectral
from gid_jax.pipeline import Animator
from gid_jax.sizes import resize_image


def time_parts(animator, photo, options, folder) -> dict[str, float]:
  """Seconds of every part of a run, after one that compiled it."""
  key, parts = jax.random.key(options.seed), {}
  for _ in range(2):
    start = time.perf_counter()
    volume = animator.predict_spectrum(key, photo)
    jax.block_until_ready(volume.coefficients)
    sampled = time.perf_counter()
    frames = list(animator.render(photo, volume, frames=options.frames, fps=30.0, size=options.size))
    rendered = time.perf_counter()
    encoding.write_video(Path(folder) / "parts.mp4", iter(frames), fps=30.0, overwrite=True)
    parts = {"sampling": sampled - start, "rendering": rendered - sampled, "encoding": time.perf_counter() - rendered}
  return parts


def run_command(name, photos_, output, options, environment) -> float:
  """Runs `gid animate` on photos, prints what it took, and returns the seconds."""
  command = [sys.executable, "-m", "gid_jax", "animate", *map(str, photos_), "--output", str(output), "--force"]
  command += ["--size", str(options.size), "--seed", str(options.seed), "--frames", str(options.frames)]
  command += ["--weights", options.weights] if options.weights else []
  start = time.perf_counter()
  process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  said = process.stdout.read()
  _, status, used = os.wait4(process.pid, 0)
  total = time.perf_counter() - start
  assert status == 0, said
  seconds = [float(found) for found in re.findall(r"^Wrote .* in ([\d.]+) s$", said, re.MULTILINE)]
  processor = used.ru_utime + used.ru_stime
  print(f"{name}: {total:.1f} s, processor {processor:.1f} s, peak memory {used.ru_maxrss / 2**20:.2f} GiB")
  if len(seconds) > 1:
    print(f"  each photo: median {np.median(seconds):.1f} s, last {seconds[-1]:.1f} s")
  else:
    print("  " + "; ".join(line for line in said.splitlines() if line.startswith("Loaded")))
  return total


def cut_photos(photo, number, folder) -> list[Path]:
  """Writes parts of a photo [h w 3] of assorted aspects, 9:16 to 16:9, as files."""
  paths = []
  height, width = photo.shape[:2]
  for index in range(number):
    aspect = (16 / 9) ** (1 - 2 * ((index * 0.618) % 1))
    h, w = min(height, int(width / aspect)), min(width, int(height * aspect))
    paths.append(Path(folder) / f"part{index}.png")
    Image.fromarray((photo[:h, :w] * 255 + 0.5).astype(np.uint8)).save(paths[-1])
  return paths


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--photo", default=str(Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"))
  parser.add_argument("--size", type=int, default=256)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--frames", type=int, default=150)
  parser.add_argument("--batch", type=int, default=0)
  options = parser.parse_args()
  # As the command does: the cores share the frames.
  jax.config.update("jax_num_cpu_devices", count_cores())
  with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "video.mp4"
    environment = {"XDG_CACHE_HOME": folder, "PATH": "/usr/bin:/bin", "HOME": folder}
    for name in ("first run", "second run"):
      total = run_command(name, [options.photo], output, options, environment)
    photo = photos.read_image(options.photo)
    height, width = photo.shape[:2]
    part = Path(folder) / "part.png"
    square = min(height, width)
    Image.fromarray((photo[:square, : square * 3 // 4] * 255 + 0.5).astype(np.uint8)).save(part)
    for name in ("pair, the second aspect never seen", "pair"):
      run_command(name, [options.photo, part], Path(folder) / "pair", options, environment)
    if options.batch:
      parts = cut_photos(photo, options.batch, folder)
      run_command(f"batch of {options.batch}", parts, Path(folder) / "batch", options, environment)
    frames = clips.read_clip(output).frames
    animator = Animator.from_pretrained(options.weights)
    parts = time_parts(animator, photo, options, folder)
  parts["the rest"] = total - sum(parts.values())
  print("of the second run: " + ", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))

  volume = animator.predict_spectrum(jax.random.key(options.seed), photo)
  volume = spectral.resize_spectrum(volume, *animator.working_size(*photo.shape[:2]))
  motion = np.asarray(spectral.spectrum_to_motion(volume, anchor_first_frame=True))
  assert np.isfinite(motion).all()
  length = np.linalg.norm(motion, axis=-1).mean(axis=0)
  order = np.sort(length.ravel())
  fifth = order.size // 5
  print(f"mean displacement: most-moving fifth {order[-fifth:].mean():.2f} px, least {order[:fifth].mean():.3f} px")
  reference = resize_image(photo, *frames.shape[1:3])
  error = np.mean((frames[0] / 255.0 - reference) ** 2)
  print(f"first frame against the photo: {-10 * np.log10(error):.1f} dB")
  calm = resize_image(np.repeat(length[..., None], 3, -1) / max(order[-1], 1e-6), *frames.shape[1:3])[..., 0]
  calm = calm <= np.quantile(calm, 0.2)
  change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(axis=-1)[:, calm]
  print(f"frame-to-frame change in the calmest fifth: {change.mean():.2f} grey levels")


if __name__ == "__main__":
  main()
