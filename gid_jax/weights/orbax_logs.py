"""What Orbax and its event loops print beside what they raise, which is left out."""

import functools
import logging
import sys
from typing import Any


@functools.cache
def hush_orbax() -> None:
  """Keeps from the terminal what is raised too, or fails only because something else has."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_not_raised_too)
  # A save that fails closes its event loop, and the arrays that were still being written find it closed, each with a
  # traceback.
  before = sys.unraisablehook

  def hook(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
      before(unraisable)

  sys.unraisablehook = hook


def _is_not_raised_too(record: logging.LogRecord) -> bool:
  # What fails in a thread of Orbax is logged there with a traceback; what a damaged step lacks, line by line before
  # reading it fails.
  if record.name != "asyncio":
    return record.levelno < logging.WARNING or "orbax" not in record.pathname
  # An array that cannot be read ends the loop that reads all of them, and of others that fail nobody asks.
  text = record.getMessage()
  return "tensorstore" not in text and "orbax" not in text
