"""A report as data: tables of estimates, figures, videos and the configuration; written as JSON and read back.

`gid_jax.evaluation.report.page` makes the page that people read; `report_comparison` compares two reports.
"""

import base64
import binascii
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from gid_jax.errors import UserError
from gid_jax.evaluation.results import Estimate
from gid_jax.files import complete_or_nothing, describe_failure

_VERSION = 1
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}

Kind = Literal["model", "baseline", "bound"]
Better = Literal["lower", "higher", ""]


@dataclasses.dataclass(frozen=True)
class Column:
  """A metric.

  Attributes:
    name: unique in its table.
    unit: such as "px" or "dB"; "" without one.
    better: "lower", "higher", or "" where neither is.
    digits: decimals shown.
  """

  name: str
  unit: str = ""
  better: Better = ""
  digits: int = 3

  def __post_init__(self):
    if self.better not in ("lower", "higher", ""):
      raise ValueError(f"column {self.name!r}: better is {self.better!r}; it must be 'lower', 'higher' or ''")


@dataclasses.dataclass(frozen=True)
class Row:
  """What was measured.

  Attributes:
    name: unique in its table.
    cells: one estimate a column; None where it was not measured.
    kind: "model", "baseline", or "bound" for a floor or ceiling, which competes with nobody.
  """

  name: str
  cells: tuple[Estimate | None, ...]
  kind: Kind = "model"

  def __post_init__(self):
    if self.kind not in ("model", "baseline", "bound"):
      raise ValueError(f"row {self.name!r}: kind is {self.kind!r}; it must be 'model', 'baseline' or 'bound'")


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows by columns; the caption says what was measured on what."""

  name: str
  caption: str
  columns: tuple[Column, ...]
  rows: tuple[Row, ...]

  def __post_init__(self):
    for row in self.rows:
      if len(row.cells) != len(self.columns):
        raise ValueError(
          f"table {self.name!r}, row {row.name!r}: {len(row.cells)} cells in {len(self.columns)} columns")
    _check_unique([column.name for column in self.columns], f"columns of table {self.name!r}")
    _check_unique([row.name for row in self.rows], f"rows of table {self.name!r}")


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture: its name, a caption that says what to see in it, and the bytes of its PNG file."""

  name: str
  caption: str
  png: bytes

  def __post_init__(self):
    if not self.png.startswith(_PNG_HEAD) or len(self.png) < 24:
      raise ValueError(f"figure {self.name!r} is not a PNG file")


@dataclasses.dataclass(frozen=True)
class ClipGroup:
  """Videos of one scene, shown side by side in step.

  Attributes:
    scene: its name.
    videos: what each shows -> the name of its MP4 or WebM file, relative to the page's folder.
  """

  scene: str
  videos: Mapping[str, str]

  def __post_init__(self):
    for name, file in self.videos.items():
      path = PurePosixPath(file)
      if not file or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"scene {self.scene!r}, video {name!r}: {file!r} is not a file beside or below the page")


@dataclasses.dataclass(frozen=True)
class Report:
  """All that is known of a judged model.

  Attributes:
    title: of the page.
    configuration: nested settings; comes back from JSON with lists for tuples and text for what JSON has no type for.
    tables: of unique names.
    figures: of unique names.
    clips: of unique scenes.
    notes: what a reader must know before all else, such as which metrics were left out and why.
  """

  title: str
  configuration: Mapping[str, Any]
  tables: tuple[Table, ...] = ()
  figures: tuple[Figure, ...] = ()
  clips: tuple[ClipGroup, ...] = ()
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    _check_unique([table.name for table in self.tables], "tables")
    _check_unique([figure.name for figure in self.figures], "figures")
    _check_unique([group.scene for group in self.clips], "scenes with clips")


def _check_unique(names: Sequence[str], what: str):
  if len(set(names)) < len(names):
    raise ValueError(f"{what} share a name: {', '.join(names)}")


def write_report(path: str | Path, report: Report) -> None:
  """Writes a report as JSON, complete or not at all; replaces an existing file.

  Pictures are inside, as base64; videos are only named. NaN is null, infinity the text "inf" or "-inf".

  Raises:
    UserError: the folder is missing or not writable, or the disk is full.
  """
  text = json.dumps(_report_to_tree(report), indent=1, ensure_ascii=False, allow_nan=False)
  with complete_or_nothing(Path(path), overwrite=True) as temporary:
    temporary.write_text(text + "\n", encoding="utf-8")


def read_report(path: str | Path) -> Report:
  """Reads what `write_report` wrote.

  Raises:
    UserError: no such readable file, or not a report.
  """
  try:
    tree = json.loads(Path(path).read_text(encoding="utf-8"))
    if tree["version"] != _VERSION:
      raise UserError(f"{path}: a report of version {tree['version']}, not {_VERSION}; evaluate again to make one.")
    return _tree_to_report(tree)
  except OSError as error:
    raise UserError(f"{path}: cannot read the report ({describe_failure(error)}); give the JSON file.") from error
  except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
    raise UserError(f"{path}: not a report of an evaluation ({type(error).__name__}: {error}).") from error


def _report_to_tree(report: Report) -> dict[str, Any]:
  return {
    "version": _VERSION,
    "title": report.title,
    "notes": list(report.notes),
    "configuration": make_plain(report.configuration),
    "tables": [
      {
        "name": table.name,
        "caption": table.caption,
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": [
          {"name": row.name, "kind": row.kind, "cells": [_estimate_to_tree(cell) for cell in row.cells]}
          for row in table.rows
        ],
      }
      for table in report.tables
    ],
    "figures": [
      {"name": figure.name, "caption": figure.caption, "png": base64.b64encode(figure.png).decode()}
      for figure in report.figures
    ],
    "clips": [{"scene": group.scene, "videos": dict(group.videos)} for group in report.clips],
  }


def _tree_to_report(tree: Mapping[str, Any]) -> Report:
  return Report(
    title=tree["title"],
    configuration=dict(tree["configuration"]),
    tables=tuple(
      Table(
        table["name"],
        table["caption"],
        tuple(Column(**column) for column in table["columns"]),
        tuple(Row(row["name"], tuple(map(_tree_to_estimate, row["cells"])), row["kind"]) for row in table["rows"]),
      )
      for table in tree["tables"]),
    figures=tuple(
      Figure(figure["name"], figure["caption"], base64.b64decode(figure["png"], validate=True))
      for figure in tree["figures"]),
    clips=tuple(ClipGroup(group["scene"], dict(group["videos"])) for group in tree["clips"]),
    notes=tuple(tree["notes"]),
  )


def _estimate_to_tree(estimate: Estimate | None) -> dict[str, Any] | None:
  return None if estimate is None else make_plain(estimate._asdict())


def _tree_to_estimate(tree: Mapping[str, Any] | None) -> Estimate | None:
  if tree is None:
    return None
  number = lambda value: math.nan if value is None else _INFINITIES[value] if value in _INFINITIES else float(value)
  value, low, high = (number(tree[name]) for name in ("value", "low", "high"))
  return Estimate(value, low, high, int(tree["num_samples"]), tree["note"])


def make_plain(value: Any) -> Any:
  """Nested settings or figures as what strict JSON can hold: NaN becomes None, infinity "inf", the unknown its text."""
  if isinstance(value, Mapping):
    return {str(name): make_plain(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [make_plain(inner) for inner in value]
  if isinstance(value, np.generic | np.ndarray):
    return make_plain(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None if math.isnan(value) else str(value)
  return value if isinstance(value, bool | int | float | str | None) else str(value)
