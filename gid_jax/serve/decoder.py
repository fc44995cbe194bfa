"""Somebody's photo, or .gid file, to pixels, in a process of its own that may take neither much memory nor much time.

As a program, `python -m gid_jax.serve.decoder`: waits for a line [UPLOAD, PHOTO, PREVIEW], JSON, on its standard input;
reads UPLOAD, writes PHOTO, [h w 3] uint8 as .npy of at most `MAX_SIDE` pixels a side, and PREVIEW, a WebP. Status 2 and
one line say what is wrong with the photo.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from gid_jax.errors import UserError
from gid_jax.files import describe_failure

MAX_MEGAPIXELS = 50
MAX_SIDE = 1920
_PREVIEW_SIDE = 1080
_MAX_SECONDS = 30  # of the clock
_MAX_CPU_SECONDS = 20
_MAX_MEMORY = 4 * 2**30  # bytes of addresses; 50 megapixels of floats take half of it
_MAX_WRITTEN = 64 * 2**20


class Decoder:
  """Reads what somebody sent in a process of its own, which is started before it is needed: Python takes its time."""

  def __init__(self):
    self._next: asyncio.Task[asyncio.subprocess.Process] | None = None

  def get_ready(self) -> None:
    """Starts the process that the next photo will need."""
    if self._next is None:
      self._next = asyncio.create_task(_start_process())

  async def decode(self, upload: Path, photo: Path, preview: Path) -> None:
    """Reads a photo, or a .gid file, that nobody has looked into, and writes its pixels and a small picture of it.

    Args:
      upload: what somebody sent.
      photo: to write, [h w 3] uint8, .npy.
      preview: to write, .webp.

    Raises:
      UserError: it is not a photo, or takes more than a photo may; or no process can be started.
    """
    self.get_ready()
    assert self._next is not None
    starting, self._next = self._next, None
    process = None
    try:
      process = await starting
      if process.returncode is not None:  # somebody has ended it while it waited
        process = await _start_process()
      async with asyncio.timeout(_MAX_SECONDS):
        said, _ = await process.communicate(json.dumps([str(path) for path in (upload, photo, preview)]).encode())
    except TimeoutError:
      raise UserError("This photo takes too long to read; save it as JPEG") from None
    except OSError as error:
      raise UserError(f"The server cannot read photos now ({describe_failure(error)}); try again later") from error
    finally:
      status = await _end_process(process)
    if status == 2 and said:
      raise UserError(said.decode().strip())
    if status:
      raise UserError("This photo takes too much memory or time to read; save it smaller, as JPEG")

  async def close(self) -> None:
    """Ends the process that waits."""
    starting, self._next = self._next, None
    if starting is not None:
      with contextlib.suppress(OSError):
        await _end_process(await starting)


async def _start_process() -> asyncio.subprocess.Process:
  one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
  return await asyncio.create_subprocess_exec(
    sys.executable, "-m", "gid_jax.serve.decoder", env=os.environ | one_thread, stdin=asyncio.subprocess.PIPE,
    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)  # fmt: skip


async def _end_process(process: asyncio.subprocess.Process | None) -> int | None:
  if process is None:
    return None
  if process.returncode is None:
    with contextlib.suppress(ProcessLookupError):
      process.kill()
    await process.wait()
  return process.returncode


def read_photo(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS):
  """Reads a photo and shrinks it to at most `MAX_SIDE` pixels a side.

  Args:
    path: the file.
    max_megapixels: a larger photo is refused before its pixels are looked at.

  Returns:
    [h w 3] uint8 sRGB.

  Raises:
    UserError: it cannot be read, or is too large.
  """
  import numpy as np
  from PIL import Image

  from gid_jax.media.photos import read_image

  width = height = 0
  with contextlib.suppress(Exception), Image.open(path) as image:  # `read_image` says what is wrong with a file
    width, height = image.size
  if width * height > max_megapixels * 1e6:
    raise UserError(f"{path} is {width} x {height}; photos of up to {max_megapixels:g} megapixels are taken here")
  pixels = _shrink(read_image(path))
  return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def write_preview(photo, path: Path) -> None:
  """Writes a small WebP of a photo [h w 3] uint8."""
  from PIL import Image

  image = Image.fromarray(photo)
  image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
  image.save(path, "WEBP", quality=80, method=2)


def convert(upload: Path, photo: Path, preview: Path) -> None:
  """Does what `decode` does, in this process and without limits; names of files stay out of what it says."""
  import numpy as np

  read, name = (_read_bundle, "This file") if is_bundle(upload) else (read_photo, "This photo")
  try:
    pixels = read(upload)
  except UserError as error:
    raise UserError(" ".join(str(error).replace(str(upload), name).split())) from error
  np.save(photo, pixels)
  write_preview(pixels, preview)


def is_bundle(path: Path) -> bool:
  """Whether a file begins as a .gid does: the length of a header and the header, which is JSON."""
  with path.open("rb") as file:
    head = file.read(9)
  return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_bundle(path: Path):
  """The photo of a .gid file, all of which is checked."""
  from gid_jax.bundle import load_bundle

  return _shrink(load_bundle(path).photo)


def _shrink(pixels):
  """Pixels [h w 3] of at most `MAX_SIDE` a side."""
  import cv2

  height, width = pixels.shape[:2]
  scale = MAX_SIDE / max(height, width)
  if scale >= 1:
    return pixels
  size = max(2, round(width * scale)), max(2, round(height * scale))
  return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _limit_process() -> None:
  try:
    import resource
  except ImportError:  # Windows has no such limits; the clock's remains
    return
  limits = (
    (resource.RLIMIT_AS, _MAX_MEMORY),
    (resource.RLIMIT_CPU, _MAX_CPU_SECONDS),
    (resource.RLIMIT_FSIZE, _MAX_WRITTEN),
    (resource.RLIMIT_CORE, 0),
  )
  for kind, most in limits:
    with contextlib.suppress(ValueError, OSError):  # macOS does not limit addresses
      resource.setrlimit(kind, (most, most))


def main() -> int:
  """Gets ready, waits, then reads, shrinks and writes, all under limits; returns the status."""
  _limit_process()
  import cv2  # noqa: F401 (most of the time goes to imports)
  from PIL import Image

  import gid_jax.media.photos  # noqa: F401

  Image.preinit()
  line = sys.stdin.readline()
  if not line:  # the server has ended
    return 0
  upload, photo, preview = map(Path, json.loads(line))
  try:
    convert(upload, photo, preview)
  except UserError as error:
    print(error)
    return 2
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
