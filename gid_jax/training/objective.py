"""What a training stage is, and what all stages begin with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from jaxtyping import Array

from gid_jax.errors import UserError
from gid_jax.types import Batch, LossFn, Params, PRNGKey
from gid_jax.weights.checkpoint import restore_params
from gid_jax.weights.pretrained import config_to_settings, import_weights


class Objective(NamedTuple):
  """One training stage.

  Attributes:
    initialize: (key, a few training batches of [b ...] arrays) -> parameters, earlier stages included; of the batches
      no more are read than are needed. New ones are cut over the mesh that the batches lie on, others on the host.
    describe: a batch -> shapes and types of these parameters; nothing is read or computed.
    trainable: whether the parameter at a path such as "unet/conv_in/kernel" is trained.
    loss_fn: (key, params, batch) -> (loss, metrics).
    start: the work folder or exported weights file whose parameters `initialize` takes over; "" for none.
  """

  initialize: Callable[[PRNGKey, Iterable[Batch]], Params]
  describe: Callable[[Batch], Params]
  trainable: Callable[[str], bool]
  loss_fn: LossFn
  start: str


Terms = Mapping[str, Callable[[Any], Array]]


def blank(batch: Batch) -> dict[str, np.ndarray]:
  """Zeros of a batch's shapes: all that parameters need to know, and the same program on any mesh."""
  return {name: np.zeros(array.shape, array.dtype) for name, array in batch.items()}


def overlay(params: Params, source: str, *, stages: Sequence[str]) -> tuple[Params, Any]:
  """Puts trained parameters over freshly made ones: those of a work folder or of an exported weights file.

  A part that this stage's model lacks (coordination in stage 1) is left out. Returns them with what the source says of
  its parameters.

  Raises:
    UserError: `source` holds another stage than one of `stages`, or a model of other sizes.
  """
  if source.endswith(".safetensors"):
    trained, settings = import_weights(source)
  else:
    trained, config = restore_params(source)
    settings = config_to_settings(config, where=f"{source}: config")
  if settings.stage not in stages:
    raise UserError(f"{source}: holds stage {settings.stage!r}; name a trained {stages[0]!r}")
  flat: Any = traverse_util.flatten_dict(params)
  trained: Any = {path: leaf for path, leaf in traverse_util.flatten_dict(trained).items() if path in flat}
  if any(np.shape(leaf) != np.shape(flat[path]) for path, leaf in trained.items()):
    raise UserError(f"{source}: its model differs from this config's; train both stages with the same model sizes")
  # On the host, from where each device takes its part.
  trained = {path: np.asarray(leaf) for path, leaf in trained.items()}
  return traverse_util.unflatten_dict(flat | trained), settings
