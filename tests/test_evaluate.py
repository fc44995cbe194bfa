"""A whole evaluation with tiny untrained networks: tables that agree with the scenes' results, resuming, refusals."""

import json

import helpers
import jax
import numpy as np
import pytest
import training_runs
from test_evaluation_scenes import MODEL, write_clip

from configs import evaluation, ldm_coordinated
from configs import renderer as renderer_config
from gid_jax import evaluate as program
from gid_jax import rendering, sizes
from gid_jax.configuration import EvaluationSettings, ModelSettings
from gid_jax.errors import UserError
from gid_jax.evaluation import judging
from gid_jax.evaluation.report.content import read_report
from gid_jax.models.build import make_motion_model
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.parsing import parse
from gid_jax.weights.pretrained import MOTION_WEIGHTS, RENDERER_WEIGHTS, config_to_settings, export_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")
HEIGHT, WIDTH = MODEL.image_size


def export_models(folder, *, seed=0, trained_on=None):
  """Random tiny weights that take the model's grid."""
  extra = {} if trained_on is None else {"trained_on": trained_on}
  config = ldm_coordinated.get_config("tiny")
  config.model.image_size, config.data.num_bands = MODEL.image_size, MODEL.num_bands
  config.model.num_bands, config.model.num_frames = MODEL.num_bands, MODEL.num_frames
  training_runs.replace_parts(config, training_runs.QUICK_PARTS)
  model = make_motion_model(parse(ModelSettings, config.model))
  slices = np.zeros((1, MODEL.num_bands, HEIGHT // 2, WIDTH // 2, 4), np.float32)
  bands, photo = np.zeros((1, MODEL.num_bands), np.int32), np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
  params = helpers.random_params(model.init, slices, bands, photo, bands, seed=seed)
  export_weights(folder / MOTION_WEIGHTS, params, settings=config_to_settings(config.to_dict() | extra))
  config = renderer_config.get_config("tiny")
  config.model.image_size, config.model.renderer.channels = MODEL.image_size, (4, 8)
  network = Renderer(RendererConfig(**config.model.renderer))
  noise = np.zeros((1, network.config.style_dim), np.float32)
  params = helpers.random_params(network.init, photo, photo[..., :2], photo[..., 0], noise)
  export_weights(folder / RENDERER_WEIGHTS, params, settings=config_to_settings(config.to_dict() | extra))


@pytest.fixture(scope="module", autouse=True)
def quick_frames(quick_compilation):
  """Programs that render many frames are compiled with care all the same: they then take a fourth of the time."""
  options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rendering._render_frames, "_options", options)
    patch.setattr(sizes, "_ROOMS", (HEIGHT, WIDTH, *sizes._ROOMS))  # no room for videos larger than these
    yield


@pytest.fixture(scope="module")
def root(tmp_path_factory, quick_compilation):
  root = tmp_path_factory.mktemp("evaluation")
  for name in ("weights", "other_weights", "films"):
    (root / name).mkdir()
  export_models(root / "weights", trained_on={"real": ["oak"], "loop": []})
  export_models(root / "other_weights", seed=1)
  for seed, name in enumerate(("fern_0", "fern_1", "moss")):
    write_clip(root / "films" / f"{name}.mp4", seed=seed)
  (root / "films.csv").write_text("file,scene\nfern_0.mp4,fern\nfern_1.mp4,fern\nmoss.mp4,moss\n")
  return root


def make_config(root, **changes):
  """The settings of an evaluation; `changes` are given as on the command line, "real.scenes" for example."""
  config = evaluation.get_config()
  config.weights, config.real.folder, config.cache = str(root / "weights"), str(root / "films"), str(root / "measured")
  config.simulated.number, config.num_samples, config.num_shown = 1, 2, 2
  config.features, config.crop = ("efficientnet_lite0", "fid"), (HEIGHT, WIDTH)
  config.update_from_flattened_dict(changes)
  return parse(EvaluationSettings, config)


@pytest.fixture(scope="module")
def report(root, quick_compilation):
  return program.evaluate(make_config(root), root / "run")


def test_every_scene_is_judged(report, root):
  results = [judging.load_result(path) for path in sorted((root / "run" / "results").glob("real-*"))]
  assert [result.scene for result in results] == ["fern", "fern", "moss"]
  table = {table.name: table for table in report.tables}["motion, real"]
  rows = {row.name: dict(zip([c.name for c in table.columns], row.cells, strict=True)) for row in table.rows}
  # A scene counts once, however many takes it has.
  by_take = [result.motion["model"]["endpoint_error_1"] for result in results]
  expected = np.mean([np.mean(by_take[:2]), by_take[2]])
  np.testing.assert_allclose(rows["model"]["end-point error"].value, expected)
  assert rows["model"]["end-point error"].num_samples == 2
  assert rows["still"]["where"].value == 0.5 and rows["still"]["share that moves"].value == 0
  assert rows["another take of the scene"]["where"].num_samples == 1
  # All that moves is the right half, by the same swing.
  assert rows["another take of the scene"]["where"].value > 0.9
  assert {"mean motion", "typical motion", "smooth noise", "gradient", "centre"} <= set(rows)


def test_videos_are_compared_and_what_is_missing_is_said(report, root):
  table = {table.name: table for table in report.tables}["videos, real"]
  assert [column.name for column in table.columns] == ["EffLite0-Fréchet", "EffLite0-kernel"]
  takes = "another take of the scene"
  assert {row.name for row in table.rows} == {"model", "mean motion", "smooth noise", "still", takes}
  assert all(row.cells[0].value > 0 and "singular" in row.cells[0].note for row in table.rows)
  assert {row.name: row.cells[0].num_samples for row in table.rows}[takes] == 1
  assert any("fid" in note and "weights" in note for note in report.notes)
  assert [group.scene for group in report.clips] == ["real-fern_0", "real-moss"]  # a take a scene
  for group in report.clips:
    assert set(group.videos) == {"real", "model", "mean motion", "smooth noise", "still"}
    assert all((root / "run" / path).stat().st_size > 500 for path in group.videos.values())
  assert len(report.figures) == 4 and "<table" in (root / "run" / "report.html").read_text()


def test_renderers_are_judged_on_the_same_pairs(report, root):
  tables = {table.name: table for table in report.tables}
  for source, count in (("real", 2), ("synthetic", 1)):
    table = tables[f"rendering, {source}"]
    rows = {row.name: dict(zip([c.name for c in table.columns], row.cells, strict=True)) for row in table.rows}
    assert {"renderer", "softmax splat", "average splat", "backward warp", "photo"} <= set(rows)
    # The right half swings by a whole pixel or more: who moves the photo comes nearer than who does not.
    assert rows["softmax splat"]["PSNR, visible"].value > rows["photo"]["PSNR, visible"].value + 3
    assert rows["photo"]["PSNR, whole"].num_samples == count
  results = [judging.load_result(path) for path in sorted((root / "run" / "results").glob("real-*"))]
  by_take = [result.rendering["photo"]["psnr, whole"] for result in results]
  real = next(row for row in tables["rendering, real"].rows if row.name == "photo").cells[0].value
  np.testing.assert_allclose(real, np.mean([np.mean(by_take[:2]), by_take[2]]))


def test_quality_over_time_has_a_column_a_window(report):
  table = {table.name: table for table in report.tables}["EffLite0-Fréchet over time, real"]
  # Of 24 frames three are seen, which is one window.
  assert [column.name for column in table.columns] == ["frames 0–20"]
  assert {row.name for row in table.rows} == {"model", "mean motion", "smooth noise", "still"}


def test_scenes_trained_on_are_left_out(report, root, tmp_path):
  assert not any("trained on" in note for note in report.notes)
  (tmp_path / "weights").mkdir()
  export_models(tmp_path / "weights", trained_on={"real": ["moss", "oak"]})
  config = make_config(root)
  animator = program.Animator.from_pretrained(tmp_path / "weights")
  files, notes = program.list_files(config, animator)
  assert [file.path.stem for _, file in files] == ["fern_0", "fern_1"]
  assert any("moss" in note and "oak" not in note for note in notes)
  config = make_config(root, **{"real.scenes": "moss"})
  with pytest.raises(UserError, match="trained on every scene"):
    program.list_files(config, animator)
  _, notes = program.list_files(config, program.Animator.from_pretrained(root / "other_weights"))
  assert any("do not say which scenes" in note for note in notes)


def test_a_crop_larger_than_the_frames_is_refused(root, tmp_path):
  changes = {"crop": (HEIGHT + 1, WIDTH), "real.scenes": "moss", "num_samples": 1, "simulated.number": 0}
  config = make_config(root, **changes)
  with pytest.raises(UserError, match=r"config\.crop=.* larger than the model's frames, 48x64"):
    program.evaluate(config, tmp_path)


def test_an_evaluation_goes_on_where_it_was(report, root, monkeypatch):
  before = json.loads((root / "run" / "report.json").read_text())
  path = root / "run" / "results" / "real-moss.safetensors"
  path.write_bytes(path.read_bytes()[:-7])  # what cannot be read is judged again, as what is missing
  path = root / "run" / "results" / "real-fern_1.safetensors"
  judging.save_result(path, judging.load_result(path)._replace(features={}))  # of before the networks could be had
  judged = []

  def judge(key, scene, animator, **options):
    judged.append(scene.name)
    return judging.judge_scene(key, scene, animator, **options)

  monkeypatch.setattr(program, "judge_scene", judge)
  program.evaluate(make_config(root), root / "run")
  assert judged == ["fern_1", "moss"]
  assert json.loads((root / "run" / "report.json").read_text()) == before


def test_reports_are_compared(report, root):
  config = make_config(root, **{"simulated.number": 2})  # may change
  program.evaluate(config, root / "run", against=root / "run" / "report.json")
  assert read_report(root / "run" / "report.json").tables[0].columns == report.tables[0].columns
  assert "unchanged" in (root / "run" / "report.html").read_text()


def test_another_model_is_refused(report, root):
  weights = str(root / "other_weights")
  with pytest.raises(UserError, match="holds results of another model"):
    program.evaluate(make_config(root, weights=weights), root / "run")
  with pytest.raises(UserError, match="nothing to judge by"):
    program.evaluate(make_config(root, **{"real.folder": "", "simulated.number": 0}), root / "none")


def test_blind_predictions_do_not_know_the_scene():
  volumes = [make_volume(seed) for seed in range(3)]
  scene = judging.JudgedScene("a", "a", "real", np.zeros((2, 12, 16, 3), np.uint8), volumes[0], np.ones((6, 8)))
  blind = judging.predict_blindly(jax.random.key(0), scene, volumes[1:])
  mean = (volumes[1].coefficients + volumes[2].coefficients) / 2
  np.testing.assert_allclose(blind["mean motion"].coefficients, mean, atol=1e-5)
  power = np.mean([np.square(volume.coefficients).sum() for volume in volumes[1:]])
  np.testing.assert_allclose(np.square(blind["smooth noise"].coefficients).sum(), power, rtol=1e-4)
  assert set(judging.predict_blindly(jax.random.key(0), scene, [])) == {"still"}


def make_volume(seed):
  coefficients = np.random.default_rng(seed).normal(size=(4, 6, 8, 4)).astype(np.float32)
  coefficients[0, ..., 2:] = 0
  return judging.SpectralVolume(coefficients, num_frames=24, fps=30.0)
