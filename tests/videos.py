"""Small videos for tests, encoded with PyAV alone so that reading is not tested against our own writer."""

import av
import cv2
import numpy as np
import pytest

from gid_jax.errors import UserError

SWATCHES = np.array(
  [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [128, 128, 128], [200, 150, 120], [30, 90, 160]],
  np.uint8,
)


def swatch_frame(*, height=64, width=128):
  """Eight colour fields in two rows of four."""
  rows = np.arange(height) * 2 // height
  columns = np.arange(width) * 4 // width
  return SWATCHES[rows[:, None] * 4 + columns[None, :]]


def read_swatches(frame, *, height=64, width=128):
  """The colour in the middle of each field of `swatch_frame`."""
  return np.stack([frame[height * (2 * r + 1) // 4, width * (2 * c + 1) // 8] for r in range(2) for c in range(4)])


def moving_frames(number, *, height=48, width=64):
  """A bright bar that moves two pixels a frame, so that every frame is different."""
  for index in range(number):
    frame = np.full((height, width, 3), 60, np.uint8)
    frame[:, 2 * index:2 * index + 4] = 220
    yield frame


def encode(
  path, frames, *, codec="libx264", pts=None, rate=30, pixel_format="yuv420p", tags=None, options=None, source="rgb24",
  time_base=None, aspect=None, **reformat,
):
  """Encodes frames of the pixel format `source`; `pts` counts in `time_base`, by default in frames."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=rate, options={"crf": "10"} if options is None else options)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pixel_format
    if aspect is not None:
      stream.codec_context.sample_aspect_ratio = aspect
    if time_base is not None:
      stream.time_base = stream.codec_context.time_base = time_base
    for name, value in (tags or {}).items():
      setattr(stream.codec_context, name, value)
    for index, array in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(array, source).reformat(format=pixel_format, **reformat)
      frame.time_base = stream.codec_context.time_base or 1 / stream.average_rate
      frame.pts = index if pts is None else pts[index]
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def sliding_frames(number, *, height=48, width=64, step=1, seed=0):
  """A random soft texture that slides by `step` pixels a frame to the left."""
  noise = np.random.default_rng(seed).standard_normal((height, width + step * number, 3)).astype(np.float32)
  texture = cv2.GaussianBlur(noise, (0, 0), 2)
  texture = np.clip(texture / texture.std() * 35 + 120, 0, 255).astype(np.uint8)
  return [np.ascontiguousarray(texture[:, step * i:step * i + width]) for i in range(number)]


def assert_refused(function, *arguments, match):
  with pytest.raises(UserError, match=match) as caught:
    function(*arguments)
  assert "\n" not in str(caught.value)
