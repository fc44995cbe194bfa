"""Records what a few training steps spend their time on, for TensorBoard's or Perfetto's viewer."""

from pathlib import Path
from typing import Any

import jax

WARM_UP = 2  # steps that compile and settle before anything is recorded


class StepProfiler:
  """Traces steps of a loop with JAX's profiler; a context manager, which ends a trace that is still running."""

  def __init__(self, folder: str | Path, *, num_steps: int):
    """Records `num_steps` steps, after the first two, below `folder`; 0 records nothing."""
    self._folder, self._num_steps = str(folder), max(num_steps, 0)
    self._seen, self._is_running = 0, False

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._is_running:
      jax.profiler.stop_trace()
      self._is_running = False

  def before_step(self, state: Any) -> None:
    """Starts or ends the trace where it is time to; ask before every step, with what the step before returned."""
    if self._num_steps and self._seen == WARM_UP:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._folder)
      self._is_running = True
    elif self._is_running and self._seen == WARM_UP + self._num_steps:
      jax.block_until_ready(state)  # The device may be behind.
      self.__exit__()
    self._seen += 1
