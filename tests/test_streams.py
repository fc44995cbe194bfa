"""Standard output and standard error that are closed, full or read by nobody."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gid_jax.app import streams

CHECKOUT = Path(__file__).parents[1]
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")


def open_full(kind):
  return kind(open("/dev/full", "wb"), "utf-8", write_through=True)


@needs_full
@pytest.mark.parametrize("text", ["a line\n", "a long text " * 5000])
def test_standard_output_says_that_it_is_what_failed(text):
  stream = open_full(streams.Output)
  with pytest.raises(streams.OutputError, match="cannot write to standard output: no space"):
    stream.write(text)
    stream.flush()
  stream.buffer.raw.close()


def test_standard_output_that_nobody_reads_is_no_failure_to_be_told():
  reader, writer = os.pipe()
  os.close(reader)
  raw = io.FileIO(writer, "w")
  stream = streams.Output(io.BufferedWriter(raw), "utf-8")
  stream.write("a line")
  with pytest.raises(BrokenPipeError):
    stream.flush()
  raw.close()


@needs_full
def test_what_cannot_be_said_on_standard_error_stops_nothing():
  stream = open_full(streams.Complaints)
  assert stream.write("a warning\n") == 10 and stream.write("more " * 5000) == 25000
  stream.flush()
  stream.buffer.raw.close()


def run(*arguments, to):
  """Has a shell put standard output as `to` says."""
  return subprocess.run(
    ["sh", "-c", f'exec "$@" >{to}', "sh", sys.executable, "-m", "gid_jax", *arguments],
    env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stderr=subprocess.PIPE, text=True)


@needs_full
@pytest.mark.parametrize("arguments", [("--help",), ("--tyro-print-completion", "bash"), ("doctor",)])
def test_a_full_disk_under_what_is_printed_is_named(arguments):
  done = run(*arguments, to="/dev/full")
  assert (done.returncode, done.stderr) == (2, "gid: error: cannot write to standard output: no space left on device\n")


@pytest.mark.parametrize("arguments, status", [(("animate", "--help"), 0), (("animate", "--nonsense"), 2)])
def test_a_closed_standard_output_loses_what_is_printed(arguments, status):
  done = run(*arguments, to="&-")
  assert done.returncode == status and ("Unrecognized options" in done.stderr) == (status == 2)
  assert "error: " not in done.stderr


def test_no_video_goes_to_a_closed_standard_output(tmp_path):
  (tmp_path / "photo.png").write_bytes(b"not looked at")
  done = run("animate", str(tmp_path / "photo.png"), "-o", "-", to="&-")
  assert done.returncode == 2 and done.stderr.startswith("gid: error: --output - writes a video to standard output, wh")
