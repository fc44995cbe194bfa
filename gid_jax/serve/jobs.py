"""Photos on their way to a page that answers to touch: one line, one worker, and who still waits for what.

All of it belongs to one event loop; only the work itself runs beside it, in a thread, a piece at a time.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gid_jax.bundle import Bundle, load_bundle, save_bundle
from gid_jax.errors import UserError
from gid_jax.files import first_line
from gid_jax.serve.decoder import decode, write_preview
from gid_jax.serve.generation import Maker

_DONE = object()
_UNFINISHED = frozenset({"queued", "seeing", "compiling", "sampling", "rendering"})


class Cancelled(Exception):
  """Nobody waits for this work any more."""


class Busy(Exception):
  """The line is as long as it may get."""


@dataclasses.dataclass(eq=False)
class Progress:
  """How far a piece of work is.

  Attributes:
    phase: none (nobody asked for it), queued, seeing, compiling, sampling, rendering, ready, failed or cancelled.
    done: steps.
    total: of so many, 0 where nobody counts.
    reason: why it failed, one line.
  """

  phase: str = "none"
  done: int = 0
  total: int = 0
  reason: str = ""

  @property
  def is_unfinished(self) -> bool:
    """Whether it is waited for."""
    return self.phase in _UNFINISHED


@dataclasses.dataclass(eq=False)
class Job:
  """One photo with one motion.

  Attributes:
    id: that nobody can guess.
    name: of the photo, for people.
    photo: id of the first job with this photo.
    seed: of the motion.
    folder: of its files: photo.npy, preview.webp, page.html, photo.gid, photo.mp4, as far as they are.
    motion: how far its page is.
    video: how far its video is.
    is_kept: the one that the server opened with; it stays.
    num_listeners: pages that watch it.
  """

  id: str
  name: str
  photo: str
  seed: int
  folder: Path
  motion: Progress = dataclasses.field(default_factory=Progress)
  video: Progress = dataclasses.field(default_factory=Progress)
  is_kept: bool = False
  num_listeners: int = 0

  @property
  def is_unfinished(self) -> bool:
    """Whether any of its work is waited for."""
    return self.motion.is_unfinished or self.video.is_unfinished


class Desk:
  """Takes photos in, has them worked on in turn, and forgets the oldest.

  Attributes:
    changed: set, and replaced by a new one, whenever any job has changed.
    is_closed: it takes and does nothing more.
  """

  def __init__(
    self, maker: Maker, folder: Path, *, num_kept: int = 8, max_waiting: int = 16, grace: float = 5.0,
    decode: Callable[[Path, Path, Path], Awaitable[None]] = decode,
  ):  # fmt: skip
    """Takes who does the work, an empty folder, and how much may be there at once.

    Args:
      maker: does the work.
      folder: for the files of all jobs.
      num_kept: finished jobs that are kept, the most recent.
      max_waiting: jobs that may be unfinished at once.
      grace: seconds after which unfinished work that no page watches is given up.
      decode: as `gid_jax.serve.decoder.decode`.
    """
    self.changed = asyncio.Event()
    self.is_closed = False
    self._maker, self._folder, self._decode = maker, folder, decode
    self._num_kept, self._max_waiting, self._grace = num_kept, max_waiting, grace
    self._jobs: dict[str, Job] = {}  # oldest first
    self._line: list[tuple[Job, Progress, Callable[[Callable], None]]] = []
    self._current: Progress | None = None
    self._decoding = asyncio.Semaphore(1)
    self._tasks: dict[Progress, asyncio.Task] = {}
    self._thread: threading.Thread | None = None

  # -- asking

  def find(self, job_id: str) -> Job | None:
    """The job of an id, if it is still kept."""
    return self._jobs.get(job_id)

  def describe(self, job: Job) -> dict[str, Any]:
    """What a page shows of a job, as JSON has it."""
    return {
      "id": job.id, "name": job.name, "seed": job.seed, "has_file": (job.folder / "photo.gid").exists(),
      "motion": self._describe(job.motion), "video": self._describe(job.video),
    }  # fmt: skip

  def _describe(self, progress: Progress) -> dict[str, Any]:
    waiting = [*([self._current] if self._current else []), *(part for _, part, _ in self._line)]
    ahead = waiting.index(progress) if progress in waiting else len(waiting)
    is_warming = self._current is not None and self._current.phase == "warming"
    place = {"place": ahead, "warming": is_warming} if progress.phase == "queued" else {}
    return dataclasses.asdict(progress) | place

  @contextlib.contextmanager
  def listen(self, jobs: Sequence[Job]) -> Iterator[None]:
    """Counts a page that watches some jobs, until the block ends."""
    for job in jobs:
      job.num_listeners += 1
    try:
      yield
    finally:
      for job in jobs:
        job.num_listeners -= 1
        self._give_up_soon(job)

  # -- ordering

  def open(self, bundle: Bundle, name: str) -> Job:
    """Orders the page of a photo whose motion is sampled already; it is kept as long as the server runs."""
    job = self._add(name, bundle.seed)
    job.is_kept = True
    write_preview(bundle.photo, job.folder / "preview.webp")
    np.save(job.folder / "photo.npy", bundle.photo)

    def work(report):
      report("seeing", 0, 0)
      self._finish(job, bundle, report)

    self._queue(job, job.motion, work)
    return job

  def open_photo(self, photo: np.ndarray, name: str) -> Job:
    """Orders motion and page of a photo [h w 3] uint8; it is kept as long as the server runs."""
    job = self._add(name, 0)
    job.is_kept = True
    write_preview(photo, job.folder / "preview.webp")
    np.save(job.folder / "photo.npy", photo)
    self._queue(job, job.motion, self._sample(job))
    return job

  def expect(self, name: str) -> tuple[Job, Path]:
    """Makes room for a photo that is being sent.

    Returns:
      The job, and the file to put what is sent in; then call `begin`, or `drop` if it did not arrive.

    Raises:
      Busy: too many wait.
    """
    job = self._add(name, 0)
    job.motion.phase = "queued"
    return job, job.folder / "upload"

  def begin(self, job: Job) -> None:
    """Has the photo that was sent decoded, and lines the job up."""
    self._give_up_soon(job)

    async def prepare():
      upload = job.folder / "upload"
      try:
        async with self._decoding:
          await self._decode(upload, job.folder / "photo.npy", job.folder / "preview.webp")
        self._queue(job, job.motion, self._sample(job))
      except UserError as error:
        self._end(job.motion, "failed", reason=str(error))
      finally:
        upload.unlink(missing_ok=True)
        self._tasks.pop(job.motion, None)

    self._tasks[job.motion] = asyncio.create_task(prepare())

  def again(self, job: Job) -> Job:
    """Orders another motion of the same photo.

    Raises:
      Busy: too many wait.
    """
    seeds = [one.seed for one in self._jobs.values() if one.photo == job.photo]
    other = self._add(job.name, max(seeds) + 1, photo=job.photo)
    for file in ("photo.npy", "preview.webp"):
      shutil.copyfile(job.folder / file, other.folder / file)
    self._queue(other, other.motion, self._sample(other))
    self._give_up_soon(other)
    return other

  def film(self, job: Job) -> None:
    """Orders the video of a job that is ready; one that is there or under way is not made again.

    Raises:
      Busy: too many wait.
    """
    if job.video.is_unfinished or job.video.phase == "ready":
      return
    self._check_room()

    def work(report):
      bundle = load_bundle(job.folder / "photo.gid")
      self._maker.write_video(bundle, job.folder / "photo.mp4", report)

    job.video = Progress()
    self._queue(job, job.video, work)
    self._give_up_soon(job)

  def cancel(self, job: Job) -> None:
    """Gives up whatever of a job is not finished. What runs ends at its next step."""
    for progress in (job.motion, job.video):
      if not progress.is_unfinished:
        continue
      if task := self._tasks.pop(progress, None):
        task.cancel()
      self._line = [entry for entry in self._line if entry[1] is not progress]
      self._end(progress, "cancelled")

  def drop(self, job: Job) -> None:
    """Forgets a job and its files."""
    self._jobs.pop(job.id, None)
    self.cancel(job)
    shutil.rmtree(job.folder, ignore_errors=True)
    self._notify()

  # -- working

  async def run(self) -> None:
    """Works until it is cancelled: on what is lined up, and while nothing is, on getting ready for it."""
    warming = self._maker.warm_up()
    is_warm = False
    while True:
      if self._line:
        job, progress, work = self._line.pop(0)
        await self._carry_out(job, progress, work)
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
        await self.changed.wait()

  def stop(self) -> None:
    """Takes nothing more, and lets go of the pages that watch."""
    self.is_closed = True
    self._notify()

  async def close(self) -> None:
    """Gives everything up; ends the decoders."""
    self.stop()
    tasks = list(self._tasks.values())
    for job in list(self._jobs.values()):
      self.cancel(job)
    await asyncio.gather(*tasks, return_exceptions=True)

  def join(self, timeout: float) -> bool:
    """Waits for the thread that works; whether it has ended, after so many seconds at most."""
    if self._thread is not None:
      self._thread.join(timeout)
    return self._thread is None or not self._thread.is_alive()

  async def _carry_out(self, job: Job, progress: Progress, work) -> None:
    loop = asyncio.get_running_loop()

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

  def _sample(self, job: Job):
    def work(report):
      report("seeing", 0, 0)
      bundle = self._maker.sample(np.load(job.folder / "photo.npy"), job.seed, report)
      report("sampling", 1, 1)
      self._finish(job, bundle, report)

    return work

  def _finish(self, job: Job, bundle: Bundle, report) -> None:
    self._maker.write_page(bundle, job.folder / "page.html", title=job.name)
    report("ready", 1, 1)  # packing the photo takes as long again as sampling
    save_bundle(job.folder / "photo.gid", bundle)

  # -- keeping

  def _add(self, name: str, seed: int, *, photo: str | None = None) -> Job:
    self._check_room()
    job_id = secrets.token_urlsafe(12)
    folder = self._folder / job_id
    folder.mkdir()
    job = self._jobs[job_id] = Job(job_id, name, photo or job_id, seed, folder)
    return job

  def _check_room(self) -> None:
    if self.is_closed or sum(job.is_unfinished for job in self._jobs.values()) >= self._max_waiting:
      raise Busy

  def _queue(self, job: Job, progress: Progress, work) -> None:
    progress.phase = "queued"
    self._line.append((job, progress, work))
    self._notify()

  def _end(self, progress: Progress, phase: str, *, reason: str = "") -> None:
    if progress.is_unfinished:
      progress.phase, progress.reason = phase, reason
    self._forget_oldest()
    self._notify()

  def _give_up_soon(self, job: Job) -> None:
    def give_up():
      if not job.num_listeners and job.is_unfinished and not job.is_kept:
        self.cancel(job)

    if not job.num_listeners:
      asyncio.get_running_loop().call_later(self._grace, give_up)

  def _forget_oldest(self) -> None:
    finished = [job for job in self._jobs.values() if not job.is_unfinished and not job.is_kept]
    # What is of no use goes first, what a page still shows last.
    finished.sort(key=lambda job: (job.motion.phase == "ready", job.num_listeners > 0))
    for job in finished[: max(0, len(finished) - self._num_kept)]:
      self.drop(job)

  def _notify(self) -> None:
    self.changed.set()
    self.changed = asyncio.Event()
