"""Claim: the spectral volume measured from the frames of a simulated scene is close to the exact one, band by band.

  python -m benchmarks.spectrum [--scenes 8] [--bands 16] [--size 160 256] [--output spectrum.png]

Renders scenes of 150 frames in which something moves, measures their trajectories (`measure_motion`), takes
the discrete Fourier transform, and compares each band with the scene's exact spectral volume over the pixels that move
(0.5 px on average or more). Amplitudes are 2 |S| / T, pixels (the mean |S| / T for band 0), root mean square over
pixels and both directions. A relative error of 1 is that of predicting no motion at all. A pixel whose motion is
hidden for a while cannot be measured in full: "seen" leaves out those hidden in over a tenth of the frames. "still" is
the amplitude measured where nothing moves. The plot shows the same table.
"""

import argparse
import os

import jax
import matplotlib
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.flow.tracking import measure_motion
from gid_jax.motion.spectral import motion_to_spectrum

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIRST_SEED = 1_000_000  # the builder counts its scenes from 0


def scene_errors(scene, num_bands: int) -> dict[str, np.ndarray]:
  """Sums of squares per band, as (name -> [k 2]: the sum, and the number of values), pixels of amplitude."""
  frames = np.stack([scene.frame(t) for t in range(scene.num_frames)])
  measured = motion_to_spectrum(measure_motion(frames).motion, num_bands=num_bands).coefficients
  exact = scene.spectral_volume(num_bands)
  scale = np.full((num_bands, 1, 1, 1), 2 / scene.num_frames)
  scale[0] /= 2
  signal, error, found = (((scale * values) ** 2).sum(-1) / 2 for values in (exact, measured - exact, measured))
  length = scene.mean_magnitude()
  moving = length > 0.5
  seen = moving & (np.mean([scene.visible(t) for t in range(0, scene.num_frames, 5)], axis=0) > 0.9)
  count = lambda values, where: np.stack([values[:, where].sum(1), np.full(num_bands, where.sum())], -1)
  return {
    "signal": count(signal, moving),
    "error": count(error, moving),
    "signal seen": count(signal, seen),
    "error seen": count(error, seen),
    "still": count(found, length == 0),
  }


def plot_errors(rms: dict[str, np.ndarray], hertz: np.ndarray, path: str):
  """Draws the signal's amplitude beside the error's, and the relative error, as a picture file."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
  width = 0.4 * (hertz[1] - hertz[0])
  left.bar(hertz - width / 2, rms["signal"], width, label="exact motion", color="0.6")
  left.bar(hertz + width / 2, rms["error"], width, label="error, moving pixels", color="tab:red")
  left.plot(hertz, rms["still"], "k.-", label="measured where nothing moves")
  left.set(yscale="log", xlabel="frequency, Hz", ylabel="amplitude, px (root mean square)", title="Amplitude per band")
  right.plot(hertz, rms["error"] / rms["signal"], "o-", color="tab:red", label="moving pixels")
  right.plot(hertz, rms["error seen"] / rms["signal seen"], "o-", color="tab:blue", label="those nearly always seen")
  right.axhline(1, color="0.5", linestyle="--", label="predicting no motion")
  right.set(xlabel="frequency, Hz", ylabel="error / amplitude", title="Relative error per band", ylim=(0, None))
  for axes in (left, right):
    axes.legend(frameon=False)
  figure.savefig(path, dpi=110)


def main():
  """Measures, prints the table and draws the plot."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--scenes", type=int, default=8)
  parser.add_argument("--bands", type=int, default=16)
  parser.add_argument("--size", type=int, nargs=2, default=(160, 256), help="height and width")
  parser.add_argument("--output", default="spectrum.png")
  options = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
  totals, scenes, seed = {}, 0, FIRST_SEED
  while scenes < options.scenes:
    scene = sample_scene(seed, height=options.size[0], width=options.size[1])
    seed += 1
    if (scene.mean_magnitude() > 0.5).mean() < 0.02:
      continue  # hardly anything moves
    scenes += 1
    for name, sums in scene_errors(scene, options.bands).items():
      totals[name] = totals.get(name, 0) + sums
  rms = {name: np.sqrt(sums[:, 0] / sums[:, 1]) for name, sums in totals.items()}
  hertz = np.arange(options.bands) * scene.fps / scene.num_frames
  shares = [totals[name][0, 1] / (scenes * scene.image[..., 0].size) for name in ("error", "error seen", "still")]
  print("{} scenes; {:.0%} of the pixels move, {:.0%} and are nearly always seen, {:.0%} rest".format(scenes, *shares))
  print("band    Hz   amplitude px   error px   relative   relative, seen   still px")
  for band in range(options.bands):
    signal, error, signal_seen, error_seen, rest = (values[band] for values in rms.values())
    print(
      f"{band:>4} {hertz[band]:>5.2f} {signal:>14.4f} {error:>10.4f} {error / signal:>10.3f} "
      f"{error_seen / signal_seen:>16.3f} {rest:>10.4f}"
    )
  plot_errors(rms, hertz, options.output)
  print(f"plot: {options.output}")


if __name__ == "__main__":
  main()
