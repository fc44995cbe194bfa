"""The house's conventions, checked on the source of every public name without importing anything."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("gid_jax", "data_pipeline")

# Parameters that may have a default and be positional, each with its reason.
POSITIONAL_DEFAULTS = {
  "main": "an entry point is called as main() or main(argv), in Python's tradition",
  "from_pretrained": "the one argument of a constructor that needs none",
}
# Called by a framework, which documents them.
FRAMEWORK_HOOKS = {"setup"}
ARRAY = re.compile(r"\b(np\.ndarray|jax\.Array|Array|Float|Float16|Float32|Int|Int32|UInt8|Bool|Complex|Num|Shaped)\b")
SCALAR = re.compile(r"\b\w+\[[^\[\]]*, '\s*'\]")
CONTAINER = re.compile(r"\b(dict|Mapping|Callable)\[")
SHAPE = re.compile(r"\[[^\[\]]+\]")
SETTABLE_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.datetime.utcnow"}
# What numpy.random offers that has no state of the whole process.
LOCAL_RANDOM = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}


def is_public(name):
  return not name.startswith("_")


def all_arguments(function):
  arguments = function.args
  return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def takes_arrays(function):
  """Whether an argument is annotated as an array of at least one axis; a dictionary of arrays has no one shape."""
  annotations = [ast.unparse(argument.annotation) for argument in all_arguments(function) if argument.annotation]
  return any(ARRAY.search(SCALAR.sub("", text)) for text in annotations if not CONTAINER.search(text))


def is_overload_or_setter(function):
  decorators = {ast.unparse(decorator).split(".")[-1] for decorator in function.decorator_list}
  return bool(decorators & {"overload", "setter"})


def check_function(function, where, *, in_class, class_docstring=""):
  """Yields what is wrong with a public function or method."""
  docstring = ast.get_docstring(function) or ""
  name = f"{where}.{function.name}"
  if not docstring and function.name not in FRAMEWORK_HOOKS and is_public(function.name):
    yield f"{name} has no docstring"
  elif takes_arrays(function) and not SHAPE.search(docstring + class_docstring):
    yield f"{name} takes arrays but its docstring names no shape in [brackets]"
  positional = [*function.args.posonlyargs, *function.args.args]
  if in_class and "staticmethod" not in {ast.unparse(decorator) for decorator in function.decorator_list}:
    positional = positional[1:]
  names = [argument.arg for argument in (*positional, *function.args.kwonlyargs)]
  if "key" in names[1:]:
    yield f"{name} takes `key` but not first"
  if function.args.defaults and is_public(function.name) and function.name not in POSITIONAL_DEFAULTS:
    optional = [argument.arg for argument in positional][-len(function.args.defaults):]
    yield f"{name} has defaults for positional {', '.join(optional)}; make them keyword-only"


def check_randomness(tree, where):
  """Yields every use of a random generator that belongs to the whole process."""
  for node in ast.walk(tree):
    if not isinstance(node, ast.Attribute):
      continue
    owner = ast.unparse(node.value)
    if owner in ("np.random", "numpy.random") and node.attr not in LOCAL_RANDOM:
      yield f"{where} line {node.lineno} uses the global generator {owner}.{node.attr}"
    if owner == "random" and isinstance(node.value, ast.Name) and node.attr in (
      "seed", "random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "gauss"):
      yield f"{where} line {node.lineno} uses the global generator random.{node.attr}"


def check_clocks(tree, where):
  """Yields every look at a clock that somebody may set while the program runs; `time.monotonic` is none."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and ast.unparse(node) in SETTABLE_CLOCKS:
      yield f"{where} line {node.lineno} looks at a clock that can be set, {ast.unparse(node)}"


def find_violations(source, where, *, is_package=False):
  """Yields one sentence for each broken convention in a module's source."""
  tree = ast.parse(source)
  if tree.body and not ast.get_docstring(tree):
    yield f"{where} has no module docstring"
  if not tree.body and not is_package:
    yield f"{where} is empty"
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and is_public(node.name) and not is_overload_or_setter(node):
      yield from check_function(node, where, in_class=False)
    elif isinstance(node, ast.ClassDef) and is_public(node.name):
      class_docstring = ast.get_docstring(node) or ""
      if not class_docstring:
        yield f"{where}.{node.name} has no docstring"
      for method in node.body:
        if not isinstance(method, ast.FunctionDef) or is_overload_or_setter(method):
          continue
        if is_public(method.name) or method.name == "__call__":
          yield from check_function(
            method, f"{where}.{node.name}", in_class=True,
            class_docstring=class_docstring if method.name == "__call__" else "")
  yield from check_randomness(tree, where)
  yield from check_clocks(tree, where)


FILES = {
  str(path.relative_to(CHECKOUT)): path
  for package in PACKAGES
  for path in sorted((CHECKOUT / package).rglob("*.py"))
}


@pytest.mark.parametrize("file", FILES)
def test_conventions(file):
  path = FILES[file]
  where = file.removesuffix(".py").replace("/", ".")
  violations = list(find_violations(path.read_text(), where, is_package=path.name == "__init__.py"))
  assert not violations, "\n".join(violations)


GOOD = '''
"""A module."""
import numpy as np

def warp(key, image: Float[Array, "h w c"], *, scale: float = 1.0):
  """Warps image [h w c]."""
  return np.random.default_rng(0)

def count(value: Float[Array, ""]):
  """Takes a scalar."""

def _private(x=1): ...

class Model(nn.Module):
  """Maps [h w c] to [h w c]."""
  width: int = 3
  def setup(self): ...
  def __call__(self, x: Float[Array, "h w c"]): ...
  def act(self, key, *, loud=False):
    """Acts."""
'''


@pytest.mark.parametrize(
  "before, after, found",
  [
    ('"""A module."""', "", "no module docstring"),
    ('  """Warps image [h w c]."""\n', "", "warp has no docstring"),
    ("Warps image [h w c].", "Warps.", "warp takes arrays"),
    ("*, scale", "scale", "positional scale"),
    ('key, image: Float[Array, "h w c"]', 'image: Float[Array, "h w c"], key', "warp takes `key` but not first"),
    ('  """Maps [h w c] to [h w c]."""\n', '  """Maps."""\n', "__call__ takes arrays"),
    ('  """Maps [h w c] to [h w c]."""\n', "", "Model has no docstring"),
    ('    """Acts."""', "    pass", "act has no docstring"),
    ("self, key, *, loud", "self, state, key, *, loud", "act takes `key` but not first"),
    ("np.random.default_rng(0)", "np.random.seed(0)", "global generator np.random.seed"),
    ("np.random.default_rng(0)", "random.random()", "global generator random.random"),
    ("np.random.default_rng(0)", "time.time()", "a clock that can be set, time.time"),
  ],
)
def test_the_rules_themselves(before, after, found):
  assert list(find_violations(GOOD, "module")) == []
  assert before in GOOD
  violations = list(find_violations(GOOD.replace(before, after), "module"))
  assert any(found in violation for violation in violations)
