"""Claim: what a training step costs, at any size, found by compiling it and not by running it.

  python -m benchmarks.training_cost --config=configs/ldm.py:paper --examples 4
  python -m benchmarks.training_cost --config=configs/ldm.py:paper --examples 4 --config.model.denoiser.remat=True

Prints parameters, floating-point operations per example and step as XLA counts them, the memory of the state and of
everything else for that many examples on one device, what JAX keeps of an example between the loss and its gradient
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

from gid_jax.configuration import TrainSettings
from gid_jax.models.build import make_motion_model, make_renderer
from gid_jax.parsing import parse
from gid_jax.train import make_optimizer
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import create_train_state, train_step

# Peak bfloat16 operations a second of one chip, from the vendors' data sheets, dense.
PEAKS = {"A100": 312e12, "H100 SXM": 989e12, "TPU v4": 275e12, "TPU v5p": 459e12}


def make_shapes(config, num):
  """(parameters, batch) of a stage as shapes, `num` examples."""
  height, width = config.model.image_size
  array = lambda *shape, dtype=np.float32: jax.ShapeDtypeStruct((num, *shape), dtype)
  key, photo = jax.random.key(0), array(height, width, 3)
  if config.stage == "renderer":
    model = make_renderer(config.model)
    batch = dict(image=photo, target=photo, flow=array(height, width, 2), depth=array(height, width))
    noise = array(model.config.style_dim)
    return jax.eval_shape(model.init, key, photo, batch["flow"], batch["depth"], noise)["params"], batch
  stride, bands = config.model.motion_stride, config.model.num_bands
  taken = {"vae": 1, "ldm": config.data.bands_per_example}.get(config.stage, bands)
  crop = config.data.crop or (height, width)
  slices, numbers = array(taken, crop[0] // stride, crop[1] // stride, 4), array(taken, dtype=np.int32)
  model = make_motion_model(config.model)
  if config.stage == "vae":
    drop = lambda shape: jax.ShapeDtypeStruct((num, *shape.shape[2:]), shape.dtype)
    batch = dict(slice=drop(slices), band=drop(numbers))
    init = functools.partial(model.init, method="reconstruct")
    return jax.eval_shape(init, key, key, batch["slice"], batch["band"])["params"], batch
  params = jax.eval_shape(model.init, key, slices, numbers, photo, numbers)["params"]
  strength = {"strength": array()} if config.data.strength else {}
  return params, dict(image=photo, slice=slices, band=numbers) | strength


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
  operations = lowered.cost_analysis()["flops"] / num
  total = operations * config.batch_size * config.optimizer.num_steps
  print(f"{config.stage} {config.size}, {num} examples, compiled for {jax.default_backend()} in {compile_time:.0f} s")
  print(f"parameters          {count(state.params) / 1e6:.1f} M trained, {count(state.frozen) / 1e6:.1f} M frozen")
  print(f"operations          {operations / 1e9:.4g} GFLOP per example and step")
  print(f"state               {memory.argument_size_in_bytes / 2**30:.2f} GiB with the batch (float32)")
  print(f"everything else     {memory.temp_size_in_bytes / 2**30:.2f} GiB")
  print(f"of it               {(two - one) / 2**20:.0f} MiB an example are kept for its gradient, before XLA")
  print(
    f"whole training      {config.optimizer.num_steps} steps x {config.batch_size} = {total:.2e} FLOP, at a share of "
    f"{options.share:g} of the peak in bfloat16:"
  )
  for name, peak in PEAKS.items():
    print(f"  {name:<10} {total / peak / options.share / 86400:.1f} days of one chip")


if __name__ == "__main__":
  main()
