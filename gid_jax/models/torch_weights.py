"""From PyTorch's convolutions with batch normalisation to plain convolutions with a bias, by one table of names."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gid_jax.errors import UserError


def fold_batch_norms(
  shapes: Mapping[str, Mapping[str, Any]],
  tensors: Mapping[str, np.ndarray],
  names: Callable[[str], tuple[str, str | None]],
  *,
  epsilon: float,
  source: str,
) -> dict[str, dict[str, np.ndarray]]:
  """Fills a flat tree of convolutions from named PyTorch tensors.

  Args:
    shapes: {layer: {"kernel": has .shape, spatial axes first then in, out; "bias"}}, as `jax.eval_shape` gives it.
    tensors: a state dict as arrays; what no layer asks for is ignored.
    names: layer -> the names of its convolution and of its batch normalisation; None where it has a bias instead.
    epsilon: of the normalisation.
    source: the file, for errors.

  Returns:
    {layer: {"kernel", "bias"}} float32.

  Raises:
    UserError: a tensor is missing or has another shape.
  """

  def read(name, shape):
    if name not in tensors or tensors[name].shape != shape:
      found = tensors[name].shape if name in tensors else "nothing"
      raise UserError(f"{source}: {name} should have shape {shape}, found {found}; name a file of this network")
    return tensors[name].astype(np.float64)

  params = {}
  for layer, parts in shapes.items():
    *spatial, inputs, outputs = parts["kernel"].shape
    conv, norm = names(layer)
    kernel = np.moveaxis(read(f"{conv}.weight", (outputs, inputs, *spatial)), (0, 1), (-1, -2))
    if norm is None:
      bias = read(f"{conv}.bias", (outputs,))
    else:
      scale, shift, mean, variance = (
        read(f"{norm}.{part}", (outputs,)) for part in ("weight", "bias", "running_mean", "running_var")
      )
      scale = scale / np.sqrt(variance + epsilon)
      kernel, bias = kernel * scale, shift - mean * scale
    params[layer] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
  return params
