"""Claim: how well holes are closed where something has moved away, by patches and other fillings.

  python -m benchmarks.plate [--backgrounds FOLDER] [--sprites FOLDER] [--data FOLDER] [--scenes 50] [--weights FILE]
    [--vgg16 FILE] [--sheet PICTURE]

Closes holes by Telea's inpainting, by averages from coarse to fine (what splatting fills its holes with), as smoothly
as can be (`gid_jax.motion.fill`), with patches (`gid_jax.motion.patches`) and, with weights, by the network, and prints
PSNR, SSIM and, with weights of VGG16, the perceptual distance inside the places judged, as means over scenes; then the
gain over the averages in dB with its 95 % interval.

- photos: every tenth of `--backgrounds`, which training leaves out; holes cut along cut-outs, strokes and blobs.
- simulated: the backdrop is known exactly; things are the hole, judged is what they uncover at any of ten times.
- films, loops: windows of `--data` held out for validation; the hole is what moves in front by its W, judged is what
  later frames uncover of it, against these frames.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.configuration import LiveSettings, PlateSettings, expect_model
from gid_jax.data.holes import draw_hole
from gid_jax.data.records import open_records
from gid_jax.data.stills import StillSource
from gid_jax.evaluation.rendering import find_disoccluded, perceptual_distances, psnr, ssim
from gid_jax.evaluation.results import estimate_mean
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.models.build import make_plate_network
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.motion import fill, patches, plate, splat
from gid_jax.weights.pretrained import import_weights

FIRST_SEED = 1_000_000  # the builder counts its scenes from 0
CROP = 128  # of photos, pixels
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (photo [h w 3] in [0, 1], hole [h w 1]) to [h w 3]


class Case(NamedTuple):
  """A photo [h w 3] in [0, 1], its hole [h w], the truth [h w 3], the pixels judged [h w], and the scene."""

  image: np.ndarray
  hole: np.ndarray
  truth: np.ndarray
  judged: np.ndarray
  scene: str


def list_photos(options: argparse.Namespace) -> Iterator[Case]:
  """Photos that training leaves out, with holes."""
  live = LiveSettings(height=160, width=256, backgrounds=options.backgrounds, sprites=options.sprites or "")
  stills = StillSource(live, "validation")
  for index in range(min(len(stills), 2 * options.scenes)):
    window, rng = stills[index].decode(fields=()), np.random.default_rng(index)
    top, left = (int(rng.integers(0, side - CROP + 1)) for side in window.image.shape[:2])
    crop = lambda array, top=top, left=left: array[top : top + CROP, left : left + CROP]
    image, hole = crop(window.image) / np.float32(255), draw_hole(rng, crop(window.depth))[..., 0] > 0
    yield Case(image, hole, image, hole, window.scene)


def simulate(options: argparse.Namespace) -> Iterator[Case]:
  """Scenes in which things cover at most half of the picture."""
  folders: dict[str, Any] = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  number = 0
  for seed in range(FIRST_SEED, FIRST_SEED + 20 * options.scenes):
    scene = sample_scene(seed, **folders)
    things = scene.layer_ids > 0
    uncovered = np.any([scene.parts(time) == 0 for time in np.linspace(15, scene.num_frames - 1, 10)], 0) & things
    # Rims and shadows are of the things too.
    hole = cv2.dilate(things.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if hole.mean() < 0.5 and uncovered.sum() >= 50:
      number += 1
      yield Case(scene.image / np.float32(255), hole, scene.backdrop() / np.float32(255), uncovered, str(seed))
    if number == options.scenes:
      return


def read_films(directory: str) -> Iterator[tuple[str, Iterator[Case]]]:
  """What later frames uncover, by source."""
  for source, chain in open_records(directory, "validation").items():

    def list_cases(chain=chain):
      for index in range(len(chain)):
        window = chain[index].decode(fields=("image", "frames", "flows", "depth"), bands=[0])
        front, hole = plate.find_front(window.depth.astype(np.float32), *window.image.shape[:2])
        for frame, flow in zip(window.frames, window.flows, strict=True):
          judged = find_disoccluded(flow.astype(np.float32)) & front
          if judged.sum() >= 20:
            yield Case(window.image / np.float32(255), hole, frame / np.float32(255), judged, window.scene)

    yield source, list_cases()


def list_fills(weights: str | None) -> dict[str, Fill]:
  """The ways to close holes."""

  def telea(image, hole):
    codes, places = (255 * image + 0.5).astype(np.uint8), hole[..., 0].astype(np.uint8)
    return cv2.inpaint(codes, places, 4, cv2.INPAINT_TELEA) / np.float32(255)

  fills: dict[str, Any] = {
    "Telea": telea,
    "averages": jax.jit(lambda image, hole: splat.fill_holes(image, 1 - hole)),
    "smooth": jax.jit(fill.fill_smoothly),
    "patches": lambda image, hole: patches.copy_patches(image, hole[..., 0] > 0),
  }
  if weights:
    params, settings = import_weights(weights)
    network = make_plate_network(expect_model(PlateSettings, settings))
    apply = jax.jit(lambda image, hole: network.apply({"params": params}, image[None], hole[None]))
    fills["network"] = lambda image, hole: apply(image, hole)[0]
  return fills


def close(case: Case, fills: dict[str, Fill]) -> list[np.ndarray]:
  """The case's photo without holes, by each way: [h w 3] in [0, 1]."""
  hole = case.hole[..., None].astype(np.float32)
  return [np.clip(np.asarray(way(case.image, hole)), 0, 1) for way in fills.values()]


def print_table(name: str, cases: Iterable[Case], fills: dict[str, Fill], vgg_params) -> None:
  """Judges cases and prints means over scenes."""
  scenes: dict[str, list] = {}
  for case in cases:
    filled = close(case, fills)
    scores = [[judge(picture, case.truth, mask=case.judged) for judge in (psnr, ssim)] for picture in filled]
    if vgg_params:
      distances = perceptual_distances(vgg_params, np.stack(filled), case.truth, case.judged[None])[:, 0]
      scores = [[*score, distance] for score, distance in zip(scores, distances, strict=True)]
    scenes.setdefault(case.scene, []).append(scores)
  means = np.array([np.nanmean(scores, 0) for scores in scenes.values()])
  print(f"{name}: {sum(map(len, scenes.values()))} cases of {len(means)} scenes")
  baseline = list(fills).index("averages")
  for number, way in enumerate(fills):
    gain = estimate_mean((means[:, number, 0] - means[:, baseline, 0]).tolist())
    figures = "".join(f"{value:>10.3f}" for value in np.nanmean(means[:, number], 0))
    print(f"{way:<10}{figures}   {gain.value:+.2f} dB ({gain.low:+.2f} to {gain.high:+.2f})")
  print(flush=True)


def write_sheet(path: str, cases: Iterable[Case], fills: dict[str, Fill]) -> None:
  """A row a case: photo, holes white, and every way but the averages."""
  shown = {name: way for name, way in fills.items() if name != "averages"}
  rows = []
  for case in cases:
    holed = np.where(case.hole[..., None], np.float32(1), case.image)
    rows.append(np.concatenate([case.truth, holed, *close(case, shown)], 1))
  cv2.imwrite(path, (255 * np.concatenate(rows)[..., ::-1] + 0.5).astype(np.uint8))


def main():
  """Measures and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--backgrounds", help="folder of photos")
  parser.add_argument("--sprites", help="folder of cut-outs")
  parser.add_argument("--data", help="data set whose validation windows are judged")
  parser.add_argument("--scenes", type=int, default=50, help="simulated scenes; 0 for none")
  parser.add_argument("--weights", help="exported plate network, plate.safetensors")
  parser.add_argument("--vgg16", help="npz of VGG16's convolutions, for the perceptual distance")
  parser.add_argument("--sheet", help="picture of six photos to write")
  options = parser.parse_args()
  fills = list_fills(options.weights)
  judges = dict[str, Any](fills=fills, vgg_params=vgg16_params(options.vgg16) if options.vgg16 else None)
  if options.backgrounds:
    cases = list(list_photos(options))
    if options.sheet:
      write_sheet(options.sheet, cases[:: max(1, len(cases) // 6)][:6], fills)
    print_table("photos", cases, **judges)
  if options.scenes:
    print_table("simulated", simulate(options), **judges)
  for source, cases in read_films(options.data) if options.data else ():
    print_table(source, cases, **judges)


if __name__ == "__main__":
  main()
