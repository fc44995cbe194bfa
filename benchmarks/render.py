"""Claim: frames come faster than they are watched, and in the same memory however many there are.

  python -m benchmarks.render [--photo PHOTO] [--sizes 256x160 512x288 1920x1080 3840x2160] [--frames 48]

Renders the photo, cut and enlarged to each size, along a volume of the embedded weights, and prints frames per second,
processor time a frame (of what twice as many frames take more) and the peak memory until then. Its peer, in the same
run, is the same method in PyTorch: the series by a product, displacements splatted by `index_add`, holes filled coarse
to fine, and the photo gathered by `grid_sample`'s bicubic kernel. Encoding is not part of it. Needs the extra `parity`.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import jax
import numpy as np

import gid_jax
from gid_jax.devices import configure_jax
from gid_jax.media.photos import read_image
from gid_jax.motion import spectral
from gid_jax.pipeline import Animator
from gid_jax.sizes import output_size


def peer_frames(photo: np.ndarray, spectrum, *, frames: int):
  """The peer's frames [h w 3] of a photo [h w 3] in [0, 1], moved by a volume."""
  import torch
  import torch.nn.functional as F

  height, width = photo.shape[:2]
  rows, columns = output_size(height, width, long_side=512)
  volume = spectral.resize_spectrum(spectrum, rows, columns)
  number = len(volume.coefficients)
  series = np.asarray(volume.coefficients).reshape(number, rows * columns, 2, 2).transpose(0, 2, 1, 3)
  series = torch.from_numpy(series.reshape(2 * number, -1).copy())
  picture = torch.from_numpy(photo.transpose(2, 0, 1)[None].copy())
  small = torch.from_numpy(cv2.resize(photo, (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1, 3))
  depth = spectral.motion_magnitude(volume, anchor_first_frame=True)
  weight = torch.from_numpy(np.exp(np.minimum(np.asarray(depth), 25)).reshape(-1, 1))
  y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
  places_y, places_x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
  times = np.arange(frames, dtype=np.float32)
  table = torch.from_numpy(
    np.array(spectral.series_table(times, number, volume.num_frames, anchor_first_frame=True)).reshape(frames, -1)
  )

  def fill(sums, mass):
    scales = [(sums, mass)]
    while min(scales[-1][0].shape[2:]) > 1:
      scales.append(tuple(F.avg_pool2d(array, 2, ceil_mode=True) for array in scales[-1]))
    filled = scales[-1][0] / scales[-1][1].clamp(min=1e-9)
    for sums, mass in reversed(scales[:-1]):
      coarser = F.interpolate(filled, sums.shape[2:], mode="bilinear", align_corners=False)
      filled = sums + (1 - mass) * coarser
    return filled

  for row in table:
    flow = (row @ series).reshape(rows, columns, 2)
    target_x, target_y = x + flow[..., 0], y + flow[..., 1]
    left, top = target_x.floor().long(), target_y.floor().long()
    values = torch.cat([flow.reshape(-1, 2), small, torch.ones(rows * columns, 1)], 1) * weight
    values = torch.cat([values, torch.ones(rows * columns, 1)], 1)
    total = torch.zeros(rows * columns + 1, 7)
    for dy in (0, 1):
      for dx in (0, 1):
        share = (1 - (target_x - left - dx).abs()) * (1 - (target_y - top - dy).abs())
        column, line = left + dx, top + dy
        inside = (column >= 0) & (column < columns) & (line >= 0) & (line < rows)
        index = torch.where(inside, line * columns + column, rows * columns)
        total.index_add_(0, index.reshape(-1), values * share.reshape(-1, 1))
    total = total[:-1].reshape(rows, columns, 7).permute(2, 0, 1)[None]
    mass = total[:, 6:].clamp(max=1)
    mean = torch.where(total[:, 6:] > 0, total[:, :5] / total[:, 5:6].clamp(min=1e-9), 0)
    fields = torch.cat([fill(mean * mass, mass), (mass * 2).clamp(max=1)], 1)
    fields = F.interpolate(fields, (height, width), mode="bilinear", align_corners=False)[0]
    grid = torch.stack([places_x - fields[0] * 2 / columns, places_y - fields[1] * 2 / rows], -1)[None]
    moved = F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=True)[0]
    frame = fields[5] * moved + (1 - fields[5]) * fields[2:5]
    yield (frame.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()


def measure(make: Callable, number: int) -> tuple[float, float]:
  """(frames per second, processor seconds a frame): what twice `number` frames take more than `number`."""
  spent = []
  for frames in (number, 2 * number):
    start, used = time.perf_counter(), time.process_time()
    for _ in make(frames):
      pass
    spent.append((time.perf_counter() - start, time.process_time() - used))
  seconds, processor = np.subtract(spent[1], spent[0])
  return number / seconds, processor / number


def main() -> None:
  """Prints a row for each size."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--photo", default=str(Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg"))
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--sizes", nargs="+", default=["256x160", "512x288", "1920x1080", "3840x2160"])
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--repetitions", type=int, default=3)
  parser.add_argument("--no_peer", action="store_true", help="only ours, as for the memory of many frames")
  options = parser.parse_args()
  configure_jax()  # as the command does: every core is a device
  animator = Animator.from_pretrained(options.weights)
  source = read_image(options.photo)
  spectrum = animator.predict_spectrum(jax.random.key(0), source)
  print(f"{'size':>10}  frames/s  ms of processor  memory, GiB   peer: frames/s  ms   ratio")
  for size in options.sizes:
    width, height = map(int, size.split("x"))
    photo = np.clip(cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    # Blocks are compiled at their own length, so the first run is not counted.
    ours = lambda number, photo=photo: animator.render(photo, spectrum, frames=number)
    measure(ours, options.frames)
    runs = [measure(ours, options.frames) for _ in range(options.repetitions)]
    rate, used = np.median(runs, axis=0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = f"{size:>10}  {rate:8.1f}  {1e3 * used:15.1f}  {memory:11.2f}"
    if not options.no_peer:
      peer = lambda number, photo=photo: peer_frames(photo, spectrum, frames=number)
      runs = [measure(peer, max(2, options.frames // 4)) for _ in range(options.repetitions)]
      peer_rate, peer_used = np.median(runs, axis=0)
      line += f"   {peer_rate:14.1f}  {1e3 * peer_used:.1f}  {rate / peer_rate:.2f}"
    print(line, flush=True)


if __name__ == "__main__":
  main()
