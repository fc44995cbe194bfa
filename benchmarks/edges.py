"""Claim: where one thing moves before another, a frame has clean edges, and what it uncovers is what is behind.

  python -m benchmarks.edges PHOTO ... --output edges.png [--magnify 2] [--size 512] [--weights FOLDER]

Samples motion for every photo, takes the frame furthest from it and, around the place where most is uncovered, draws a
row: the photo, what has landed on each pixel (black: nothing), the photo's colours splatted with holes filled from
around them, and our frame.
"""

import argparse
from pathlib import Path

import cv2
import jax
import numpy as np

from gid_jax.evaluation.rendering import predict_by_softmax
from gid_jax.files import complete_or_nothing
from gid_jax.media.photos import read_image
from gid_jax.motion import spectral, splat
from gid_jax.pipeline import Animator, output_size, resize_image

SIDE, ZOOM = 64, 3  # pixels of a cut-out, and by how much it is enlarged


def draw_row(animator: Animator, path: Path, options: argparse.Namespace) -> np.ndarray:
  """A row of the sheet, [h w 3] uint8."""
  image = read_image(path)
  height, width = output_size(*image.shape[:2], long_side=options.size)
  photo = resize_image(image, height, width)
  volume = spectral.magnify(animator.predict_spectrum(jax.random.key(options.seed), image), options.magnify)
  volume = spectral.resize_spectrum(volume, height, width)
  motion = np.asarray(spectral.evaluate_motion(volume, np.arange(0, 150, 5), anchor_first_frame=True))
  flow = motion[int(np.square(motion).sum((1, 2, 3)).argmax())]
  depth = np.asarray(spectral.motion_magnitude(volume, anchor_first_frame=True))
  mass = np.asarray(splat.sum_splat(photo[..., :1], flow)[1])[..., 0]
  frames = [np.asarray(render(photo, flow, depth)) for render in (predict_by_softmax, animator.render_flow)]
  # Away from the border, past which nothing lands.
  open_share = cv2.boxFilter(np.float32(np.clip(1 - mass, 0, 1)), -1, (SIDE // 4, SIDE // 4))
  inner = np.s_[SIDE // 2 : height - SIDE // 2, SIDE // 2 : width - SIDE // 2]
  y, x = np.unravel_index(open_share[inner].argmax(), open_share[inner].shape)
  landed = np.repeat(np.clip(mass, 0, 1)[..., None], 3, -1)
  cuts = [picture[y : y + SIDE, x : x + SIDE] for picture in (photo, landed, *frames)]
  row = np.concatenate([np.pad(cut, ((1, 1), (1, 1), (0, 0)), constant_values=1) for cut in cuts], axis=1)
  return cv2.resize(np.uint8(255 * np.clip(row, 0, 1) + 0.5), None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)


def main() -> None:
  """Draws the sheet."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("photos", nargs="+", type=Path)
  parser.add_argument("--output", required=True, type=Path, help="sheet to write, .png")
  parser.add_argument("--weights", type=Path, help="folder of motion.safetensors; the embedded ones without")
  parser.add_argument("--magnify", type=float, default=2.0)
  parser.add_argument("--size", type=int, default=512, help="long side in pixels")
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  sheet = np.concatenate([draw_row(animator, path, options) for path in options.photos])
  with complete_or_nothing(options.output, overwrite=True) as temporary:
    temporary.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
  print(f"Wrote {options.output}: {len(options.photos)} rows")


if __name__ == "__main__":
  main()
