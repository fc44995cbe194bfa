"""Every script in benchmarks/ runs, at sizes that say nothing of its claim: on tiny films, data and random weights."""

import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import filming
import helpers
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
import serving
import training_runs
import videos
import vit_reference

from configs import ldm, ldm_coordinated, renderer, vae
from gid_jax.configuration import ModelSettings, TrainSettings
from gid_jax.evaluation.judging import SceneResult, save_result
from gid_jax.models import operations
from gid_jax.models.build import make_motion_model
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.models.vit import DINOv2ViTS14, convert_dinov2_vits14
from gid_jax.parsing import parse
from gid_jax.rendering import ImageRenderer
from gid_jax.training.settings import check_settings
from gid_jax.training.swing import make_eye
from gid_jax.types import SpectralVolume, Window
from gid_jax.weights.pretrained import MOTION_WEIGHTS, RENDERER_WEIGHTS, config_to_settings, export_weights

CHECKOUT = Path(__file__).parents[1]
HEIGHT, WIDTH, NUM_BANDS, NUM_FRAMES = 48, 64, 4, 24
# Some tables have figures that two films cannot give.
pytestmark = [
  pytest.mark.usefixtures("quick_compilation"),
  pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:.*divide", "ignore:.*invalid value"),
]


def make_config(module, size):
  """A config of `size` whose networks are as small as they can be."""
  config = module.get_config(size)
  model = config.model
  model.image_size, model.num_bands, model.num_frames = (HEIGHT, WIDTH), NUM_BANDS, NUM_FRAMES
  model.denoiser.update(channels=32, multipliers=(1,), attention_levels=(), num_blocks=0)
  if size == "tiny":
    model.codec.update(channels=8, multipliers=(1, 2), num_blocks=0)
  elif size == "default":
    model.encoder.update(trunks=("my_parts:Edges",), channels=8, hidden=16)
    model.encoder.trunk_fields = {}
  return config


def export_motion(folder, config):
  """Writes random weights of a motion model."""
  model = make_motion_model(parse(ModelSettings, config.model))
  slices = np.zeros((1, NUM_BANDS, HEIGHT // 2, WIDTH // 2, 4), np.float32)
  bands = np.zeros((1, NUM_BANDS), np.int32)
  params = helpers.random_params(model.init, slices, bands, np.zeros((1, HEIGHT, WIDTH, 3), np.float32), bands)
  params["band_scale"] = np.linspace(20, 5, NUM_BANDS, dtype=np.float32)
  export_weights(folder / MOTION_WEIGHTS, params, settings=config_to_settings(config.to_dict() | {"trained_on": {}}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Folders of films, loops, photos, weights (with an auto-encoder and with averages) and a data set."""
  root = tmp_path_factory.mktemp("world")
  folder = {}
  for name in ("clips", "loops", "photos", "weights", "learned", "data"):
    folder[name] = root / name
    folder[name].mkdir()
  for kind, names in (("clips", ("moss", "daffodils")), ("loops", ("fern", "reed"))):
    for seed, name in enumerate(names):
      frames = filming.film(filming.make_texture(seed=seed), filming.make_swing(extent=6.0 - seed))
      videos.encode(folder[kind] / f"{name}.mp4", list(frames))
  for seed in range(4):
    cv2.imwrite(str(folder["photos"] / f"{seed}.png"), filming.make_texture(seed=seed))

  config = renderer.get_config("tiny")
  config.model.image_size, config.model.renderer.channels = (HEIGHT, WIDTH), (4, 8)
  network, photo = Renderer(RendererConfig(**config.model.renderer)), np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
  noise = np.zeros((1, network.config.style_dim), np.float32)
  params = helpers.random_params(network.init, photo, photo[..., :2], photo[..., 0], noise)
  for name, size in (("weights", "default"), ("learned", "tiny")):
    export_weights(folder[name] / RENDERER_WEIGHTS, params, settings=config_to_settings(config.to_dict()))
    export_motion(folder[name], make_config(ldm_coordinated, size))

  for source in ("real", "loop", "synthetic"):
    windows = {split: [make_window(source, seed) for seed in range(4)] for split in ("train", "validation")}
    scale = np.linspace(20, 5, 16).tolist()
    helpers.write_dataset(folder["data"], source, windows, statistics={"scale": scale, "num_frames": 150, "fps": 30.0})
  return SimpleNamespace(**folder, cache=root / "measured")


def make_window(source, seed):
  """A smooth photo, waves in sixteen bands, and two later frames."""
  rng = np.random.default_rng(seed)
  shape = (16, HEIGHT // 2, WIDTH // 2, 4)
  waves = helpers.smooth_image(*shape[1:3])[..., [0, 1, 2, 0]] * rng.normal(size=(16, 1, 1, 4))
  return Window(
    image=np.uint8(255 * helpers.smooth_image(HEIGHT, WIDTH)),
    spectrum=np.float16(20 * waves),
    frames=np.zeros((2, HEIGHT, WIDTH, 3), np.uint8),
    flows=np.ones((2, HEIGHT, WIDTH, 2), np.float16),
    depth=np.ones((HEIGHT, WIDTH), np.float16),
    scene=f"{source}{seed}",
    source=source,
  )


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
  """A function that runs a script in this process, from the checkout, and gives what it printed."""
  monkeypatch.chdir(CHECKOUT)
  # What belongs to the whole process would outlive the script.
  monkeypatch.setattr(jax.config, "update", lambda name, value: None)
  monkeypatch.setattr(cv2, "setNumThreads", lambda number: None)

  def run_script(name, *arguments, **constants):
    module = importlib.import_module(f"benchmarks.{name}")
    for constant, value in constants.items():
      monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()
    return capsys.readouterr().out

  return run_script


def run_alone(*arguments, status=0):
  """Runs a command of the checkout in a process of its own and gives what it printed."""
  result = subprocess.run([sys.executable, *map(str, arguments)], cwd=CHECKOUT, capture_output=True, text=True)
  assert result.returncode == status, result.stderr
  return result.stdout if status == 0 else result.stderr


def find_numbers(line):
  return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", line)]


def test_every_script_is_run_here():
  tests = Path(__file__).read_text()
  for path in sorted((CHECKOUT / "benchmarks").glob("*.py")):
    # What the scripts `data_parallel` and `damage` are made of, what needs a browser (see `test_touch_page.py`), and
    # what has a file of its own: `test_benchmark_batch.py`, `test_benchmark_plate.py`, `test_serve_limits.py`.
    if path.stem in ("batch", "collectives", "damages", "plate", "serve_fuzz", "touch", "touch_film"):
      continue
    assert re.search(rf'"{path.stem}"|benchmarks\.{path.stem}\b', tests), f"no test runs {path.name}"


def test_accelerator(run, world, tmp_path, monkeypatch):
  script, counting = (importlib.import_module(f"benchmarks.{name}") for name in ("accelerator", "roofline"))

  def get_config(stage, size):
    config = make_config(importlib.import_module(f"configs.{stage}"), size)
    for name in config.init:
      config.init[name] = ""
    return training_runs.replace_parts(config, training_runs.QUICK_PARTS)

  def fail(options):
    yield "half", "ms", 1.0
    raise MemoryError("too little")

  for module in (script, counting):
    monkeypatch.setattr(module, "get_config", get_config)
  monkeypatch.setitem(script.MEASUREMENTS, "flow", fail)
  output = tmp_path / "found.json"
  # A photo and its frames are those of `test_animate` and `test_render`.
  parts = ("flow", "unet", "sampling", "splatting", "training")
  out = run("accelerator", "--tiny", "--only", *parts, "--output", output)
  found = json.loads(output.read_text())
  assert found["failed"] == {"flow": "MemoryError: too little"} and "flow failed" in out
  assert set(found["seconds"]) == set(parts) < set(script.MEASUREMENTS)
  units = {row["unit"] for row in found["rows"]}
  assert units >= {"ms", "TFLOP/s", "examples/s"} and out.count("| ms |") >= 6
  assert all(row["value"] > 0 for row in found["rows"] if row["unit"] == "ms")
  peers = [row["value"] for row in found["rows"] if row["what"].endswith("largest difference")]
  assert all(difference < 1e-4 for difference in peers)


def test_roofline(run, monkeypatch):
  script = importlib.import_module("benchmarks.roofline")
  vector, matrix = np.zeros((4, 8), np.float32), np.zeros((8, 8), np.float32)
  repeat = lambda x, kernel: jax.lax.scan(lambda x, _: (x @ kernel, None), x, length=3)[0]
  assert script.count_work(repeat, vector, matrix) == (0, 3 * 2 * 4 * 8 * 8, 3 * 4 * (32 + 64 + 32))
  # A form of its own on CPUs; accelerators have the plain one.
  image, kernel = (np.zeros(shape, jnp.bfloat16) for shape in ((1, 6, 5, 8), (3, 3, 8, 50)))
  work = script.count_work(operations.convolve, image, kernel)
  assert work == (2 * 30 * 50 * 72, 0, 2 * (240 + 3600 + 1500))
  # Attention's weights stay on the chip.
  heads = np.zeros((1, 16, 2, 8), np.float32)
  work = script.count_work(operations.dot_product_attention, heads, heads, heads)
  assert work.operations == 2 * 2 * 2 * 16 * 16 * 8 and work.num_bytes == 2 * 2 * heads.nbytes
  small = lambda stage, size: make_config(importlib.import_module(f"configs.{stage}"), size)
  out = run("roofline", SAMPLED=(("tiny", 1.75),), TRAINED=(("ldm", "tiny", 2),), get_config=small)
  assert [line.split(" | ")[0] for line in out.splitlines()[2:]] == [
    "| sampling, `tiny`, guided", "| training, `ldm:tiny`, 2 examples"]  # fmt: skip
  assert script.find_chip("NVIDIA H200") == script.CHIPS["H200"] and script.find_chip("cpu") is None


def test_animate(run, world, monkeypatch):
  quick, call = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "PYTHONPATH": str(Path(__file__).parent)}, subprocess.Popen
  started, again = [], "print('Loaded in 0.1 s\\n' + 2 * 'Wrote a video in 0.1 s\\n')"

  def start(command, *, env, **options):
    """Only the first command is run; the others, which the command line's tests run, are said to have been."""
    if started:
      command = [sys.executable, "-c", again]
    started.append(command)
    return call(command, env=env | quick, **options)

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


def test_damage(run):
  with pytest.raises(SystemExit) as end:
    run("damage", "--help")
  assert end.value.code == 0


def test_data_parallel():
  # Devices are made before JAX starts.
  code = """
import sys
sys.path.insert(0, "tests")
import training_runs
from benchmarks.data_parallel import main
from configs import ldm
config = training_runs.make_quick_config("")
ldm.get_config = lambda size: config
main()
"""
  out = run_alone("-c", code, "--batch", 2, "--steps", 1, "--meshes", "1x1", "2x1")
  one, two = out.splitlines()[-2:]
  assert one.split()[:3] == ["1", "x", "1"] and one.endswith("none") and find_numbers(one)[1] == 1
  assert two.split()[:3] == ["2", "x", "1"] and "all-reduce 1," in two


def test_endurance(run, world):
  out = run("endurance", "--weights", world.weights, "--number", 12, "--frames", 2, "--size", 64)
  assert [line.split()[0] for line in out.splitlines()] == ["10", "12", "from"]
  assert abs(find_numbers(out.splitlines()[-1])[0]) < 50_000


def test_flow(run, world, monkeypatch):
  monkeypatch.setattr(sys.stdout, "reconfigure", lambda **options: None, raising=False)
  small = ("--scenes", 1, "--rounds", 1, "--size", 32, 48, "--pairs", 6)
  out = run("flow", "--clips", world.clips, *small, NAMES=("moss",), WALLS=())
  assert "6 pairs at 48x32" in out and re.search(r"^DIS .* 1\.00 ", out, re.M)
  ours, reference, peer, rest = find_numbers(next(line for line in out.splitlines() if line.startswith("moss")))
  assert max(ours, reference) < rest and peer < rest


def test_flow_without_its_peer(tmp_path):
  assert run_alone("-m", "benchmarks.flow", "--pyflow", tmp_path, status=1) == (
    f"no pyflow was built in {tmp_path}; see --help\n"
  )


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


def test_motion_model(run, world):
  out = run("motion_model", "--data", world.data, "--weights", world.weights, "--windows", 6)
  assert out.splitlines()[1].split()[0] == "all"
  loss, alone, gain, _ = find_numbers(out.splitlines()[1])
  assert gain == pytest.approx(loss - alone, abs=2e-4)


def test_held_out(run, world):
  out = run("held_out", "--data", world.data, "--weights", world.weights, "--seeds", 2)
  means = [line for line in out.splitlines() if line.startswith("log swing: ")]
  assert means and all(-1 <= find_numbers(line)[0] <= 1 for line in means)


def test_overfit(run, tmp_path, monkeypatch):
  script = importlib.import_module("benchmarks.overfit")
  window = next(script.make_windows())
  assert window.image.shape == (script.HEIGHT, script.WIDTH, 3)
  monkeypatch.setattr(script, "make_windows", lambda: iter([window] * 9))
  (tmp_path / "data").mkdir()
  script.write_data(tmp_path / "data")
  assert len(json.loads((tmp_path / "data" / "statistics.json").read_text())["scale"]) == script.NUM_BANDS
  assert len(script.open_split(tmp_path / "data", "synthetic", "train")) == 8
  trained = []

  def train(config, workdir):
    check_settings(parse(TrainSettings, config))
    trained.append((config.stage, workdir.name))
    return SimpleNamespace(step=config.optimizer.num_steps)

  monkeypatch.setattr(script, "train", train)
  script.train_stages(tmp_path)
  assert trained == [(stage, stage) for stage in ("vae", "ldm", "ldm_coordinated")]
  spectrum = window.spectrum.astype(np.float32)
  error, motion = script.find_error(spectrum, 0.5 * spectrum)
  assert error == pytest.approx(0.5, rel=1e-4) and motion > 0
  with pytest.raises(SystemExit):
    run("overfit", "--help")


def test_renderer(run, world):
  out = run("renderer", "--weights", world.weights, "--pairs", 2, "--size", 32, 48, "--data", world.data)
  assert out.startswith("loop: ") and "simulated: 2 pairs of 2 scenes" in out and out.count("renderer over") >= 4
  assert find_numbers(next(line for line in out.splitlines() if line.startswith("renderer ")))[0] > 0


def test_sampling(run, world):
  out = run("sampling", "--clips", world.clips, "--cache", world.cache, "--weights", world.weights, "--simulated", 1,
            "--settings", "2:0", "1:0")  # fmt: skip
  assert "real, 2 scenes" in out and re.search(r"\| 1:0 \| .*\([+-]\d", out)


def test_scaling(run, tmp_path):
  script, picture = importlib.import_module("benchmarks.scaling"), tmp_path / "scaling.png"
  smallest = script.FIELDS | {"multipliers": (1, 1), "num_blocks": 0, "attention_levels": ()}
  assert script.time_forward(script.UNet(**smallest), num_bands=2, height=4, repetitions=1) > 0
  linear = lambda model, num_bands, height, repetitions: 0.1 * num_bands * height**2
  out = run("scaling", "--bands", 1, 2, 4, "--heights", 4, 8, "--plot", picture, time_forward=linear)
  assert [line.split(" (")[0] for line in out.splitlines()] == [
    f"{axis}, {kind}: time ~ size^1.00, straight line R^2 1.0000"
    for kind in ("with spatial attention", "without")
    for axis in ("bands", "pixels")
  ]
  assert cv2.imread(str(picture)) is not None


def test_sharpness(run, world, tmp_path):
  out = run("sharpness", world.photos / "0.png", "--size", 64, "--frames", 3, "--weights", world.weights,
            "--plot", tmp_path / "sheet.png")  # fmt: skip
  assert [line.split()[0] for line in out.splitlines()] == ["photo", "0", "median"]
  assert cv2.imread(str(tmp_path / "sheet.png")).shape == (40 + 4, 2 * (3 * 40 + 4), 3)


def test_edges(run, tmp_path):
  sheet, ladder = tmp_path / "edges.png", tmp_path / "ladder.png"
  out = run("edges", 1, 2, 3, "--size", 48, 64, "--output", sheet, "--ladder", ladder, SIDE=16, HEIGHT=20, GRID=16)
  assert len(re.findall("dB splatted, .* dB ours", out)) == 3
  assert cv2.imread(str(sheet)).shape == (2 * 22, 2 * (4 * 22 + 6), 3)
  assert cv2.imread(str(ladder)).shape == (2 * 50, 3 * 66, 3)


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


def test_serve(run, tmp_path):
  @contextlib.contextmanager
  def start_server(weights):
    source = serving.save_first(tmp_path, np.zeros((30, 40, 3), np.uint8))
    with serving.run_server(serving.FakeMaker(), tmp_path, first=lambda desk: desk.open(source, "first")) as client:
      yield SimpleNamespace(address=str(client.base_url))

  out = run("serve", "--width", 64, "--height", 48, "--rounds", 2, start_server=start_server,
            wait_until_warm=lambda: None, measure_in_browser=lambda *_: None).splitlines()  # fmt: skip
  assert [line.split(":")[0] for line in out[2:]] == ["round 1", "round 2"]
  assert all(waiting <= total for total, waiting in (find_numbers(line)[1:3] for line in out[2:]))


def test_smoothness(run, world):
  out = run("smoothness", "--data", world.data, "--weights", world.weights, "--photos", 1)
  assert "windows of 8 scenes" in out and out.count("correlation") == 3


def test_solver(run, world):
  out = run("solver", "--weights", world.weights, "--photos", world.photos / "0.png", "--reference", 12,
            WAYS=[(12, "trailing", 2), (4, "logsnr", 2)])  # fmt: skip
  same, other = (find_numbers(line) for line in out.splitlines()[2:])
  assert same == [0, 1] and other[0] > 0


def test_spectrum(run, tmp_path):
  out = run("spectrum", "--scenes", 1, "--bands", 4, "--size", 32, 48, "--output", tmp_path / "spectrum.png")
  assert out.startswith("1 scenes") and len(out.splitlines()) == 2 + 4 + 1
  assert cv2.imread(str(tmp_path / "spectrum.png")) is not None


def test_storage(run):
  out = run("storage", "--windows", 1)
  exact = next(line for line in out.splitlines() if line.startswith("stored: WebP, lossless"))
  assert find_numbers(exact)[1:3] == [0, 0]
  assert re.search(r"a window: \d+ kB, plain arrays \d+ kB", out)


def test_swing(run, world):
  see = lambda model, _, *size: make_eye(model, "1", *size)  # the embedded weights do not have the frozen network
  out = run("swing", "--clips", world.clips, "--loops", world.loops, "--stills", world.photos, "--cache", world.cache,
            "--weights", world.weights, "--scenes", 2, NUM_DRAWS=1, NUM_FOLDS=3, make_eye=see)  # fmt: skip
  for row in ("gradient", "within each clip", "within, both sizes", "2 scenes, draw 1"):
    assert f"| {row} |" in out
  assert "unseen photos of nothing" in out


def test_synthetic(run, tmp_path):
  peer = importlib.import_module("benchmarks.synthetic").make_sampled
  small = dict(NUM_EXACT=1, NUM_COPIES=1, make_rendered=peer)  # 150 rendered frames take their time
  out = run("synthetic", "--scenes", 2, "--output", tmp_path / "panels.png", **small)
  for part in ("speed", "truth", "spectrum", "diversity"):
    assert f"{part}:\n" in out
  assert "holds: within 1e-3 of the largest coefficient" in out and "holds: 35 dB" in out
  assert cv2.imread(str(tmp_path / "panels.png")) is not None


def test_synthetic_nature(run, world, tmp_path):
  rng = np.random.default_rng(0)
  np.savez(tmp_path / "nature.npz", flag=rng.normal(size=(16, 20, 32, 4)).astype(np.float16))
  out = run("synthetic_nature", "--clips", world.clips, "--cache", tmp_path / "nature.npz", "--scenes", 2,
            "--output", tmp_path / "nature.png")  # fmt: skip
  assert re.search(r"^flag +\d+%", out, re.M) and "shrub_windy       left out" in out
  assert "1 clips, 2 scenes" in out and cv2.imread(str(tmp_path / "nature.png")) is not None


def test_training_cost(run, tmp_path):
  code = "import training_runs\n\n\ndef get_config(size):\n  return training_runs.make_quick_config('')\n"
  (tmp_path / "quick.py").write_text(code)
  out = run("training_cost", f"--config={tmp_path / 'quick.py'}:small", "--examples=1")
  assert out.startswith("ldm tiny, 1 examples") and "A100" in out
  script = importlib.import_module("benchmarks.training_cost")
  for module, size in ((vae, "paper"), (ldm, "large"), (ldm_coordinated, "inpainting_512"), (renderer, "default")):
    params, batch = script.make_shapes(parse(TrainSettings, module.get_config(size)), 3)
    assert script.count(params) > 1e6 and all(array.shape[0] == 3 for array in batch.values())


def test_training_cost_without_a_config(run):
  with pytest.raises(SystemExit, match="training_cost --config="):
    run("training_cost")
  with pytest.raises(SystemExit, match="Unknown command line flag"):
    run("training_cost", "--config=configs/vae.py:tiny", "--exampels=1")


def test_unet(run, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(SystemExit, match=r"^the peer needs torch and diffusers: pip install '\.\[parity\]'$"):
    run("unet")
  script = importlib.import_module("benchmarks.unet")
  side = script.Ours("tiny", 2)
  side.compile("forward")
  assert side.forward().shape == side.inputs[0].shape


def test_vit(run, tmp_path):
  tensors, image = vit_reference.make_tensors(), helpers.smooth_image(28, 28).astype(np.float32)
  safetensors.numpy.save_file(tensors, tmp_path / "weights.safetensors")
  params = convert_dinov2_vits14(tensors, source="file")
  tokens = jax.jit(lambda params: DINOv2ViTS14((12,)).apply({"params": params}, image[None], method="tokens"))(params)
  np.savez(tmp_path / "reference.npz", image_28=image, tokens_28=2 * tokens[0][0])
  out = run("vit", "--weights", tmp_path / "weights.safetensors", "--reference", tmp_path / "reference.npz",
            "--repetitions", 1, HEIGHT=28, WIDTH=28, DTYPES=("float32",))  # fmt: skip
  assert "22.06 million parameters, 44.1 MB in float16" in out
  assert "image_28, float32: relative difference 5.00e-01, largest" in out and "28x28, float32: " in out


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
