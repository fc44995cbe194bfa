"""Claim: a training step on cached latents is quicker than one that encodes its slices.

  python -m benchmarks.latents --data DIR --stage ldm --start SWING [--size default] [--draws 1] [--steps 8]

The peer is the same stage without `config.data.latent_draws`, of the same size: the two steps are run in turn in one
process, batches made ahead of the clock. Prints the time and size of a draw of a window in the cache, the median time
of both steps, and the memory that XLA reserves for each beside arguments and results.
"""

import argparse
import functools
import importlib
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from gid_jax.configuration import TrainSettings
from gid_jax.data.input_pipeline import find_scale, make_cached_iterator, make_train_iterator
from gid_jax.data.latent_cache import build_latent_cache
from gid_jax.parsing import parse
from gid_jax.train import make_optimizer
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import create_train_state, train_step


def main() -> None:
  """Builds the cache in a temporary folder and measures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="data folder of that size")
  parser.add_argument("--stage", choices=("ldm", "ldm_coordinated"), default="ldm")
  parser.add_argument("--size", default="default")
  parser.add_argument("--start", required=True, help="fitted swing, or the vae of sizes with one; or an ldm")
  parser.add_argument("--draws", type=int, default=1, help="of each window")
  parser.add_argument("--steps", type=int, default=8, help="timed, of each kind")
  options = parser.parse_args()
  jax.config.update("jax_cpu_enable_async_dispatch", False)

  config = importlib.import_module(f"configs.{options.stage}").get_config(options.size)
  config.data.directory, config.data.latent_draws, config.data.sources = options.data, options.draws, {}
  earlier = "ldm" if options.stage == "ldm_coordinated" else "swing" if config.data.strength else "vae"
  config.init[earlier] = options.start
  config.num_init_batches = 1
  config = parse(TrainSettings, config)
  settings = dict(stage=options.stage, seed=0, batch_size=config.batch_size)
  fresh = make_train_iterator(config.data, **settings)
  objective = make_objective(config, band_scale=find_scale(config.data), strength=np.ones(1))
  tx = make_optimizer(config.optimizer)
  params = objective.initialize(jax.random.key(0, impl="rbg"), [next(fresh)])
  state = create_train_state(params, trainable=objective.trainable, tx=tx)

  with tempfile.TemporaryDirectory() as folder:
    started = time.perf_counter()
    sources = build_latent_cache(folder, config, state.frozen)
    seconds, count = time.perf_counter() - started, sum(len(source) for source in sources.values())
    size = sum(path.stat().st_size for path in (Path(folder) / "latents").iterdir())
    print(f"cache: {count} draws, {size / count / 1000:.0f} kB and {seconds / count:.2f} s each, compilation included")
    batches = {"encoding": fresh, "cached": make_cached_iterator(config.data, sources, **settings)}
    steps, times = {}, {name: [] for name in batches}
    for name, iterator in batches.items():
      step = functools.partial(train_step, loss_fn=objective.loss_fn, tx=tx, ema_decay=0.999)
      batch = {name: array for name, array in next(iterator).items() if name != "record"}
      steps[name] = jax.jit(step).lower(jax.random.key(0), state, batch).compile(), batch
      jax.block_until_ready(steps[name][0](jax.random.key(0), state, batch))
    for _ in range(options.steps):
      for name, (step, batch) in steps.items():
        started = time.perf_counter()
        jax.block_until_ready(step(jax.random.key(0), state, batch))
        times[name].append(time.perf_counter() - started)
  medians = {name: statistics.median(values) for name, values in times.items()}
  for name, (step, _) in steps.items():
    memory = step.memory_analysis().temp_size_in_bytes / 2**20
    print(f"{name:>9}: {medians[name]:.2f} s a step of {config.batch_size} examples, {memory:.0f} MiB")
  print(f"ratio {medians['cached'] / medians['encoding']:.2f}")


if __name__ == "__main__":
  main()
