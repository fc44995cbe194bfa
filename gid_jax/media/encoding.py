"""Write frames as videos or pictures that are complete or absent. Frames go through one at a time."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import av.error
import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from gid_jax.errors import UserError
from gid_jax.files import PathLike, complete_or_nothing, describe_failure, make_temporary, move
from gid_jax.media.encoders import VIDEO_SUFFIXES, check_frame, encode_frames


class WrittenVideo(NamedTuple):
  """What `write_video` or `write_pictures` has written.

  Attributes:
    path: the file, or the folder or pattern of pictures.
    width: pixels, after any padding to an even size.
    height: pixels, likewise.
    num_frames: frames in it.
    num_bytes: size of all of it.
  """

  path: Path
  width: int
  height: int
  num_frames: int
  num_bytes: int


def write_video(
  path: PathLike,
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  fps: float,
  quality: float = 80,
  codec: str | None = None,
  comment: str | None = None,
  overwrite: bool = False,
) -> WrittenVideo:
  """Encodes frames one by one as they arrive; memory does not grow with their number.

  The suffix chooses the format: .mp4 or .mov (H.264), .webm (VP9), .gif, .webp, .avif, .apng or .png (animated, and
  repeated without end). MP4, MOV and WebM are 4:2:0 in limited-range BT.709, tagged so, which is what every browser and
  phone plays; AVIF is 4:2:0 too. That needs even sizes: an odd size gains one row or column that repeats the edge,
  because cropping would lose part of the photo.

  Args:
    path: the file to write; its folder must exist.
    frames: frames [h w 3] uint8 RGB of one size; a generator is consumed as it goes.
    fps: playback rate, frames per second; at most 50 for GIF, whose viewers slow down anything faster.
    quality: 0 (smallest) to 100 (best); GIF and PNG have no such choice.
    codec: "av1" for an .mp4 or .webm of that codec; the format's own otherwise.
    comment: a text for the file's metadata, ASCII, at most 255 characters; AVIF has no place for it.
    overwrite: replace an existing file.

  Returns:
    The path, size and number of frames that were written.

  Raises:
    UserError: unknown suffix, no such encoder, existing file, unwritable folder, full disk, no frames, or an impossible
      rate.
    ValueError: a frame has the wrong type or not the size of the first.
  """
  path = Path(path)
  if path.suffix.lower() not in VIDEO_SUFFIXES:
    raise UserError(f"{path}: unknown video format '{path.suffix}'; use one of {', '.join(VIDEO_SUFFIXES)}")
  if not (fps > 0 and math.isfinite(fps)):
    raise UserError(f"fps is {fps}; it must be positive")
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    try:
      width, height, num_frames = encode_frames(
        temporary, frames, fps=fps, quality=quality, codec=codec, comment=comment)
    except av.error.FFmpegError as error:
      raise OSError(error.errno, error.strerror) from error
    num_bytes = temporary.stat().st_size
  return WrittenVideo(path, width, height, num_frames, num_bytes)


def write_pictures(
  path: PathLike, frames: Iterable[UInt8[np.ndarray, "h w 3"]], *, comment: str | None = None, overwrite: bool = False
) -> WrittenVideo:
  """Writes frames [h w 3] uint8 RGB as PNG pictures, numbered from 1, all of them or none.

  Args:
    path: a folder that does not exist, for 0001.png and so on, or a pattern such as FOLDER/frame_%05d.png, whose folder
      may exist.
    frames: of one size, consumed one at a time.
    comment: a text for the pictures' metadata.
    overwrite: replace existing pictures of these names, but never a folder.

  Raises:
    UserError: the folder or a picture exists, nothing can be written there, or there are no frames.
    ValueError: a frame has the wrong type or not the size of the first.
  """
  path = Path(path)
  is_pattern = "%" in path.name and path.suffix.lower() == ".png"
  folder, name = (path.parent, path.name) if is_pattern else (path, "%04d.png")
  if folder == path and folder.exists():
    raise UserError(f"{path} already exists; use --output for another folder")
  notes = PngImagePlugin.PngInfo()
  if comment is not None:
    notes.add_text("Comment", comment)
  try:
    # Beside the folder, or inside one that exists: of the same file system in any case.
    with make_temporary(folder if folder.exists() else folder.parent, is_folder=True) as made:
      shape, number, num_bytes = None, 0, 0
      for number, frame in zip(itertools.count(1), frames, strict=False):
        shape = shape or frame.shape
        picture = made / (name % number)
        Image.fromarray(check_frame(frame, shape=shape)).save(picture, "PNG", pnginfo=notes)
        num_bytes += picture.stat().st_size
      if shape is None:
        raise UserError("there are no frames to write; a video needs at least 1")
      _move_pictures(made, folder, overwrite=overwrite)
  except OSError as error:
    raise UserError(f"cannot write {path}: {describe_failure(error)}") from error
  return WrittenVideo(path, shape[1], shape[0], number, num_bytes)


def _move_pictures(made: Path, folder: Path, *, overwrite: bool) -> None:
  if not folder.exists():
    os.chmod(made, 0o777 & ~_find_umask())
    made.rename(folder)
    return
  moved: list[Path] = []
  try:
    for picture in sorted(made.iterdir()):
      target = folder / picture.name
      move(picture, target, shown=target, overwrite=overwrite)
      moved.append(target)
  except BaseException:
    if not overwrite:
      for path in moved:
        with contextlib.suppress(OSError):
          path.unlink()
    raise


def _find_umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask

