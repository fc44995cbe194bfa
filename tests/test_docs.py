"""What the documents name is there: files, functions, links and headings."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = sorted(
  [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), CHECKOUT / "gid_jax" / "pretrained" / "MODEL_CARD.md"]
)
CODE_PATH = re.compile(r"`((?:gid_jax|data_pipeline|configs|benchmarks|tests|docs)/[\w/]+\.\w+)`")
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def find_headings(path):
  """The anchors of a document, as hosts of repositories make them."""
  titles = re.findall(r"^#+ +(.*)$", path.read_text(), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_and_paths_lead_somewhere(path):
  text, missing = path.read_text(), []
  for link in LINK.findall(text):
    file, _, anchor = link.partition("#")
    target = (path.parent / file).resolve() if file else path
    if not target.exists() or (anchor and anchor not in find_headings(target)):
      missing.append(link)
  missing += [name for name in CODE_PATH.findall(text) if not (CHECKOUT / name).exists()]
  assert missing == []


def test_the_twelve_places_hold_what_they_are_opened_for():
  text = (CHECKOUT / "docs" / "architecture.md").read_text()
  table = text.split("## Twelve places of the paper")[1].split("##")[0]
  rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("|")][2:]
  assert len(rows) == 12
  for _, files, names in rows:
    sources = "".join((CHECKOUT / name).read_text() for name in re.findall(r"`([\w/]+\.py)`", files))
    for name in re.findall(r"`(\w+)`", names):
      assert re.search(rf"^\s*(def|class) {name}\b", sources, re.MULTILINE), name


def test_the_ways_name_what_is_there():
  text = (CHECKOUT / "docs" / "architecture.md").read_text()
  for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
    for file, names in re.findall(r"^ +([\w/]+\.py) +([\w.]+)", block, re.MULTILINE):
      path = next(p for p in (CHECKOUT / "gid_jax" / file, CHECKOUT / file) if p.exists())
      for name in names.split("."):
        assert re.search(rf"^\s*(def|class) {name}\b", path.read_text(), re.MULTILINE), (file, name)


def test_the_contracts_exist():
  text = (CHECKOUT / "docs" / "architecture.md").read_text().split("## What can be plugged in")[1]
  for name in re.findall(r"`(gid_jax[\w.]+)`", text):
    module, _, attribute = name.rpartition(".")
    source = (CHECKOUT / (module.replace(".", "/") + ".py")).read_text()
    assert re.search(rf"^(def|class) {attribute}\b", source, re.MULTILINE), name
