"""The training state: parameters split and joined, one update, its average and its random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_runs
from flax import traverse_util
from hypothesis import given
from hypothesis import strategies as st

from gid_jax.training.train_state import create_train_state, merge_params, split_params, train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(st.floats(0, 1), lambda children: st.dictionaries(NAMES, children, min_size=1, max_size=3))
RATE = 0.1


@given(st.dictionaries(NAMES, TREES, max_size=4), st.integers(0, 2**32 - 1))
def test_split_and_merge_are_inverse(params, seed):
  paths = sorted(traverse_util.flatten_dict(params, sep="/"))
  coins = np.random.default_rng(seed).random(len(paths))
  chosen = {path for path, coin in zip(paths, coins, strict=True) if coin < 0.5}
  trained, frozen = split_params(params, trainable=chosen.__contains__)
  assert set(traverse_util.flatten_dict(trained, sep="/")) == chosen
  assert set(traverse_util.flatten_dict(frozen, sep="/")) == set(paths) - chosen
  assert merge_params(trained, frozen) == merge_params(frozen, trained) == params


def test_the_later_tree_counts():
  first, second = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}
  assert merge_params(first, second) == {"a": {"b": 3, "c": 2}, "d": 4}
  assert merge_params(second, first) == {"a": {"b": 1, "c": 2}, "d": 4}
  assert first == {"a": {"b": 1, "c": 2}}


def loss_fn(key, params, batch):
  # Linear regression through a frozen factor, and the random number that a loss would use.
  error = batch["x"] * params["net"]["frozen"] @ params["net"]["weight"] - batch["y"]
  loss = (error**2).mean()
  return loss, {"loss": loss, "draw": jax.random.uniform(key)}


@pytest.fixture(scope="module")
def run():
  tx = optax.sgd(RATE)
  step = jax.jit(lambda key, state, batch: train_step(key, state, batch, loss_fn=loss_fn, tx=tx, ema_decay=0.25))
  params = {"net": {"weight": jnp.array([1.0, -2.0]), "frozen": jnp.array([0.3, np.pi])}}
  state = create_train_state(params, trainable=lambda path: path == "net/weight", tx=tx)
  rng = np.random.default_rng(0)
  batches = [{"x": rng.normal(size=(4, 2)), "y": rng.normal(size=4)} for _ in range(6)]
  states, metrics = [state], []
  for batch in batches:
    state, result = step(jax.random.key(7), states[-1], batch)
    states.append(state)
    metrics.append(result)
  return batches, states, metrics


def test_updates_are_gradient_descent(run):
  batches, states, metrics = run
  weight, frozen = np.array([1.0, -2.0]), np.array([0.3, np.pi])
  for index, (batch, result) in enumerate(zip(batches, metrics, strict=True)):
    design = batch["x"] * frozen
    error = design @ weight - batch["y"]
    gradient = 2 * design.T @ error / 4
    np.testing.assert_allclose(result["loss"], np.mean(error**2), rtol=1e-4)
    np.testing.assert_allclose(result["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    weight = weight - RATE * gradient
    np.testing.assert_allclose(states[index + 1].params["net"]["weight"], weight, rtol=1e-4)
    assert states[index + 1].step == index + 1


def test_frozen_parameters_keep_every_bit(run):
  _, states, _ = run
  for state in states:
    assert set(state.params["net"]) == set(state.ema_params["net"]) == {"weight"}
    np.testing.assert_array_equal(state.frozen["net"]["frozen"], np.float32([0.3, np.pi]))


def test_the_average_warms_up_to_its_decay(run):
  _, states, _ = run
  average = np.array(states[0].params["net"]["weight"])
  # (1 + n) / (10 + n) is 0.1, 0.18, 0.25, then above the decay.
  for state, decay in zip(states[1:], [1 / 10, 2 / 11, 3 / 12, 0.25, 0.25, 0.25], strict=True):
    average = decay * average + (1 - decay) * np.asarray(state.params["net"]["weight"])
    np.testing.assert_allclose(state.ema_params["net"]["weight"], average, rtol=1e-5)


def test_random_numbers_depend_on_key_and_step_alone(run):
  _, _, metrics = run
  draws = [float(result["draw"]) for result in metrics]
  expected = [float(jax.random.uniform(jax.random.fold_in(jax.random.key(7), step))) for step in range(6)]
  assert draws == expected and len(set(draws)) == 6


def wide_loss(key, params, batch):
  """Without random numbers, and with much in between that a gradient has to keep."""
  hidden = batch["x"]
  for weight in params["weights"]:
    hidden = jnp.tanh(hidden @ weight)
  loss = ((hidden.sum(-1) - batch["y"]) ** 2).mean()
  return loss, {"loss": loss, "draw": jax.random.uniform(key), "mean_y": batch["y"].mean()}


def wide_run(num_steps, *, batch_size=24, width=8, depth=3):
  """(compiled step, its arguments) with `num_steps` microbatches."""
  tx = optax.adam(RATE)
  rng = np.random.default_rng(0)
  params = {"weights": [np.float32(rng.normal(size=(width, width)) / width**0.5) for _ in range(depth)]}
  state = create_train_state(params, trainable=lambda path: True, tx=tx)
  batch = {"x": np.float32(rng.normal(size=(batch_size, width))), "y": np.float32(rng.normal(size=batch_size))}
  step = lambda key, state, batch: train_step(
    key, state, batch, loss_fn=wide_loss, tx=tx, ema_decay=0.9, accumulation_steps=num_steps
  )
  arguments = jax.random.key(1), state, batch
  return jax.jit(step).lower(*arguments).compile(), arguments


@pytest.mark.parametrize("num_steps", [2, 3, 8])
def test_accumulated_microbatches_make_the_update_of_the_whole_batch(num_steps):
  (whole, arguments), (cut, _) = wide_run(1), wide_run(num_steps)
  (expected, metrics), (found, averaged) = whole(*arguments), cut(*arguments)
  for name in ("loss", "mean_y", "gradient_norm"):
    np.testing.assert_allclose(averaged[name], metrics[name], rtol=1e-5, err_msg=name)
  assert int(found.step) == 1
  # Adam's first step is the sign of the gradient: the moments tell more than the parameters.
  for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-7)
  # Each microbatch draws its own numbers, from the key of the step with its place folded in.
  key = jax.random.fold_in(jax.random.key(1), 0)
  draws = [float(jax.random.uniform(jax.random.fold_in(key, index))) for index in range(num_steps)]
  np.testing.assert_allclose(averaged["draw"], np.mean(draws), rtol=1e-6)


def test_microbatches_take_less_memory():
  sizes = [wide_run(n, batch_size=4096, width=16, depth=8)[0].memory_analysis().temp_size_in_bytes for n in (1, 8)]
  assert sizes[1] < sizes[0] / 2, sizes


def test_a_sharded_state_is_cut_as_it_is_made_and_has_the_same_values():
  code = """
    import jax, jax.numpy as jnp, numpy as np, optax
    from gid_jax.training import sharding
    from gid_jax.training.train_state import create_sharded_state, create_train_state, describe_state

    def measure():
      # Bytes on the first device; an array and its shard are one piece of memory.
      shards = [shard for array in jax.live_arrays() for shard in array.addressable_shards]
      own = [shard.data for shard in shards if shard.device.id == 0]
      return sum({data.unsafe_buffer_pointer(): data.nbytes for data in own}.values())

    def init(params):
      # Moments made outside of a compiled program would lie whole on one device.
      assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params))
      held.append(measure())
      return optax.adam(0.1).init(params)

    tx = optax.GradientTransformation(init, optax.adam(0.1).update)
    rng, trainable = np.random.default_rng(0), lambda path: path.startswith("net/")
    host = {"net": {"kernel": rng.normal(size=(512, 1024)), "bias": rng.normal(size=7)},
            "fixed": rng.normal(size=(1024, 256))}
    host = jax.tree.map(np.float32, host)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), host)
    size, fixed = 4 * 512 * 1024, 4 * 1024 * 256
    for width in (4, 2, 1):
      mesh, held = sharding.make_mesh(fsdp=width), []
      # Shapes alone describe the state; nothing is put on a device for it.
      described = describe_state(shapes, mesh, trainable=trainable, tx=tx)
      assert max(held) < 100, held
      state = create_sharded_state(jax.tree.map(jnp.array, host), mesh, trainable=trainable, tx=tx)
      # The whole parameters are gone when average and moments are made, and these are cut like them.
      assert max(held) < (size + fixed) / width + 100, held
      assert (4 * size + fixed) / width <= measure() < (4 * size + fixed) / width + 1000, measure()
      expected = create_train_state(host, trainable=trainable, tx=optax.adam(0.1))
      assert jax.tree.structure(state) == jax.tree.structure(described) == jax.tree.structure(expected)
      for leaf, other, told in zip(*map(jax.tree.leaves, (state, expected, described))):
        np.testing.assert_array_equal(leaf, other)
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (told.shape, told.dtype, told.sharding)
      # No two of them are one: an update gives each away.
      jax.block_until_ready(jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)(state))
      del state, expected, leaf, other
  """
  training_runs.finish(training_runs.start_python(code, num_devices=4))
