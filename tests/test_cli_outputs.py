"""What `gid animate` writes, and where: names, formats, what does not go together, pipes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import cli_runs
import numpy as np
import pytest
from cli_runs import assert_refused, run
from motion_volumes import make_volume
from PIL import Image

from gid_jax.bundle import Bundle, save_bundle
from gid_jax.media import clips

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
  """A working folder with beach.png, and an engine that compiles nothing."""
  return cli_runs.install(monkeypatch, tmp_path)


# Names


def test_a_photo_alone_is_animated(engine):
  assert run("beach.png", "--frames", "2") == 0
  assert run("./beach.png", "-o", "x.webm", "--duration", "0.2", "--fps", "20") == 0
  assert sorted(os.listdir()) == ["beach.png", "beach_animated.mp4", "x.webm"]
  assert len(clips.read_clip("x.webm").frames) == 4


@pytest.mark.parametrize("word, hint", [("lop", "did you mean gid loop?"), ("dance", "the commands are animate, loop")])
def test_a_word_that_is_neither_command_nor_file(capsys, word, hint):
  assert_refused(capsys, word, match=f"{word} is neither a command nor a file; {hint}")
  Image.new("RGB", (32, 32)).save("dance", "PNG")
  assert run("dance", "--frames", "2") == 0 and Path("dance_animated.mp4").exists()


def test_a_folder_as_output_takes_the_default_name(engine):
  Path("videos").mkdir()
  for _ in range(2):
    assert run("beach.png", "--frames", "2", "-o", "videos", "--format", "webp") == 0
  assert sorted(os.listdir("videos")) == ["beach_animated.webp", "beach_animated_2.webp"]


def test_a_link_as_output_is_written_through(engine):
  Path("disk").mkdir()
  Path("x.mp4").symlink_to("disk/real.mp4")
  assert run("beach.png", "--frames", "2", "-o", "x.mp4") == 0
  assert Path("x.mp4").is_symlink() and len(clips.read_clip("disk/real.mp4").frames) == 2


def test_long_names(capsys):
  long = "b" * 240
  os.rename("beach.png", f"{long}.png")
  for number in ("", "_2"):
    assert run(f"{long}.png", "--frames", "2") == 0
    assert Path("b" * 234 + f"_animated{number}.mp4").exists()
  capsys.readouterr()
  assert_refused(capsys, f"{long}.png", "-o", "c" * 300 + ".mp4", match="file name too long; use another name")


def test_two_commands_at_once_lose_nothing(engine, monkeypatch, capsys):
  render = engine.render

  def render_twice(self, image, spectrum, **options):
    monkeypatch.setattr(engine, "render", render)
    assert run("beach.png", "--frames", "4") == 0  # a second command, before the first has ended
    assert run("beach.png", "--frames", "2", "-o", "beach_animated.mp4") == 2
    return render(self, image, spectrum, **options)

  monkeypatch.setattr(engine, "render", render_twice)
  assert run("beach.png", "--frames", "3") == 0
  assert "beach_animated.mp4 is being written by another gid" in capsys.readouterr().err
  assert sorted(os.listdir()) == ["beach.png", "beach_animated.mp4", "beach_animated_2.mp4"]
  assert len(clips.read_clip("beach_animated.mp4").frames) == 3


# Formats


@pytest.mark.parametrize("format", ["mp4", "webm", "mov", "gif", "webp", "avif", "apng"])
def test_each_format_by_ending_and_by_option(format):
  Image.open("beach.png").resize((96, 64)).save("beach.png")
  assert run("beach.png", "--frames", "3", "--fps", "25", "--format", format) == 0
  assert run("beach.png", "--frames", "3", "--fps", "25", "-o", f"x.{format}") == 0
  assert Path(f"beach_animated.{format}").read_bytes() == Path(f"x.{format}").read_bytes()
  if format == "webp":
    assert Image.open("x.webp").n_frames == 3
  else:
    with av.open(f"x.{format}") as container:
      assert len(list(container.decode(container.streams.video[-1]))) == 3


def test_pictures_by_format_and_by_pattern():
  assert run("beach.png", "--frames", "3", "--format", "frames") == 0
  assert run("beach.png", "--frames", "3", "-o", "new/%02d.png") == 0
  assert run("beach.png", "--frames", "3", "-o", "made", "--format", "frames") == 0
  for folder, name in (("beach_animated", "%04d.png"), ("new", "%02d.png"), ("made", "%04d.png")):
    assert sorted(os.listdir(folder)) == [name % number for number in (1, 2, 3)]
    np.testing.assert_array_equal(Image.open(Path(folder, name % 1)), Image.open("beach.png"))
  assert run("beach.png", "--frames", "3", "--format", "frames") == 0
  assert len(os.listdir("beach_animated_2")) == 3
  os.rename("beach.png", "10% off.png")
  assert run("10% off.png", "--frames", "3", "--format", "frames") == 0
  assert len(os.listdir("10% off_animated")) == 3


def test_a_name_that_commands_a_terminal_is_printed_as_text(capsys):
  os.rename("beach.png", "a\x1b[31m\nb\u202e.png")
  assert run("a\x1b[31m\nb\u202e.png", "--frames", "3") == 0
  assert run("no\x1b[31m.png") == 2
  said = capsys.readouterr()
  assert "Wrote a\\x1b[31m\\nb\\u202e_animated.mp4: " in said.out
  assert said.err == "gid: error: cannot read no\\x1b[31m.png: no such file\n"


def run_before(stdout, *arguments):
  """The command in a process of its own, with the engine of the tests, writing to a file or pipe."""
  script = "import fake_animator, pytest, sys\nfrom gid_jax.app import cli\n"
  script += "fake_animator.install(pytest.MonkeyPatch())\nsys.exit(cli.main(sys.argv[1:]))"
  return subprocess.run(
    [sys.executable, "-c", script, "animate", *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True,
    env=os.environ | {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}"})


@pytest.mark.parametrize("arguments, written", [
  (["beach.png", "-o", "a.mp4", "--json"], ["a.mp4"]),
  (["beach.png", "-o", "a.mp4"], []),
  (["beach.png", "beach2.png"], []),
  (["beach.png", "-o", "-"], []),
])  # fmt: skip
def test_who_stops_reading_what_is_printed_gets_no_more(arguments, written):
  Path("beach2.png").write_bytes(Path("beach.png").read_bytes())
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, "w") as gone:
    result = run_before(gone, *arguments, "--frames", "3")
  assert result.returncode == 141 and "error" not in result.stderr and "Wrote -" not in result.stderr
  assert sorted(os.listdir()) == [*written, "beach.png", "beach2.png"]


def test_closed_streams_are_named(capsys, monkeypatch):
  monkeypatch.setattr(sys, "stdin", None)
  assert_refused(capsys, "-", "-o", "a.mp4", match="standard input, which is closed")


def test_an_empty_argument_is_not_the_folder_one_is_in(capsys):
  assert_refused(capsys, "", match="an argument is empty")
  assert_refused(capsys, "beach.png", "-o", "", match="an argument is empty")


def test_a_name_without_an_ending_is_a_folder_as_with_several_inputs():
  assert run("beach.png", "--frames", "3", "-o", "videos") == 0
  assert run("beach.png", "--frames", "3", "-o", "videos/", "--format", "gif") == 0
  assert run("beach.png", "--frames", "3", "-o", "more/of them") == 0
  assert sorted(os.listdir("videos")) == ["beach_animated.gif", "beach_animated.mp4"]
  assert os.listdir("more/of them") == ["beach_animated.mp4"]


@pytest.mark.parametrize(
  "options, match",
  [
    (["-o", ".a"], ".a: unknown video format ''; use one of .mp4, .webm"),
    (["-o", "a.x"], "a.x: unknown video format '.x'; use one of .mp4, .webm"),
    (["-o", "beach.png/videos"], "cannot make the folder beach.png/videos"),
    (["-o", "a.mp4", "--format", "gif"], "--format gif and --output a.mp4: leave out one of them"),
    (["-o", "a_%d_%d.png"], "--output a_%d_%d.png: give one place for the number"),
    (["-o", "100%.png"], "--output 100%.png: give one place for the number"),
    (["-o", "beach.png/%d.png"], "folder beach.png does not exist"),
    (["--codec", "vp9"], "beach_animated.mp4: --codec vp9 is for .webm"),
    (["--format", "gif", "--codec", "av1"], "--codec av1 is for .mp4 and .webm and .avif"),
    (["--duration", "0"], "--duration is 0"),
    (["--duration", "1", "--frames", "3"], "--frames 3 and --duration 1: leave out one of them"),
    (["--xt", "a.jpg"], "a.jpg: unknown picture format '.jpg'; use .png"),
    (["--motion", "beach.png"], "beach.png is the input itself"),
    (["-o", "x.png", "--xt", "x.png"], "--xt x.png is the --output itself"),
    (["-o", "a.html", "--xt", "x.png"], "--xt is for videos"),
    (["-o", "a.html", "--speed", "0.5"], "--speed is for videos"),
    (["-o", "a.html", "--fps", "50"], "--fps is for videos"),
    (["-o", "a.html", "--duration", "2"], "--duration is for videos"),
    (["-o", "a%d.png", "--format", "gif"], "--format gif and --output a%d.png: leave out one of them"),
    (["-o", "a.mp4", "--format", "frames"], "--format frames and --output a.mp4: leave out one of them"),
    (["--xt", "a.png", "--motion", "a.png"], "--motion a.png is the --xt itself"),
    (["-o", "x.png", "--xt", "../{here}/x.png"], "is the --output itself"),
    (["-o", "%03d.png", "--xt", "012.png"], "--xt 012.png is the --output itself"),
    (["-o", "a.png", "--save", "./a.gid", "--motion", "./a.png"], "--motion a.png is the --output itself"),
    (["--mask", "map7.png", "--motion", "map7.png", "--force"], "map7.png is the picture of --mask itself"),
    (["--still", "map7.png", "-o", "map%d.png", "--force"], "--output map%d.png is the picture of --still itself"),
    (["-o", "-", "--format", "frames"], "pictures need a folder"),
    (["-o", "-", "--json"], "--json and --output -"),
    (["--watch", "."], "--watch .: leave out beach.png"),
  ],
)
def test_what_does_not_go_together(capsys, options, match):
  Image.new("L", (48, 32)).save("map7.png")
  options = [option.replace("{here}", Path.cwd().name) for option in options]
  if "--json" in options:
    assert run("beach.png", *options) == 2 and match in capsys.readouterr().err
  else:
    assert_refused(capsys, "beach.png", *options, match=match)


# Pipes


def test_a_photo_from_standard_input_goes_to_standard_output(monkeypatch, capfdbinary):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("beach.png").read_bytes())))
  before = sorted(os.listdir())
  assert run("-", "--frames", "3", "--format", "webm") == 0
  piped, said = capfdbinary.readouterr()
  assert run("beach.png", "--frames", "3", "-o", "x.webm") == 0
  assert piped == Path("x.webm").read_bytes()
  assert b"Wrote -: 48x32, 3 frames" in said
  assert sorted(os.listdir()) == [*before, "x.webm"]


@pytest.mark.parametrize("data, match", [(b"", "standard input is empty"), (b"text" * 99, "standard input is not an")])
def test_standard_input_that_is_no_photo(monkeypatch, capsys, data, match):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
  assert_refused(capsys, "-", "-o", "x.mp4", match=match)


def test_a_terminal_gets_no_video(monkeypatch, capsys):
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
  assert_refused(capsys, "beach.png", "-o", "-", match="standard output, which is a terminal; add: > video.mp4")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_standard_output_that_is_full_is_one_line():
  save_bundle("a.gid", Bundle(np.zeros((32, 48, 3), np.uint8), make_volume()))
  with open("/dev/full", "wb") as full:
    result = run_before(full, "a.gid", "--frames", "2", "-o", "-")
  last = result.stderr.splitlines()[-1]
  assert result.returncode == 2 and "Traceback" not in result.stderr and "Wrote" not in result.stderr
  assert last == "gid: error: cannot write to standard output: no space left on device"
