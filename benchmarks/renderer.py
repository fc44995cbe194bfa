"""Claim: on simulated scenes never trained on, the renderer beats splatting the photo itself.

  python benchmarks/renderer.py [--weights FOLDER] [--pairs 50] [--backgrounds FOLDER --sprites FOLDER]

Renders held-out simulated pairs (I_0, F_t) -> I_t with the renderer, with average splatting and with softmax splatting
of the photo, and prints the mean PSNR of each, in dB, and the renderer's gain over each with its standard error. The
true I_t contains what was hidden in I_0, and all three methods get the true motion. Holes of the two baselines keep
the photo's own pixels.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.synthetic.folders import load_backgrounds, load_sprites
from data_pipeline.synthetic.scene import sample_scene
from gid_jax import splat
from gid_jax.pipeline import Animator

FIRST_SEED = 1_000_000  # the builder counts its scenes from 0


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
  """Peak signal-to-noise ratio in dB of images [h w 3] in [0, 1]."""
  return float(-10 * np.log10(np.mean((np.clip(image, 0, 1) - truth) ** 2)))


def main():
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--pairs", type=int, default=50)
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  photos = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )

  @jax.jit
  def baselines(image, flow, depth):
    hole = lambda warped, mass: jnp.where(mass > 0, warped, image)
    return hole(*splat.average_splat(image, flow)), hole(*splat.softmax_splat(image, flow, depth))

  scores = []
  seed = FIRST_SEED
  while len(scores) < options.pairs:
    scene = sample_scene(seed, **photos)
    rng = np.random.default_rng(seed)
    seed += 1
    time = int(rng.integers(1, scene.num_frames))
    flow = scene.displacement(np.array([time], np.float32))[0]
    if np.abs(flow).max() < 1:
      continue  # nothing moves: every method is perfect
    image, truth = scene.image.astype(np.float32) / 255, scene.frame(time).astype(np.float32) / 255
    depth = np.asarray(scene.mean_magnitude(), np.float32)
    average, softmax = baselines(image, flow, depth)
    rendered = animator.render_flow(image, flow, depth)
    scores.append([psnr(np.asarray(result), truth) for result in (rendered, average, softmax)])
  scores = np.array(scores)
  print(f"{len(scores)} pairs, {seed - FIRST_SEED} scenes from seed {FIRST_SEED}")
  for name, column in zip(("renderer", "average splat", "softmax splat"), scores.T, strict=True):
    gain = scores[:, 0] - column
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(
      f"{name:<14} {column.mean():6.2f} dB"
      + (f"   renderer gains {gain.mean():+.2f} +- {error:.2f} dB" if gain.any() else "")
    )


if __name__ == "__main__":
  main()
