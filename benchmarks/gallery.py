"""Claim: photos that the weights never saw move where they should, and photos of nothing rest.

  python -m benchmarks.gallery --photos PHOTO... --output FOLDER [--weights FOLDER] [--seeds 3] [--videos] [--size 256]
    [--frames 150]
  python -m benchmarks.gallery --photos FOLDER/*.jpg --output FOLDER --seeds 1

Samples motion for every photo and seed. Writes `sheet.png`, a row a photo: the photo, how far every place swings for
each seed (black 0, white 3 px), and, of the first seed, the frame furthest from the photo and the X-t slice of the
liveliest row; with --videos also `PHOTO_SEED.mp4`. Prints for every photo the share of pixels that swing by over 0.5 px
(root mean square, on the working grid of about 256x160), and the swing that 1 % of the pixels exceed, means of the
seeds; then the mean and median share with the photos above 5 %, which photos of rock, sky and towns should not reach.
"""

import argparse
from pathlib import Path

import cv2
import jax
import numpy as np

from gid_jax.evaluation.motion import share_moving
from gid_jax.files import complete_or_nothing
from gid_jax.media import encoding, photos
from gid_jax.motion import spectral
from gid_jax.motion.measures import rms_swing
from gid_jax.motion.visualize import find_liveliest_row, slice_xt
from gid_jax.pipeline import Animator

LARGEST = 3.0  # px of the working grid, the white of the maps
ACROSS, DOWN, MARGIN = 256, 160, 4


def fit(image: np.ndarray) -> np.ndarray:
  """A picture [h w 3] uint8 as large as fits a panel, in its middle, on black."""
  zoom = min(ACROSS / image.shape[1], DOWN / image.shape[0])
  size = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
  small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
  panel = np.zeros((DOWN, ACROSS, 3), np.uint8)
  top, left = (DOWN - size[1]) // 2, (ACROSS - size[0]) // 2
  panel[top:top + size[1], left:left + size[0]] = small
  return cv2.copyMakeBorder(panel, *[MARGIN] * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def to_heat(swing: np.ndarray) -> np.ndarray:
  """Colours [h w 3] of a map [h w] of px."""
  levels = np.uint8(255 * np.clip(swing / LARGEST, 0, 1) + 0.5)
  return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]


def draw_row(photo, swings, frames, motion) -> np.ndarray:
  """A row of the sheet; `frames` [t h w 3] and `motion` [t h2 w2 2] are the first seed's."""
  length = np.square(motion).sum(-1).mean((1, 2))
  row = find_liveliest_row(motion) * frames.shape[1] // motion.shape[1]
  panels = [photo, *map(to_heat, swings), frames[int(length[: len(frames)].argmax())], slice_xt(frames, row)]
  return np.concatenate([fit(np.ascontiguousarray(panel)) for panel in panels], axis=1)


def main():
  """Samples, renders, draws and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--photos", nargs="+", type=Path, required=True)
  parser.add_argument("--output", type=Path, required=True)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--videos", action="store_true", help="also write a video of each photo and seed")
  parser.add_argument("--no_sheet", action="store_true", help="only print; renders nothing")
  parser.add_argument("--size", type=int, default=256, help="long side of the frames")
  parser.add_argument("--frames", type=int, default=150)
  options = parser.parse_args()
  options.output.mkdir(parents=True, exist_ok=True)
  animator = Animator.from_pretrained(options.weights)
  stride = animator.motion_settings.model.motion_stride
  rows, shares = [], {}
  for path in options.photos:
    photo = photos.read_image(path)
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds))
    volumes = animator.predict_spectra(keys, photo)
    volumes = [volumes.replace(coefficients=np.asarray(volumes.coefficients[seed])) for seed in range(options.seeds)]
    swings = [rms_swing(volume, stride=stride) for volume in volumes]
    shares[path.name] = np.mean([share_moving(swing) for swing in swings])
    largest = np.mean([np.quantile(swing, 0.99) for swing in swings])
    print(f"{path.name}: {shares[path.name]:.1%} move, 1 % over {largest:.2f} px", flush=True)
    for seed, volume in enumerate(volumes):
      if options.no_sheet or (seed and not options.videos):
        break
      clip = animator.render(photo, volume, frames=options.frames, fps=float(volume.fps), size=options.size)
      frames = np.stack([np.asarray(frame) for frame in clip])
      if options.videos:
        encoding.write_video(
          options.output / f"{path.stem}_{seed}.mp4", iter(frames), fps=float(volume.fps), overwrite=True
        )
      if seed == 0:
        motion = np.asarray(spectral.spectrum_to_motion(volume, anchor_first_frame=True))
        rows.append(draw_row(np.uint8(photo * 255 + 0.5), swings, frames, motion))
  if rows:
    sheet = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes()
    with complete_or_nothing(options.output / "sheet.png", overwrite=True) as temporary:
      temporary.write_bytes(sheet)
  values = np.array(list(shares.values()))
  restless = [name for name, share in shares.items() if share > 0.05]
  print(f"share that moves: mean {values.mean():.1%}, median {np.median(values):.1%}; "
        f"over 5 %: {len(restless)} of {len(values)} {' '.join(restless)}")  # fmt: skip


if __name__ == "__main__":
  main()
