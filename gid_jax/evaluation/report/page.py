"""The page of a report: one static HTML file that needs nothing from elsewhere but the videos beside it."""

import base64
import collections
import html
import json
import math
import struct
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from gid_jax.evaluation.report.comparison import Change, Comparison
from gid_jax.evaluation.report.content import ClipGroup, Column, Figure, Report, Row, Table, make_plain
from gid_jax.evaluation.report.style import SCRIPT, STYLE
from gid_jax.evaluation.results import Estimate
from gid_jax.files import complete_or_nothing

_BAR_WIDTH, _BAR_HEIGHT, _BAR_MARGIN = 88, 10, 3


def write_page(path: str | Path, report: Report, *, comparison: Comparison | None = None) -> None:
  """Writes `report_to_html` to a file, complete or not at all; replaces an existing one.

  Raises:
    UserError: the folder is missing or not writable, or the disk is full.
  """
  text = report_to_html(report, comparison=comparison)
  with complete_or_nothing(Path(path), overwrite=True) as temporary:
    temporary.write_text(text, encoding="utf-8")


def report_to_html(report: Report, *, comparison: Comparison | None = None) -> str:
  """The page of a report; with a comparison (`report_comparison.compare`) every cell says how it changed.

  Pictures are inside the page; videos are files whose names are relative to it. It is read without JavaScript, which
  only keeps the videos of a scene in step.
  """
  sections = [
    *([("comparison", "Comparison", _draw_comparison(comparison))] if comparison else []),
    *((f"table-{index}", table.name, _draw_table(table, index, comparison))
      for index, table in enumerate(report.tables, 1)),
    *([("figures", "Figures", "".join(map(_draw_figure, report.figures)))] if report.figures else []),
    *([("clips", "Videos", _draw_clips(report.clips))] if report.clips else []),
  ]
  contents = "".join(f'<li><a href="#{name}">{_escape(title)}</a></li>' for name, title, _ in sections)
  body = "".join(
    f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{_escape(title)}</h2>{inner}</section>'
    for name, title, inner in sections)
  configuration = json.dumps(make_plain(report.configuration), indent=2, ensure_ascii=False)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{_escape(report.title)}</title><style>{STYLE}</style></head>\n<body><header>"
    f"<h1>{_escape(report.title)}</h1>"
    f"{_draw_list(report.notes, 'notes')}"
    f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>\n<main>{_draw_legend(report)}{body}'
    '<section id="configuration"><details><summary>Configuration</summary>'
    f"<pre>{_escape(configuration)}</pre></details></section></main>"
    f"{f'<script>{SCRIPT}</script>' if report.clips else ''}</body></html>\n")


def _escape(text: str) -> str:
  return html.escape(str(text))


def _draw_list(items: Sequence[str], name: str) -> str:
  return f'<ul class="{name}">{"".join(f"<li>{_escape(item)}</li>" for item in items)}</ul>' if items else ""


def _draw_legend(report: Report) -> str:
  if not report.tables:
    return ""
  return (
    '<p class="legend">In brackets: 95 % interval over samples. <strong>Bold</strong>: best of models and baselines, '
    "perhaps by less than noise. Bars begin at 0; where the figures of a column lie close together, dots on the "
    "column's own range stand in their place. The thin line is the interval. Bounds are floors and ceilings, and "
    "compete with nobody.</p>")


def _draw_comparison(comparison: Comparison) -> str:
  verdicts = [change.verdict for change in comparison.changes.values()]
  counts = ", ".join(
    f"{verdicts.count(name)} {words}"
    for name, words in (
      ("better", "better"), ("worse", "worse"), ("changed", "changed where neither side is better"),
      ("same", "within noise"), ("unclear", "without an interval to judge by"))
    if name in verdicts)
  chance = (
    " In the cells, ≈ stands before a figure that differs by less than noise, ? where that cannot be judged. Both "
    "intervals are taken as independent, which is strict where the scenes are the same; of figures that did not truly "
    "change up to one in twenty is marked by chance.")
  rows = "".join(
    f'<tr><th scope="row"><code>{_escape(path or "all")}</code></th>'
    f"<td>{_draw_setting(before)}</td><td>{_draw_setting(now)}</td></tr>"
    for path, before, now in comparison.settings)
  settings = (
    '<div class="scroll" tabindex="0" role="region" aria-label="Settings that differ"><table class="settings">'
    '<caption><span>Settings that differ</span></caption><thead><tr><th scope="col">Setting</th>'
    f'<th scope="col">Before</th><th scope="col">Now</th></tr></thead><tbody>{rows}</tbody></table></div>')
  only = "".join(
    f"<h3>{title}</h3>{_draw_list(parts, 'parts')}"
    for title, parts in (
      ("Only in this report", comparison.only_here), ("Only in the older one", comparison.only_there))
    if parts)
  return (
    f"<p>Against <em>{_escape(comparison.against)}</em>: {len(verdicts)} figures in both"
    f"{': ' if counts else ''}{counts}.{chance if counts else ''}</p>"
    f"{settings if rows else '<p>No setting differs.</p>'}{only}")


def _draw_setting(value: str | None) -> str:
  return _draw_absent("not set") if value is None else f"<code>{_escape(value)}</code>"


def _draw_absent(words: str) -> str:
  return f'<span aria-hidden="true">–</span><span class="spoken">{words}</span>'


def _draw_table(table: Table, index: int, comparison: Comparison | None) -> str:
  columns = list(zip(*(row.cells for row in table.rows), strict=True)) or [()] * len(table.columns)
  counts = [_find_common_count(cells) for cells in columns]
  scales = [_Scale(cells) for cells in columns]
  best = [_find_best(column, cells, table.rows) for column, cells in zip(table.columns, columns, strict=True)]
  notes = list(dict.fromkeys(cell.note for row in table.rows for cell in row.cells if cell and cell.note))
  lines = []
  for place, row in enumerate(table.rows):
    cells = []
    for column, count, scale, winners, cell in zip(table.columns, counts, scales, best, row.cells, strict=True):
      change = comparison.changes.get((table.name, row.name, column.name)) if comparison else None
      inner = _draw_absent("not measured") if cell is None else (
        _draw_value(cell, column, place in winners, _refer_to_note(cell, notes, index))
        + scale.draw(cell, row.kind)
        + _draw_interval(cell, column, count)
        + (_draw_change(cell, change, column) if change else ""))
      cells.append(f"<td>{inner}</td>")
    kind = "" if row.kind == "model" else f'<span class="kind">{row.kind}</span>'
    lines.append(f'<tr class="{row.kind}"><th scope="row">{_escape(row.name)}{kind}</th>{"".join(cells)}</tr>')
  heads = "".join(map(_draw_head, table.columns, counts))
  feet = "".join(f'<li id="note-{index}-{number}">{_escape(note)}</li>' for number, note in enumerate(notes, 1))
  feet = f'<ol class="feet">{feet}</ol>' if feet else ""
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-labelledby="table-{index}-title"><table>'
    f'<caption><span>{_escape(table.caption)}</span></caption><thead><tr><td></td>{heads}</tr></thead>'
    f"<tbody>{''.join(lines)}</tbody></table></div>{feet}")


def _draw_head(column: Column, count: int | None) -> str:
  arrow = {"lower": "↓ lower is better", "higher": "↑ higher is better", "": ""}[column.better]
  facts = [_escape(column.unit), arrow, "" if count is None else f"n = {count}"]
  small = "".join(f"<small>{fact}</small>" for fact in facts if fact)
  return f'<th scope="col">{_escape(column.name)}{small}</th>'


def _find_common_count(cells: Sequence[Estimate | None]) -> int | None:
  """The number of samples that most cells of a column have, which stands in its head; others name their own."""
  counts = collections.Counter(cell.num_samples for cell in cells if cell)
  return counts.most_common(1)[0][0] if counts else None


def _find_best(column: Column, cells: Sequence[Estimate | None], rows: Sequence[Row]) -> set[int]:
  """Places of the rows, bounds aside, with the best figure; several only where they are equal."""
  competing = {
    place: cell.value
    for place, (cell, row) in enumerate(zip(cells, rows, strict=True))
    if cell and row.kind != "bound" and not math.isnan(cell.value)
  }
  if not column.better or not competing:
    return set()
  best = (min if column.better == "lower" else max)(competing.values())
  return {place for place, value in competing.items() if value == best}


def _format_number(value: float, digits: int) -> str:
  if math.isnan(value):
    return "n/a"
  if math.isinf(value):
    return "∞" if value > 0 else "−∞"
  text = f"{value:.{digits}f}"
  # No minus before what rounds to zero; a true minus sign before the rest.
  return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _draw_value(cell: Estimate, column: Column, is_best: bool, reference: str) -> str:
  text = _format_number(cell.value, column.digits)
  return f'<span class="value">{f"<strong>{text}</strong>" if is_best else text}{reference}</span>'


def _refer_to_note(cell: Estimate, notes: Sequence[str], index: int) -> str:
  if not cell.note:
    return ""
  number = notes.index(cell.note) + 1
  return f'<sup><a href="#note-{index}-{number}"><span class="spoken">note </span>{number}</a></sup>'


def _draw_interval(cell: Estimate, column: Column, count: int | None) -> str:
  if math.isnan(cell.value):
    return ""
  low, high = (_format_number(end, column.digits) for end in (cell.low, cell.high))
  known = not (math.isnan(cell.low) or math.isnan(cell.high))
  samples = "" if cell.num_samples == count else f" n = {cell.num_samples}"
  return f'<small>{f"[{low}, {high}]" if known else "no interval"}{samples}</small>'


def _draw_change(now: Estimate, change: Change, column: Column) -> str:
  if math.isnan(now.value) and math.isnan(change.before.value):
    return ""
  before = _format_number(change.before.value, column.digits)
  if change.before[:4] == now[:4]:
    text = "unchanged"
  elif change.verdict == "same":
    text = f"≈ {before} before"
  elif change.verdict == "unclear":
    text = f"? {before} before"
  else:
    text = f"{'▲' if now.value > change.before.value else '▼'} {change.verdict}, {before} before"
  if change.before.num_samples != now.num_samples:
    text += f" (n = {change.before.num_samples})"
  return f'<small class="change {change.verdict}">{text}</small>'


class _Scale:
  """The scale that the little bars of a column share."""

  def __init__(self, cells: Sequence[Estimate | None]):
    ends = [end for cell in cells if cell for end in cell[:3] if math.isfinite(end)]
    smallest, largest = (min(ends), max(ends)) if ends else (0.0, 0.0)
    # Where the shortest bar would be more than half as long as the longest, bars from zero say little.
    self._from_zero = not (smallest > largest / 2 > 0 or largest < smallest / 2 < 0)
    self._begin, self._end = (min(smallest, 0), max(largest, 0)) if self._from_zero else (smallest, largest)

  def _place(self, value: float) -> float:
    share = (value - self._begin) / (self._end - self._begin) if self._end > self._begin else 0.5
    return _BAR_MARGIN + share * (_BAR_WIDTH - 2 * _BAR_MARGIN)

  def draw(self, cell: Estimate, kind: str) -> str:
    """A bar or dot with its interval; the numbers beside it say the same, so it is not read aloud."""
    if not math.isfinite(cell.value):
      return ""
    middle, at = _BAR_HEIGHT / 2, self._place(cell.value)
    if self._from_zero:
      zero = self._place(0)
      mark = f'<rect x="{min(at, zero):.1f}" y="1" width="{abs(at - zero):.1f}" height="{_BAR_HEIGHT - 2}"/>'
      axis = f'<path class="axis" d="M{zero:.1f} 0V{_BAR_HEIGHT}"/>'
    else:
      mark = f'<circle cx="{at:.1f}" cy="{middle}" r="2.5"/>'
      axis = f'<path class="axis" d="M0 {middle}H{_BAR_WIDTH}"/>'
    line = ""
    if math.isfinite(cell.low) and math.isfinite(cell.high):
      low, high = self._place(cell.low), self._place(cell.high)
      line = f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} 2V8M{high:.1f} 2V8"/>'
    return (
      f'<svg class="bar {kind}" width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" '
      f'aria-hidden="true">{axis}{mark}{line}</svg>')


def _draw_figure(figure: Figure) -> str:
  width, height = struct.unpack(">II", figure.png[16:24])  # The first chunk of every PNG file.
  data = base64.b64encode(figure.png).decode()
  return (
    f'<figure><h3>{_escape(figure.name)}</h3><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
    f'alt="{_escape(figure.name)}"><figcaption>{_escape(figure.caption)}</figcaption></figure>')


def _draw_clips(groups: Sequence[ClipGroup]) -> str:
  return "".join(
    f'<h3>{_escape(group.scene)}</h3><div class="clips">'
    + "".join(
      f'<figure><video src="{_escape(urllib.parse.quote(file))}" controls muted loop playsinline preload="metadata" '
      f'aria-label="{_escape(f"{group.scene}: {name}")}"></video><figcaption>{_escape(name)}</figcaption></figure>'
      for name, file in group.videos.items())
    + "</div>"
    for group in groups)
