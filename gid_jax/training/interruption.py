"""Ends a training run between two steps when the system or the user asks for it."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
  """Turns SIGTERM and SIGINT (Ctrl-C) into a question that the training loop asks after every step.

  A signal to any one of several processes stops them all after the same step. A second Ctrl-C interrupts at once.
  A context manager: outside it the signals do what they did before.
  """

  def __init__(self):
    self._requested = False
    # JAX listens to SIGTERM itself once it has joined the processes, and agrees with the others on a step.
    self._is_shared = jax.process_count() > 1
    self._previous = {}

  def __enter__(self):
    signals = (signal.SIGINT,) if self._is_shared else SIGNALS
    self._previous = {number: signal.signal(number, self._handle) for number in signals}
    return self

  def __exit__(self, *_):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; ask after every one."""
    if self._is_shared:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._requested

  def _handle(self, number: int, frame: FrameType | None) -> None:
    if self._requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._requested = True
    if self._is_shared:
      os.kill(os.getpid(), signal.SIGTERM)
