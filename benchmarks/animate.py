"""Claim: `gid animate` is quick, small in memory, and moves what should move.

  python -m benchmarks.animate [--weights FOLDER] [--photo PHOTO] [--size 256] [--frames 150]

Runs the command twice as a new process with an empty compile cache (first, second), prints seconds and peak memory,
how the second run's time divides (each part alone, in a process that has compiled already; the rest is starting,
loading and reading the compile cache), then reads the video back: displacement of the most- and least-moving fifth of
the pixels (pixels of the working grid), first frame against the photo (dB), and flicker: the part of the change from
frame to frame that is left in the calmest fifth of the pixels, in grey levels.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import gid_jax
from gid_jax.devices import count_cores
from gid_jax.media import clips, encoding, photos
from gid_jax.motion import spectral
from gid_jax.pipeline import Animator, resize_image


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


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--photo", default=str(Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"))
  parser.add_argument("--size", type=int, default=256)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--frames", type=int, default=150)
  options = parser.parse_args()
  # As the command does: the cores share the frames.
  jax.config.update("jax_num_cpu_devices", count_cores())
  with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "video.mp4"
    command = [sys.executable, "-m", "gid_jax", "animate", options.photo, "--output", str(output), "--force"]
    command += ["--size", str(options.size), "--seed", str(options.seed), "--frames", str(options.frames)]
    command += ["--weights", options.weights] if options.weights else []
    environment = {"XDG_CACHE_HOME": folder, "PATH": "/usr/bin:/bin", "HOME": folder}
    for run in ("first", "second"):
      start = time.perf_counter()
      subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
      total = time.perf_counter() - start
      print(f"{run} run: {total:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"peak memory: {peak:.2f} GiB")
    frames = clips.read_clip(output).frames
    photo = photos.read_image(options.photo)
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
