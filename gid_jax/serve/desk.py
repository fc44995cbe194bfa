"""Takes photos in, has them worked on one after the other, knows who still waits for what, and forgets the oldest.

All of it belongs to one event loop; only the work itself runs beside it, in a thread, a piece at a time.
"""

import asyncio
import contextlib
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gid_jax.bundle import load_bundle, save_bundle
from gid_jax.errors import UserError
from gid_jax.serve.decoder import Decoder, is_bundle, write_preview
from gid_jax.serve.generation import Maker
from gid_jax.serve.jobs import Busy, Job, Progress
from gid_jax.serve.line import Line


class Desk:
  """Takes photos in, has them worked on in turn, and forgets the oldest.

  Attributes:
    changed: set, and replaced by a new one, whenever any job has changed.
    is_closed: it takes and does nothing more.
  """

  def __init__(
    self, maker: Maker, folder: Path, *, num_kept: int = 8, max_waiting: int = 16, grace: float = 5.0,
    decoder: Decoder | None = None,
  ):  # fmt: skip
    """Takes who does the work, an empty folder, and how much may be there at once.

    Args:
      maker: does the work.
      folder: for the files of all jobs.
      num_kept: finished jobs that are kept, the most recent.
      max_waiting: jobs that may be unfinished at once.
      grace: seconds after which unfinished work that no page watches is given up.
      decoder: reads what is sent; by default one that does so in another process.
    """
    self.changed = asyncio.Event()
    self.is_closed = False
    self._maker, self._folder, self._decoder = maker, folder, decoder or Decoder()
    self._num_kept, self._max_waiting, self._grace = num_kept, max_waiting, grace
    self._jobs: dict[str, Job] = {}  # oldest first
    self._line = Line(self._notify, self._end)
    self._decoding = asyncio.Semaphore(1)
    self._tasks: dict[Progress, asyncio.Task] = {}

  # -- asking

  def find(self, job_id: str) -> Job | None:
    """The job of an id, if it is still kept."""
    return self._jobs.get(job_id)

  def describe(self, job: Job) -> dict[str, Any]:
    """What a page shows of a job, as JSON has it."""
    return {
      "id": job.id, "name": job.name, "seed": job.seed, "has_file": (job.folder / "photo.gid").exists(),
      "motion": self._line.describe(job.motion), "video": self._line.describe(job.video),
    }  # fmt: skip

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

  def open(self, source: Path, name: str) -> Job:
    """Writes the page of a .gid file, which is kept as long as the server runs; when this returns, it is ready.

    Raises:
      UserError: the file cannot be read.
    """
    bundle = load_bundle(source)
    job = self._add(name, bundle.seed)
    job.is_kept = True
    write_preview(bundle.photo, job.folder / "preview.webp")
    np.save(job.folder / "photo.npy", bundle.photo)
    shutil.copyfile(source, job.folder / "photo.gid")
    self._maker.write_page(bundle, job.folder / "page.html", title=name)
    job.motion = Progress("ready", 1, 1)
    return job

  def open_photo(self, photo: np.ndarray, name: str) -> Job:
    """Orders motion and page of a photo [h w 3] uint8; it is kept as long as the server runs."""
    job = self._add(name, 0)
    job.is_kept = True
    write_preview(photo, job.folder / "preview.webp")
    np.save(job.folder / "photo.npy", photo)
    self._line.add(job, job.motion, self._sample(job))
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
    """Has the photo, or the .gid file, that was sent decoded, and lines the job up."""
    self._give_up_soon(job)

    async def prepare():
      upload = job.folder / "upload"
      try:
        async with self._decoding:
          await self._decoder.decode(upload, job.folder / "photo.npy", job.folder / "preview.webp")
        work = self._sample(job)
        if is_bundle(upload):
          upload.rename(job.folder / "photo.gid")
          work = self._read(job)
        self._line.add(job, job.motion, work)
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
    self._line.add(other, other.motion, self._sample(other))
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
    self._line.add(job, job.video, work)
    self._give_up_soon(job)

  def cancel(self, job: Job, *, spares_opening: bool = False) -> None:
    """Gives up whatever of a job is not finished, but for the motion of what all visitors open on where that is spared.

    What runs ends at its next step.
    """
    for progress in (job.video,) if job.is_kept and spares_opening else (job.motion, job.video):
      if not progress.is_unfinished:
        continue
      if task := self._tasks.pop(progress, None):
        task.cancel()
      self._line.remove(progress)
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
    self._decoder.get_ready()
    await self._line.run(self._maker.warm_up())

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
    await self._decoder.close()

  def join(self, timeout: float) -> bool:
    """Waits for the thread that works; whether it has ended, after so many seconds at most."""
    return self._line.join(timeout)

  def _sample(self, job: Job):
    def work(report):
      report("seeing", 0, 0)
      bundle = self._maker.sample(np.load(job.folder / "photo.npy"), job.seed, report)
      report("sampling", 1, 1)
      self._maker.write_page(bundle, job.folder / "page.html", title=job.name)
      report("ready", 1, 1)  # packing the photo takes as long again as sampling
      save_bundle(job.folder / "photo.gid", bundle)

    return work

  def _read(self, job: Job):
    def work(report):
      report("seeing", 0, 0)
      bundle = load_bundle(job.folder / "photo.gid")
      job.seed = bundle.seed
      self._maker.write_page(bundle, job.folder / "page.html", title=job.name)

    return work

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

  def _end(self, progress: Progress, phase: str, *, reason: str = "") -> None:
    if progress.is_unfinished:
      progress.phase, progress.reason = phase, reason
    elif (progress.phase, phase) == ("ready", "failed"):  # its page is there, and stays
      print(f"gid: the .gid file of a photo could not be kept: {reason}", file=sys.stderr)
    if not self.is_closed and not any(job.is_unfinished for job in self._jobs.values()):
      self._decoder.get_ready()  # not before, as whoever waits needs the processor
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
