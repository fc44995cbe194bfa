"""Files appear complete or not at all, whatever ends the writing."""

import errno
import os
import stat
import threading

import pytest

from gid_jax.errors import UserError
from gid_jax.files import blame_machine, complete_or_nothing, describe_failure, first_line


def write(path, text, *, overwrite=False):
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    temporary.write_text(text)


def list_folder(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_has_ended(tmp_path):
  path = tmp_path / "a.txt"
  with complete_or_nothing(path, overwrite=False) as temporary:
    # In the same folder, so that moving is one step, and with the same suffix, which chooses formats.
    assert temporary.parent == tmp_path and temporary.suffix == ".txt" and temporary.exists()
    temporary.write_text("new")
    assert not path.exists()
  assert path.read_text() == "new" and list_folder(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "precious"])
def test_whatever_ends_the_block_leaves_what_was_there(tmp_path, error, before):
  path = tmp_path / "a.txt"
  if before is not None:
    path.write_text(before)
  with pytest.raises(error), complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_text("half")
    raise error
  assert list_folder(tmp_path) == ([] if before is None else ["a.txt"])
  assert before is None or path.read_text() == before


def test_failures_of_the_system_are_one_line(tmp_path):
  refused = pytest.raises(UserError, match=r"cannot write .*a\.txt: no space left on device$")
  with refused, complete_or_nothing(tmp_path / "a.txt", overwrite=False) as temporary:
    temporary.write_text("half")
    raise OSError(28, "ENOSPC")
  assert list_folder(tmp_path) == []


def test_a_temporary_file_that_the_block_removed_is_one_line(tmp_path):
  path = tmp_path / "a.txt"
  with pytest.raises(UserError, match="no such file"), complete_or_nothing(path, overwrite=False) as temporary:
    temporary.unlink()
  assert list_folder(tmp_path) == []


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("old")
  with pytest.raises(UserError, match="already exists"):
    write(path, "new")
  assert path.read_text() == "old"
  write(path, "new", overwrite=True)
  assert path.read_text() == "new" and list_folder(tmp_path) == ["a.txt"]


def test_no_place_for_a_file(tmp_path):
  (tmp_path / "folder").mkdir()
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"the folder .*missing does not exist"):
    write(tmp_path / "missing" / "a.txt", "new")
  with pytest.raises(UserError, match=r"the folder .*file does not exist"):
    write(tmp_path / "file" / "a.txt", "new")
  for overwrite in (False, True):
    with pytest.raises(UserError, match=r"folder is a folder; give a file name"):
      write(tmp_path / "folder", "new", overwrite=overwrite)
  assert list_folder(tmp_path) == ["file", "folder"] and list_folder(tmp_path / "folder") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_into(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(UserError, match="permission denied"):
    write(tmp_path / "a.txt", "new")


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640)])
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path, mask, mode):
  before = os.umask(mask)
  try:
    write(tmp_path / "a.txt", "new")
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_two_writers_at_once_do_not_mix(tmp_path):
  path, both = tmp_path / "a.txt", threading.Barrier(2)

  def write_slowly(letter):
    with complete_or_nothing(path, overwrite=True) as temporary, temporary.open("w") as file:
      for _ in range(20):
        both.wait(timeout=30)
        file.write(letter)
        file.flush()

  writers = [threading.Thread(target=write_slowly, args=letter) for letter in "ab"]
  for writer in writers:
    writer.start()
  for writer in writers:
    writer.join()
  assert path.read_text() in ("a" * 20, "b" * 20) and list_folder(tmp_path) == ["a.txt"]


def test_the_second_of_two_writers_replaces_nothing_unasked(tmp_path):
  path = tmp_path / "a.txt"
  with pytest.raises(UserError, match="already exists"), complete_or_nothing(path, overwrite=False) as temporary:
    temporary.write_text("second")
    write(path, "first")
  assert path.read_text() == "first" and list_folder(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_link_stays_and_its_target_is_written(tmp_path, before):
  (tmp_path / "disk").mkdir()
  link, target = tmp_path / "a.txt", tmp_path / "disk" / "b.txt"
  if before is not None:
    target.write_text(before)
  link.symlink_to(target)
  write(link, "new", overwrite=before is not None)
  assert link.is_symlink() and not target.is_symlink() and target.read_text() == "new"
  assert list_folder(tmp_path) == ["a.txt", "disk"] and list_folder(tmp_path / "disk") == ["b.txt"]
  with pytest.raises(UserError, match="already exists"):
    write(link, "newer")


def test_a_link_into_a_missing_folder_or_to_a_folder(tmp_path):
  (tmp_path / "a.txt").symlink_to(tmp_path / "missing" / "b.txt")
  with pytest.raises(UserError, match=r"the folder .*missing does not exist"):
    write(tmp_path / "a.txt", "new")
  (tmp_path / "folder").mkdir()
  (tmp_path / "b").symlink_to(tmp_path / "folder")
  with pytest.raises(UserError, match="is a folder"):
    write(tmp_path / "b", "new", overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, overwrite):
  os.mkfifo(tmp_path / "pipe.mp4")
  (tmp_path / "link.mp4").symlink_to("pipe.mp4")
  for name in ("pipe.mp4", "link.mp4"):
    with (
      pytest.raises(UserError, match=f"{name} is not a regular file"),
      complete_or_nothing(tmp_path / name, overwrite=overwrite),
    ):
      pytest.fail("nothing is to be made")
  assert (tmp_path / "pipe.mp4").is_fifo()
  assert sorted(os.listdir(tmp_path)) == ["link.mp4", "pipe.mp4"]


def test_causes_in_a_few_words():
  assert describe_failure(PermissionError(13, "Permission denied", "a.txt")) == "permission denied"
  assert describe_failure(OSError("The Disk\nis full")) == "the disk"
  assert describe_failure(OSError()) == "oserror"
  assert describe_failure(OSError(1094995529, "Invalid data found")) == "invalid data found"
  assert first_line(ValueError("one\ntwo")) == "one" and first_line(KeyError()) == "KeyError"
  assert first_line(ValueError("x" * 999)) == "x" * 300


def test_of_two_writers_of_one_file_one_wins(tmp_path, monkeypatch):
  # Both are past every check before either moves its file.
  barrier, results = threading.Barrier(2), {}
  monkeypatch.setattr(os, "link", meet(os.link, barrier))
  monkeypatch.setattr(os, "replace", meet(os.replace, barrier))

  def run(name):
    try:
      write(tmp_path / "a.txt", name)
      results[name] = "written"
    except UserError as error:
      results[name] = str(error)

  threads = [threading.Thread(target=run, args=(name,)) for name in "xy"]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  lost = f"{tmp_path / 'a.txt'} already exists; use --force or --output"
  assert sorted(results.values()) == sorted(["written", lost])
  assert results[(tmp_path / "a.txt").read_text()] == "written" and list_folder(tmp_path) == ["a.txt"]


def meet(function, barrier):
  def call(*arguments):
    barrier.wait(timeout=10)
    return function(*arguments)

  return call


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
  def refuse(*arguments):
    raise PermissionError(1, "Operation not permitted")

  monkeypatch.setattr(os, "link", refuse)
  write(tmp_path / "a.txt", "first")
  refused = pytest.raises(UserError, match="already exists")
  with refused, complete_or_nothing(tmp_path / "b.txt", overwrite=False) as part:
    part.write_text("second")
    (tmp_path / "b.txt").write_text("first")
  assert list_folder(tmp_path) == ["a.txt", "b.txt"]
  assert {(tmp_path / name).read_text() for name in ("a.txt", "b.txt")} == {"first"}


@pytest.mark.parametrize(
  "error, expected",
  [
    (MemoryError(), "out of memory; ask for less"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "out of memory; ask for less"),
    (OSError(errno.ENOMEM, "no"), "out of memory; ask for less"),
    (OSError(errno.ENOSPC, "no", "a/b"), "a/b: no space left on device"),
    (OSError(errno.EROFS, "no"), "read-only file system"),
    (OSError(errno.ENOENT, "no", "a/b"), None),  # perhaps ours
    (ValueError("no"), None),
  ],
)
def test_what_lies_with_the_machine_is_said_so(error, expected):
  said = blame_machine(error)
  assert said is None if expected is None else said.startswith(expected) and "\n" not in said
