"""Names that one program claims, folders that one locks, and what killed ones leave behind."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_files import list_folder, write

from gid_jax import files
from gid_jax.errors import UserError
from gid_jax.files import claim, lock_folder, shorten

CHECKOUT = Path(__file__).parents[1]


def test_a_taken_name_gets_a_number(tmp_path):
  path = tmp_path / "a.mp4"
  for name in ("a.mp4", "a_2.mp4", "a_3.mp4"):
    with claim(path, numbered=True) as claimed:
      assert claimed == tmp_path / name
      write(claimed, name)
  (tmp_path / "a_4.mp4").symlink_to(tmp_path / "missing")  # not free either
  with claim(path, numbered=True) as claimed:
    assert claimed.name == "a_5.mp4"
  assert list_folder(tmp_path) == ["a.mp4", "a_2.mp4", "a_3.mp4", "a_4.mp4"]


def test_who_comes_second_gets_another_name_or_is_told_at_once(tmp_path):
  path = tmp_path / "a.mp4"
  with claim(path, numbered=False) as first:
    with claim(path, numbered=True) as second:
      assert (first.name, second.name) == ("a.mp4", "a_2.mp4")
      write(second, "2")
    with pytest.raises(UserError, match=r"a\.mp4 is being written by another gid; use --output"), \
        claim(path, numbered=False):  # fmt: skip
      pass
    write(first, "1")
  with pytest.raises(UserError, match="already exists"), claim(path, numbered=False):
    pass
  assert list_folder(tmp_path) == ["a.mp4", "a_2.mp4"]


CLAIMING = """
import sys, pathlib
from gid_jax.files import claim
with claim(pathlib.Path(sys.argv[1]), numbered=True) as path:
  print(path.name, flush=True)
  sys.stdin.read()
"""


def test_a_killed_process_claims_nothing(tmp_path):
  command = [sys.executable, "-c", CLAIMING, str(tmp_path / "a.mp4")]
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, **pipes) as other:
    assert other.stdout.readline() == "a.mp4\n"
    with claim(tmp_path / "a.mp4", numbered=True) as claimed:
      assert claimed.name == "a_2.mp4"
    other.kill()
  with claim(tmp_path / "a.mp4", numbered=True) as claimed:
    assert claimed.name == "a.mp4"
  assert list_folder(tmp_path) == []


def test_many_at_once_get_names_of_their_own(tmp_path):
  found, begin = [], threading.Barrier(8)

  def run():
    begin.wait(timeout=30)
    with claim(tmp_path / "a.txt", numbered=True) as path:
      found.append(path.name)
      write(path, "x")

  threads = [threading.Thread(target=run) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(set(found)) == 8 and list_folder(tmp_path) == sorted(found)


@pytest.mark.parametrize("way", ["no locks", "no module", "read-only"])
def test_file_systems_without_locks_let_everybody_in(tmp_path, monkeypatch, way):
  def refuse(*arguments):
    raise OSError(95, "Operation not supported")

  if way == "no module":
    monkeypatch.setattr(files, "fcntl", None)
  else:
    monkeypatch.setattr(*((files.fcntl, "flock") if way == "no locks" else (os, "open")), refuse)
  with claim(tmp_path / "a.txt", numbered=False) as first, claim(tmp_path / "a.txt", numbered=False) as second:
    assert first == second == tmp_path / "a.txt"
  assert list_folder(tmp_path) == []


def test_names_are_cut_to_what_a_file_system_takes(tmp_path):
  assert shorten("beach", ending="_animated.mp4") == "beach_animated.mp4"
  for letter in "a\u00e9\U0001f33b":
    name = shorten(letter * 300, ending=".mp4")
    assert name.startswith(letter * 50) and name.endswith(".mp4")
    with claim(tmp_path / name, numbered=True) as path:
      write(path, "x")
    with claim(tmp_path / name, numbered=True) as path:
      write(path, "x")
  assert len(list_folder(tmp_path)) == 6
  with pytest.raises(UserError, match="file name too long"), claim(tmp_path / ("a" * 300), numbered=False):
    pass


def test_a_folder_is_locked_for_one_program_and_free_again_when_that_is_killed(tmp_path):
  folder = tmp_path / "runs"
  with lock_folder(folder, work="training", option="--workdir") as is_locked:
    assert is_locked
    match = r"another training is writing into .*runs; wait for it, or give another --workdir"
    with pytest.raises(UserError, match=match), lock_folder(folder, work="training", option="--workdir"):
      pass
  code = (
    "import os, pathlib; from gid_jax.files import lock_folder\n"
    f"with lock_folder(pathlib.Path({str(folder)!r}), work='training', option='--workdir'): os.kill(os.getpid(), 9)"
  )
  assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == -9
  with lock_folder(folder, work="training", option="--workdir") as is_locked:
    assert is_locked
  (tmp_path / "file").touch()
  match = r"--output .*file: cannot write there"
  with pytest.raises(UserError, match=match), lock_folder(tmp_path / "file", work="build", option="--output"):
    pass


KILLED = """
import os, pathlib, sys
from gid_jax.files import claim, complete_or_nothing, make_temporary
with claim(pathlib.Path("a.txt"), numbered=True) as path, complete_or_nothing(path, overwrite=False) as temporary:
  with make_temporary(pathlib.Path(), is_folder=True) as folder:
    (folder / "1.png").write_text("half")
    temporary.write_text("half")
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(files.fcntl is None, reason="files cannot be locked")
def test_what_a_killed_process_has_left_goes_with_the_next_file_and_what_is_being_written_stays(tmp_path):
  start = lambda: subprocess.Popen(
    [sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  killed = start()
  assert killed.stdout.readline() == b"here\n"
  killed.kill()
  killed.communicate()
  left = list_folder(tmp_path)
  (lock,) = tmp_path.glob("*.claim")
  assert len(left) == 3
  os.utime(lock, (1, 1))
  living = start()  # with the same name, which is free again
  assert living.stdout.readline() == b"here\n"
  kept = list_folder(tmp_path)
  assert len(kept) == 3 and set(kept) & set(left) == {lock.name}
  write(tmp_path / "b.txt", "other")
  assert list_folder(tmp_path) == sorted([*kept, "b.txt"])
  living.communicate()
  assert living.returncode == 0 and list_folder(tmp_path) == ["a.txt", "b.txt"]


@pytest.mark.skipif(files.fcntl is None, reason="files cannot be locked")
def test_an_old_claim_that_nobody_holds_goes_and_a_new_one_stays(tmp_path):
  for name in ("0" * 16, "1" * 16):
    (tmp_path / f".gid-{name}.claim").touch()
  os.utime(tmp_path / f".gid-{'0' * 16}.claim", (1, 1))
  write(tmp_path / "a.txt", "new")
  assert list_folder(tmp_path) == [f".gid-{'1' * 16}.claim", "a.txt"]


@pytest.mark.skipif(files.fcntl is None, reason="files cannot be locked")
def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(files.fcntl, "flock", refuse)
  (tmp_path / f".gid-{'0' * 16}.mp4").touch()
  write(tmp_path / "a.txt", "new")
  assert list_folder(tmp_path) == [f".gid-{'0' * 16}.mp4", "a.txt"]
