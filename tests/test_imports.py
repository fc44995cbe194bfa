"""One direction of imports: a file may import only files that stand above it in the list below.

A new file fails here until it has its place in the list. Files are only parsed, so nothing is imported.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

ORDER = (
  # The paper's mathematics.
  "gid_jax.errors",
  "gid_jax.types",
  "gid_jax.spectral",
  "gid_jax.normalization",
  "gid_jax.splat",
  "gid_jax.modal",
  "gid_jax.pyramid",
  "gid_jax.warp",
  "gid_jax.relaxation",
  "gid_jax.flow",
  "gid_jax.tracking",
  "gid_jax.storage",
  # Networks.
  "gid_jax.models.operations",
  "gid_jax.models.layers",
  "gid_jax.models.transformer",
  "gid_jax.models.encoders",
  "gid_jax.models.features",
  "gid_jax.models.torch_weights",
  "gid_jax.models.inception",
  "gid_jax.models.i3d",
  "gid_jax.models.resnet",
  "gid_jax.models.unet",
  "gid_jax.models.vae",
  "gid_jax.models.motion_model",
  "gid_jax.models.renderer",
  # Diffusion.
  "gid_jax.diffusion.schedule",
  "gid_jax.diffusion.guidance",
  "gid_jax.diffusion.sampler",
  # Using a trained model.
  "gid_jax.divergence",
  "gid_jax.step_folders",
  "gid_jax.checkpoint",
  "gid_jax.naming",
  "gid_jax.convert",
  "gid_jax.encoding",
  "gid_jax.decoding",
  "gid_jax.media",
  "gid_jax.visualize",
  "gid_jax.page",
  "gid_jax.prediction",
  "gid_jax.pipeline",
  "gid_jax.shots",
  "gid_jax.inspection",
  "gid_jax.drawing",
  # Judging a model.
  "gid_jax.evaluation",
  "gid_jax.evaluation.results",
  "gid_jax.evaluation.frechet",
  "gid_jax.evaluation.extractors",
  "gid_jax.evaluation.motion",
  "gid_jax.evaluation.motion_samples",
  "gid_jax.evaluation.motion_baselines",
  "gid_jax.evaluation.rendering",
  "gid_jax.evaluation.damage",
  "gid_jax.evaluation.report",
  "gid_jax.evaluation.report_comparison",
  "gid_jax.evaluation.report_figures",
  "gid_jax.evaluation.report_style",
  "gid_jax.evaluation.report_page",
  # Simulated scenes.
  "data_pipeline.trajectories",
  "data_pipeline.statistics",
  "data_pipeline.synthetic.wind",
  "data_pipeline.synthetic.shapes",
  "data_pipeline.synthetic.textures",
  "data_pipeline.synthetic.materials",
  "data_pipeline.synthetic.still_life",
  "data_pipeline.synthetic.layers",
  "data_pipeline.synthetic.stems",
  "data_pipeline.synthetic.world",
  "data_pipeline.synthetic.foliage",
  "data_pipeline.synthetic.grasses",
  "data_pipeline.synthetic.flowers",
  "data_pipeline.synthetic.branches",
  "data_pipeline.synthetic.trees",
  "data_pipeline.synthetic.props",
  "data_pipeline.synthetic.rigid",
  "data_pipeline.synthetic.hanging",
  "data_pipeline.synthetic.fabrics",
  "data_pipeline.synthetic.cloth",
  "data_pipeline.synthetic.fire",
  "data_pipeline.synthetic.water",
  "data_pipeline.synthetic.camera",
  "data_pipeline.synthetic.places",
  "data_pipeline.synthetic.backdrops",
  "data_pipeline.synthetic.folders",
  "data_pipeline.synthetic.vegetation",
  "data_pipeline.synthetic.families",
  "data_pipeline.synthetic.scene",
  "data_pipeline.synthetic.photos",
  "data_pipeline.synthetic.windows",
  "data_pipeline.synthetic.source",
  "gid_jax.scene_drawing",
  # The command.
  "gid_jax.options",
  "gid_jax.cli",
  "gid_jax.__main__",
  "gid_jax.serve.app",
  # Making one.
  "gid_jax.train_state",
  "gid_jax.objectives",
  "gid_jax.sharding",
  "gid_jax.validation",
  "gid_jax.augmentation",
  "gid_jax.records",
  "gid_jax.data_checks",
  "gid_jax.trained_scenes",
  "gid_jax.swing",
  "gid_jax.examples",
  "gid_jax.latent_cache",
  "gid_jax.input_pipeline",
  "gid_jax.metric_writer",
  "gid_jax.interruption",
  "gid_jax.settings",
  "gid_jax.train",
  # Making the data.
  "data_pipeline.cuts",
  "data_pipeline.clips",
  "data_pipeline.tasks",
  "data_pipeline.dataset",
  "data_pipeline.builder",
  # Judging by real clips and simulated scenes.
  "gid_jax.evaluation.scenes",
  "gid_jax.evaluation.judging",
  "gid_jax.evaluation.tables",
  "gid_jax.evaluate",
)
PACKAGES = ("gid_jax", "data_pipeline")
# A library and the only file that may import it: whoever changes the library changes one file.
ONLY_IMPORTER = {"orbax": "gid_jax.checkpoint", "grain": "gid_jax.input_pipeline"}
# The files of gid_jax that may use simulated scenes; of data_pipeline nothing else is theirs either.
SCENE_IMPORTERS = (
  "gid_jax.scene_drawing",
  "gid_jax.cli",
  "gid_jax.input_pipeline",
  "gid_jax.evaluate",
  "gid_jax.swing",
)
# The one file of gid_jax that may use all that makes data: models are judged on data that is made as theirs was.
DATA_IMPORTER = "gid_jax.evaluation.scenes"


def find_modules(root):
  """Name -> path of every module of both packages; an __init__.py has the name of its package."""
  modules = {}
  for package in PACKAGES:
    for path in sorted((root / package).rglob("*.py")):
      parts = path.relative_to(root).with_suffix("").parts
      modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return modules


def find_imports(source, module, modules):
  """The dotted names that a module imports anywhere, also inside functions; a symbol counts as its module.

  A symbol taken from a package's __init__ is returned as package.symbol.
  """
  is_package = modules.get(module, Path()).name == "__init__.py"
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        parents = module.split(".")
        parents = parents[:len(parents) - node.level + is_package]
        base = ".".join([*parents, base] if base else parents)
      is_own_package = modules.get(base, Path()).name == "__init__.py"
      yield from (f"{base}.{alias.name}" if is_own_package else base for alias in node.names)


def find_violations(module, source, modules):
  """Sentences, one for each import of `module` that breaks a rule."""
  is_package = modules.get(module, Path()).name == "__init__.py"
  if not is_package and module not in ORDER:
    yield f"{module} has no place in ORDER of tests/test_imports.py"
    return
  for name in find_imports(source, module, modules):
    library = name.split(".")[0]
    if ONLY_IMPORTER.get(library, module) != module:
      yield f"{module} imports {name}; only {ONLY_IMPORTER[library]} may"
    is_scene = module in SCENE_IMPORTERS and name.startswith("data_pipeline.synthetic.")
    is_scene |= module == DATA_IMPORTER
    if library == "data_pipeline" and module.startswith("gid_jax") and not is_scene:
      yield f"{module} imports {name}; only simulated scenes, only into {', '.join(SCENE_IMPORTERS)}"
    elif library == "configs":
      yield f"{module} imports {name}; configs are given to it, never imported"
    elif library in PACKAGES and not is_package:
      if name not in ORDER:
        if name != "gid_jax.__version__" and name not in modules:
          yield f"{module} imports {name}; import it from its own file, which must have a place in ORDER"
      elif ORDER.index(name) >= ORDER.index(module):
        yield f"{module} imports {name}, which does not stand above it in ORDER"


MODULES = find_modules(CHECKOUT)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
  violations = sorted(set(find_violations(module, MODULES[module].read_text(), MODULES)))
  assert not violations, "\n".join(violations)


@pytest.mark.parametrize(
  "module, source, found",
  [
    ("gid_jax.spectral", "from gid_jax.splat import splat", "does not stand above"),
    ("gid_jax.spectral", "from gid_jax import splat", "does not stand above"),
    ("gid_jax.spectral", "import gid_jax.splat", "does not stand above"),
    ("gid_jax.spectral", "from . import splat", "does not stand above"),
    ("gid_jax.spectral", "from .splat import splat", "does not stand above"),
    ("gid_jax.models.layers", "from ..checkpoint import restore", "does not stand above"),
    ("gid_jax.spectral", "def f():\n  from gid_jax import train", "does not stand above"),
    ("gid_jax.spectral", "from gid_jax import Animator", "its own file"),
    ("gid_jax.train", "import data_pipeline.clips", "only simulated scenes"),
    ("gid_jax.train", "from data_pipeline.synthetic.scene import sample_scene", "only simulated scenes"),
    ("gid_jax.input_pipeline", "from data_pipeline.statistics import BandHistogram", "only simulated scenes"),
    ("data_pipeline.synthetic.scene", "from gid_jax import cli", "does not stand above"),
    ("gid_jax.train", "from configs import ldm", "never imported"),
    ("gid_jax.train", "import orbax.checkpoint as ocp", "only gid_jax.checkpoint may"),
    ("data_pipeline.builder", "from grain import python", "only gid_jax.input_pipeline may"),
    ("gid_jax.new_idea", "import math", "has no place"),
    ("gid_jax.cli", "def f():\n  from data_pipeline.synthetic.scene import sample_scene", None),
    ("gid_jax.train", "from gid_jax import __version__, types\nfrom gid_jax.types import Clip\nimport jax", None),
    ("data_pipeline.builder", "from gid_jax import media\nfrom data_pipeline.clips import cut", None),
  ],
)
def test_the_rule_itself(module, source, found):
  modules = {name: Path(f"{name}.py") for name in ORDER} | {
    name: Path("__init__.py") for name in (*PACKAGES, "gid_jax.models", "gid_jax.diffusion")}
  violations = list(find_violations(module, source, modules))
  if found is None:
    assert violations == []
  else:
    assert len(violations) == 1 and found in violations[0]


def test_importing_the_package_is_light():
  code = "import sys, gid_jax; sys.exit(bool({'jax', 'flax', 'cv2', 'av', 'numpy'} & set(sys.modules)))"
  assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == 0
