"""Claim: where one thing moves before another, a frame has clean edges, and what it uncovers looks like what is behind.

  python -m benchmarks.edges SEED ... --output edges.png [--backgrounds FOLDER] [--sprites FOLDER] [--size 320 512]
    [--ladder ladder.png]

Simulates a scene for every seed, takes the one of ten moments in which things have moved over, or away from, the
backdrop the most, and moves the photo to it by the true motion. Draws a row for each scene, around the place where most
has changed so: the photo, its colours splatted with holes filled from around them, our frame, and the true one. Prints
PSNR over the places of the frame that things have uncovered.

The ladder shows the first scene step by step: the photo, its plate (made once, what the page that answers to touch has
behind things) and what is truly behind; what has landed on each pixel (black: nothing), our frame and the true one.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from data_pipeline.synthetic.scene import Scene, sample_scene
from gid_jax.evaluation.rendering import predict_by_softmax, psnr
from gid_jax.files import complete_or_nothing
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.motion.plate import make_plate
from gid_jax.motion.splat import sum_splat
from gid_jax.rendering import ImageRenderer

SIDE, HEIGHT = 96, 144  # pixels a side of a cut-out of the scene, and of the sheet
GAP = 2  # pixels between the cut-outs
COLUMNS = 2  # scenes beside each other
GRID = 144  # points across on which the plate knows the motion, as in a page


def find_moment(scene: Scene) -> tuple[float, np.ndarray]:
  """The time in which most has changed between things and backdrop, and where it has [h w]."""
  times = np.linspace(15, scene.num_frames - 1, 10)
  changed = [(scene.parts(time) == 0) != (scene.layer_ids == 0) for time in times]
  most = int(np.argmax([where.sum() for where in changed]))
  return float(times[most]), changed[most]


def move(scene: Scene, time: float, renderer: ImageRenderer) -> list[np.ndarray]:
  """The scene's photo, moved by splatting its colours and by us, and the true frame: [h w 3] each, in [0, 1]."""
  image, truth = (picture / np.float32(255) for picture in (scene.image, scene.frame(time)))
  flow, depth = scene.displacement(time)[0], scene.mean_magnitude()
  frames = [np.asarray(render(image, flow, depth)) for render in (predict_by_softmax, renderer.render_flow)]
  return [image, *frames, truth]


def draw_row(scene: Scene, renderer: ImageRenderer) -> tuple[np.ndarray, list[float]]:
  """A scene's row of the sheet [h w 3], and the PSNR of splatted colours and of our frame."""
  time, changed = find_moment(scene)
  pictures = move(scene, time, renderer)
  uncovered = changed & (scene.layer_ids > 0)
  figures = [psnr(frame, pictures[-1], mask=uncovered) for frame in pictures[1:-1]]
  height, width = changed.shape
  density = cv2.boxFilter(np.float32(changed), -1, (SIDE, SIDE), anchor=(0, 0))[: height - SIDE + 1, : width - SIDE + 1]
  y, x = np.unravel_index(density.argmax(), density.shape)
  cuts = [
    cv2.resize(picture[y : y + SIDE, x : x + SIDE], (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for picture in pictures
  ]
  return np.pad(join([cuts]), ((0, 0), (0, 3 * GAP), (0, 0)), constant_values=1), figures


def draw_ladder(scene: Scene, renderer: ImageRenderer) -> np.ndarray:
  """The steps of a scene, two rows of three [h w 3]."""
  time, _ = find_moment(scene)
  image, _, frame, truth = move(scene, time, renderer)
  height, width = image.shape[:2]
  depth = cv2.resize(scene.mean_magnitude(), (GRID, round(GRID * height / width)), interpolation=cv2.INTER_AREA)
  landed = np.asarray(sum_splat(image[..., :1], scene.displacement(time)[0])[1])
  behind = scene.backdrop() / np.float32(255)
  return join([[image, make_plate(image, depth), behind], [np.repeat(np.clip(landed, 0, 1), 3, -1), frame, truth]])


def join(rows: list[list[np.ndarray]]) -> np.ndarray:
  """Pictures [h w 3] of one size, with white gaps between them."""
  pad = lambda picture: np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=1)
  return np.concatenate([np.concatenate([pad(picture) for picture in row], axis=1) for row in rows])


def write(path: Path, picture: np.ndarray) -> None:
  """Writes a picture [h w 3] in [0, 1] as a PNG file."""
  codes = np.uint8(255 * np.clip(picture, 0, 1) + 0.5)
  with complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_bytes(cv2.imencode(".png", codes[..., ::-1])[1].tobytes())


def main() -> None:
  """Draws the sheet."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("seeds", nargs="+", type=int, help="of scenes in which something moves")
  parser.add_argument("--output", required=True, type=Path, help="sheet to write, .png")
  parser.add_argument("--backgrounds", help="folder of photos behind the scenes; procedural without")
  parser.add_argument("--sprites", help="folder of cut-outs in the scenes")
  parser.add_argument("--size", type=int, nargs=2, default=(320, 512), help="height and width of the scenes")
  parser.add_argument("--ladder", type=Path, help="picture of the steps of the first scene to write, .png")
  options = parser.parse_args()
  folders = dict(
    backgrounds=load_backgrounds(options.backgrounds) if options.backgrounds else (),
    sprites=load_sprites(options.sprites) if options.sprites else (),
  )
  renderer, rows = ImageRenderer.from_pretrained(), []
  for seed in options.seeds:
    scene = sample_scene(seed, height=options.size[0], width=options.size[1], **folders)
    if options.ladder and not rows:
      write(options.ladder, draw_ladder(scene, renderer))
    row, (splatted, ours) = draw_row(scene, renderer)
    rows.append(row)
    print(f"{seed} {', '.join(scene.families)}: uncovered {splatted:.1f} dB splatted, {ours:.1f} dB ours", flush=True)
  rows += [np.ones_like(rows[0])] * (-len(rows) % COLUMNS)
  lines = [np.concatenate(rows[start : start + COLUMNS], axis=1) for start in range(0, len(rows), COLUMNS)]
  write(options.output, np.concatenate(lines))
  print(f"Wrote {options.output}: {len(options.seeds)} scenes")


if __name__ == "__main__":
  main()
