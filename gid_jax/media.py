"""Read photos and clips, write images and videos.

Everything inside the library is display-referred sRGB: photos are float32 [h w 3] in [0, 1], video frames
uint8 [h w 3]. Colour profiles, camera orientation, time stamps and YUV ranges end here. Every output is
written under a temporary name in its own folder and moved into place when it is complete, so a failure of any
kind leaves no partial file and never harms the file that was there before.
"""

import contextlib
import io
import math
import os
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageOps

from gid_jax.decoding import decode_frames, find_nearest_frames, open_to_read, repair_times
from gid_jax.encoding import VIDEO_SUFFIXES, check_frame, complete_or_nothing, encode_frames
from gid_jax.errors import UserError
from gid_jax.types import Clip

MIN_SIDE = 16
MAX_MEGAPIXELS = 100
MAX_CLIP_BYTES = 2 << 30
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_PathLike = str | os.PathLike[str]


def read_image(path: _PathLike) -> Float[np.ndarray, "h w 3"]:
  """Reads a photo as it is meant to be seen: upright, sRGB, opaque.

  The EXIF orientation is applied and an embedded colour profile is converted to sRGB. Transparency is shown
  over white, as viewers do by default. Grey, palette, CMYK and 16-bit images are accepted, as is the first
  frame of an animation.

  Args:
    path: any file that Pillow decodes.

  Returns:
    [h w 3] float32 RGB in [0, 1].

  Raises:
    UserError: no such readable file, not an image, damaged, under 16 pixels on a side or over 100 megapixels.
  """
  path = Path(path)
  with open_to_read(path) as file:
    try:
      with warnings.catch_warnings():
        # Pillow warns below our limit and raises above it; one message of ours covers both.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
    except Image.DecompressionBombError:
      raise _too_large(path, "") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
      file.seek(0)
      raise UserError(f"{path} is not an image{_describe_unknown_image(file.read(16))}") from error
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
      raise _too_large(path, f" ({width} x {height})")
    if min(width, height) < MIN_SIDE:
      raise UserError(f"{path} is {width} x {height} pixels; a photo needs at least {MIN_SIDE} x {MIN_SIDE}")
    try:
      image.load()
      return _image_to_srgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
      raise UserError(f"{path} is truncated or damaged ({error}); save or download it again") from error


def read_clip(path: _PathLike, *, max_frames: int | None = None, short_side: int | None = None) -> Clip:
  """Decodes a video with the time at which each frame is shown; see `gid_jax.decoding.decode_frames`.

  Times come from the presentation time stamps, never from the header's frame rate; see `repair_times` for
  stamps that are missing or run backwards.

  Args:
    path: any file that FFmpeg decodes.
    max_frames: stop after this many frames; None reads all.
    short_side: the most pixels the shorter side may have; larger frames are averaged down. None keeps the size.

  Returns:
    A `Clip`: frames [t h w 3] uint8 RGB and times [t] float64 seconds from the first frame.

  Raises:
    UserError: no such readable file, not a video, damaged, fewer than 2 frames, or over 2 GB of frames.
  """
  # A growing buffer, because stacking a list would hold the clip twice.
  pixels, shape = bytearray(), (0, 0, 3)
  times: list[float] = []
  with contextlib.closing(decode_frames(path, short_side=short_side)) as decoded:
    for frame, time in decoded:
      shape = frame.shape
      pixels += frame.data
      times.append(time)
      if len(times) == max_frames:
        break
      if len(pixels) > MAX_CLIP_BYTES:
        size = f"{shape[1]} x {shape[0]}"
        raise UserError(f"{path} fills 2 GB after {len(times)} frames of {size}; shorten it or make it smaller")
  if len(times) < 2:
    held = "1 frame" if times else "no frames"
    raise UserError(f"{path} holds {held}; a clip needs at least 2 frames")
  frames = np.frombuffer(pixels, np.uint8).reshape(-1, *shape)
  return Clip(frames=frames, times=repair_times(np.asarray(times)))


def resample_clip(clip: Clip, *, fps: float) -> Clip:
  """Resamples a clip to a constant rate by taking the frame nearest in time.

  Frames are never blended: a blend of two frames holds every edge twice, which no optical flow can explain. A
  rate above the clip's own therefore repeats frames, a lower one skips some; an exact tie takes the earlier.

  Args:
    clip: frames [t h w 3] uint8 and times [t] seconds.
    fps: frames per second of the result, positive.

  Returns:
    A `Clip` whose frame i is shown at i / fps, up to the clip's last stamp rounded to the nearest 1 / fps.

  Raises:
    UserError: the clip is too short to give 2 frames at this rate, or its stamps have a gap no video has.
  """
  indices = find_nearest_frames(clip.times, fps=fps)
  if len(indices) < 2:
    length = f"a clip of {clip.times[-1]:.3f} s"
    raise UserError(f"{length} gives 1 frame at {fps:g} fps; a clip needs at least 2 frames")
  return Clip(frames=clip.frames[indices], times=np.arange(len(indices)) / fps)


class WrittenVideo(NamedTuple):
  """What `write_video` has written.

  Attributes:
    path: the file.
    width: pixels, after any padding to an even size.
    height: pixels, likewise.
    num_frames: frames in the file.
    num_bytes: size of the file.
  """

  path: Path
  width: int
  height: int
  num_frames: int
  num_bytes: int


def write_video(
  path: _PathLike,
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  fps: float,
  quality: float = 80,
  overwrite: bool = False,
) -> WrittenVideo:
  """Encodes frames one by one as they arrive; memory does not grow with their number.

  The suffix chooses the format: .mp4 (H.264), .webm (VP9), .gif or .webp (animated). MP4 and WebM are 4:2:0
  in limited-range BT.709, tagged so, which is what every browser and phone plays. That needs even sizes: an
  odd size gains one row or column that repeats the edge, because cropping would lose part of the photo.

  Args:
    path: the file to write; its folder must exist.
    frames: frames [h w 3] uint8 RGB of one size; a generator is consumed as it goes.
    fps: playback rate, frames per second; at most 50 for GIF, whose viewers slow down anything faster.
    quality: 0 (smallest) to 100 (best); GIF has no such choice.
    overwrite: replace an existing file.

  Returns:
    The path, size and number of frames that were written.

  Raises:
    UserError: unknown suffix, existing file, unwritable folder, full disk, no frames, or an impossible rate.
    ValueError: a frame has the wrong type or not the size of the first.
  """
  path = Path(path)
  if path.suffix.lower() not in VIDEO_SUFFIXES:
    raise UserError(f"{path}: unknown video format '{path.suffix}'; use one of {', '.join(VIDEO_SUFFIXES)}")
  if not (fps > 0 and math.isfinite(fps)):
    raise UserError(f"fps is {fps}; it must be positive")
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    width, height, num_frames = encode_frames(temporary, frames, fps=fps, quality=quality)
    num_bytes = temporary.stat().st_size
  return WrittenVideo(path, width, height, num_frames, num_bytes)


def write_image(path: _PathLike, image: np.ndarray, *, overwrite: bool = False) -> None:
  """Writes one image; the suffix chooses the format (.png, .jpg, .jpeg or .webp).

  Args:
    path: the file to write; its folder must exist.
    image: [h w 3] RGB, uint8, or float in [0, 1] (values outside are clipped).
    overwrite: replace an existing file.

  Raises:
    UserError: unknown suffix, existing file, unwritable folder or full disk.
    ValueError: the array is not an RGB image.
  """
  path = Path(path)
  suffix = path.suffix.lower()
  if suffix not in IMAGE_SUFFIXES:
    raise UserError(f"{path}: unknown image format '{path.suffix}'; use one of {', '.join(IMAGE_SUFFIXES)}")
  if np.issubdtype(image.dtype, np.floating):
    image = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
  options = {} if suffix == ".png" else {"quality": 95}
  picture = Image.fromarray(check_frame(image, shape=image.shape))
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    picture.save(temporary, **options)


# Reading


def _too_large(path: Path, size: str) -> UserError:
  limit = f"{MAX_MEGAPIXELS} megapixels"
  return UserError(f"{path} holds more than {limit}{size}; resize it below 10,000 x 10,000 pixels")


def _describe_unknown_image(head: bytes) -> str:
  if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
    return " format that can be read here (HEIC); save it as JPEG"
  return " in a format that can be read here; use JPEG, PNG or WebP"


def _image_to_srgb(image: Image.Image) -> np.ndarray:
  if image.mode.startswith("I;16"):
    return _grey_to_rgb(np.asarray(image, np.float32) / 65535)
  if image.mode in ("I", "F"):
    values = np.asarray(image, np.float32)
    # Older Pillow opens 16-bit PNG as 32-bit integers; floating point images hold [0, 1].
    scale = 1 if image.mode == "F" else 65535 if values.max() <= 65535 else 2**31 - 1
    return _grey_to_rgb(values / scale)
  alpha = None
  if image.has_transparency_data:
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"), np.float32)[..., None] / 255
  profile = image.info.get("icc_profile")
  if image.mode not in ("L", "RGB", "CMYK"):
    image = image.convert("RGB")
  rgb = np.asarray(_apply_profile(image, profile) if profile else image.convert("RGB"), np.float32) / 255
  return rgb if alpha is None else rgb * alpha + (1 - alpha)


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
  return np.repeat(np.clip(np.nan_to_num(grey), 0, 1)[..., None], 3, axis=-1).astype(np.float32)


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in ImageCms.getProfileDescription(source).lower():
      return image.convert("RGB")
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
  except (ImageCms.PyCMSError, OSError, ValueError):
    # A profile that is broken or belongs to another colour model: show the image without it, as viewers do.
    return image.convert("RGB")
  return converted or image.convert("RGB")
