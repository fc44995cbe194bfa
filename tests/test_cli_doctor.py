"""`gid doctor`: what it finds, and that each trouble comes with a command and the exit status 2."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gid_jax.app import cli, doctor
from gid_jax.errors import UserError
from gid_jax.media import encoders

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
  """A machine on which all is well."""
  folder = tmp_path / "programs"
  folder.mkdir()
  (folder / "program").write_bytes(bytes(2_000_000))
  monkeypatch.setattr(doctor, "configure_jax", lambda: None)
  monkeypatch.setattr(doctor, "_find_memory", lambda: (8 * 10**9, 16 * 10**9))
  monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 9 * 10**9}))
  before = jax.config.values["jax_compilation_cache_dir"]
  jax.config.update("jax_compilation_cache_dir", str(folder))
  yield folder
  jax.config.update("jax_compilation_cache_dir", before)


def examine(capsys):
  status = cli.main(["doctor"])
  return status, capsys.readouterr().out


def test_all_is_well(capsys, machine):
  status, out = examine(capsys)
  assert status == 0 and out.splitlines()[-1] == "All is well."
  for text in (
    f"jax {importlib.metadata.version('jax')}", "cpu, ", "JAX_PLATFORMS", f"{machine}: 1 compiled programs, 2.0 MB",
    ".mp4 (h264)", ".gif", "8.0 GB free of 16.0 GB", "intact", "s for gid animate",
  ):  # fmt: skip
    assert text in out


def assert_trouble(capsys, *texts):
  status, out = examine(capsys)
  assert status == 2 and out.splitlines()[-1] == "1 trouble found"
  assert out.count("TROUBLE") == out.count("mend it with: ") == 1
  for text in texts:
    assert text in out


def test_each_trouble_has_its_command(capsys, machine, monkeypatch):
  def run_with(target, value, *texts):
    with monkeypatch.context() as patch:
      patch.setattr(target, value)
      assert_trouble(capsys, *texts)

  def refuse(*arguments, **options):
    raise UserError("motion.safetensors: damaged, its checksum does not match; fetch it again")

  run_with("gid_jax.weights.pretrained.load_pretrained", refuse, "damaged", "pip install --force-reinstall gid-jax")
  run_with("gid_jax.app.doctor._find_memory", lambda: (10**9, 16 * 10**9), "close other programs", "--size 512")
  run_with("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**6}), "a video may not fit", "--output")
  has = encoders._has_encoder
  has_most = lambda name: name != "libx264" and has(name)
  run_with("gid_jax.media.encoders._has_encoder", has_most, "cannot write .mp4 (h264)", "pip install")
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  monkeypatch.delenv("GID_CACHE", raising=False)
  jax.config.update("jax_compilation_cache_dir", None)
  assert_trouble(capsys, "no folder for compiled programs", "export XDG_CACHE_HOME=")


def test_a_cache_that_was_switched_off_is_no_trouble(capsys, monkeypatch):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  monkeypatch.setenv("GID_CACHE", "off")
  jax.config.update("jax_compilation_cache_dir", None)
  status, out = examine(capsys)
  assert status == 0 and "GID_CACHE is off" in out and "unset GID_CACHE" in out


def test_flags_that_xla_does_not_know_are_to_be_unset(capsys, monkeypatch):
  def refuse():
    raise UserError("XLA_FLAGS holds --xla_typo=1, which XLA does not know here; correct or unset it")

  monkeypatch.setattr(doctor, "configure_jax", refuse)
  assert_trouble(capsys, "--xla_typo=1", "mend it with: unset XLA_FLAGS")


def test_what_is_only_missing_is_advice(capsys, monkeypatch):
  has = encoders._has_encoder
  monkeypatch.setattr(encoders, "_has_encoder", lambda name: "av1" not in name and has(name))
  status, out = examine(capsys)
  assert status == 0 and "cannot write .mp4 (av1), .webm (av1), .avif (av1)" in out and "pip install" in out


def test_an_accelerator_that_is_not_there():
  environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "JAX_PLATFORMS": "cuda"}
  command = [sys.executable, "-m", "gid_jax", "doctor"]
  result = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert result.returncode == 2 and "Traceback" not in result.stderr
  assert "TROUBLE: JAX cannot use cuda here" in result.stdout and "mend it with: unset JAX_PLATFORMS" in result.stdout
