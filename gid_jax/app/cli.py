"""The `gid` command: `gid [animate] [PHOTO ...]`, `gid loop`, `gid serve`, `gid inspect`, `gid export`, `gid doctor`.

Whatever can be refused is refused before JAX is imported, so that help is instant and a typing error does not
cost minutes of sampling. This file therefore imports nothing heavy at its top.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import tyro

from gid_jax import __version__
from gid_jax.app.animate import animate
from gid_jax.app.checks import check_inspect
from gid_jax.app.console import (
  HungUp,
  Terminated,
  describe,
  format_bytes,
  open_console,
  open_progress,
  print_warning,
  report_to,
)
from gid_jax.app.options import (
  AnimateRequest,
  DoctorRequest,
  ExportRequest,
  InspectRequest,
  LoopRequest,
  MotionRequest,
)
from gid_jax.app.serve import ServeRequest, serve
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError
from gid_jax.files import claim, complete_or_nothing


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit status.

  It is 0 for done, 2 refused or failed, 129 hung up, 130 interrupted, 141 nobody reads what is printed, 143 terminated.

  Args:
    argv: arguments without the program's name; those of the process by default.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # a console that cannot print a name shows its code points
      stream.reconfigure(errors="backslashreplace")
  try:
    with _signals_end():
      try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
      except SystemExit:  # of help, and of options that are wrong
        print(end="", flush=True)
        raise
      print(end="", flush=True)
      return status
  except KeyboardInterrupt as error:
    _complain(f"interrupted; {str(error) or 'nothing was written'}")
    return 130
  except Terminated as error:
    _complain(f"terminated; {str(error) or 'nothing was written'}")
    return error.status
  except BrokenPipeError:  # who reads what is printed has gone, and wants no more of it
    with contextlib.suppress(OSError, ValueError):
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except Exception as error:
    if os.environ.get("GID_TRACEBACK") and not isinstance(error, UserError):
      raise
    _complain(f"error: {describe(error)}")
    return 2


def _complain(line: str) -> None:
  with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
    print(f"gid: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals_end() -> Iterator[None]:
  heard, is_over, report_before = [], threading.Event(), sys.unraisablehook

  def end(number, _):
    heard.append(number)
    raise _SIGNALS[signal.Signals(number).name]

  def send_again():
    if not is_over.is_set():
      os.kill(os.getpid(), heard[-1])

  def report(unraisable):
    # While garbage is collected exceptions are lost.
    if issubclass(unraisable.exc_type, KeyboardInterrupt | Terminated) and heard:
      threading.Timer(0.01, send_again).start()
    else:
      report_before(unraisable)

  if threading.current_thread() is not threading.main_thread():  # only it can
    yield
    return
  numbers = (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name))
  # What is ignored stays so: nohup asks for it.
  before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
  sys.unraisablehook = report
  try:
    yield
  finally:
    is_over.set()
    sys.unraisablehook = report_before
    for number, handler in before.items():
      signal.signal(number, handler)


_SIGNALS = {"SIGINT": KeyboardInterrupt, "SIGTERM": Terminated, "SIGHUP": HungUp}  # Windows has no SIGHUP


_COMMANDS = {
  "animate": AnimateRequest,
  "loop": LoopRequest,
  "serve": ServeRequest,
  "inspect": InspectRequest,
  "export": ExportRequest,
  "doctor": DoctorRequest,
}


def _run(arguments: list[str]) -> int:
  if arguments in (["--version"], ["-V"], ["version"]):
    print(f"gid {__version__}")
    return 0
  request = tyro.extras.subcommand_cli_from_dict(
    _COMMANDS,
    prog="gid",
    description="Generative Image Dynamics: one still photo in, natural oscillating motion out. "
    "`gid PHOTO` is `gid animate PHOTO`, `gid --version` prints the version, and "
    "`gid --tyro-print-completion bash` (or zsh, tcsh) prints what makes the shell complete options.",
    args=_complete(arguments),
  )
  if isinstance(request, MotionRequest):
    return animate(request)
  if isinstance(request, DoctorRequest):
    from gid_jax.app.doctor import examine

    return examine()
  if isinstance(request, ServeRequest):
    serve(request)
  elif isinstance(request, InspectRequest):
    inspect(request)
  else:
    export(request)
  return 0


def _complete(arguments: list[str]) -> list[str]:
  """Arguments that begin with a command; a photo alone is to be animated.

  Raises:
    UserError: the first word is neither a command nor a file, or a word is empty.
  """
  if not arguments:
    return ["--help"]
  if "" in arguments:  # which would stand for the folder one is in
    raise UserError("an argument is empty, such as a variable of the shell that is not set; give a name")
  first = arguments[0]
  if first in _COMMANDS or first in ("-h", "--help") or first.startswith("--tyro-"):
    return arguments
  if re.fullmatch(r"[a-z]+", first) and not os.path.lexists(first):
    near = difflib.get_close_matches(first, _COMMANDS, 1)
    hint = f"; did you mean gid {near[0]}?" if near else f"; the commands are {', '.join(_COMMANDS)}"
    raise UserError(f"{first} is neither a command nor a file{hint}")
  return ["animate", *arguments]


def inspect(request: InspectRequest) -> None:
  """Carries out `gid inspect`.

  Args:
    request: the options.

  Raises:
    UserError: an option out of range, an unreadable video, an unwritable output, or matplotlib is missing.
  """
  wanted, is_numbered = check_inspect(request)
  if importlib.util.find_spec("matplotlib") is None:
    raise UserError("gid inspect draws with matplotlib; install it with: pip install '.[plots]'")
  start = time.perf_counter()
  configure_jax()
  console = open_console()
  with contextlib.nullcontext(wanted) if request.force else claim(wanted, numbered=is_numbered) as output:
    picture = _inspect_video(request, console)
    with complete_or_nothing(output, overwrite=request.force) as temporary:
      temporary.write_bytes(picture)
  console.print(f"Wrote {output}: {format_bytes(output.stat().st_size)}, in {time.perf_counter() - start:.1f} s")


def export(request: ExportRequest) -> None:
  """Carries out `gid export`: averaged parameters, float16, one checked file a model; or a .gid file, packed.

  Args:
    request: the options.

  Raises:
    UserError: nothing to export, a work folder without a readable checkpoint, or an unreadable .gid file.
  """
  if request.packed or request.bundle is not None:
    _export_packed(request)
    return
  if request.motion is None and request.renderer is None and request.plate is None:
    raise UserError("nothing to export; give --motion, --renderer or --plate")
  from gid_jax.weights.checkpoint import restore_params
  from gid_jax.weights.pretrained import (
    MOTION_WEIGHTS,
    PLATE_WEIGHTS,
    RENDERER_WEIGHTS,
    config_to_settings,
    export_weights,
  )

  for option, workdir, name, stages in (
    ("--motion", request.motion, MOTION_WEIGHTS, ("ldm_coordinated", "ldm")),
    ("--renderer", request.renderer, RENDERER_WEIGHTS, ("renderer",)),
    ("--plate", request.plate, PLATE_WEIGHTS, ("plate",)),
  ):
    if workdir is None:
      continue
    try:
      params, config = restore_params(workdir, which="best" if request.best else "newest", warn=print_warning)
    except ImportError as error:
      reason = f"{error.name} is missing, which reads checkpoints"
      raise UserError(f"{reason}; install it with: pip install '.[train]'") from error
    settings = dataclasses.replace(config_to_settings(config, where=f"{workdir}: config"), label=request.label)
    if settings.stage not in stages:
      raise UserError(f"{workdir} holds stage {settings.stage!r}; {option} takes {' or '.join(stages)}")
    path = request.output / name
    export_weights(path, params, settings=settings)
    print(f"Wrote {path}: {format_bytes(path.stat().st_size)}")


def _inspect_video(request: InspectRequest, console) -> bytes:
  from gid_jax.app.inspection import inspect_video
  from gid_jax.app.inspection_sheet import inspection_to_png

  with open_progress(console) as progress:
    inspection = inspect_video(
      request.video, start=request.start, progress=report_to(progress), warn=print_warning)
  with console.status("Drawing"):
    return inspection_to_png(inspection)


def _export_packed(request: ExportRequest) -> None:
  runs = (request.motion, request.renderer, request.plate)
  if request.bundle is None or not request.packed or any(run is not None for run in runs):
    raise UserError("a .gid file and --packed go together, and with none of --motion, --renderer and --plate")
  import numpy as np

  from gid_jax.bundle import load_bundle
  from gid_jax.touch.packed import export_packed

  bundle = load_bundle(request.bundle)
  export_packed(bundle.photo.astype(np.float32) / 255, bundle.spectrum, request.output)
  print(f"Wrote {request.output}: image.png, flow_xy_data, tables.json")
