"""Ends real training processes at random moments: nothing is lost, and the end is that of an undisturbed run."""

import json
import os
import signal
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
import training_runs

from gid_jax import train as training
from gid_jax.errors import UserError
from gid_jax.files import lock_folder

pytestmark = pytest.mark.usefixtures("quick_compilation")

# GID_KILLS=10 for those of a release.
NUM_KILLS, SEED = int(os.environ.get("GID_KILLS", "4")), 5
NUM_STEPS, SAVE_EVERY, EVAL_EVERY = 9 * NUM_KILLS, 4, 10
SPEEDS = ("steps_per_second", "examples_per_second")

CONFIG = """
import training_runs

def get_config():
  config = training_runs.make_quick_config({directory!r}, num_steps={num_steps}, batch_size=2)
  config.save_every, config.eval_every = {save_every}, {eval_every}
  return config
"""


def read_lines(workdir):
  path = workdir / "metrics.jsonl"
  return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def last_step(workdir):
  return max((line["step"] for line in read_lines(workdir)), default=0)


def newest_step(workdir):
  return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()), default=0)


def without_speeds(lines):
  return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


def list_saves(workdir):
  """What is being saved now."""
  return {path.name for path in (workdir / "checkpoints").glob("*tmp*")}


def read_checkpoint(workdir, step):
  """Everything in a checkpoint: (arrays, position in the data, settings)."""
  folder = workdir / "checkpoints" / str(step)
  with ocp.PyTreeCheckpointer() as checkpointer:
    state = checkpointer.restore(folder / "state")
  return state, *(json.loads((folder / name / "metadata").read_text()) for name in ("iterator", "config"))


def list_files(folder):
  return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def assert_same_bits(actual, expected):
  actual, expected = (ocp.tree.to_flat_dict(tree) for tree in (actual, expected))
  assert actual.keys() == expected.keys()
  for path, value in expected.items():
    left, right = np.asarray(actual[path]), np.asarray(value)
    assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes()), path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("resume")
  training_runs.write_windows(folder / "data")
  options = dict(num_steps=NUM_STEPS, save_every=SAVE_EVERY, eval_every=EVAL_EVERY)
  (folder / "config.py").write_text(CONFIG.format(directory=str(folder / "data"), **options))
  return folder


@pytest.fixture(scope="module")
def trainer(folder):
  trainer = training_runs.Trainer(folder)
  yield trainer
  trainer.close()


@pytest.fixture(scope="module")
def undisturbed(folder, trainer):
  workdir = folder / "undisturbed"
  trainer.start(workdir)
  ((status, output),) = trainer.finish()
  assert status == 0, output
  return workdir


@pytest.fixture(scope="module")
def stopped(folder, trainer, undisturbed):
  """A run stopped by SIGTERM and, resumed, by SIGINT: its folder; status, output, newest step, metrics at each stop."""
  workdir, stops = folder / "stopped", []
  for number in (signal.SIGTERM, signal.SIGINT):
    aim = last_step(workdir) + 5
    trainer.start(workdir)
    trainer.wait_until(lambda aim=aim: last_step(workdir) >= aim)
    os.kill(trainer.pids[0], number)
    stops.append((*trainer.finish()[0], newest_step(workdir), (workdir / "metrics.jsonl").read_text()))
  return workdir, stops


def test_kills_change_nothing(folder, trainer, undisturbed):
  workdir, rng, places = folder / "killed", np.random.default_rng(SEED), []
  for number in range(NUM_KILLS):
    trainer.start(workdir)
    before, saves = newest_step(workdir), list_saves(workdir)
    if number % 2:  # while a checkpoint is written
      trainer.wait_until(lambda saves=saves: list_saves(workdir) - saves)
    elif number:  # between two of them
      trainer.wait_until(lambda before=before: newest_step(workdir) > before)
      aim = last_step(workdir) + rng.integers(SAVE_EVERY)
      trainer.wait_until(lambda aim=aim: last_step(workdir) >= aim)
    else:  # before there is any
      trainer.wait_until(lambda: last_step(workdir) >= 1)
      time.sleep(rng.uniform(0, 0.03))
    os.kill(trainer.pids[0], signal.SIGKILL)
    ((status, output),) = trainer.finish()
    assert status == -signal.SIGKILL, output
    places.append((last_step(workdir), newest_step(workdir), len(list_saves(workdir))))
  print(f"seed {SEED}; killed at (step, newest checkpoint, checkpoints being written): {places}")
  assert places[0][1] == 0 and any(saving for _, _, saving in places) and any(step > saved for step, saved, _ in places)
  assert places[-1][1] > 0 and places[-1][0] < NUM_STEPS

  trainer.start(workdir)
  ((status, output),) = trainer.finish()
  assert status == 0 and "going on from step" in output, output
  assert without_speeds(read_lines(workdir)) == without_speeds(read_lines(undisturbed))
  listings = [sorted(os.listdir(run / "checkpoints")) for run in (workdir, undisturbed)]
  assert listings[0] == listings[1] and str(NUM_STEPS) in listings[1]
  actual, expected = (read_checkpoint(run, NUM_STEPS) for run in (workdir, undisturbed))
  assert {"params", "ema_params", "opt_state", "frozen", "step"} <= set(expected[0])
  assert_same_bits(actual[0], expected[0])
  assert actual[1:] == expected[1:]


def test_a_stopped_run_loses_nothing(stopped, undisturbed):
  workdir, stops = stopped
  for status, output, step, _ in stops:
    assert status == 143, output
    assert f"stopped at step {step}; run the same command to go on" in output
  (_, _, first, before), (_, output, second, after) = stops
  assert f"going on from step {first}\n" in output and last_step(workdir) == second > first >= 5
  assert after.startswith(before)  # no step was done twice
  expected = [line for line in read_lines(undisturbed) if line["step"] <= second]
  assert without_speeds(read_lines(workdir)) == without_speeds(expected)


def test_a_run_that_diverges_stops_and_says_where(folder, trainer, stopped):
  workdir, stops = stopped
  start = stops[-1][2]
  trainer.start(workdir, "--config.optimizer.learning_rate=1e30")
  ((status, output),) = trainer.finish()
  # The first update throws the parameters away; from the second on nothing is finite.
  error = output.strip().splitlines()[-1]
  assert status == 2 and error.startswith(
    f"error: stopped at step {start + 6}: loss or gradient norm not finite 5 updates in a row, "
    f"first at step {start + 2}; its batch: {folder / 'data'}/gid_windows/synthetic/1.0.0: record "
  ), output
  assert "changed since: config.optimizer.learning_rate 0.0004 -> 1e+30" in output
  newest = newest_step(workdir)
  assert error.count(": record ") == 2 and f"last good checkpoint is {workdir}/checkpoints/{newest};" in error
  assert start <= newest <= start + 1
  assert all(np.isfinite(leaf).all() for leaf in ocp.tree.to_flat_dict(read_checkpoint(workdir, newest)[0]).values())


def test_a_second_training_in_one_folder_is_refused(folder, undisturbed):
  config = training_runs.make_quick_config(folder / "data", num_steps=NUM_STEPS, batch_size=2)
  before = list_files(undisturbed)
  match = r"another training is writing into .*; wait for it, or give another --workdir"
  with lock_folder(undisturbed, work="training", option="--workdir"), pytest.raises(UserError, match=match):
    training.train(config, undisturbed)
  assert list_files(undisturbed) == before


def test_a_checkpoint_of_another_model_is_refused(folder, undisturbed):
  config = training_runs.make_quick_config(folder / "data", channels=8)
  message = r"config\.model\.denoiser\.channels is 16 there and 8 here; use another --workdir"
  with pytest.raises(UserError, match=message):
    training.train(config, undisturbed)
