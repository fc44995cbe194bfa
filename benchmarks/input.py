"""Claim: the input pipeline gives training more examples per second than a plain loop over the same data set.

  python -m benchmarks.input [--data DIR] [--windows 32] [--seconds 4] [--size default] [--workers 2]

Without `--data` a data set of simulated windows, 256 x 160, 16 bands, 6 pairs of frames, is built first. Prints for
every stage, with its config of a size, the examples per second of
- reading: `tfds.builder_from_directory(...).as_data_source(...)` alone, stored bytes in random order;
- plain loop: the same source, every window decoded whole, then cut, moved, recoloured and batched by the same code,
  without Grain and without what else an example has (band numbers, depth, reversed time);
- the pipeline at several thread counts, and its ratio to the plain loop; with `--workers`, of so many processes too.
For sizes other than `default` also what a step on accelerators would take, at 35 % of their peak.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module

import numpy as np
import tensorflow_datasets as tfds

from benchmarks.roofline import CHIPS, count_work, make_step
from configs.common import MOTION_STRIDES
from data_pipeline import builder
from gid_jax.configuration import DataSettings
from gid_jax.data import input_pipeline
from gid_jax.data.augmentation import config_to_augmentation, draw_matrix, jitter_colours, warp_window
from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION, example_to_window
from gid_jax.parsing import parse

# Of `default`, which trains no auto-encoder.
STAGES = ("ldm", "ldm_coordinated", "renderer")
THREADS = (1, 2, 4)
SHARE = 0.35  # of the peak


def read_forever(directory: str) -> Iterator[dict]:
  """Stored windows in random order, by TFDS alone."""
  folder = f"{directory}/{DATASET_NAME}/synthetic/{DATASET_VERSION}"
  source = tfds.builder_from_directory(folder).as_data_source("train")
  rng = np.random.default_rng(0)
  while True:
    yield source[int(rng.integers(len(source)))]


def loop_forever(directory: str, config, stage: str, batch_size: int) -> Iterator[dict]:
  """Batches made the plain way: one window after the other, all of it decoded, then cut to what is needed and moved."""
  rng, ranges = np.random.default_rng(0), config_to_augmentation(config.augmentation)
  examples = read_forever(directory)
  while True:
    images, motions = [], []
    for _ in range(batch_size):
      window = example_to_window(next(examples))
      if stage == "renderer":
        pair = [int(rng.integers(len(window.frames)))]
        window = window._replace(spectrum=window.spectrum[:0], frames=window.frames[pair], flows=window.flows[pair])
      else:
        num_bands = {"ldm": config.bands_per_example, "ldm_coordinated": config.num_bands}[stage]
        bands = rng.choice(config.num_bands, num_bands, replace=False)
        window = window._replace(spectrum=window.spectrum[bands], frames=window.frames[:0], flows=window.flows[:0])
      size = window.image.shape[:2]
      crop = tuple(config.crop or size)
      window = warp_window(window, draw_matrix(rng, size, crop=crop, ranges=ranges), size=crop)
      images.append(np.stack(jitter_colours(rng, [window.image, *window.frames], jitter=ranges.jitter)))
      motions.append(window.flows if stage == "renderer" else window.spectrum)
    yield {"image": np.stack(images), "motion": np.stack(motions)}


def count_per_second(iterator: Iterator, per_item: int, seconds: float) -> float:
  """Examples per second of an iterator whose items hold `per_item` of them, after a first item to warm up."""
  next(iterator)
  started, count = time.perf_counter(), 0
  while time.perf_counter() - started < seconds:
    next(iterator)
    count += per_item
  return count / (time.perf_counter() - started)


def measure(directory: str, options: argparse.Namespace) -> None:
  """Prints the table."""
  reading = count_per_second(read_forever(directory), 1, options.seconds)
  columns = [(f"{n} threads", dict(num_threads=n)) for n in THREADS]
  if options.workers:
    columns.append((f"{options.workers} workers", dict(num_threads=1, num_workers=options.workers)))
  print(f"{os.cpu_count()} cores; reading alone {reading:.0f} windows/s; examples/s below")
  print(f"{'stage':<16}{'plain loop':>11}" + "".join(f"{name:>18}" for name, _ in columns))
  for stage in STAGES:
    settings = import_module(f"configs.{stage}").get_config(options.size)
    config, batch_size = settings.data, settings.batch_size
    config.directory, config.sources = directory, {"synthetic": 1.0}  # what the plain loop reads
    plain = count_per_second(loop_forever(directory, config, stage, batch_size), batch_size, options.seconds)
    row = f"{stage:<16}{plain:>11.0f}"
    for _, changes in columns:
      settings = parse(DataSettings, config.to_dict() | changes)
      batches = input_pipeline.make_train_iterator(settings, stage=stage, seed=0, batch_size=batch_size)
      # What was made ahead while nobody looked must not count.
      list(itertools.islice(batches, 2 * max(settings.num_threads, settings.num_workers)))
      rate = count_per_second(batches, batch_size, options.seconds)
      row += f"{rate:>10.0f} ({rate / plain:.1f}x)"
      del batches
    print(row, flush=True)
    if options.size != "default":
      step, inputs = make_step(stage, options.size, 1)
      work = count_work(step, *inputs)
      taken = (f"{name} {SHARE / work.seconds(chip)[0]:.0f}" for name, chip in CHIPS.items())
      print(f"  a step takes: {', '.join(taken)}", flush=True)


def main():
  """Builds the data where none is given, and measures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", help="data folder with simulated windows; built when left out")
  parser.add_argument("--windows", type=int, default=32, help="how many to build")
  parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
  parser.add_argument("--size", choices=MOTION_STRIDES, default="default", help="of the configs")
  parser.add_argument("--workers", type=int, default=0, help="processes, measured too")
  options = parser.parse_args()
  if options.data:
    return measure(options.data, options)
  with tempfile.TemporaryDirectory() as folder:
    stride = str(MOTION_STRIDES[options.size])
    builder.main(["--output", folder, "--synthetic", str(options.windows), "--motion_stride", stride])
    measure(folder, options)


if __name__ == "__main__":
  main()
