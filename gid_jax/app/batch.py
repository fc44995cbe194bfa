"""Several inputs of `gid animate` and `gid loop`: files, folders and patterns. Nothing heavy is imported here."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gid_jax.app.checks import check_values, list_pictures
from gid_jax.app.options import MotionRequest
from gid_jax.app.outputs import PIPE, VIDEO_SUFFIXES
from gid_jax.errors import UserError
from gid_jax.files import describe_failure

# Of the files in a folder; videos are left out, and what an earlier run has written there.
PHOTO_SUFFIXES = (
  ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".jxl", ".tif", ".tiff", ".bmp",
  ".hdr", ".exr")  # fmt: skip
_OURS = re.compile(r"(.*_(animated|loop|inspect)|gid_demo)(_\d+)?")


def is_batch(request: MotionRequest) -> bool:
  """Whether several inputs were given, a folder, or a pattern that may match several."""
  sources = request.sources
  return len(sources) > 1 or any(_is_pattern(source) or os.path.isdir(source) for source in sources)


def split_batch(request: MotionRequest) -> list[MotionRequest]:
  """One request for every input, each once; makes the folder for the outputs.

  A folder stands for its photos and a pattern for the files it matches, by name. What holds or matches nothing stays
  as it is, to fail in its turn.

  Args:
    request: the options.

  Raises:
    UserError: an option out of range, or one that several inputs cannot have.
  """
  check_many(request)
  sources = dict.fromkeys(path for source in request.sources for path in _expand(source))
  return [dataclasses.replace(request, sources=(source,)) for source in sources]


def check_many(request: MotionRequest) -> None:
  """Checks what several inputs cannot have, and makes the folder for the outputs.

  Raises:
    UserError: an option out of range, or one that several inputs cannot have.
  """
  check_values(request)
  single = [("--save", request.save)] if request.save is not None else []
  for option, path in (*single, *list_pictures(request)):
    raise UserError(f"{option} {path}: give one photo; with several they would share the file")
  folder = request.output
  if folder == PIPE or PIPE in request.sources:
    raise UserError("- is for one photo; with several inputs, give files and a folder")
  if folder is not None:
    if not os.path.isdir(folder) and (os.path.exists(folder) or folder.suffix.lower() in VIDEO_SUFFIXES):
      raise UserError(f"--output {folder}: with several inputs, give a folder")
    make_folder(folder)


def names_new_folder(request: MotionRequest) -> bool:
  """Whether the output of one input is a folder that is to be made: a name without an ending, as with several."""
  output = request.output
  if output is None or output == PIPE or request.format == "frames" or os.path.lexists(output):
    return False
  return not output.suffix and not output.name.startswith(".")


def make_folder(folder: Path) -> None:
  """Makes a folder, and those it is in, where there is none.

  Raises:
    UserError: it cannot be made.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot make the folder {folder}: {describe_failure(error)}") from error


def is_photo_name(path: Path) -> bool:
  """Whether a file in a folder is taken for a photo: by its ending, not hidden, and not one that `gid` has written."""
  suffix = path.suffix.lower()
  is_ours = suffix in VIDEO_SUFFIXES and _OURS.fullmatch(path.stem)
  return suffix in PHOTO_SUFFIXES and not path.name.startswith(".") and not is_ours


def _is_pattern(source: Path) -> bool:
  return glob.has_magic(str(source)) and not os.path.lexists(source)


def _expand(source: Path) -> Iterator[Path]:
  found: list[Path] = []
  if os.path.isdir(source):
    try:
      found = [path for path in source.iterdir() if is_photo_name(path) and path.is_file()]
    except OSError:
      found = []
  elif _is_pattern(source):
    found = [Path(path) for path in glob.glob(str(source), recursive=True) if os.path.isfile(path)]
  yield from sorted(found) or [source]
