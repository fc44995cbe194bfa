"""One direction of imports: a file may import only from wings that stand above its own in the list below.

Inside a wing files may import each other as long as no circle comes of it. Files are only parsed, nothing is imported.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

# Lowest first; an entry is a file or a folder.
WINGS = (
  "gid_jax.errors",
  "gid_jax.extras",
  "gid_jax.devices",
  "gid_jax.files",
  "gid_jax.types",
  "gid_jax.parsing",
  "gid_jax.configuration",
  "gid_jax.programs",
  "gid_jax.sizes",
  "gid_jax.motion",
  "gid_jax.flow",
  "gid_jax.media",
  "gid_jax.touch",
  "gid_jax.models",
  "gid_jax.diffusion",
  "gid_jax.weights",
  "gid_jax.bundle",
  "gid_jax.rendering",
  "gid_jax.pipeline",
  "gid_jax.serve",
  "gid_jax.data",
  "gid_jax.training",
  "gid_jax.evaluation",
  "gid_jax.app",
  "gid_jax.__main__",
  "data_pipeline",
  "gid_jax.train",
  "gid_jax.evaluate",
)
PACKAGES = ("gid_jax", "data_pipeline")
# A library and the only file that may import it: whoever changes the library changes one file.
ONLY_IMPORTER = {"orbax": "gid_jax.weights.checkpoint", "grain": "gid_jax.data.input_pipeline"}


def find_modules(root):
  """Name -> path of every module of both packages; an __init__.py has the name of its package."""
  modules = {}
  for package in PACKAGES:
    for path in sorted((root / package).rglob("*.py")):
      parts = path.relative_to(root).with_suffix("").parts
      modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return modules


MODULES = find_modules(CHECKOUT)
FOLDERS = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def find_wing(module):
  """The index of a module's wing, or None."""
  return next((i for i, wing in enumerate(WINGS) if module == wing or module.startswith(f"{wing}.")), None)


def find_imports(source, module):
  """The dotted names that a module imports anywhere, also inside functions; a symbol counts as its module.

  A symbol taken from a package's __init__ is returned as package.symbol.
  """
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        parents = module.split(".")
        parents = parents[:len(parents) - node.level + (module in FOLDERS)]
        base = ".".join([*parents, base] if base else parents)
      yield from (f"{base}.{alias.name}" if base in FOLDERS else base for alias in node.names)


def find_violations(module, source):
  """Sentences, one for each import of `module` that breaks a rule."""
  own = find_wing(module)
  if own is None and module not in FOLDERS:
    yield f"{module} has no place in WINGS of tests/test_imports.py"
    return
  for name in find_imports(source, module):
    library = name.split(".")[0]
    if ONLY_IMPORTER.get(library, module) != module:
      yield f"{module} imports {name}; only {ONLY_IMPORTER[library]} may"
    if library == "configs":
      yield f"{module} imports {name}; configs are given to it, never imported"
    elif library in PACKAGES and module != "gid_jax" and name != "gid_jax.__version__":
      wing = find_wing(name)
      if name not in MODULES or wing is None:
        yield f"{module} imports {name}; import it from its own file, which must have a place in WINGS"
      elif wing > own:
        yield f"{module} imports {name}, whose wing does not stand above its own"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
  violations = sorted(set(find_violations(module, MODULES[module].read_text())))
  assert not violations, "\n".join(violations)


def test_no_file_imports_itself_by_a_detour():
  edges = {name: set(find_imports(path.read_text(), name)) & set(MODULES) - FOLDERS for name, path in MODULES.items()}
  done = set()

  def visit(name, way):
    assert name not in way, " -> ".join([*way[way.index(name):], name])
    if name not in done:
      for other in edges[name]:
        visit(other, [*way, name])
      done.add(name)

  for name in sorted(edges.keys() - FOLDERS):
    visit(name, [])


@pytest.mark.parametrize("wing", WINGS)
def test_every_wing_exists(wing):
  assert wing in MODULES


@pytest.mark.parametrize(
  "module, source, found",
  [
    ("gid_jax.motion.spectral", "from gid_jax.media.photos import read_image", "does not stand above"),
    ("gid_jax.motion.spectral", "from gid_jax.media import photos", "does not stand above"),
    ("gid_jax.motion.spectral", "import gid_jax.media.photos", "does not stand above"),
    ("gid_jax.motion.spectral", "from .. import pipeline", "does not stand above"),
    ("gid_jax.motion.spectral", "from ..media import photos", "does not stand above"),
    ("gid_jax.motion.spectral", "def f():\n  from gid_jax import train", "does not stand above"),
    ("gid_jax.motion.spectral", "from gid_jax import Animator", "its own file"),
    ("gid_jax.app.cli", "from data_pipeline.synthetic.scene import sample_scene", "does not stand above"),
    ("gid_jax.training.swing", "import data_pipeline.statistics", "does not stand above"),
    ("gid_jax.train", "from configs import ldm", "never imported"),
    ("gid_jax.train", "import orbax.checkpoint as ocp", "only gid_jax.weights.checkpoint may"),
    ("data_pipeline.builder", "from grain import python", "only gid_jax.data.input_pipeline may"),
    ("gid_jax.new_idea", "import math", "has no place"),
    ("gid_jax.train", "def f():\n  from data_pipeline.synthetic.scene import sample_scene", None),
    ("gid_jax.motion.spectral", "from gid_jax.motion import splat\nfrom . import warp", None),
    ("gid_jax.train", "from gid_jax import __version__, types\nfrom gid_jax.types import Clip\nimport jax", None),
    ("data_pipeline.builder", "from gid_jax.media.clips import read_clip\nfrom data_pipeline.tasks import cut", None),
  ],
)
def test_the_rule_itself(module, source, found):
  violations = list(find_violations(module, source))
  if found is None:
    assert violations == []
  else:
    assert len(violations) == 1 and found in violations[0]


def test_importing_the_package_is_light():
  code = "import sys, gid_jax; sys.exit(bool({'jax', 'flax', 'cv2', 'av', 'numpy'} & set(sys.modules)))"
  assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == 0
