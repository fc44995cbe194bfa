"""The checks that need no decoding: values, files and permissions. Nothing heavy is imported here."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gid_jax.app.options import AnimateRequest, InspectRequest, LoopRequest, MotionRequest
from gid_jax.app.outputs import BUNDLE_SUFFIX, PIPE, VIDEO_CODECS, Target, find_target, is_bundle, is_pattern
from gid_jax.errors import UserError
from gid_jax.files import describe_failure

PICTURE_SUFFIXES = (".png",)
DEMO_PHOTO = Path(__file__).parents[1] / "pretrained" / "photo.jpg"


def check_values(request: MotionRequest) -> None:
  """Checks what can be wrong with the options whatever the source.

  Args:
    request: the options.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  frames, duration = (request.frames, request.duration) if isinstance(request, AnimateRequest) else (None, None)
  limits = {
    "--seed": (request.seed, 0, 2**32 - 1),
    "--steps": (1 if request.steps is None else request.steps, 1, 1000),
    "--frames": (2 if frames is None else frames, 2, 100_000),
    "--duration": (1 if duration is None else duration, 0.05, 3600),
    "--fps": (request.fps, 0.1, 240),
    "--size": (request.size, 64, 4096),
    "--speed": (request.speed, 0.05, 20),
  }
  for option, (value, low, high) in limits.items():
    if not low <= value <= high:
      raise UserError(f"{option} is {value}; it must be between {low} and {high}")
  for option, value in (("--magnify", request.magnify), ("--direction", request.direction)):
    if not math.isfinite(value):
      raise UserError(f"{option} is {value}; it must be a finite number")
  if frames is not None and duration is not None:
    raise UserError(f"--frames {frames} and --duration {duration:g}: leave out one of them")
  if request.bands is not None:
    parse_bands(request.bands)
  for picture in (request.mask, request.still):
    if picture is not None:
      check_files(picture, None, give="a picture")


def check_motion(request: MotionRequest) -> tuple[Path, Target]:
  """Checks everything that needs neither JAX nor the pixels, for one source or none.

  Args:
    request: the options.

  Returns:
    The photo or video to read, `PIPE` for standard input, and what to write.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  check_values(request)
  source = request.sources[0] if request.sources else DEMO_PHOTO
  target = find_target(request, source if request.sources else None)
  where = "--output -" if target.path == PIPE else str(target.path)
  if target.suffix == ".gif" and request.fps > 50:
    raise UserError(f"{where}: GIF plays at most 50 frames per second; lower --fps or write .mp4")
  if request.codec is not None and request.codec not in VIDEO_CODECS.get(target.suffix, ()):
    suffixes = [suffix for suffix, codecs in VIDEO_CODECS.items() if request.codec in codecs]
    raise UserError(f"{where}: --codec {request.codec} is for {' and '.join(suffixes)}")
  if target.kind == "page":
    for option, given in _list_for_videos(request):
      if given:
        raise UserError(f"{where}: {option} is for videos; a page moves by itself")
  check_files(
    None if source == PIPE else source, _find_place(target), give="a photo or a video, or a .gid file",
    force=request.force, numbered=target.numbered)
  if is_bundle(source):
    given = ("--seed", request.seed != 0), ("--steps", request.steps is not None)
    given = *given, ("--free", isinstance(request, LoopRequest) and request.free)
    for option, is_given in (*given, ("--save", request.save is not None)):
      if is_given:
        raise UserError(f"{option} is for photos; the motion in {source} is sampled already")
  for _, path in list_pictures(request):
    check_suffix(path, "picture", PICTURE_SUFFIXES)
    check_files(source if source != PIPE else None, path, force=request.force)
  if request.save is not None:
    check_suffix(request.save, "bundle", (BUNDLE_SUFFIX,))
    check_files(None, request.save, force=request.force)
  _keep_apart(request, source, target)
  return source, target


def _list_for_videos(request: MotionRequest) -> tuple[tuple[str, bool], ...]:
  """Options that a page has no use for, and whether they were given."""
  given = {"--side-by-side": request.side_by_side, "--xt": request.xt, "--speed": request.speed != 1}
  given |= {"--fps": request.fps != 30}
  if isinstance(request, AnimateRequest):
    given |= {"--frames": request.frames, "--duration": request.duration}
  if isinstance(request, LoopRequest):
    given |= {"--report": request.report}
  return tuple((option, value not in (None, False)) for option, value in given.items())


def _keep_apart(request: MotionRequest, source: Path, target: Target) -> None:
  """Refuses two outputs in one place, and an output in the place of what is read."""
  taken = [("input", source), ("picture of --mask", request.mask), ("picture of --still", request.still)]
  for option, path in (("--output", target.path), *list_pictures(request), ("--save", request.save)):
    if path is None or path == PIPE:
      continue
    is_new = option == "--output" and target.numbered  # then it gets a name that is not taken
    for what, other in taken:
      if other not in (None, PIPE) and not is_new and _is_same_place(path, other):
        raise UserError(f"{option} {path} is the {what} itself; choose another name")
    taken.append((option, path))


def _is_same_place(path: Path, other: Path) -> bool:
  """Whether two names are those of one file; either may be a pattern such as out/%04d.png, which names many."""
  if is_pattern(other):
    path, other = other, path
  if os.path.realpath(path.parent) != os.path.realpath(other.parent) or not is_pattern(path):
    return os.path.realpath(path) == os.path.realpath(other)
  numbers = map(int, re.findall("[0-9]+", other.name))
  return path.name == other.name or any(path.name % number == other.name for number in numbers)


def _find_place(target: Target) -> Path | None:
  """The file or folder that will be new."""
  path = target.path
  if path == PIPE:
    return None
  if is_pattern(path):
    return path.parent if not path.parent.exists() else path.parent / (path.name % 1)
  return path


def list_pictures(request: MotionRequest) -> list[tuple[str, Path]]:
  """The pictures that are to be written beside the video, by option."""
  report = request.report if isinstance(request, LoopRequest) else None
  pictures = ("--xt", request.xt), ("--motion", request.motion), ("--report", report)
  return [(option, path) for option, path in pictures if path is not None]


def parse_bands(text: str) -> tuple[int, ...]:
  """The numbers of frequency bands that a text such as "1-4,7" names.

  Raises:
    UserError: it names none.
  """
  bands: list[int] = []
  for part in text.split(","):
    match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
      raise UserError(f"--bands is {text!r}; give numbers and ranges such as 1-4,7")
    bands += range(first, last + 1)
  return tuple(bands)


def list_edits(request: MotionRequest) -> tuple[tuple[str, bool], ...]:
  """The options that edit a sampled motion, and whether each was given."""
  pictures = ("--mask", request.mask is not None), ("--still", request.still is not None)
  numbers = ("--direction", request.direction != 0), ("--speed", request.speed != 1)
  return ("--bands", request.bands is not None), *pictures, *numbers


def check_inspect(request: InspectRequest) -> tuple[Path, bool]:
  """Checks everything that needs neither JAX nor the frames, and says which picture to write.

  Args:
    request: the options.

  Returns:
    The picture to write, and whether it may be numbered.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  if not 0 <= request.start < math.inf:
    raise UserError(f"--start is {request.start}; it must be 0 or more seconds")
  default = request.video.parent / f"{request.video.stem}_inspect.png"
  output = default if request.output is None else request.output
  is_numbered = request.output is None and not request.force
  check_suffix(output, "picture", PICTURE_SUFFIXES)
  check_files(request.video, output, give="a video", force=request.force, numbered=is_numbered)
  return output, is_numbered


def check_suffix(path: Path, kind: str, suffixes: Sequence[str]) -> None:
  """Checks the ending of a file's name.

  Raises:
    UserError: it is none of `suffixes`.
  """
  if path.suffix.lower() not in suffixes:
    raise UserError(f"{path}: unknown {kind} format '{path.suffix}'; use {' or '.join(suffixes)}")


def check_files(
  source: Path | None, output: Path | None, *, give: str = "", force: bool = False, numbered: bool = False
) -> None:
  """Checks what can be known of a file to read and one to write, either of which may be missing here.

  Args:
    source: to read; must be a file with something in it.
    output: to write, a file, a folder of pictures or a pattern for them.
    give: what the source ought to be.
    force: `output` may exist.
    numbered: it may exist, for it then gets a number.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  try:
    if source is not None:
      _check_source(source, give)
    if output is not None:
      _check_output(output, source, force, numbered)
  except OSError as error:
    raise UserError(f"{error.filename}: {describe_failure(error)}; use another name") from error


def _check_source(source: Path, give: str) -> None:
  if not source.exists():
    is_address = source.parts[:1] in (("http:",), ("https:",))
    raise UserError(f"cannot read {source}: {'a web address; download it first' if is_address else 'no such file'}")
  if not source.is_file():
    raise UserError(f"{source} is not a file; give {give}")
  if not os.access(source, os.R_OK):
    raise UserError(f"cannot read {source}: permission denied")
  if source.stat().st_size == 0:
    raise UserError(f"{source} is empty (0 bytes)")


def _check_output(output: Path, source: Path | None, force: bool, numbered: bool) -> None:
  if not output.parent.is_dir():
    raise UserError(f"cannot write {output}: the folder {output.parent} does not exist")
  if output.is_dir() and not numbered:
    raise UserError(f"{output} is a folder; give a file name")
  if output.exists() and not output.is_file() and not output.is_dir():
    raise UserError(f"{output} is not a regular file and cannot be replaced; give another --output")
  if source is not None and output.exists() and output.samefile(source):
    raise UserError(f"{output} is the input itself; choose another --output")
  if output.exists() and not force and not numbered:
    raise UserError(f"{output} already exists; use --force or --output")
  if not os.access(output.parent, os.W_OK | os.X_OK):
    raise UserError(f"cannot write into {output.parent}: permission denied; choose another --output")
