"""Pieces of work one after the other, in one thread beside the event loop that all the rest belongs to."""

import asyncio
import contextlib
import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gid_jax.errors import UserError
from gid_jax.files import first_line
from gid_jax.serve.generation import Report
from gid_jax.serve.jobs import Cancelled, Job, Progress

_DONE = object()


class _Piece(NamedTuple):
  job: Job
  progress: Progress
  work: Callable[[Report], None]


class Line:
  """Who waits, and the one who is worked on."""

  def __init__(self, notify: Callable[[], None], end: Callable[..., None]):
    """Takes whom to tell.

    Args:
      notify: called whenever anything has changed.
      end: called with a progress, its last phase and, of what failed, `reason`.
    """
    self._notify, self._end = notify, end
    self._pieces: list[_Piece] = []
    self._current: Progress | None = None
    self._added = asyncio.Event()
    self._thread: threading.Thread | None = None

  @property
  def is_idle(self) -> bool:
    """Whether nobody waits and nothing is worked on."""
    return not self._pieces and self._current is None

  def add(self, job: Job, progress: Progress, work: Callable[[Report], None]) -> None:
    """Lines up a piece of a job; `work` gets what it reports by."""
    progress.phase = "queued"
    self._pieces.append(_Piece(job, progress, work))
    self._added.set()
    self._notify()

  def remove(self, progress: Progress) -> None:
    """Takes out what waits; what runs ends at its next step once its progress has ended."""
    self._pieces = [piece for piece in self._pieces if piece.progress is not progress]

  def describe(self, progress: Progress) -> dict[str, Any]:
    """How far a piece is, as JSON has it; of what waits, also its place, and whether all wait for the model."""
    waiting = [*([self._current] if self._current else []), *(piece.progress for piece in self._pieces)]
    ahead = waiting.index(progress) if progress in waiting else len(waiting)
    is_warming = self._current is not None and self._current.phase == "warming"
    place = {"place": ahead, "warming": is_warming} if progress.phase == "queued" else {}
    return dataclasses.asdict(progress) | place

  async def run(self, warming: Iterator[None]) -> None:
    """Works until it is cancelled: on what is lined up, and while nothing is, on getting ready, piece by piece."""
    is_warm = False
    while True:
      if self._pieces:
        await self._carry_out(self._pieces.pop(0))
      elif not is_warm:
        self._current = Progress("warming")
        try:
          is_warm = await self._run_in_thread(lambda: next(warming, _DONE)) is _DONE
        except Exception as error:  # it will be said again to whoever sends a photo
          print(f"gid: cannot get ready: {first_line(error)}", file=sys.stderr)
          is_warm = True
        self._current = None
        self._notify()
      else:
        self._added.clear()
        await self._added.wait()

  def join(self, timeout: float) -> bool:
    """Waits for the thread that works; whether it has ended, after so many seconds at most."""
    if self._thread is not None:
      self._thread.join(timeout)
    return self._thread is None or not self._thread.is_alive()

  async def _carry_out(self, piece: _Piece) -> None:
    loop = asyncio.get_running_loop()
    job, progress, work = piece

    def show(phase, done, total):
      if progress.is_unfinished:
        progress.phase, progress.done, progress.total = phase, done, total
        self._notify()

    def report(phase, done, total):
      if not progress.is_unfinished:
        raise Cancelled
      loop.call_soon_threadsafe(show, phase, done, total)

    self._current = progress
    try:
      await self._run_in_thread(lambda: work(report))
    except Cancelled:
      pass
    except UserError as error:
      self._end(progress, "failed", reason=str(error).replace(f"{job.folder}/", ""))
    except Exception as error:
      self._end(progress, "failed", reason=f"{type(error).__name__}: {first_line(error)}; please report it")
    else:
      self._end(progress, "ready")
    finally:
      self._current = None
      self._notify()

  async def _run_in_thread(self, work: Callable[[], Any]) -> Any:
    """What a function returns, from a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(result, error):
      if future.cancelled():
        return
      if error is None:
        future.set_result(result)
      else:
        future.set_exception(error)

    def target():
      result = error = None
      try:
        result = work()
      except BaseException as caught:
        error = caught
      with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(settle, result, error)

    self._thread = threading.Thread(target=target, name="gid-work", daemon=True)
    self._thread.start()
    return await future
