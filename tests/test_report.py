"""Reports as data: JSON both ways, its rules, comparison against plain arithmetic, and its pictures."""

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.evaluation.report import content
from gid_jax.evaluation.report.comparison import compare
from gid_jax.evaluation.report.content import ClipGroup, Column, Figure, Report, Row, Table
from gid_jax.evaluation.report.figures import draw_amplitudes, draw_slices
from gid_jax.evaluation.results import Estimate
from gid_jax.types import SpectralVolume

PNG = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()
NAN = math.nan


def make_report(*cells, better="lower", unit="px", **changes):
  """A report of one table of one column, a row a cell."""
  rows = tuple(Row(f"row {index}", (cell,)) for index, cell in enumerate(cells))
  table = Table("motion", "24 scenes", (Column("error", unit, better, 2),), rows)
  return Report(**{"title": "A model", "configuration": {}, "tables": (table,), **changes})


def test_json_gives_back_the_report(tmp_path):
  report = make_report(
    Estimate(0.1, 0.05, 0.2, 24, "few – “scenes”"), None, Estimate(math.inf, -math.inf, 2.0, 2), title="Über",
    configuration={"model": {"widths": [1, 2], "rate": 1e-4, "name": None, "is_big": True}},
    figures=(Figure("slice", "x and t", PNG),), clips=(ClipGroup("fern", {"real": "clips/a b.mp4"}),), notes=("n",))
  content.write_report(tmp_path / "report.json", report)
  assert content.read_report(tmp_path / "report.json") == report
  assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_json_is_strict_and_holds_any_setting(tmp_path):
  path = tmp_path / "report.json"
  configuration = {"a": (1, np.float32(0.5)), 3: {"path": tmp_path, "none": NAN, "most": -math.inf}, "b": np.arange(2)}
  content.write_report(path, make_report(Estimate(NAN, NAN, NAN, 0), configuration=configuration))

  def refuse(name):
    raise AssertionError(f"{name} is not JSON")

  tree = json.loads(path.read_text(), parse_constant=refuse)
  assert tree["tables"][0]["rows"][0]["cells"][0]["value"] is None
  back = content.read_report(path)
  assert all(map(math.isnan, back.tables[0].rows[0].cells[0][:3]))
  assert back.configuration == {
    "a": [1, 0.5], "3": {"path": str(tmp_path), "none": None, "most": "-inf"}, "b": [0, 1]}


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
  path = tmp_path / "report.json"
  content.write_report(path, make_report(title="old"))

  def fail(*_):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr("os.replace", fail)
    with pytest.raises(UserError, match="no space left"):
      content.write_report(path, make_report(title="new"))
  assert content.read_report(path).title == "old" and len(list(tmp_path.iterdir())) == 1
  content.write_report(path, make_report(title="new"))
  assert content.read_report(path).title == "new"


@pytest.mark.parametrize(
  "text",
  ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "title": "x"}', "null", "BAD CELL", "BAD PICTURE", "SHORT"])
def test_what_is_no_report_is_refused_in_one_line(tmp_path, text):
  path = tmp_path / "report.json"
  content.write_report(path, make_report(Estimate(1.0, 0.0, 2.0, 3), figures=(Figure("f", "", PNG),)))
  tree = json.loads(path.read_text())
  if text == "BAD CELL":
    tree["tables"][0]["rows"][0]["cells"][0]["value"] = "many"
  elif text == "BAD PICTURE":
    tree["figures"][0]["png"] = "!"
  elif text == "SHORT":
    tree["tables"][0]["rows"][0]["cells"] = []
  path.write_text(json.dumps(tree) if text.isupper() else text)
  with pytest.raises(UserError) as error:
    content.read_report(path)
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_report_is_named(tmp_path):
  with pytest.raises(UserError, match=r"none\.json.*no such file"):
    content.read_report(tmp_path / "none.json")


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: Column("a", better="more"), "better is 'more'"),
    (lambda: Row("a", (), "oracle"), "kind is 'oracle'"),
    (lambda: Table("t", "", (Column("a"),), (Row("r", ()),)), "0 cells in 1 columns"),
    (lambda: Table("t", "", (Column("a"), Column("a")), ()), "share a name"),
    (lambda: Table("t", "", (), (Row("r", ()), Row("r", ()))), "share a name"),
    (lambda: Figure("f", "", b"GIF89a" + bytes(30)), "not a PNG"),
    (lambda: ClipGroup("s", {"real": "/etc/a.mp4"}), "beside or below"),
    (lambda: ClipGroup("s", {"real": "clips/../../a.mp4"}), "beside or below"),
    (lambda: make_report(clips=(ClipGroup("s", {}), ClipGroup("s", {}))), "share a name"),
  ],
)
def test_a_report_that_contradicts_itself_is_not_made(make, message):
  with pytest.raises(ValueError, match=message):
    make()


FIGURES = st.floats(-100, 100)
WIDTHS = st.floats(0, 20)


@settings(deadline=None)
@given(FIGURES, FIGURES, WIDTHS, WIDTHS, st.sampled_from(["lower", "higher", ""]))
def test_verdicts_follow_from_standard_errors(now, before, wide, narrow, better):
  new, old = Estimate(now, now - wide, now + wide, 9), Estimate(before, before - narrow, before + narrow, 9)
  change = compare(make_report(new, better=better), make_report(old)).changes["motion", "row 0", "error"]
  # Standard errors of the two, and 1.96 times that of their difference.
  errors = [(estimate.high - estimate.low) / 2 / 1.96 for estimate in (new, old)]
  margin = 1.96 * math.sqrt(errors[0] ** 2 + errors[1] ** 2) - abs(now - before)
  assert change.before == old
  if margin > 1e-9:
    assert change.verdict == "same"
  elif margin < -1e-9:
    expected = {"lower": now < before, "higher": now > before}
    assert change.verdict == ("changed" if not better else "better" if expected[better] else "worse")


def test_no_verdict_without_intervals_or_figures():
  whole, bare, none = Estimate(1.0, 0.9, 1.1, 9), Estimate(5.0, NAN, NAN, 1), Estimate(NAN, NAN, NAN, 0)
  changes = compare(make_report(whole, bare, none), make_report(bare, whole, whole)).changes.values()
  assert [change.verdict for change in changes] == ["unclear"] * 3


def test_sure_figures_without_noise_still_compare():
  exact = [Estimate(value, value, value, 9) for value in (1.0, 1.0, 2.0)]
  comparison = compare(make_report(*exact[:2]), make_report(*exact[1:]))
  assert [change.verdict for change in comparison.changes.values()] == ["same", "better"]


def test_what_only_one_has_is_named_once():
  cell = Estimate(1.0, 0.0, 2.0, 9)
  extra = Table("rendering", "", (Column("PSNR", "dB"),), (Row("ours", (cell,)),))
  both = (Column("error", "px", "lower"), Column("time", "s"))
  here = make_report(figures=(Figure("f", "", PNG),), clips=(ClipGroup("fern", {"real": "a.mp4", "model": "b.mp4"}),))
  here = dataclasses.replace(here, tables=(
    Table("motion", "", both, (Row("model", (cell, None)), Row("still", (cell, cell)))), extra))
  there = make_report(clips=(ClipGroup("fern", {"real": "a.mp4"}),))
  there = dataclasses.replace(there, tables=(
    Table("motion", "", (both[0], Column("time", "ms")), (Row("model", (None, cell)), Row("noise", (cell, cell)))),))
  comparison = compare(here, there)
  assert set(comparison.only_here) == {
    "table rendering", "table motion, row still", "table motion, column time (s)",
    "table motion, row model, column error (px)", "figure f", "clips of fern: model"}
  assert set(comparison.only_there) == {"table motion, row noise", "table motion, column time (ms)"}
  assert comparison.changes == {}


def test_settings_that_differ():
  now = make_report(configuration={"model": {"bands": 16, "width": 8}, "seed": 1, "new": {}})
  then = make_report(configuration={"model": {"bands": 4, "width": 8}, "seed": 1, "old": [1, None]})
  assert compare(now, then).settings == (("model.bands", "4", "16"), ("new", None, "{}"), ("old", "[1, null]", None))
  assert compare(now, now).settings == ()
  assert compare(make_report(), make_report()).settings == ()


def read_panels(png):
  """The picture [h w 4] RGBA."""
  return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def test_slices_show_the_row_of_every_clip_in_order():
  rng = np.random.default_rng(0)
  clips = {name: rng.integers(256, size=(40, 3, 320, 3), dtype=np.uint8) for name in ("real", "model")}
  picture = read_panels(draw_slices(clips, row=2))
  opaque = np.flatnonzero((picture[..., 3] == 255).all(1))
  assert len(opaque) == 2 * 120 and picture.shape[1] == 640
  for frames, rows in zip(clips.values(), np.split(opaque, 2), strict=True):
    np.testing.assert_array_equal(picture[rows][::3, ::2, :3], frames[:, 2])
  # A name stands above each, and nothing between the letters.
  label = picture[:opaque[0], :, 3]
  assert label.any() and (label == 0).mean() > 0.5
  with pytest.raises(IndexError):
    draw_slices(clips, row=3)


def make_volume(amplitudes):
  """A volume whose pixels swing by these amplitudes [h w] in x, once over the period."""
  coefficients = np.zeros((3, *amplitudes.shape, 4), np.float32)
  coefficients[1, ..., 0] = amplitudes * 150 / 2
  coefficients[0, ..., 0] = 1e4
  return SpectralVolume(coefficients=coefficients)


def test_amplitudes_share_the_scale_of_the_first():
  amplitudes = np.linspace(0, 3, 240 * 6).reshape(6, 240)
  # A sine of amplitude a has a root mean square of a / sqrt 2.
  swing = np.stack([amplitudes * factor / math.sqrt(2) for factor in (1, 0.5, 2)])
  picture = read_panels(draw_amplitudes({
    "real": make_volume(amplitudes), "half": make_volume(amplitudes / 2), "twice": make_volume(2 * amplitudes)}))
  largest = 3  # The next round number above 3 / sqrt 2, and not that of the second or third.
  top = int(np.flatnonzero((picture[:, :240, 3] == 255).all(1))[0])
  for index, values in enumerate(swing):
    levels = np.uint8(255 * np.clip(values / largest, 0, 1) + 0.5)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    shown = picture[top:top + 6, index * 252:index * 252 + 240]
    assert np.abs(shown[..., :3].astype(int) - colors).max() <= 4 and (shown[..., 3] == 255).all()


def test_amplitudes_of_a_still_first_volume_and_of_values_not_finite():
  still, moving = np.zeros((4, 240)), np.full((4, 240), 1.0)
  moving[0, 0] = np.nan
  picture = read_panels(draw_amplitudes({"real": make_volume(still), "model": make_volume(moving)}))
  top = int(np.flatnonzero((picture[:, :240, 3] == 255).all(1))[0])
  assert picture[top, 252, :3].tolist() == [128, 128, 128]
  assert picture[top + 2, 252 + 100, :3].sum() > 300 > picture[top + 2, 100, :3].sum()
  assert read_panels(draw_amplitudes({"still": make_volume(still)})).shape[2] == 4


def test_long_names_are_cut_and_do_not_fail():
  assert read_panels(draw_slices({"ü" * 500: np.zeros((2, 2, 2, 3), np.uint8)}, row=0)).shape[1] == 640
