"""Small training runs in fresh processes: data, weights to start from, settings, and the processes themselves."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import helpers
import jax
import numpy as np

from configs import ldm
from gid_jax.configuration import TrainSettings
from gid_jax.models.build import make_motion_model
from gid_jax.parsing import parse
from gid_jax.types import Window
from gid_jax.weights.pretrained import config_to_settings, export_weights

HEIGHT, WIDTH, NUM_BANDS, NUM_STORED_BANDS = 32, 48, 4, 16
SCALE = 40 * np.exp(-np.arange(NUM_STORED_BANDS) / 5)

# Of the motion model: one layer to see a photo, three to denoise, and none to encode.
QUICK_PARTS = {
  "codec": {"kind": "my_parts:CornerCodec"},
  "denoiser": {"kind": "my_parts:Perceptron"},
  "encoder": {"kind": "my_parts:Glance"},
}

# Forks processes that train, several at once, and waits for them.
FORKING = """
import json, os, sys
sys.path.insert(0, "tests")
import grain, orbax.checkpoint, tensorflow_datasets
from absl import app
from gid_jax import train
from gid_jax.training.command_line import parse_flags

train.define_flags()

for line in sys.stdin:
  sys.argv, logs, variables = json.loads(line)
  pids = []
  for log, values in zip(logs, variables):
    pids.append(os.fork())
    if not pids[-1]:
      os.environ.update(values)
      output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
      os.dup2(output, 1), os.dup2(output, 2)
      app.run(train.main, argv=sys.argv, flags_parser=parse_flags)
  print(json.dumps(pids), flush=True)
  print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
"""

# What tells a process that it is one of many; a test must not inherit it.
DISTRIBUTED = (
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
  "JAX_COORDINATOR_ADDRESS",
  "SLURM_STEP_NUM_TASKS",
  "OMPI_COMM_WORLD_SIZE",
  "TPU_WORKER_HOSTNAMES",
)


def make_window(seed):
  """A smooth photo and waves of random strength in every band; no later frames."""
  rng = np.random.default_rng(seed)
  waves = helpers.smooth_image(HEIGHT // 2, WIDTH // 2)[..., [0, 1, 2, 0]] - 0.5
  return Window(
    image=np.uint8(255 * helpers.smooth_image(HEIGHT, WIDTH) * rng.uniform(0.5, 1, size=3)),
    spectrum=np.float16(SCALE[:, None, None, None] * waves * rng.normal(size=(NUM_STORED_BANDS, 1, 1, 4))),
    frames=np.zeros((0, HEIGHT, WIDTH, 3), np.uint8),
    flows=np.zeros((0, HEIGHT, WIDTH, 2), np.float16),
    depth=np.full((HEIGHT, WIDTH), 2.0, np.float16),
    scene=f"scene{seed}",
    source="synthetic",
  )


def write_windows(folder, *, source="synthetic"):
  """A data set of twelve windows, four of them for validation."""
  windows = {"train": [make_window(seed) for seed in range(8)], "validation": [make_window(8 + i) for i in range(4)]}
  helpers.write_dataset(folder, source, windows, statistics={"scale": SCALE.tolist()})


def make_config(module, data, *, num_steps=20, batch_size=8):
  """`tiny` of a stage of the motion model, made smaller still: evaluated and saved at the end only."""
  config = module.get_config("tiny")
  config.data.directory = str(data)
  config.batch_size, config.eval_pictures = batch_size, False
  config.optimizer.num_steps = config.eval_every = config.save_every = num_steps
  config.data.num_bands = config.model.num_bands = NUM_BANDS
  # Compiling is nearly all of a test's time, and goes with the number of layers: one of every kind is left.
  config.model.codec.multipliers, config.model.codec.num_blocks = (1, 2), 0
  unet = config.model.denoiser
  unet.multipliers, unet.attention_levels, unet.num_blocks = (1,), (), 0
  return config


def make_quick_config(data, *, quick=tuple(QUICK_PARTS), channels=16, **options):
  """Stage 1 with parts named by `quick` that compile in a moment, for tests to which these do not matter."""
  parts = {name: QUICK_PARTS[name] for name in quick}
  if "denoiser" in parts:
    parts["denoiser"] = parts["denoiser"] | {"channels": channels}
  return replace_parts(make_config(ldm, data, **options), parts)


def replace_parts(config, parts):
  """Gives a config's model other parts, name -> {"kind": ..., fields}, and returns it."""
  with config.unlocked():
    for name, part in parts.items():
      config.model[name] = dict(part)
  return config


def export_start(path, config, *, stage):
  """Writes random weights of a whole motion model as if `stage` had made them."""
  model = make_motion_model(parse(TrainSettings, config).model)
  slices = np.zeros((1, NUM_BANDS, HEIGHT // 2, WIDTH // 2, 4), np.float32)
  bands = np.zeros((1, NUM_BANDS), np.int32)
  params = helpers.random_params(model.init, slices, bands, np.zeros((1, HEIGHT, WIDTH, 3), np.float32), bands)
  if "band_scale" in params:
    params["band_scale"] = np.float32(SCALE[:NUM_BANDS])
  settings = config_to_settings(config.to_dict() | {"stage": stage})
  export_weights(path, params, settings=settings, dtype="float32")


def start(command, *, num_devices=1, **variables):
  """Starts a process that sees `num_devices` pretended devices; what it writes is one stream."""
  environment = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
  flags = f"--xla_force_host_platform_device_count={num_devices} {helpers.QUICK_XLA}"
  environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    command,
    cwd=Path(__file__).parents[1],
    env={**environment, **variables},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_python(code, **options):
  """Starts Python on `code`; options are those of `start`."""
  return start([sys.executable, "-c", textwrap.dedent(code)], **options)


def finish(process, *, status=0):
  """Waits for a process of `start`, expects its exit status and returns what it wrote."""
  try:
    output, _ = process.communicate(timeout=900)
  finally:
    process.kill()
  assert process.returncode == status, output
  return output


class Trainer:
  """Starts `gid_jax.train`, one run at a time, in processes forked from one that has imported everything.

  Importing is half of what starting a process takes; JAX begins anew in each.

  Attributes:
    pids: of the processes of the run that goes on.
  """

  def __init__(self, folder):
    """`folder` holds `config.py`, and what the processes write."""
    self.folder, self.pids, self._logs = folder, [], []
    environment = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
    variables = dict(JAX_PLATFORMS="cpu", JAX_DISABLE_MOST_OPTIMIZATIONS="1", XLA_FLAGS=helpers.QUICK_XLA)
    self._server = subprocess.Popen(
      [sys.executable, "-W", "ignore", "-c", FORKING],
      cwd=Path(__file__).parents[1],
      env=environment | variables,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def start(self, workdir, *flags, num_processes=1):
    """Starts a run of some processes, of one device each, in `workdir`."""
    argv = ["train", f"--config={self.folder / 'config.py'}", f"--workdir={workdir}", *flags]
    variables = [{}]
    if num_processes > 1:
      together = dict(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{free_port()}", JAX_NUM_PROCESSES=str(num_processes))
      variables = [together | {"JAX_PROCESS_ID": str(index)} for index in range(num_processes)]
    self._logs = [self.folder / f"log{index}" for index in range(num_processes)]
    self._server.stdin.write(json.dumps([argv, list(map(str, self._logs)), variables]) + "\n")
    self._server.stdin.flush()
    self.pids = json.loads(self._server.stdout.readline())

  def wait_until(self, condition):
    """Waits until something is so while the first process runs."""
    deadline = time.monotonic() + 300
    while not condition():
      assert time.monotonic() < deadline and Path(f"/proc/{self.pids[0]}").exists(), self._logs[0].read_text()
      time.sleep(0.002)

  def finish(self):
    """Waits for the end of the run: (exit status, negative for a signal; output) of each process."""
    statuses, self.pids = json.loads(self._server.stdout.readline()), []
    return [(status, log.read_text()) for status, log in zip(statuses, self._logs, strict=True)]

  def close(self):
    """Ends the process that starts the others, and what it still runs."""
    for pid in self.pids:
      os.kill(pid, signal.SIGKILL)
    self._server.stdin.close()
    self._server.wait()


def free_port():
  """A port of this machine that nobody listens on."""
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def write_state(path, state):
  """Writes every array of a training state to an .npz file, by its path in the tree."""
  np.savez(path, **flatten_state(state))


def flatten_state(state):
  """Path in the tree -> array, of a training state."""
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def read_losses(workdir):
  """The training losses that a run wrote, one a step."""
  lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
  return [line["loss"] for line in lines if "loss" in line]
