"""Small data sets whose windows tell their number, for the tests of all that reads them."""

import itertools

import helpers
import numpy as np

from gid_jax.configuration import DataSettings
from gid_jax.data.records import open_records
from gid_jax.data.storage import example_to_window
from gid_jax.parsing import parse
from gid_jax.types import Window

SIZE, NUM_BANDS, NUM_FRAMES = (32, 48), 4, 3
SOURCES = {"real": 6, "loop": 3, "synthetic": 5}
AUGMENTATION = dict(flip=0.5, max_degrees=5.0, zoom=(1.0, 1.5), jitter=0.2)


def make_window(rng, source="real", *, number=0, size=SIZE, motion_stride=2):
  """Band k of window i holds the value 100 i + k, so that a batch tells what it was made from."""
  height, width = size
  pixels = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
  vectors = lambda *shape: (rng.integers(-64, 64, shape) / 32).astype(np.float16)  # stored without loss
  spectrum = np.zeros((NUM_BANDS, height // motion_stride, width // motion_stride, 4), np.float32)
  return Window(
    image=pixels(height, width, 3),
    spectrum=spectrum + (100 * number + np.arange(NUM_BANDS))[:, None, None, None],
    frames=pixels(NUM_FRAMES, height, width, 3),
    flows=vectors(NUM_FRAMES, height, width, 2),
    depth=abs(vectors(height, width)),
    scene=f"meadow{number}",
    source=source,
  )


def write_sources(directory, sources, *, first=0, **options):
  """Writes numbered windows of some sources, training ones first: {number: window}."""
  rng, numbers = np.random.default_rng(first), itertools.count(first)
  windows = {source: {} for source in sources}
  for split, (source, count) in itertools.product(("train", "validation"), sources.items()):
    windows[source][split] = [make_window(rng, source, number=next(numbers), **options) for _ in range(count)]
  for source in sources:
    helpers.write_dataset(
      directory, source, windows[source], statistics={"scale": [3.0, 2.0, 1.5, 1.0], "num_frames": 20, "fps": 10.0}
    )
  return {int(window.scene[6:]): window for splits in windows.values() for part in splits.values() for window in part}


def numbers_of(batch):
  """The windows that an `ldm_coordinated` batch was made from."""
  return np.rint(batch["slice"][:, 0, 0, 0, 0] / 100).astype(int)


def read_all(directory, split):
  """All windows of a split, source by source."""
  return [
    example_to_window(source[i].example)
    for source in open_records(directory, split).values()
    for i in range(len(source))
  ]


def make_config(data, **changes):
  """Settings of data that lie in a folder."""
  settings = dict(directory=str(data), num_bands=NUM_BANDS, bands_per_example=2)
  return parse(DataSettings, settings | changes)
