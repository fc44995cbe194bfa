"""How a process prepares JAX: in programs of their own, as JAX begins once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gid_jax.devices import count_cores

CHECKOUT = Path(__file__).parents[1]
VARIABLES = (
  "GID_CACHE", "JAX_COMPILATION_CACHE_DIR",
  "JAX_NUM_CPU_DEVICES", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XLA_FLAGS",
  "XLA_PYTHON_CLIENT_PREALLOCATE", "XDG_CACHE_HOME",
)  # fmt: skip
SHOW = """
from gid_jax.devices import configure_jax, use_compilation_cache
import os
{call}()
import jax
print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs,
      len(jax.devices("cpu")), os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))
"""


def run(code, **variables):
  """What a program writes that has none of the user's variables but those given."""
  environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
  command = [sys.executable, "-c", code]
  environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(CHECKOUT), **variables}
  result = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  return result.stdout.split()


CONFIGURE, USE = SHOW.format(call="configure_jax"), SHOW.format(call="use_compilation_cache")


def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
  home, cache, blocked = tmp_path / "home", tmp_path / "cache", tmp_path / "file"
  blocked.touch()
  assert run(CONFIGURE, HOME=str(home))[:2] == [str(home / ".cache/gid-jax/xla"), "0.0"]
  assert run(USE, HOME=str(home))[:2] == [str(home / ".cache/gid-jax/xla"), "0.0"]
  assert run(USE, HOME=str(home), XDG_CACHE_HOME="relative")[0] == str(home / ".cache/gid-jax/xla")
  assert run(USE, XDG_CACHE_HOME=str(cache))[0] == str(cache / "gid-jax" / "xla")
  assert run(USE, XDG_CACHE_HOME=str(blocked))[:2] == ["None", "1.0"]
  assert run(USE, HOME=str(home), GID_CACHE="off")[:2] == ["None", "1.0"]
  run(USE + "jax.jit(lambda x: x + 1)(1.0)", XDG_CACHE_HOME=str(cache))
  assert os.listdir(cache / "gid-jax" / "xla") != []


def test_what_the_user_has_set_stays(tmp_path):
  cache = {"XDG_CACHE_HOME": str(tmp_path)}
  chosen = {"JAX_COMPILATION_CACHE_DIR": "/mine", "XLA_PYTHON_CLIENT_PREALLOCATE": "true", "JAX_NUM_CPU_DEVICES": "3"}
  assert run(CONFIGURE, **chosen) == ["/mine", "1.0", "3", "true"]
  assert run(USE, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="5", **cache)[1] == "5.0"
  assert run(CONFIGURE, XLA_FLAGS="--xla_force_host_platform_device_count=4", **cache)[2] == "4"
  host = "import jax; jax.config.update('jax_compilation_cache_dir', '/host'); jax.devices()\n"
  assert run(host + CONFIGURE, **cache)[:3] == ["/host", "1.0", "1"]


def test_every_core_that_may_be_used_is_a_device_where_a_program_asks_for_it(tmp_path):
  cache = {"XDG_CACHE_HOME": str(tmp_path)}
  if not hasattr(os, "sched_getaffinity"):
    pytest.skip("this system binds no process to cores")
  own = os.sched_getaffinity(0)
  assert run(CONFIGURE, **cache)[2:] == [str(len(own)), "false"]
  one = f"import os; os.sched_setaffinity(0, [{min(own)}])\n"
  assert run(one + CONFIGURE, **cache)[2] == "1"
  assert run(USE, **cache)[2:] == ["1", "None"]


def test_preparing_imports_nothing_heavy_before_it_is_asked_to():
  code = "import gid_jax.devices, sys; print(sorted({'jax', 'jaxlib', 'numpy', 'flax'} & set(sys.modules)))"
  assert run(code) == ["[]"]


@pytest.mark.parametrize(
  "program, config, num_devices", [("train", "vae.py:tiny", 1), ("evaluate", "evaluation.py", count_cores())]
)
def test_training_and_evaluation_prepare_jax(program, config, num_devices, tmp_path):
  config = str(CHECKOUT / "configs" / config)
  code = f"""
import sys
import jax
from absl import flags
from ml_collections import config_flags
from gid_jax import {program} as program

def work(*_, **__):
  print(jax.config.jax_compilation_cache_dir, len(jax.devices()))
  sys.exit()

config_flags.DEFINE_config_file("config", {config!r})
for name in ("workdir", "against"):
  flags.DEFINE_string(name, "", "")
flags.FLAGS(["program"])
program.{program} = work
program.main([])
"""
  folder = tmp_path / "gid-jax" / "xla"
  assert run(code, XDG_CACHE_HOME=str(tmp_path)) == [str(folder), str(num_devices)]


def test_floats_have_32_bits_whatever_the_shell_says(tmp_path):
  code = CONFIGURE + "print(jax.numpy.ones(2).dtype)"
  assert run(code, JAX_ENABLE_X64="1", XDG_CACHE_HOME=str(tmp_path))[-1] == "float32"


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line(platform):
  code = """
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError
try:
  configure_jax()
except UserError as error:
  print(error)
"""
  line = " ".join(run(code, JAX_PLATFORMS=platform))
  assert line.startswith(f"JAX cannot use {platform} here: ") and "unset JAX_PLATFORMS" in line
  assert "AssertionError" not in line


def test_an_unknown_flag_of_xla_is_one_line():
  code = """
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError
try:
  configure_jax()
except UserError as error:
  print(error)
print("goes on")
"""
  expected = "XLA_FLAGS holds --xla_nonsense=1, which XLA does not know here; correct or unset it goes on"
  assert run(code, XLA_FLAGS="--xla_nonsense=1") == expected.split()
  expected = "XLA_FLAGS is 'nonsense': no flags, which begin with --, and no file of them; correct or unset it goes on"
  assert run(code, XLA_FLAGS="nonsense") == expected.split()
  assert run(code, XLA_FLAGS="--xla_cpu_multi_thread_eigen=false") == ["goes", "on"]
