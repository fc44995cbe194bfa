"""The data set on disk, or scenes simulated on the way -> augmented batches; the only file that imports Grain.

A data folder holds one TensorFlow data set (array_record) for each source of windows, `gid_windows/<source>/<version>/`
with the splits "train" and "validation", and `statistics.json`. TensorFlow itself is not needed to read it.
"""

import bisect
import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import grain
import numpy as np

from data_pipeline.synthetic.source import SceneRecord, SceneSource, measure_scale
from gid_jax.augmentation import (
  Augmentation,
  Matrix,
  centre_matrix,
  config_to_augmentation,
  draw_matrix,
  jitter_colours,
  warp_motion,
  warp_window,
)
from gid_jax.errors import UserError
from gid_jax.storage import DATASET_NAME, DATASET_VERSION, example_to_window, list_sources, open_split
from gid_jax.types import Window

Batch = dict[str, np.ndarray]
STAGES = ("vae", "ldm", "ldm_coordinated", "renderer")
LIVE = "live"  # the source of scenes that are simulated on the way

_BUILD = "python -m data_pipeline.builder --output"


class Record(NamedTuple):
  """A window as it is stored, not decoded yet.

  Attributes:
    example: the stored bytes; see `gid_jax.storage`.
    place: data set and number of the record, for errors.
  """

  example: Mapping[str, Any]
  place: str

  @property
  def num_bands(self) -> int:
    """Bands of the stored spectrum."""
    return len(self.example["spectrum"])

  @property
  def num_pairs(self) -> int:
    """Later frames stored."""
    return len(self.example["frames"])

  def decode(self, **what: Any) -> Window:
    """Decodes what `example_to_window` is asked for.

    Raises:
      UserError: the record is damaged.
    """
    try:
      return example_to_window(self.example, **what)
    except Exception as error:  # bytes that are not a window fail in many ways
      raise _damaged(self.place, error) from error


class RecordSource(grain.sources.RandomAccessDataSource):
  """Random access to the records of some data sets, one after another.

  Attributes:
    parts: (folder, its stored examples) of each data set.
  """

  def __init__(self, parts: Sequence[tuple[Path, Sequence[Mapping[str, Any]]]]):
    self.parts = tuple(parts)
    self._ends = list(itertools.accumulate(len(records) for _, records in self.parts))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, record_key: SupportsIndex) -> Record:
    index = operator.index(record_key)
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    part = bisect.bisect_right(self._ends, index)
    folder, records = self.parts[part]
    number = index - self._ends[part] + len(records)
    place = f"{folder}: record {number}"
    try:
      return Record(records[number], place)
    except Exception as error:  # the readers raise what they like; whatever it is, this record is lost
      raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> UserError:
  lines = str(error).splitlines() or [type(error).__name__]
  return UserError(f"{place} is not readable ({lines[0]}); delete that folder and build it again: {_BUILD} …")


def open_records(directory: str | Path, split: str) -> dict[str, RecordSource]:
  """Opens a split ("train" or "validation") of a data folder, or of several with commas between: records by source.

  Raises:
    UserError: a folder has no data set, one of another format or a damaged one, or none has this split.
  """
  folders = _list_folders(directory)
  parts: dict[str, list] = {}
  for folder in folders:
    _check_folder(folder)
    for source in list_sources(folder):
      records = open_split(folder, source, split)
      if len(records):
        parts.setdefault(source, []).append((folder / DATASET_NAME / source / DATASET_VERSION, records))
  if not parts:
    names = ", ".join(map(str, folders))
    raise UserError(f"{names}: no {split} windows; build with more clips or scenes: {_BUILD} {folders[0]} …")
  return {source: RecordSource(parts[source]) for source in sorted(parts)}


def _list_folders(directory: str | Path) -> list[Path]:
  return [Path(folder) for folder in str(directory).split(",")]


def _check_folder(folder: Path) -> None:
  """Tells of what would otherwise be passed over in silence: sources of another format, or without description."""
  for path in sorted(folder.glob(f"{DATASET_NAME}/*/[0-9]*")):
    if not (path.parent / DATASET_VERSION / "dataset_info.json").is_file():
      other = f"format {path.name}, but this release reads {DATASET_VERSION}"
      reason = other if path.name != DATASET_VERSION else "is not readable (no dataset_info.json)"
      raise UserError(f"{path}: {reason}; delete it and build it again: {_BUILD} {folder} …")


def _join(sources: Mapping[str, RecordSource]) -> RecordSource:
  return RecordSource([part for source in sources.values() for part in source.parts])


def read_scale(directory: str | Path, *, num_bands: int) -> np.ndarray:
  """Reads the per-band normalisation scale [k] float32, px, from `statistics.json` (section 4.1).

  Of several data folders the first one's is taken.

  Raises:
    UserError: the file is missing, damaged or has fewer than `num_bands` bands.
  """
  first = _list_folders(directory)[0]
  path = first / "statistics.json"
  try:
    scale = np.asarray(json.loads(path.read_text())["scale"], np.float32)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path}: no readable scale ({error}); run the build again: {_BUILD} {first} …") from error
  if scale.ndim != 1 or scale.size < num_bands:
    raise UserError(f"{path}: has {scale.size} bands but num_bands={num_bands}; lower it or rebuild the data")
  return scale[:num_bands]


def find_scale(config: Any) -> np.ndarray:
  """The per-band scale [k] float32, px, of a config's data: the folder's, or without one measured on live scenes.

  Raises:
    UserError: see `read_scale` and `measure_scale`.
  """
  if config.directory:
    return read_scale(config.directory, num_bands=config.num_bands)
  return measure_scale(_open_live(config, "train"), num_bands=config.num_bands)


def make_example(
  rng: np.random.Generator, record: Record | SceneRecord, *, config: Any, stage: str, ranges: Augmentation | None
) -> Batch:
  """Turns one window or scene into one example of a stage; see `make_train_iterator` for the arrays.

  Only the bands or the pair of frames that are drawn get decoded, or made. Without `ranges` nothing is augmented and
  the crop is central.

  Raises:
    UserError: the window is damaged, smaller than the crop, has fewer bands than `config.num_bands` or no frames.
  """
  if stage == "renderer":
    if not record.num_pairs:
      raise UserError(f"{record.place} has no later frames to render; build again with --num_pairs 6")
    pair = int(rng.integers(record.num_pairs))
    window = record.decode(fields=("image", "frames", "flows", "depth"), pairs=[pair])
    size = window.image.shape[:2]
    window = warp_window(window, _choose_matrix(rng, size, config, ranges, record), size=config.crop or size)
    image, target = jitter_colours(rng, [window.image, window.frames[0]], jitter=ranges.jitter if ranges else 0.0)
    return {"image": image, "target": target, "flow": window.flows[0], "depth": window.depth}
  bands = _choose_bands(rng, record, config, stage)
  # The auto-encoder sees no photo, so none is decoded for it.
  window = record.decode(fields=("spectrum",) if stage == "vae" else ("image", "spectrum"), bands=bands)
  stride = config.motion_stride
  size = (window.spectrum.shape[1] * stride, window.spectrum.shape[2] * stride)
  matrix = _choose_matrix(rng, size, config, ranges, record)
  crop = tuple(config.crop or size)
  if stage == "vae":
    return {"slice": warp_motion(window.spectrum, matrix, size=crop, stride=stride)[0], "band": bands[0]}
  window = warp_window(window, matrix, size=crop)
  (image,) = jitter_colours(rng, [window.image], jitter=ranges.jitter if ranges else 0.0)
  return {"image": image, "slice": window.spectrum, "band": bands}


def _choose_bands(
  rng: np.random.Generator, record: Record | SceneRecord, config: Any, stage: str
) -> np.ndarray:
  available, wanted = record.num_bands, config.num_bands
  if available < wanted:
    raise UserError(f"{record.place} has {available} bands but config.data.num_bands={wanted}; lower it")
  bands = np.arange(wanted, dtype=np.int32)
  num_drawn = {"vae": 1, "ldm": config.bands_per_example, "ldm_coordinated": wanted}[stage]
  return rng.choice(bands, num_drawn, replace=False) if num_drawn < wanted else bands


def _choose_matrix(
  rng: np.random.Generator, size: tuple[int, int], config: Any, ranges: Augmentation | None,
  record: Record | SceneRecord,
) -> Matrix:
  crop = tuple(config.crop or size)
  if crop[0] > size[0] or crop[1] > size[1]:
    raise UserError(f"{record.place} is {size[0]}x{size[1]} but config.data.crop={crop}; lower the crop")
  return draw_matrix(rng, size, crop=crop, ranges=ranges) if ranges else centre_matrix(size, crop=crop)


def _check_first(sources: Mapping[str, RecordSource], config: Any) -> None:
  """Finds data of another kind before training starts: the motion grid of each data set's first window."""
  for dataset in (RecordSource([part]) for part in _join(sources).parts):
    window = dataset[0].decode(fields=("image", "spectrum"), bands=[0])
    size, grid = window.image.shape[:2], window.spectrum.shape[1:3]
    if size != (grid[0] * config.motion_stride, grid[1] * config.motion_stride):
      raise UserError(
        f"{dataset[0].place}: photo {size[0]}x{size[1]}, motion {grid[0]}x{grid[1]}, which does not fit "
        f"config.data.motion_stride={config.motion_stride}; use the size of config that the data was built for"
      )


def _mix_sources(sources: Mapping[str, Any], weights: Mapping[str, float], seed: int) -> grain.MapDataset:
  """Endless shuffled records; with weights, sources are shuffled and repeated one by one and then mixed."""
  if not set(weights) - {LIVE} and LIVE not in sources:
    return grain.MapDataset.source(_join(sources)).shuffle(seed).repeat()
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


def _make_batches(dataset, config, stage, ranges, seed, batch_size, process_index, process_count):
  if batch_size % process_count:
    raise UserError(
      f"batch size {batch_size} does not divide over {process_count} processes; choose a multiple of it"
    )
  example = lambda record, rng: make_example(rng, record, config=config, stage=stage, ranges=ranges)
  # The batch is formed before threading, so the iterator's whole state is the number of batches read, exact
  # even when the run resumes with another number of processes.
  dataset = dataset.seed(seed).random_map(example)[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count, drop_remainder=True, batch_fn=_stack)
  options = grain.ReadOptions(config.num_threads, prefetch_buffer_size=max(config.num_threads, 2))
  return iter(dataset.to_iter_dataset(options))


def _open_live(config: Any, split: str) -> SceneSource:
  return SceneSource(dict(config.get("live") or {}), split, motion_stride=config.motion_stride)


def _open_stage(config: Any, stage: str, split: str) -> dict[str, Any]:
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
  sources: dict[str, Any] = open_records(config.directory, split) if config.directory else {}
  if sources and stage != "renderer":
    _check_first(sources, config)
  if is_live and (split == "train" or not sources):
    sources[LIVE] = _open_live(config, split)
  return sources


def make_train_iterator(
  config: Any, *, stage: str, seed: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator:
  """Makes the endless, shuffled, augmented iterator of a training stage (supplement, training details).

  Args:
    config: the `data` part of a config: directory (several with commas between; "" for none), num_bands K,
      motion_stride (photo pixels per pixel of the motion grid, 1 or 2), sources (name -> weight; "live": scenes made
      on the way; no weights: all windows alike), live (see `SceneSource`), augmentation (ranges of `Augmentation`;
      empty: only the random crop), bands_per_example n, crop (h, w) or None for whole windows, num_threads.
    stage: "vae" gives `slice` [b hm wm 4] and `band` [b]; "ldm" `image` [b h w 3], `slice` [b n hm wm 4] and
      `band` [b n] of n distinct bands; "ldm_coordinated" the same with all K bands in order; "renderer"
      `image` and `target` [b h w 3], `flow` [b h w 2] and `depth` [b h w]. All float32 but `band`, int32.
      Images in [0, 1]; slices unnormalised, pixels of the motion grid; flow and depth in pixels.
    seed: of order and augmentation.
    batch_size: over all processes; this process gets its share of every batch.

  Returns:
    A Grain iterator; `get_state` / `set_state` resume it exactly.

  Raises:
    UserError: the data or the settings do not fit.
  """
  ranges = config_to_augmentation(config.augmentation)
  dataset = _mix_sources(_open_stage(config, stage, "train"), dict(config.sources), seed)
  return _make_batches(dataset, config, stage, ranges, seed, batch_size, process_index, process_count)


def make_eval_batches(
  config: Any, *, stage: str, batch_size: int, num_batches: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
  """Gives the same validation batches at every call: no augmentation, central crop, fixed bands and frames.

  They come from the data folder, or where there is none from live scenes of other seeds than those trained on.
  Batches are full (windows repeat to fill the last one) and there are at most as many as the windows need.
  Arrays, arguments and errors are those of `make_train_iterator`.
  """
  sources = _open_stage(config, stage, "validation")
  records = sources[LIVE] if LIVE in sources else _join(sources)
  # Shuffled once, so that a few batches see many scenes.
  dataset = grain.MapDataset.source(records).shuffle(0).repeat()
  batches = _make_batches(dataset, config, stage, None, 0, batch_size, process_index, process_count)
  return itertools.islice(batches, min(num_batches, -(-len(records) // batch_size)))
