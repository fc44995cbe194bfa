"""Fixtures of several test files."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory):
  """Tests, and the programs that they start, keep compiled programs to themselves."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user_cache")))
    yield


@pytest.fixture(scope="module")
def quick_compilation(tmp_path_factory):
  """Compiles a module's programs with little care, in half the time, and keeps those that are compiled twice."""
  quick = dict(
    jax_disable_most_optimizations=True,
    jax_compilation_cache_dir=str(tmp_path_factory.mktemp("cache")),
    jax_persistent_cache_min_compile_time_secs=0.2,
  )
  before = {name: jax.config.values[name] for name in quick}
  for fields in (quick, before):
    for name, value in fields.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    if fields is quick:
      yield


@pytest.fixture(autouse=True)
def restore_environment():
  """Commands run in this process set variables for JAX, which programs started by later tests would inherit."""
  before = dict(os.environ)
  yield
  for name in os.environ.keys() - before.keys():
    del os.environ[name]
  os.environ.update(before)
