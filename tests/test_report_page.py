"""The page of a report: valid, whole in itself, nothing unescaped, and what stands in its cells."""

import html.parser
import math
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.evaluation.report.comparison import compare
from gid_jax.evaluation.report.content import ClipGroup, Column, Figure, Report, Row, Table
from gid_jax.evaluation.report.page import report_to_html, write_page
from gid_jax.evaluation.results import Estimate

PNG = cv2.imencode(".png", np.zeros((7, 5, 3), np.uint8))[1].tobytes()
NAN = math.nan
VOID = {"meta", "img", "br", "input", "link", "hr"}
NASTY = "<script>alert('x')</script>\"&amp;</pre></style>"


class Page(html.parser.HTMLParser):
  """Parses a page and fails where a tag is not closed in order."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.text, self.cells = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
    self.tags.append((tag, dict(attrs)))
    if tag == "td" and "tbody" in self.open:
      self.cells.append("")
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    assert "svg" in self.open, f"<{tag}/> closes itself outside a drawing"
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

  def handle_data(self, data):
    if not {"style", "script"} & set(self.open):
      self.text.append(data)
      if "td" in self.open and self.cells:
        self.cells[-1] += data + " "

  def find(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]


def make_table(cells, *, kinds=None, better="lower", digits=2, name="motion"):
  """A table of one column, a row a cell."""
  kinds = kinds or ["model"] * len(cells)
  rows = tuple(Row(f"r{index}", (cell,), kind) for index, (cell, kind) in enumerate(zip(cells, kinds, strict=True)))
  return Table(name, "24 scenes", (Column("error", "px", better, digits),), rows)


def make_report(*tables, **more):
  return Report("A model", {"seed": 1}, tables, **more)


def about(value, *, half=0.1, num_samples=9, note=""):
  return Estimate(value, value - half, value + half, num_samples, note)


def make_full_report(text):
  """A report with everything in it, and this text wherever text may stand."""
  columns = (Column(text, text, "lower", 1), Column("b"))
  rows = (
    Row(text, (about(1.0, note=text), None)),
    Row("bare", (Estimate(2.0, NAN, NAN, 1), Estimate(NAN, NAN, NAN, 0, "none")), "baseline"),
    Row("edge", (Estimate(math.inf, 1.0, math.inf, 3), about(-1.0)), "bound"))
  return Report(
    text, {text: {text: [text, None]}}, (Table(text, text, columns, rows), Table("empty", "", (), ())),
    (Figure(text, text, PNG),), (ClipGroup(text, {text: f"clips/{text.replace('/', '')}.mp4"}),), (text,))


@settings(deadline=None, max_examples=25)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=20).filter(
  lambda text: text.strip("./ ") == text and text not in ("b", "empty")))
def test_any_text_gives_a_valid_page(text):
  report = make_full_report(text)
  page = Page(report_to_html(report, comparison=compare(report, make_report(make_table([about(1.0)])))))
  assert page.find("title") and text in "".join(page.text)


def test_nothing_is_unescaped():
  report = make_full_report(NASTY)
  page = Page(report_to_html(report, comparison=compare(report, make_full_report("other"))))
  assert len(page.find("script")) == 1 and len(page.find("style")) == 1  # Its own.
  assert page.find("img")[0]["alt"] == NASTY
  assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_needs_nothing_from_elsewhere():
  text = report_to_html(make_full_report("x"))
  page = Page(text)
  assert "http" not in text and "url(" not in text and "@import" not in text
  assert not page.find("link")
  assert page.find("img")[0]["src"].startswith("data:image/png;base64,")
  assert [video["src"] for video in page.find("video")] == ["clips/x.mp4"]
  anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
  assert anchors >= {link["href"].removeprefix("#") for link in page.find("a")} != set()
  assert all(attributes.get("aria-labelledby", "table-1-title") in anchors for _, attributes in page.tags)


def test_identifiers_are_unique():
  page = Page(report_to_html(make_full_report("x"), comparison=compare(make_full_report("x"), make_full_report("y"))))
  identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
  assert len(set(identifiers)) == len(identifiers) > 5


def test_the_page_can_be_heard():
  page = Page(report_to_html(make_full_report("x")))
  assert page.find("html")[0]["lang"] == "en"
  assert all(head.get("scope") in ("col", "row") for head in page.find("th")) and page.find("th")
  assert len(page.find("caption")) == len(page.find("table")) == 2
  assert all(image["alt"] for image in page.find("img"))
  assert all(video["aria-label"] for video in page.find("video"))
  assert all(drawing["aria-hidden"] == "true" for drawing in page.find("svg")) and page.find("svg")
  assert "not measured" in " ".join(page.cells)
  assert page.find("img")[0]["width"] == "5" and page.find("img")[0]["height"] == "7"


@pytest.mark.parametrize(
  "better, expected", [("lower", ["2.00"]), ("higher", ["4.00", "4.00"]), ("", [])])
def test_the_best_of_models_and_baselines_is_bold(better, expected):
  cells = [about(4.0), about(2.0), about(1.0), about(4.0), about(9.0), Estimate(NAN, NAN, NAN, 0), None]
  kinds = ["model", "baseline", "bound", "model", "bound", "model", "baseline"]
  text = report_to_html(make_report(make_table(cells, kinds=kinds, better=better)))
  assert re.findall(r"<strong>([\d.]+)</strong>", text) == expected


def test_numbers_intervals_and_samples():
  cells = [
    Estimate(0.126, 0.1, 0.2, 9), Estimate(-0.001, -1.5, 0.0, 9), Estimate(1.0, NAN, NAN, 1),
    Estimate(NAN, NAN, NAN, 0), Estimate(-math.inf, -math.inf, 2.0, 9)]
  page = Page(report_to_html(make_report(make_table(cells))))
  assert [" ".join(cell.split()) for cell in page.cells] == [
    "0.13 [0.10, 0.20]", "0.00 [−1.50, 0.00]", "1.00 no interval n = 1", "n/a", "−∞ [−∞, 2.00]"]
  # The head names the number of samples that most cells have.
  assert page.text.count("n = 9") == 1


def test_notes_are_footnotes_named_once():
  cells = [about(1.0, note="few"), about(2.0, note="odd"), about(3.0, note="few")]
  text = report_to_html(make_report(make_table(cells)))
  page = Page(text)
  notes = [link["href"] for link in page.find("a") if "note" in link["href"]]
  assert notes == ["#note-1-1", "#note-1-2", "#note-1-1"]
  assert page.text.count("few") == 1 and page.text.count("odd") == 1


def read_bars(text):
  """(left, right) of every bar and (low, high) of every interval, in pixels."""
  bars = [(float(x), float(x) + float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="1" width="([\d.]+)"', text)]
  lines = re.findall(r'class="whisker" d="M([\d.]+) 5.0H([\d.]+)M', text)
  return bars, [(float(low), float(high)) for low, high in lines]


def test_bars_are_in_proportion_and_begin_at_zero():
  values, half = (8.0, -2.0, 1.0), 0.5
  bars, lines = read_bars(report_to_html(make_report(make_table([about(value, half=half) for value in values]))))
  zero = bars[0][0]
  unit = (bars[0][1] - zero) / 8
  for value, bar, line in zip(values, bars, lines, strict=True):
    assert bar == pytest.approx((zero + unit * min(value, 0), zero + unit * max(value, 0)), abs=0.11)
    assert line == pytest.approx((zero + unit * (value - half), zero + unit * (value + half)), abs=0.11)
  assert min(line[0] for line in lines) >= 0 and max(line[1] for line in lines) <= 88


def test_figures_close_together_are_dots_on_their_own_range():
  text = report_to_html(make_report(make_table([about(30.0, half=1), about(34.0, half=1)])))
  bars, lines = read_bars(text)
  assert not bars and text.count("<circle") == 2
  # From 29 to 35, over the width between the margins.
  assert lines == [pytest.approx((3, 3 + 82 * 2 / 6), abs=0.1), pytest.approx((3 + 82 * 4 / 6, 85), abs=0.1)]
  assert not read_bars(report_to_html(make_report(make_table([about(-30.0), about(-34.0)]))))[0]


def test_a_comparison_says_in_words_what_changed():
  now = [about(1.0), about(5.0), about(2.0), about(2.05), about(3.0), Estimate(1.0, NAN, NAN, 1), about(1.0)]
  now.append(Estimate(NAN, NAN, NAN, 0))
  then = [about(3.0), about(2.0), about(2.0), about(2.0), None, about(1.0), about(3.0, num_samples=40), now[-1]]
  report = make_report(make_table(now))
  old = Report("An <older> one", {"seed": 2}, (make_table(then),))
  page = Page(report_to_html(report, comparison=compare(report, old)))
  cells = [" ".join(cell.split()) for cell in page.cells[2:]]  # The setting stands in two cells above.
  assert [cell.split("] ")[-1] for cell in cells] == [
    "▼ better, 3.00 before", "▲ worse, 2.00 before", "unchanged", "≈ 2.00 before", "3.00 [2.90, 3.10]",
    "1.00 no interval n = 1 ? 1.00 before (n = 9)", "▼ better, 3.00 before (n = 40)", "n/a"]
  text = "".join(page.text)
  assert "An <older> one" in text and "2 better, 1 worse, 2 within noise, 2 without" in text
  assert page.cells[:2] == ["2 ", "1 "] and "row r4, column error" in text
  assert "Comparison" not in "".join(Page(report_to_html(report)).text)


def test_video_names_become_addresses():
  group = ClipGroup("fern", {"real": "clips/50 % #1?.mp4", "odd": "javascript:alert(1)"})
  sources = [video["src"] for video in Page(report_to_html(make_report(clips=(group,)))).find("video")]
  assert sources == ["clips/50%20%25%20%231%3F.mp4", "javascript%3Aalert%281%29"]


def test_the_file_is_whole_or_not_there(tmp_path):
  path = tmp_path / "report.html"
  report = make_full_report("ü")
  for _ in range(2):
    write_page(path, report)
  assert path.read_text(encoding="utf-8") == report_to_html(report)
  assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
  with pytest.raises(UserError, match="does not exist"):
    write_page(tmp_path / "none" / "report.html", report)
