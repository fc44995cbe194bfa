"""What a researcher plugs in from outside: nothing of the package is edited for any of it (`my_parts.py`)."""

import functools
import json

import helpers
import jax
import my_parts
import numpy as np
import pytest
import training_runs
from flax import traverse_util

from configs import ldm, ldm_coordinated, renderer
from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.data.checks import check_config
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model
from gid_jax.models.encoders import ConditionEncoder
from gid_jax.parsing import parse
from gid_jax.training.objectives import make_objective
from gid_jax.weights.frozen import read_trunks
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

pytestmark = pytest.mark.usefixtures("quick_compilation")
NUM_BANDS, HEIGHT, WIDTH = training_runs.NUM_BANDS, 32, 48


def make_settings(module=ldm, *, ours=(), **parts):
  """A stage with parts of one's own, name -> {"kind": ..., fields}, and of ours the smallest that `ours` names."""
  config = training_runs.make_config(module, "", num_steps=2, batch_size=2)
  quick = {name: part for name, part in training_runs.QUICK_PARTS.items() if name not in ours}
  return training_runs.replace_parts(config, quick | parts)


def make_batch():
  rng = np.random.default_rng(0)
  return {
    "image": rng.uniform(size=(2, HEIGHT, WIDTH, 3)).astype(np.float32),
    "slice": 10 * rng.normal(size=(2, NUM_BANDS, HEIGHT // 2, WIDTH // 2, 4)).astype(np.float32),
    "band": np.tile(np.arange(NUM_BANDS, dtype=np.int32), (2, 1)),
  }


def make_params(settings, batch):
  model = make_motion_model(settings.model)
  return helpers.random_params(model.init, batch["slice"], batch["band"], batch["image"], batch["band"])


def find_slopes(settings, **options):
  """Paths of the parameters that train, and those among them whose loss has a slope."""
  objective, batch = make_objective(settings, **options), make_batch()
  params = make_params(settings, batch)
  slopes = jax.jit(jax.grad(lambda params: objective.loss_fn(jax.random.key(1), params, batch)[0]))(params)
  flat = traverse_util.flatten_dict(slopes, sep="/")
  assert all(np.isfinite(slope).all() for slope in flat.values())
  trained = {path for path in flat if objective.trainable(path)}
  return trained, {path for path in trained if np.any(flat[path])}


def test_another_denoiser(tmp_path):
  dit = {"kind": "my_parts:DiT", "channels": 8}
  settings = parse(TrainSettings, make_settings(denoiser=dit | {"coordinated": False}))
  trained, moved = find_slopes(settings)
  assert {path.split("/")[0] for path in trained} == {"denoiser", "encoder"}
  assert {"denoiser/head/kernel", "denoiser/patch/kernel"} <= moved
  # Stage 2 trains what lets bands meet, and begins its last layer anew where the target changes.
  config = make_settings(ldm_coordinated, denoiser=dit)
  trained, _ = find_slopes(parse(TrainSettings, config))
  assert trained and all("across_bands" in path for path in trained)
  training_runs.export_start(tmp_path / "ldm.safetensors", config, stage="ldm")
  config.init.ldm, config.freeze_bands = str(tmp_path / "ldm.safetensors"), False
  start = lambda: make_objective(parse(TrainSettings, config)).initialize(jax.random.key(0, impl="rbg"), [make_batch()])
  same = start()["denoiser"]
  config.schedule.prediction = "x0"
  changed = start()["denoiser"]
  assert np.any(same["head"]["kernel"]) and not np.any(changed["head"]["kernel"])
  np.testing.assert_array_equal(changed["patch"]["kernel"], same["patch"]["kernel"])


def test_another_denoiser_says_which_sizes_it_takes():
  config = make_settings(denoiser={"kind": "my_parts:DiT", "channels": 8})
  config.data.sources = {"live": 1.0}
  check_config(parse(TrainSettings, config))
  config.data.crop = (12, 24)
  with pytest.raises(UserError, match=r"config\.data\.crop is 12x24, .* multiples of 8"):
    check_config(parse(TrainSettings, config))
  config.model.denoiser.chanels = 4
  with pytest.raises(UserError, match="the denoiser 'my_parts:DiT' has no setting 'chanels'; did you mean channels"):
    check_config(parse(TrainSettings, config))


def test_another_coordination():
  config = make_settings(ldm_coordinated, ours=("denoiser",))
  config.model.denoiser.coordination = "my_parts:MeanOverBands"
  settings = parse(TrainSettings, config)
  trained, moved = find_slopes(settings)
  assert trained == moved and all(path.endswith(("out/kernel", "out/bias")) for path in trained)
  assert all("frequency_attention" in path for path in trained)


def test_several_image_networks_side_by_side():
  encoder = {"kind": "condition", "channels": 4, "hidden": 8, "trunks": ("my_parts:Still", "my_parts:Edges")}
  settings = parse(TrainSettings, make_settings(encoder=encoder))
  batch = make_batch()
  params = make_params(settings, batch)
  assert {name for name in params["encoder"] if "frozen" in name} == {"frozen_trunk_Still", "frozen_trunk_Edges"}
  apply = lambda trunks: ConditionEncoder(channels=4, hidden=8, trunks=trunks).apply(
    {"params": params["encoder"]}, batch["image"], height=8, width=12, method="see"
  )
  both, first = np.asarray(apply(encoder["trunks"])), np.asarray(apply(("my_parts:Still",)))
  np.testing.assert_array_equal(both[..., : first.shape[-1]], first)
  gain = params["encoder"]["frozen_trunk_Edges"]["gain"]
  edges = gain * np.diff(batch["image"], axis=1, append=batch["image"][:, -1:]) / 0.5
  np.testing.assert_allclose(both[..., -4:-1], jax.image.resize(edges, (2, 8, 12, 3), "linear"), atol=1e-5)
  trained, moved = find_slopes(settings)
  assert not any("frozen_trunk" in path for path in trained)
  assert {f"encoder/project_{index}/kernel" for index in range(4)} <= moved


def test_the_networks_parameters_come_from_their_files(tmp_path):
  encoder = {"kind": "condition", "channels": 4, "hidden": 8, "trunks": ("my_parts:Edges",)}
  config = make_settings(encoder=encoder)
  config.init.encoder = "3.5"
  params = make_objective(parse(TrainSettings, config)).initialize(jax.random.key(0, impl="rbg"), [make_batch()])
  assert params["encoder"]["frozen_trunk_Edges"]["gain"] == 3.5
  config.init.encoder = ""
  with pytest.raises(UserError, match="the embedded weights hold no my_parts:Edges; name a file of it"):
    make_objective(parse(TrainSettings, config)).initialize(jax.random.key(0, impl="rbg"), [make_batch()])


def test_each_of_several_networks_has_its_file(tmp_path):
  encoder = {"kind": "condition", "channels": 4, "hidden": 8}
  config = make_settings(encoder=encoder | {"trunks": ("efficientnet_lite0", "my_parts:Edges", "my_parts:Still")})

  model = parse(TrainSettings, config).model
  params = read_trunks(model, ",3.5,2")
  assert (params["frozen_trunk_Edges"]["gain"], params["frozen_trunk_Still"]["gain"]) == (3.5, 2)
  embedded = load_pretrained(MOTION_WEIGHTS)[0]["encoder"]["frozen_trunk_efficientnet_lite0"]
  jax.tree.map(np.testing.assert_array_equal, params["frozen_trunk_efficientnet_lite0"], embedded)
  with pytest.raises(UserError, match=r"config\.init\.encoder='3\.5': give one file for each of efficientnet_lite0"):
    read_trunks(model, "3.5")
  config.model.encoder.trunks = ("my_parts:Edges", "my_parts:Edges")
  with pytest.raises(UserError, match="two have the same name"):
    make_params(parse(TrainSettings, config), make_batch())


def test_a_codec_written_from_nothing():
  config = make_settings(codec={"kind": "my_parts:CornerCodec"})
  settings, batch = parse(TrainSettings, config), make_batch()
  objective = make_objective(settings, band_scale=np.ones(NUM_BANDS, np.float32))
  params = objective.initialize(jax.random.key(0, impl="rbg"), [batch])
  assert set(params) == {"encoder", "denoiser"}
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, objective.describe(batch))
  trained, moved = find_slopes(settings)
  assert "denoiser/out/kernel" in moved and {path.split("/")[0] for path in trained} == {"encoder", "denoiser"}
  latents = make_motion_model(settings.model).apply({"params": params}, batch["slice"], batch["band"],
                                                    method="slices_to_latents")  # fmt: skip
  np.testing.assert_array_equal(latents, batch["slice"][:, :, ::2, ::2] / 10)


def test_another_codec():
  config = make_settings(ours=("codec",))
  config.model.codec.kind = "my_parts:HalfCodec"
  settings, batch = parse(TrainSettings, config), make_batch()
  params = make_params(settings, batch)
  plain = make_motion_model(parse(TrainSettings, make_settings(ours=("codec",))).model)

  def run(model, *inputs, method):
    return jax.jit(functools.partial(model.apply, method=method))({"params": params}, *inputs)

  latents = run(make_motion_model(settings.model), batch["slice"], batch["band"], method="slices_to_latents")
  expected = run(plain, batch["slice"] / 2, batch["band"], method="slices_to_latents")
  np.testing.assert_allclose(latents, expected, atol=1e-5)
  slices = run(make_motion_model(settings.model), latents, batch["band"], method="latents_to_slices")
  np.testing.assert_allclose(slices, 2 * run(plain, latents, batch["band"], method="latents_to_slices"), rtol=1e-5)


def test_a_term_of_ones_own():
  config = make_settings()
  config.loss.weights = {"denoising": 2.0, "loudness": 0.5}
  objective = make_objective(parse(TrainSettings, config), terms={"loudness": my_parts.loudness})
  batch = make_batch()
  params = make_params(parse(TrainSettings, config), batch)
  loss, metrics = jax.jit(objective.loss_fn)(jax.random.key(0), params, batch)
  assert set(metrics) == {"loss", "denoising", "loudness"} and metrics["loudness"] > 0
  np.testing.assert_allclose(loss, 2 * metrics["denoising"] + 0.5 * metrics["loudness"], rtol=1e-6)
  with pytest.raises(UserError, match="'loudness': there is no such term; weigh some of denoising"):
    jax.eval_shape(make_objective(parse(TrainSettings, config)).loss_fn, jax.random.key(0), params, batch)


def test_training_with_an_objective_of_ones_own(tmp_path):
  data = tmp_path / "data"
  windows = [training_runs.make_window(seed) for seed in range(3)]
  windows = [w._replace(frames=w.image[None], flows=np.zeros((1, 32, 48, 2), np.float16)) for w in windows]
  helpers.write_dataset(data, "real", {"train": windows[:2], "validation": windows[2:]}, statistics={"scale": [1.0]})
  config = renderer.get_config("tiny")
  config.data.directory, config.optimizer.num_steps, config.eval_pictures = str(data), 2, False
  config.model.renderer.channels = (4, 4)
  with config.unlocked():
    config.loss.weights.colourfulness = 0.1
  mine = functools.partial(make_objective, terms={"colourfulness": my_parts.colourfulness})
  training.train(config, tmp_path / "run", make_objective=mine)
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  first = next(line for line in lines if "loss" in line)
  assert first["colourfulness"] > 0
  parts = first["l1"] + 0.5 * first["structure"] + 0.1 * first["colourfulness"]
  np.testing.assert_allclose(first["loss"], parts, rtol=1e-5)
