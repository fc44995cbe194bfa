"""Trains any stage: `python -m gid_jax.train --config=configs/ldm.py:default --workdir=runs/ldm`.

Run the same command again and it goes on where the newest checkpoint stands.
"""

import functools
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags, logging
from clu import parameter_overview
from ml_collections import config_flags
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gid_jax import sharding
from gid_jax.checkpoint import CheckpointStore, checkpoint_directory
from gid_jax.errors import UserError
from gid_jax.input_pipeline import find_scale, make_eval_batches, make_train_iterator
from gid_jax.metric_writer import MetricWriter
from gid_jax.objectives import make_objective
from gid_jax.train_state import Batch, LossFn, Metrics, TrainState, create_train_state, merge_params, train_step
from gid_jax.types import PRNGKey

_CONFIG = config_flags.DEFINE_config_file("config", None, "Stage and size, such as configs/ldm.py:default.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and metrics; resumed when it has some.")


def make_optimizer(config: Any) -> optax.GradientTransformation:
  """AdamW with warm-up, cosine decay to a tenth, and gradients clipped by their global norm.

  Raises:
    UserError: the warm-up is not shorter than the training.
  """
  if config.warmup_steps >= config.num_steps:
    raise UserError(
      f"config.optimizer.warmup_steps={config.warmup_steps} is not below num_steps={config.num_steps}; lower it"
    )
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, config.warmup_steps, config.num_steps, config.learning_rate * 0.1
  )
  tx = optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(schedule, b2=config.adam_b2, weight_decay=config.weight_decay),
  )
  # A slice without motion is constant, and group normalisation's slope there can overflow: such an update is skipped.
  return optax.apply_if_finite(tx, max_consecutive_errors=5)


def evaluate(key: PRNGKey, state: TrainState, batches: list[Batch], *, eval_fn: LossFn) -> Metrics:
  """Mean metrics of the averaged parameters over `batches` ([b ...] arrays); one key, the same draws at every call."""
  params = merge_params(state.ema_params, state.frozen)
  results = [
    eval_fn(batch_key, params, batch)[1]
    for batch_key, batch in zip(jax.random.split(key, len(batches)), batches, strict=True)
  ]
  return jax.tree.map(lambda *values: jnp.stack(values).mean(), *results)


def train(config: Any, workdir: str | Path) -> TrainState:
  """Trains the stage that `config` describes and returns its final state.

  Raises:
    UserError: data, weights or an earlier stage are missing or do not fit.
  """
  # --- machines -------------------------------------------------------------------------------------------------
  # On a CPU nothing is won by dispatching ahead, and progress and steps per second would tell of work not yet done.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  sharding.maybe_initialize_distributed()
  mesh = sharding.make_mesh(**config.mesh)
  is_main = jax.process_index() == 0

  # --- data -----------------------------------------------------------------------------------------------------
  process = dict(process_index=jax.process_index(), process_count=jax.process_count())
  iterator = make_train_iterator(
    config.data, stage=config.stage, seed=config.seed, batch_size=config.batch_size, **process
  )
  # The latents' whitening is measured on training data; another seed, so that the run's own order is untouched.
  first_batches = itertools.islice(
    make_train_iterator(config.data, stage=config.stage, seed=config.seed + 1, batch_size=config.batch_size, **process),
    config.num_init_batches,
  )
  eval_batches = make_eval_batches(
    config.data, stage=config.stage, batch_size=config.batch_size, num_batches=config.num_eval_batches, **process
  )
  first_batches, eval_batches = (
    [sharding.put_batch(batch, mesh) for batch in batches] for batches in (first_batches, eval_batches)
  )

  # --- model ----------------------------------------------------------------------------------------------------
  scale = find_scale(config.data) if config.stage == "vae" else None
  objective = make_objective(config, band_scale=scale)
  tx = make_optimizer(config.optimizer)
  train_key, eval_key = jax.random.split(jax.random.key(config.seed))
  # The default generator is unrolled once a parameter and takes a minute to compile; this one takes seconds.
  init_key = jax.random.key(config.seed, impl="rbg")
  state = create_train_state(objective.initialize(init_key, first_batches), trainable=objective.trainable, tx=tx)
  if is_main:
    print(parameter_overview.get_parameter_overview(state.params, include_stats=False, max_lines=12))

  # --- shard ----------------------------------------------------------------------------------------------------
  state_sharding = sharding.param_sharding(state, mesh)
  state = jax.device_put(state, state_sharding)

  # --- resume ---------------------------------------------------------------------------------------------------
  store = CheckpointStore(
    checkpoint_directory(workdir), max_to_keep=config.keep_checkpoints, save_interval_steps=config.save_every
  )
  writer = MetricWriter(workdir, tensorboard=config.tensorboard)
  restored = store.restore_latest(state, iterator)
  writer.truncate_after(restored[0] if restored else 0)
  if restored:
    state = restored[1]

  # --- update ---------------------------------------------------------------------------------------------------
  update = jax.jit(
    functools.partial(train_step, loss_fn=objective.loss_fn, tx=tx, ema_decay=config.ema_decay),
    donate_argnames=("state",),
    out_shardings=(state_sharding, None),
  )
  eval_fn = jax.jit(objective.loss_fn)

  # --- loop -----------------------------------------------------------------------------------------------------
  num_steps = config.optimizer.num_steps
  columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
  with Progress(*columns, disable=not is_main) as progress:
    task = progress.add_task(config.stage, total=num_steps, completed=int(state.step))
    started, last_logged = time.monotonic(), int(state.step)
    for step in range(int(state.step) + 1, num_steps + 1):
      state, metrics = update(train_key, state, sharding.put_batch(next(iterator), mesh))
      progress.advance(task)
      if step % config.log_every == 0 or step == num_steps:
        scalars = {name: float(value) for name, value in metrics.items()}
        scalars["steps_per_second"] = (step - last_logged) / (time.monotonic() - started)
        writer.write_scalars(step, scalars)
        progress.update(task, description=f"{config.stage} loss {scalars['loss']:.4f}")
        started, last_logged = time.monotonic(), step
      if step % config.eval_every == 0 or step == num_steps:
        validation = evaluate(eval_key, state, eval_batches, eval_fn=eval_fn)
        writer.write_scalars(step, {f"validation_{name}": float(value) for name, value in validation.items()})
      store.save(step, state=state, iterator=iterator, config=config.to_dict(), force=step == num_steps)
  store.wait()
  store.close()
  writer.close()
  return state


def main(argv: list[str]) -> None:
  """Runs `train` with the flags; a `UserError` becomes one line and exit status 2."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Otherwise every library's notes bury the progress.
  if len(argv) > 1:
    sys.exit(f"unexpected argument {argv[1]!r}; see --help")
  try:
    train(_CONFIG.value, _WORKDIR.value)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
