"""Compiled programs, kept from one process to the next in the user's own cache folder.

JAX's cache of compiled programs saves compiling alone: a program is traced and lowered before it can be looked up
there, which takes longer than running it. What `keep` makes of a function is looked up by what is asked of it: the
shapes and types of its arrays, its other arguments, JAX's settings, versions, the processor, this package's sources.

  call     signature -> program of this process -> file -> trace, lower, compile, write the file
  prepare  the same without running it; files are loaded and programs compiled in threads

Loading a program executes what is in its file. So files are kept in a folder that is closed to others, and one that
belongs to somebody else, that others may write or that is damaged is made anew. GID_CACHE=off keeps nothing.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import platform
import re
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.sharding import NamedSharding

from gid_jax.devices import count_cores, is_caching, make_cache_folder

MAX_BYTES = 2**29  # of all files together; beyond it those go that were not used for longest
_SUFFIX = ".program"
# For CPUs: matrix products of YNNPACK are built when a program first runs, which takes longer than all of its steps.
_NO_LATE_BUILDING = {"xla_cpu_experimental_ynn_fusion_type": ""}
_writing = threading.Lock()  # held while a file is being written
_DIGEST = hashlib.sha256().digest_size
# What somebody else's module makes of a program is not in this package's sources.
_FOREIGN = re.compile(r"""['"][A-Za-z_][\w.]*:[A-Za-z_]\w*['"]|\bat 0x""")


class _Signature(NamedTuple):
  """What decides about a program: other arguments, how the arrays are nested, their shapes, JAX's settings."""

  others: tuple[tuple[str, Any], ...]
  tree: Any
  arrays: tuple[tuple[tuple[int, ...], str, str], ...]
  config: tuple[tuple[str, Any], ...]


class _Results(NamedTuple):
  """What a program returns: numbers of its arrays in the place of these, and shape and type of each."""

  places: Any
  arrays: tuple[tuple[tuple[int, ...], str], ...]


class _Program:
  """One that is being made: what it returns, and what runs; both may have to be waited for."""

  def __init__(self):
    self.results: Future[_Results] = Future()
    self.run: Future[Callable[..., list]] = Future()


class Kept:
  """A function whose compiled programs are kept; see `keep`."""

  def __init__(self, function: Callable, others: Sequence[str], options: dict[str, Any] | None):
    """Takes what `keep` takes."""
    self._function, self._options, self._others = function, options, frozenset(others)
    self._signature_of = inspect.signature(function)
    self._plain = jax.jit(function, static_argnames=tuple(others))
    self._programs: dict[_Signature, _Program] = {}
    self._lock = threading.Lock()
    functools.update_wrapper(self, function)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Runs the function."""
    others, leaves, tree = self._split(args, kwargs)
    first = {jax.devices()[0]}
    if not all(_is_plain(leaf, first) for leaf in leaves):
      return self._plain(*args, **kwargs)
    program = self._find(others, leaves, tree)
    flat = program.run.result()(*leaves)
    return jax.tree.unflatten(jax.tree.structure(program.results.result().places), flat)

  def prepare(self, *args: Any, **kwargs: Any) -> Any:
    """Loads or compiles, in threads, what a call with arrays of these shapes and types will run.

    Arrays may be `jax.ShapeDtypeStruct`s.

    Returns:
      The results as structs, to prepare what takes them.
    """
    places, arrays = self._find(*self._split(args, kwargs)).results.result()
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in arrays]
    return jax.tree.unflatten(jax.tree.structure(places), structs)

  def _split(self, args, kwargs):
    bound = self._signature_of.bind(*args, **kwargs)
    bound.apply_defaults()
    others = tuple((name, value) for name, value in bound.arguments.items() if name in self._others)
    arrays = {name: value for name, value in bound.arguments.items() if name not in self._others}
    leaves, tree = jax.tree.flatten(arrays)
    return others, [_to_array(leaf) for leaf in leaves], tree

  def _find(self, others, leaves, tree) -> _Program:
    arrays = tuple((tuple(leaf.shape), np.dtype(leaf.dtype).name, _describe_sharding(leaf)) for leaf in leaves)
    signature = _Signature(others, tree, arrays, _read_config())
    with self._lock:
      program = self._programs.get(signature)
      is_new = program is None
      if program is None:
        program = self._programs[signature] = _Program()
    if is_new:
      try:
        self._make(program, signature, leaves)
      except BaseException as error:
        with self._lock:
          del self._programs[signature]
        for future in (program.results, program.run):
          if not future.done():
            future.set_exception(error)
        raise
    return program

  def _make(self, program: _Program, signature: _Signature, leaves: list) -> None:
    devices = next((leaf.sharding.mesh.devices.ravel() for leaf in leaves if _is_spread(leaf)), jax.devices()[:1])
    path = self._name_file(signature)
    found = None if path is None else read_file(path)
    if found is not None:
      with contextlib.suppress(Exception):
        binary, results = pickle.loads(found)
        program.results.set_result(results)
        _pool().submit(self._load, program, binary, path, signature, leaves, list(devices))
        return
    self._compile(program, path, signature, leaves)

  def _load(self, program, binary, path, signature, leaves, devices) -> None:
    try:
      # Trees of flat lists: no class is asked how it is made.
      given = jax.tree.structure(((0,) * len(leaves), {}))
      returned = jax.tree.structure([0] * len(program.results.result().arrays))
      run = serialize_executable.deserialize_and_load(binary, given, returned, execution_devices=devices)
    except Exception:  # whatever an entry that another build of the same version wrote may raise
      try:
        self._compile(program, path, signature, leaves)
      except BaseException as error:
        program.run.set_exception(error)
      return
    program.run.set_result(run)

  def _compile(self, program, path, signature, leaves) -> None:
    trees = []

    def call(*leaves):
      result = self._function(**jax.tree.unflatten(signature.tree, leaves), **dict(signature.others))
      trees.append(jax.tree.structure(result))
      return jax.tree.leaves(result)

    call.__name__ = self._function.__name__.strip("_")
    if path is not None:
      # What JAX's own cache returns cannot be written again: a name of its own is never found there.
      call.__name__ += f"_{secrets.token_hex(8)}"
    lowered = jax.jit(call).lower(*[_to_struct(leaf) for leaf in leaves])
    if not program.results.done():
      arrays = tuple((tuple(info.shape), np.dtype(info.dtype).name) for info in lowered.out_info)
      program.results.set_result(_Results(jax.tree.unflatten(trees[0], range(len(arrays))), arrays))

    def finish():
      try:
        run = self._build(lowered)
      except BaseException as error:
        program.run.set_exception(error)
        return
      program.run.set_result(run)
      if path is not None:
        with contextlib.suppress(Exception):  # a program that cannot be kept is compiled again
          binary, _, _ = serialize_executable.serialize(run)
          write_file(path, pickle.dumps((binary, program.results.result())))

    _pool().submit(finish)

  def _build(self, lowered):
    if jax.default_backend() != "cpu":
      return lowered.compile()
    try:
      return lowered.compile({**_NO_LATE_BUILDING, **(self._options or {})})
    except jax.errors.JaxRuntimeError:  # a release of XLA without this library
      return lowered.compile(self._options)

  def _name_file(self, signature: _Signature) -> Path | None:
    text = repr((self._function.__module__, self._function.__qualname__, self._options, signature.others,
                 str(signature.tree), signature.arrays))  # fmt: skip
    folder = None if _FOREIGN.search(text) else find_folder()
    if folder is None:
      return None
    key = text + repr(signature.config) + _describe_place()
    return folder / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)


def keep(*, others: Sequence[str] = (), options: dict[str, Any] | None = None) -> Callable[[Callable], Kept]:
  """A decorator like `jax.jit`, whose compiled programs outlast the process.

  Within a transformation of JAX, and for arrays on other devices than the first, it is `jax.jit`.

  Args:
    others: names of arguments that are no arrays; hashable, and equal where their `repr` is.
    options: of XLA's compiler, for CPUs.
  """
  return lambda function: Kept(function, others, options)


def finish(*, compiling: bool) -> None:
  """Waits, before the process ends, until no file is being written.

  Args:
    compiling: wait for what is being compiled, too, so that it need not be compiled again.
  """
  if compiling:
    _pool().shutdown()
  _writing.acquire()  # for good: no other file is begun


def find_folder() -> Path | None:
  """The folder of kept programs; None where nothing is kept, or where others may write into it."""
  if not is_caching():
    return None
  folder = make_cache_folder("programs")
  if folder is None:
    return None
  with contextlib.suppress(OSError):
    if _is_private(os.lstat(folder)):
      return folder
  return None


def read_file(path: Path) -> bytes | None:
  """What `write_file` wrote, or None: nothing, of another user, open to others, or damaged."""
  try:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
      if not _is_private(os.fstat(descriptor)):
        return None
      stored = file.read()
    content = stored[_DIGEST:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST]:
      return None
    with contextlib.suppress(OSError):
      os.utime(path)
    return content
  except OSError:
    return None


def write_file(path: Path, content: bytes) -> None:
  """Writes a file, complete or not at all, for this user alone; then those go that are too much.

  Raises:
    OSError: it cannot be written.
  """
  with _writing:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # of mode 0600
    try:
      with open(descriptor, "wb") as file:
        file.write(hashlib.sha256(content).digest() + content)
      os.replace(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
      raise
    _discard(path.parent)


def _discard(folder: Path) -> None:
  # The files used last stay, as many as there is room for.
  found = []
  for path in folder.iterdir():
    with contextlib.suppress(OSError):  # another process may have discarded it
      status = path.stat()
      found.append((status.st_mtime, status.st_size, path))
  room = MAX_BYTES
  for _, size, path in sorted(found, reverse=True):
    room -= size
    if room < 0:
      with contextlib.suppress(OSError):
        path.unlink()


def _is_private(status: os.stat_result) -> bool:
  if not hasattr(os, "geteuid"):  # Windows, where the user's folder is closed to others
    return True
  return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


@functools.cache
def _pool() -> ThreadPoolExecutor:
  return ThreadPoolExecutor(count_cores(), thread_name_prefix="gid_programs")


@functools.cache
def _describe_place() -> str:
  """Versions, this package's sources, the processor and the devices: what else a compiled program depends on."""
  device = jax.devices()[0]
  versions = platform.python_version(), *(metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy"))
  place = platform.machine(), _describe_processor(), os.environ.get("XLA_FLAGS", "")
  return repr((versions, _hash_sources(Path(__file__).parent), place, device.platform, device.device_kind,
               device.client.platform_version, len(jax.devices())))  # fmt: skip


def _describe_processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
  except OSError:
    return f"{platform.processor()} of {platform.node()}"
  return "".join(line for line in lines if line.startswith(("flags", "Features", "model name", "vendor_id")))


def _hash_sources(folder: Path) -> str:
  digest = hashlib.sha256()
  for path in sorted(folder.rglob("*.py")):
    digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
  return digest.hexdigest()


def _read_config() -> tuple[tuple[str, Any], ...]:
  # By attribute, where there is one: some are set for a block and a thread only.
  values = jax.config.values.items()
  is_irrelevant = lambda name: any(word in name for word in ("cache", "dump", "log", "platform", "profiler"))
  return tuple((name, getattr(jax.config, name, value)) for name, value in values if not is_irrelevant(name))


def _to_array(leaf: Any) -> Any:
  if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
    return leaf
  array = np.asarray(leaf)
  return np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))


def _is_plain(leaf: Any, first: set) -> bool:
  if not isinstance(leaf, jax.Array):
    return True
  if isinstance(leaf, Tracer) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
    return False
  return _is_spread(leaf) or leaf.devices() == first


def _is_spread(leaf: Any) -> bool:
  return isinstance(getattr(leaf, "sharding", None), NamedSharding)


def _describe_sharding(leaf: Any) -> str:
  return f"{leaf.sharding.spec} {leaf.sharding.mesh.shape}" if _is_spread(leaf) else ""


def _to_struct(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = leaf.sharding if _is_spread(leaf) else None
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

