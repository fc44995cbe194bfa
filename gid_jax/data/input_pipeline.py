"""Endless shuffled batches, of stored windows, simulated scenes or cached latents; the only file that imports Grain."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Float

from gid_jax.configuration import STAGES, DataSettings
from gid_jax.data.augmentation import config_to_augmentation, jitter_colours
from gid_jax.data.checks import check_windows
from gid_jax.data.examples import Strengths, choose_bands, make_example
from gid_jax.data.latent_cache import CachedWindow, LatentSource
from gid_jax.data.records import (
  LIVE,
  Chain,
  OpenScenes,
  Sample,
  Samples,
  name_scene,
  open_chosen,
  open_records,
  read_scale,
)
from gid_jax.errors import UserError
from gid_jax.motion.normalization import BandHistogram, histograms_to_percentile
from gid_jax.types import Batch

_BUILD = "python -m data_pipeline.builder --output"


def find_scale(config: DataSettings, *, open_live: OpenScenes | None = None) -> np.ndarray:
  """The per-band scale [k] float32, px, of a config's data: the folder's, or without one measured on live scenes.

  For `open_live` see `make_train_iterator`.

  Raises:
    UserError: see `read_scale` and `measure_scale`.
  """
  if config.directory:
    return read_scale(config.directory, num_bands=config.num_bands)
  return measure_scale(_open_live(open_live, "train"), num_bands=config.num_bands)


def measure_scale(
  source: Samples, *, num_bands: int, num_scenes: int = 64, percentile: float = 95.0
) -> Float[np.ndarray, "k"]:
  """Measures the per-band normalisation scale on the first scenes of a source, always the same ones (section 4.1).

  Args:
    source: the training scenes.
    num_bands: number k of bands.
    num_scenes: how many scenes are made.
    percentile: of the magnitudes, as in a built data set's statistics.

  Returns:
    [k] float32 pixels of the motion grid.

  Raises:
    UserError: the scenes have fewer than `num_bands` bands.
  """
  available = source[0].num_bands
  if available < num_bands:
    raise UserError(f"live scenes have {available} bands but config.data.num_bands={num_bands}; lower it")
  histogram = BandHistogram(num_bands)
  for index in range(num_scenes):
    histogram.add(source[index].decode(fields=("spectrum",), bands=range(num_bands)).spectrum)
  return histograms_to_percentile([histogram], percentile).astype(np.float32)


def _mix_sources(sources: Mapping[str, Any], weights: Mapping[str, float], seed: int) -> grain.MapDataset:
  """Endless shuffled records; with weights, sources are shuffled and repeated one by one and then mixed."""
  if not set(weights) - {LIVE} and LIVE not in sources:
    return grain.MapDataset.source(Chain(list(sources.values()))).shuffle(seed).repeat()
  # Live scenes come last: with or without them, stored windows are shuffled alike.
  names = sorted(weights, key=lambda name: (name == LIVE, name))
  chosen = [name for name in names if weights[name] > 0]
  if not chosen:
    raise UserError("config.data.sources: all weights are 0; give at least one source a positive weight")
  missing = [name for name in chosen if name not in sources]
  if missing:
    raise UserError(
      f"config.data.sources.{missing[0]}={weights[missing[0]]}, but the data has only {', '.join(sources)}; "
      f"build some ({_BUILD} …) or give " + " ".join(f"--config.data.sources.{name}=0" for name in missing)
    )
  parents = [grain.MapDataset.source(sources[name]).shuffle(seed + names.index(name)).repeat() for name in chosen]
  return grain.MapDataset.mix(parents, [float(weights[name]) for name in chosen])


def _stack(examples: Sequence[Batch]) -> Batch:
  try:
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
  except ValueError as error:
    raise UserError("the data holds windows of several sizes; cut them alike with config.data.crop") from error


class _Share(grain.MapDataset):
  """One process's consecutive part of every batch: all processes' parts in order are the batch of a single one."""

  def __init__(self, parent: grain.MapDataset, size: int, process_index: int, process_count: int, first: int = 0):
    super().__init__(parent)
    self._size, self._process_index, self._process_count, self._first = size, process_index, process_count, first

  def __len__(self) -> int:
    return len(self._parent) // self._process_count

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    batch, place = divmod(index, self._size)
    return self._parent[((self._first + batch) * self._process_count + self._process_index) * self._size + place]


class _Workers:
  """Batches made by processes beside this one; its state is the number of batches read, as it is with threads."""

  _iterator: Any

  def __init__(self, make: Callable[[int], grain.IterDataset]):
    self._make, self._iterator = make, None  # until the first batch
    self.set_state({"next_index": 0})

  def __iter__(self):
    return self

  def __next__(self):
    if self._iterator is None:  # late, as where a run goes on is not known at once
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks for flags of its own
      self._iterator = iter(self._make(self._number))
    batch = next(self._iterator)
    self._number += 1
    return batch

  def get_state(self):
    return {"next_index": self._number}

  def set_state(self, state):
    if self._iterator is not None:
      self._iterator.close()
    self._iterator, self._number = None, state["next_index"]


def _make_batches(dataset, example, config, seed, batch_size, process_index, process_count) -> Any:
  """`example`: (item, rng) -> arrays of one example."""
  if batch_size % process_count:
    raise UserError(
      f"batch size {batch_size} does not divide over {process_count} processes; choose a multiple of it"
    )
  size, examples = batch_size // process_count, dataset.seed(seed).random_map(example)
  options = grain.ReadOptions(config.num_threads, prefetch_buffer_size=max(config.num_threads, 2))

  def make(first: int = 0) -> grain.IterDataset:
    # The batch is formed before threading, so the iterator's whole state is the number of batches read, exact
    # even when the run resumes with another number of processes.
    share = _Share(examples, size, process_index, process_count, first)
    return share.batch(size, drop_remainder=True, batch_fn=_stack).to_iter_dataset(options)

  if not config.num_workers:
    return iter(make())
  workers = grain.MultiprocessingOptions(config.num_workers)
  return _Workers(lambda first: make(first).mp_prefetch(workers))


# Workers import these by name.
def _make_plain(record: Sample, rng: np.random.Generator, **settings) -> Batch:
  return make_example(rng, record, **settings)


def _make_numbered(record: Sample, rng: np.random.Generator, **settings) -> Batch:
  return {**make_example(rng, record, **settings), "record": np.array(record.number, np.int32)}


def _make_cached(window: CachedWindow, rng: np.random.Generator, *, config, stage, jitter) -> Batch:
  bands = choose_bands(rng, config, stage)
  (image,) = jitter_colours(rng, [window.image], jitter=jitter)
  latents = window.latents[bands].astype(np.float32)
  return {"image": image, "latent": latents, "band": bands, "record": np.array(window.number, np.int32)}


def _open_live(open_live: OpenScenes | None, split: str) -> Samples:
  if open_live is None:
    raise UserError("config.data.sources.live: nothing here simulates scenes; give --config.data.sources.live=0")
  return open_live(split)


def _open_stage(config: DataSettings, stage: str, split: str, open_live: OpenScenes | None) -> dict[str, Any]:
  """The sources of a split by name: stored ones, and live scenes to train on or where nothing is stored."""
  if stage not in STAGES:
    raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(STAGES)}")
  if stage == "ldm" and not 1 <= config.bands_per_example <= config.num_bands:
    raise UserError(
      f"config.data.bands_per_example={config.bands_per_example}; choose 1 to num_bands={config.num_bands}"
    )
  if config.crop and (config.crop[0] % 2 or config.crop[1] % 2):
    raise UserError(f"config.data.crop={tuple(config.crop)}; choose even sides")
  is_live = config.sources.get(LIVE, 0) > 0
  if not config.directory and not is_live:
    raise UserError("config.data.directory is empty; name a data folder, or give --config.data.sources.live=1")
  sources: dict[str, Any] = {}
  if config.directory:
    # A loss on what is not trained on would choose the wrong checkpoint.
    is_validation = split == "validation"
    sources = open_chosen(config, split=split) if is_validation else open_records(config.directory, split)
  if sources and stage not in ("renderer", "plate"):
    check_windows(sources, config)
  if is_live and (split == "train" or not sources):
    sources[LIVE] = _open_live(open_live, split)
  return sources


def make_train_iterator(
  config: DataSettings,
  *,
  stage: str,
  seed: int,
  batch_size: int,
  open_live: OpenScenes | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Makes the endless, shuffled, augmented iterator of a training stage (supplement, training details).

  Args:
    config: the `data` part of a config: directory (several with commas between; "" for none), num_bands K,
      motion_stride (photo pixels per pixel of the motion grid, 1 or 2), sources (name -> weight; "live": scenes made
      on the way; no weights: all windows alike), augmentation (ranges of `Augmentation`;
      empty: only the random crop), bands_per_example n, crop (h, w) or None for whole windows, num_threads,
      num_workers.
    stage: "vae" gives `slice` [b hm wm 4] and `band` [b]; "ldm" `image` [b h w 3], `slice` [b n hm wm 4] and
      `band` [b n] of n distinct bands; "ldm_coordinated" the same with all K bands in order; "renderer"
      `image` and `target` [b h w 3], `flow` [b h w 2] and `depth` [b h w]; "plate" `image` [b h w 3] and `hole`
      [b h w 1]. All float32 but `band`, int32.
      With `strength` both stages "ldm" have `strength` [b], see `measure_strength`.
      Images in [0, 1]; slices unnormalised, pixels of the motion grid; flow and depth in pixels.
      All stages give `record` [b] int32 too, which `name_records` turns into places.
    seed: of order and augmentation.
    batch_size: over all processes; this process gets its share of every batch.
    open_live: opens the live scenes of a split, such as `data_pipeline.synthetic.source.SceneSource`.

  Returns:
    A Grain iterator; `get_state` / `set_state` resume it exactly.

  Raises:
    UserError: the data or the settings do not fit.
  """
  ranges = config_to_augmentation(config.augmentation)
  dataset = _mix_sources(_open_stage(config, stage, "train", open_live), dict(config.sources), seed)
  settings = dict(config=config, stage=stage, ranges=ranges, strengths=Strengths(config.num_bands))
  example = functools.partial(_make_numbered, **settings)
  return _make_batches(dataset, example, config, seed, batch_size, process_index, process_count)


def make_cached_iterator(
  config: DataSettings,
  sources: Mapping[str, LatentSource],
  *,
  stage: str,
  seed: int,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Makes the endless, shuffled iterator over cached latents; only bands and colours are drawn anew.

  Args:
    config: the `data` part of a config; see `make_train_iterator`.
    sources: see `build_latent_cache`.
    stage: "ldm" or "ldm_coordinated": arrays are those of `make_train_iterator`, but for `slice` they have `latent`
      [b n h2 w2 z] float32, whitened.
    seed: of order, bands and colours.
    batch_size: over all processes; this process gets its share of every batch.
    process_index: of this process.
    process_count: of the run.

  Returns:
    A Grain iterator; `get_state` / `set_state` resume it exactly. A state is the number of batches read, so that of
    `make_train_iterator` will do too.

  Raises:
    UserError: the settings do not fit.
  """
  jitter = config_to_augmentation(config.augmentation).jitter
  example = functools.partial(_make_cached, config=config, stage=stage, jitter=jitter)
  dataset = _mix_sources(sources, dict(config.sources), seed)
  return _make_batches(dataset, example, config, seed, batch_size, process_index, process_count)


def name_records(config: DataSettings, numbers: Iterable[int]) -> list[str]:
  """Names the places that training examples came from, such as "data/gid_windows/real/1.0.0: record 12".

  Args:
    config: the `data` part of the config that they were made with.
    numbers: `record` of a batch.

  Raises:
    UserError: the data folder cannot be opened any more.
  """
  windows = Chain(list(open_records(config.directory, "train").values())) if config.directory else Chain([])

  def name(number: int) -> str:
    if number < 0:
      return name_scene(-1 - number)
    source, index = windows.locate(number)
    dataset, index = source.locate(index)
    return dataset.place(index)

  return [name(int(number)) for number in numbers]


def make_eval_batches(
  config: DataSettings,
  *,
  stage: str,
  batch_size: int,
  num_batches: int,
  open_live: OpenScenes | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Gives the same validation batches at every call: no augmentation, central crop, fixed bands and frames.

  They come from the data folder, or where there is none from live scenes of other seeds than those trained on.
  Batches are full (windows repeat to fill the last one) and there are at most as many as the windows need.
  Arrays, arguments and errors are those of `make_train_iterator`; there is no `record`.
  """
  sources = _open_stage(config, stage, "validation", open_live)
  records = sources[LIVE] if LIVE in sources else Chain(list(sources.values()))
  # Shuffled once, so that a few batches see many scenes.
  dataset = grain.MapDataset.source(records).shuffle(0).repeat()
  strengths = Strengths(config.num_bands)
  example = functools.partial(_make_plain, config=config, stage=stage, ranges=None, strengths=strengths)
  config = dataclasses.replace(config, num_workers=0)  # so few are made sooner than workers start
  batches = _make_batches(dataset, example, config, 0, batch_size, process_index, process_count)
  return itertools.islice(batches, min(num_batches, -(-len(records) // batch_size)))
