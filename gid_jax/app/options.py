"""What the `gid` command can be asked for, and the checks that need no decoding: values, files and permissions.

Nothing heavy is imported here, so that help is instant and a typing error is answered at once.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gid_jax.errors import UserError

# Those of gid_jax.media.encoding (a test compares them); importing them would load NumPy.
VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".webp")
PAGE_SUFFIX = ".html"
PICTURE_SUFFIXES = (".png",)
BUNDLE_SUFFIX = ".gid"
DEMO_PHOTO = Path(__file__).parents[1] / "pretrained" / "photo.jpg"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimateRequest:
  """Animate photos: predict how they move, render the motion and write a video of each.

  Given a video (or a GIF of half a second or more), its own measured motion animates its first frame instead, and
  the result is compared with the film. A .gid file that --save wrote is rendered again, without sampling.

  Attributes:
    sources: The photo, or the video, to animate; without one, a demonstration photo is animated into ./gid_demo.mp4.
      Several are animated in turn, of folders their photos, and a quoted '*.jpg' stands for what it matches.
    output: Video to write, .mp4, .webm, .gif or .webp, or, of a photo, an .html page in which it answers to touch; of
      several inputs a folder. Default: SOURCE_animated.mp4 beside the source.
    seed: Another seed gives another motion of a photo.
    steps: Sampling steps of a photo, 1 to 1000; more is slower and finer. Default: what the weights were tuned for.
    loop: Write one period of motion that is guided to slow down across its seam; without this a photo's motion repeats
      exactly too, every 5 seconds (150 frames at 30 fps), but crosses the seam as fast as any other moment.
    frames: Number of frames to render. Default: 150 / speed; of a video, the first 5 seconds.
    fps: Frames per second of the video; the motion keeps its speed.
    wind: How hard it blows in a photo: calm, breeze or windy, as in 15, 50 and 85 % of clips filmed outdoors.
    magnify: Scales the motion; 0 is a still, 2 moves twice as far.
    bands: Frequencies of a photo's motion to keep, such as 1-4,7; band i swings i times in 5 seconds.
    mask: Picture over the photo: white may move, black rests.
    still: Picture over the photo: white rests.
    direction: Turns a photo's motion, in degrees counter-clockwise; 90 makes upwards of rightwards.
    speed: Speed of a photo's motion; 0.25 is slow motion with true frames in between.
    size: Long side of the video in pixels; a photo is never enlarged.
    save: Write the photo and its sampled motion, not yet edited, to this .gid file too, to animate it again at once.
    weights: Folder of motion.safetensors, and renderer.safetensors for a trained renderer, from `gid export`.
      Default: the embedded weights.
    force: Replace the output, and what --save writes, if they exist.
  """

  sources: Annotated[
    tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PHOTO or VIDEO ...]", help_behavior_hint="")
  ] = ()
  output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
  seed: int = 0
  steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
  loop: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  frames: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
  fps: float = 30.0
  wind: Literal["calm", "breeze", "windy"] = "breeze"
  magnify: float = 1.0
  bands: Annotated[str | None, tyro.conf.arg(metavar="BANDS", help_behavior_hint="")] = None
  mask: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE", help_behavior_hint="")] = None
  still: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE", help_behavior_hint="")] = None
  direction: float = 0.0
  speed: float = 1.0
  size: int = 1080
  save: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
  weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
  force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectRequest:
  """Explain the motion of a video in one picture.

  Flow, confidence, power per frequency and X-t slices of five seconds, or all of a shorter one. Needs matplotlib:
  pip install '.[plots]'.

  Attributes:
    video: The video, or GIF, to look into.
    output: Picture to write, .png. Default: VIDEO_inspect.png beside the video.
    start: Where to begin in the video, in seconds.
    force: Replace the output if it exists.
  """

  video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
  output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
  start: float = 0.0
  force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
  """Write checkpoints of two training runs as weights for `gid animate --weights FOLDER`.

  Attributes:
    motion: Work folder of a `ldm_coordinated` (or `ldm`) run.
    renderer: Work folder of a `renderer` run.
    output: Folder to write motion.safetensors and renderer.safetensors into; weights there are replaced.
    best: Take the checkpoints with the lowest validation loss instead of the newest.
    label: Version of the weights, any text; the files carry it.
  """

  motion: Path | None = None
  renderer: Path | None = None
  output: Path
  best: bool = False
  label: str = ""


def check_values(request: AnimateRequest) -> None:
  """Checks what can be wrong with the options whatever the source.

  Args:
    request: the options.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  limits = {
    "--seed": (request.seed, 0, 2**32 - 1),
    "--steps": (1 if request.steps is None else request.steps, 1, 1000),
    "--frames": (2 if request.frames is None else request.frames, 2, 100_000),
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
  if request.bands is not None:
    parse_bands(request.bands)
  if request.loop and request.frames is not None:
    raise UserError(f"--loop and --frames {request.frames}: a loop is exactly one period long; leave out one of them")
  for picture in (request.mask, request.still):
    if picture is not None:
      check_source(picture, give="a picture")


def check_animate(request: AnimateRequest) -> tuple[Path, Path]:
  """Checks everything that needs neither JAX nor the pixels, for one source or none.

  Args:
    request: the options.

  Returns:
    The photo or video to read and the video to write.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  check_values(request)
  source = request.sources[0] if request.sources else DEMO_PHOTO
  default = source.parent / name_output(source) if request.sources else Path("gid_demo.mp4")
  output = default if request.output is None else request.output
  if output.suffix.lower() == ".gif" and request.fps > 50:
    raise UserError(f"{output}: GIF plays at most 50 frames per second; lower --fps or write .mp4")
  suffixes = (*VIDEO_SUFFIXES, PAGE_SUFFIX)
  _check_files(source, output, give="a photo or a video, or a .gid file", suffixes=suffixes, force=request.force)
  if is_bundle(source):
    given = ("--seed", request.seed != 0), ("--steps", request.steps is not None), ("--loop", request.loop)
    for option, is_given in (*given, ("--save", request.save is not None)):
      if is_given:
        raise UserError(f"{option} is for photos; the motion in {source} is sampled already")
  if request.save is not None:
    _check_files(None, request.save, give="", suffixes=(BUNDLE_SUFFIX,), force=request.force)
  return source, output


def name_output(source: Path) -> str:
  """The name of the video of a source, where none is given."""
  return f"{source.stem}_animated.mp4"


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


def list_edits(request: AnimateRequest) -> tuple[tuple[str, bool], ...]:
  """The options that edit a sampled motion, and whether each was given."""
  pictures = ("--mask", request.mask is not None), ("--still", request.still is not None)
  numbers = ("--direction", request.direction != 0), ("--speed", request.speed != 1)
  return ("--bands", request.bands is not None), *pictures, *numbers


def is_bundle(source: Path) -> bool:
  """Whether a file's name says that it is a photo with its sampled motion, from `gid animate --save`."""
  return source.suffix.lower() == BUNDLE_SUFFIX


def check_inspect(request: InspectRequest) -> Path:
  """Checks everything that needs neither JAX nor the frames, and says which picture to write.

  Args:
    request: the options.

  Returns:
    The picture to write.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  if not 0 <= request.start < math.inf:
    raise UserError(f"--start is {request.start}; it must be 0 or more seconds")
  default = request.video.parent / f"{request.video.stem}_inspect.png"
  output = default if request.output is None else request.output
  _check_files(request.video, output, give="a video", suffixes=PICTURE_SUFFIXES, force=request.force)
  return output


def _check_files(source: Path | None, output: Path, *, give: str, suffixes: Sequence[str], force: bool) -> None:
  try:
    if source is not None:
      _check_source(source, give)
    _check_output(output, source, suffixes, force)
  except OSError as error:
    raise UserError(f"{error.filename}: {error.strerror}") from error


def check_source(source: Path, *, give: str) -> None:
  """Checks that a file is there, can be read and holds something.

  Args:
    source: the file.
    give: what to give instead, in words.

  Raises:
    UserError: naming what is wrong.
  """
  try:
    _check_source(source, give)
  except OSError as error:
    raise UserError(f"{error.filename}: {error.strerror}") from error


def _check_source(source: Path, give: str) -> None:
  if not source.exists():
    raise UserError(f"cannot read {source}: no such file")
  if not source.is_file():
    raise UserError(f"{source} is not a file; give {give}")
  if not os.access(source, os.R_OK):
    raise UserError(f"cannot read {source}: permission denied")
  if source.stat().st_size == 0:
    raise UserError(f"{source} is empty (0 bytes)")


def _check_output(output: Path, source: Path | None, suffixes: Sequence[str], force: bool) -> None:
  if output.suffix.lower() not in suffixes:
    kind = "video" if len(suffixes) > 1 else "bundle" if BUNDLE_SUFFIX in suffixes else "picture"
    choice = f"use one of {', '.join(suffixes)}" if len(suffixes) > 1 else f"use {suffixes[0]}"
    raise UserError(f"{output}: unknown {kind} format '{output.suffix}'; {choice}")
  if not output.parent.is_dir():
    raise UserError(f"cannot write {output}: the folder {output.parent} does not exist")
  if output.is_dir():
    raise UserError(f"{output} is a folder; give a file name")
  if source is not None and output.exists() and output.samefile(source):
    raise UserError(f"{output} is the input itself; choose another --output")
  if output.exists() and not force:
    raise UserError(f"{output} already exists; use --force or --output")
  if not os.access(output.parent, os.W_OK | os.X_OK):
    raise UserError(f"cannot write into {output.parent}: permission denied; choose another --output")
