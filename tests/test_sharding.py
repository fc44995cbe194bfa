"""Sharding on four pretended devices, in a fresh process because the device count is fixed at start-up."""

import jax
import numpy as np
import pytest
import training_runs

from gid_jax.errors import UserError
from gid_jax.training import sharding

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_mesh_params_batch_and_restore_on_four_devices(tmp_path):
  code = f"""
    import jax, jax.numpy as jnp, numpy as np
    from gid_jax.training import sharding
    from gid_jax.weights.checkpoint import CheckpointStore
    from gid_jax.errors import UserError

    def refused(function, *args, **options):
      try:
        function(*args, **options)
      except UserError:
        return True

    assert dict(sharding.make_mesh().shape) == {{"data": 4, "fsdp": 1}}
    assert dict(sharding.make_mesh(data=2).shape) == {{"data": 2, "fsdp": 1}}
    for sizes in (dict(fsdp=3), dict(data=4, fsdp=2), dict(data=0)):
      assert refused(sharding.make_mesh, **sizes)
    mesh = sharding.make_mesh(fsdp=2)
    assert dict(mesh.shape) == {{"data": 2, "fsdp": 2}}
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)

    params = {{
      "tall": jnp.arange(2.0**17).reshape(512, 256), "odd": jnp.ones((511, 260)),
      "none": jnp.ones((257, 511)), "bias": jnp.ones(256), "scalar": jnp.ones(()),
    }}
    shardings = sharding.param_sharding(params, mesh)
    placed = jax.device_put(params, shardings)
    shapes = {{name: value.addressable_shards[0].data.shape for name, value in placed.items()}}
    assert shapes == {{
      "tall": (256, 256), "odd": (511, 130), "none": (257, 511), "bias": (256,), "scalar": (),
    }}, shapes
    whole = sharding.param_sharding(params, sharding.make_mesh())
    assert all(value.is_fully_replicated for value in whole.values())

    batch = {{"image": np.arange(24.0).reshape(8, 3), "band": np.arange(8)}}
    put = sharding.put_batch(batch, mesh)
    for name, value in put.items():
      np.testing.assert_array_equal(value, batch[name])
      assert [len(shard.data) for shard in value.addressable_shards] == [2] * 4
    assert refused(sharding.put_batch, {{"image": np.zeros((6, 3))}}, mesh)

    # A vmapped scatter inside jit runs on this mesh and gives the plain result.
    scatter = lambda x, i: jax.ops.segment_sum(x, i, num_segments=3)
    index = sharding.put_batch({{"i": np.arange(24).reshape(8, 3) % 3}}, mesh)["i"]
    out = jax.jit(jax.vmap(scatter))(put["image"], index)
    np.testing.assert_allclose(out, batch["image"])

    # Saved on one mesh, restored on another, each leaf where the target says.
    class Position:
      def get_state(self): return {{"n": 1}}
      def set_state(self, state): assert state == {{"n": 1}}
    store = CheckpointStore({str(tmp_path / "store")!r})
    store.save(1, state=placed, iterator=Position(), config={{}})
    store.wait()
    for other in (sharding.make_mesh(fsdp=4), sharding.make_mesh(data=1)):
      wanted = sharding.param_sharding(params, other)
      abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, wanted)
      step, state = store.restore_latest(abstract, Position())
      for name in params:
        assert state[name].sharding.is_equivalent_to(wanted[name], params[name].ndim), name
        np.testing.assert_array_equal(state[name], params[name])
    store.close()
  """
  training_runs.finish(training_runs.start_python(code, num_devices=4))


def test_parameters_are_cut_as_they_are_made_with_the_numbers_of_one_device():
  code = """
    import sys; sys.path.insert(0, "tests")
    import jax, numpy as np, training_runs
    from configs import renderer, vae
    from gid_jax.configuration import TrainSettings
    from gid_jax.parsing import parse
    from gid_jax.training import sharding
    from gid_jax.training.objectives import make_objective

    jax.config.update("jax_disable_most_optimizations", True)
    sharding._MIN_SHARDED_SIZE = 64
    shown, rng = renderer.get_config("tiny"), np.random.default_rng(0)
    shown.model.renderer.channels = (4, 8)
    image = rng.uniform(size=(4, 8, 8, 3)).astype(np.float32)
    batches = {
      "renderer": {"image": image, "flow": image[..., :2], "depth": image[..., 0]},
      "vae": {"slice": image[..., [0, 1, 2, 0]], "band": np.arange(4, dtype=np.int32)},
    }
    for config in (shown, training_runs.make_config(vae, "")):
      batch, key = batches[config.stage], jax.random.key(0, impl="rbg")
      objective = make_objective(parse(TrainSettings, config), band_scale=np.ones(training_runs.NUM_BANDS, np.float32))
      expected = objective.initialize(key, [batch])
      mesh = sharding.make_mesh(fsdp=2)
      found = objective.initialize(key, [sharding.put_batch(batch, mesh)])
      jax.tree.map(np.testing.assert_array_equal, found, expected)
      wanted = sharding.param_sharding(expected, mesh)
      leaves = [(leaf, place) for leaf, place in zip(*map(jax.tree.leaves, (found, wanted))) if leaf.size > 4]
      assert all(leaf.sharding.is_equivalent_to(place, leaf.ndim) for leaf, place in leaves)
      assert any(not leaf.is_fully_replicated for leaf, _ in leaves)
  """
  training_runs.finish(training_runs.start_python(code, num_devices=4))


def test_two_processes_build_one_global_batch():
  code = """
    import jax, numpy as np
    from gid_jax.training import sharding
    assert sharding.maybe_initialize_distributed()
    mesh = sharding.make_mesh()
    assert jax.process_count() == 2 and mesh.size == 2
    try:
      sharding.make_mesh(data=1)
      raise AssertionError("a mesh without the other process's device")
    except sharding.UserError as error:
      assert "leaves out some of the 2 devices of 2 processes" in str(error)
    share = np.float32([[1, 2], [3, 4]]) + 10 * jax.process_index()
    batch = sharding.put_batch({"x": share}, mesh)["x"]
    assert batch.shape == (4, 2)
    total = jax.jit(lambda x: x.sum(0), out_shardings=sharding.replicated(mesh))(batch)
    np.testing.assert_array_equal(np.asarray(total), [1 + 3 + 11 + 13, 2 + 4 + 12 + 14])
  """
  address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{training_runs.free_port()}", "JAX_NUM_PROCESSES": "2"}
  processes = [training_runs.start_python(code, JAX_PROCESS_ID=str(i), **address) for i in range(2)]
  for process in processes:
    training_runs.finish(process)


@pytest.fixture
def calls(monkeypatch):
  made = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: made.append(kwargs))
  for name in training_runs.DISTRIBUTED:
    monkeypatch.delenv(name, raising=False)
  return made


@pytest.mark.parametrize(
  ("variables", "expected"),
  [
    ({}, []),
    ({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, []),
    ({"SLURM_STEP_NUM_TASKS": "8"}, [{}]),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, [{}]),
    ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, [{}]),
    (
      {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "JAX_COORDINATOR_ADDRESS": "host:1"},
      [{"num_processes": 2, "process_id": 1}],
    ),
  ],
)
def test_distributed_only_when_the_environment_names_more_processes(monkeypatch, calls, variables, expected):
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert sharding.maybe_initialize_distributed() == bool(expected)
  assert calls == expected


@pytest.mark.parametrize("variables", [{"JAX_NUM_PROCESSES": "2"}, {"SLURM_STEP_NUM_TASKS": "many"}])
def test_incomplete_environment_is_a_user_error(monkeypatch, calls, variables):
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match=next(iter(variables))):
    sharding.maybe_initialize_distributed()
  assert calls == []


def test_one_device_keeps_everything_whole():
  mesh = sharding.make_mesh(data=1)
  batch = sharding.put_batch({"x": np.arange(3)}, mesh)
  np.testing.assert_array_equal(batch["x"], np.arange(3))
  assert sharding.param_sharding({"w": np.ones((512, 512))}, mesh) == {"w": sharding.replicated(mesh)}


def test_a_batch_must_divide_over_devices_and_microbatches():
  mesh = sharding.make_mesh(data=1)
  sharding.check_batch_size(6, mesh, accumulation_steps=3)
  with pytest.raises(UserError, match=r"batch_size=6 does not divide over 1 devices x accumulation_steps=4.* of 4"):
    sharding.check_batch_size(6, mesh, accumulation_steps=4)
  with pytest.raises(UserError, match="accumulation_steps=0"):
    sharding.check_batch_size(6, mesh, accumulation_steps=0)
