"""Compiled programs from one process to the next: the same bits, and nothing of anybody else's."""

import os
import pickle
import stat
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import monitoring  # the listeners cannot be taken off in public

from gid_jax import programs
from gid_jax.programs import keep
from gid_jax.types import SpectralVolume

X = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
  """An empty folder of programs."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("GID_CACHE")
  return tmp_path / "gid-jax" / "programs"


@pytest.fixture
def compiled():
  """Names of what is compiled during the test."""
  names = []

  def listen(event: str, seconds: float, **facts: str | int | float) -> None:
    if event.endswith("compile_duration"):
      names.append(facts["fun_name"])

  monitoring.register_event_duration_secs_listener(listen)
  yield names
  monitoring.unregister_event_duration_listener(listen)


def wave(x, volume, *, factor):
  return {"volume": volume.replace(coefficients=jnp.sin(volume.coefficients) * factor), "sum": (x @ x.T, None)}


VOLUME = SpectralVolume(np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32), num_frames=20)


def begin():
  """What a new process has: the function, and nothing of it in memory."""
  return keep(others=("factor",))(wave)


def wait():
  """Until all files are written."""
  programs._pool().shutdown(wait=True)
  programs._pool.cache_clear()


def same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_later_process_gets_the_same_bits_without_compiling(folder, compiled, monkeypatch):
  first = begin()(X, VOLUME, factor=3.0)
  wait()
  assert len(list(folder.iterdir())) == 1 and len([name for name in compiled if "wave" in name]) == 1
  compiled.clear()
  same(begin()(X, VOLUME, factor=3.0), first)
  assert not [name for name in compiled if "wave" in name]
  monkeypatch.setenv("GID_CACHE", "off")
  same(begin()(X, VOLUME, factor=3.0), first)
  assert [name for name in compiled if "wave" in name] == ["jit(wave)"]
  same(jax.jit(wave, static_argnames="factor")(X, VOLUME, factor=3.0), first)
  assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_every_shape_type_setting_and_source_has_a_program_of_its_own(folder, monkeypatch):
  function = begin()
  function(X, VOLUME, factor=3.0)
  function(X, VOLUME, factor=2.0)
  function(X[1:], VOLUME, factor=3.0)
  function(X.astype(jnp.bfloat16), VOLUME, factor=3.0)
  function(X, SpectralVolume(VOLUME.coefficients, num_frames=21), factor=3.0)
  with jax.default_matmul_precision("highest"):
    function(X, VOLUME, factor=3.0)
  wait()
  assert len(list(folder.iterdir())) == 6
  for name, value in (("_hash_sources", "other"), ("_describe_processor", "other")):
    with monkeypatch.context() as patch:
      patch.setattr(programs, name, lambda *_, value=value: value)
      programs._describe_place.cache_clear()
      begin()(X, VOLUME, factor=3.0)
  programs._describe_place.cache_clear()
  wait()
  assert len(list(folder.iterdir())) == 8


def test_sources_are_hashed_by_name_and_content(tmp_path):
  found = set()
  for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("sub/b.py", "2")):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    found.add(programs._hash_sources(tmp_path))
  assert len(found) == 4


def damage(path, monkeypatch):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def cut(path, monkeypatch):
  path.write_bytes(path.read_bytes()[:50])


def open_to_others(path, monkeypatch):
  path.chmod(0o640)


def give_away(path, monkeypatch):
  monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)


def link(path, monkeypatch):
  path.rename(path.with_name("real"))
  path.symlink_to("real")


@pytest.mark.parametrize("spoil", [damage, cut, open_to_others, give_away, link])
def test_what_is_damaged_or_of_others_is_never_loaded(folder, monkeypatch, spoil):
  first = begin()(X, VOLUME, factor=3.0)
  wait()
  (path,) = folder.iterdir()
  with monkeypatch.context() as patch:
    spoil(path, patch)
    assert programs.read_file(path) is None
    patch.setattr(pickle, "loads", lambda *_: pytest.fail("it was loaded"))
    same(begin()(X, VOLUME, factor=3.0), first)
    wait()
  if spoil is not give_away:  # made anew
    assert not path.is_symlink() and programs.read_file(path) is not None


def test_a_program_that_cannot_be_loaded_is_made_anew(folder):
  first = begin()(X, VOLUME, factor=3.0)
  wait()
  (path,) = folder.iterdir()
  load = lambda: pickle.loads(programs.read_file(path) or b"")
  _, results = load()
  for content in (b"no pickle", pickle.dumps((b"no program", results))):
    programs.write_file(path, content)
    same(begin()(X, VOLUME, factor=3.0), first)
    wait()
    assert load()[0] != b"no program"


def test_a_folder_that_others_may_enter_is_not_used(folder):
  folder.mkdir(parents=True, mode=0o755)
  folder.chmod(0o755)
  assert programs.find_folder() is None
  begin()(X, VOLUME, factor=3.0)
  wait()
  assert list(folder.iterdir()) == []


def test_files_used_last_stay(folder, monkeypatch):
  assert programs.find_folder() == folder
  monkeypatch.setattr(programs, "MAX_BYTES", 3 * (100 + 32))
  for number in range(4):
    programs.write_file(folder / f"{number}.program", bytes(100))
    os.utime(folder / f"{number}.program", (number, number))
  assert sorted(path.name for path in folder.iterdir()) == ["1.program", "2.program", "3.program"]
  assert programs.read_file(folder / "1.program") == bytes(100)  # used
  programs.write_file(folder / "4.program", bytes(100))
  assert sorted(path.name for path in folder.iterdir()) == ["1.program", "3.program", "4.program"]


def test_parts_from_elsewhere_are_not_kept(folder):
  keep(others=("kind",))(lambda x, kind: x + 1)(X, "somebody:Network")
  wait()
  assert not folder.exists()


def test_prepared_programs_are_waited_for_and_made_once(compiled):
  function = begin()
  struct = jax.ShapeDtypeStruct(X.shape, X.dtype)
  results = []
  worker = threading.Thread(target=lambda: results.append(function.prepare(struct, VOLUME, factor=3.0)))
  worker.start()
  found = function(X, VOLUME, factor=3.0)
  worker.join()
  assert len([name for name in compiled if "wave" in name]) == 1
  expected = jax.tree.map(lambda array: (array.shape, array.dtype), found)
  assert jax.tree.map(lambda struct: (struct.shape, struct.dtype), results[0]) == expected


def test_within_transformations_it_is_jit():
  found = jax.vmap(lambda x: begin()(x, VOLUME, factor=3.0)["sum"][0])(X[None])
  np.testing.assert_allclose(found[0], X @ X.T, rtol=1e-5)


def test_errors_reach_the_caller_and_do_not_stay():
  def refuse(x):
    raise ValueError("no")

  function = keep()(refuse)
  for _ in range(2):
    with pytest.raises(ValueError, match="no"):
      function(X)
