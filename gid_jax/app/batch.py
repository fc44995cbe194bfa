"""Several inputs of `gid animate`: files, folders and patterns. Nothing heavy is imported here."""

import dataclasses
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from gid_jax.app.options import VIDEO_SUFFIXES, AnimateRequest, check_values, name_output
from gid_jax.errors import UserError

# Of the files in a folder; videos are left out, among them those that an earlier run wrote there.
PHOTO_SUFFIXES = (
  ".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".jxl", ".tif", ".tiff", ".bmp")  # fmt: skip


def is_batch(request: AnimateRequest) -> bool:
  """Whether several inputs were given, or a pattern that may match several."""
  return len(request.sources) > 1 or any(_is_pattern(source) for source in request.sources)


def split_batch(request: AnimateRequest) -> list[AnimateRequest]:
  """One request for every input, each once, with its source and its output; makes the folder for the outputs.

  A folder stands for its photos and a pattern for the files it matches, by name. What holds or matches nothing stays
  as it is, to fail in its turn.

  Args:
    request: the options.

  Raises:
    UserError: an option out of range, or one that several inputs cannot have.
  """
  check_values(request)
  if request.save is not None:
    raise UserError(f"--save {request.save}: give one photo; with several they would share the file")
  folder = request.output
  if folder is not None:
    if not folder.is_dir() and (folder.exists() or folder.suffix.lower() in VIDEO_SUFFIXES):
      raise UserError(f"--output {folder}: with several inputs, give a folder")
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
  sources = dict.fromkeys(path for source in request.sources for path in _expand(source))
  place = lambda source: (source.parent if folder is None else folder) / name_output(source)
  return [dataclasses.replace(request, sources=(source,), output=place(source)) for source in sources]


def _is_pattern(source: Path) -> bool:
  return glob.has_magic(str(source)) and not os.path.lexists(source)


def _expand(source: Path) -> Iterator[Path]:
  found: list[Path] = []
  if source.is_dir():
    try:
      found = [path for path in source.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()]
    except OSError:
      found = []
    found = [path for path in found if not path.name.startswith(".")]
  elif _is_pattern(source):
    found = [Path(path) for path in glob.glob(str(source), recursive=True) if os.path.isfile(path)]
  yield from sorted(found) or [source]
