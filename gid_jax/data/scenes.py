"""The names of the scenes that a model was trained on; they travel with its weights, so that none of them judges it.

A list of scenes is {"real": [...], "loop": [...]}, names sorted, or None where it is not known. Simulated scenes
are not in it: they have seeds, not names.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gid_jax.configuration import DataSettings
from gid_jax.data.records import open_chosen

_NAMED = ("real", "loop")

Scenes = dict[str, list[str]]


def find_trained_scenes(data: DataSettings, *, earlier: Mapping[str, Any] | None) -> Scenes | None:
  """Lists the scenes that a training's parameters will have seen: in its own data, and before it.

  Args:
    data: the `data` part of a config.
    earlier: settings saved with the parameters that the training begins or goes on with, whose `trained_on` is their
      list of scenes; None where it begins from nothing.

  Returns:
    The scenes; None where those of the data or those of before are not known.

  Raises:
    UserError: the data cannot be opened, see `open_records`.
  """
  own = list_scenes(data)
  if earlier is None:
    return own
  before = earlier.get("trained_on")
  if own is None or before is None:
    return None
  return {source: sorted({*own[source], *before[source]}) for source in _NAMED}


def list_scenes(data: DataSettings) -> Scenes | None:
  """Lists the scenes of the windows that a config's `data` part trains on, by the `records.jsonl` of its folders.

  Returns:
    The scenes; None where such a file is missing or damaged, or does not list the windows that are there, as while
    the data are built again.

  Raises:
    UserError: the data cannot be opened, see `open_records`.
  """
  sources = open_chosen(data, split="train") if data.directory else {}
  scenes = {}
  for source in _NAMED:
    found = set()
    for dataset in sources[source].parts if source in sources else ():
      folder = Path(dataset.folder).parents[2]  # of FOLDER/gid_windows/SOURCE/VERSION
      windows = _count_windows(folder, source)
      if sum(windows.values()) != len(dataset):
        return None
      found |= {scene for scene, number in windows.items() if number}
    scenes[source] = sorted(found)
  return scenes


def _count_windows(folder: Path, source: str) -> dict[str, int]:
  """Scene -> windows for training, as the records of a data folder say; nothing where they cannot be read."""
  counts: dict[str, int] = {}
  try:
    for line in (folder / "records.jsonl").read_text().splitlines():
      record = json.loads(line)
      if (record["source"], record["split"]) == (source, "train"):
        counts[record["scene"]] = counts.get(record["scene"], 0) + len(record["windows"])
  except (OSError, ValueError, KeyError, TypeError):
    return {}
  return counts
