"""Two and four real processes over localhost train as one does, and go on from each other's checkpoints."""

import os
import shutil
import signal

import numpy as np
import pytest
import training_runs

from gid_jax.weights.checkpoint import checkpoint_directory, list_steps

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_STEPS, SAVED = 6, 3
CONFIG = """
import training_runs

def get_config():
  # A kernel of 256 x 256 is as large as those that are cut over "fsdp".
  config = training_runs.make_quick_config({directory!r}, num_steps={num_steps}, channels=256)
  config.save_every, config.eval_pictures = {save_every}, True
  return config
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp("processes")
  training_runs.write_windows(folder / "data")
  options = dict(directory=str(folder / "data"), num_steps=NUM_STEPS, save_every=SAVED)
  (folder / "config.py").write_text(CONFIG.format(**options))
  return folder


@pytest.fixture(scope="module")
def trainer(root, quick_compilation):
  trainer = training_runs.Trainer(root)
  yield trainer
  trainer.close()


def start(trainer, name, *, num_processes=1, fsdp=1, **settings):
  """Starts a training in so many processes."""
  flags = [f"--config.{name}={value}" for name, value in {"mesh.fsdp": fsdp, **settings}.items()]
  trainer.start(trainer.folder / name, *flags, num_processes=num_processes)


def train(trainer, name, **options):
  """Runs to the end what `start` starts; gives the losses of all steps."""
  start(trainer, name, **options)
  ended, workdir = trainer.finish(), trainer.folder / name
  assert all(status == 0 for status, _ in ended), ended
  assert (workdir / "images" / f"volumes-{NUM_STEPS:08d}.png").exists()
  # Only the first process tells of the run.
  assert all("ldm" not in output for _, output in ended[1:]), ended[1:]
  return training_runs.read_losses(workdir)


def fork(root, name, new_name):
  """A work folder as if the run had ended right after its first checkpoint."""
  shutil.copytree(root / name, root / new_name)
  shutil.rmtree(checkpoint_directory(root / new_name) / str(NUM_STEPS))


def test_processes_train_as_one_and_resume_each_other(trainer, root):
  alone = train(trainer, "alone")
  together = train(trainer, "together", num_processes=2, fsdp=2)
  assert len(alone) == NUM_STEPS and np.ptp(alone) > 0.01
  np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
  fork(root, "together", "together_then_alone")
  np.testing.assert_allclose(train(trainer, "together_then_alone"), alone, rtol=0, atol=1e-4)
  # On a mesh of two by two, each device in a process of its own.
  fork(root, "alone", "alone_then_four")
  found = train(trainer, "alone_then_four", num_processes=4, fsdp=2)
  np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)


def test_a_signal_to_one_process_stops_both_after_the_same_step(trainer, root):
  start(trainer, "stopped", num_processes=2, **{"optimizer.num_steps": 10**6, "eval_every": 10**6})
  metrics = root / "stopped" / "metrics.jsonl"
  trainer.wait_until(lambda: metrics.exists() and metrics.read_text())
  os.kill(trainer.pids[1], signal.SIGTERM)
  ended = trainer.finish()
  assert all(status == 143 for status, _ in ended), ended
  last = len(training_runs.read_losses(root / "stopped"))
  assert f"stopped at step {last};" in ended[0][1]
  assert max(list_steps(checkpoint_directory(root / "stopped"))) == last
