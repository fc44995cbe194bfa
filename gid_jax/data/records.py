"""Windows as they lie in a data folder: opened by split and source, read one by one, and called by number.

A data folder holds one TensorFlow data set (array_record) for each source of windows, `gid_windows/<source>/<version>/`
with the splits "train" and "validation", and `statistics.json`. TensorFlow itself is not needed to read it.
"""

import bisect
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import numpy as np

from gid_jax.configuration import DataSettings
from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION, example_to_window, list_sources, open_split
from gid_jax.errors import UserError
from gid_jax.types import Window

LIVE = "live"  # the source of scenes that are simulated on the way

_BUILD = "python -m data_pipeline.builder --output"


@runtime_checkable
class Sample(Protocol):
  """What examples are made of: a stored window, or a scene that has yet to be simulated."""

  @property
  def number(self) -> int:
    """Number that names it in batches: of a stored window 0, 1, …, of a simulated scene -1 - seed."""
    ...

  @property
  def place(self) -> str:
    """Where it comes from, for people."""
    ...

  @property
  def num_bands(self) -> int:
    """Bands that its spectrum has."""
    ...

  @property
  def num_pairs(self) -> int:
    """Later frames that it has."""
    ...

  def decode(self, *, fields: Sequence[str], bands: Any = ..., pairs: Any = ...) -> Window:
    """Makes the arrays named in `fields`, with these bands and pairs; see `example_to_window`."""
    ...


@runtime_checkable
class Samples(Protocol):
  """Random access to samples."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Sample: ...


# Opens the live scenes of a split, "train" or "validation".
OpenScenes = Callable[[str], Samples]


def name_scene(seed: int) -> str:
  """What people are told of a live scene."""
  return f"live scene {seed}"


class Record(NamedTuple):
  """A window as it is stored, not decoded yet.

  Attributes:
    example: the stored bytes; see `gid_jax.data.storage`.
    place: data set and number in it, for errors.
    number: among all windows of the split.
  """

  example: Mapping[str, Any]
  place: str
  number: int

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


class RecordSource:
  """Random access to the records of one data set.

  Attributes:
    folder: of the data set.
    first: number of its first record among all windows of the split.
  """

  def __init__(self, folder: str | Path, examples: Sequence[Mapping[str, Any]], *, first: int = 0):
    self.folder, self.first, self._examples = folder, first, examples

  def __len__(self) -> int:
    return len(self._examples)

  def place(self, index: int) -> str:
    """Names a record without reading it."""
    return f"{self.folder}: record {index}"

  def __getitem__(self, index: SupportsIndex) -> Record:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    try:
      return Record(self._examples[index], self.place(index), self.first + index)
    except Exception as error:  # the readers raise what they like; whatever it is, this record is lost
      raise _damaged(self.place(index), error) from error


class Chain:
  """Random access to several sequences, one after another.

  Attributes:
    parts: the sequences.
  """

  def __init__(self, parts: Sequence[Any]):
    self.parts = tuple(parts)
    self._ends = list(itertools.accumulate(map(len, self.parts)))

  def __len__(self) -> int:
    return self._ends[-1]

  def locate(self, index: int) -> tuple[Any, int]:
    """The part that holds an item, and the item's index in it."""
    part = bisect.bisect_right(self._ends, index)
    return self.parts[part], index - self._ends[part] + len(self.parts[part])

  def __getitem__(self, index: SupportsIndex) -> Any:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f"item {index} of {len(self)}")
    part, index = self.locate(index)
    return part[index]


def _damaged(place: str, error: Exception) -> UserError:
  lines = str(error).splitlines() or [type(error).__name__]
  return UserError(f"{place} is not readable ({lines[0]}); delete that folder and build it again: {_BUILD} …")


def open_records(directory: str | Path, split: str) -> dict[str, Chain]:
  """Opens a split ("train" or "validation") of a data folder, or of several with commas between.

  Returns:
    The records by source, each a `Chain` of one `RecordSource` a folder; numbers run through all of them in order.

  Raises:
    UserError: a folder has no data set, one of another format or a damaged one, or none has this split.
  """
  folders = list_folders(directory)
  examples: dict[str, list] = {}
  for folder in folders:
    _check_folder(folder)
    for source in list_sources(folder):
      records = open_split(folder, source, split)
      if len(records):
        examples.setdefault(source, []).append((folder / DATASET_NAME / source / DATASET_VERSION, records))
  if not examples:
    names = ", ".join(map(str, folders))
    raise UserError(
      f"{names}: no {split} windows; build with more clips or scenes, or hold some out with --held_out_scenes: "
      f"{_BUILD} {folders[0]} …"
    )
  sources, first = {}, 0
  for source in sorted(examples):
    parts = []
    for place, records in examples[source]:
      parts.append(RecordSource(place, records, first=first))
      first += len(records)
    sources[source] = Chain(parts)
  return sources


def open_chosen(config: DataSettings, *, split: str) -> dict[str, Chain]:
  """Opens the windows of a split whose source has a share in the settings; of all sources without shares.

  Where live scenes alone have a share, no window is trained on, and all are for validation.

  Raises:
    UserError: none of the stored sources with a share has windows in this split; or see `open_records`.
  """
  sources = open_records(config.directory, split)
  chosen = {name for name, weight in config.sources.items() if weight > 0}
  if not chosen or (chosen == {LIVE} and split == "validation"):
    return sources
  found = {name: source for name, source in sources.items() if name in chosen}
  if not found and chosen != {LIVE}:
    raise UserError(
      f"{config.directory}: no {split} windows of {', '.join(sorted(chosen))}, only of {', '.join(sources)}; build "
      "with more clips, name some with --held_out_scenes, or change config.data.sources"
    )
  return found


def list_folders(directory: str | Path) -> list[Path]:
  """The data folders that `config.data.directory` names, with commas between."""
  return [Path(folder) for folder in str(directory).split(",")]


def list_datasets(sources: Mapping[str, Chain]) -> Iterator[RecordSource]:
  """The data sets of `open_records` one by one."""
  return (dataset for source in sources.values() for dataset in source.parts)


def _check_folder(folder: Path) -> None:
  """Tells of what would otherwise be passed over in silence: sources of another format, or without description."""
  for path in sorted(folder.glob(f"{DATASET_NAME}/*/[0-9]*")):
    if not (path.parent / DATASET_VERSION / "dataset_info.json").is_file():
      other = f"format {path.name}, but this release reads {DATASET_VERSION}"
      reason = other if path.name != DATASET_VERSION else "is not readable (no dataset_info.json)"
      raise UserError(f"{path}: {reason}; delete it and build it again: {_BUILD} {folder} …")


def read_description(folder: str | Path) -> dict[str, Any]:
  """What a data folder's `statistics.json` says; nothing where it is missing, which only some stages mind."""
  try:
    return dict(json.loads((Path(folder) / "statistics.json").read_text()))
  except (OSError, ValueError, TypeError):
    return {}


def read_scale(directory: str | Path, *, num_bands: int) -> np.ndarray:
  """Reads the per-band normalisation scale [k] float32, px, from `statistics.json` (section 4.1).

  Of several data folders the first one's is taken.

  Raises:
    UserError: the file is missing, damaged or has fewer than `num_bands` bands.
  """
  first = list_folders(directory)[0]
  path = first / "statistics.json"
  try:
    scale = np.asarray(json.loads(path.read_text())["scale"], np.float32)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path}: no readable scale ({error}); run the build again: {_BUILD} {first} …") from error
  if scale.ndim != 1 or scale.size < num_bands:
    raise UserError(f"{path}: has {scale.size} bands but num_bands={num_bands}; lower it or rebuild the data")
  return scale[:num_bands]
