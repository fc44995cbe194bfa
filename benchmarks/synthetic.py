"""Claims about the simulated world, at 256x160, 150 frames and 30 frames per second:

1. speed: >= 2 scenes/s on one core, each with image, 16-band spectral volume and a later frame with its displacement;
2. truth: the pixels of frame 0 that are still seen, splatted along the displacement, give frame t at >= 35 dB;
3. spectrum: the spectral volume is the Fourier transform of the sampled displacement, within 1e-3 of its largest value;
4. diversity: no two of 1,000 scenes share more than the background, and every family is in >= 5 % of them.

  python -m benchmarks.synthetic [--backgrounds FOLDER --sprites FOLDER] [--only speed truth spectrum diversity]
    [--scenes N] [--output synthetic.png]

`synthetic_nature.py` compares the motion with filmed plants. How each is measured:
- Speed: one thread, judged by processor time, which other work on the machine hardly changes. Peers, in the same run:
  the transform of 150 sampled displacements in place of the analytic spectrum, and that after rendering all 150
  frames, as a simulator without exact motion must.
- Truth: PSNR where the splatted pixels leave a mass of at least a half, at a random time, in scenes where something
  moves, of pixels that one part fills at both times; "edges too" has all pixels whose centre is still seen, with their
  colours mixed at edges. The peer leaves frame 0 as it is. "Moving" counts only pixels on which something landed that
  moved by over half a pixel.
- Diversity: the fine detail of each picture where anything stands before the background, its spectrum evened out. Two
  scenes share something if this correlates by 0.6 or more at the best place, mirrored or not, at the same size (copies
  planted as a control, moved, mirrored, darker and noisy, show that this is found), or if the cosine between their
  spectral volumes is 0.8 or more.
"""

import argparse
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy is imported

import cv2
import matplotlib
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.motion import splat
from gid_jax.motion.spectral import motion_to_spectrum

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NUM_SCENES = {"speed": 40, "truth": 100, "spectrum": 20, "diversity": 1000}
FIRST_SEED = 1_000_000  # the builder counts its scenes from 0
NUM_BANDS, NUM_FRAMES = 16, 150
PEER_STEP = 5  # every so many scenes of the speed table are also made the peers' way
NUM_EXACT = 200  # nearest pairs of scenes compared once more at full resolution
NUM_COPIES = 20  # scenes of which a copy is planted
ALIKE_PICTURES, ALIKE_MOTION = 0.6, 0.8  # correlations from which two scenes share something


def judge(claim: str, holds: bool):
  """Prints whether a claim holds."""
  print(f"  {'holds' if holds else 'FAILS'}: {claim}")


def make_analytic(seed: int, photos: dict):
  """Makes what training needs of one scene, its spectrum exactly."""
  scene, later = sample_scene(seed, **photos), seed % (NUM_FRAMES - 1) + 1
  return scene.image, scene.spectral_volume(NUM_BANDS), scene.frame(later), scene.displacement([later])


def make_sampled(seed: int, photos: dict):
  """Makes the same from 150 sampled displacements."""
  scene, later = sample_scene(seed, **photos), seed % (NUM_FRAMES - 1) + 1
  motion = scene.displacement(np.arange(NUM_FRAMES))
  return scene.image, motion_to_spectrum(motion, num_bands=NUM_BANDS).coefficients, scene.frame(later), motion[later]


def make_rendered(seed: int, photos: dict):
  """Makes the same from 150 sampled displacements and rendered frames."""
  scene = sample_scene(seed, **photos)
  frames = [scene.frame(t) for t in range(NUM_FRAMES)]
  return frames, motion_to_spectrum(scene.displacement(np.arange(NUM_FRAMES)), num_bands=NUM_BANDS).coefficients


def report_speed(num_scenes: int, photos: dict):
  """Times scenes made in three ways, in turns, on one thread."""
  makers = {"analytic": make_analytic, "sampled, FFT": make_sampled, "all frames, FFT": make_rendered}
  make_analytic(FIRST_SEED - 1, photos)  # caches and imports
  seconds = {name: np.full((num_scenes, 2), np.nan) for name in makers}
  for index in range(num_scenes):
    for name in makers if index % PEER_STEP == 0 else ["analytic"]:
      start = time.perf_counter(), time.process_time()
      makers[name](FIRST_SEED + index, photos)
      seconds[name][index] = time.perf_counter() - start[0], time.process_time() - start[1]
  print("  method            scenes/s: median   mean   (of processor time)   median   mean   times as long")
  common = slice(None, None, PEER_STEP)
  for name, spent in seconds.items():
    wall, cpu = spent[~np.isnan(spent[:, 0])].T
    ratio = spent[common, 1].mean() / seconds["analytic"][common, 1].mean()
    print(
      f"  {name:<24}{1 / np.median(wall):>12.2f} {1 / wall.mean():>6.2f} {1 / np.median(cpu):>30.2f}"
      f" {1 / cpu.mean():>6.2f} {ratio:>15.1f}"
    )
  spent = seconds["analytic"]
  worst = spent[:, 1].argmax()
  print(f"  slowest: seed {FIRST_SEED + worst}, {spent[worst, 1]:.2f} s; every {PEER_STEP}th scene made in all ways")
  judge("2 scenes/s on one core, the mean", 1 / spent[:, 1].mean() >= 2)

  def draw(axes):
    rates = [1 / np.nanmean(values[:, 1]) for values in seconds.values()]
    bars = axes.barh([*makers][::-1], rates[::-1], color=["0.7", "0.7", "tab:blue"])
    axes.bar_label(bars, fmt=" %.2g")
    axes.axvline(2, color="k", linestyle=":")
    axes.set(xlabel="scenes/s on one core (mean)", title="Speed (dotted: the claim)", xlim=(0, 1.2 * max(rates)))

  return [draw]


def measure_psnr(image: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
  """PSNR in dB of 8-bit images [h w 3] over the pixels `where` [h w], at most 60."""
  error = np.mean((image[where].astype(np.float64) - truth[where]) ** 2) if where.any() else 0.0
  return float(-10 * np.log10(max(error / 255**2, 1e-6)))


def splat_seen(scene, later: int, *, wholly: bool) -> list[float]:
  """PSNR in dB at frame `later` of frame 0 splatted, and left; on pixels reached, and on those by what moved."""
  flow, truth, image = scene.displacement([later])[0], scene.frame(later), scene.image
  moved = (np.linalg.norm(flow, axis=-1) > 0.5).astype(np.float32)
  values = np.concatenate([image, moved[..., None]], -1).astype(np.float32)
  flow = np.where(scene.visible(later, wholly=wholly)[..., None], flow, np.nan)  # non-finite is dropped
  warped, mass = (np.asarray(x) for x in splat.average_splat(values, flow))
  reached = mass[..., 0] >= 0.5
  moving = reached & (warped[..., 3] > 0.5)
  pictures = np.round(warped[..., :3]), image
  return [measure_psnr(picture, truth, where) for where in (reached, moving) for picture in pictures]


def report_truth(num_scenes: int, photos: dict):
  """Splats frame 0 of scenes in which something moves."""
  rows, seeds, seed = [], [], FIRST_SEED
  while len(rows) < num_scenes:
    scene, later = sample_scene(seed, **photos), int(np.random.default_rng(seed).integers(1, NUM_FRAMES))
    if (np.linalg.norm(scene.displacement([later])[0], axis=-1) > 0.5).mean() > 0.002:
      rows.append(splat_seen(scene, later, wholly=True) + splat_seen(scene, later, wholly=False)[:1])
      seeds.append(seed)
    seed += 1
  scores = np.array(rows)
  print(f"  {num_scenes} of {seed - FIRST_SEED} scenes move   mean dB   median   >= 35 dB")
  names = ("splatted", "left as it is", "splatted, moving", "left, moving", "splatted, edges too")
  for name, column in zip(names, scores.T, strict=True):
    print(f"  {name:<26} {column.mean():>9.2f} {np.median(column):>8.2f} {(column >= 35).mean():>10.0%}")
  worst = scores[:, 0].argsort()[:5]
  print("  worst: " + ", ".join(f"seed {seeds[i]} {scores[i, 0]:.1f} dB" for i in worst))
  judge("35 dB or more, the mean over scenes", scores[:, 0].mean() >= 35)

  def draw(axes):
    bins = np.arange(10, 62, 2)
    axes.hist(scores[:, 1], bins, color="0.7", label="frame 0 as it is")
    axes.hist(scores[:, 0], bins, histtype="step", color="tab:blue", linewidth=2, label="splatted")
    axes.axvline(35, color="k", linestyle=":")
    axes.set(xlabel="PSNR against frame t, dB", ylabel="scenes", title="Truth of the displacement")
    axes.legend(frameon=False)

  return [draw]


def report_spectrum(num_scenes: int, photos: dict):
  """Compares analytic spectra with the transform of sampled displacements."""
  rows = []
  for seed in range(FIRST_SEED, FIRST_SEED + num_scenes):
    scene = sample_scene(seed, **photos)
    analytic = scene.spectral_volume(NUM_BANDS)
    moving = analytic.any(-1)
    sampled = motion_to_spectrum(scene.displacement(np.arange(NUM_FRAMES)), num_bands=NUM_BANDS)
    error = np.abs(sampled.coefficients - analytic)
    if moving.any():
      rows.append([error.max() / np.abs(analytic).max(), error.max() / np.sqrt(np.mean(analytic[moving] ** 2))])
    elif error.max() > 0:
      rows.append([np.inf, np.inf])
  if not rows:
    sys.exit("none of these scenes moves; give more --scenes")
  worst = np.max(rows, axis=0)
  print(f"  largest error of {num_scenes} scenes ({len(rows)} move):", end=" ")
  print(f"{worst[0]:.1e} of the largest coefficient, {worst[1]:.1e} of the root mean square")
  judge("within 1e-3 of the largest coefficient", worst[0] < 1e-3)
  return []


def cut_out_things(image: np.ndarray, there: np.ndarray) -> np.ndarray:
  """Fine detail of the picture [h w 3] where things stand, `there` [h w] bool; elsewhere 0: [h w] float32."""
  gray, weight = image.astype(np.float32).mean(-1) * there, there.astype(np.float32)
  coarse = cv2.GaussianBlur(gray, (0, 0), 8) / (cv2.GaussianBlur(weight, (0, 0), 8) + 1e-6)
  return cv2.GaussianBlur(gray - coarse * there, (0, 0), 1) * there


def whiten(detail: np.ndarray) -> np.ndarray:
  """Evens out the spectrum of [h w], or what is simple in the same way, like two poles, would correlate; norm 1."""
  spectrum = np.fft.rfft2(detail.astype(np.float32))
  size = np.abs(spectrum)
  white = np.fft.irfft2(spectrum / (size + 1e-3 * size.max() + 1e-6), detail.shape)
  return white / max(float(np.linalg.norm(white)), 1e-6)


def correlate_all(one: np.ndarray, spectra: np.ndarray) -> np.ndarray:
  """Largest correlation over cyclic shifts and mirroring of a picture [h w] with others, whose rfft2 are given: [n]."""
  both = [np.fft.irfft2(np.fft.rfft2(view) * np.conj(spectra), one.shape) for view in (one, one[:, ::-1])]
  return np.max(both, axis=(0, 2, 3))


def compare_pictures(details: np.ndarray) -> list[tuple[float, int, int]]:
  """(Correlation, one, other) of the nearest pairs among details [n h w], best first.

  All pairs are compared at a quarter of the resolution, the nearest of them again in full.
  """
  shrink = lambda detail: cv2.resize(detail.astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
  small, pairs = np.stack([whiten(shrink(detail)) for detail in details]), []
  spectra = np.fft.rfft2(small)
  for i in range(len(small) - 1):
    found = correlate_all(small[i], spectra[i + 1 :])
    pairs += [(float(found[j]), i, i + 1 + int(j)) for j in found.argsort()[-NUM_EXACT:]]
  exact = []
  for _, i, j in sorted(pairs)[-NUM_EXACT:]:
    one, other = whiten(details[i]), whiten(details[j])
    exact.append((float(correlate_all(one, np.fft.rfft2(other)[None])[0]), i, j))
  return sorted(exact, reverse=True)


def compare_motion(volumes: np.ndarray) -> tuple[float, int, int]:
  """(Cosine, one, other) of the nearest pair among spectral volumes [n c]."""
  unit = volumes / np.maximum(np.linalg.norm(volumes, axis=1, keepdims=True), 1e-6)
  cosines = unit @ unit.T
  np.fill_diagonal(cosines, -1)
  i, j = np.unravel_index(cosines.argmax(), cosines.shape)
  return float(cosines[i, j]), int(i), int(j)


def plant_copy(scene) -> float:
  """Correlation of a scene's things with themselves mirrored, moved, darker and noisy."""
  noise = np.random.default_rng(0).normal(0, 5, scene.image.shape)
  there, copy = scene.layer_ids > 0, 255 * (scene.image / 255) ** 1.3 * 0.8 + noise
  moved = whiten(cut_out_things(np.roll(copy[:, ::-1], 9, 1), np.roll(there[:, ::-1], 9, 1)))
  return float(correlate_all(whiten(cut_out_things(scene.image, there)), np.fft.rfft2(moved)[None])[0])


def report_diversity(num_scenes: int, photos: dict):
  """Looks for the two scenes that are most alike, and counts families."""
  details, volumes, families, copies = [], [], [], []
  for seed in range(FIRST_SEED, FIRST_SEED + num_scenes):
    scene = sample_scene(seed, **photos)
    details.append(cut_out_things(scene.image, scene.layer_ids > 0).astype(np.float16))
    volumes.append(scene.spectral_volume(NUM_BANDS)[1:, 4::8, 4::8].ravel())
    families.append(set(scene.families))
    if seed < FIRST_SEED + NUM_COPIES and scene.layer_ids.any():
      copies.append(plant_copy(scene))
  nearest, (cosine, i, j) = compare_pictures(np.stack(details)), compare_motion(np.stack(volumes))
  print(f"  pictures of things: planted copies correlate by {min(copies, default=0):.2f} or more, the nearest by")
  print("    " + ", ".join(f"{FIRST_SEED + a}/{FIRST_SEED + b} {score:.2f}" for score, a, b in nearest[:5]))
  print(f"  motion: nearest pair {FIRST_SEED + i}/{FIRST_SEED + j}, cosine {cosine:.2f}")
  unlike = nearest[0][0] < ALIKE_PICTURES <= min(copies, default=0)
  judge(f"no two pictures correlate by {ALIKE_PICTURES}, planted copies do", unlike)
  judge(f"no two motions have a cosine of {ALIKE_MOTION}", cosine < ALIKE_MOTION)
  shares = {name: np.mean([name in held for held in families]) for name in sorted(set().union(*families))}
  print("  families: " + (", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "the scenes name none"))
  judge("every family in 5 % of the scenes", bool(shares) and min(shares.values()) >= 0.05)

  def draw(axes):
    bars = axes.barh([*shares][::-1], [100 * share for share in shares.values()][::-1], color="tab:green")
    axes.bar_label(bars, fmt=" %.0f")
    axes.axvline(5, color="k", linestyle=":")
    axes.set(xlabel="scenes with it, %", title="Families", xlim=(0, 120 * max(shares.values())))

  return [draw] if shares else []


def plot_panels(panels: list, path: str):
  """Draws each report's panel into one picture file."""
  figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.2), layout="constrained", squeeze=False)
  for draw, place in zip(panels, axes.flat, strict=True):
    draw(place)
  figure.savefig(path, dpi=110)
  print(f"plot: {path}")


def main():
  """Runs the reports asked for, prints their tables and draws the plot."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  parser.add_argument("--only", nargs="+", choices=NUM_SCENES, default=[*NUM_SCENES])
  parser.add_argument("--scenes", type=int, help="number of scenes of each part, for a quick look")
  parser.add_argument("--output", default="synthetic.png")
  options = parser.parse_args()
  if "diversity" in options.only and options.scenes == 1:
    parser.error("--scenes 1: diversity compares two scenes at least")
  cv2.setNumThreads(1)
  photos = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  reports = {
    "speed": report_speed,
    "truth": report_truth,
    "spectrum": report_spectrum,
    "diversity": report_diversity,
  }
  panels = []
  for name in options.only:
    print(f"{name}:", flush=True)
    start = time.perf_counter()
    panels += reports[name](options.scenes or NUM_SCENES[name], photos)
    print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
  if panels:
    plot_panels(panels, options.output)


if __name__ == "__main__":
  main()
