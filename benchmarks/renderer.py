"""Claim: how the renderer compares with moving the photo's own pixels, on films, loops and scenes never trained on.

  python -m benchmarks.renderer [--data FOLDER] [--frames 2] [--weights FOLDER] [--pairs 50] [--size 160 256]
    [--vgg16 FILE] [--backgrounds FOLDER --sprites FOLDER]

Renders pairs (I_0, F_t) -> I_t with the renderer and with the predictors of `gid_jax.evaluation.rendering`, which splat
the photo and fill holes from around them, and prints PSNR, SSIM and, with weights of VGG16, the perceptual distance: of
whole frames, of what was hidden in I_0 and of the rest, as means over scenes; then what the renderer's figure is over
each other's on the same scenes, with 95 % intervals. Simulated pairs have the true motion. Those of films and loops are
the windows of a data set's validation scenes, with the flow that was measured between the two frames.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.data.records import Record, open_records
from gid_jax.evaluation.rendering import METRICS, PREDICTORS, REGIONS, judge_pair
from gid_jax.evaluation.results import estimate_mean
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.rendering import ImageRenderer

FIRST_SEED = 1_000_000  # the builder counts its scenes from 0


class Pair(NamedTuple):
  """A photo [h w 3], its flow [h w 2] to the true frame [h w 3], mean motion [h w], all in pixels, and its scene."""

  image: np.ndarray
  flow: np.ndarray
  depth: np.ndarray
  truth: np.ndarray
  scene: str


def simulate_pairs(options: argparse.Namespace) -> Iterator[Pair]:
  """Random moments of simulated scenes in which something moves."""
  folders = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  seed, number = FIRST_SEED, 0
  while number < options.pairs:
    scene = sample_scene(seed, height=options.size[0], width=options.size[1], **folders)
    time = int(np.random.default_rng(seed).integers(1, scene.num_frames))
    flow = scene.displacement(np.array([time], np.float32))[0]
    seed += 1
    if np.abs(flow).max() < 1:
      continue  # nothing moves: every method is perfect
    number += 1
    yield Pair(scene.image, flow, scene.mean_magnitude(), scene.frame(time), str(seed))


def read_pairs(chain: Sequence[Record], most: int | None) -> Iterator[Pair]:
  """The later frames that windows keep, at most so many of each, evenly."""
  for index in range(len(chain)):
    window = chain[index].decode(fields=("image", "frames", "flows", "depth"), bands=[0])
    depth = window.depth.astype(np.float32)
    number = len(window.frames)
    kept = min(most or number, number)
    for place in ((np.arange(kept) + 0.5) * (number / kept)).astype(int):
      flow, frame = window.flows[place].astype(np.float32), window.frames[place]
      yield Pair(window.image, flow, depth, frame, window.scene)


def print_tables(name: str, pairs: Iterable[Pair], *, renderers, vgg_params) -> None:
  """Judges pairs and prints means over scenes."""
  scenes: dict[str, list] = {}
  for pair in pairs:
    image, flow, depth, truth, scene = pair
    scenes.setdefault(scene, []).append(
      judge_pair(image, flow, depth, truth, renderers=renderers, vgg_params=vgg_params)
    )
  print(f"{name}: {sum(map(len, scenes.values()))} pairs of {len(scenes)} scenes")

  def gather(renderer, metric, region):
    """A scene's mean, NaN where none of its pairs has the region."""
    values = [[scores[renderer].get((metric, region), np.nan) for scores in judged] for judged in scenes.values()]
    return [np.mean(kept) if (kept := [x for x in scene if np.isfinite(x)]) else np.nan for scene in values]

  for metric in METRICS if vgg_params else ("psnr", "ssim"):
    print(f"\n{metric:<30}" + "".join(f"{region:<28}" for region in REGIONS))
    for renderer in renderers:
      values = [estimate_mean(gather(renderer, metric, region)).value for region in REGIONS]
      print(f"{renderer:<30}" + "".join(f"{value:<28.3f}" for value in values))
    for peer in PREDICTORS:
      gains = [
        estimate_mean(np.subtract(gather("renderer", metric, region), gather(peer, metric, region)))
        for region in REGIONS
      ]
      texts = [f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" for gain in gains]
      print(f"{f'renderer over {peer}':<30}" + "".join(f"{text:<28}" for text in texts))
  print(flush=True)


def main():
  """Measures and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", help="data set whose validation windows are judged")
  parser.add_argument("--frames", type=int, help="later frames of each window; all that it keeps without")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--pairs", type=int, default=50, help="simulated pairs; 0 for none")
  parser.add_argument("--size", type=int, nargs=2, default=(160, 256), help="height and width of simulated scenes")
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  parser.add_argument("--vgg16", help="npz of VGG16's convolutions, for the perceptual distance")
  options = parser.parse_args()
  judges = dict(
    renderers={"renderer": ImageRenderer.from_pretrained(options.weights).render_flow, **PREDICTORS},
    vgg_params=vgg16_params(options.vgg16) if options.vgg16 else None,
  )
  for source, chain in open_records(options.data, "validation").items() if options.data else ():
    print_tables(source, read_pairs(chain, options.frames), **judges)
  if options.pairs:
    print_tables("simulated", simulate_pairs(options), **judges)


if __name__ == "__main__":
  main()
