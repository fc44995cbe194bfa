"""Motion textures and spectral volumes: the Fourier series of every pixel's trajectory (section 3, eq. 2).

A motion texture F [t h w 2] holds displacements from frame 0. Its spectral volume keeps the lowest K bins of
the unnormalised forward DFT over t, S_k = sum_t F_t exp(-2 pi i k t / T); the inverse sets the rest to zero:

  F(t) = (1/T) Re[S_0] + (2/T) sum_{0 < k < T/2} Re[S_k exp(2 pi i k t / T)] (+ (1/T) Re[S_{T/2}] cos(pi t)),

which is defined at every real t, exactly T-periodic and linear in S. Both directions are one small matrix
product, so they run as such on every backend and no complex numbers are needed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Real

from gid_jax.errors import UserError
from gid_jax.motion.resize import resize
from gid_jax.types import AnyArray, SpectralVolume

_PRECISION = jax.lax.Precision.HIGHEST  # the default would round to bfloat16 on a TPU
_CHUNK = 16  # frames evaluated together when only their mean is wanted


def band_frequencies(num_bands: int, *, num_frames: int, fps: float) -> Float[Array, "k"]:
  """Frequencies of the first `num_bands` bins, k * fps / num_frames in Hz, as [k]."""
  return jnp.arange(num_bands, dtype=jnp.float32) * (fps / num_frames)


def channels_to_complex(channels: Float[AnyArray, "*b k h w 4"]) -> Complex[Array, "*b k h w 2"]:
  """Channels (Re x, Re y, Im x, Im y) [*b k h w 4] to complex (x, y) coefficients [*b k h w 2]."""
  channels = jnp.asarray(channels, jnp.float32)
  return jax.lax.complex(channels[..., :2], channels[..., 2:])


def motion_to_spectrum(
  motion: Float[AnyArray, "t h w 2"], *, num_bands: int, fps: float = 30.0
) -> SpectralVolume:
  """Temporal DFT of a motion texture, lowest bands only (eq. 2).

  A NumPy array is transformed by NumPy's FFT and stays one, so that workers need no JAX device; a JAX array by a matrix
  product, which can be compiled and differentiated and runs alike on every backend. They differ by rounding.

  Args:
    motion: [t h w 2] displacements (dx, dy) from frame 0, pixels of this grid.
    num_bands: K, DC included, 1 ... t // 2 + 1.
    fps: frames per second of `motion`.

  Returns:
    The spectral volume [k h w 4]; equal to the first K bins of `numpy.fft.rfft` over t.

  Raises:
    UserError: if a motion of t frames does not have `num_bands` bins.
  """
  num_frames = motion.shape[0]
  if not 1 <= num_bands <= num_frames // 2 + 1:
    raise UserError(
      f"num_bands={num_bands}: a motion of {num_frames} frames has {num_frames // 2 + 1} frequency bands;"
      " ask for 1 up to that many, or use a longer clip"
    )
  if isinstance(motion, np.ndarray):
    bands = np.fft.rfft(motion, axis=0)[:num_bands]
    coefficients = np.concatenate([bands.real, bands.imag], -1).astype(np.float32)
  else:
    # Reducing k t modulo T first keeps the angles small, so that the table is exact to float32.
    turns = np.outer(np.arange(num_bands), np.arange(num_frames)) % num_frames / num_frames
    table = np.stack([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)], axis=1).astype(np.float32)
    channels = jnp.einsum("krt,thwc->khwrc", table, jnp.asarray(motion, jnp.float32), precision=_PRECISION)
    coefficients = channels.reshape(*channels.shape[:3], 4)
  return SpectralVolume(coefficients=coefficients, num_frames=num_frames, fps=fps)


def bin_weights(num_bands: int, num_frames: int) -> np.ndarray:
  """Weights of the inverse transform [k]: 1/T for DC and Nyquist, which stand alone, 2/T for the others.

  Raises:
    UserError: if `num_frames` frames do not have `num_bands` bins.
  """
  if num_bands > num_frames // 2 + 1:
    raise UserError(
      f"spectrum: {num_bands} bands cannot come from {num_frames} frames;"
      " set num_frames to the period of the motion"
    )
  bands = np.arange(num_bands)
  alone = (bands == 0) | (2 * bands == num_frames)
  return np.where(alone, 1.0, 2.0).astype(np.float32) / num_frames


def _angles(times: Real[AnyArray, "n"], num_bands: int, num_frames: int) -> Float[Array, "n k"]:
  """2 pi k t / T, reduced to one turn before float32 runs out of digits: [n k]."""
  bands = np.arange(num_bands, dtype=np.float32)
  reduced = jnp.mod(jnp.asarray(times, jnp.float32)[:, None] * bands, num_frames)
  return reduced * (2 * np.pi / num_frames)


def _sum_series(table: Float[AnyArray, "n k 2"], spectrum: SpectralVolume) -> Float[Array, "n h w 2"]:
  """Multiplies real and imaginary parts by the two columns of `table` and sums over the bands."""
  coefficients = jnp.asarray(spectrum.coefficients, jnp.float32)
  parts = coefficients.reshape(*coefficients.shape[:-1], 2, 2)
  return jnp.einsum("nkr,khwrc->nhwc", table, parts, precision=_PRECISION)


def series_table(
  times: Real[AnyArray, "n"], num_bands: int, num_frames: int, *, anchor_first_frame: bool = False
) -> Float[Array, "n k 2"]:
  """What to multiply the real and imaginary parts of k bands by, and sum, for the Fourier series at n times.

  Args:
    times: [n] in frames, real-valued; anything outside 0 ... T continues the loop.
    num_bands: k.
    num_frames: T.
    anchor_first_frame: subtract F(0), which truncation leaves non-zero, so that t = 0 shows the photo.
  """
  weights = bin_weights(num_bands, num_frames)
  angles = _angles(times, num_bands, num_frames)
  paired = np.where(2 * np.arange(num_bands) == num_frames, 0.0, weights)  # Nyquist is a pure cosine
  start = weights if anchor_first_frame else 0.0
  return jnp.stack([weights * jnp.cos(angles) - start, -paired * jnp.sin(angles)], axis=-1)


def evaluate_motion(
  spectrum: SpectralVolume, times: Real[AnyArray, "n"], *, anchor_first_frame: bool = False
) -> Float[Array, "n h w 2"]:
  """The Fourier series of an unbatched volume at any times, exact between frames (section 6, slow motion).

  Args:
    spectrum: coefficients [k h w 4], pixels.
    times: [n] in frames; see `series_table`.
    anchor_first_frame: subtract F(0); see `series_table`.

  Returns:
    Displacements [n h w 2] in pixels of the volume's grid.
  """
  num_bands = spectrum.coefficients.shape[-4]
  table = series_table(times, num_bands, spectrum.num_frames, anchor_first_frame=anchor_first_frame)
  return _sum_series(table, spectrum)


def evaluate_velocity(spectrum: SpectralVolume, times: Real[AnyArray, "n"]) -> Float[Array, "n h w 2"]:
  """Time derivative of `evaluate_motion` at [n] times in frames: [n h w 2] in pixels per frame."""
  num_bands = spectrum.coefficients.shape[-4]
  bands = np.arange(num_bands)
  weights = bin_weights(num_bands, spectrum.num_frames)
  rates = (weights * 2 * np.pi * bands / spectrum.num_frames).astype(np.float32)
  paired = np.where(2 * bands == spectrum.num_frames, 0.0, rates).astype(np.float32)
  angles = _angles(times, num_bands, spectrum.num_frames)
  table = jnp.stack([-rates * jnp.sin(angles), -paired * jnp.cos(angles)], axis=-1)
  return _sum_series(table, spectrum)


def spectrum_to_motion(
  spectrum: SpectralVolume, *, anchor_first_frame: bool = False
) -> Float[Array, "t h w 2"]:
  """Inverse DFT of one whole period, the missing bins at zero (eq. 2).

  Args:
    spectrum: [k h w 4] of a period of t frames.
    anchor_first_frame: subtract frame 0, so that the motion begins at rest.

  Returns:
    Displacements [t h w 2] (dx, dy), pixels of the volume's grid.
  """
  return evaluate_motion(spectrum, jnp.arange(spectrum.num_frames), anchor_first_frame=anchor_first_frame)


# Factors on the motion of a breeze: 15, 50 and 85 % of 31 filmed outdoor scenes swing by no more than 1.8, 3.7 and
# 7.2 px at 256 px across. The spectrum keeps its shape: the logarithm of a band grows 0.92 to 1.16 times as fast as
# that of the swing.
WINDS = {"calm": 0.5, "breeze": 1.0, "windy": 2.0}


def magnify(spectrum: SpectralVolume, factor: float) -> SpectralVolume:
  """Scales every displacement by `factor`; below 1 calms the motion, above 1 exaggerates it (section 6)."""
  return spectrum.replace(coefficients=spectrum.coefficients * factor)


def _resize_vectors(
  vectors: Float[AnyArray, "*b h w c"], height: int, width: int
) -> Float[AnyArray, "*b {height} {width} c"]:
  """Resizes a field whose channels alternate x, y and rescales each axis by its true size ratio."""
  old_height, old_width, channels = vectors.shape[-3:]
  if (old_height, old_width) == (height, width):
    return vectors
  resized = resize(vectors, height, width)
  ratio = np.array([width / old_width, height / old_height] * (channels // 2), np.float32)
  return resized * ratio.astype(resized.dtype)


def resize_motion(
  motion: Float[AnyArray, "*b h w 2"], height: int, width: int
) -> Float[AnyArray, "*b {height} {width} 2"]:
  """Resamples displacements [*b h w 2] onto another grid and into its pixels, x and y by their own ratio."""
  return _resize_vectors(motion, height, width)


def resize_spectrum(spectrum: SpectralVolume, height: int, width: int) -> SpectralVolume:
  """Resamples a volume [*b k h w 4] onto another grid and into its pixels, x and y by their own ratio."""
  return spectrum.replace(coefficients=_resize_vectors(spectrum.coefficients, height, width))


def _norm(vectors: Float[AnyArray, "*b 2"]) -> Float[Array, "*b"]:
  """Length of the last axis, with gradient 0 instead of NaN where it is 0."""
  squares = jnp.sum(vectors**2, axis=-1)
  moving = squares > 0
  return jnp.where(moving, jnp.sqrt(jnp.where(moving, squares, 1.0)), 0.0)


def motion_magnitude(
  spectrum: SpectralVolume, *, num_samples: int | None = None, anchor_first_frame: bool = False
) -> Float[Array, "h w"]:
  """Mean displacement length W(p) = mean_t |F_t(p)|, the depth of the splatting (section 5).

  Args:
    spectrum: unbatched coefficients [k h w 4], pixels.
    num_samples: times averaged over, evenly spread over the period; None is every frame, the exact value.
    anchor_first_frame: measure from F(0), not 0 where bands are cut off, instead of from the pixel's own place.

  Returns:
    [h w] in pixels. Frames are evaluated a few at a time, so the motion texture never exists in memory.
  """
  num_samples = spectrum.num_frames if num_samples is None else num_samples
  times = np.arange(num_samples) * (spectrum.num_frames / num_samples)
  chunks = -(-num_samples // _CHUNK)
  padded = np.zeros((chunks, _CHUNK), np.float32)
  padded.flat[:num_samples] = times
  counted = (np.arange(padded.size) < num_samples).astype(np.float32).reshape(padded.shape)

  def add_chunk(total, chunk):
    frames, used = chunk
    motion = evaluate_motion(spectrum, frames, anchor_first_frame=anchor_first_frame)
    return total + jnp.einsum("n,nhw->hw", used, _norm(motion), precision=_PRECISION), None

  start = jnp.zeros(spectrum.coefficients.shape[-3:-1], jnp.float32)
  total, _ = jax.lax.scan(add_chunk, start, (padded, counted))
  return total / num_samples


def motion_power(spectrum: SpectralVolume) -> Float[Array, "*b k 2"]:
  """Mean over the pixels of |S_k|^2 for x and y, as [*b k 2] in square pixels (Figure 2, left)."""
  coefficients = jnp.asarray(spectrum.coefficients, jnp.float32)
  power = jnp.mean(coefficients**2, axis=(-3, -2))
  return power[..., :2] + power[..., 2:]


def shrink_vectors(
  vectors: Float[np.ndarray, "*b h w c"], *, stride: int
) -> Float[np.ndarray, "*b h//{stride} w//{stride} c"]:
  """Brings vectors [*b h w c] to a coarser grid: the mean of stride x stride pixels, in pixels of the new grid.

  Raises:
    UserError: the sides are no multiples of `stride`.
  """
  *batch, height, width, channels = vectors.shape
  if height % stride or width % stride:
    raise UserError(f"Frames of {height}x{width} px: both sides must be multiples of the motion stride {stride}.")
  blocks = vectors.reshape(*batch, height // stride, stride, width // stride, stride, channels)
  return blocks.mean((-4, -2)) / stride
