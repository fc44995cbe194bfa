"""The `gid` command: `gid animate [PHOTO or VIDEO]`, `gid inspect VIDEO`, `gid export`.

Whatever can be refused is refused before JAX is imported, so that help is instant and a typing error does not
cost minutes of sampling. This file therefore imports nothing heavy at its top.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tyro

from gid_jax import __version__
from gid_jax.app.batch import is_batch, split_batch
from gid_jax.app.options import (
  PAGE_SUFFIX,
  AnimateRequest,
  ExportRequest,
  InspectRequest,
  check_animate,
  check_inspect,
  is_bundle,
  list_edits,
)
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError
from gid_jax.files import first_line


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit status: 0 done, 2 refused or failed, 130 interrupted, 143 terminated.

  Args:
    argv: arguments without the program's name; those of the process by default.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # a console that cannot print a name shows its code points
      stream.reconfigure(errors="backslashreplace")
  try:
    with _sigterm_ends():
      return _run(list(sys.argv[1:] if argv is None else argv))
  except KeyboardInterrupt as error:
    print(f"gid: interrupted; {str(error) or 'nothing was written'}", file=sys.stderr)
    return 130
  except _Terminated as error:
    print(f"gid: terminated; {str(error) or 'nothing was written'}", file=sys.stderr)
    return 143
  except Exception as error:
    if os.environ.get("GID_TRACEBACK") and not isinstance(error, UserError):
      raise
    print(f"gid: error: {_describe(error)}", file=sys.stderr)
    return 2


def _describe(error: Exception) -> str:
  if isinstance(error, UserError):
    return " ".join(str(error).splitlines())
  return (f"{type(error).__name__}: {first_line(error)}; this should not have happened: please report it "
          "with what GID_TRACEBACK=1 in the environment prints")  # fmt: skip


class _Terminated(BaseException):
  """What SIGTERM becomes, so that nothing half-written is left behind."""


@contextlib.contextmanager
def _sigterm_ends() -> Iterator[None]:
  def end(*_):
    raise _Terminated

  if threading.current_thread() is not threading.main_thread():  # only it can
    yield
    return
  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str]) -> int:
  if arguments == ["--version"]:
    print(f"gid {__version__}")
    return 0
  if not arguments:
    arguments = ["--help"]
  request = tyro.extras.subcommand_cli_from_dict(
    {"animate": AnimateRequest, "inspect": InspectRequest, "export": ExportRequest},
    prog="gid",
    description="Generative Image Dynamics: one still photo in, natural oscillating motion out. "
    "`gid --version` prints the version.",
    args=arguments,
  )
  if isinstance(request, AnimateRequest):
    return animate(request)
  if isinstance(request, InspectRequest):
    inspect(request)
  else:
    export(request)
  return 0


def animate(request: AnimateRequest) -> int:
  """Carries out `gid animate`.

  Args:
    request: the options.

  Returns:
    The exit status: 0, or 2 when some of several sources failed.

  Raises:
    UserError: an option out of range, an unreadable photo or video, or an unwritable output.
  """
  models = _Models(request.weights)
  if not is_batch(request):
    _animate_one(request, models)
    return 0
  animated: dict[Path, Path] = {}  # outputs and their sources
  failed = 0
  for one in split_batch(request):
    source, output = one.sources[0], one.output
    assert output is not None
    try:
      if output in animated:
        raise UserError(f"{output} is already that of {animated[output]}; rename one of them")
      if source.is_dir():
        raise UserError(f"{source} holds no photos; give files, or a folder of them")
      _animate_one(one, models)
      animated[output] = source
    except Exception as error:
      if os.environ.get("GID_TRACEBACK") and not isinstance(error, UserError):
        raise
      reason = _describe(error)
      named = "" if str(source) in reason else f"{source}: "
      print(f"gid: error: {named}{reason}", file=sys.stderr)
      failed += 1
    except (KeyboardInterrupt, _Terminated) as end:
      raise type(end)(f"{len(animated)} animated, {failed} failed") from None
  print(f"{len(animated)} animated, {failed} failed")
  return 2 if failed else 0


class _Models:
  """What animates, loaded when it is first needed and kept for the sources that follow."""

  def __init__(self, weights: Path | None):
    self._weights = weights

  @functools.cached_property
  def animator(self):
    from gid_jax.pipeline import Animator

    return Animator.from_pretrained(self._weights)

  @functools.cached_property
  def renderer(self):
    from gid_jax.pipeline import ImageRenderer

    return ImageRenderer.from_pretrained(self._weights)


def _animate_one(request: AnimateRequest, models: _Models) -> None:
  source, output = check_animate(request)
  from gid_jax.media.shots import is_video

  if is_bundle(source):
    _animate_bundle(request, source, output, models)
  elif is_video(source):
    if output.suffix.lower() == PAGE_SUFFIX:
      raise UserError(f"{output}: a page answers to touch with a photo, and {source} is a video; write .mp4 instead")
    for_photos = ("--steps", request.steps is not None), ("--loop", request.loop), ("--wind", request.wind != "breeze")
    for option, given in (*for_photos, *list_edits(request), ("--save", request.save is not None)):
      if given:
        raise UserError(f"{option} is for photos; the motion of the video {source} is measured, not sampled")
    _animate_video(request, source, output, models)
  else:
    _animate_photo(request, source, output, models)


def inspect(request: InspectRequest) -> None:
  """Carries out `gid inspect`.

  Args:
    request: the options.

  Raises:
    UserError: an option out of range, an unreadable video, an unwritable output, or matplotlib is missing.
  """
  output = check_inspect(request)
  if importlib.util.find_spec("matplotlib") is None:
    raise UserError("gid inspect draws with matplotlib; install it with: pip install '.[plots]'")
  start = time.perf_counter()
  configure_jax()
  from gid_jax.files import complete_or_nothing

  console = _console()
  picture = _inspect_video(request, console)
  with complete_or_nothing(output, overwrite=request.force) as temporary:
    temporary.write_bytes(picture)
  console.print(f"Wrote {output}: {_format_bytes(output.stat().st_size)}, in {time.perf_counter() - start:.1f} s")


def export(request: ExportRequest) -> None:
  """Carries out `gid export`: averaged parameters, float16, one checked file a model.

  Args:
    request: the options.

  Raises:
    UserError: nothing to export, or a work folder without a readable checkpoint.
  """
  if request.motion is None and request.renderer is None:
    raise UserError("nothing to export; give --motion, --renderer or both")
  from gid_jax.weights.checkpoint import restore_params
  from gid_jax.weights.pretrained import MOTION_WEIGHTS, RENDERER_WEIGHTS, config_to_settings, export_weights

  for option, workdir, name, stages in (
    ("--motion", request.motion, MOTION_WEIGHTS, ("ldm_coordinated", "ldm")),
    ("--renderer", request.renderer, RENDERER_WEIGHTS, ("renderer",)),
  ):
    if workdir is None:
      continue
    try:
      params, config = restore_params(workdir, which="best" if request.best else "newest")
    except ImportError as error:
      reason = f"{error.name} is missing, which reads checkpoints"
      raise UserError(f"{reason}; install it with: pip install '.[train]'") from error
    settings = dataclasses.replace(config_to_settings(config, where=f"{workdir}: config"), label=request.label)
    if settings.stage not in stages:
      raise UserError(f"{workdir} holds stage {settings.stage!r}; {option} takes {' or '.join(stages)}")
    path = request.output / name
    try:
      export_weights(path, params, settings=settings)
    except OSError as error:
      raise UserError(f"cannot write {path}: {error.strerror}") from error
    print(f"Wrote {path}: {_format_bytes(path.stat().st_size)}")


def _animate_photo(request: AnimateRequest, photo: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  configure_jax()
  import jax

  from gid_jax.app.edits import read_edits
  from gid_jax.media import photos
  from gid_jax.motion.editing import check_bands

  console = _console()
  image = photos.read_image(photo)
  edits = read_edits(request, image)
  _print_devices(console)
  with console.status("Loading the model"):
    animator = models.animator
  if edits.bands is not None:
    check_bands(edits.bands, animator.num_bands)
  with _progress(console) as progress:
    sampling = progress.add_task("Compiling", total=request.steps)
    spectrum = animator.predict_spectrum(
      jax.random.key(request.seed),
      image,
      steps=request.steps,
      loop=request.loop,
      progress=lambda done, total: progress.update(sampling, completed=done, total=total, description="Sampling"),
    )
  period = animator.period if request.loop else None
  _write_moving_photo(request, animator, image, edits.apply(spectrum), photo, output, start, loop_period=period)
  if request.save is not None:
    from gid_jax.bundle import Bundle, save_bundle

    settings = {"steps": request.steps, "loop": request.loop}
    bundle = Bundle((image * 255 + 0.5).astype("uint8"), spectrum, request.seed, settings,
                    weights_label=animator.motion_settings.label)  # fmt: skip
    save_bundle(request.save, bundle, overwrite=request.force)
    console.print(f"Wrote {request.save}: {_format_bytes(request.save.stat().st_size)}")


def _animate_bundle(request: AnimateRequest, source: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  from gid_jax.bundle import load_bundle

  bundle = load_bundle(source)
  configure_jax()
  from gid_jax.app.edits import read_edits

  image = bundle.photo.astype("float32") / 255
  spectrum = read_edits(request, image).apply(bundle.spectrum)
  _print_devices(_console())
  is_loop = bundle.settings.get("loop") is True and request.frames is None
  period = spectrum.num_frames / spectrum.fps if is_loop else None
  _write_moving_photo(request, models.renderer, image, spectrum, source, output, start, loop_period=period)


def _write_moving_photo(
  request: AnimateRequest, renderer, image, spectrum, source: Path, output: Path, start: float, *, loop_period
) -> None:
  """Renders a photo that moves along a sampled spectrum, one period of it if that is a loop's, or writes its page."""
  from gid_jax.media import encoding
  from gid_jax.motion.spectral import WINDS, magnify

  console, factor = _console(), request.magnify * WINDS[request.wind]
  if output.suffix.lower() == PAGE_SUFFIX:
    from gid_jax.touch.export import export_html

    title = source.stem if request.sources else "A photo to touch"
    export_html(image, magnify(spectrum, factor), output, title=title, size=request.size, overwrite=request.force)
    console.print(f"Wrote {output}: {_format_bytes(output.stat().st_size)}, in {time.perf_counter() - start:.1f} s")
    return
  # Slower motion is the same series at times that lie closer together.
  num_frames, fps = request.frames or max(2, round(150 / request.speed)), request.fps / request.speed
  if loop_period is not None:
    # The frames share the period evenly, so that the one after the last is the first, whatever the frame rate.
    num_frames = max(2, round(loop_period * fps))
    fps = num_frames / loop_period
  frames = renderer.render(image, spectrum, frames=num_frames, fps=fps, magnify=factor, size=request.size)
  with _progress(console) as progress:
    rendered = progress.track(frames, total=num_frames, description="Rendering")
    video = encoding.write_video(output, rendered, fps=request.fps, overwrite=request.force)
  _print_video(console, video, request.fps, start)


def _animate_video(request: AnimateRequest, source: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  configure_jax()
  import numpy as np

  from gid_jax.app.inspection import FilmComparison, fit_working_size, measure_spectrum
  from gid_jax.media import encoding, shots

  console = _console()
  shot = shots.read_shot(source, size=fit_working_size)
  image = shots.read_first_frame(source).astype(np.float32) / 255
  _print_devices(console)
  renderer = models.renderer
  num_frames = request.frames or max(2, round(len(shot.frames) * request.fps / shot.fps))
  comparison = FilmComparison(shot, fps=request.fps)
  with _progress(console) as progress:
    spectrum = measure_spectrum(shot, progress=_report_to(progress))
    # Anchoring would shift the whole film by half of what separates its last frame from its first.
    frames = renderer.render(
      image, spectrum, frames=num_frames, fps=request.fps, magnify=request.magnify, size=request.size,
      anchor_first_frame=False)
    rendered = comparison.watch(progress.track(frames, total=num_frames, description="Rendering"))
    video = encoding.write_video(output, rendered, fps=request.fps, overwrite=request.force)
  if request.magnify == 1 and comparison.num_frames:
    console.print(
      f"Against the film, over {comparison.num_frames} frames: {comparison.error:.2f} grey levels;"
      f" its first frame at rest: {comparison.still_error:.2f}")
  _print_video(console, video, request.fps, start)


def _inspect_video(request: InspectRequest, console) -> bytes:
  from gid_jax.app.inspection import inspect_video
  from gid_jax.app.inspection_sheet import inspection_to_png

  with _progress(console) as progress:
    inspection = inspect_video(request.video, start=request.start, progress=_report_to(progress))
  with console.status("Drawing"):
    return inspection_to_png(inspection)


def _console():
  from rich.console import Console

  return Console(highlight=False, markup=False, soft_wrap=True)


def _print_devices(console) -> None:
  import jax

  devices = jax.devices()
  plural = "device" if len(devices) == 1 else "devices"
  console.print(f"JAX {jax.__version__} on {jax.default_backend()}, {len(devices)} {plural}")


def _print_video(console, video, fps: float, start: float) -> None:
  console.print(
    f"Wrote {video.path}: {video.width}x{video.height}, {video.num_frames} frames, {fps:g} fps, "
    f"{video.num_frames / fps:.1f} s, {_format_bytes(video.num_bytes)}, "
    f"in {time.perf_counter() - start:.1f} s"
  )


def _report_to(progress):
  """A callback (step, done, total) that shows every step as a bar of its own."""
  tasks = {}

  def report(step: str, done: int, total: int) -> None:
    if step not in tasks:
      tasks[step] = progress.add_task(step, total=total)
    # A step may turn out shorter: repeated frames are measured once.
    progress.update(tasks[step], completed=done, total=total)

  return report


def _progress(console):
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

  columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
  return Progress(*columns, console=console)


def _format_bytes(num_bytes: int) -> str:
  return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


if __name__ == "__main__":
  raise SystemExit(main())
