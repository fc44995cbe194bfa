"""Files that are complete or absent; needs nothing but the standard library."""

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from gid_jax.errors import UserError

PathLike = str | os.PathLike[str]
BytesFile = io.BufferedReader | io.BytesIO


@contextlib.contextmanager
def complete_or_nothing(path: Path, *, overwrite: bool) -> Iterator[Path]:
  """Yields a temporary name in the folder of `path`, moved there on success and removed on any failure.

  A link stays a link: the file that it points to is written.

  Args:
    path: the file that will appear once the block has succeeded.
    overwrite: replace an existing file.

  Raises:
    UserError: existing file, also one that came into being during the block, missing or unwritable folder, or any
      OSError inside the block.
  """
  target = Path(os.path.realpath(path)) if os.path.islink(path) else path
  temporary = target.parent / f".gid-{secrets.token_hex(8)}{path.suffix}"
  try:
    if not target.parent.is_dir():
      raise UserError(f"cannot write {path}: the folder {target.parent} does not exist")
    if target.is_dir():
      raise UserError(f"{path} is a folder; give a file name")
    _check_free(path, overwrite)
    # Created by hand so that it gets the permissions of any new file, and before the frames are waited for.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    yield temporary
    _move(temporary, target, path, overwrite)
  except OSError as error:
    raise UserError(f"cannot write {path}: {describe_failure(error)}") from error
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink()


def _move(temporary: Path, target: Path, path: Path, overwrite: bool) -> None:
  if not overwrite:
    # A second name in one step, which only a free one takes: of two writers one wins. The first name goes at the end.
    try:
      os.link(temporary, target)
      return
    except FileExistsError as error:
      raise _is_taken(path) from error
    except OSError:  # A file system without such links: nearly as good.
      _check_free(path, overwrite)
  os.replace(temporary, target)


def _check_free(path: Path, overwrite: bool) -> None:
  if path.exists() and not overwrite:
    raise _is_taken(path)


def _is_taken(path: Path) -> UserError:
  return UserError(f"{path} already exists; use --force or --output")


def describe_failure(error: Exception) -> str:
  """The cause of an OSError or FFmpeg error in a few words of one line, such as "no space left on device"."""
  number = getattr(error, "errno", None)
  if isinstance(number, int) and number in errno.errorcode:
    return os.strerror(number).lower()
  # FFmpeg's own words without the number and the name of the function that are wrapped around them.
  words = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return words.splitlines()[0].strip().lower()


def first_line(error: BaseException | None) -> str:
  """The first line of an error's message, at most 300 characters; its type where it says nothing."""
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__  # the storage library adds all its settings
