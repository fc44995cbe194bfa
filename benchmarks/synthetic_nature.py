"""Claim: simulated motion has the power of filmed plants and flags in outdoor wind, within 3 dB in each band.

  python -m benchmarks.synthetic_nature --clips FOLDER [--cache nature.npz] [--scenes 500]
    [--backgrounds FOLDER --sprites FOLDER] [--output synthetic_nature.png]

Compares the exact spectra of scenes with those that `measure_motion` finds in the first window of each clip, at
256x160, 150 frames and 30 frames per second: scenes of the outdoor settings, since the clips show no candles, rooms or
scenes at rest. Amplitudes are 2 |S| / T pixels (|S| / T for band 0), x and y added up as
power. The claim is about the mean over all pixels of all scenes and clips (+- is its standard error over clips). Beside
it: the mean over moving pixels only, which leaves out how much of a picture moves, and the mean of dB over clips and
scenes in which something moves, where no single one counts for much. A pixel's standard deviation over time is that of
the bands measured; it moves if that is over 0.3 px. FOLDER holds the videos named in CLIPS; --cache keeps what was
measured in them.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from data_pipeline.synthetic.families import draw_setting
from data_pipeline.synthetic.scene import sample_scene
from gid_jax.errors import UserError
from gid_jax.flow.tracking import measure_motion
from gid_jax.media.clips import clip_to_sequences
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.motion.spectral import motion_to_spectrum

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUTDOORS = ("meadow", "closeup", "foliage", "woods", "flags")  # settings like those of the clips
CLIPS = (
  "daffodils", "shrub_windy", "red_grass", "timothy_grass", "grass_field_dusk", "dry_reeds", "foxtail", "oak_leaves",
  "straw", "flag", "branch_in_rain",
)  # fmt: skip
FIRST_SEED = 1_000_000  # the builder counts its scenes from 0
NUM_BANDS, NUM_FRAMES, FPS = 16, 150, 30
MOVING = 0.3  # px of standard deviation over time
AMPLITUDES = np.geomspace(0.02, 20, 31)  # edges of the histogram, px


def summarize_volume(volume: np.ndarray) -> dict[str, np.ndarray]:
  """Statistics of a spectral volume [k h w 4]: powers in px^2 and how many pixels move how far.

  power: [k] mean over pixels; moving: [k] mean over the moving ones, zeros if none; share: of pixels that move;
  bins: [n] share of pixels by standard deviation, the first below and the last above AMPLITUDES.
  """
  scale = np.full((len(volume), 1, 1), 2 / NUM_FRAMES)
  scale[0] /= 2
  power = scale**2 * (volume.astype(np.float64) ** 2).sum(-1)
  deviation = np.sqrt(power[1:].sum(0) / 2)
  moves = deviation > MOVING
  bins = np.bincount(np.searchsorted(AMPLITUDES, deviation).ravel(), minlength=len(AMPLITUDES) + 1)
  moving = power[:, moves].mean(1) if moves.any() else np.zeros(len(power))
  return dict(power=power.mean((1, 2)), moving=moving, share=moves.mean(), bins=bins / bins.sum())


def stack_summaries(summaries: list[dict]) -> dict[str, np.ndarray]:
  """Joins summaries of n volumes: the same names, n rows each."""
  return {name: np.stack([summary[name] for summary in summaries]) for name in summaries[0]}


def measure_clips(folder: Path, cache: Path | None) -> dict[str, np.ndarray]:
  """Summaries of the clips, measured or from the cache, joined."""
  known = dict(np.load(cache)) if cache and cache.exists() else {}
  found = []
  for name in CLIPS:
    try:
      volume = known[name] if name in known else measure_clip(folder / f"{name}.mp4")
    except UserError as error:
      print(f"{name:<17} left out: {error}")
      continue
    known[name] = volume
    found.append(summarize_volume(volume))
    print(
      f"{name:<17} {found[-1]['share']:>4.0%} of the pixels move; "
      f"{np.sqrt(found[-1]['power'][1:].sum() / 2):.1f} px about their mean (root mean square)"
    )
  if cache:
    np.savez(cache, **known)
  if not found:
    raise UserError(f"none of the clips in {folder} can be used; it should hold {', '.join(CLIPS)} (.mp4).")
  return stack_summaries(found)


def measure_clip(path: Path) -> np.ndarray:
  """Spectral volume [k h w 4] float16 measured in the first window of a clip."""
  motion = measure_motion(next(clip_to_sequences(path, max_sequences=1))).motion
  return motion_to_spectrum(motion, num_bands=NUM_BANDS).coefficients.astype(np.float16)


def to_db(power: np.ndarray) -> np.ndarray:
  """Power in px^2 as dB of 1 px^2."""
  return 10 * np.log10(np.maximum(power, 1e-12))


def average_moving(summary: dict) -> np.ndarray:
  """Mean power [k] over all moving pixels of n volumes."""
  return (summary["moving"] * summary["share"][:, None]).sum(0) / summary["share"].sum()


def print_bands(clips: dict, scenes: dict):
  """Prints power per band of clips and scenes, and the distances between them."""
  lively = scenes["power"][scenes["share"] > 0.002]
  rng, power = np.random.default_rng(0), clips["power"]
  spread = to_db(np.array([power[rng.integers(len(power), size=len(power))].mean(0) for _ in range(500)])).std(0)
  columns = {
    "all pixels": (to_db(power.mean(0)), to_db(scenes["power"].mean(0))),
    "moving pixels": (to_db(average_moving(clips)), to_db(average_moving(scenes))),
    "mean of dB": (to_db(power).mean(0), to_db(lively).mean(0)),
  }
  print(f"{len(power)} clips, {len(scenes['power'])} scenes of which {len(lively)} move")
  print(f"moving pixels: clips {clips['share'].mean():.0%}, scenes {scenes['share'].mean():.0%}")
  print("dB of 1 px^2  +- " + "".join(f"{name:>26}" for name in columns))
  print("band    Hz       " + f"{'clips':>10}{'scenes':>8}{'diff.':>8}" * len(columns))
  for k in range(NUM_BANDS):
    cells = "".join(f"{real[k]:>10.1f}{made[k]:>8.1f}{made[k] - real[k]:>+8.1f}" for real, made in columns.values())
    print(f"{k:>4} {k * FPS / NUM_FRAMES:>5.1f}  {spread[k]:>4.1f} {cells}")
  for name, (real, made) in columns.items():
    gap = made - real
    print(
      f"{name}: log-spectral distance {np.sqrt(np.mean(gap**2)):.1f} dB, {gap.mean():+.1f} dB overall, "
      f"{gap.std():.1f} dB in shape, at most {np.abs(gap).max():.1f} dB"
    )
  real, made = columns["all pixels"]
  print(f"{'holds' if np.abs(made - real).max() < 3 else 'FAILS'}: mean power within 3 dB in each band")


def print_amplitudes(clips: dict, scenes: dict):
  """Prints how much of the pictures moves how far, cumulatively."""
  edges = (0.02, 0.1, 0.3, 1, 3, 10)
  upper = np.append(AMPLITUDES, np.inf)
  print("standard deviation, px " + " ".join(f"{f'< {edge:g}':>7}" for edge in edges) + "  (share of pixels so far)")
  for name, summary in (("clips", clips), ("scenes", scenes)):
    total = [summary["bins"].mean(0)[upper <= edge * 1.001].sum() for edge in edges]
    print(f"{name:<22} " + " ".join(f"{share:>7.1%}" for share in total))


def plot_comparison(clips: dict, scenes: dict, path: str):
  """Draws power per band and the histogram of amplitudes as a picture file."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
  hertz, middle = np.arange(NUM_BANDS) * FPS / NUM_FRAMES, to_db(clips["power"].mean(0))
  left.plot(hertz, to_db(clips["power"]).T, color="0.8", linewidth=0.8)
  left.fill_between(hertz, middle - 3, middle + 3, color="tab:orange", alpha=0.25, label="within 3 dB")
  left.plot(hertz, middle, "o-", color="tab:orange", label="clips, mean (grey: each)")
  left.plot(hertz, to_db(scenes["power"].mean(0)), "s-", color="tab:blue", label="scenes, mean")
  left.set(xlabel="frequency, Hz", ylabel="power, dB of 1 px$^2$", title="Power per band")
  for name, summary, color in (("clips", clips, "tab:orange"), ("scenes", scenes, "tab:blue")):
    shares = summary["bins"].mean(0)
    label = f"{name} ({shares[0]:.0%} below {AMPLITUDES[0]:g} px)"
    right.stairs(100 * shares[1:-1], AMPLITUDES, color=color, linewidth=2, label=label)
  right.set(xscale="log", xlabel="standard deviation over time, px", ylabel="pixels, %", title="Amplitude of motion")
  for axes in (left, right):
    axes.legend(frameon=False)
  figure.savefig(path, dpi=110)


def main():
  """Measures, prints the tables and draws the plot."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", type=Path, required=True, help="folder of the videos to compare with")
  parser.add_argument("--cache", type=Path, help="file that keeps what was measured in the clips")
  parser.add_argument("--scenes", type=int, default=500)
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  parser.add_argument("--output", default="synthetic_nature.png")
  options = parser.parse_args()
  cv2.setNumThreads(1)
  photos = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  clips = measure_clips(options.clips, options.cache)
  every = (FIRST_SEED + n for n in itertools.count())
  outdoors = (seed for seed in every if draw_setting(np.random.default_rng(seed))[0] in OUTDOORS)
  seeds = itertools.islice(outdoors, options.scenes)
  volumes = (sample_scene(seed, **photos).spectral_volume(NUM_BANDS) for seed in seeds)
  scenes = stack_summaries([summarize_volume(volume) for volume in volumes])
  print_bands(clips, scenes)
  print_amplitudes(clips, scenes)
  plot_comparison(clips, scenes, options.output)
  print(f"plot: {options.output}")


if __name__ == "__main__":
  main()
