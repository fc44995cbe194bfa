"""Prepares JAX for a process: its CPU devices, how it takes GPU memory, and where it keeps compiled programs.

What the user has set, by environment or `jax.config`, stays as it is. Importing this file imports nothing heavy.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from gid_jax.errors import UserError

# Small programs are kept too: sampling runs many of them.
_CACHE_SETTINGS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


def configure_jax() -> None:
  """Prepares JAX for a program that has the machine to itself; call before the first JAX operation.

  GPU memory is taken as it is needed; every CPU core is a device, for optical flow splits its frames over devices;
  floats have 32 bits; compiled programs are kept, see `use_compilation_cache`.

  Raises:
    UserError: JAX cannot use the platform that was asked for, or XLA_FLAGS holds what XLA does not know.
  """
  if os.environ.get("XLA_FLAGS"):
    _check_flags()
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA calls a slow machine an error; a real one is raised, too
  import jax

  is_chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if jax.config.values["jax_num_cpu_devices"] < 0 and not is_chosen:
    with contextlib.suppress(RuntimeError):  # JAX has begun, and has the devices that it has.
      jax.config.update("jax_num_cpu_devices", count_cores())
  jax.config.update("jax_enable_x64", False)  # the networks are of float32, whatever the shell says
  use_compilation_cache()
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    chosen = jax.config.values["jax_platforms"] or "its choice"
    reason = str(error).strip().splitlines() or ["no such device was found"]
    reason = reason[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")  # which is said here, too
    raise UserError(f"JAX cannot use {chosen} here: {reason}; unset JAX_PLATFORMS to run on the CPU, or "
                    "install JAX for this accelerator") from error  # fmt: skip


def _check_flags() -> None:
  # In a process of its own: one that is given an unknown flag is ended by XLA, whatever it is at. It takes the CPU, as
  # the hosts of a pod would wait for each other there.
  command, environment = [sys.executable, "-c", "import jax; jax.devices()"], os.environ | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
  _, found, unknown = done.stderr.partition("in XLA_FLAGS: ")
  if done.returncode and found:
    raise UserError(f"XLA_FLAGS holds {unknown.splitlines()[0]}, which XLA does not know here; correct or unset it")
  if done.returncode and "Could not open file" in done.stderr:
    raise UserError(f"XLA_FLAGS is {os.environ['XLA_FLAGS']!r}: no flags, which begin with --, and no file of them; "
                    "correct or unset it")  # fmt: skip


def use_compilation_cache() -> None:
  """Has JAX keep compiled programs in the user's cache folder, unless it has another one already.

  Without a home, with a read-only one, or with GID_CACHE=off, it compiles every time.
  """
  import jax

  if not is_caching():
    return
  if jax.config.values["jax_compilation_cache_dir"] is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  folder = make_cache_folder("xla")
  if folder is None:
    return
  # What is missing or damaged there is compiled.
  warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
  jax.config.update("jax_compilation_cache_dir", str(folder))
  for name, value in _CACHE_SETTINGS.items():
    if name.upper() not in os.environ:
      jax.config.update(name, value)


def make_aligned(length: int) -> Any:
  """A NumPy array of so many uint32 zeros that the devices of a CPU share: others are copied, once for each device.

  What is never written of it takes no memory.
  """
  import numpy as np

  size, alignment = 4 * length, 64
  store = np.zeros(size + alignment, np.uint8)
  start = -store.ctypes.data % alignment
  return store[start : start + size].view(np.uint32)


def release_memory() -> None:
  """Gives memory that has been freed back to the system, where the C library (glibc) would keep it."""
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)


def count_cores() -> int:
  """The number of CPU cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Linux
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def is_caching() -> bool:
  """Whether anything may be kept for later processes: not with GID_CACHE=off in the environment."""
  return os.environ.get("GID_CACHE", "").lower() != "off"


def make_cache_folder(name: str) -> Path | None:
  """The folder of this name in the user's cache folder, closed to others if it is new; None where none can be."""
  chosen = os.environ.get("XDG_CACHE_HOME", "")
  try:
    # The XDG specification ignores a relative path.
    folder = (Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache") / "gid-jax" / name
    if not folder.is_absolute():  # nor is a home that is another one in every folder
      return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
  except (OSError, RuntimeError):
    return None
  return folder if os.access(folder, os.W_OK) else None
