"""Fixtures of several test files."""

import collections
import gc
import os
import resource
import tempfile
from pathlib import Path

import helpers
import jax
import jaxtyping
import pytest
from jax.experimental.compilation_cache import compilation_cache
from xdist.scheduler import LoadFileScheduling

from gid_jax.flow import estimate

# Files of half a minute and more, the longest first: begun last, one would keep a process busy while the others wait.
LONG_FILES = (
  "test_benchmarks.py",
  "test_notebook.py",
  "test_builder.py",
  "test_pipeline.py",
  "test_benchmarks_alone.py",
  "test_examples.py",
  "test_accelerator_export.py",
  "test_train_smoke.py",
  "test_live_source.py",
  "test_mesh_training.py",
  "test_flow.py",
  "test_multiprocess.py",
  "test_objectives.py",
  "test_sampler.py",
  "test_evaluate.py",
  "test_vit.py",
)


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory):
  """Tests, and the programs that they start, keep compiled programs to themselves."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user_cache")))
    patch.setenv("GID_CACHE", "off")  # tests replace functions, which no file of a program tells
    yield


def pytest_configure(config):
  """One folder of compiled programs for all processes of a run: workers inherit the environment."""
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.TemporaryDirectory(prefix="gid_jax_programs")
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    jax.config.update("jax_compilation_cache_dir", folder.name)
  # Programs that tests start compile the same again; what this process compiles is seldom asked for twice.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
  # XLA reads its flags once; commands that see some start a process that checks them.
  with pytest.MonkeyPatch.context() as patch:
    # Stripped, as it takes a space for the name of a file.
    patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {helpers.QUICK_XLA}".strip())
    jax.devices()
  gc.set_threshold(100_000, 50, 100)  # what JAX keeps is looked through again and again otherwise


def pytest_sessionfinish():
  """Spares pytest its five last looks through all that the tests have made."""
  gc.freeze()


def pytest_terminal_summary(terminalreporter):
  """Says at the end what was not tested, and why: comparisons with packages that are not installed, above all."""
  reasons = collections.Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
  for reason, number in sorted(reasons.items()):
    terminalreporter.write_line(f"{number} not run: {reason.removeprefix('Skipped: ')}")


def pytest_collection_modifyitems(items):
  """Long files come first, the others in their order."""
  rank = {name: i for i, name in enumerate(LONG_FILES)}
  items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """Each process takes whole files, in their order, so that what a file's tests share is made once, not by all."""
  config.option.loadscopereorder = False
  return LoadFileScheduling(config, log)


@pytest.fixture(scope="module")
def quick_compilation():
  """Compiles a module's programs with little care, in half the time; those of processes that it starts, too."""
  name = "jax_disable_most_optimizations"
  before = jax.config.values[name]
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(name.upper(), "true")
    for value in (True, before):
      jax.config.update(name, value)
      compilation_cache.reset_cache()
      if value is True:
        yield


@pytest.fixture(scope="module")
def careful_flow(quick_compilation):
  """Compiles a module's programs with little care, but flow as users do: it runs for longer than that takes."""
  compiled = jax.jit(
    estimate._estimate_block.__wrapped__, static_argnames=("settings", "mesh"), compiler_options=helpers.CAREFUL_XLA
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(estimate, "_estimate_block", compiled)
    yield


@pytest.fixture(scope="module", autouse=True)
def few_programs():
  """Lets go of compiled programs after a file that leaves many: all of them are five gigabytes in the end."""
  yield
  memory = Path("/proc/self/statm")
  if not memory.exists() or int(memory.read_text().split()[1]) * resource.getpagesize() > 1.5e9:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def unchecked():
  """For tests of what a function says to arguments of wrong types or shapes: no checker stands before it."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def restore_environment():
  """Commands run in this process set variables for JAX, which programs started by later tests would inherit."""
  before = dict(os.environ)
  yield
  for name in os.environ.keys() - before.keys():
    del os.environ[name]
  os.environ.update(before)
