"""Files that are complete or absent; needs nothing but the standard library."""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None

from gid_jax.errors import UserError

PathLike = str | os.PathLike[str]
BytesFile = io.BufferedReader | io.BytesIO


# Bytes that a name may have in nearly every file system.
_MAX_NAME = 255
_TEMPORARY = re.compile(r"\.gid-[0-9a-f]{16}(\..*)?")


@contextlib.contextmanager
def claim(path: Path, *, numbered: bool) -> Iterator[Path]:
  """Keeps a free name from other processes that claim theirs too, while the block makes what will have it.

  Args:
    path: the name that is wanted.
    numbered: where it is taken, take name_2, name_3 and so on instead of refusing.

  Yields:
    The name that was claimed.

  Raises:
    UserError: the name is taken, or another process is making it, and no number is allowed.
  """
  number = 1
  while True:
    name = path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")
    with contextlib.ExitStack() as stack:
      try:
        is_free = not os.path.lexists(name) if numbered else not name.exists()
        is_mine = is_free and stack.enter_context(_hold(name))
        # Whoever held it until just now may have written it.
        is_free = is_free and not name.exists()
      except OSError as error:
        raise UserError(f"cannot write {name}: {describe_failure(error)}") from error
      if is_free and is_mine:
        yield name
        return
    if not numbered:
      raise _is_taken(path) if not is_free else UserError(f"{path} is being written by another gid; use --output")
    number += 1


@contextlib.contextmanager
def _hold(path: Path) -> Iterator[bool]:
  """Whether nobody else holds a name; who ends, however that comes about, holds it no more."""
  lock = path.parent / f".gid-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.claim"
  try:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
  except OSError:  # Whoever moves its file into place first wins, then.
    yield True
    return
  is_mine = False
  try:
    is_mine = _lock(descriptor, lock)
    yield is_mine
  finally:
    if is_mine:
      with contextlib.suppress(OSError):
        lock.unlink()
    os.close(descriptor)


def _lock(descriptor: int, lock: Path) -> bool:
  if fcntl is None:
    return True
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.path.samestat(os.fstat(descriptor), os.stat(lock))
  except FileNotFoundError:
    return False
  except OSError as error:
    return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # a file system without locks lets everybody in


@contextlib.contextmanager
def lock_folder(folder: Path, *, work: str, option: str) -> Iterator[bool]:
  """Keeps a folder to one program at a time, as long as the block lasts or the process lives.

  Args:
    folder: there already, or made.
    work: what writes into it, such as "training".
    option: where the user named it, such as "--workdir".

  Yields:
    Whether the folder is locked; some network file systems have no locks.

  Raises:
    UserError: another process has it, or it cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "w")  # noqa: SIM115 (closed with the lock)
  except OSError as error:
    raise UserError(f"{option} {folder}: cannot write there ({describe_failure(error)})") from error
  with file:
    is_locked = False
    if fcntl is not None:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = True
      except BlockingIOError:
        raise UserError(f"another {work} is writing into {folder}; wait for it, or give another {option}") from None
      except OSError:
        pass
    yield is_locked


def shorten(stem: str, *, ending: str) -> str:
  """The name `stem` + `ending`, the stem cut so that any file system takes it and a number has room."""
  room = _MAX_NAME - 8 - len(os.fsencode(ending))
  while len(os.fsencode(stem)) > room:
    stem = stem[:-1]
  return stem + ending


def make_parents(path: PathLike) -> None:
  """Makes the folder of a file that is to be written, and those above it.

  Raises:
    UserError: it cannot be made.
  """
  try:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot write {path}: {describe_failure(error)}") from error


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
  try:
    if not target.parent.is_dir():
      raise UserError(f"cannot write {path}: the folder {target.parent} does not exist")
    if target.is_dir():
      raise UserError(f"{path} is a folder; give a file name")
    if target.exists() and not target.is_file():  # A device would be lost to whoever else uses it.
      raise UserError(f"{path} is not a regular file and cannot be replaced; give another name")
    _check_free(path, overwrite)
    with make_temporary(target.parent, suffix=path.suffix) as temporary:
      yield temporary
      move(temporary, target, shown=path, overwrite=overwrite)
  except OSError as error:
    raise UserError(f"cannot write {path}: {describe_failure(error)}") from error


@contextlib.contextmanager
def make_temporary(folder: Path, *, suffix: str = "", is_folder: bool = False) -> Iterator[Path]:
  """Makes a hidden file or folder, gone after the block unless it was moved elsewhere.

  What processes that were killed have left of theirs in the same folder goes, too.

  Args:
    folder: where to make it.
    suffix: ending of its name.
    is_folder: make a folder, closed to others, rather than a file.

  Raises:
    OSError: it cannot be made.
  """
  while True:
    path = folder / f".gid-{secrets.token_hex(8)}{suffix}"
    try:
      if is_folder:
        path.mkdir(0o700)
      else:  # By hand, so that it gets the permissions of any new file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
      with _hold_temporary(path) as is_mine:
        if is_mine:
          _remove_abandoned(folder, path.stat().st_mtime)
          yield path
          return
    finally:
      _remove(path)


@contextlib.contextmanager
def _hold_temporary(path: Path) -> Iterator[bool]:
  """Says by a lock, while the block lasts, that a file or folder is not abandoned; False if it was taken for so."""
  if fcntl is None:
    yield True
    return
  try:
    descriptor = os.open(path, os.O_RDONLY)
  except FileNotFoundError:
    yield False
    return
  try:
    yield _lock(descriptor, path)
  finally:
    os.close(descriptor)


def _remove_abandoned(folder: Path, now: float) -> None:
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      if _TEMPORARY.fullmatch(entry.name):
        with contextlib.suppress(OSError):
          _remove_if_abandoned(Path(entry.path), now)


def _remove_if_abandoned(path: Path, now: float) -> None:
  if fcntl is None:
    return
  # A claim that is being made is not yet held, and nobody may be told then that it is taken.
  if path.suffix == ".claim" and now - path.stat().st_mtime < 60:
    return
  descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # whatever it may be
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is held, and without locks
    if os.path.samestat(os.fstat(descriptor), os.stat(path)):
      _remove(path)
  finally:
    os.close(descriptor)


def _remove(path: Path) -> None:
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink()


def move(temporary: Path, target: Path, *, shown: Path, overwrite: bool) -> None:
  """Gives a file its name in the same file system; without `overwrite` only where no file has it.

  Raises:
    UserError: the name, which the user knows as `shown`, is taken.
    OSError: it cannot be given.
  """
  if not overwrite:
    # A second name in one step, which only a free one takes: of two writers one wins. The first name goes at the end.
    try:
      os.link(temporary, target)
      return
    except FileExistsError as error:
      raise _is_taken(shown) from error
    except OSError:  # A file system without such links: nearly as good.
      _check_free(shown, overwrite)
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


def blame_machine(error: Exception) -> str | None:
  """The one line for a failure of the disk or the memory, which no change of the program mends; None for others."""
  number = error.errno if isinstance(error, OSError) else None
  # The second is XLA's.
  if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or number == errno.ENOMEM:
    return "out of memory; ask for less at once (smaller pictures, fewer frames, a smaller batch)"
  if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
    place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return place + describe_failure(error)
  return None


def first_line(error: BaseException | None) -> str:
  """The first line of an error's message, at most 300 characters; its type where it says nothing."""
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__  # the storage library adds all its settings
