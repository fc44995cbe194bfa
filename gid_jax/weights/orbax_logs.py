"""What Orbax and its event loops print beside what they raise, which is left out."""

import functools
import logging
import sys
from typing import Any

# A save that fails closes its event loop, and the arrays that were still being written find it closed; a reading that
# fails leaves off the others. Each says so with a traceback and all that storage knows of the array.
_FOLLOWING = ("Event loop is closed", "Encountered error while reading array index")


@functools.cache
def hush_orbax() -> None:
  """Keeps from the terminal what is raised too, or fails only because something else has."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_not_raised_too)
  before = sys.unraisablehook

  def hook(unraisable: Any) -> None:
    if not str(unraisable.exc_value).startswith(_FOLLOWING):
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
