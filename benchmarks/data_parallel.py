"""Claim: a training step on several devices costs little more than on one; and what they tell each other.

  python -m benchmarks.data_parallel [--stage ldm] [--size default] [--batch 8] [--steps 5] [--accumulation 1]
    [--meshes 1x1 4x1 2x2 1x4]

Four pretended devices share this machine's cores, so no time can be won: the ratio of a mesh's time per step to one
device's, for the same global batch, is what splitting the work costs. Steps of all meshes alternate, and the fastest
of each counts. Beside it stand the bytes of the training state and of the temporary arrays on one device, and the
collectives of the compiled step, those inside a loop counted once. Random weights and data; nothing is read.
"""

import argparse
import collections
import functools
import os
import time

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from benchmarks.collectives import list_collectives
from configs import ldm, ldm_coordinated
from gid_jax.configuration import TrainSettings
from gid_jax.models.build import make_motion_model
from gid_jax.parsing import parse
from gid_jax.train import make_optimizer
from gid_jax.training import sharding
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import create_train_state, train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
MEBIBYTE = 2**20


def make_batch(config, batch_size: int) -> dict[str, np.ndarray]:
  """A random batch of stage "ldm" or "ldm_coordinated"."""
  rng = np.random.default_rng(0)
  num_bands = config.model.num_bands if config.stage == "ldm_coordinated" else config.data.bands_per_example
  height, width = config.model.image_size
  grid = (height // config.model.motion_stride, width // config.model.motion_stride)
  return {
    "image": rng.random((batch_size, height, width, 3), np.float32),
    "slice": rng.standard_normal((batch_size, num_bands, *grid, 4), np.float32),
    "band": np.tile(np.arange(num_bands, dtype=np.int32), (batch_size, 1)),
  } | ({"strength": np.ones(batch_size, np.float32)} if config.data.strength else {})


def make_params(config, batch) -> dict:
  """Small random parameters of the whole motion model, without compiling its initialiser."""
  init = make_motion_model(config.model).init
  bands = batch["band"][:1]
  shapes = jax.eval_shape(init, jax.random.key(0), batch["slice"][:1], bands, batch["image"][:1], bands)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32) + (leaf.ndim < 2), shapes)


def main():
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--stage", choices=("ldm", "ldm_coordinated"), default="ldm")
  parser.add_argument("--size", default="default")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--steps", type=int, default=5)
  parser.add_argument("--accumulation", type=int, default=1)
  parser.add_argument("--meshes", nargs="+", default=["1x1", "4x1", "2x2", "1x4"], help="data x fsdp; the first is 1")
  options = parser.parse_args()

  config = parse(TrainSettings, (ldm if options.stage == "ldm" else ldm_coordinated).get_config(options.size))
  objective, tx, batch = make_objective(config), make_optimizer(config.optimizer), make_batch(config, options.batch)
  start = create_train_state(make_params(config, batch), trainable=objective.trainable, tx=tx)
  runs, programs, times = {}, {}, collections.defaultdict(list)
  meshes = [tuple(map(int, text.split("x"))) for text in options.meshes]
  for data, fsdp in meshes:
    mesh = sharding.make_mesh(data=data, fsdp=fsdp)
    sharding.check_batch_size(options.batch, mesh, accumulation_steps=options.accumulation)
    placement = sharding.param_sharding(start, mesh)
    step = functools.partial(
      train_step, loss_fn=sharding.with_whole_params(objective.loss_fn, mesh), tx=tx, ema_decay=config.ema_decay,
      accumulation_steps=options.accumulation,
    )  # fmt: skip
    state, placed = jax.device_put(start, placement), sharding.put_batch(batch, mesh)
    lowered = jax.jit(step, out_shardings=(placement, None)).lower(jax.random.key(0), state, placed)
    programs[data, fsdp] = lowered.compile()
    runs[data, fsdp] = functools.partial(programs[data, fsdp], jax.random.key(0), state, placed)
  for _ in range(options.steps + 1):
    for mesh, run in runs.items():
      began = time.perf_counter()
      jax.block_until_ready(run())
      times[mesh].append(time.perf_counter() - began)

  print(f"stage {options.stage}:{options.size}, global batch {options.batch}, {options.accumulation} microbatch(es)")
  print("data x fsdp    s/step   ratio   state MiB   temporary MiB   collectives: number, MiB")
  fastest = {mesh: min(values[1:]) for mesh, values in times.items()}
  for (data, fsdp), program in programs.items():
    _, state, _ = runs[data, fsdp].args
    own = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state)) / MEBIBYTE
    temporary = program.memory_analysis().temp_size_in_bytes / MEBIBYTE
    collectives = list_collectives(program.as_text())
    parts = [(kind, [c.num_bytes for c in collectives if c.kind == kind]) for kind in KINDS]
    told = "; ".join(f"{kind} {len(sizes)}, {sum(sizes) / MEBIBYTE:.2f}" for kind, sizes in parts if sizes) or "none"
    seconds, ratio = fastest[data, fsdp], fastest[data, fsdp] / fastest[meshes[0]]
    print(f"{data:>4} x {fsdp:<4} {seconds:>10.3f} {ratio:>7.2f} {own:>11.1f} {temporary:>15.1f}   {told}")


if __name__ == "__main__":
  main()
