"""The settings of a training run: whether they make sense, and whether a work folder can go on with them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gid_jax.configuration import TrainSettings
from gid_jax.errors import UserError
from gid_jax.parsing import to_plain

_POSITIVE = (
  "batch_size", "log_every", "eval_every", "save_every", "num_eval_batches", "num_init_batches", "keep_checkpoints",
  "optimizer.num_steps", "loss.gradient_scales",
)  # fmt: skip
# A checkpoint belongs to these; those of the second row change how the model is computed, not what it is.
_FIXED = ("stage", "model")
_COMPUTATION = ("dtype", "remat")


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
