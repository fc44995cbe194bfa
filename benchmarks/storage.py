"""Claim: the stored form of a window is several times smaller than plain arrays, and what it loses cannot be seen.

  python -m benchmarks.storage [--clips FOLDER] [--windows 12] [--motion_stride 2]

Makes windows from the first clips of a folder, or from simulated scenes when none is given, and stores their spectra
in several ways. "trajectory" is the error of the trajectories after the inverse transform, pixels of the motion grid;
"normalised" that of the coefficients as the networks see them, divided by their band's 95th percentile over these
windows, with the square root. "all" and "one band" are milliseconds to decode all bands of a window or one. Then the
same for flows and frames, and the bytes of whole windows.
"""

import argparse
import time
import zlib

import cv2
import numpy as np

from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.windows import scene_to_window
from data_pipeline.trajectories import sequence_to_window
from gid_jax.data import storage
from gid_jax.errors import UserError
from gid_jax.media.clip_folder import find_clips
from gid_jax.media.clips import clip_to_sequences

NUM_FRAMES, NUM_BANDS, NUM_PAIRS = 150, 16, 6


def make_windows(clips, count, stride):
  options = dict(num_bands=NUM_BANDS, num_pairs=NUM_PAIRS, motion_stride=stride, rng=np.random.default_rng(0))
  seed = 0
  paths = iter(find_clips(clips)[0]) if clips else None
  found = []
  while len(found) < count:
    if paths is None:
      found.append(scene_to_window(sample_scene(seed), **options))
      seed += 1
      continue
    path = next(paths, None)
    if path is None:
      break
    try:
      for frames in clip_to_sequences(path, max_sequences=1):
        window, _ = sequence_to_window(frames, scene="", source="real", **options)
        found += [window] if window else []
    except UserError as error:
      print(f"left out: {error}")
  return found


def spread(residual):
  """The bytes of 16-bit numbers, all low ones first."""
  return np.ascontiguousarray(residual.reshape(-1, 1).view(np.uint8).T).tobytes()


def encode_rows(levels):
  """Whole numbers [h w c] as differences between neighbours, squeezed by zlib."""
  planes = levels.astype(np.int16).view(np.uint16).transpose(2, 0, 1)
  residual = np.diff(planes, axis=1, prepend=np.uint16(0))
  residual = np.diff(residual, axis=2, prepend=np.uint16(0))
  return zlib.compress(spread(residual), 6)


def decode_rows(data, shape):
  h, w, c = shape
  residual = np.frombuffer(zlib.decompress(data), np.uint8).reshape(2, -1).T.copy().view(np.uint16).reshape(c, h, w)
  planes = residual.cumsum(1, dtype=np.uint16).cumsum(2, dtype=np.uint16)
  return planes.view(np.int16).transpose(1, 2, 0).astype(np.float32)


def root(values):
  return np.sign(values) * np.sqrt(np.abs(values))


def spectrum_schemes(scale):
  """Name -> (encode(band [h w 4], k) -> bytes, decode(bytes, shape, k) -> [h w 4])."""
  half = lambda data, shape: np.frombuffer(data, np.float16).reshape(shape).astype(np.float32)

  def companded(bits):
    most = 2 ** (bits - 1) - 1

    def encode(band, k):
      largest = np.float32(max(np.abs(root(band)).max(), 1e-9))
      return largest.tobytes() + encode_rows(np.rint(root(band) / largest * most))

    def decode(data, shape, k):
      roots = decode_rows(data[4:], shape) * (np.frombuffer(data[:4], np.float32)[0] / most)
      return roots * np.abs(roots)

    return encode, decode

  def uniform(step):
    return (
      lambda band, k: encode_rows(np.rint(band / (scale[k] * step))),
      lambda data, shape, k: decode_rows(data, shape) * np.float32(scale[k] * step),
    )

  return {
    "float16": (lambda band, k: band.astype(np.float16).tobytes(), lambda data, shape, k: half(data, shape)),
    "float16, zlib": (
      lambda band, k: zlib.compress(spread(band.astype(np.float16).view(np.uint16).transpose(2, 0, 1)), 6),
      lambda data, shape, k: np.moveaxis(
        np.frombuffer(zlib.decompress(data), np.uint8).reshape(2, -1).T.copy().view(np.float16)
        .reshape(shape[2], *shape[:2]), 0, -1).astype(np.float32),
    ),
    "even steps s/200, zlib": uniform(1 / 200),
    "even steps s/50, zlib": uniform(1 / 50),
    "root steps, 10 bits, zlib": companded(10),
    "root steps, 8 bits, zlib": companded(8),
    "stored: root, 8 bits, WebP": (
      lambda band, k: storage.encode_band(band), lambda data, shape, k: storage.decode_band(data)),
  }


def spectrum_to_motion(spectrum):
  bands = np.zeros((NUM_FRAMES // 2 + 1, *spectrum.shape[1:3], 2), np.complex64)
  bands[:len(spectrum)] = spectrum[..., :2] + 1j * spectrum[..., 2:]
  return np.fft.irfft(bands, NUM_FRAMES, axis=0)


def summarize(errors):
  errors = np.abs(np.concatenate([error.ravel() for error in errors]))
  return np.sqrt(np.mean(errors**2)), np.percentile(errors, 99.9)


def compare_spectra(windows):
  spectra = [window.spectrum.astype(np.float32) for window in windows]
  stacked = np.stack([np.hypot(s[..., :2], s[..., 2:]) for s in spectra], 1)
  scale = np.maximum(np.percentile(stacked.reshape(NUM_BANDS, -1), 95, axis=1), 1e-3)
  per_band = scale[:, None, None, None]
  motions = [spectrum_to_motion(s)[::5] for s in spectra]
  print(f"\n{'spectrum':28s}{'kB':>6s}{'trajectory px: rms':>20s}{'99.9 %':>8s}{'normalised: rms':>17s}{'99.9 %':>8s}"
        f"{'all ms':>8s}{'one band':>10s}")
  for name, (encode, decode) in spectrum_schemes(scale).items():
    moved, normalised, size, seconds = [], [], 0, 0.0
    for spectrum, motion in zip(spectra, motions, strict=True):
      stored = [encode(band, k) for k, band in enumerate(spectrum)]
      began = time.perf_counter()
      again = np.stack([decode(data, spectrum.shape[1:], k) for k, data in enumerate(stored)])
      seconds += time.perf_counter() - began
      size += sum(map(len, stored))
      moved.append(spectrum_to_motion(again)[::5] - motion)
      normalised.append((root(again) - root(spectrum)) / np.sqrt(per_band))
    (rms, most), (rms_n, most_n) = summarize(moved), summarize(normalised)
    milliseconds = 1e3 * seconds / len(windows)
    print(f"{name:28s}{size / len(windows) / 1e3:6.0f}{rms:20.4f}{most:8.4f}{rms_n:17.4f}{most_n:8.4f}"
          f"{milliseconds:8.1f}{milliseconds / NUM_BANDS:10.2f}")


def compare_arrays(title, unit, arrays, schemes):
  print(f"\n{title:28s}{'kB':>6s}{'error ' + unit + ': rms':>20s}{'most':>8s}{'ms':>8s}")
  for name, (encode, decode) in schemes.items():
    stored = [encode(array) for array in arrays]
    began = time.perf_counter()
    again = [decode(data) for data in stored]
    seconds = (time.perf_counter() - began) / len(arrays)
    errors = np.concatenate([(a.astype(np.float32) - b).ravel() for a, b in zip(again, arrays, strict=True)])
    size = np.mean([len(data) for data in stored]) / 1e3
    rms, most = np.sqrt(np.mean(errors**2)), np.abs(errors).max()
    print(f"{name:28s}{size:6.1f}{rms:20.4f}{most:8.4f}{1e3 * seconds:8.2f}")


def picture_scheme(suffix, *options):
  return (
    lambda image: cv2.imencode(suffix, image[..., ::-1], options)[1].tobytes(),
    lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1],
  )


def main():
  parser = argparse.ArgumentParser(description="Compare ways of storing windows.")
  parser.add_argument("--clips", default="", help="folder of videos; simulated scenes without one")
  parser.add_argument("--windows", type=int, default=12)
  parser.add_argument("--motion_stride", type=int, default=2)
  options = parser.parse_args()
  cv2.setNumThreads(1)
  windows = make_windows(options.clips, options.windows, options.motion_stride)
  kind = "filmed" if options.clips else "simulated"
  print(f"{len(windows)} {kind} windows, image {windows[0].image.shape}, spectrum {windows[0].spectrum.shape}")
  compare_spectra(windows)
  flows = [flow.astype(np.float32) for window in windows for flow in window.flows]
  shape = flows[0].shape
  compare_arrays("one flow", "px", flows, {
    "float16": (
      lambda flow: flow.astype(np.float16).tobytes(), lambda data: np.frombuffer(data, np.float16).reshape(shape)),
    "even steps 1/32 px, zlib": (lambda flow: encode_rows(np.rint(32 * flow)), lambda d: decode_rows(d, shape) / 32),
    "stored: 1/32 px, WebP": (storage.encode_flow, storage.decode_flow),
  })
  compare_arrays("one frame", "levels", [frame for window in windows for frame in (window.image, *window.frames)], {
    "uint8": (lambda image: image.tobytes(), lambda d: np.frombuffer(d, np.uint8).reshape(windows[0].image.shape)),
    "PNG": picture_scheme(".png"),
    "JPEG 95, full colour": picture_scheme(
      ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95,
      cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "stored: WebP, lossless": (storage.encode_image, storage.decode_image),
  })
  examples = [storage.window_to_example(window) for window in windows]
  parts = {name: np.mean([len(e[name]) if isinstance(e[name], bytes) else sum(map(len, e[name])) for e in examples])
           for name in ("image", "spectrum", "frames", "flows", "depth")}
  plain = np.mean([sum(getattr(window, name).nbytes for name in parts) for window in windows])
  print(f"\na window: {sum(parts.values()) / 1e3:.0f} kB, plain arrays {plain / 1e3:.0f} kB; "
        + ", ".join(f"{name} {size / 1e3:.0f}" for name, size in parts.items()))
  print("milliseconds to decode what a stage needs:")
  for stage, choice in {
    "vae": dict(fields=("spectrum",), bands=[5]),
    "ldm": dict(fields=("image", "spectrum"), bands=[1, 8]),
    "ldm_coordinated": dict(fields=("image", "spectrum")),
    "renderer": dict(fields=("image", "frames", "flows", "depth"), pairs=[2]),
  }.items():
    began = time.perf_counter()
    for example in examples:
      storage.example_to_window(example, **choice)
    print(f"  {stage:16s}{1e3 * (time.perf_counter() - began) / len(examples):6.2f}")


if __name__ == "__main__":
  main()
