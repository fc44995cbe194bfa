"""Claims: `estimate_flow` explains frames as well as pyflow, at many times its speed, and plain walls come to rest.

  python -m benchmarks.flow [--clips FOLDER] [--names NAME ...] [--pyflow FOLDER] [--scenes 6] [--rounds 3]
    [--size 160 256] [--pairs 149]

Prints, for the default settings, REFERENCE and a peer, all at 256x160 and 30 frames per second:
- speed: 149 pairs on all cores against one peer process per core, taken in turns; the medians of `--rounds`;
- simulated scenes: end-point error (EPE) against the exact displacement, over all and over still visible pixels;
- clips (FOLDER of videos): mean |frame 0 - warped target| in grey levels of 255, targets 1, 5, 15, 30, 59 and 120;
- still regions of hat_0 and telephone_1, if FOLDER has them: displacement of the measured trajectories over the wall.
  Wall is where grey levels within 3 pixels (Gaussian) deviate by less than 4 of 255 in every tenth frame: nothing is
  to be seen there, and nothing ever passes.

The peer is pyflow at its reference settings, fetched and built by hand; OpenCV's DIS with refinement without it:
  git clone https://github.com/pathak22/pyflow && cd pyflow
  pip install cython setuptools && python setup.py build_ext --inplace
and then --pyflow THAT_FOLDER.
"""

import argparse
import functools
import importlib
import importlib.machinery
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from gid_jax.flow.estimate import DEFAULT, REFERENCE, FlowSettings, estimate_flow
from gid_jax.flow.tracking import measure_motion
from gid_jax.media import clips
from gid_jax.media.clip_folder import find_clips

NAMES = ("alocasia_1", "carnations_2", "daffodils", "flag", "straw", "telephone_3", "shrub_windy", "oak_leaves")
WALLS = ("hat_0", "telephone_1")
SETTINGS = {"default": DEFAULT, "REFERENCE": REFERENCE}
TARGETS = (1, 5, 15, 30, 59, 120)
FPS = 30
LAST = 149  # frame of the clips
PEER_STEP = 5  # the peer's pairs are independent: every fifth tells its speed
FIRST_SEED = 1_000_000  # the builder counts its scenes from 0


def start_peer(folder: str | None):
  """Prepares a peer process: one thread, and pyflow's chatter on standard output is dropped."""
  cv2.setNumThreads(1)
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  if folder:
    sys.path.insert(0, folder)


def peer_flow(folder: str | None, reference: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Flow [h w 2] between two frames [h w 3] uint8, by pyflow where built, else by DIS."""
  if folder:
    images = (image.astype(np.float64) / 255 for image in (reference, target))
    return np.stack(importlib.import_module("pyflow").coarse2fine_flow(*images, 0.012, 0.75, 20, 7, 1, 30, 0)[:2], -1)
  estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  estimator.setFinestScale(0)
  return estimator.calc(*(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (reference, target)), None)


def our_flow(settings: FlowSettings, reference: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Flow [n h w 2] from a frame [h w 3] uint8 to others [n h w 3], transfers included."""
  unit = lambda image: image.astype(np.float32) / 255
  return np.asarray(estimate_flow(unit(reference), unit(targets), settings=settings)[0])


def read_frames(path: Path, size: tuple[int, int], *, last: int) -> np.ndarray:
  """Frames 0 ... `last` of a clip, as far as it has them: [t h w 3] uint8, the whole picture resized to `size`."""
  clip = clips.read_clip(path, max_frames=2 * last + 60, short_side=480)
  frames = clips.resample_clip(clip, fps=FPS).frames[: last + 1]
  return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames])


def warp_error(reference: np.ndarray, target: np.ndarray, flow: np.ndarray) -> float:
  """Mean absolute difference, in grey levels, between a frame and a later one warped back by the flow (bicubic)."""
  columns, rows = np.meshgrid(np.arange(flow.shape[1]), np.arange(flow.shape[0]))
  column, row = (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)
  warped = cv2.remap(target.astype(np.float32), column, row, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
  return float(np.abs(warped - reference).mean())


def print_speed(frames: np.ndarray, run_peer, peer: str, rounds: int):
  """Times all methods in turns on the pairs of frames [t h w 3] and prints the medians."""
  num_pairs, (height, width) = len(frames) - 1, frames.shape[1:3]
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  seconds = {name: [] for name in (*SETTINGS, peer)}
  run_peer(frames[0], frames[1:9])  # imports
  first = {}
  for name, settings in SETTINGS.items():
    start = time.perf_counter()
    our_flow(settings, frames[0], frames[1:])
    first[name] = time.perf_counter() - start
  grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
  for _ in range(rounds):
    for name, settings in SETTINGS.items():
      start = time.perf_counter()
      our_flow(settings, frames[0], frames[1:])
      seconds[name].append((time.perf_counter() - start) / num_pairs)
    start = time.perf_counter()
    run_peer(frames[0], frames[1::PEER_STEP])
    seconds[peer].append((time.perf_counter() - start) / len(frames[1::PEER_STEP]))
  print(f"\n{num_pairs} pairs at {width}x{height}, {jax.device_count()} {jax.devices()[0].platform} devices")
  print("method      pairs/s   all pairs   times the peer   compiling")
  for name, values in seconds.items():
    median = np.median(values)
    compiling = f"{first[name] - num_pairs * median:9.1f} s" if name in first else ""
    ratio = np.median(seconds[peer]) / median
    print(f"{name:<10} {1 / median:>8.1f} {num_pairs * median:>9.2f} s {ratio:>16.2f} {compiling}")
  print(f"memory grew by {grown:.0f} MiB at most; a pair's flow and confidence take {height * width * 12} bytes")


def print_scenes(num_scenes: int, size: tuple[int, int], methods: dict):
  """Prints the end-point error in simulated scenes in which something moves by over a pixel."""
  columns = [f"{name} {pixels}" for name in methods for pixels in ("all", "seen")]
  print("\nscene, EPE px " + "".join(f"{column:>15}" for column in columns))
  rows, seed = [], FIRST_SEED
  while len(rows) < num_scenes:
    scene = sample_scene(seed, height=size[0], width=size[1])
    seed += 1
    exact = scene.displacement(TARGETS)
    if np.abs(exact).max() < 1:
      continue  # nothing moves
    frames, seen = np.stack([scene.frame(t) for t in TARGETS]), np.stack([scene.visible(t) for t in TARGETS])
    errors = [np.linalg.norm(run(scene.image, frames) - exact, axis=-1) for run in methods.values()]
    rows.append([value for error in errors for value in (error.mean(), error[seen].mean())])
    print(f"{scene.seed:<14}" + "".join(f"{value:>15.3f}" for value in rows[-1]))
  print(f"{'mean':<14}" + "".join(f"{value:>15.3f}" for value in np.mean(rows, axis=0)))


def print_clips(paths: list[Path], size: tuple[int, int], methods: dict):
  """Prints how well each method explains the frames of clips, and on how many at least as well as the last one."""
  print("\nclip, grey levels     " + "".join(f"{name:>11}" for name in (*methods, "zero")))
  rows = []
  for path in paths:
    frames = read_frames(path, size, last=TARGETS[-1])
    targets = frames[[t for t in TARGETS if t < len(frames)]]
    flows = [*(run(frames[0], targets) for run in methods.values()), np.zeros((*targets.shape[:3], 2))]
    rows.append([np.mean([warp_error(frames[0], *pair) for pair in zip(targets, f, strict=True)]) for f in flows])
    print(f"{path.stem[:22]:<22}" + "".join(f"{value:>11.3f}" for value in rows[-1]))
  rows = np.array(rows)
  print(f"{'mean':<22}" + "".join(f"{value:>11.3f}" for value in rows.mean(axis=0)))
  won = (rows <= rows[:, [len(methods) - 1]]).sum(axis=0)
  print(f"{f'no worse than {[*methods][-1]}':<22}" + "".join(f"{f'{n} of {len(rows)}':>11}" for n in won))


def print_walls(paths: list[Path], size: tuple[int, int]):
  """Prints the displacement of measured trajectories over plain walls."""
  for path in paths:
    frames = read_frames(path, size, last=LAST)
    length = np.linalg.norm(measure_motion(frames).motion, axis=-1)
    blur = functools.partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=3)
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames[::10]]
    wall = np.max([blur(gray**2) - blur(gray) ** 2 for gray in grays], axis=0) < 4**2
    median, high = np.quantile(length[:, wall], (0.5, 0.95))
    print(
      f"{path.stem}: wall on {wall.mean():.0%} of the picture, displacement median {median:.3f} px, "
      f"95 % below {high:.3f} px; mean elsewhere {length[:, ~wall].mean():.3f} px"
    )


def main():
  """Measures and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", help="folder of videos; simulated scenes only without")
  parser.add_argument("--names", nargs="*", default=NAMES, help="clips of the quality table; all if none is there")
  parser.add_argument("--pyflow", help="folder where pyflow was built")
  parser.add_argument("--scenes", type=int, default=6)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--size", type=int, nargs=2, default=(160, 256), help="height and width")
  parser.add_argument("--pairs", type=int, default=149, help="pairs whose speed is measured")
  options = parser.parse_args()
  if options.pyflow and importlib.machinery.PathFinder.find_spec("pyflow", [options.pyflow]) is None:
    sys.exit(f"no pyflow was built in {options.pyflow}; see --help")
  size = tuple(options.size)
  sys.stdout.reconfigure(line_buffering=True)  # a table may take minutes
  cores, folder = len(os.sched_getaffinity(0)), options.pyflow
  jax.config.update("jax_num_cpu_devices", cores)
  peer = "pyflow" if folder else "DIS"
  print(f"peer: {peer}, {cores} processes" + ("" if folder else "; see --help for how to build pyflow"))
  videos = find_clips(options.clips)[0] if options.clips else []
  paths = [path for path in videos if path.stem in options.names] or videos
  # A forked JAX process could hang.
  with multiprocessing.get_context("spawn").Pool(cores, start_peer, (folder,)) as pool:
    run_peer = lambda reference, targets: np.stack(
      pool.starmap(peer_flow, [(folder, reference, target) for target in targets], chunksize=1)
    )
    methods = {name: functools.partial(our_flow, settings) for name, settings in SETTINGS.items()} | {peer: run_peer}
    scene = sample_scene(FIRST_SEED, height=size[0], width=size[1])
    print_speed(np.stack([scene.frame(t) for t in range(options.pairs + 1)]), run_peer, peer, options.rounds)
    if options.scenes:
      print_scenes(options.scenes, size, methods)
    if paths:
      print_clips(paths, size, methods)
    print_walls([path for path in videos if path.stem in WALLS], size)


if __name__ == "__main__":
  main()
