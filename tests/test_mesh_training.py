"""A stage trains the same on a mesh that cuts batch and parameters as on one device; its checkpoints fit all meshes."""

import numpy as np
import pytest
import training_runs

from benchmarks.collectives import list_collectives
from gid_jax.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_STEPS = 8
MESHES = [(1, 1), (2, 2)]
# Everything of 64 numbers or more is cut over "fsdp"; by default nothing of this size would be.
TRAINING = """
  import pathlib, shutil, sys
  sys.path.insert(0, "tests")
  import jax, numpy as np
  from optax.tree_utils import tree_get
  import helpers, training_runs
  from gid_jax.training import objectives, sharding
  from gid_jax.train import train

  # How parameters begin on a mesh is for `test_sharding.py` to tell; initialisers take as long to compile as steps.
  objectives.init_params = lambda init, key, *inputs, batch: helpers.random_params(init, *inputs)
  jax.config.update("jax_disable_most_optimizations", True)
  jax.config.update("jax_compilation_cache_dir", str(pathlib.Path({root!r}) / "cache"))
  sharding._MIN_SHARDED_SIZE = 64
  root = pathlib.Path({root!r})
  config = training_runs.make_quick_config(root / "data", quick=("encoder",), num_steps={num_steps})
  config.init.vae = str(root / "vae.safetensors")

  def run(name, data, fsdp):
    config.mesh.data, config.mesh.fsdp = data, fsdp
    state = train(config, root / name)
    training_runs.write_state(root / f"{{name}}.npz", state)
    return state

  def draw(key):
    keys = jax.random.split(key, 3)
    return (
      jax.random.normal(keys[0], (8, 2, 5)), jax.random.bernoulli(keys[1], 0.9, (8, 1)),
      jax.random.randint(keys[2], (8, 2), 0, 1000))

  draws = []
  for data, fsdp in {meshes}:
    state = run(f"{{data}}x{{fsdp}}", data, fsdp)
    # The averages and the optimiser's moments lie where the parameters lie, and those are really cut.
    for tree in (state.ema_params, tree_get(state.opt_state, "mu"), tree_get(state.opt_state, "nu")):
      assert jax.tree.map(lambda a: a.sharding, tree) == jax.tree.map(lambda a: a.sharding, state.params)
    for array in jax.tree.leaves((state.params, state.frozen)):
      width = fsdp if array.size >= 64 and any(n % fsdp == 0 for n in array.shape) else 1
      assert array.addressable_shards[0].data.size * width == array.size
    mesh = sharding.make_mesh(data=data, fsdp=fsdp)
    drawn = jax.jit(draw, out_shardings=sharding.batch_sharding(mesh))(jax.random.key(3))
    draws.append([np.asarray(array) for array in drawn])
  for other in draws[1:]:
    jax.tree.map(np.testing.assert_array_equal, draws[0], other)

  # Its training is over: the run that was made on 2 x 2 is only restored.
  shutil.copytree(root / "2x2", root / "moved")
  run("moved", 4, 1)

  config.model.denoiser.dtype = config.model.codec.dtype = "bfloat16"
  run("bfloat16", 1, 1)
"""
# No weights are made: the step is compiled from shapes alone.
COLLECTIVES = """
  import functools, sys
  sys.path.insert(0, "tests")
  import jax, numpy as np
  from benchmarks.collectives import list_collectives
  from configs import ldm_coordinated
  import training_runs
  from gid_jax.training import sharding
  from gid_jax.training.objectives import make_objective
  from gid_jax.configuration import TrainSettings
  from gid_jax.parsing import parse
  from gid_jax.models.build import make_motion_model
  from gid_jax.train import make_optimizer
  from gid_jax.training.train_state import create_train_state, train_step

  jax.config.update("jax_disable_most_optimizations", True)
  sharding._MIN_SHARDED_SIZE = 64
  config = training_runs.make_config(ldm_coordinated, "")
  config.model.denoiser.attention_levels = (0,)
  config = parse(TrainSettings, config)
  objective, tx, mesh = make_objective(config), make_optimizer(config.optimizer), sharding.make_mesh(data=2, fsdp=2)
  float32 = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding.batch_sharding(mesh))
  bands = jax.ShapeDtypeStruct((8, 4), np.int32, sharding=sharding.batch_sharding(mesh))
  batch = {"image": float32(8, 32, 48, 3), "slice": float32(8, 4, 16, 24, 4), "band": bands}
  init, key = make_motion_model(config.model).init, jax.eval_shape(lambda: jax.random.key(0))
  params = jax.eval_shape(init, key, batch["slice"], bands, batch["image"], bands)["params"]
  state = jax.eval_shape(functools.partial(create_train_state, trainable=objective.trainable, tx=tx), params)
  placement = sharding.param_sharding(state, mesh)
  place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  loss_fn = sharding.with_whole_params(objective.loss_fn, mesh)
  step = functools.partial(train_step, loss_fn=loss_fn, tx=tx, ema_decay=0.9)
  lowered = jax.jit(step, out_shardings=(placement, None)).lower(key, jax.tree.map(place, state, placement), batch)
  found = list_collectives(lowered.compile().as_text())

  num_bytes = lambda tree: sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
  total = lambda kind: sum(collective.num_bytes for collective in found if collective.kind == kind)
  assert {collective.kind for collective in found} == {"all-reduce", "all-gather"}
  # The gradients once and the parameters once (but the decoder's, which no loss needs), a scalar or two beside them,
  # and no activations.
  assert num_bytes(state.params) <= total("all-reduce") < num_bytes(state.params) + 1000
  assert 0.3 * num_bytes(params) < total("all-gather") <= num_bytes(params)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """The folder of all runs: MESHES by name, `moved` (2x2 restored on 4x1), and each one's final state as .npz."""
  folder = tmp_path_factory.mktemp("meshes")
  training_runs.write_windows(folder / "data")
  config = training_runs.make_quick_config(folder / "data", quick=("encoder",))
  training_runs.export_start(folder / "vae.safetensors", config, stage="vae")
  code = TRAINING.format(root=str(folder), num_steps=NUM_STEPS, meshes=MESHES)
  training_runs.finish(training_runs.start_python(code, num_devices=4))
  return folder


def test_a_mesh_gives_the_loss_curve_of_one_device(root):
  expected, found = (training_runs.read_losses(root / name) for name in ("1x1", "2x2"))
  assert len(expected) == NUM_STEPS and np.ptp(expected) > 0.05
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
  first, last = np.load(root / "1x1.npz"), np.load(root / "2x2.npz")
  assert first.files == last.files
  # A key's bias never matters before a softmax: its gradient is rounding alone, which Adam makes as large as any other.
  for path in (path for path in first.files if not path.endswith("key/bias")):
    np.testing.assert_allclose(last[path], first[path], rtol=1e-3, atol=1e-4, err_msg=path)


def test_bfloat16_computes_near_float32_and_keeps_float32_state(root):
  expected, found = (training_runs.read_losses(root / name) for name in ("1x1", "bfloat16"))
  # bfloat16 rounds by up to 0.4 %; errors of many values average out, but those of weights move the whole curve.
  np.testing.assert_allclose(found, expected, rtol=0.02)
  assert found != expected
  state = np.load(root / "bfloat16.npz")
  assert {state[name].dtype for name in state.files} == {np.dtype(np.float32), np.dtype(np.int32), np.dtype(bool)}


def test_collectives_are_read_from_a_program():
  program = """
  %all-reduce.3 = (f32[8,2]{1,0}, f32[]) all-reduce(%a, %b), channel_id=1, metadata={op_name="jit(f)/sum"}
  ROOT %all-gather.1 = bf16[4,3]{1,0} all-gather(%c), dimensions={0}, metadata={op_name="jit(f)/gather"}
  %x = pred[5]{0} all-to-all(%d), dimensions={0}
  %add.1 = f32[8]{0} add(%all-reduce.3, %y), metadata={op_name="all-reduce("}
  """
  assert list_collectives(program) == [
    ("all-reduce", 4 * 17, "jit(f)/sum"), ("all-gather", 2 * 12, "jit(f)/gather"), ("all-to-all", 5, ""),
  ]  # fmt: skip


def test_devices_tell_each_other_gradients_and_parameters_but_no_activations():
  training_runs.finish(training_runs.start_python(COLLECTIVES, num_devices=4))


def test_a_checkpoint_restores_on_another_mesh_and_on_one_device(root):
  saved, moved = np.load(root / "2x2.npz"), np.load(root / "moved.npz")
  config = training_runs.make_quick_config(root / "data", quick=("encoder",), num_steps=NUM_STEPS)
  config.init.vae = str(root / "vae.safetensors")
  here = training_runs.flatten_state(train(config, root / "2x2"))
  assert set(saved.files) == set(moved.files) == set(here)
  for path in saved.files:
    np.testing.assert_array_equal(moved[path], saved[path], err_msg=path)
    np.testing.assert_array_equal(here[path], saved[path], err_msg=path)
