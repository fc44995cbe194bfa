"""Two reports compared: which differences exceed noise, what only one of them has, and which settings differ."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from gid_jax.evaluation.report.content import Better, Report, make_plain
from gid_jax.evaluation.results import Estimate

Verdict = Literal["better", "worse", "same", "changed", "unclear"]


@dataclasses.dataclass(frozen=True)
class Change:
  """How a figure changed between two reports.

  Attributes:
    verdict: "better" or "worse" where the difference exceeds noise ("changed" where the column has no better side),
      "same" where it does not, "unclear" where a figure or its interval is missing.
    before: the figure in the other report.
    noise: how large a difference must be to exceed noise; NaN where that is unclear.
  """

  verdict: Verdict
  before: Estimate
  noise: float


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A report beside an older one.

  Attributes:
    against: title of the older one.
    changes: (table, row, column) -> change, of every figure that both have.
    only_here: what the older one lacks, in words.
    only_there: what this one lacks.
    settings: (path, value before, value now) of each setting that differs; None where there is none.
  """

  against: str
  changes: Mapping[tuple[str, str, str], Change]
  only_here: tuple[str, ...]
  only_there: tuple[str, ...]
  settings: tuple[tuple[str, str | None, str | None], ...]


def compare(report: Report, against: Report) -> Comparison:
  """Compares every figure of `report` with the same one (table, row, column with its unit) of an older report.

  A difference exceeds noise where it is larger than hypot(a, b), with a and b half the widths of the two intervals:
  half a 95 % interval is 1.96 standard errors, and variances of independent estimates add. Intervals that do not
  overlap would ask for a + b, too much. Two models judged on the same scenes err alike, so the noise of their
  difference is smaller than this and the verdict errs to "same"; of many figures without any true difference up to
  one in twenty is marked by chance.
  """
  here, there = _list_parts(report), _list_parts(against)
  columns = {(table.name, column.name): column for table in report.tables for column in table.columns}
  figures, before = _list_cells(report), _list_cells(against)
  changes = {
    (table, row, column): _judge(estimate, before[table, row, column, unit], columns[table, column].better)
    for (table, row, column, unit), estimate in figures.items()
    if (table, row, column, unit) in before
  }
  now, then = _flatten(make_plain(report.configuration)), _flatten(make_plain(against.configuration))
  settings = tuple(
    (path, then.get(path), now.get(path)) for path in sorted({*now, *then}) if now.get(path) != then.get(path))
  return Comparison(against.title, changes, _subtract(here, there), _subtract(there, here), settings)


def _judge(now: Estimate, before: Estimate, better: Better) -> Change:
  noise = math.hypot((now.high - now.low) / 2, (before.high - before.low) / 2)
  difference = now.value - before.value
  if not (math.isfinite(noise) and math.isfinite(difference)):
    return Change("unclear", before, math.nan)
  if abs(difference) <= noise:
    return Change("same", before, noise)
  if not better:
    return Change("changed", before, noise)
  return Change("better" if (difference > 0) == (better == "higher") else "worse", before, noise)


def _list_cells(report: Report) -> dict[tuple[str, str, str, str], Estimate]:
  return {
    (table.name, row.name, column.name, column.unit): estimate
    for table in report.tables
    for row in table.rows
    for column, estimate in zip(table.columns, row.cells, strict=True)
    if estimate is not None
  }


def _list_parts(report: Report) -> dict[tuple[str, ...], str]:
  """Path of every part -> its name in words; a part stands after those that hold it."""
  parts: dict[tuple[str, ...], str] = {}
  for table in report.tables:
    parts["table", table.name] = f"table {table.name}"
    for column in table.columns:
      unit = f" ({column.unit})" if column.unit else ""
      parts["table", table.name, "column", column.name + unit] = f"table {table.name}, column {column.name}{unit}"
    for row in table.rows:
      parts["table", table.name, "row", row.name] = f"table {table.name}, row {row.name}"
  for table, row, column, unit in _list_cells(report):
    unit = f" ({unit})" if unit else ""
    parts["table", table, "cell", row, column + unit] = f"table {table}, row {row}, column {column}{unit}"
  parts |= {("figure", figure.name): f"figure {figure.name}" for figure in report.figures}
  for group in report.clips:
    parts["clips", group.scene] = f"clips of {group.scene}"
    for name in group.videos:
      parts["clips", group.scene, name] = f"clips of {group.scene}: {name}"
  return parts


def _subtract(parts: Mapping[tuple[str, ...], str], others: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
  """Names of the parts that `others` lacks, leaving out those inside a part already named."""
  missing = [path for path in parts if path not in others]
  named = set(missing)

  def holders(path):
    if path[2:3] == ("cell",):
      table, row, column = path[:2], path[3], path[4]
      return {table, (*table, "row", row), (*table, "column", column)}
    return {path[:2]} if len(path) > 2 else set()

  return tuple(parts[path] for path in missing if not holders(path) & named)


def _flatten(tree: Any, *, path: str = "") -> dict[str, str]:
  """Nested settings as path with dots -> JSON."""
  if isinstance(tree, dict) and (tree or not path):
    inner = (_flatten(value, path=f"{path}.{name}" if path else name) for name, value in tree.items())
    return {name: value for part in inner for name, value in part.items()}
  return {path: json.dumps(tree, ensure_ascii=False)}
