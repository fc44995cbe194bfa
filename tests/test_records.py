"""Reading the stored data: the windows written, folders together, and damage of every kind named."""

import shutil

import numpy as np
import pytest
from stored_windows import NUM_BANDS, SOURCES, make_config, numbers_of, read_all, write_sources

from gid_jax.configuration import STAGES
from gid_jax.data import input_pipeline as ip
from gid_jax.data import records
from gid_jax.data.examples import make_example
from gid_jax.data.storage import DATASET_VERSION
from gid_jax.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  return directory, write_sources(directory, SOURCES)


@pytest.fixture
def data(written):
  return written[0]


@pytest.fixture
def copy(data, tmp_path):
  """A data set to damage, and its folder of filmed windows."""
  shutil.copytree(data, tmp_path / "copy")
  return tmp_path / "copy", tmp_path / "copy" / "gid_windows" / "real" / DATASET_VERSION


def test_records_are_the_windows_written(written):
  directory, windows = written
  read = read_all(directory, "train")
  assert [window.source for window in read] == ["loop"] * 3 + ["real"] * 6 + ["synthetic"] * 5
  assert {window.scene for window in read} == {windows[number].scene for number in range(14)}
  for window in read:
    stored = windows[int(window.scene[6:])]
    for name in ("image", "frames", "flows", "depth"):
      np.testing.assert_array_equal(getattr(window, name), getattr(stored, name))
    np.testing.assert_allclose(window.spectrum, stored.spectrum, rtol=1e-5)


def test_several_folders_are_read_as_one(data, tmp_path):
  write_sources(tmp_path, {"loop": 2, "other": 1}, first=50)
  sizes = {name: len(source) for name, source in records.open_records(f"{data},{tmp_path}", "train").items()}
  assert sizes == {"loop": 5, "other": 1, "real": 6, "synthetic": 5}
  config = make_config(f"{data},{tmp_path}", sources={"loop": 1.0})
  iterator = ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=5)
  assert set(numbers_of(next(iterator))) == {6, 7, 8, 50, 51}
  np.testing.assert_array_equal(records.read_scale(f"{data},{tmp_path}", num_bands=1), [3])


def test_scale_is_read_and_checked(tmp_path, data):
  np.testing.assert_array_equal(records.read_scale(data, num_bands=2), np.float32([3, 2]))
  with pytest.raises(UserError, match="4 bands"):
    records.read_scale(data, num_bands=5)
  with pytest.raises(UserError, match=r"statistics.*python -m data_pipeline\.builder"):
    records.read_scale(tmp_path, num_bands=2)


def open_first(directory):
  return next(ip.make_train_iterator(make_config(directory), stage="ldm_coordinated", seed=0, batch_size=14))


def test_a_folder_without_a_data_set_names_the_command(tmp_path):
  for folder in (tmp_path, tmp_path / "nowhere"):
    with pytest.raises(UserError, match=rf"No data set in {folder}.*data_pipeline\.builder"):
      open_first(folder)
  write_sources(tmp_path, {"real": 1})
  with pytest.raises(UserError, match="no test windows"):
    records.open_records(tmp_path, "test")


def test_another_format_is_told(copy):
  directory, real = copy
  real.rename(real.with_name("0.9.0"))
  with pytest.raises(UserError, match=r"format 0\.9\.0, but this release reads 1\.0\.0.*data_pipeline\.builder"):
    open_first(directory)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("change", ["missing", "damaged"])
def test_a_damaged_description_is_told(copy, name, change):
  directory, real = copy
  (real / name).unlink() if change == "missing" else (real / name).write_text("{")
  with pytest.raises(UserError, match=rf"{real}.* not .*readable.*build it again"):
    open_first(directory)


def flip_byte(content):
  middle = len(content) // 2
  return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flip_byte, lambda content: content[: len(content) // 2], None])
def test_an_unreadable_record_names_its_place(copy, damage):
  directory, real = copy
  (file,) = real.glob("*train.array_record*")
  if damage is None:
    file.unlink()
  else:
    file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(UserError, match=rf"{real}: record \d is not readable.*data_pipeline\.builder") as caught:
    open_first(directory)
  assert "\n" not in str(caught.value)


def test_a_record_that_is_no_window_is_told(data):
  bad = {"image": b"", "frames": [b""], "spectrum": [b"."] * NUM_BANDS, "scene": b"s", "source": b"real"}
  (record,) = records.RecordSource("folder", [bad])
  for stage in STAGES:
    with pytest.raises(UserError, match="folder: record 0 is not readable"):
      make_example(np.random.default_rng(0), record, config=make_config(data), stage=stage, ranges=None, strengths=None)


def test_the_renderer_needs_later_frames(data):
  (record,) = records.RecordSource("folder", [{"frames": []}])
  with pytest.raises(UserError, match="folder: record 0 has no later frames"):
    settings = dict(config=make_config(data), stage="renderer", ranges=None, strengths=None)
    make_example(np.random.default_rng(0), record, **settings)
