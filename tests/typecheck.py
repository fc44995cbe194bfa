"""The checker that `--jaxtyping-packages` of pyproject.toml applies to every function of `gid_jax` while tests run."""

import inspect
import typing

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for every static checker


def checked(function):
  """Checks arguments and result of a function that takes or gives arrays.

  What makes a pytree of arrays is left alone: JAX makes such anew and fills it with shapes, shardings or nothing.
  """
  holds_arrays = any(map(_has_array, inspect.get_annotations(function).values()))
  return _check(function) if holds_arrays and function.__name__ != "__init__" else function


def _has_array(hint):
  if inspect.isclass(hint) and issubclass(hint, AbstractArray | jax.Array | np.ndarray):
    return True
  parts = hint if isinstance(hint, list) else typing.get_args(hint)  # a list: what a callable takes
  return any(map(_has_array, parts))
