"""The training state and the one pure update of it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh
from jaxtyping import Array, Int

from gid_jax.training.sharding import param_sharding
from gid_jax.types import Batch, LossFn, Metrics, Params, PRNGKey


class TrainState(flax.struct.PyTreeNode):
  """Everything that a training run carries from step to step.

  Attributes:
    step: [] int32, updates done.
    params: the parameters in training, a nested dict of arrays.
    ema_params: their exponential moving average.
    opt_state: the optimiser's state.
    frozen: parameters that the loss needs and training leaves alone (earlier stages, ImageNet features, statistics).
  """

  step: Int[Array, ""]
  params: Params
  ema_params: Params
  opt_state: Any
  frozen: Params


def split_params(params: Params, *, trainable: Callable[[str], bool]) -> tuple[Params, Params]:
  """Splits a nested dict of arrays into (trained, frozen) by a predicate on the path, "unet/conv_in/kernel"."""
  flat = traverse_util.flatten_dict(params, sep="/")
  halves = [{path: leaf for path, leaf in flat.items() if trainable(path) == side} for side in (True, False)]
  trained, frozen = (traverse_util.unflatten_dict(half, sep="/") for half in halves)
  return trained, frozen


def merge_params(*trees: Params) -> Params:
  """Joins nested dicts of arrays with any shapes; where two hold the same path, the later one counts."""
  flat = {}
  for tree in trees:
    flat |= traverse_util.flatten_dict(tree)
  return traverse_util.unflatten_dict(flat)


def create_train_state(
  params: Params, *, trainable: Callable[[str], bool], tx: optax.GradientTransformation
) -> TrainState:
  """Starts training from a nested dict of arrays, of which the paths accepted by `trainable` are trained."""
  trained, frozen = split_params(params, trainable=trainable)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=trained,
    ema_params=jax.tree.map(jnp.copy, trained),
    opt_state=tx.init(trained),
    frozen=frozen,
  )


def describe_state(
  params: Params, mesh: Mesh, *, trainable: Callable[[str], bool], tx: optax.GradientTransformation
) -> TrainState:
  """Shapes, types and shardings of the state that `create_sharded_state` makes; `params` may be shapes alone."""
  create = functools.partial(create_train_state, trainable=trainable, tx=tx)
  shapes = jax.eval_shape(create, params)
  place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return jax.tree.map(place, shapes, param_sharding(shapes, mesh))


def create_sharded_state(
  params: Params, mesh: Mesh, *, trainable: Callable[[str], bool], tx: optax.GradientTransformation
) -> TrainState:
  """Does what `create_train_state` does, every array cut as `param_sharding` says.

  Averages and moments are cut as they are made, so that no device ever holds all of them. Parameters that lie whole on
  one device stay there only as long as the caller keeps them.
  """
  create = functools.partial(create_train_state, trainable=trainable, tx=tx)
  placed = jax.device_put(params, param_sharding(params, mesh))
  del params
  described = describe_state(placed, mesh, trainable=trainable, tx=tx)
  return jax.jit(create, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, described))(placed)


def train_step(
  key: PRNGKey,
  state: TrainState,
  batch: Batch,
  *,
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  ema_decay: float,
  accumulation_steps: int = 1,
) -> tuple[TrainState, Metrics]:
  """One pure update on the global batch (arrays [b ...]); sharding lives in the arrays, not here.

  The step is folded into `key`, so a resumed run draws what an uninterrupted one would. The moving average warms up
  as min(decay, (1 + n) / (10 + n)).

  With n = `accumulation_steps` above 1 the batch is worked on in n microbatches, one after the other: gradients and
  metrics are averaged in float32, and there is one update. For a loss that is a mean over examples this is the update
  of the whole batch, in less memory. Microbatch i holds every n-th example from i on, and its draws come from the
  step's key with i folded in; so they differ from those of a run with another n, in value but not in distribution.
  """
  key = jax.random.fold_in(key, state.step)

  def loss(params, key, batch):
    return loss_fn(key, merge_params(params, state.frozen), batch)

  gradients, metrics = _accumulate(jax.grad(loss, has_aux=True), state.params, key, batch, accumulation_steps)
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
  ema_params = jax.tree.map(lambda ema, new: decay * ema + (1 - decay) * new, state.ema_params, params)
  metrics = metrics | {"gradient_norm": optax.global_norm(gradients)}
  return state.replace(step=state.step + 1, params=params, ema_params=ema_params, opt_state=opt_state), metrics


def _accumulate(grad_fn, params, key, batch, num_steps):
  """Mean (gradients, metrics) over `num_steps` microbatches."""
  if num_steps == 1:
    return grad_fn(params, key, batch)
  # Every n-th example, not n runs of them: each device then cuts its own part of the batch, and none moves.
  columns = jax.tree.map(lambda array: array.reshape(-1, num_steps, *array.shape[1:]), batch)

  def work_on(index):
    microbatch = jax.tree.map(lambda array: jax.lax.dynamic_index_in_dim(array, index, 1, keepdims=False), columns)
    return grad_fn(params, jax.random.fold_in(key, index), microbatch)

  def body(total, index):
    return jax.tree.map(lambda sum_, part: sum_ + part.astype(jnp.float32) / num_steps, total, work_on(index)), None

  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), jax.eval_shape(work_on, 0))
  total, _ = jax.lax.scan(body, zeros, jnp.arange(num_steps))
  return total
