"""Trains any stage: `python -m gid_jax.train --config=configs/ldm.py:default --workdir=runs/ldm`.

Run the same command again and it goes on where the newest checkpoint stands. SIGTERM and Ctrl-C let the running step
finish, save it and end with status 143; errors end with status 2, a finished training with 0.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gid_jax.extras import missing_extra

try:
  import optax
  from absl import app, flags, logging
  from clu import metrics as clu_metrics
  from clu import parameter_overview
  from ml_collections import config_flags
except ImportError as error:
  raise missing_extra(error, "train", module=__name__) from error

from gid_jax.configuration import DataSettings, OptimizerSettings, TrainSettings
from gid_jax.data.checks import check_config
from gid_jax.data.examples import find_strength
from gid_jax.data.input_pipeline import (
  find_scale,
  make_cached_iterator,
  make_eval_batches,
  make_train_iterator,
  name_records,
)
from gid_jax.data.latent_cache import build_latent_cache
from gid_jax.data.records import OpenScenes
from gid_jax.data.scenes import find_trained_scenes
from gid_jax.data.stills import StillSource
from gid_jax.devices import use_compilation_cache
from gid_jax.errors import UserError
from gid_jax.files import blame_machine, lock_folder
from gid_jax.parsing import parse, to_plain
from gid_jax.training import sharding
from gid_jax.training.command_line import parse_flags
from gid_jax.training.divergence import DivergenceGuard
from gid_jax.training.interruption import StopRequest
from gid_jax.training.metric_writer import MetricWriter
from gid_jax.training.objectives import Objective, make_objective, needs_band_scale, needs_strength
from gid_jax.training.profiling import StepProfiler
from gid_jax.training.settings import check_resumable, check_settings
from gid_jax.training.train_state import (
  TrainState,
  create_sharded_state,
  describe_state,
  merge_params,
  train_step,
)
from gid_jax.training.validation import make_validation_drawing
from gid_jax.types import Batch, LossFn, Metrics, PRNGKey
from gid_jax.weights.checkpoint import CheckpointStore, checkpoint_directory, read_config, read_settings

# What shells report for a program ended by SIGTERM, so that a stage begun after `&&` does not build on half a training.
_STOPPED = 143


def make_learning_rate(settings: OptimizerSettings) -> optax.Schedule:
  """The rate of every update: warm-up from zero, then cosine decay to a tenth.

  Raises:
    UserError: the warm-up is not shorter than the training.
  """
  if settings.warmup_steps >= settings.num_steps:
    raise UserError(
      f"config.optimizer.warmup_steps={settings.warmup_steps} is not below num_steps={settings.num_steps}; lower it"
    )
  return optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, settings.warmup_steps, settings.num_steps, settings.learning_rate * 0.1
  )


def make_optimizer(settings: OptimizerSettings) -> optax.GradientTransformation:
  """AdamW with gradients clipped by their global norm; an update that is not finite is never applied.

  Raises:
    UserError: see `make_learning_rate`.
  """
  tx = optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    optax.adamw(make_learning_rate(settings), b2=settings.adam_b2, weight_decay=settings.weight_decay),
  )
  # How many in a row end the training is for `DivergenceGuard` to say; optax would apply the next one.
  return optax.apply_if_finite(tx, max_consecutive_errors=np.iinfo(np.int32).max)


def evaluate(
  key: PRNGKey, state: TrainState, batches: Sequence[Batch], *, eval_fn: LossFn, put: Callable[[Batch], Batch]
) -> Metrics:
  """Mean metrics of the averaged parameters over `batches` ([b ...] arrays); one key, the same draws at every call.

  Batches wait on the host: `put` brings them to the devices one by one.
  """
  params = merge_params(state.ema_params, state.frozen)
  mean: Any = None
  for batch_key, batch in zip(jax.random.split(key, len(batches)), batches, strict=True):
    _, results = eval_fn(batch_key, params, put(batch))
    averages = {name: clu_metrics.Average.from_output(name) for name in results}
    part: Any = clu_metrics.Collection.create(**averages).single_from_model_output(**results)
    mean = part if mean is None else mean.merge(part)
  return mean.compute()


def open_scenes(data: DataSettings) -> OpenScenes:
  """Opens the simulated scenes that the settings ask for; they are imported when they are asked for."""

  def open_split(split):
    try:
      from data_pipeline.synthetic.source import SceneSource
    except ImportError as error:
      raise UserError("config.data.sources.live: simulated scenes come with the checkout; start from there") from error
    source: Any = SceneSource(data.live, split, motion_stride=data.motion_stride)
    return source

  return open_split


def train(
  config: Any, workdir: str | Path, *, make_objective: Callable[..., Objective] = make_objective
) -> TrainState:
  """Trains the stage that `config` describes and returns its final state.

  Args:
    config: a ConfigDict of `configs/`, or `TrainSettings`.
    workdir: folder of checkpoints and metrics; gone on with when it has some.
    make_objective: what is learnt, such as a function that calls ours with `terms` of one's own.

  Raises:
    UserError: a setting is unknown or out of range, data, weights or an earlier stage are missing or do not fit,
      `workdir` holds another model or another process trains into it, or the numbers are no longer finite.
  """
  with contextlib.ExitStack() as held:
    return _train(config, workdir, make_objective, held)


def _train(
  config: Any, workdir: str | Path, make_objective: Callable[..., Objective], held: contextlib.ExitStack
) -> TrainState:
  # --- machines -------------------------------------------------------------------------------------------------
  # On a CPU nothing is won by dispatching ahead, and progress and steps per second would tell of work not yet done.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  sharding.maybe_initialize_distributed()
  settings = config if isinstance(config, TrainSettings) else parse(TrainSettings, config)
  mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
  sharding.check_batch_size(settings.batch_size, mesh, accumulation_steps=settings.accumulation_steps)
  is_main = jax.process_index() == 0
  directory = checkpoint_directory(workdir)
  saved_settings = read_config(directory) or {}
  changes = check_resumable(saved_settings, to_plain(settings), directory=directory)

  # --- data -----------------------------------------------------------------------------------------------------
  check_settings(settings)
  check_config(settings)
  data, process = settings.data, dict[str, Any](process_index=jax.process_index(), process_count=jax.process_count())
  # Into photos holes are cut; scenes move.
  open_live = functools.partial(StillSource, data.live) if settings.stage == "plate" else open_scenes(data)
  feed = dict[str, Any](stage=settings.stage, batch_size=settings.batch_size, open_live=open_live, **process)
  iterator: Any = make_train_iterator(data, seed=settings.seed, **feed)
  eval_batches = list(make_eval_batches(data, num_batches=settings.num_eval_batches, **feed))
  # Record numbers stay here: they are for messages.
  put = lambda batch: sharding.put_batch({name: batch[name] for name in batch if name != "record"}, mesh)

  # --- model ----------------------------------------------------------------------------------------------------
  if is_main:
    held.enter_context(lock_folder(Path(workdir), work="training", option="--workdir"))
  store = CheckpointStore(
    directory,
    max_to_keep=settings.keep_checkpoints,
    keep_best=settings.keep_best,
    save_interval_steps=settings.save_every,
  )
  # A run that goes on needs neither what it began with nor statistics of its data.
  is_new = not store.steps
  scale = find_scale(data, open_live=feed["open_live"]) if is_new and needs_band_scale(settings) else None
  strength = find_strength(data) if is_new and needs_strength(settings) else None
  objective = make_objective(settings, band_scale=scale, strength=strength)
  tx = make_optimizer(settings.optimizer)
  train_key, eval_key = jax.random.split(jax.random.key(settings.seed))
  # Once, not at every update; `device_put` takes no key to other processes' devices.
  train_key = jax.jit(lambda key: key, out_shardings=sharding.replicated(mesh))(train_key)
  rules = dict[str, Any](trainable=objective.trainable, tx=tx)
  target = describe_state(objective.describe(eval_batches[0]), mesh, **rules)
  if is_main:
    print(parameter_overview.get_parameter_overview(target.params, include_stats=False, max_lines=12))

  # --- initialize or resume ---------------------------------------------------------------------------------------
  writer = MetricWriter(workdir, tensorboard=settings.tensorboard)
  if is_new:
    # The latents' whitening is measured on training data; another seed, so that the run's own order is untouched.
    first = itertools.islice(make_train_iterator(data, seed=settings.seed + 1, **feed), settings.num_init_batches)
    # The default generator is unrolled once a parameter and takes a minute to compile; this one takes seconds.
    init_key = jax.random.key(settings.seed, impl="rbg")
    state = create_sharded_state(objective.initialize(init_key, map(put, first)), mesh, **rules)
    writer.truncate_after(0)
  else:
    restored = store.restore_latest(target, iterator)
    assert restored is not None
    step, state = restored
    writer.truncate_after(step)
    if is_main:
      print(f"going on from step {step}" + (f"; changed since: {', '.join(changes)}" if changes else ""))

  # --- scenes, latents --------------------------------------------------------------------------------------------
  saved = to_plain(settings) | list_seen(settings, saved_settings, start=objective.start if is_new else "")
  # Only now the auto-encoder is the run's own. A position is the number of batches read, the same for both iterators.
  if data.latent_draws:
    position = iterator.get_state()
    cache = build_latent_cache(workdir, settings, state.frozen, **process)
    feed = dict[str, Any](stage=settings.stage, batch_size=settings.batch_size, **process)
    iterator = make_cached_iterator(data, cache, seed=settings.seed, **feed)
    iterator.set_state(position)

  # --- update ---------------------------------------------------------------------------------------------------
  loss_fn = sharding.with_whole_params(objective.loss_fn, mesh)
  update = jax.jit(
    functools.partial(
      train_step, loss_fn=loss_fn, tx=tx, ema_decay=settings.ema_decay, accumulation_steps=settings.accumulation_steps
    ),
    donate_argnames=("state",),
    out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, target), None),
  )
  eval_fn = jax.jit(loss_fn)
  draw_validation = make_validation_drawing(settings, mesh)

  # --- loop -----------------------------------------------------------------------------------------------------
  num_steps = settings.optimizer.num_steps
  learning_rate: Any = make_learning_rate(settings.optimizer)
  guard = DivergenceGuard(lambda _, records: describe_divergence(data, records, store))
  columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
  with (
    contextlib.closing(store),
    contextlib.closing(writer),
    StopRequest() as stop,
    StepProfiler(Path(workdir) / "profile", num_steps=settings.profile_steps if is_main else 0) as profiler,
    Progress(*columns, disable=not is_main) as progress,
  ):
    task = progress.add_task(settings.stage, total=num_steps, completed=int(state.step))
    started, last_logged = time.monotonic(), int(state.step)
    for step in range(int(state.step) + 1, num_steps + 1):
      batch = next(iterator)
      placed = put(batch)
      profiler.before_step(state)
      with jax.transfer_guard("disallow"):  # nothing but the batch goes to the devices
        state, metrics = update(train_key, state, placed)
      guard.watch(step, metrics, records=batch.get("record"))
      progress.advance(task)
      is_stopping, validation_loss = stop.reached(step), math.inf

      if step % settings.log_every == 0 or step == num_steps:
        scalars = {name: float(value) for name, value in metrics.items()}
        num_skipped = int(state.opt_state.total_notfinite)
        rate = (step - last_logged) / (time.monotonic() - started)
        scalars |= {
          "learning_rate": float(learning_rate(step - 1 - num_skipped)),
          "skipped_updates": num_skipped,
          "steps_per_second": rate,
          "examples_per_second": rate * settings.batch_size,
        }
        writer.write_scalars(step, scalars)
        progress.update(task, description=f"{settings.stage} loss {scalars['loss']:.4f}")
        started, last_logged = time.monotonic(), step

      paused = time.monotonic()
      if step % settings.eval_every == 0 or step == num_steps:
        validation = evaluate(eval_key, state, eval_batches, eval_fn=eval_fn, put=put)
        validation_loss = float(validation["loss"])
        writer.write_scalars(step, {f"validation_{name}": float(value) for name, value in validation.items()})
        if settings.eval_pictures:
          params = merge_params(state.ema_params, state.frozen)
          writer.write_images(step, draw_validation(eval_key, params, put(eval_batches[0])))

      is_last = is_stopping or step == num_steps
      # After an update that was not finite the run may have diverged, so the checkpoints before it are left alone.
      if is_last or (store.should_save(step, validation_loss=validation_loss) and guard.settle()):
        store.save(
          step, state=state, iterator=iterator, config=saved, validation_loss=validation_loss, force=True
        )
      started += time.monotonic() - paused  # steps per second are those of training alone
      if is_stopping:
        break
    guard.settle()
  return state


def list_seen(settings: TrainSettings, saved: Mapping[str, Any], *, start: str) -> dict[str, Any]:
  """{"trained_on": the scenes that the parameters will have seen}; nothing where they are not all known.

  Args:
    settings: of the run.
    saved: those saved with its checkpoint; empty for a new run.
    start: the work folder or weights file that a new run begins with, or "".
  """
  earlier = saved or (read_settings(start) if start else None)
  scenes = find_trained_scenes(settings.data, earlier=earlier)
  if scenes is None and jax.process_index() == 0:
    print(
      "not all scenes that this model saw are known: the data have no records.jsonl that fits them, or what it builds "
      "on came without a list; an evaluation cannot leave them out by itself"
    )
  return {} if scenes is None else {"trained_on": scenes}


def describe_divergence(data: DataSettings, records: np.ndarray | None, store: CheckpointStore) -> str:
  """What to tell the user of a training that diverged at a batch of these record numbers [b]."""
  places = "unknown" if records is None else ", ".join(name_records(data, records))
  return f"its batch: {places}; {store.describe_newest()}; look at these, or lower config.optimizer.learning_rate"


def main(argv: list[str]) -> None:
  """Runs `train` with the flags; a `UserError` becomes one line. For the exit status see the top of this file."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Otherwise every library's notes bury the progress.
  use_compilation_cache()
  try:
    state = train(flags.FLAGS.config, flags.FLAGS.workdir)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except Exception as error:
    line = blame_machine(error)
    if line is None:
      raise
    print(f"error: {line}; the same command goes on from the newest checkpoint", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print("interrupted; run the same command to go on from the newest checkpoint", file=sys.stderr)
    sys.exit(130)
  is_stopped = state.step < flags.FLAGS.config.optimizer.num_steps
  if jax.process_index() == 0:
    where = checkpoint_directory(flags.FLAGS.workdir)
    print(f"stopped at step {state.step}; run the same command to go on" if is_stopped else f"finished; see {where}")
  if is_stopped:
    sys.exit(_STOPPED)


def define_flags() -> None:
  """Defines the flags of `main`; not when imported, as other programs may have some of the same names."""
  config_flags.DEFINE_config_file("config", None, "Stage and size, such as configs/ldm.py:default.")
  flags.DEFINE_string("workdir", None, "Folder of checkpoints and metrics; resumed when it has some.")


if __name__ == "__main__":
  define_flags()
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main, flags_parser=parse_flags)
