"""Claim: later frames are nearly as sharp as the photo.

  python -m benchmarks.sharpness PHOTO ... [--size 512] [--frames 30] [--weights FOLDER] [--plot sheet.png]

Sharpness is the variance of the Laplacian of the grey values over the places that swing by more than half a pixel,
relative to the first frame's, in the median of the later frames. `file` is the same of the frames read back from an
mp4. The peer, in the same run and by the same motion, moves the colours themselves by softmax splatting.
"""

import argparse
import tempfile
from pathlib import Path

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np

from gid_jax.media.encoding import write_video
from gid_jax.media.photos import read_image
from gid_jax.motion import spectral, splat
from gid_jax.motion.measures import rms_swing
from gid_jax.pipeline import Animator
from gid_jax.sizes import output_size, resize_image

MOVING = 0.5  # px of the video
SHOWN = 15  # frame of the sheet
SIDE, COLUMNS = 128, 2  # pixels of a cut-out of the sheet, and photos beside each other there


def measure_sharpness(frame: np.ndarray, where: np.ndarray) -> float:
  """Variance of the Laplacian of a frame [h w 3] uint8 over the places `where` [h w]; NaN without any."""
  if not where.any():
    return float("nan")
  gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
  return float(cv2.Laplacian(gray, cv2.CV_32F)[where].var())


@jax.jit
def splat_colours(photo, motion, depth):
  """The peer: the frame [h w 3] uint8 in which the colours [h w 3] in [0, 1] move one by one, holes filled."""
  height, width = photo.shape[:2]
  weight = jax.image.resize(depth, (height, width), "linear")
  moved, mass = splat.softmax_splat(photo, spectral.resize_motion(motion, height, width), weight)
  return (jnp.clip(splat.fill_holes(moved, mass), 0, 1) * 255 + 0.5).astype(jnp.uint8)


def through_a_file(frames):
  """The frames [h w 3] uint8 as a player shows them: written to an mp4 and read back."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "video.mp4"
    write_video(path, frames, fps=30)
    with av.open(str(path)) as container:
      height, width = frames[0].shape[:2]
      return [frame.to_ndarray(format="rgb24")[:height, :width] for frame in container.decode(video=0)]


def judge(animator: Animator, path: Path, options: argparse.Namespace):
  """Sharpness of our frames, their file's and the peer's, share that moves, and its row of the sheet, for a photo."""
  image = read_image(path)
  spectrum = animator.predict_spectrum(jax.random.key(options.seed), image)
  frames = list(animator.render(image, spectrum, frames=options.frames, size=options.size))
  height, width = output_size(*image.shape[:2], long_side=options.size)
  photo = resize_image(image, height, width)
  depth = spectral.motion_magnitude(spectrum, anchor_first_frame=True)
  times = np.arange(options.frames) * (spectrum.fps / 30)
  motions = spectral.evaluate_motion(spectrum, times.astype(np.float32), anchor_first_frame=True)
  peers = [np.asarray(splat_colours(photo, motion, depth)) for motion in motions]
  swing = rms_swing(spectrum, stride=height / spectrum.coefficients.shape[1])
  moves = cv2.resize(np.float32(swing), (width, height), interpolation=cv2.INTER_LINEAR) > MOVING
  ratios = []
  for first, *later in (frames, through_a_file(frames), [frames[0], *peers[1:]]):
    ratios.append(np.median([measure_sharpness(f, moves) for f in later]) / measure_sharpness(first, moves))
  shown = min(SHOWN, options.frames - 1)
  # The sheet shows the place where most detail moves.
  detail = np.square(cv2.Laplacian(cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY), cv2.CV_32F)) * moves
  side = min(SIDE, height, width)
  detail = cv2.boxFilter(detail, -1, (side, side), anchor=(0, 0))[: height - side + 1, : width - side + 1]
  y, x = np.unravel_index(detail.argmax(), detail.shape)
  cuts = [picture[y : y + side, x : x + side] for picture in (frames[0], peers[shown], frames[shown])]
  return ratios, moves.mean(), np.pad(np.concatenate(cuts, axis=1), ((0, 4), (0, 4), (0, 0)))


def main() -> None:
  """Prints a row for each photo."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("photos", nargs="+", type=Path)
  parser.add_argument("--size", type=int, default=512, help="long side of the video in pixels")
  parser.add_argument("--frames", type=int, default=30)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--weights", type=Path, help="folder of motion.safetensors; the embedded ones without")
  parser.add_argument("--plot", type=Path, help="a cut-out of photo, the peer's later frame and ours, side by side")
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  rows, sheet = [], []
  print(f"{'photo':40} moves  ours  file  peer")
  for path in options.photos:
    row, share, picture = judge(animator, path, options)
    rows.append(row)
    sheet.append(picture)
    print(f"{path.stem[:40]:40} {share:5.2f}", *(f"{value:5.2f}" for value in row), flush=True)
  medians = np.median([row for row in rows if np.isfinite(row).all()] or [[np.nan] * 3], axis=0)
  print(f"{'median':40}      ", *(f"{value:5.2f}" for value in medians))
  if options.plot:
    sheet += [np.zeros_like(sheet[0])] * (-len(sheet) % COLUMNS)
    lines = [np.concatenate(sheet[start : start + COLUMNS], axis=1) for start in range(0, len(sheet), COLUMNS)]
    cv2.imwrite(str(options.plot), np.concatenate(lines)[..., ::-1])


if __name__ == "__main__":
  main()
