"""Tensors of networks that others trained, from safetensors files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.errors import UserError


def read_tensors(path: str | Path, *, network: str) -> dict[str, np.ndarray]:
  """All tensors of a safetensors file by their names.

  Raises:
    UserError: the file cannot be read; says that those of `network` are wanted.
  """
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f"Cannot read {path}: {error}. Give the safetensors of {network}.") from error


def take_tensor(
  tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], *, source: str, network: str
) -> np.ndarray:
  """One of `tensors` as float32.

  Raises:
    UserError: there is none of this name and shape; names `source`, where they came from, and `network`.
  """
  if name not in tensors or tensors[name].shape != shape:
    found = tensors[name].shape if name in tensors else "nothing"
    raise UserError(f"{source} is not {network}: {name} should have shape {shape}, found {found}.")
  return tensors[name].astype(np.float32)
