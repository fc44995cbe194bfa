"""A photo on its way to a page that answers to touch, and how far it is."""

import dataclasses
from pathlib import Path

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
