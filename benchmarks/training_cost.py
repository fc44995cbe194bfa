"""Claim: what a training step costs, at any size, found by compiling it and not by running it.

  python -m benchmarks.training_cost --config=configs/ldm.py:paper --examples 4
  python -m benchmarks.training_cost --config=configs/ldm.py:paper --examples 4 --config.model.denoiser.remat=True

Prints parameters, operations per example and step as `roofline` counts them, the memory of the state and of everything
else for that many examples on one device, what JAX keeps of an example between the loss and its gradient
(rematerialisation's part: on CPUs XLA undoes it), compile time, and how long the configuration's whole training would
take on accelerators at an assumed share of their peak. Nothing here is measured but the compile time.
"""

import functools
import math
import sys
import time

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks.roofline import CHIPS, count_work, make_shapes
from gid_jax.configuration import TrainSettings
from gid_jax.parsing import parse
from gid_jax.train import make_optimizer
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import create_train_state, train_step


def count(tree):
  """Elements of a tree of shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_saved_bytes(loss_fn, params, batch):
  """Bytes that JAX keeps between a loss and its gradient."""
  loss = lambda params, batch: loss_fn(jax.random.key(0), params, batch)[0]
  saved = jax.eval_shape(lambda params, batch: jax.vjp(lambda params: loss(params, batch), params)[1], params, batch)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(saved))


def read_options(arguments):
  """The flags, apart from those of the whole process; anything unknown, or a missing config, ends the program."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "Such as configs/ldm.py:paper.", flag_values=values)
  flags.DEFINE_integer("examples", 4, "Examples on the device in one step.", flag_values=values)
  flags.DEFINE_float("share", 0.35, "Assumed share of the peak that training reaches.", flag_values=values)
  try:
    values(arguments)
  except flags.Error as error:
    sys.exit(str(error))
  if values.config is None:
    sys.exit(__doc__)
  return values


def main():
  """Compiles and prints."""
  options = read_options(sys.argv)
  config, num = parse(TrainSettings, options.config), options.examples
  params, batch = make_shapes(config, num)
  scale = np.ones(config.model.num_bands) if config.stage == "vae" else None
  objective = make_objective(config, band_scale=scale)
  tx = make_optimizer(config.optimizer)
  state = jax.eval_shape(functools.partial(create_train_state, trainable=objective.trainable, tx=tx), params)
  update = functools.partial(train_step, loss_fn=objective.loss_fn, tx=tx, ema_decay=config.ema_decay)
  key = jax.eval_shape(lambda: jax.random.key(0))
  one, two = (count_saved_bytes(objective.loss_fn, params, make_shapes(config, n)[1]) for n in (1, 2))
  lowered = jax.jit(update, donate_argnames=("state",)).lower(key, state, batch)
  start = time.monotonic()
  compiled = lowered.compile()
  compile_time = time.monotonic() - start
  memory = compiled.memory_analysis()
  work = count_work(update, key, state, batch)
  examples = config.batch_size * config.optimizer.num_steps
  print(f"{config.stage} {config.size}, {num} examples, compiled for {jax.default_backend()} in {compile_time:.0f} s")
  print(f"parameters          {count(state.params) / 1e6:.1f} M trained, {count(state.frozen) / 1e6:.1f} M frozen")
  print(f"operations          {work.operations / num / 1e9:.4g} GFLOP per example and step")
  print(f"state               {memory.argument_size_in_bytes / 2**30:.2f} GiB with the batch (float32)")
  print(f"everything else     {memory.temp_size_in_bytes / 2**30:.2f} GiB")
  print(f"of it               {(two - one) / 2**20:.0f} MiB an example are kept for its gradient, before XLA")
  print(
    f"whole training      {config.optimizer.num_steps} steps x {config.batch_size} = "
    f"{examples * work.operations / num:.2e} FLOP, at a share of {options.share:g} of the peak:"
  )
  for name, chip in CHIPS.items():
    seconds, _ = work.seconds(chip)
    print(f"  {name:<10} {examples * seconds / num / options.share / 86400:.1f} days of one chip")


if __name__ == "__main__":
  main()
