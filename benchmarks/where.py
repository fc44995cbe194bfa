"""Claim: "where" is measured on places that cannot reward looking for texture, and its thresholds do not decide it.

  python -m benchmarks.where --clips CLIPS --loops LOOPS --cache FOLDER [--weights FOLDER]

For several thresholds of texture (two grey levels in 255 a pixel are the evaluation's): the number of scenes in which
enough of the picture surely moves and surely rests, and the area under the ROC curve of measures that know nothing of
motion, averaged over scenes. "any" counts flat places as still, as a naive mask would. Motion is measured at the
model's size and kept in the folder.
"""

import argparse
from pathlib import Path

from gid_jax.errors import UserError
from gid_jax.evaluation.motion import TEXTURE, area_under_curve, find_moving, measure_texture
from gid_jax.evaluation.motion_baselines import score_photo
from gid_jax.evaluation.results import estimate_mean
from gid_jax.evaluation.scenes import list_clips, read_clip
from gid_jax.motion.measures import rms_swing
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

THRESHOLDS = {"any": -1.0, "1 grey level": TEXTURE / 2, "2": TEXTURE, "4": 2 * TEXTURE}


def judge_clip(scene):
  """Threshold -> score -> area, NaN where it cannot be measured."""
  height, width = scene.volume.coefficients.shape[1:3]
  swing = rms_swing(scene.volume, stride=scene.frames.shape[1] / height)
  texture = measure_texture(scene.image, height=height, width=width)
  scores = score_photo(scene.image, height=height, width=width)
  areas = {}
  for name, threshold in THRESHOLDS.items():
    regions = find_moving(swing, scene.confidence, texture, min_texture=threshold)
    areas[name] = {score: area_under_curve(values, regions) for score, values in scores.items()}
  return areas


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", required=True)
  parser.add_argument("--loops", required=True)
  parser.add_argument("--cache", type=Path, required=True, help="folder of measured motion")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  options = parser.parse_args()
  model = load_pretrained(MOTION_WEIGHTS, directory=options.weights)[1].model
  for source, folder in (("real", options.clips), ("loop", options.loops)):
    judged = []
    for file in list_clips(folder):
      try:
        judged.append((file.scene, judge_clip(read_clip(file, model, source=source, cache=options.cache))))
      except UserError as error:
        print(f"left out {file.path.name}: {error}", flush=True)
    scores = list(judged[0][1]["2"])
    print(f"\n{source}, {len({scene for scene, _ in judged})} scenes\n| texture over | scenes | {' | '.join(scores)} |")
    for name in THRESHOLDS:
      groups = [scene for scene, _ in judged]
      estimates = [estimate_mean([areas[name][score] for _, areas in judged], groups=groups) for score in scores]
      cells = [f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in estimates]
      print(f"| {name} | {estimates[0].num_samples} | {' | '.join(cells)} |")


if __name__ == "__main__":
  main()
