"""`--watch FOLDER`: pictures that appear in a folder, each when it has been written to its end."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gid_jax.app.batch import check_many, is_photo_name
from gid_jax.app.options import MotionRequest
from gid_jax.errors import UserError
from gid_jax.files import describe_failure

_INTERVAL = 1.0  # seconds


def split_watched(request: MotionRequest, paths: Sequence[Path]) -> list[MotionRequest]:
  """One request for each picture that has appeared.

  Raises:
    UserError: an option that many pictures cannot have, or no folder.
  """
  if request.sources:
    raise UserError(f"--watch {request.watch}: leave out {request.sources[0]}; what appears in the folder is animated")
  if request.watch is None or not request.watch.is_dir():
    raise UserError(f"--watch {request.watch}: no such folder")
  check_many(request)
  return [dataclasses.replace(request, sources=(path,), watch=None) for path in paths]


def wait_for_pictures(folder: Path, *, wait: Callable[[], None] = lambda: time.sleep(_INTERVAL)) -> Iterator[Path]:
  """Yields pictures that appear in a folder after the first call, once their size and time stand still over a wait.

  Args:
    folder: looked through once an interval; folders in it are not.
    wait: passes the time between two looks.
  """
  seen = set(_look(folder))
  changing: dict[Path, tuple[int, int]] = {}
  while True:
    wait()
    found = _look(folder)
    for path in sorted(found.keys() - seen):
      if found[path][0] > 0 and changing.get(path) == found[path]:
        seen.add(path)
        yield path
    changing = {path: found[path] for path in found.keys() - seen}
    seen &= found.keys()  # whose place may be taken by another


def _look(folder: Path) -> dict[Path, tuple[int, int]]:
  """The pictures in a folder: size in bytes and time of change."""
  found = {}
  try:
    with os.scandir(folder) as entries:
      for entry in entries:
        path = folder / entry.name
        if is_photo_name(path) and entry.is_file():
          with contextlib.suppress(FileNotFoundError):  # gone again
            status = entry.stat()
            found[path] = (status.st_size, status.st_mtime_ns)
  except OSError as error:
    raise UserError(f"cannot watch {folder}: {describe_failure(error)}") from error
  return found
