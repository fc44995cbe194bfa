"""The front door: what `import gid_jax` gives, and what it does not import before it is used."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest

import gid_jax as gid

PACKAGE = Path(gid.__file__).parent
# Run with `python -m`; they need more than the package does.
PROGRAMS = {"train", "evaluate", "__main__"}
PUBLIC = [name for name in gid.__all__ if name != "__version__"]


def run_python(code):
  environment = {"PYTHONPATH": str(PACKAGE.parent)}
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
  assert result.returncode == 0, result.stderr
  return result.stdout.strip()


def find_arguments(value):
  """The parameters that callers give; a dataclass's fields and a class's own stand in the class's docstring."""
  return [name for name in inspect.signature(value).parameters if name not in ("self", "args", "kwargs")]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name):
  value = getattr(gid, name)
  assert value is getattr(gid, name)
  assert value.__name__ == name and value.__module__.startswith("gid_jax.")
  docstring = inspect.getdoc(value)
  assert re.match(r"\S.*[.:](\s|$)", docstring.splitlines()[0])
  constructor = inspect.getdoc(value.__init__) if inspect.isclass(value) else ""
  for argument in find_arguments(value):
    assert re.search(rf"\b{argument}\b", f"{docstring}\n{constructor}"), f"{name} does not document {argument}"


@pytest.mark.parametrize("name", ["Animator", "ImageRenderer"])
def test_public_methods_say_what_they_do(name):
  methods = [value for key, value in inspect.getmembers(getattr(gid, name)) if not key.startswith("_")]
  assert len(methods) >= 3
  for method in methods:
    assert inspect.getdoc(method)


def test_dir_lists_all_of_it():
  assert set(gid.__all__) <= set(dir(gid))
  assert dir(gid) == sorted(dir(gid))
  listed = run_python("import gid_jax, sys; print(*dir(gid_jax)); assert 'jax' not in sys.modules").split()
  assert set(gid.__all__) <= set(listed)


def test_all_is_sorted_and_what_a_star_imports():
  assert list(gid.__all__) == sorted(gid.__all__)
  names = {}
  exec("from gid_jax import *", names)
  assert names.keys() - {"__builtins__"} == set(gid.__all__)


@pytest.mark.parametrize("name", ["animate", "Animators", "train_step", "_secret", "__wrapped__"])
def test_unknown_names_are_attribute_errors(name):
  with pytest.raises(AttributeError, match=f"module 'gid_jax' has no attribute '{name}'"):
    getattr(gid, name)


def test_every_module_is_an_attribute():
  found = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
  assert set(gid._MODULES) == found - PROGRAMS - {"__init__"}
  for name in gid._MODULES:
    assert isinstance(getattr(gid, name), types.ModuleType)
    assert getattr(gid, name) is importlib.import_module(f"gid_jax.{name}")
  assert run_python("import gid_jax; print(gid_jax.pipeline.Animator is gid_jax.Animator)") == "True"


def test_importing_is_light_and_each_name_brings_only_its_own():
  code = (
    "import sys, gid_jax\n"
    "heavy = {'jax', 'jaxlib', 'flax', 'numpy', 'cv2', 'av', 'PIL', 'importlib.metadata'}\n"
    "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    "gid_jax.errors.UserError, gid_jax.media\n"
    "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    "gid_jax.read_image\n"
    "print('numpy' in sys.modules, 'jax' in sys.modules, 'gid_jax.pipeline' in sys.modules)"
  )
  loaded_numpy, _, loaded_pipeline = run_python(code).split()
  assert (loaded_numpy, loaded_pipeline) == ("True", "False")


def test_type_checkers_see_every_name_from_its_own_file():
  tree = ast.parse((PACKAGE / "__init__.py").read_text())
  block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
  seen = {}
  for node in block.body:
    if isinstance(node, ast.ImportFrom):
      (alias,) = node.names
      assert alias.name == alias.asname  # without "as" a checker takes it for private
      seen[alias.asname] = node.module
  assert seen == gid._HOMES | dict.fromkeys(gid._MODULES, "gid_jax")
  assert (PACKAGE / "py.typed").exists()


def test_version_is_that_of_the_installed_package(monkeypatch):
  module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("gid_jax", PACKAGE / "__init__.py"))
  module.__spec__.loader.exec_module(module)
  monkeypatch.setattr(metadata, "version", lambda name: {"gid-jax": "7.8.9"}[name])
  assert module.__version__ == "7.8.9"


def test_version_of_a_checkout_that_is_not_installed(monkeypatch):
  def refuse(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, "version", refuse)
  assert gid._read_version() == "0+unknown"


def test_three_lines_animate_a_photo(tmp_path, monkeypatch):
  """The README's, with a renderer and a motion that need no network."""
  volume = gid.SpectralVolume(np.zeros((2, 4, 6, 4), np.float32), num_frames=4, fps=2.0)
  animator = gid.Animator.__new__(gid.Animator)
  monkeypatch.setattr(gid.Animator, "predict_spectrum", lambda self, key, image: volume)
  frame = lambda image: np.uint8(255 * image + 0.5)
  monkeypatch.setattr(gid.Animator, "render", lambda self, image, spectrum: (frame(image) for _ in range(4)))
  photo = gid.read_image(PACKAGE / "pretrained" / "photo.jpg")[:32, :48]
  spectrum = animator.predict_spectrum(jax.random.key(0), photo)
  written = gid.write_video(str(tmp_path / "out.mp4"), animator.render(photo, spectrum), fps=30)
  assert (written.width, written.height, written.num_frames) == (48, 32, 4)
  assert gid.read_clip(tmp_path / "out.mp4").frames.shape == (4, 32, 48, 3)
