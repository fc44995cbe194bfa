"""The `gid` command: `gid animate [PHOTO]` turns a photo into a video, `gid export` turns training runs into weights.

Whatever can be refused is refused before JAX is imported, so that help is instant and a typing error does not
cost minutes of sampling. This file therefore imports nothing heavy at its top.
"""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gid_jax import __version__
from gid_jax.errors import UserError

# The same as gid_jax.encoding.VIDEO_SUFFIXES (a test compares them), which cannot be imported without JAX.
_VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".webp")
_DEMO_PHOTO = Path(__file__).parent / "pretrained" / "photo.jpg"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimateRequest:
  """Animate a photo: predict how it moves, render the motion and write a video.

  Attributes:
    photo: The photo to animate; without one, a demonstration photo is animated into ./gid_demo.mp4.
    output: Video to write, .mp4, .webm, .gif or .webp. Default: PHOTO_animated.mp4 beside the photo.
    seed: Another seed gives another motion.
    steps: Sampling steps, 1 to 1000; more is slower and finer. Default: what the weights were tuned for.
    frames: Number of frames to render.
    fps: Frames per second of the video; the motion keeps its speed.
    magnify: Scales the motion; 0 is a still, 2 moves twice as far.
    size: Long side of the video in pixels; a photo is never enlarged.
    weights: Folder of motion.safetensors and renderer.safetensors from `gid export`. Default: the embedded weights.
    force: Replace the output if it exists.
  """

  photo: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PHOTO]", help_behavior_hint="")] = None
  output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
  seed: int = 0
  steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
  frames: int = 150
  fps: float = 30.0
  magnify: float = 1.0
  size: int = 512
  weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
  force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
  """Write the newest checkpoints of two training runs as weights for `gid animate --weights FOLDER`.

  Attributes:
    motion: Work folder of a `ldm_coordinated` (or `ldm`) run.
    renderer: Work folder of a `renderer` run.
    output: Folder to write motion.safetensors and renderer.safetensors into; weights there are replaced.
  """

  motion: Path | None = None
  renderer: Path | None = None
  output: Path


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit status: 0 done, 2 refused or failed, 130 interrupted.

  Args:
    argv: arguments without the program's name; those of the process by default.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  if arguments == ["--version"]:
    print(f"gid {__version__}")
    return 0
  if not arguments:
    arguments = ["--help"]
  try:
    request = tyro.extras.subcommand_cli_from_dict(
      {"animate": AnimateRequest, "export": ExportRequest},
      prog="gid",
      description="Generative Image Dynamics: one still photo in, natural oscillating motion out. "
      "`gid --version` prints the version.",
      args=arguments,
    )
    animate(request) if isinstance(request, AnimateRequest) else export(request)
  except UserError as error:
    print("gid: error: " + " ".join(str(error).splitlines()), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("gid: interrupted; nothing was written", file=sys.stderr)
    return 130
  return 0


def animate(request: AnimateRequest) -> None:
  """Carries out `gid animate`.

  Args:
    request: the options.

  Raises:
    UserError: an option out of range, an unreadable photo or an unwritable output.
  """
  photo, output = check_request(request)
  configure_jax()
  _animate(request, photo, output)


def export(request: ExportRequest) -> None:
  """Carries out `gid export`: averaged parameters, float16, one checked file a model.

  Args:
    request: the options.

  Raises:
    UserError: nothing to export, or a work folder without a readable checkpoint.
  """
  if request.motion is None and request.renderer is None:
    raise UserError("nothing to export; give --motion, --renderer or both")
  from gid_jax.checkpoint import export_weights, restore_params
  from gid_jax.pipeline import MOTION_WEIGHTS, RENDERER_WEIGHTS

  for workdir, name in ((request.motion, MOTION_WEIGHTS), (request.renderer, RENDERER_WEIGHTS)):
    if workdir is None:
      continue
    params, config = restore_params(workdir)
    # Paths of the machine that trained say nothing to others.
    config = {part: value for part, value in config.items() if part not in ("init", "data", "loss")}
    path = request.output / name
    try:
      export_weights(path, params, config=config)
    except OSError as error:
      raise UserError(f"cannot write {path}: {error.strerror}") from error
    print(f"Wrote {path}: {_format_bytes(path.stat().st_size)}")


def check_request(request: AnimateRequest) -> tuple[Path, Path]:
  """Checks everything that needs neither JAX nor the photo's pixels.

  Args:
    request: the options.

  Returns:
    The photo to read and the video to write.

  Raises:
    UserError: naming the first thing that is wrong.
  """
  limits = {
    "--seed": (request.seed, 0, 2**32 - 1),
    "--steps": (1 if request.steps is None else request.steps, 1, 1000),
    "--frames": (request.frames, 2, 100_000),
    "--fps": (request.fps, 0.1, 240),
    "--size": (request.size, 64, 4096),
  }
  for option, (value, low, high) in limits.items():
    if not low <= value <= high:
      raise UserError(f"{option} is {value}; it must be between {low} and {high}")
  if not math.isfinite(request.magnify):
    raise UserError(f"--magnify is {request.magnify}; it must be a finite number")
  photo = _DEMO_PHOTO if request.photo is None else request.photo
  try:
    _check_photo(photo)
    beside = photo.parent / f"{photo.stem}_animated.mp4"
    default = Path("gid_demo.mp4") if request.photo is None else beside
    output = default if request.output is None else request.output
    _check_output(output, photo, request)
  except OSError as error:
    raise UserError(f"{error.filename}: {error.strerror}") from error
  return photo, output


def configure_jax() -> None:
  """Sets the environment for the coming import of JAX, leaving alone what the user has set.

  Programs are compiled once and kept in the user's cache folder, small ones included, and GPU memory is taken as
  it is needed.
  """
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  try:
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification ignores a relative path.
    folder = (Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache") / "gid-jax" / "xla"
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):
    return  # No home or a read-only one: compile every time.
  if os.access(folder, os.W_OK):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def _check_photo(photo: Path) -> None:
  if not photo.exists():
    raise UserError(f"cannot read {photo}: no such file")
  if not photo.is_file():
    raise UserError(f"{photo} is not a file; give a photo")
  if not os.access(photo, os.R_OK):
    raise UserError(f"cannot read {photo}: permission denied")
  if photo.stat().st_size == 0:
    raise UserError(f"{photo} is empty (0 bytes)")


def _check_output(output: Path, photo: Path, request: AnimateRequest) -> None:
  suffix = output.suffix.lower()
  if suffix not in _VIDEO_SUFFIXES:
    choices = ", ".join(_VIDEO_SUFFIXES)
    raise UserError(f"{output}: unknown video format '{output.suffix}'; use one of {choices}")
  if suffix == ".gif" and request.fps > 50:
    raise UserError(f"{output}: GIF plays at most 50 frames per second; lower --fps or write .mp4")
  if not output.parent.is_dir():
    raise UserError(f"cannot write {output}: the folder {output.parent} does not exist")
  if output.is_dir():
    raise UserError(f"{output} is a folder; give a file name")
  if output.exists() and output.samefile(photo):
    raise UserError(f"{output} is the photo itself; choose another --output")
  if output.exists() and not request.force:
    raise UserError(f"{output} already exists; use --force or --output")
  if not os.access(output.parent, os.W_OK | os.X_OK):
    raise UserError(f"cannot write into {output.parent}: permission denied; choose another --output")


def _animate(request: AnimateRequest, photo: Path, output: Path) -> None:
  start = time.perf_counter()
  import jax
  from rich.console import Console

  from gid_jax import media
  from gid_jax.pipeline import Animator

  console = Console(highlight=False, markup=False, soft_wrap=True)
  image = media.read_image(photo)
  devices = jax.devices()
  plural = "device" if len(devices) == 1 else "devices"
  console.print(f"JAX {jax.__version__} on {jax.default_backend()}, {len(devices)} {plural}")
  with console.status("Loading the model"):
    animator = Animator.from_pretrained(request.weights)
  with _progress(console) as progress:
    sampling = progress.add_task("Compiling", total=request.steps)
    spectrum = animator.predict_spectrum(
      jax.random.key(request.seed),
      image,
      steps=request.steps,
      progress=lambda done, total: progress.update(sampling, completed=done, total=total, description="Sampling"),
    )
    frames = animator.render(
      image, spectrum, frames=request.frames, fps=request.fps, magnify=request.magnify, size=request.size
    )
    rendered = progress.track(frames, total=request.frames, description="Rendering")
    video = media.write_video(output, rendered, fps=request.fps, overwrite=request.force)
  console.print(
    f"Wrote {video.path}: {video.width}x{video.height}, {video.num_frames} frames, {request.fps:g} fps, "
    f"{video.num_frames / request.fps:.1f} s, {_format_bytes(video.num_bytes)}, "
    f"in {time.perf_counter() - start:.1f} s"
  )


def _progress(console):
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

  columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
  return Progress(*columns, console=console)


def _format_bytes(num_bytes: int) -> str:
  return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


if __name__ == "__main__":
  raise SystemExit(main())
