"""What the `gid` command says: where it writes, its bars, its one line for a failure."""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gid_jax.errors import UserError
from gid_jax.files import blame_machine, first_line

# Control characters, and those that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Terminated(BaseException):
  """What SIGTERM becomes, so that nothing half-written is left behind.

  Attributes:
    status: exit status of the command.
  """

  status = 143


class HungUp(Terminated):
  """What SIGHUP becomes: the terminal was closed."""

  status = 129


class Log:
  """What is said and measured while one input is animated.

  Attributes:
    console: where steps are shown.
    seconds: how long each phase took.
    warnings: what the user was told of the result.
    written: the files that are complete.
  """

  def __init__(self, *, is_json: bool, is_quiet: bool = False):
    """Opens a log that ends in a line of JSON, or one that keeps standard output for the video."""
    self.console = open_console(to_stderr=is_json or is_quiet)
    self.seconds: dict[str, float] = {}
    self.warnings: list[str] = []
    self.written: list[Path] = []
    self._is_json, self._start = is_json, time.perf_counter()

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Times what happens in the block."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

  @property
  def elapsed(self) -> float:
    """Seconds since the log was opened."""
    return time.perf_counter() - self._start

  def warn(self, text: str) -> None:
    """Says what the user may want to do otherwise, in one line."""
    self.warnings.append(text)
    print_warning(text)

  def wrote(self, path: Path, num_bytes: int) -> None:
    """Says that a file was written."""
    self.written.append(path)
    self.console.print(make_printable(f"Wrote {path}: {format_bytes(num_bytes)}, in {self.elapsed:.1f} s"))

  def end(self, source: Path, **facts) -> None:
    """Prints the line of JSON of one input, if that is asked for."""
    if self._is_json:
      seconds = {name: round(value, 3) for name, value in self.seconds.items()}
      line = {"source": str(source), **facts, "seconds": {**seconds, "total": round(self.elapsed, 3)}}
      print(json.dumps(line | {"warnings": self.warnings}), flush=True)


def make_printable(text: str) -> str:
  """A text on one line, without what would command a terminal: a file's name may hold anything."""
  return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def describe(error: Exception) -> str:
  """One line for the user: the message of a `UserError`, or that anything else is a fault of ours."""
  if isinstance(error, UserError):
    return make_printable(" ".join(str(error).splitlines()))
  cause = blame_machine(error)
  if cause is not None:
    return make_printable(cause)
  return (f"{type(error).__name__}: {first_line(error)}; this should not have happened: please report it "
          "with what GID_TRACEBACK=1 in the environment prints")  # fmt: skip


def print_warning(message: str) -> None:
  """Says in one line of stderr what is not as it should be, though the work goes on."""
  print(f"gid: warning: {make_printable(message)}", file=sys.stderr)


def open_console(*, to_stderr: bool = False):
  """Where the command writes what it does."""
  from rich.console import Console

  class PlainConsole(Console):
    def on_broken_pipe(self) -> None:  # rich would end the process with status 1
      raise BrokenPipeError

  return PlainConsole(highlight=False, markup=False, soft_wrap=True, stderr=to_stderr)


def print_devices(console) -> None:
  """Says what JAX runs on."""
  import jax

  devices = jax.devices()
  plural = "device" if len(devices) == 1 else "devices"
  console.print(f"JAX {jax.__version__} on {jax.default_backend()}, {len(devices)} {plural}")


def print_video(log: Log, video, path: Path, fps: float) -> None:
  """Says which video was written under the name `path`."""
  log.written.append(path)
  log.console.print(make_printable(
    f"Wrote {path}: {video.width}x{video.height}, {video.num_frames} frames, {fps:g} fps, "
    f"{video.num_frames / fps:.1f} s, {format_bytes(video.num_bytes)}, in {log.elapsed:.1f} s"
  ))


def report_to(progress):
  """A callback (step, done, total) that shows every step as a bar of its own."""
  tasks = {}

  def report(step: str, done: int, total: int) -> None:
    if step not in tasks:
      tasks[step] = progress.add_task(step, total=total)
    # A step may turn out shorter: repeated frames are measured once.
    progress.update(tasks[step], completed=done, total=total)

  return report


def open_progress(console):
  """Bars of the steps of a command."""
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

  columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
  return Progress(*columns, console=console)


def format_bytes(num_bytes: int) -> str:
  """A size in GB, MB or kB."""
  if num_bytes >= 1e9:
    return f"{num_bytes / 1e9:.1f} GB"
  return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
