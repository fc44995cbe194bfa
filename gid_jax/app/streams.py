"""Standard output and standard error of the process, which may be closed, full, or without anybody who reads."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from gid_jax.errors import UserError
from gid_jax.files import describe_failure


class OutputError(UserError):
  """Standard output takes no more."""


class Output(io.TextIOWrapper):
  """Standard output, whose failures say that it is standard output that failed."""

  def write(self, text: str) -> int:
    """Writes a text.

    Raises:
      OutputError: it cannot be written, such as to a full disk.
      BrokenPipeError: nobody reads it any more.
    """
    with name_output():
      return super().write(text)

  def flush(self) -> None:
    """Passes on what was written; raises what `write` does."""
    with name_output():
      super().flush()


class Complaints(io.TextIOWrapper):
  """Standard error, where what cannot be said is lost, and the work goes on."""

  def write(self, text: str) -> int:
    """Writes a text, if that can be."""
    with contextlib.suppress(OSError):
      super().write(text)
    return len(text)

  def flush(self) -> None:
    """Passes on what was written, if that can be."""
    with contextlib.suppress(OSError):
      super().flush()


@contextlib.contextmanager
def name_output() -> Iterator[None]:
  """Has an OSError of the block say that it is of standard output; a missing reader stays `BrokenPipeError`."""
  try:
    yield
  except BrokenPipeError:
    raise
  except OSError as error:
    raise OutputError(f"cannot write to standard output: {describe_failure(error)}") from error


def is_output_closed() -> bool:
  """Whether the process was started without standard output; what is printed is lost then."""
  return sys.__stdout__ is None


def prepare_streams() -> None:
  """Puts these streams in the place of the process's own, and the null device in that of closed ones."""
  # The number of a closed stream would go to the first file that is opened, and what is printed there into it.
  while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
  os.close(number)
  sys.stdout = _wrap(sys.stdout, Output)
  sys.stderr = _wrap(sys.stderr, Complaints)


def _wrap(stream, kind):
  if stream is None:  # it is closed, which libraries do not expect
    return open(os.devnull, "w")
  options = dict(errors=stream.errors, line_buffering=stream.line_buffering, write_through=stream.write_through)
  return kind(stream.buffer, stream.encoding, **options)
