"""All four stages on a tiny data set, through `train`: they run, resume exactly, build on each other and learn."""

import json
import math

import helpers
import jax
import numpy as np
import pytest
import training_runs
from flax import traverse_util

from configs import ldm, ldm_coordinated, renderer, vae
from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.errors import UserError
from gid_jax.parsing import parse
from gid_jax.training import objectives
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import TrainState
from gid_jax.types import Window
from gid_jax.weights.checkpoint import restore_params
from gid_jax.weights.pretrained import config_to_settings, export_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEIGHT, WIDTH, NUM_BANDS = 32, 48, 4
NUM_STORED_BANDS = 16
SCALE = 40 * np.exp(-np.arange(NUM_STORED_BANDS) / 5)
OVERFITTING_STEPS = 30


def make_window(seed):
  """A smooth photo whose pixels swing to the side, and two frames: the photo moved by 2 px and made redder."""
  rng = np.random.default_rng(seed)
  photo = helpers.smooth_image(HEIGHT, WIDTH + 4)
  image = np.uint8(255 * photo[:, 4:])
  moved = 0.7 * photo[:, 2:-2] + [0.3, 0.0, 0.0]
  flows = np.zeros((2, HEIGHT, WIDTH, 2), np.float16)
  flows[..., 0] = 2.0
  amplitudes = SCALE[:, None, None, None]
  waves = helpers.smooth_image(HEIGHT // 2, WIDTH // 2)[..., [0, 1, 2, 0]] - 0.5
  return Window(
    image=image,
    spectrum=np.float16(amplitudes * waves * rng.normal(size=(NUM_STORED_BANDS, 1, 1, 4))),
    frames=np.uint8(255 * np.stack([moved, moved])),
    flows=flows,
    depth=np.full((HEIGHT, WIDTH), 2.0, np.float16),
    scene=f"scene{seed}",
    source="synthetic",
  )


@pytest.fixture(scope="module")
def data(tmp_path_factory, quick_compilation):
  folder = tmp_path_factory.mktemp("windows")
  windows = {"train": [make_window(0), make_window(1)], "validation": [make_window(2)]}
  helpers.write_dataset(folder, "synthetic", windows, statistics={"scale": SCALE.tolist()})
  return folder


def make_config(module, data, *, num_steps=4, **init):
  config = module.get_config("tiny")
  config.data.directory = str(data)
  config.optimizer.num_steps = num_steps
  if config.stage != "renderer":  # smaller than `tiny`, which takes twice the time to compile
    config.data.num_bands = config.model.num_bands = NUM_BANDS
    config.model.codec.multipliers, config.model.codec.num_blocks = (1, 2), 0
    unet = config.model.denoiser
    unet.multipliers, unet.attention_levels, unet.num_blocks = (1,), (), 0
    training_runs.replace_parts(config, {"encoder": training_runs.QUICK_PARTS["encoder"]})
    config.eval_pictures = False
  for name, value in init.items():
    config.init[name] = str(value)
  return config


def read_metrics(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def flatten(params):
  return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def assert_same(first, second):
  first, second = flatten(first), flatten(second)
  assert set(first) == set(second)
  for path, leaf in first.items():
    np.testing.assert_array_equal(leaf, second[path], err_msg=path)


def fill_params(init, *inputs, batch):
  """What a new part begins with, without compiling its initialiser: zeros where frequencies come in."""
  params = traverse_util.flatten_dict(helpers.random_params(init, *inputs[1:]), sep="/")
  zeros = {path: np.zeros_like(leaf) for path, leaf in params.items() if "frequency_attention/out" in path}
  return traverse_util.unflatten_dict(params | zeros, sep="/")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
  """The final state and work folder of the three stages of the motion model."""
  root, results = tmp_path_factory.mktemp("runs"), {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(objectives, "init_params", fill_params)
    for name, module, init in (
      ("vae", vae, {}),
      ("ldm", ldm, dict(vae=root / "vae")),
      ("ldm_coordinated", ldm_coordinated, dict(ldm=root / "ldm")),
    ):
      config = make_config(module, data, **init)
      config.profile_steps = int(name == "vae")
      results[name] = training.train(config, root / name), root / name
  return results


@pytest.fixture
def no_initialisers(monkeypatch):
  """For tests in which weights from files replace what initialisers draw."""
  monkeypatch.setattr(objectives, "init_params", fill_params)


@pytest.mark.parametrize("stage", ["vae", "ldm", "ldm_coordinated"])
def test_a_stage_runs_and_reports(runs, stage):
  state, workdir = runs[stage]
  lines = read_metrics(workdir)
  losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
  validation = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
  assert list(losses) == [1, 2, 3, 4] and list(validation) == [2, 4]
  assert all(math.isfinite(value) and value > 0 for value in (*losses.values(), *validation.values()))
  assert int(state.step) == 4
  schedule = training.make_learning_rate(parse(TrainSettings, make_config(vae, "")).optimizer)
  trained = [line for line in lines if "loss" in line]
  learning_rates = [float(schedule(count)) / float(schedule(1)) for count in range(4)]
  rates = [line["learning_rate"] / trained[1]["learning_rate"] for line in trained]
  np.testing.assert_allclose(rates, learning_rates, rtol=1e-6)
  assert all(line["skipped_updates"] == 0 and line["examples_per_second"] > 0 for line in trained)
  _, config = restore_params(workdir)
  assert config["stage"] == stage
  assert config["trained_on"] == {"real": [], "loop": []}  # simulated scenes have no names


def test_chosen_steps_are_profiled(runs):
  traces = [path for _, workdir in runs.values() for path in (workdir / "profile").rglob("*.xplane.pb")]
  assert len(traces) == 1 and traces[0].is_relative_to(runs["vae"][1])


def test_each_stage_trains_its_own_part_and_keeps_the_earlier_ones(runs):
  states = {name: state for name, (state, _) in runs.items()}
  top = {name: {path.split("/")[0] for path in flatten(state.params)} for name, state in states.items()}
  assert top == {"vae": {"vae"}, "ldm": {"unet", "encoder"}, "ldm_coordinated": {"unet"}}
  assert all("frequency_attention" in path for path in flatten(states["ldm_coordinated"].params))
  auto_encoder, _ = restore_params(runs["vae"][1])
  assert_same(auto_encoder["vae"], states["ldm"].frozen["vae"])
  stage_1, _ = restore_params(runs["ldm"][1])
  assert_same(stage_1, states["ldm_coordinated"].frozen)
  # Stage 2 moved what it may move: its output projections began at zero.
  projections = [leaf for path, leaf in flatten(states["ldm_coordinated"].params).items() if "/out/kernel" in path]
  assert projections and all(np.any(leaf) for leaf in projections)


@pytest.mark.parametrize("freeze, expected", [(True, [0, 1, 0, 0]), (False, [1, 1, 1, 0])])
def test_stage_2_trains_the_rest_too_when_nothing_is_frozen(freeze, expected):
  config = make_config(ldm_coordinated, "", ldm="runs/ldm")
  config.freeze_bands = freeze
  paths = ("unet/conv_in/kernel", "unet/middle_frequency_attention/out/kernel", "encoder/conv_in/kernel", "vae/x")
  assert [make_objective(parse(TrainSettings, config)).trainable(path) for path in paths] == expected


def test_stage_2_with_another_target_keeps_all_but_the_last_layer(runs, no_initialisers):
  stage_1, _ = restore_params(runs["ldm"][1])
  config = make_config(ldm_coordinated, "", ldm=str(runs["ldm"][1]))
  config.freeze_bands, config.schedule.reach = False, 20.0
  batch = {
    "slice": np.zeros((1, NUM_BANDS, 16, 24, 4), np.float32),
    "band": np.arange(NUM_BANDS)[None],
    "image": np.zeros((1, 32, 48, 3), np.float32),
  }
  start = lambda: flatten(make_objective(parse(TrainSettings, config)).initialize(jax.random.key(0), [batch]))
  before, after = flatten(stage_1), start()
  changed = {path for path in before if np.any(before[path] != after[path])}
  assert changed == {"unet/conv_out/kernel", "unet/conv_out/bias"}
  assert not any(np.any(after[path]) for path in changed)
  config.freeze_bands = True
  with pytest.raises(UserError, match="predicts something else"):
    start()
  config.schedule.reach = 0.0
  assert all(np.array_equal(before[path], leaf) for path, leaf in start().items() if path in before)


def test_stage_2_restores_as_the_complete_motion_model(runs):
  params, config = restore_params(runs["ldm_coordinated"][1])
  assert set(params) == {"vae", "encoder", "unet", "band_scale", "latent_mean", "latent_std"}
  np.testing.assert_allclose(params["band_scale"], SCALE[:NUM_BANDS], rtol=1e-6)
  assert np.all(params["latent_std"] > 0) and np.any(params["latent_mean"])
  state = runs["ldm_coordinated"][0]
  averaged = {path: leaf for path, leaf in flatten(params).items() if "frequency_attention" in path}
  assert_same(averaged, flatten(state.ema_params))
  assert config["model"]["denoiser"]["coordination"] == "attention" and config["sampling"]["steps"] > 0


def test_a_finished_run_goes_on_when_it_is_given_more_steps(data, tmp_path):
  state, longer = (training.train(training_runs.make_quick_config(data, num_steps=n), tmp_path) for n in (4, 6))
  assert int(longer.step) == 6
  assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5, 6]
  before, after = (flatten(s.params)["denoiser/out/kernel"] for s in (state, longer))
  assert np.any(before != after)


def test_evaluation_takes_the_mean_over_batches():
  state = TrainState(step=0, params={}, ema_params={"w": 2.0}, opt_state=(), frozen={"b": 1.0})
  batches = [{"x": np.array([1.0, 3.0])}, {"x": np.array([5.0, 7.0])}, {"x": np.array([0.0, 8.0])}]

  def eval_fn(key, params, batch):
    loss = params["w"] * batch["x"].mean() + params["b"] + 0 * jax.random.uniform(key)
    return loss, {"loss": loss, "largest": batch["x"].max()}

  results = training.evaluate(jax.random.key(0), state, batches, eval_fn=eval_fn, put=lambda batch: batch)
  assert results.keys() == {"loss", "largest"}
  assert float(results["loss"]) == 9.0 and float(results["largest"]) == 6.0


def test_an_earlier_stage_that_does_not_fit_is_an_error(runs, no_initialisers, data, tmp_path):
  folder = {name: workdir for name, (_, workdir) in runs.items()}
  with pytest.raises(UserError, match="no checkpoint"):
    training.train(make_config(ldm, data, vae=tmp_path / "nothing"), tmp_path / "a")
  with pytest.raises(UserError, match="holds stage 'vae'; name a trained 'ldm'"):
    training.train(make_config(ldm_coordinated, data, ldm=folder["vae"]), tmp_path / "b")
  config = make_config(ldm, data, vae=folder["vae"])
  config.model.codec.channels = 4
  batch = dict(
    slice=np.zeros((1, 1, 16, 24, 4)), band=np.zeros((1, 1), np.int32), image=np.zeros((1, HEIGHT, WIDTH, 3))
  )
  objective = make_objective(parse(TrainSettings, config))
  with pytest.raises(UserError, match="same model sizes"):
    jax.eval_shape(objective.initialize, jax.random.key(0), [batch])  # no compilation: the shapes do not fit


def test_a_warm_up_longer_than_the_training_is_an_error(data):
  config = make_config(vae, data)
  config.optimizer.warmup_steps = config.optimizer.num_steps
  with pytest.raises(UserError, match="warmup_steps=4 is not below num_steps=4"):
    training.make_optimizer(config.optimizer)


def test_stage_1_goes_on_from_exported_weights(runs, no_initialisers, data, tmp_path):
  params, config = restore_params(runs["ldm_coordinated"][1])
  export_weights(tmp_path / "motion.safetensors", params, settings=config_to_settings(config), dtype="float32")
  objective = make_objective(parse(TrainSettings, make_config(ldm, data, ldm=tmp_path / "motion.safetensors")))
  batch = dict(
    slice=np.zeros((1, 1, 16, 24, 4)), band=np.zeros((1, 1), np.int32), image=np.zeros((1, HEIGHT, WIDTH, 3))
  )
  started, trained = flatten(objective.initialize(jax.random.key(0, impl="rbg"), [batch])), flatten(params)
  assert set(started) == {path for path in trained if "frequency_attention" not in path} != set(trained)
  for path, leaf in started.items():
    np.testing.assert_array_equal(leaf, trained[path], err_msg=path)


def test_the_renderer_learns_a_batch_by_heart(data, tmp_path):
  config = make_config(renderer, data, num_steps=OVERFITTING_STEPS)
  config.data.augmentation = {}
  config.model.renderer.channels = (8, 8)
  config.optimizer.learning_rate = 5e-3
  config.eval_every = config.save_every = OVERFITTING_STEPS
  training.train(config, tmp_path)
  lines = read_metrics(tmp_path)
  losses = [line["loss"] for line in lines if "loss" in line]
  assert len(losses) == OVERFITTING_STEPS and np.all(np.isfinite(losses))
  assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
  assert math.isfinite(lines[-1]["validation_psnr"])
  params, _ = restore_params(tmp_path)
  assert set(params) == {"pyramid", "decoder"}
