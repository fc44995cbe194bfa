"""Scripts in benchmarks/ that make what they measure run, at sizes that say nothing of their claims."""

import contextlib
import functools
import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import serving
import training_runs
import vit_reference
from benchmark_world import CHECKOUT, MARKS, find_numbers, make_config, make_runner, run_alone

from configs import ldm, ldm_coordinated, renderer, vae
from data_pipeline.synthetic.scene import sample_scene
from gid_jax.configuration import TrainSettings
from gid_jax.models import operations
from gid_jax.models.vit import DINOv2ViTS14, convert_dinov2_vits14
from gid_jax.parsing import parse
from gid_jax.training.settings import check_settings

pytestmark = MARKS


@pytest.fixture
def run(monkeypatch, capsys):
  return make_runner(monkeypatch, capsys)


def test_every_script_is_run_here():
  tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_benchmarks*.py"))
  for path in sorted((CHECKOUT / "benchmarks").glob("*.py")):
    # What the scripts `data_parallel` and `damage` are made of, what needs a browser (see `test_touch_page.py`), and
    # what has a file of its own: `test_benchmark_batch.py`, `test_benchmark_plate.py`, `test_serve_limits.py`.
    if path.stem in ("batch", "collectives", "damages", "plate", "serve_fuzz", "touch", "touch_film"):
      continue
    assert re.search(rf'"{path.stem}"|benchmarks\.{path.stem}\b', tests), f"no test runs {path.name}"


def test_accelerator(run, tmp_path, monkeypatch):
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
  # A photo and its frames are those of `test_benchmarks.py`.
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


def test_flow_without_its_peer(tmp_path):
  assert run_alone("-m", "benchmarks.flow", "--pyflow", tmp_path, status=1) == (
    f"no pyflow was built in {tmp_path}; see --help\n"
  )


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


def test_edges(run, tmp_path):
  sheet, ladder = tmp_path / "edges.png", tmp_path / "ladder.png"
  out = run("edges", 1, 2, 3, "--size", 48, 64, "--output", sheet, "--ladder", ladder, SIDE=16, HEIGHT=20, GRID=16)
  assert len(re.findall("dB splatted, .* dB ours", out)) == 3
  assert cv2.imread(str(sheet)).shape == (2 * 22, 2 * (4 * 22 + 6), 3)
  assert cv2.imread(str(ladder)).shape == (2 * 50, 3 * 66, 3)


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


def test_spectrum(run, tmp_path):
  short = functools.partial(sample_scene, num_frames=24)
  out = run("spectrum", "--scenes", 1, "--bands", 4, "--size", 32, 48, "--output", tmp_path / "spectrum.png",
            sample_scene=short)  # fmt: skip
  assert out.startswith("1 scenes") and len(out.splitlines()) == 2 + 4 + 1
  assert cv2.imread(str(tmp_path / "spectrum.png")) is not None


def test_storage(run):
  out = run("storage", "--windows", 1)
  exact = next(line for line in out.splitlines() if line.startswith("stored: WebP, lossless"))
  assert find_numbers(exact)[1:3] == [0, 0]
  assert re.search(r"a window: \d+ kB, plain arrays \d+ kB", out)


def test_synthetic(run, tmp_path):
  peer = importlib.import_module("benchmarks.synthetic").make_sampled
  small = dict(NUM_EXACT=1, NUM_COPIES=1, make_rendered=peer)  # 150 rendered frames take their time
  out = run("synthetic", "--scenes", 2, "--output", tmp_path / "panels.png", **small)
  for part in ("speed", "truth", "spectrum", "diversity"):
    assert f"{part}:\n" in out
  assert "holds: within 1e-3 of the largest coefficient" in out and ": 35 dB or more, the mean over scenes" in out
  splatted, still = (find_numbers(next(line for line in out.splitlines() if line.startswith(f"  {name}  ")))[0]
                     for name in ("splatted", "left as it is"))  # fmt: skip
  assert splatted > still + 3
  assert cv2.imread(str(tmp_path / "panels.png")) is not None


def test_training_cost(run, tmp_path):
  code = "import training_runs\n\n\ndef get_config(size):\n  return training_runs.make_quick_config('')\n"
  (tmp_path / "quick.py").write_text(code)
  out = run("training_cost", f"--config={tmp_path / 'quick.py'}:small", "--examples=1")
  assert out.startswith("ldm tiny, 1 examples") and "A100" in out
  script, roofline = (importlib.import_module(f"benchmarks.{name}") for name in ("training_cost", "roofline"))
  for module, size in ((vae, "paper"), (ldm, "large"), (ldm_coordinated, "inpainting_512"), (renderer, "default")):
    params, batch = roofline.make_shapes(parse(TrainSettings, module.get_config(size)), 3)
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
