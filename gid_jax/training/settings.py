"""What a training run is told: flags, with the nearest name for a typo, and settings against those saved before."""

import difflib
import json
import re
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from gid_jax.configuration import TrainSettings, to_plain
from gid_jax.errors import UserError

_POSITIVE = (
  "batch_size", "log_every", "eval_every", "save_every", "num_eval_batches", "num_init_batches", "keep_checkpoints",
  "optimizer.num_steps",
)  # fmt: skip
# A checkpoint belongs to these; those of the second row change how the model is computed, not what it is.
_FIXED = ("stage", "model")
_COMPUTATION = ("dtype", "remat")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers in brackets"}


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line into absl's flags and returns what is left; for `absl.app.run(flags_parser=...)`.

  What is wrong is printed as one line with the nearest name, and ends the program with status 2.
  """
  try:
    rest = flags.FLAGS(argv)
    if flags.FLAGS.config is not None:
      flags.FLAGS.config.to_dict()  # a file that could not be read fails only when it is used
    if len(rest) > 1:
      raise ValueError(f"unexpected argument {rest[1]!r}; see --help")
    return rest
  except Exception as error:  # absl, ml_collections and the config file raise what they like
    print(f"error: {explain_flags(argv, error)}", file=sys.stderr)
    sys.exit(2)


def explain_flags(argv: Sequence[str], error: Exception) -> str:
  """One line on what is wrong with a command line that failed to parse with `error`."""
  given = list(_split_flags(argv))
  for name, example in (("config", "configs/ldm.py:default"), ("workdir", "runs/ldm")):
    if name not in dict(given):
      nearest = _find_nearest(name, [other for other, _ in given if other not in flags.FLAGS])
      return f"--{name} is missing, such as --{name}={example}" + (f" (not --{nearest[0]})" if nearest else "")
  source = dict(given)["config"]
  path, _, size = source.partition(":")
  if not Path(path).is_file():
    others = sorted(str(file) for file in Path(path).parent.glob("*.py") if file.stem != "__init__")
    return f"{path}: no such config file" + _suggest(_find_nearest(path, others))
  try:
    config = runpy.run_path(path)["get_config"](*source.split(":", 1)[1:])
  except Exception as failure:  # the file's own
    reason = _last_line(failure)
    # The names that `get_config` offers stand in its message.
    return f"--config={source}: {reason}" + _suggest(_find_nearest(size, re.findall(r"\w+", reason.replace(size, ""))))
  settings = {f"config.{name}": value for name, value in flatten_settings(config.to_dict(), sections=True)}
  known = [*settings, "config", "workdir"]
  for name, value in given:
    bare = re.sub(r"\[\d+\]$", "", name)
    if bare not in known and (bare.startswith("config.") or bare not in flags.FLAGS):
      return f"there is no --{name}" + _suggest([f"--{other}" for other in _find_nearest(bare, known)])
    if re.match(rf"flag --{re.escape(name)}=", str(error)) and type(settings.get(bare)) in _KINDS:
      return f"--{name}={value}: give {_KINDS[type(settings[bare])]}, such as {settings[bare]!r}"
  return _last_line(error)


def check_settings(settings: TrainSettings) -> None:
  """Finds counts and intervals that are not positive.

  Raises:
    UserError: names the first such setting.
  """
  values = dict(flatten_settings(to_plain(settings)))
  for name in _POSITIVE:
    if not values[name] >= 1:
      raise UserError(f"config.{name}={values[name]}; choose 1 or more")


def check_resumable(saved: Mapping[str, Any], current: Mapping[str, Any], *, directory: Path) -> list[str]:
  """Compares the settings of a work folder's checkpoint with the ones to go on with.

  Returns:
    What changed, such as "config.batch_size 8 -> 16".

  Raises:
    UserError: the stage or the model differ.
  """
  there, here = (dict(flatten_settings(json.loads(json.dumps(dict(config))))) for config in (saved, current))
  # A setting that only one of them has came or went with a release.
  changed = [name for name in there if name in here and there[name] != here[name]]
  for name in changed:
    parts = name.split(".")
    if parts[0] in _FIXED and parts[-1] not in _COMPUTATION:
      raise UserError(
        f"{directory}: config.{name} is {there[name]!r} there and {here[name]!r} here; "
        "use another --workdir or the same settings"
      )
  return [f"config.{name} {there[name]!r} -> {here[name]!r}" for name in changed]


def flatten_settings(
  config: Mapping[str, Any], *, prefix: str = "", sections: bool = False
) -> Iterator[tuple[str, Any]]:
  """Gives ("optimizer.num_steps", value) for every setting of nested dictionaries; with `sections` these too."""
  for name, value in config.items():
    if isinstance(value, Mapping):
      if sections:
        yield prefix + name, value
      yield from flatten_settings(value, prefix=f"{prefix}{name}.", sections=sections)
    else:
      yield prefix + name, value


def _split_flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
  """(name, value) of each flag, without dashes and without the "no" of a boolean."""
  for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
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


def _suggest(names: Sequence[str]) -> str:
  return f"; did you mean {' or '.join(names)}?" if names else ""


def _last_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return re.sub(r"^\s*\w+Error: ", "", lines[-1])
