"""Small spectral volumes for the tests of motion metrics, and their trajectories by NumPy's inverse transform."""

import numpy as np

from gid_jax.types import SpectralVolume


def make_volume(seed=0, *, num_bands=4, height=6, width=8, num_frames=20, fps=10.0, scale=100.0):
  """Independent normal coefficients [k h w 4]."""
  coefficients = np.random.default_rng(seed).normal(size=(num_bands, height, width, 4)) * scale
  return SpectralVolume(coefficients.astype(np.float32), num_frames=num_frames, fps=fps)


def evaluate_trajectories(volume):
  """[t h w 2] in float64."""
  coefficients = np.asarray(volume.coefficients, np.float64)
  return np.fft.irfft(coefficients[..., :2] + 1j * coefficients[..., 2:], n=volume.num_frames, axis=0)
