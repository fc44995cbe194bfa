"""Notices a training run whose numbers are no longer finite, and says where it began."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gid_jax.errors import UserError

# So many updates in a row may be skipped; a slice without motion, say, can overflow in group normalisation's slope.
MAX_CONSECUTIVE_ERRORS = 5


class DivergenceGuard:
  """Looks at each update's loss and gradient norm when the next one has started, so that no device waits for it."""

  def __init__(self, describe: Callable[[int, Any], str]):
    """Starts with no errors.

    Args:
      describe: (step, the step's record numbers [b] or None) -> what to tell the user about a run that diverged there.
    """
    self._describe = describe
    self._pending: tuple[int, Any, Any, Any] | None = None
    self._num_errors = 0
    self._first: tuple[int, Any] = (0, None)

  def watch(self, step: int, metrics: Mapping[str, Any], *, records: np.ndarray | None) -> None:
    """Takes an update's metrics and record numbers [b], and judges the update before.

    Raises:
      UserError: `MAX_CONSECUTIVE_ERRORS` updates in a row were not finite.
    """
    pending, self._pending = self._pending, (step, metrics["loss"], metrics["gradient_norm"], records)
    if pending:
      self._judge(*pending)

  def settle(self) -> bool:
    """Judges the newest update at once and returns whether it was finite; see `watch`."""
    if self._pending:
      pending, self._pending = self._pending, None
      self._judge(*pending)
    return self._num_errors == 0

  def _judge(self, step: int, loss: Any, gradient_norm: Any, records: Any) -> None:
    if math.isfinite(loss) and math.isfinite(gradient_norm):
      self._num_errors = 0
      return
    if not self._num_errors:
      self._first = (step, records)
    self._num_errors += 1
    if self._num_errors == MAX_CONSECUTIVE_ERRORS:
      raise UserError(
        f"stopped at step {step}: loss or gradient norm not finite {self._num_errors} updates in a row, first at "
        f"step {self._first[0]}; {self._describe(*self._first)}"
      )

