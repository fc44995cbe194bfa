"""Claim: motion self-guidance calms the seam of a loop, at equal motion energy.

  python -m benchmarks.loops [--photos DIR] [--weights FOLDER] [--number 20] [--height 160] [--width 256]

Samples every photo plainly and guided (eq. 5), from the same noise, and measures what a player that repeats the file
shows between its last frame and its first:

- `cut`: the plain motion, stopped after four fifths of its period, for scale: a clip that does not loop;
- `faded`: the same, its last half second faded into what comes before its first frame, as video editors make loops;
- `free`: one period of the plain motion, which the Fourier basis makes periodic;
- `unguided`: the same of what guided sampling draws with u = 0: self-recurrence alone gives another motion (without
  recurrence it is `free`);
- `guided`: one period of the guided motion.

Gaps are rms over the pixels, from the last frame to the first: of displacement (px) and of velocity (px/frame). They
are given as they are; divided by the rms displacement, which is the gap at equal energy, since everything is linear in
the volume; and divided by the rms change from one frame to the next inside the loop: 1 is a seam that looks like every
other moment. Then, photo by photo, the ratios of guided to the others: geometric mean, its standard error,
and how many are lower.
Pixels are those of the motion grid, half as wide and high as the cropped photo of --height x --width.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import numpy as np

import gid_jax
from gid_jax.media import photos
from gid_jax.motion import spectral
from gid_jax.pipeline import Animator
from gid_jax.sizes import resize_image
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

KINDS = ("cut", "faded", "free", "unguided", "guided")
FADE = 15  # frames
QUANTITIES = ("displacement", "position gap", "velocity gap", "pos/energy", "vel/energy", "pos/step", "vel/step")


def main():
  """Samples, measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--photos", help="folder of photos; the bundled one by default")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--number", type=int, default=20, help="photos, spread over the folder")
  parser.add_argument("--seeds", type=int, default=1, help="motions a photo")
  parser.add_argument("--height", type=int, default=160)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--steps", type=int, help="of both kinds of sampling; their defaults otherwise")
  parser.add_argument("--weight", type=float, help="u; the weights' default otherwise")
  parser.add_argument("--recurrences", type=int, help="the weights' default otherwise")
  options = parser.parse_args()
  animator, unguided = make_animator(options), make_animator(options, guide=False)
  sampling = animator.motion_settings.sampling
  recurs = sampling.loop.recurrences > 1
  print(f"plain: {sampling.steps} steps; loops: {sampling.loop}; overruled: --steps {options.steps}")

  rows = []
  for photo in find_photos(options.photos, options.number):
    image = crop(photos.read_image(photo), options.height, options.width)
    for seed in range(options.seeds):
      volumes, seconds = [], []
      for sampler, loop in ((animator, False), (unguided, True), (animator, True)):
        if sampler is unguided and not recurs:
          volumes.append(volumes[0])
          continue
        start = time.perf_counter()
        volumes.append(sampler.predict_spectrum(jax.random.key(seed), image, steps=options.steps, loop=loop))
        volumes[-1].coefficients.block_until_ready()
        seconds.append(time.perf_counter() - start)
      period = volumes[0].num_frames
      cut = [measure(volumes[0], period * 4 // 5, fade=fade) for fade in (0, FADE)]
      rows.append([*cut, *(measure(volume, period) for volume in volumes)])
      ratio = rows[-1][KINDS.index("guided")] / rows[-1][KINDS.index("free")]
      print(
        f"{photo.name[:40]:<40} seed {seed}: {seconds[0]:.0f} s, guided {seconds[-1]:.0f} s; guided / free: "
        + ", ".join(f"{name} {value:.2f}" for name, value in zip(QUANTITIES, ratio, strict=True)),
        flush=True,
      )
  report(np.array(rows))


def make_animator(options, *, guide: bool = True) -> Animator:
  """The animator of the chosen weights, with the working grid and the guidance that were asked for, or with none."""
  params, settings = load_pretrained(MOTION_WEIGHTS, directory=options.weights)
  chosen = {"weight": options.weight if guide else 0.0, "recurrences": options.recurrences}
  chosen = {name: value for name, value in chosen.items() if value is not None}
  loop = dataclasses.replace(settings.sampling.loop, **chosen)
  model = dataclasses.replace(settings.model, image_size=(options.height, options.width))
  sampling = dataclasses.replace(settings.sampling, loop=loop)
  return Animator((params, dataclasses.replace(settings, model=model, sampling=sampling)))


def find_photos(folder: str | None, number: int) -> list[Path]:
  """At most `number` photos, spread evenly over a folder; the bundled one without a folder."""
  if folder is None:
    return [Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"]
  photos = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
  if not photos:
    raise SystemExit(f"{folder}: no photos (jpg, jpeg, png)")
  return [photos[i] for i in np.unique(np.linspace(0, len(photos) - 1, number).round().astype(int))]


def crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """The middle of an image [h w 3] at [height width 3]: one size for all, so that one program serves them."""
  rows, columns = image.shape[:2]
  scale = min(rows / height, columns / width)
  top, left = int(rows - scale * height) // 2, int(columns - scale * width) // 2
  return resize_image(image[top : top + round(scale * height), left : left + round(scale * width)], height, width)


def measure(spectrum, num_frames: int, *, fade: int = 0) -> np.ndarray:
  """`QUANTITIES` of frames 0 ... num_frames - 1, repeated; the last `fade` of them become those before the first."""
  rms = lambda vectors: float(np.sqrt((np.asarray(vectors, np.float64) ** 2).sum(axis=-1).mean()))
  times = np.arange(spectrum.num_frames)
  motion, velocity = (np.asarray(f(spectrum, times)) for f in (spectral.evaluate_motion, spectral.evaluate_velocity))
  energy = rms(motion - motion.mean(axis=0))
  last = num_frames - 1
  if fade:
    motion, velocity = motion.copy(), velocity.copy()
    inside, before = slice(num_frames - fade, num_frames), slice(spectrum.num_frames - fade, spectrum.num_frames)
    share = (np.arange(1, fade + 1) / (fade + 1))[:, None, None, None]
    change = motion[before] - motion[inside]
    velocity[inside] += share * (velocity[before] - velocity[inside]) + change / (fade + 1)
    motion[inside] += share * change
  position, change = rms(motion[last] - motion[0]), rms(velocity[last] - velocity[0])
  step, turn = (rms(np.diff(field[:num_frames], axis=0)) for field in (motion, velocity))
  return np.array([energy, position, change, position / energy, change / energy, position / step, change / turn])


def report(rows: np.ndarray) -> None:
  """Prints means and largest values of [photos, kinds, quantities], and the paired ratios."""
  print(f"\n{'mean of ' + str(len(rows)):<18}" + "".join(f"{name:>14}" for name in QUANTITIES))
  for index, kind in enumerate(KINDS):
    print(f"{kind:<18}" + "".join(f"{value:>14.4f}" for value in rows[:, index].mean(axis=0)))
    print(f"{'  largest':<18}" + "".join(f"{value:>14.4f}" for value in rows[:, index].max(axis=0)))
  for index in range(1, len(KINDS) - 1):
    if np.array_equal(rows[:, index], rows[:, index - 1]):
      continue
    logs = np.log(rows[:, -1] / rows[:, index])
    error = logs.std(axis=0, ddof=1) / len(logs) ** 0.5 if len(logs) > 1 else np.full(logs.shape[1], np.nan)
    ratio = np.exp(logs.mean(axis=0))
    print(f"{'guided/' + KINDS[index]:<18}" + "".join(f"{value:>14.3f}" for value in ratio))
    print(f"{'  standard error':<18}" + "".join(f"{value:>14.3f}" for value in ratio * error))
    print(f"{'  lower in':<18}" + "".join(f"{count:>14}" for count in (logs < 0).sum(axis=0)))


if __name__ == "__main__":
  main()
