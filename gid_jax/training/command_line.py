"""The command line of training and evaluation: flags, their help, and the nearest name for a typo."""

import difflib
import importlib.machinery
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from gid_jax.training.settings import flatten_settings

# Flags that must be given, with an example of each.
EXAMPLES = {"config": "configs/ldm.py:default", "workdir": "runs/ldm"}
_HELP = ("-h", "-?", "-help", "--help", "--helpshort", "--helpfull")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers in brackets"}


def parse_flags(argv: Sequence[str], *, examples: Mapping[str, str] = EXAMPLES) -> list[str]:
  """Parses the command line into absl's flags and returns what is left; for `absl.app.run(flags_parser=...)`.

  `--help` prints what the program does and every setting of the config that is named with it. What is wrong is printed
  as one line with the nearest name, and ends the program with status 2.

  Args:
    argv: the program's name and its arguments.
    examples: flags that must be given, with an example of each; "config" among them.
  """
  source = dict(_split_flags(argv)).get("config", "")
  wants_help = any(argument in _HELP for argument in argv[1:])
  try:
    _import_configs(source)
    if wants_help:
      print(describe_flags(source, example=examples["config"]))
      sys.exit()
    rest = flags.FLAGS(argv)
    if flags.FLAGS.config is not None:
      flags.FLAGS.config.to_dict()  # a file that could not be read fails only when it is used
    if len(rest) > 1:
      raise ValueError(f"unexpected argument {rest[1]!r}; see --help")
    return rest
  except Exception as error:  # absl, ml_collections and the config file raise what they like
    only_config = {"config": examples["config"]} if wants_help else examples
    print(f"error: {explain_flags(argv, error, examples=only_config)}", file=sys.stderr)
    sys.exit(2)


def describe_flags(source: str, *, example: str) -> str:
  """What the running program does, its flags, and every setting of the config `source`, if it is not "".

  Raises:
    Exception: whatever the config file raises.
  """
  own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
  parts = [(sys.modules["__main__"].__doc__ or "").strip(), "\n".join(f"--{flag.name}: {flag.help}" for flag in own)]
  if source:
    doc, config = _load_config(source)
    settings = flatten_settings(config.to_dict())
    parts += [(doc or "").strip(), f"Settings of --config={source}, each changed by naming it:"]
    parts += ["\n".join(f"--config.{name}={_quote(value)}" for name, value in settings)]
  else:
    parts += [f"Name a config to see its settings: --config={example} --help"]
  return "\n\n".join(parts)


def explain_flags(argv: Sequence[str], error: Exception, *, examples: Mapping[str, str] = EXAMPLES) -> str:
  """One line on what is wrong with a command line that failed to parse with `error`; see `parse_flags`."""
  given = list(_split_flags(argv))
  for name, example in examples.items():
    if name not in dict(given):
      nearest = _find_nearest(name, [other for other, _ in given if other not in flags.FLAGS])
      return f"--{name} is missing, such as --{name}={example}" + (f" (not --{nearest[0]})" if nearest else "")
  source = dict(given)["config"]
  path, _, size = source.partition(":")
  if not Path(path).is_file():
    others = sorted(str(file) for file in Path(path).parent.glob("*.py") if file.stem != "__init__")
    return f"{path}: no such config file" + _suggest(_find_nearest(path, others))
  try:
    _, config = _load_config(source)
  except Exception as failure:  # the file's own
    reason = _last_line(failure)
    # The names that `get_config` offers stand in its message.
    offered = re.findall(r"\w+", reason.partition("use one of ")[2])
    return f"--config={source}: {reason}" + _suggest(_find_nearest(size, offered))
  settings = {f"config.{name}": value for name, value in flatten_settings(config.to_dict(), sections=True)}
  known = [*settings, "config", "workdir"]
  for name, value in given:
    bare = re.sub(r"\[\d+\]$", "", name)
    if bare not in known and (bare.startswith("config.") or bare not in flags.FLAGS):
      return f"there is no --{name}" + _suggest([f"--{other}" for other in _find_nearest(bare, known)])
    if re.match(rf"flag --{re.escape(name)}=", str(error)) and type(settings.get(bare)) in _KINDS:
      return f"--{name}={value}: give {_KINDS[type(settings[bare])]}, such as {settings[bare]!r}"
  return _last_line(error)


def _import_configs(source: str) -> None:
  """Makes `configs` the package that a config file lies in: the files beside it are then found from any folder."""
  for folder in Path(source.partition(":")[0]).absolute().parents:
    if folder.name == "configs" and (folder / "__init__.py").is_file() and "configs" not in sys.modules:
      spec: Any = importlib.machinery.PathFinder.find_spec("configs", [str(folder.parent)])
      sys.modules["configs"] = module = importlib.util.module_from_spec(spec)
      spec.loader.exec_module(module)


def _load_config(source: str) -> tuple[str | None, Any]:
  """(docstring, config) of "FILE" or "FILE:SIZE"."""
  path, *size = source.split(":", 1)
  module = runpy.run_path(path)
  return module["__doc__"], module["get_config"](*size)


def _split_flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
  """(name, value) of each flag, without dashes and without the "no" of a boolean."""
  for argument, following in zip(argv[1:], [*argv[2:], ""], strict=False):
    match = re.fullmatch(r"--?(?:no(?=config\.))?([^=]+)(=.*)?", argument, re.DOTALL)
    if match:
      yield match[1], following if match[2] is None else match[2][1:]


def _find_nearest(name: str, names: Sequence[str]) -> list[str]:
  """The name that this one is a typo of; else those that end alike, given elsewhere; else the one most like it."""
  alike = [other for other in names if other.split(".")[-1] == name.split(".")[-1]]
  return (
    difflib.get_close_matches(name, names, n=1, cutoff=0.85)
    or alike[:3]
    or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  )


def _quote(value: Any) -> str:
  """A setting as a shell takes it."""
  text = str(value)
  return text if shlex.quote(text) == text else f'"{text}"'


def _suggest(names: Sequence[str]) -> str:
  return f"; did you mean {' or '.join(names)}?" if names else ""


def _last_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return re.sub(r"^\s*\w+Error: ", "", lines[-1])
