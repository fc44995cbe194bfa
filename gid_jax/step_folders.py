"""What the folder of a run's checkpoints says about itself, and which of them stay; needs no Orbax."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class NewestAndBest:
  """Which steps to keep: an Orbax preservation policy, `losses` being validation losses by step."""

  def __init__(self, num_newest: int, num_best: int, losses: Mapping[int, float]):
    self._num_newest, self._num_best, self._losses = num_newest, num_best, losses

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Whether each of the steps, ascending, stays; Orbax calls it after every save."""
    steps = [info.step for info in checkpoints]
    evaluated = [step for step in steps if self._losses.get(step, math.inf) < math.inf]
    best = sorted(evaluated, key=lambda step: (self._losses[step], -step))[: self._num_best]
    return [step in steps[-self._num_newest :] or step in best for step in steps]


def list_steps(directory: Path) -> list[int]:
  """The steps that have a folder, in no order; one may be damaged."""
  return [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]


def read_loss(step_directory: Path) -> float:
  """The step's validation loss; infinite where there is none or it cannot be read."""
  try:
    return float(json.loads((step_directory / "validation" / "metadata").read_text())["loss"])
  except (OSError, ValueError, KeyError, TypeError):
    return math.inf


def read_config(directory: Path) -> dict[str, Any] | None:
  """The settings saved with the newest step in a folder of checkpoints where they can be read, or None."""
  for step in sorted(list_steps(directory), reverse=True):
    try:
      return json.loads((directory / str(step) / "config" / "metadata").read_text())
    except (OSError, ValueError):
      continue  # the restoring will tell
  return None
