"""The guard counts errors in a row, looks one update late, and names where they began."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gid_jax.errors import UserError
from gid_jax.training.divergence import MAX_CONSECUTIVE_ERRORS, DivergenceGuard
from gid_jax.weights.checkpoint import find_not_finite


def watch(finite, *, loss=math.nan, norm=1.0):
  """Watches updates 1, 2, … with records [10 step]; returns the step at which it raised, and the error."""
  guard = DivergenceGuard(lambda step, records: f"began at {step} with {records}")
  for step, is_finite in enumerate(finite, start=1):
    metrics = {"loss": 1.0 if is_finite else loss, "gradient_norm": 1.0 if is_finite else norm}
    try:
      guard.watch(step, metrics, records=np.array([10 * step]))
    except UserError as error:
      return step, str(error)
  try:
    guard.settle()
  except UserError as error:
    return len(finite) + 1, str(error)
  return None


@given(st.lists(st.booleans(), max_size=30))
def test_stops_at_the_fifth_error_in_a_row(finite):
  row = [False] * MAX_CONSECUTIVE_ERRORS
  first = next((i + 1 for i in range(len(finite)) if finite[i : i + len(row)] == row), None)
  result = watch(finite)
  if first is None:
    assert result is None
  else:
    step, message = result
    assert step == first + MAX_CONSECUTIVE_ERRORS  # one later than the fifth
    assert message.startswith(f"stopped at step {step - 1}: ") and f"began at {first} with [{10 * first}]" in message


@pytest.mark.parametrize("bad", [dict(loss=-math.inf), dict(loss=1.0, norm=math.inf), dict(loss=1.0, norm=math.nan)])
def test_loss_and_gradient_norm_both_count(bad):
  assert watch([True, *[False] * 5], **bad)[0] == 7


def test_the_guard_does_not_wait_for_the_newest_update():
  class Running:
    def __float__(self):
      raise AssertionError("looked at before the next update started")

  guard = DivergenceGuard(lambda step, records: "")
  guard.watch(1, {"loss": Running(), "gradient_norm": Running()}, records=None)


def test_finds_the_array_that_is_not_finite():
  tree = {"a": jnp.ones(3), "b": {"c": [jnp.arange(3), jnp.array([0.0, jnp.nan])]}}
  assert find_not_finite(tree) == "b/c/1"
  assert find_not_finite({"a": tree["a"], "n": jnp.arange(2), "k": jnp.array(True)}) is None


def test_settling_tells_whether_the_newest_update_was_finite():
  guard = DivergenceGuard(lambda step, records: "")
  for step, loss in enumerate([1.0, math.nan, 1.0], start=1):
    guard.watch(step, {"loss": loss, "gradient_norm": 1.0}, records=None)
    assert guard.settle() == math.isfinite(loss)
    assert guard.settle() == math.isfinite(loss)
