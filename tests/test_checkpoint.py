"""Checkpoints: exact round trips, and what stays when some are damaged, old or the best."""

import asyncio
import gc
import logging
import math
import shutil
import subprocess
import sys
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gid_jax.errors import UserError
from gid_jax.weights.checkpoint import CheckpointStore, checkpoint_directory, read_config, restore_params
from gid_jax.weights.orbax_logs import hush_orbax

CONFIG = {"stage": "vae", "model": {"channels": [8, 16]}, "rate": 1e-4}


class Counter:
  """An iterator whose state is its position."""

  def __init__(self, position=0):
    self.position = position

  def get_state(self):
    return {"position": self.position}

  def set_state(self, state):
    self.position = state["position"]


@flax.struct.dataclass
class State:
  """The fields that `restore_params` relies on."""

  step: Any
  params: Any
  ema_params: Any
  opt_state: Any


def make_state(value):
  params = {"conv": {"kernel": jnp.full((3, 4), value), "bias": jnp.arange(4.0) + value}}
  return State(
    step=jnp.asarray(int(value)),
    params=params,
    ema_params=jax.tree.map(lambda x: 10 * x, params),
    opt_state=optax.adam(1e-3).init(params),
  )


def save_steps(directory, steps, *, losses=None, **kwargs):
  """Saves steps, each with its validation loss where `losses` has one."""
  store = CheckpointStore(directory, **{"save_interval_steps": 1, **kwargs})
  for step in steps:
    loss = (losses or {}).get(step, math.inf)
    store.save(step, state=make_state(float(step)), iterator=Counter(100 * step), config=CONFIG, validation_loss=loss)
  store.close()
  return store.steps


def damage(step_directory):
  """Cuts the largest file of the stored arrays in half, as a full disk or a killed copy does."""
  files = [file for file in (step_directory / "state").rglob("*") if file.is_file()]
  largest = max(files, key=lambda file: file.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_restores_newest_step_and_iterator(tmp_path):
  save_steps(tmp_path, [1, 2, 3, 4], max_to_keep=2)
  store, iterator = CheckpointStore(tmp_path, max_to_keep=2), Counter()
  assert store.steps == [3, 4]
  step, state = store.restore_latest(make_state(0.0), iterator)
  assert step == 4 and iterator.position == 400
  assert_same(state, make_state(4.0))
  store.close()


def test_empty_store_restores_nothing(tmp_path):
  store, iterator = CheckpointStore(tmp_path / "new"), Counter(5)
  assert store.restore_latest(make_state(0.0), iterator) is None
  assert iterator.position == 5
  store.close()


def test_saves_on_interval_or_when_forced_and_never_twice(tmp_path):
  store = CheckpointStore(tmp_path, save_interval_steps=10)
  save = lambda step, **kwargs: store.save(
    step, state=make_state(1.0), iterator=Counter(), config=CONFIG, **kwargs
  )
  assert save(10) and not save(13) and save(17, force=True)
  store.wait()
  assert not save(17, force=True)
  assert store.steps == [10, 17]
  store.close()


def test_damaged_newest_step_falls_back_and_can_be_saved_again(tmp_path, caplog):
  directory = checkpoint_directory(tmp_path)
  save_steps(directory, [1, 2])
  damage(directory / "2")
  store, iterator = CheckpointStore(directory), Counter()
  with caplog.at_level(logging.WARNING):
    step, state = store.restore_latest(make_state(0.0), iterator)
  assert step == 1 and iterator.position == 100
  assert_same(state, make_state(1.0))
  assert any("cannot be read" in record.getMessage() for record in caplog.records)
  assert store.steps == [1] and list(directory.glob("damaged-2-*"))
  assert_same(restore_params(tmp_path, ema=False)[0], make_state(1.0).params)
  assert store.save(2, state=make_state(2.0), iterator=Counter(200), config=CONFIG)
  store.wait()
  assert store.restore_latest(make_state(0.0), iterator)[0] == 2
  store.close()


def list_files(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
  """A store of two steps, the second with a validation loss, and the files of the second."""
  folder = tmp_path_factory.mktemp("two_steps")
  save_steps(folder, [1, 2], losses={2: 0.5})
  return folder, list_files(folder / "2")


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "truncated"])
def test_damage_to_any_file_costs_one_step_at_most(two_steps, tmp_path, caplog, is_deleted):
  original, files = two_steps
  assert {"iterator/metadata", "config/metadata", "validation/metadata", "_CHECKPOINT_METADATA"} < set(files)
  fallen_back = set()
  for number, file in enumerate(files):
    directory = tmp_path / str(number)
    shutil.copytree(original, directory)
    path = directory / "2" / file
    left = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink() if is_deleted else path.write_bytes(left)
    store, iterator = CheckpointStore(directory), Counter()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      step, state = store.restore_latest(make_state(0.0), iterator)
    # A file that is not needed may be missing, but nothing wrong may come back.
    assert iterator.position == 100 * step, file
    assert_same(state, make_state(float(step)))
    if step == 1:
      fallen_back.add(file)
      assert any("cannot be read" in record.getMessage() for record in caplog.records), file
      (aside,) = directory.glob("damaged-2-*")
      assert list_files(aside) == (sorted(set(files) - {file}) if is_deleted else files)
    store.close()
  assert {"iterator/metadata", "state/manifest.ocdbt"} <= fallen_back


def test_the_best_step_stays_however_old_it_is(tmp_path):
  losses = {2: 0.5, 4: 0.25, 6: 0.75, 8: 0.5}
  assert save_steps(tmp_path, range(1, 10), losses=losses, max_to_keep=2) == [4, 8, 9]
  # A store opened again knows it still; a better step takes its place, and one without a number never does.
  assert save_steps(tmp_path, [10, 11], losses={10: math.nan}, max_to_keep=2) == [4, 10, 11]
  assert save_steps(tmp_path, [12, 13, 14], losses={12: 0.125}, max_to_keep=2) == [12, 13, 14]
  assert save_steps(tmp_path, [15, 16], max_to_keep=1, keep_best=0) == [16]


def test_a_new_best_is_saved_off_the_interval(tmp_path):
  losses = {3: 0.5, 6: 0.75, 9: 0.25}
  assert save_steps(tmp_path, range(1, 12), losses=losses, save_interval_steps=5, max_to_keep=9) == [3, 5, 9, 10]


def test_params_of_the_best_or_of_the_newest_step(tmp_path):
  directory = checkpoint_directory(tmp_path)
  save_steps(directory, [1, 2, 3, 4], losses={2: 0.5, 3: 0.75})
  expect = lambda step, **kwargs: assert_same(restore_params(tmp_path, **kwargs)[0], make_state(step).ema_params)
  expect(4.0)
  expect(2.0, which="best")
  damage(directory / "2")
  expect(3.0, which="best")
  shutil.rmtree(directory / "2")
  shutil.rmtree(directory / "3")
  expect(4.0, which="best")


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
  store = CheckpointStore(tmp_path)
  save = lambda step, state: store.save(step, state=state, iterator=Counter(), config=CONFIG)
  bad = make_state(5.0)
  bad.opt_state[0].mu["conv"]["bias"] = jnp.array([1.0, jnp.inf, 0.0, 0.0])
  with pytest.raises(UserError, match="step 5: opt_state/0/mu/conv/bias is not finite; no checkpoint yet"):
    save(5, bad)
  save(6, make_state(6.0))
  with pytest.raises(UserError, match=f"last good checkpoint is {tmp_path}/6"):
    save(7, bad)
  assert store.steps == [6]
  store.close()


def test_the_saved_settings_are_read_from_the_newest_step_that_has_them(tmp_path):
  assert read_config(tmp_path) is None
  save_steps(tmp_path, [1, 2])
  (tmp_path / "2" / "config" / "metadata").write_text("{")
  assert read_config(tmp_path) == CONFIG


def test_unfit_target_is_an_error_and_leaves_the_steps_alone(tmp_path):
  save_steps(tmp_path, [1, 2])
  store, iterator = CheckpointStore(tmp_path), Counter(5)
  target = make_state(0.0)
  target.params["conv"]["extra"] = jnp.zeros(3)
  with pytest.raises(UserError, match="no step can be restored"):
    store.restore_latest(target, iterator)
  assert store.steps == [1, 2] and iterator.position == 5
  store.close()


def test_save_survives_donation_of_the_state(tmp_path):
  # Saving is asynchronous: the next training steps reuse the same memory while the files are written.
  update = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  state = {"w": jnp.zeros((512, 512)), "n": jnp.asarray(0)}
  store = CheckpointStore(tmp_path)
  store.save(1, state=state, iterator=Counter(), config=CONFIG)
  for _ in range(20):
    state = update(state)
  store.wait()
  target = {"w": jnp.ones((512, 512)), "n": jnp.asarray(1)}
  _, restored = store.restore_latest(target, Counter())
  np.testing.assert_array_equal(restored["w"], 0)
  store.close()


@pytest.mark.parametrize("ema", [True, False])
def test_restore_params_reads_one_tree_and_the_config(tmp_path, caplog, ema):
  directory, name = checkpoint_directory(tmp_path), "ema_params" if ema else "params"
  save_steps(directory, [1, 2])
  params, config = restore_params(tmp_path, ema=ema)
  assert_same(params, getattr(make_state(2.0), name))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
  assert config == CONFIG
  assert caplog.records == []  # Orbax's notes are not for users.
  damage(directory / "2")
  params, _ = restore_params(tmp_path, ema=ema)
  assert_same(params, getattr(make_state(1.0), name))


def test_restore_params_without_checkpoint_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match="no checkpoint"):
    restore_params(tmp_path)


def lose(step_directory):
  (step_directory / "state" / "manifest.ocdbt").unlink()


@pytest.mark.parametrize("break_step", [damage, lose])
def test_a_damaged_step_is_one_line(tmp_path, caplog, break_step):
  directory = checkpoint_directory(tmp_path)
  save_steps(directory, [1, 2])
  said = []
  assert restore_params(tmp_path, warn=said.append) and said == []
  break_step(directory / "2")
  restore_params(tmp_path, warn=said.append)
  (line,) = said
  assert line.startswith(f"checkpoint {directory}/2 cannot be read (") and line.endswith("); step 1 is taken")
  break_step(directory / "1")
  with pytest.raises(UserError, match="no step has readable ema_params: ") as reading:
    restore_params(tmp_path, warn=said.append)
  store = CheckpointStore(directory)
  with pytest.raises(UserError, match="no step can be restored, for 2: "):
    store.restore_latest(make_state(0.0), Counter())
  store.close()
  assert "NoneType" not in str(reading.value) and said == [line]
  assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_other_arrays_that_cannot_be_read_are_not_reported_by_their_loop(tmp_path, caplog):
  directory = checkpoint_directory(tmp_path)
  save_steps(directory, [1])
  lose(directory / "1")
  store = CheckpointStore(directory)
  with pytest.raises(UserError) as reading:
    store.restore_latest(make_state(0.0), Counter())
  store.close()
  for error in (reading.value.__cause__, ValueError("of somebody else")):
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(error)  # as one that fails while another ends the loop
    loop.close()
    gc.collect()
  (record,) = (record for record in caplog.records if record.name == "asyncio")
  assert "never retrieved" in record.getMessage() and "of somebody else" in record.getMessage()


def test_readings_that_are_left_off_say_nothing(monkeypatch):
  said = []
  monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(str(unraisable.exc_value)))
  hush_orbax.__wrapped__()

  async def read(text):
    try:
      await asyncio.sleep(0)
    except BaseException as error:
      raise Exception(text) from error  # as Orbax turns whatever ends a reading into this

  for text in ("Encountered error while reading array index: (). See full TensorStore details", "of somebody else"):
    reading = read(text)
    reading.send(None)
    del reading
    gc.collect()
  assert said == ["of somebody else"]


FULL_DISK = """
import resource, sys
import numpy as np
from gid_jax.errors import UserError
from gid_jax.weights.checkpoint import CheckpointStore

class Iterator:
  def get_state(self): return {}
  def set_state(self, state): pass

def save(step):
  draw = np.random.default_rng(0).random
  state = {f"array {number}": draw(10_000).astype(np.float32) for number in range(40)}
  store.save(step, state=state, iterator=Iterator(), config={})
  store.wait()

store = CheckpointStore(sys.argv[1])
save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
  save(2)
except UserError as error:
  print(error)
"""


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_one_line(tmp_path):
  # A limit on the size of files makes the kernel refuse the write, as a full disk does.
  result = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
  assert "Traceback" not in result.stderr and "ERROR" not in result.stderr
  (line,) = result.stdout.splitlines()
  where = f"cannot write a checkpoint into {tmp_path}: file too large; make room"
  assert line == f"{where}, then the same command goes on from step 1"
