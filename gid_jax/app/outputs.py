"""What a source becomes: the format, the name, and whether another may be taken. Nothing heavy is imported here."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from gid_jax.app.options import LoopRequest, MotionRequest
from gid_jax.errors import UserError
from gid_jax.files import shorten

# Those of gid_jax.media.encoding (a test compares them); importing them would load NumPy.
VIDEO_CODECS = {
  ".mp4": ("h264", "av1"),
  ".webm": ("vp9", "av1"),
  ".mov": ("h264",),
  ".gif": (),
  ".webp": (),
  ".avif": ("av1",),
  ".apng": (),
  ".png": (),
}
VIDEO_SUFFIXES = tuple(VIDEO_CODECS)
PAGE_SUFFIX = ".html"
BUNDLE_SUFFIX = ".gid"
PIPE = Path("-")


class Target(NamedTuple):
  """What is to be written.

  Attributes:
    path: the file, the folder or the pattern; `PIPE` is standard output.
    kind: a video, pictures, or a page.
    suffix: the format's, also where the name has none.
    numbered: whether another number may be taken where the name is not free.
  """

  path: Path
  kind: Literal["video", "frames", "page"]
  suffix: str
  numbered: bool


def find_target(request: MotionRequest, source: Path | None) -> Target:
  """What to write for a source; None is the demonstration photo.

  Raises:
    UserError: the name's ending is of no known format, or not of the one that was asked for.
  """
  output, suffix = request.output, "" if request.format is None else f".{request.format}"
  is_loop = isinstance(request, LoopRequest)
  if output is None and source == PIPE:
    output = PIPE
  if output == PIPE:
    if suffix == ".frames":
      raise UserError("--output -: pictures need a folder; choose another --format")
    return Target(PIPE, _find_kind(suffix), suffix or ".mp4", False)
  if output is None or os.path.isdir(output):
    folder = output if output is not None else Path() if source is None else source.parent
    stem = "gid" if source is None else "stdin" if source == PIPE else source.stem
    ending = f"_{'loop' if is_loop else 'demo' if source is None else 'animated'}"
    ending += "" if suffix == ".frames" else suffix or ".mp4"
    return Target(folder / shorten(stem, ending=ending), _find_kind(suffix), suffix or ".mp4", not request.force)
  given = output.suffix.lower()
  is_other = suffix not in ("", ".frames") if is_pattern(output) else (
    suffix == ".frames" and given in (*VIDEO_SUFFIXES, PAGE_SUFFIX))  # fmt: skip
  if is_other:
    raise UserError(f"--format {request.format} and --output {output}: leave out one of them")
  if is_pattern(output):
    check_pattern(output)
    return Target(output, "frames", ".frames", False)
  if suffix == ".frames":
    return Target(output, "frames", suffix, False)
  if given not in (*VIDEO_SUFFIXES, PAGE_SUFFIX):
    choice = f"use one of {', '.join((*VIDEO_SUFFIXES, PAGE_SUFFIX))}, or --format frames for a folder of pictures"
    raise UserError(f"{output}: unknown video format '{output.suffix}'; {choice}")
  if suffix and suffix != given:
    raise UserError(f"--format {request.format} and --output {output}: leave out one of them")
  return Target(output, _find_kind(given), given, False)


def _find_kind(suffix: str) -> Literal["video", "frames", "page"]:
  return "page" if suffix == PAGE_SUFFIX else "frames" if suffix == ".frames" else "video"


def is_pattern(path: Path) -> bool:
  """Whether a name stands for numbered pictures, such as frame_%04d.png."""
  return "%" in path.name and path.suffix.lower() == ".png"


def check_pattern(pattern: Path) -> None:
  """Checks that a name such as frame_%04d.png gives every number a name of its own.

  Raises:
    UserError: it does not.
  """
  try:
    names = {pattern.name % 1, pattern.name % 2}
  except (TypeError, ValueError):
    names = set()
  if len(names) != 2 or "/" in "".join(names) or not "".join(names).isprintable():
    raise UserError(f"--output {pattern}: give one place for the number, such as {pattern.parent}/%04d.png")


def is_bundle(source: Path) -> bool:
  """Whether a file's name says that it is a photo with its sampled motion, from `gid animate --save`."""
  return source.suffix.lower() == BUNDLE_SUFFIX
