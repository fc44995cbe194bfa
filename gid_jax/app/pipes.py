"""Standard input as a photo and standard output as a video, by way of temporary files."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gid_jax.app.outputs import PIPE, Target, is_pattern
from gid_jax.app.streams import is_output_closed, name_output
from gid_jax.errors import UserError
from gid_jax.files import claim, describe_failure


@contextlib.contextmanager
def open_source(source: Path) -> Iterator[Path]:
  """The file to read: the source itself, or what standard input holds.

  Raises:
    UserError: standard input is a terminal, closed or empty.
  """
  if source != PIPE:
    yield source
    return
  if sys.stdin is None:
    raise UserError("- reads a photo from standard input, which is closed; give it one: gid animate - < photo.jpg")
  if sys.stdin.isatty():
    raise UserError("- reads a photo from standard input, which is a terminal; give it one: gid animate - < photo.jpg")
  with tempfile.TemporaryDirectory(prefix="gid-") as folder:
    path = Path(folder) / "stdin"
    try:
      with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as error:
      raise UserError(f"cannot read standard input: {describe_failure(error)}") from error
    if path.stat().st_size == 0:
      raise UserError("standard input is empty (0 bytes)")
    try:
      yield path
    except UserError as error:  # which knows the temporary name only
      raise UserError(str(error).replace(str(path), "standard input")) from error


@contextlib.contextmanager
def open_target(target: Target, *, overwrite: bool) -> Iterator[Path]:
  """The name to write under: the target's own, claimed, or one whose file is to be sent to standard output.

  Raises:
    UserError: the name is taken, or standard output is a terminal or closed.
  """
  if target.path != PIPE:
    # A folder that exists is where a pattern's pictures go, and whoever replaces a file takes it from others anyway.
    if overwrite or is_pattern(target.path):
      yield target.path
      return
    with claim(target.path, numbered=target.numbered) as path:
      yield path
    return
  if is_output_closed():
    raise UserError("--output - writes a video to standard output, which is closed; add: > video.mp4")
  if sys.stdout.isatty():
    raise UserError("--output - writes a video to standard output, which is a terminal; add: > video.mp4")
  with tempfile.TemporaryDirectory(prefix="gid-") as folder:
    yield Path(folder) / f"stdout{target.suffix}"


def send(path: Path) -> None:
  """Copies a file to standard output.

  Raises:
    OutputError: standard output takes no more.
    BrokenPipeError: nobody reads it any more.
  """
  with path.open("rb") as file, name_output():
    shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
