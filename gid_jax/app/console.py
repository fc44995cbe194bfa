"""What the `gid` command says: where it writes, its bars, its one line for a failure."""

import sys
import time

from gid_jax.errors import UserError
from gid_jax.files import first_line


class Terminated(BaseException):
  """What SIGTERM becomes, so that nothing half-written is left behind."""


def describe(error: Exception) -> str:
  """One line for the user: the message of a `UserError`, or that anything else is a fault of ours."""
  if isinstance(error, UserError):
    return " ".join(str(error).splitlines())
  return (f"{type(error).__name__}: {first_line(error)}; this should not have happened: please report it "
          "with what GID_TRACEBACK=1 in the environment prints")  # fmt: skip


def print_warning(message: str) -> None:
  """Says in one line of stderr what is not as it should be, though the work goes on."""
  print(f"gid: warning: {' '.join(message.splitlines())}", file=sys.stderr)


def open_console():
  """Where the command writes what it does."""
  from rich.console import Console

  return Console(highlight=False, markup=False, soft_wrap=True)


def print_devices(console) -> None:
  """Says what JAX runs on."""
  import jax

  devices = jax.devices()
  plural = "device" if len(devices) == 1 else "devices"
  console.print(f"JAX {jax.__version__} on {jax.default_backend()}, {len(devices)} {plural}")


def print_video(console, video, fps: float, start: float) -> None:
  """Says what was written, and in how many seconds since `start`."""
  console.print(
    f"Wrote {video.path}: {video.width}x{video.height}, {video.num_frames} frames, {fps:g} fps, "
    f"{video.num_frames / fps:.1f} s, {format_bytes(video.num_bytes)}, "
    f"in {time.perf_counter() - start:.1f} s"
  )


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
  """A size in kB or MB."""
  return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
