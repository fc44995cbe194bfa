"""Scripts in benchmarks/ run on tiny films, data and random weights, at sizes that say nothing of their claims."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import fake_animator
import jax
import ml_collections
import numpy as np
import pytest
import training_runs
from benchmark_world import (
  HEIGHT,
  MARKS,
  NUM_BANDS,
  NUM_FRAMES,
  WIDTH,
  find_numbers,
  make_config,
  make_runner,
  make_world,
)

import gid_jax as gid
from configs import ldm, ldm_coordinated, renderer
from gid_jax.evaluation.judging import SceneResult, save_result
from gid_jax.motion.spectral import evaluate_motion, evaluate_velocity
from gid_jax.rendering import ImageRenderer
from gid_jax.training.swing import make_eye
from gid_jax.types import SpectralVolume
from gid_jax.weights.pretrained import MOTION_WEIGHTS

pytestmark = MARKS


@pytest.fixture
def run(monkeypatch, capsys):
  return make_runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  return make_world(tmp_path_factory.mktemp("world"))


FAKE_COMMAND = """
import sys, fake_animator, pytest
from gid_jax.app import cli
fake_animator.install(pytest.MonkeyPatch())
sys.exit(cli.main(sys.argv[1:]))
"""


def test_animate(run, world, monkeypatch):
  call, started = subprocess.Popen, []
  again = "print('Loaded in 0.1 s\\n' + 2 * 'Wrote a video in 0.1 s\\n')"

  def start(command, *, env, **options):
    """Only the first command is run, and compiles nothing; the others are said to have been."""
    code, arguments = (again, []) if started else (FAKE_COMMAND, command[command.index("animate") :])
    started.append(command)
    env = env | {"PYTHONPATH": str(Path(__file__).parent)}
    return call([sys.executable, "-c", code, *arguments], env=env, **options)

  monkeypatch.setattr(subprocess, "Popen", start)
  out = run("animate", "--weights", world.weights, "--size", 64, "--frames", 3)
  taken = r"\d+\.\d s, processor \d+\.\d s, peak memory \d"
  assert re.search(rf"first run: {taken}.*\n  Loaded in .*\nsecond run: {taken}", out)
  assert re.search(rf"\npair: {taken}.*\n  each photo: median \d", out)
  assert "of the second run: sampling" in out
  first = next(line for line in out.splitlines() if line.startswith("first frame"))
  assert find_numbers(first)[0] > 5


def test_codec(run, world):
  out = run("codec", "--clips", world.clips, "--loops", world.loops, "--cache", world.cache, "--weights", world.learned)
  for source in ("real", "loop"):
    row = next(line for line in out.splitlines() if line.startswith(f"| {source}, 2 scenes"))
    zeros, _, averages = [find_numbers(cell)[0] for cell in row.split("|")[2:5]]
    assert 0 < averages < zeros


def test_endurance(run):
  engine = SimpleNamespace(read_image=gid.read_image, write_video=gid.write_video, Animator=fake_animator.FakeAnimator)
  out = run("endurance", "--number", 12, "--frames", 2, gid=engine)
  assert [line.split()[0] for line in out.splitlines()] == ["10", "12", "from"]
  assert abs(find_numbers(out.splitlines()[-1])[0]) < 50_000


def test_flow(run, world, monkeypatch):
  monkeypatch.setattr(sys.stdout, "reconfigure", lambda **options: None, raising=False)
  small = ("--scenes", 1, "--rounds", 1, "--size", 32, 48, "--pairs", 6)
  out = run("flow", "--clips", world.clips, *small, NAMES=("moss",), WALLS=())
  assert "6 pairs at 48x32" in out and re.search(r"^DIS .* 1\.00 ", out, re.M)
  ours, reference, peer, rest = find_numbers(next(line for line in out.splitlines() if line.startswith("moss")))
  assert max(ours, reference) < rest and peer < rest


def test_gallery(run, world, tmp_path):
  photos = sorted(world.photos.iterdir())[:2]
  out = run("gallery", "--photos", *photos, "--output", tmp_path, "--weights", world.weights, "--seeds", 1,
            "--frames", 6, "--size", 64, "--videos")  # fmt: skip
  assert len(out.splitlines()) == 3 and "of 2" in out
  assert cv2.imread(str(tmp_path / "sheet.png")).shape[0] == 2 * (160 + 2 * 4)
  assert (tmp_path / "0_0.mp4").exists() and (tmp_path / "1_0.mp4").exists()


def test_input(run, world, monkeypatch):
  for module in (ldm, ldm_coordinated, renderer):
    config = module.get_config("default")
    config.data.crop = (32, 48)
    monkeypatch.setattr(module, "get_config", lambda size, config=config: config)
  out = run("input", "--data", world.data, "--seconds", 0.02)
  assert [line.split()[0] for line in out.splitlines()[2:]] == ["ldm", "ldm_coordinated", "renderer"]
  assert out.count("x)") == 9


def test_latents(run, world, monkeypatch):
  monkeypatch.setattr(ldm, "get_config", lambda size, make=ldm.get_config: shrink(make(size)))
  out = run("latents", "--data", world.data, "--size", "tiny", "--start", world.learned / MOTION_WEIGHTS, "--steps", 1)
  assert "cache: 12 draws" in out and re.search(r"ratio \d+\.\d\d\n$", out)


def shrink(config):
  """What `make_config` would have given, with quick parts around the codec."""
  small = make_config(SimpleNamespace(get_config=lambda size: config), "tiny")
  small.data.num_bands = NUM_BANDS
  quick = {name: training_runs.QUICK_PARTS[name] for name in ("denoiser", "encoder")}
  return training_runs.replace_parts(small, quick)


def test_loops(run, world):
  out = run("loops", "--weights", world.weights, "--height", HEIGHT, "--width", WIDTH, "--steps", 2,
            "--photos", world.photos, "--number", 2)  # fmt: skip
  assert [line.split()[0] for line in out.splitlines() if re.match("cut|faded|free|unguided|guided ", line)] == [
    "cut", "faded", "free", "unguided", "guided"]  # fmt: skip
  ratios = find_numbers(next(line for line in out.splitlines() if line.startswith("guided/free")))
  assert len(ratios) == 7 and np.isfinite(ratios).all()


def test_the_seam_of_a_loop_is_compared_with_steps_that_are_played():
  measure = importlib.import_module("benchmarks.loops").measure
  coefficients = np.float32(np.random.default_rng(0).normal(size=(4, 6, 8, 4)))
  volume = SpectralVolume(coefficients, num_frames=30)
  for num_frames, fade in ((30, 0), (24, 0), (24, 5)):
    motion, velocity = (np.asarray(f(volume, np.arange(30)), float) for f in (evaluate_motion, evaluate_velocity))
    for k in range(fade):  # frame by frame towards what comes before frame 0, whose share grows
      share, inside, before = (k + 1) / (fade + 1), num_frames - fade + k, 30 - fade + k
      way = motion[before] - motion[inside]
      velocity[inside] += share * (velocity[before] - velocity[inside]) + way / (fade + 1)
      motion[inside] += share * way
    found = measure(volume, num_frames, fade=fade)
    for field, gap, ratio in ((motion, 1, 5), (velocity, 2, 6)):
      seam = np.sqrt(np.square(field[num_frames - 1] - field[0]).sum(-1).mean())
      steps = [np.square(field[t + 1] - field[t]).sum(-1).mean() for t in range(num_frames - 1)]
      np.testing.assert_allclose(found[[gap, ratio]], [seam, seam / np.sqrt(np.mean(steps))], rtol=1e-4)


def test_motion_model(run, world):
  out = run("motion_model", "--data", world.data, "--weights", world.weights, "--windows", 6)
  assert out.splitlines()[1].split()[0] == "all"
  loss, alone, gain, _ = find_numbers(out.splitlines()[1])
  assert gain == pytest.approx(loss - alone, abs=2e-4)


def test_held_out(run, world):
  out = run("held_out", "--data", world.data, "--weights", world.weights, "--seeds", 2)
  means = [line for line in out.splitlines() if line.startswith("log swing: ")]
  assert means and all(-1 <= find_numbers(line)[0] <= 1 for line in means)


def test_renderer(run, world):
  out = run("renderer", "--weights", world.weights, "--pairs", 2, "--size", 32, 48, "--data", world.data)
  assert out.startswith("loop: ") and "simulated: 2 pairs of 2 scenes" in out and out.count("renderer over") >= 4
  assert find_numbers(next(line for line in out.splitlines() if line.startswith("renderer ")))[0] > 0


def test_sampling(run, world):
  out = run("sampling", "--clips", world.clips, "--cache", world.cache, "--weights", world.weights, "--simulated", 1,
            "--settings", "2:0", "1:0")  # fmt: skip
  assert "real, 2 scenes" in out and re.search(r"\| 1:0 \| .*\([+-]\d", out)


def test_sharpness(run, world, tmp_path):
  out = run("sharpness", world.photos / "0.png", "--size", 64, "--frames", 3, "--weights", world.weights,
            "--plot", tmp_path / "sheet.png")  # fmt: skip
  assert [line.split()[0] for line in out.splitlines()] == ["photo", "0", "median"]
  assert cv2.imread(str(tmp_path / "sheet.png")).shape == (40 + 4, 2 * (3 * 40 + 4), 3)


def test_render(run, world):
  options = ["--sizes", "64x48", "--frames", 4, "--repetitions", 1, "--weights", world.weights]
  row = find_numbers(run("render", *options, "--no_peer").splitlines()[1])
  assert len(row) == 3 and row[2] > 0
  torch = pytest.importorskip("torch")
  spectrum = jax.random.normal(jax.random.key(0), (4, 24, 32, 4)) * 40
  volume = SpectralVolume(np.asarray(spectrum.at[0, ..., 2:].set(0)), num_frames=150)
  script = importlib.import_module("benchmarks.render")
  photo = np.random.default_rng(0).uniform(size=(48, 64, 3)).astype(np.float32)
  photo = cv2.GaussianBlur(photo, (0, 0), 3)
  with torch.no_grad():
    peer = list(script.peer_frames(photo, volume, frames=3))
  ours = list(ImageRenderer().render(photo, volume, frames=3))
  # The same method but for kernels and holes.
  assert np.abs(np.subtract(peer[2], ours[2], dtype=float))[8:-8, 8:-8].mean() < 6


def test_smoothness(run, world):
  out = run("smoothness", "--data", world.data, "--weights", world.weights, "--photos", 1)
  assert "windows of 8 scenes" in out and out.count("correlation") == 3


def test_solver(run, world):
  out = run("solver", "--weights", world.weights, "--photos", world.photos / "0.png", "--reference", 12,
            WAYS=[(12, "trailing", 2), (4, "logsnr", 2)])  # fmt: skip
  same, other = (find_numbers(line) for line in out.splitlines()[2:])
  assert same == [0, 1] and other[0] > 0


def test_swing(run, world):
  see = lambda model, _, *size: make_eye(model, "1", *size)  # the embedded weights do not have the frozen network
  out = run("swing", "--clips", world.clips, "--loops", world.loops, "--stills", world.photos, "--cache", world.cache,
            "--weights", world.weights, "--scenes", 2, NUM_DRAWS=1, NUM_FOLDS=3, make_eye=see)  # fmt: skip
  for row in ("gradient", "within each clip", "within, both sizes", "2 scenes, draw 1"):
    assert f"| {row} |" in out
  assert "unseen photos of nothing" in out


def test_synthetic_nature(run, world, tmp_path):
  rng = np.random.default_rng(0)
  np.savez(tmp_path / "nature.npz", flag=rng.normal(size=(16, 20, 32, 4)).astype(np.float16))
  out = run("synthetic_nature", "--clips", world.clips, "--cache", tmp_path / "nature.npz", "--scenes", 2,
            "--output", tmp_path / "nature.png")  # fmt: skip
  assert re.search(r"^flag +\d+%", out, re.M) and "shrub_windy       left out" in out
  assert "1 clips, 2 scenes" in out and cv2.imread(str(tmp_path / "nature.png")) is not None


def test_what_moves(run, world, tmp_path):
  fit, heads = importlib.import_module("benchmarks.what_moves")._fit_one, []

  def fit_once(*data, seed):  # one head, shown as all three
    heads[:] = heads if seed else [fit(*data, seed=seed, num_steps=2)]
    return heads[0]

  out = run("what_moves", "--clips", world.clips, "--loops", world.loops, "--scenes", 5, "--cache", tmp_path / "kept",
            SIZE={"height": HEIGHT, "width": WIDTH}, NUM_FRAMES=NUM_FRAMES, NUM_FOLDS=2, _fit_one=fit_once)  # fmt: skip
  rows = ("gradient filter", "simulated scenes, 5", "real + loops, and scenes, one head")
  assert all(re.search(rf"^{re.escape(row)} ", out, re.M) for row in rows)


def test_where(run, world):
  out = run("where", "--clips", world.clips, "--loops", world.loops, "--cache", world.cache, "--weights", world.weights)
  assert "real, 2 scenes" in out and "loop, 2 scenes" in out
  assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")].count("any") == 2


def test_ablations(world, tmp_path, monkeypatch, capsys):
  script = importlib.import_module("benchmarks.ablations")
  commands = []
  monkeypatch.setattr(script, "run", lambda *arguments, cache: commands.append(arguments))
  data = tmp_path / "data"
  data.mkdir()
  (data / "records.jsonl").write_text(json.dumps({"scene": "moss", "source": "real", "split": "validation"}))
  rng = np.random.default_rng(0)
  metrics = {metric: 0.5 for metric in script.METRICS}
  motion = {script.MODEL: metrics, script.STILL: metrics}
  for row in ("full", "volume"):
    for scene in ("moss", "oak", "reed"):
      names = [f"{n}/{p}" for n in script.NETWORKS for p in (script.MODEL, script.STILL, script.REAL)]
      features = {name: rng.normal(size=(2, 3)) for name in names}
      path = tmp_path / row / "evaluation" / "results" / f"real-{scene}.safetensors"
      save_result(path, SceneResult(scene, scene, "real", motion, {}, features))
  monkeypatch.setattr(
    sys, "argv", ["ablations", "--data", str(data), "--clips", str(world.clips), "--workdir", str(tmp_path),
                  "--rows", "full", "volume"])  # fmt: skip
  script.main()
  table = (tmp_path / "ablations.md").read_text()
  assert table in capsys.readouterr().out and table.count("| Volume pred. |") == 2
  assert [command[1] for command in commands].count("gid_jax.train") == 5
  for module, *flags in (command[1:] for command in commands if command[1] in ("gid_jax.train", "gid_jax.evaluate")):
    assert_settings_exist(module, flags)


def assert_settings_exist(module, flags):
  """Every --config.NAME of a command is a setting of the configuration it names."""
  path, *variant = next(flag.split("=", 1)[1] for flag in flags if flag.startswith("--config=")).split(":", 1)
  name = path.removesuffix(".py").replace("/", ".")
  config = importlib.import_module(name).get_config(*variant)
  settings = {name for name, _ in walk(config)}
  named = {flag.split("=", 1)[0].removeprefix("--config.") for flag in flags if flag.startswith("--config.")}
  assert named and named <= settings, (module, named - settings)


def walk(config, prefix=""):
  for name in config:
    value = config.get(name)
    yield prefix + name, value
    if isinstance(value, ml_collections.ConfigDict):
      yield from walk(value, f"{prefix}{name}.")
