"""Claim: how the renderer compares with moving the photo's own pixels, on simulated scenes never trained on.

  python -m benchmarks.renderer [--weights FOLDER] [--pairs 50] [--size 160 256] [--vgg16 FILE]
    [--backgrounds FOLDER --sprites FOLDER]

Renders held-out simulated pairs (I_0, F_t) -> I_t with the renderer and with the predictors of
`gid_jax.evaluation.rendering`, which splat the photo and fill holes from around them, and prints PSNR, SSIM and, with
weights of VGG16, the perceptual distance: of whole frames, of what was hidden in I_0 and of the rest; then the
renderer's gain over each, in dB with its 95 % interval over scenes. All are given the true motion.
"""

import argparse
import sys

import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.evaluation.rendering import METRICS, PREDICTORS, REGIONS, judge_pair
from gid_jax.evaluation.results import estimate_mean
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.pipeline import ImageRenderer

FIRST_SEED = 1_000_000  # the builder counts its scenes from 0


def main():
  """Measures and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--pairs", type=int, default=50)
  parser.add_argument("--size", type=int, nargs=2, default=(160, 256), help="height and width")
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  parser.add_argument("--vgg16", help="npz of VGG16's convolutions, for the perceptual distance")
  options = parser.parse_args()
  renderers = {"renderer": ImageRenderer.from_pretrained(options.weights).render_flow, **PREDICTORS}
  options_of_scenes = dict(
    height=options.size[0],
    width=options.size[1],
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  vgg_params = vgg16_params(options.vgg16) if options.vgg16 else None

  pairs = []
  seed = FIRST_SEED
  while len(pairs) < options.pairs:
    scene = sample_scene(seed, **options_of_scenes)
    time = int(np.random.default_rng(seed).integers(1, scene.num_frames))
    flow = scene.displacement(np.array([time], np.float32))[0]
    seed += 1
    if np.abs(flow).max() < 1:
      continue  # nothing moves: every method is perfect
    truth = scene.frame(time)
    pairs.append(
      judge_pair(scene.image, flow, scene.mean_magnitude(), truth, renderers=renderers, vgg_params=vgg_params)
    )
    if sys.stderr.isatty():
      print(f"\r{len(pairs)} pairs", end="", file=sys.stderr)
  print(f"{len(pairs)} pairs, {seed - FIRST_SEED} scenes from seed {FIRST_SEED}")
  gather = lambda name, metric, region: [pair[name].get((metric, region), np.nan) for pair in pairs]
  for metric in METRICS if vgg_params else ("psnr", "ssim"):
    print(f"\n{metric:<16}" + "".join(f"{region:>14}" for region in REGIONS))
    for name in renderers:
      values = [estimate_mean(gather(name, metric, region)).value for region in REGIONS]
      print(f"{name:<16}" + "".join(f"{value:>14.3f}" for value in values))
  print()
  for name in PREDICTORS:
    differences = np.subtract(gather("renderer", "psnr", "whole"), gather(name, "psnr", "whole"))
    gain = estimate_mean(differences)
    print(f"renderer over {name:<14} {gain.value:+.2f} dB ({gain.low:+.2f} to {gain.high:+.2f})")


if __name__ == "__main__":
  main()
