"""Claim: how few sampling steps, and how much guidance, a motion model needs: the sampling curve on unseen scenes.

  python -m benchmarks.sampling --clips CLIPS --cache FOLDER [--weights FOLDER] [--simulated 16]
      [--settings 12:1 6:1 12:0 6:0 4:0]

Samples two volumes a photo with every setting STEPS:GUIDANCE, of filmed clips whose scenes the weights were not trained
on, one take a scene, and of simulated scenes, and prints the motion metrics with their 95 % intervals over scenes, the
difference of each setting from the first on the same scenes, and the time of a volume.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.evaluation.judging import MODEL, judge_motion
from gid_jax.evaluation.results import estimate_mean
from gid_jax.evaluation.scenes import list_clips, read_clip, simulate_scenes
from gid_jax.evaluation.tables import MOTION_COLUMNS
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.pipeline import Animator

METRICS = (
  "auc", "median_ratio", "spectral_distance", "phase_coherence_8_error", "band_correlation_error", "energy_distance",
  "diversity", "share_moving",
)  # fmt: skip
FIRST_SEED = 1_100_000


def find_scenes(options, animator):
  """Yields the scenes to judge on."""
  model = animator.motion_settings.model
  seen = (animator.motion_settings.trained_on or {}).get("real", ())
  taken = set()
  for file in list_clips(options.clips):
    if file.scene not in {*seen, *taken}:
      taken.add(file.scene)
      yield read_clip(file, model, source="real", cache=options.cache)
  photos = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  yield from simulate_scenes(sample_scene, range(FIRST_SEED, FIRST_SEED + options.simulated), model, **photos)


def sample_volumes(animator, key, image, setting):
  """Two volumes, one after the other, and the seconds of one."""
  steps, guidance = setting
  samples, start = [], time.perf_counter()
  for seed in jax.random.split(key):
    volume = animator.predict_spectrum(seed, image, steps=steps, guidance=guidance)
    samples.append(volume.replace(coefficients=np.asarray(volume.coefficients)))
  return samples, (time.perf_counter() - start) / 2


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", required=True, help="folder of filmed clips, with its table beside it")
  parser.add_argument("--cache", type=Path, required=True, help="folder of measured motion")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--simulated", type=int, default=16, help="number of simulated scenes")
  parser.add_argument("--backgrounds", help="folder of photos behind simulated scenes")
  parser.add_argument("--sprites", help="folder of cut-outs in simulated scenes")
  parser.add_argument("--settings", nargs="+", default=["12:1", "6:1", "12:0", "6:0", "4:0"])
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  settings = {text: (int(text.split(":")[0]), float(text.split(":")[1])) for text in options.settings}
  figures = {text: {metric: [] for metric in METRICS} for text in settings}
  seconds, sources = {text: [] for text in settings}, []
  for index, scene in enumerate(find_scenes(options, animator)):
    sources.append(scene.source)
    for text, setting in settings.items():
      samples, elapsed = sample_volumes(animator, jax.random.key(index), scene.image, setting)
      judged = judge_motion(scene, samples, blind={})[MODEL]
      seconds[text].append(elapsed)
      for metric in METRICS:
        figures[text][metric].append(judged[metric])
    print(f"{scene.name} done", flush=True)

  first = options.settings[0]
  for source in dict.fromkeys(sources):
    chosen = np.array([kind == source for kind in sources])
    print(f"\n{source}, {chosen.sum()} scenes; in brackets the difference from {first}")
    print(f"| steps:guidance | s | {' | '.join(MOTION_COLUMNS[metric].name for metric in METRICS)} |")
    for text in settings:
      cells = [f"{np.median(seconds[text]):.1f}"]
      for metric in METRICS:
        values, others = (np.array(figures[name][metric])[chosen] for name in (text, first))
        mean, difference = estimate_mean(values), estimate_mean(values - others)
        noise = (difference.high - difference.low) / 2
        cells.append(f"{mean.value:.3f}" + ("" if text == first else f" ({difference.value:+.3f} ± {noise:.3f})"))
      print(f"| {text} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
  main()
