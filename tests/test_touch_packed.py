"""The layout that the viewer of the paper's authors reads."""

import json

import numpy as np
import pytest
from PIL import Image
from touching import make_photo, make_volume

import gid_jax as gid
from gid_jax.app import cli
from gid_jax.bundle import Bundle, save_bundle
from gid_jax.errors import UserError
from gid_jax.types import SpectralVolume


def read_packed(folder):
  """Coefficients [16 288 512 4] (Re x, Re y, Im x, Im y), y upwards: whole numbers taken apart as its shader does."""
  words = np.fromfile(folder / "flow_xy_data", "<u4").reshape(288, 512, 16)
  scales = np.array(json.loads((folder / "tables.json").read_text())["all_scales"])
  channels = [((words >> shift) & 0xFF) / 128.0 - 1.0 for shift in (0, 8, 16, 24)]
  return np.stack(channels, -1).transpose(2, 0, 1, 3) * scales[:, None, None, None], scales


def test_modes_come_back_from_their_bytes(tmp_path):
  """On a coarse grid of 16:9 every number is known: it is the same all over, in pixels four times as fine."""
  rng = np.random.default_rng(0)
  numbers = rng.normal(size=(5, 4)).astype(np.float32)
  volume = SpectralVolume(np.broadcast_to(numbers[:, None, None], (5, 72, 128, 4)).copy(), 150, 30.0)
  gid.export_packed(make_photo(90, 160), volume, tmp_path / "plant")
  found, scales = read_packed(tmp_path / "plant")
  expected = 4 * numbers * [1, -1, 1, -1]
  assert (tmp_path / "plant" / "flow_xy_data").stat().st_size == 4 * 16 * 288 * 512
  for band in range(1, 5):
    assert np.abs(found[band] - expected[band]).max() <= 0.51 * scales[band] / 128
    assert scales[band] == pytest.approx(np.abs(expected[band]).max() * 128 / 127)
  assert not found[0].any() and not found[5:].any()
  tables = json.loads((tmp_path / "plant" / "tables.json").read_text())
  assert tables["all_omega_scales"] * 30 / 76 == pytest.approx(2 * np.pi / 5)  # of band 1: once in five seconds
  assert Image.open(tmp_path / "plant" / "image.png").size == (512, 288)


def test_where_a_photo_moves_is_where_its_bytes_move(tmp_path):
  volume = make_volume()
  gid.export_packed(make_photo(), volume, tmp_path)
  found, _ = read_packed(tmp_path)
  size = np.linalg.norm(found[1:8, ::18, ::16], axis=(0, -1))
  y, x = np.unravel_index(size.argmax(), size.shape)
  assert abs(18 * y / 288 - 0.5) < 0.2 and abs(16 * x / 512 - 0.5) < 0.2 and size[0, 0] < 0.05 * size.max()
  with pytest.raises(UserError, match="flow_xy_data already exists; choose another folder"):
    gid.export_packed(make_photo(), volume, tmp_path)
  (tmp_path / "flow_xy_data").unlink()
  with pytest.raises(UserError, match=r"image\.png already exists"):
    gid.export_packed(make_photo(), volume, tmp_path)
  assert not (tmp_path / "flow_xy_data").exists()


def test_the_command_packs_a_gid_file(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  save_bundle("a.gid", Bundle(np.uint8(255 * make_photo(90, 160)), make_volume(), 0, {}))
  assert cli.main(["export", "a.gid", "--packed", "--output", "plant"]) == 0
  assert capsys.readouterr().out == "Wrote plant: image.png, flow_xy_data, tables.json\n"
  assert sorted(path.name for path in (tmp_path / "plant").iterdir()) == ["flow_xy_data", "image.png", "tables.json"]
  for wrong in (["a.gid"], ["--packed"], ["a.gid", "--packed", "--motion", "run"],
                ["a.gid", "--packed", "--plate", "run"]):  # fmt: skip
    assert cli.main(["export", *wrong, "--output", "other"]) == 2
    assert "a .gid file and --packed go together" in capsys.readouterr().err
  assert not (tmp_path / "other").exists()
