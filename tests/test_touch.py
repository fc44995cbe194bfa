"""The file in which a photo answers to touch."""

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from touching import (
  HEIGHT,
  WIDTH,
  assert_near,
  make_photo,
  make_volume,
  modes_to_channels,
  read_data,
  run_engine,
  to_array,
  with_node,
)

import gid_jax as gid
from gid_jax.app import cli
from gid_jax.errors import UserError
from gid_jax.motion import modal
from gid_jax.motion.plate import make_plate


def test_the_file_holds_photo_and_modes_and_asks_for_nothing(tmp_path):
  path, volume, photo = tmp_path / "a.html", make_volume(), make_photo()
  gid.export_html(photo, volume, path, title='</title><script>alert("x")</script> {{data}} & more')
  text = path.read_text()
  assert not re.search(r"(https?:)?//[\w.-]+\.\w", re.sub(r'"[A-Za-z0-9+/=]{200,}"', "", text))
  assert not re.search(r"<(link|img|iframe)\b|\bfetch\(|XMLHttpRequest|\bimport\b.*\bfrom\b|@import|url\(", text)
  assert "<title>&lt;/title&gt;&lt;script&gt;alert(&quot;x&quot;)" in text and "{{data}} &amp; more" in text
  assert "alert(" not in text.replace("&lt;script&gt;alert(", "")
  data, basis = read_data(path), modal.spectrum_to_basis(volume)
  modes, scales = modes_to_channels(basis.modes), np.float32(data["scales"])
  found = to_array(data["modes"], "<i2").reshape(modes.shape) * scales[:, None, None, None]
  assert (data["height"], data["width"]) == (HEIGHT, WIDTH)
  assert np.all(np.abs(found - modes) <= 0.51 * scales[:, None, None, None])
  assert np.all(scales < 1e-4 * np.abs(modes).max((1, 2, 3)))
  np.testing.assert_allclose(data["omega"], basis.omega, rtol=1e-6)
  depth = to_array(data["depth"], "<u2").reshape(HEIGHT, WIDTH) / 65535
  assert depth.max() == 1 and depth[0, 0] < 0.01 and depth[HEIGHT // 2, WIDTH // 2] > 0.5
  shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["photo"]))).convert("RGB")) / 255
  assert shown.shape == photo.shape and np.abs(shown - photo).mean() < 0.01


@with_node
def test_the_engine_reads_the_modes_as_they_were_written(tmp_path):
  path, volume = tmp_path / "a.html", make_volume()
  gid.export_html(make_photo(), volume, path)
  data, basis = read_data(path), modal.spectrum_to_basis(volume)
  values = to_array(data["modes"], "<i2").tolist()
  found = run_engine(
    basis, "return engine.decodeModes(Int16Array.from(given.values), given.scales);",
    values=values, scales=data["scales"])  # fmt: skip
  assert_near(found, modes_to_channels(basis.modes).ravel())


def test_a_large_noisy_photo_and_a_fine_grid_stay_below_six_megabytes(tmp_path):
  path = tmp_path / "large.html"
  gid.export_html(make_photo(1080, 1920, noise=0.2), make_volume(16, 150, 144, 256), path)
  assert path.stat().st_size <= 6e6
  data = read_data(path)
  assert 0.95e6 < (len(data["scales"]) * data["width"] * data["height"] * 4) <= 1e6
  assert data["width"] / data["height"] == pytest.approx(256 / 144, rel=0.02)
  photo = Image.open(io.BytesIO(base64.b64decode(data["photo"])))
  assert photo.size == (1920, 1080)


def test_a_photo_is_brought_to_the_size_asked_for(tmp_path):
  gid.export_html(make_photo(), make_volume(), tmp_path / "a.html", size=270)
  photo = Image.open(io.BytesIO(base64.b64decode(read_data(tmp_path / "a.html")["photo"])))
  assert photo.size == (270, 180)


def test_pages_that_cannot_be_written_are_refused(tmp_path):
  photo, volume, path = make_photo(), make_volume(), tmp_path / "a.html"
  with pytest.raises(UserError, match=r"unknown page format '\.htm'; use \.html"):
    gid.export_html(photo, volume, tmp_path / "a.htm")
  path.write_text("mine")
  with pytest.raises(UserError, match="already exists"):
    gid.export_html(photo, volume, path)
  with pytest.raises(UserError, match="take one of the batch"):
    gid.export_html(photo, volume.replace(coefficients=volume.coefficients[None]), path, overwrite=True)
  assert path.read_text() == "mine" and [file.name for file in tmp_path.iterdir()] == ["a.html"]
  gid.export_html(photo, volume, path, overwrite=True)
  assert path.read_text().startswith("<!doctype html>")


def test_the_plate_shows_what_is_behind_and_leaves_the_rest():
  height, width = 96, 144
  y, x = np.mgrid[:height, :width]
  plant = np.abs(x - 72) < 8
  image = np.where(plant[..., None], np.float32([0.1, 0.9, 0.1]), np.float32([0.6, 0.5, 0.4]))
  plate = make_plate(image, np.float32(plant)[::4, ::4] * 3)
  np.testing.assert_allclose(plate, np.broadcast_to(np.float32([0.6, 0.5, 0.4]), plate.shape), atol=0.02)
  # What moves more and more without an edge hides nothing.
  np.testing.assert_allclose(make_plate(image, np.float32(1 + y / height)), image, atol=1e-6)
  np.testing.assert_allclose(make_plate(image, np.zeros((24, 36), np.float32)), image, atol=1e-6)


class FakeAnimator:
  """Predicts one motion at once."""

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, **_):
    return make_volume()


def test_the_command_writes_a_page_of_a_photo_and_refuses_a_video(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("gid_jax.pipeline.Animator", FakeAnimator)
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.chdir(tmp_path)
  Image.fromarray(np.uint8(255 * make_photo(90, 120))).save("garden.png")
  assert cli.main(["animate", "garden.png", "--output", "a.html", "--magnify", "3", "--wind", "calm"]) == 0
  assert "Wrote a.html: " in capsys.readouterr().out
  assert "<title>garden</title>" in Path("a.html").read_text()
  gid.export_html(make_photo(), make_volume(), "c.html", title=os.fsdecode(b"caf\xe9"))
  assert "<title>caf?</title>" in Path("c.html").read_text()
  largest = np.abs(modes_to_channels(modal.spectrum_to_basis(make_volume()).modes)).max((1, 2, 3))
  np.testing.assert_allclose(read_data(Path("a.html"))["scales"], 1.5 * largest / 32767, rtol=1e-5)
  gid.write_video("film.mp4", (np.full((32, 48, 3), 20 * i, np.uint8) for i in range(10)), fps=10)
  assert cli.main(["animate", "film.mp4", "--output", "b.html"]) == 2
  assert "b.html: a page answers to touch with a photo, and film.mp4 is a video" in capsys.readouterr().err
  assert not Path("b.html").exists()
