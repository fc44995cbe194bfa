"""Metric writer: lines and pictures read back, and a resumed run leaves no step twice."""

import builtins
import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.errors import UserError
from gid_jax.training.metric_writer import MetricWriter


def read_lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_come_back(tmp_path):
  writer = MetricWriter(tmp_path / "run")
  writer.write_scalars(1, {"loss": jnp.float32(0.5), "rate": 1e-4})
  writer.write_scalars(np.int64(2), {"loss": np.float64("nan")})
  writer.flush()
  first, second = read_lines(tmp_path / "run")
  assert first == {"step": 1, "loss": 0.5, "rate": 1e-4}
  assert second["step"] == 2 and np.isnan(second["loss"])
  writer.close()


def test_resumed_run_has_every_step_once(tmp_path):
  writer = MetricWriter(tmp_path)
  for step in range(1, 8):
    writer.write_scalars(step, {"loss": float(step)})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "lo')  # killed in the middle of a line
  writer = MetricWriter(tmp_path)
  writer.truncate_after(4)
  for step in range(5, 10):
    writer.write_scalars(step, {"loss": -float(step)})
  writer.close()
  lines = read_lines(tmp_path)
  assert [line["step"] for line in lines] == list(range(1, 10))
  assert [line["loss"] for line in lines] == [1, 2, 3, 4, -5, -6, -7, -8, -9]


def test_truncation_of_a_fresh_or_an_open_file(tmp_path):
  writer = MetricWriter(tmp_path)
  writer.truncate_after(0)
  writer.write_scalars(3, {"loss": 1.0})
  writer.truncate_after(2)
  writer.write_scalars(4, {"loss": 2.0})
  writer.close()
  assert read_lines(tmp_path) == [{"step": 4, "loss": 2.0}]


def test_images_come_back_side_by_side(tmp_path):
  rng = np.random.default_rng(0)
  colour, gray = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8), rng.uniform(-0.5, 1.5, (3, 4, 6, 1))
  writer = MetricWriter(tmp_path)
  writer.write_images(12, {"eval/photo": colour, "heat": jnp.asarray(gray)})
  writer.close()
  assert sorted(file.name for file in (tmp_path / "images").iterdir()) == [
    "eval-photo-00000012.png",
    "heat-00000012.png",
  ]
  read = cv2.imread(str(tmp_path / "images" / "eval-photo-00000012.png"))[..., ::-1]
  np.testing.assert_array_equal(read, np.hstack(colour))
  read = cv2.imread(str(tmp_path / "images" / "heat-00000012.png"), cv2.IMREAD_GRAYSCALE)
  np.testing.assert_allclose(read, np.clip(np.hstack(gray)[..., 0], 0, 1) * 255, atol=0.51)


def test_tensorboard_without_tensorflow_is_a_user_error(tmp_path, monkeypatch):
  load = builtins.__import__

  def refuse(name, *args, **kwargs):
    if name.startswith(("clu", "tensorflow")):
      raise ImportError("No module named 'tensorflow'")
    return load(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", refuse)
  with pytest.raises(UserError, match="tensorboard"):
    MetricWriter(tmp_path, tensorboard=True)
