"""Training checkpoints (the only file that imports Orbax) and single-file weights (which needs no Orbax).

A step on disk holds four parts written together: `state`, the training state; `iterator`, the position in
the data; `config`, the settings; `validation`, the loss when it was evaluated at this step. An exported file is a
safetensors file that plain users load without Orbax.
"""

import contextlib
import errno
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.errors import UserError
from gid_jax.files import first_line
from gid_jax.weights.orbax_logs import hush_orbax

# How the storage library words what the system refuses.
_FAILURES = tuple(
  os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES))


@runtime_checkable
class ResumableIterator(Protocol):
  """A data iterator whose position is a JSON-able value, such as Grain's dataset iterators."""

  def get_state(self) -> dict[str, Any]:
    """Returns the position."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position returned by `get_state`."""
    ...


def checkpoint_directory(workdir: str | Path) -> Path:
  """The folder of a training run's checkpoints, absolute."""
  return Path(workdir).absolute() / "checkpoints"


class CheckpointStore:
  """Saves and restores a training run, asynchronously; the newest steps stay, and the best ones however old.

  Attributes:
    directory: absolute path of the folder that holds one sub-folder a step.
  """

  def __init__(self, directory: str | Path, *, max_to_keep: int = 3, keep_best: int = 1, save_interval_steps: int = 1):
    """Opens or creates the store in a folder; see `checkpoint_directory`.

    Args:
      max_to_keep: number of newest steps kept.
      keep_best: number of steps kept beside them for the lowest validation losses.
      save_interval_steps: at other steps `save` does nothing, unless forced or at a new lowest loss.
    """
    import orbax.checkpoint as ocp

    hush_orbax()
    self.directory = Path(directory).absolute()
    self._ocp = ocp
    self._save_interval_steps, self._keep_best = save_interval_steps, keep_best
    # Orbax could keep metrics itself, but then a damaged file of them would not let the store open.
    self._losses = {step: read_loss(self.directory / str(step)) for step in list_steps(self.directory)}
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=NewestAndBest(max_to_keep, keep_best, self._losses), cleanup_tmp_directories=True),
      item_handlers={"state": ocp.StandardCheckpointHandler()}
      | {name: ocp.JsonCheckpointHandler() for name in ("iterator", "config", "validation")},
    )

  @property
  def steps(self) -> list[int]:
    """The complete steps on disk, ascending."""
    return sorted(self._manager.all_steps())

  def should_save(self, step: int, *, validation_loss: float = math.inf, force: bool = False) -> bool:
    """Whether `save` would save this step."""
    steps = self._manager.all_steps()
    lowest = min((self._losses.get(other, math.inf) for other in steps), default=math.inf)
    is_best = self._keep_best > 0 and validation_loss < lowest
    return step not in steps and (force or is_best or step % self._save_interval_steps == 0)

  def save(
    self, step: int, *, state: Any, iterator: ResumableIterator, config: Mapping[str, Any],
    validation_loss: float = math.inf, force: bool = False,
  ) -> bool:
    """Starts saving a step and returns whether it will be saved; the arrays may be donated right after.

    Args:
      step: its number.
      state: any pytree of arrays.
      iterator: the data iterator, at the batch that follows this step.
      config: JSON-able settings.
      validation_loss: when it was evaluated; a new lowest on disk is saved off the interval too.
      force: save off the interval.

    Raises:
      UserError: the state holds numbers that are not finite; nothing is saved.
    """
    if not self.should_save(step, validation_loss=validation_loss, force=force):
      return False
    broken = find_not_finite(state)
    if broken:
      raise UserError(f"stopped at step {step}: {broken} is not finite; {self.describe_newest()}")
    self._losses[step] = float(validation_loss) if math.isfinite(validation_loss) else math.inf
    args = self._ocp.args
    # The iterator's position as JSON rather than through Grain's handler: one file for any number of
    # processes, since the pipeline's state is the number of batches read.
    items = args.Composite(
      state=args.StandardSave(state),
      iterator=args.JsonSave(iterator.get_state()),
      config=args.JsonSave(dict(config)),
      validation=args.JsonSave({"loss": self._losses[step]}),
    )
    with self._explain_writing():
      return bool(self._manager.save(step, args=items, force=True))

  def describe_newest(self) -> str:
    """Says where the newest complete step lies, once saves in progress are on disk."""
    self.wait()
    return f"the last good checkpoint is {self.directory / str(self.steps[-1])}" if self.steps else "no checkpoint yet"

  def restore_latest(self, target_state: Any, iterator: ResumableIterator) -> tuple[int, Any] | None:
    """Restores the newest readable step, or returns None when there is none at all.

    A step that cannot be read is skipped with a warning and, once an older one is restored, its folder is
    renamed to `damaged-STEP-…` so that the step can be saved again.

    Args:
      target_state: pytree of arrays or `jax.ShapeDtypeStruct`; the result has its structure and shardings.
      iterator: moved to the saved position; untouched when nothing is restored.

    Returns:
      (step, state).

    Raises:
      UserError: there are steps, but none can be restored into `target_state`.
    """
    args = self._ocp.args
    abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, target_state)
    items = args.Composite(state=args.StandardRestore(abstract), iterator=args.JsonRestore(), config=args.JsonRestore())
    failures: dict[int, Exception] = {}
    for step in reversed(self.steps):
      try:
        restored = self._manager.restore(step, args=items)
        iterator.set_state(restored["iterator"])
      except Exception as error:  # damage surfaces as almost any type, from JSON to the storage library
        failures[step] = error
        continue
      _tell_unread(self.directory, failures, step, logging.warning)
      self._set_aside(failures)
      return step, restored["state"]
    if failures:
      newest = max(failures)
      raise UserError(
        f"{self.directory}: no step can be restored, for {newest}: {first_line(failures[newest])}; "
        "use the settings it was trained with or another workdir"
      ) from failures[newest]
    return None

  def _set_aside(self, steps: Mapping[int, Exception]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        (self.directory / str(step)).rename(self.directory / f"damaged-{step}-{uuid.uuid4().hex[:8]}")
    self._ocp.multihost.sync_global_processes("gid_jax:set_aside")
    self._manager.reload()

  def wait(self) -> None:
    """Blocks until saves in progress are on disk.

    Raises:
      UserError: one could not be written, such as to a full disk.
    """
    with self._explain_writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and releases the store's threads.

    Raises:
      UserError: see `wait`.
    """
    with self._explain_writing():
      self._manager.close()

  @contextlib.contextmanager
  def _explain_writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # the storage library raises ValueError with the system's words somewhere in it
      causes = [error, error.__cause__, error.__context__]
      number = next((cause.errno for cause in causes if isinstance(cause, OSError)), None)
      reason = os.strerror(number).lower() if number else next(
        (words for words in _FAILURES if any(words in str(cause).lower() for cause in causes)), None)
      if reason is None:
        raise
      last = max(list_steps(self.directory), default=None)
      goes_on = "the same command begins anew" if last is None else f"the same command goes on from step {last}"
      where = f"cannot write a checkpoint into {self.directory}"
      raise UserError(f"{where}: {reason}; make room, then {goes_on}") from error


def _tell_unread(directory: Path, failures: Mapping[int, Exception], step: int, warn: Callable[[str], None]) -> None:
  for other, error in failures.items():
    warn(f"checkpoint {directory / str(other)} cannot be read ({first_line(error)}); step {step} is taken")


def restore_params(
  workdir: str | Path, *, ema: bool = True, which: Literal["newest", "best"] = "newest",
  warn: Callable[[str], None] = logging.warning,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the parameters of a trained stage, and nothing else of its state, from one of its readable steps.

  Args:
    workdir: the training run's folder.
    ema: read the averaged parameters (`ema_params` of the state) rather than the raw ones (`params`).
    which: the newest step, or the one with the lowest validation loss (the newest where none was evaluated).
    warn: is told of every step that cannot be read where another is taken for it.

  Returns:
    (params, config): nested dict of NumPy arrays, the stage's `frozen` ones among them, and the settings that the
    stage was trained with.

  Raises:
    UserError: there is no readable checkpoint.
  """
  import orbax.checkpoint as ocp

  directory = checkpoint_directory(workdir)
  steps = sorted(list_steps(directory), reverse=True)
  if which == "best":
    steps.sort(key=lambda step: read_loss(directory / str(step)))  # stable: without losses the newest stays first
  if not steps:
    raise UserError(f"{directory}: no checkpoint; train this stage first or name another workdir")
  hush_orbax()
  name = "ema_params" if ema else "params"
  failures: dict[int, Exception] = {}
  for step in steps:
    try:
      restored = _restore_params_at(ocp, directory / str(step), name)
    except Exception as error:  # see restore_latest
      failures[step] = error
      continue
    _tell_unread(directory, failures, step, warn)
    return restored
  failure = failures[steps[0]]
  raise UserError(f"{directory}: no step has readable {name}: {first_line(failure)}; train it again") from failure


def _restore_params_at(ocp: Any, directory: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    metadata = checkpointer.metadata(directory / "state").item_metadata
    if metadata is None:
      raise ValueError("the list of its arrays is missing or damaged")
    tree = metadata.tree
    # A placeholder leaf is left on disk: the optimizer's moments are twice the size of the parameters.
    target = {key: jax.tree.map(lambda _: ocp.PLACEHOLDER, value) for key, value in tree.items()}
    wanted = [part for part in (name, "frozen") if part in tree]
    for part in wanted:
      target[part] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree[part])
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    args = ocp.args.PyTreeRestore(item=target, restore_args=restore_args)
    state = checkpointer.restore(directory / "state", args=args)
  with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
    config = checkpointer.restore(directory / "config", args=ocp.args.JsonRestore())
  flat = {}
  for part in wanted:
    flat |= flax.traverse_util.flatten_dict(state[part])
  return flax.traverse_util.unflatten_dict(flat), config


def read_settings(source: str) -> dict[str, Any]:
  """Reads the settings of an exported weights file, or of a work folder's newest step, without the parameters.

  Nothing is verified: this is for what `import_weights` or `restore_params` has read. {} where they cannot be read.
  """
  if not source.endswith(".safetensors"):
    return read_config(checkpoint_directory(source)) or {}
  with safetensors.safe_open(source, framework="numpy") as file:
    return json.loads((file.metadata() or {}).get("settings", "{}"))


class NewestAndBest:
  """Which steps to keep: an Orbax preservation policy, `losses` being validation losses by step."""

  def __init__(self, num_newest: int, num_best: int, losses: Mapping[int, float]):
    self._num_newest, self._num_best, self._losses = num_newest, num_best, losses

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Whether each of the steps, ascending, stays; Orbax calls it after every save."""
    steps = [info.step for info in checkpoints]
    evaluated = [step for step in steps if self._losses.get(step, math.inf) < math.inf]
    best = sorted(evaluated, key=lambda step: (self._losses[step], -step))[: self._num_best]
    return [step in steps[-self._num_newest :] or step in best for step in steps]


def list_steps(directory: Path) -> list[int]:
  """The steps that have a folder, in no order; one may be damaged."""
  return [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]


def read_loss(step_directory: Path) -> float:
  """The step's validation loss; infinite where there is none or it cannot be read."""
  try:
    return float(json.loads((step_directory / "validation" / "metadata").read_text())["loss"])
  except (OSError, ValueError, KeyError, TypeError):
    return math.inf


def read_config(directory: Path) -> dict[str, Any] | None:
  """The settings saved with the newest step in a folder of checkpoints where they can be read, or None."""
  for step in sorted(list_steps(directory), reverse=True):
    try:
      return json.loads((directory / str(step) / "config" / "metadata").read_text())
    except (OSError, ValueError):
      continue  # the restoring will tell
  return None


def find_not_finite(tree: Any) -> str | None:
  """Path of the first array of a pytree that holds NaN or infinity, such as "params/unet/conv_in/kernel"."""
  flags = jax.tree_util.tree_leaves_with_path(jax.device_get(_are_finite(tree)))
  return next((jax.tree_util.keystr(path, simple=True, separator="/") for path, flag in flags if not flag), None)


@jax.jit
def _are_finite(tree):
  # One program for all: the devices of a CPU may wait for each other for good when several are under way.
  return jax.tree.map(lambda array: jnp.isfinite(array).all(), tree)
