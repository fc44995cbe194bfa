"""Two and four real processes over localhost train as one does, and go on from each other's checkpoints."""

import shutil
import signal
import sys
import time
from pathlib import Path

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


def start(root, name, *, num_processes=1, fsdp=1, **settings):
  """Starts `python -m gid_jax.train` in so many processes, of one device each."""
  flags = [f"--config.{name}={value}" for name, value in {"mesh.fsdp": fsdp, **settings}.items()]
  command = ["-m", "gid_jax.train", f"--config={root / 'config.py'}", f"--workdir={root / name}", *flags]
  variables = {"PYTHONPATH": str(Path(__file__).parent)}
  if num_processes > 1:
    variables["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{training_runs.free_port()}"
    variables["JAX_NUM_PROCESSES"] = str(num_processes)
  return [
    training_runs.start([sys.executable, *command], JAX_PROCESS_ID=str(index), **variables)
    for index in range(num_processes)
  ]


def train(root, name, **options):
  """Runs to the end what `start` starts; gives the losses of all steps."""
  outputs = [training_runs.finish(process) for process in start(root, name, **options)]
  assert (root / name / "images" / f"volumes-{NUM_STEPS:08d}.png").exists()
  # Only the first process tells of the run.
  assert all("ldm" not in output for output in outputs[1:]), outputs[1:]
  return training_runs.read_losses(root / name)


def fork(root, name, new_name):
  """A work folder as if the run had ended right after its first checkpoint."""
  shutil.copytree(root / name, root / new_name)
  shutil.rmtree(checkpoint_directory(root / new_name) / str(NUM_STEPS))


def test_processes_train_as_one_and_resume_each_other(root):
  alone = train(root, "alone")
  together = train(root, "together", num_processes=2, fsdp=2)
  assert len(alone) == NUM_STEPS and np.ptp(alone) > 0.01
  np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
  fork(root, "together", "together_then_alone")
  np.testing.assert_allclose(train(root, "together_then_alone"), alone, rtol=0, atol=1e-4)
  # On a mesh of two by two, each device in a process of its own.
  fork(root, "alone", "alone_then_four")
  found = train(root, "alone_then_four", num_processes=4, fsdp=2)
  np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)


def test_a_signal_to_one_process_stops_both_after_the_same_step(root):
  processes = start(root, "stopped", num_processes=2, **{"optimizer.num_steps": 10**6, "eval_every": 10**6})
  metrics = root / "stopped" / "metrics.jsonl"
  while not metrics.exists() or not metrics.read_text():
    assert all(process.poll() is None for process in processes), "ended before its first step"
    time.sleep(0.1)
  processes[1].send_signal(signal.SIGTERM)
  outputs = [training_runs.finish(process, status=143) for process in processes]
  last = len(training_runs.read_losses(root / "stopped"))
  assert f"stopped at step {last};" in outputs[0]
  assert max(list_steps(checkpoint_directory(root / "stopped"))) == last
