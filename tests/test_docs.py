"""What the documents name is there: files, functions, tests, links and headings; their Python runs."""

import ast
import doctest
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = sorted(
  [
    *CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / ".github").rglob("*.md"),
    CHECKOUT / "examples" / "README.md", CHECKOUT / "gid_jax" / "pretrained" / "MODEL_CARD.md",
  ]
)
CODE_PATH = re.compile(r"`((?:gid_jax|data_pipeline|configs|benchmarks|tests|docs|examples|colab)/[\w/]+\.\w+)`")
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


def defines(path, name):
  """Whether a file has a function or class of this name."""
  return re.search(rf"^(def|class) {name}\b", path.read_text(), re.MULTILINE) is not None


def test_every_equation_has_its_function_and_its_test():
  text = (CHECKOUT / "docs" / "how-it-works.md").read_text()
  rows = [line for line in text.splitlines() if line.startswith("| ") and "tests/" in line]
  assert len(rows) >= 12
  for row in rows:
    functions = re.findall(r"`(gid_jax[\w.]+)\.(\w+)`", row)
    tests = re.findall(r"`(tests/\w+\.py)::(\w+)`", row)
    assert functions and tests, row
    assert all(defines(CHECKOUT / (module.replace(".", "/") + ".py"), name) for module, name in functions), row
    assert all(defines(CHECKOUT / file, name) for file, name in tests), row


def test_the_api_lists_every_public_name():
  import gid_jax

  named = set(re.findall(r"^::: gid_jax\.(\w+)$", (CHECKOUT / "docs" / "api.md").read_text(), re.MULTILINE))
  assert named == set(gid_jax.__all__) - {"__version__"}


def test_examples_of_the_api_do_what_they_say():
  failed, tried = doctest.testfile(str(CHECKOUT / "docs" / "api.md"), module_relative=False)
  assert tried >= 15 and failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_python_in_documents_is_python(path):
  for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
    if ">>>" not in block:
      ast.parse(block)


def test_commands_in_documents_are_there():
  for path in DOCUMENTS:
    for module in re.findall(r"python -m ((?:gid_jax|data_pipeline|benchmarks|examples)[\w.]*)", path.read_text()):
      file = CHECKOUT / module.replace(".", "/")
      assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), (path.name, module)


def test_every_page_is_in_the_navigation():
  settings = (CHECKOUT / "mkdocs.yml").read_text()
  pages = {str(path.relative_to(CHECKOUT / "docs")) for path in (CHECKOUT / "docs").rglob("*.md")}
  assert pages <= set(re.findall(r": ([\w/-]+\.md)$", settings, re.MULTILINE))
