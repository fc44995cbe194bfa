"""The names of the scenes trained on: found for a data set, joined along stages and resumed runs, and exported."""

import dataclasses
import json

import helpers
import jax.numpy as jnp
import pytest
import stored_windows
import training_runs

from configs import ldm, ldm_coordinated, renderer, vae
from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.data.scenes import find_trained_scenes, list_scenes
from gid_jax.parsing import parse, to_plain
from gid_jax.training.objectives import Objective, make_objective
from gid_jax.weights.checkpoint import read_settings, restore_params
from gid_jax.weights.pretrained import config_to_settings, export_weights, import_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

# (source, split, scene, windows) of clips; two of oak, and of storm nothing was good enough.
CLIPS = [
  ("real", "train", "oak", 1),
  ("real", "train", "fern", 1),
  ("real", "train", "oak", 1),
  ("real", "train", "storm", 0),
  ("real", "validation", "hat", 3),
  ("loop", "train", "rose", 2),
  ("loop", "validation", "lotus", 2),
  ("synthetic", "train", "synthetic-0", 1),
  ("synthetic", "validation", "synthetic-9", 1),
]


def write_records(folder, clips):
  """Writes records.jsonl as the builder does, as far as it matters here."""
  lines = []
  for number, (source, split, scene, num_windows) in enumerate(clips):
    name = f"{source}-clip{number}"
    windows = [f"{name}-{index:02d}" for index in range(num_windows)]
    lines.append(json.dumps(dict(name=name, source=source, split=split, scene=scene, windows=windows, failed=False)))
  (folder / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
  """A data set without records."""
  folder = tmp_path_factory.mktemp("windows")
  stored_windows.write_sources(folder, {"real": 3, "loop": 2, "synthetic": 1})
  return folder


@pytest.fixture
def data(windows):
  write_records(windows, CLIPS)
  yield windows
  (windows / "records.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize(
  "shares, expected",
  [
    ({}, {"real": ["fern", "oak"], "loop": ["rose"]}),
    ({"live": 0.0}, {"real": ["fern", "oak"], "loop": ["rose"]}),
    ({"real": 0.5, "loop": 0.0, "synthetic": 0.5, "live": 0.0}, {"real": ["fern", "oak"], "loop": []}),
    ({"real": 0.0, "loop": 1.0}, {"real": [], "loop": ["rose"]}),
    ({"synthetic": 1.0}, {"real": [], "loop": []}),
    ({"live": 1.0}, {"real": [], "loop": []}),
  ],
)
def test_scenes_of_training_windows_that_have_a_share(data, shares, expected):
  assert list_scenes(stored_windows.make_config(data, sources=shares)) == expected


def test_scenes_of_several_folders(data, tmp_path):
  stored_windows.write_sources(tmp_path, {"real": 1, "synthetic": 1})
  config = stored_windows.make_config(f"{data},{tmp_path}")
  assert list_scenes(config) is None
  write_records(tmp_path, [("real", "train", "hat", 1), ("synthetic", "train", "synthetic-0", 1)])
  assert list_scenes(config) == {"real": ["fern", "hat", "oak"], "loop": ["rose"]}


def test_simulated_scenes_have_no_names():
  assert list_scenes(stored_windows.make_config("", sources={"live": 1.0})) == {"real": [], "loop": []}


def remove_records(path):
  path.unlink()


def damage_records(path):
  path.write_text(path.read_text()[:-20])


def begin_to_build_loops_again(path):
  path.write_text("".join(line for line in path.read_text().splitlines(True) if '"loop"' not in line))


@pytest.mark.parametrize("spoil", [remove_records, damage_records, begin_to_build_loops_again])
def test_scenes_that_are_not_listed_are_unknown_and_not_none_at_all(data, spoil):
  spoil(data / "records.jsonl")
  assert list_scenes(stored_windows.make_config(data)) is None
  # Simulated windows need no list.
  assert list_scenes(stored_windows.make_config(data, sources={"synthetic": 1.0})) == {"real": [], "loop": []}


def test_scenes_of_before_are_joined(data):
  config = stored_windows.make_config(data)
  earlier = {"stage": "vae", "trained_on": {"real": ["oak", "alder"], "loop": ["tulip"]}}
  assert find_trained_scenes(config, earlier=earlier) == {"real": ["alder", "fern", "oak"], "loop": ["rose", "tulip"]}
  assert find_trained_scenes(config, earlier=None) == {"real": ["fern", "oak"], "loop": ["rose"]}
  assert find_trained_scenes(config, earlier={"stage": "vae"}) is None
  (data / "records.jsonl").unlink()
  assert find_trained_scenes(config, earlier=earlier) is None


@pytest.mark.parametrize(
  "module, init, expected",
  [
    (vae, {}, ""),
    (vae, {"vae": "runs/a"}, "runs/a"),
    (ldm, {"vae": "runs/a"}, "runs/a"),
    (ldm, {"vae": "runs/a", "ldm": "runs/b"}, "runs/b"),
    (ldm_coordinated, {"ldm": "runs/b"}, "runs/b"),
    (renderer, {}, ""),
    (renderer, {"renderer": "runs/c"}, "runs/c"),
  ],
)
def test_what_a_stage_builds_on(module, init, expected):
  config = module.get_config("tiny")
  config.init.update(init)
  settings = parse(TrainSettings, config)
  assert make_objective(settings, band_scale=training_runs.SCALE).start == expected


def write_data(folder, source, scene):
  """A data set of one scene to train on, in two windows, and another to validate."""
  sets = {"train": [0, 1], "validation": [2]}
  windows = {split: [training_runs.make_window(i)._replace(source=source) for i in of] for split, of in sets.items()}
  helpers.write_dataset(folder, source, windows, statistics={"scale": training_runs.SCALE.tolist()})
  write_records(folder, [(source, "train", scene, 2), (source, "validation", "hat", 1)])
  return folder


def make_small_objective(settings, *, band_scale, strength):
  """One number instead of an auto-encoder, which would take a minute to compile."""

  def loss_fn(key, params, batch):
    loss = ((batch["slice"] - params["mean"]) ** 2).mean()
    return loss, {"loss": loss}

  make = lambda *_: {"mean": jnp.zeros(())}
  return Objective(make, make, lambda path: True, loss_fn, settings.init["vae"])


def train(workdir, data, *, num_steps, **init):
  """Trains something and gives the list that is saved with its newest checkpoint."""
  config = training_runs.make_config(vae, data, num_steps=num_steps, batch_size=2)
  config.init.update({name: str(path) for name, path in init.items()})
  training.train(config, workdir, make_objective=make_small_objective)
  _, settings = restore_params(workdir)
  assert settings["optimizer"]["num_steps"] == num_steps
  return settings.get("trained_on", "unknown")


def test_the_list_follows_the_weights(tmp_path, capsys):
  oak, fern = write_data(tmp_path / "oak", "real", "oak"), write_data(tmp_path / "fern", "real", "fern")
  rose, first, second = write_data(tmp_path / "rose", "loop", "rose"), tmp_path / "first", tmp_path / "second"
  # Nothing, the run itself on other data, then another run on what the first has become.
  assert train(first, oak, num_steps=2) == {"real": ["oak"], "loop": []}
  assert train(first, fern, num_steps=3) == {"real": ["fern", "oak"], "loop": []}
  joined = {"real": ["fern", "oak"], "loop": ["rose"]}
  assert train(second, rose, num_steps=2, vae=first) == joined
  params, config = restore_params(second)
  weights = str(tmp_path / "motion.safetensors")
  export_weights(weights, params, settings=config_to_settings(config))
  assert to_plain(import_weights(weights)[1].trained_on) == read_settings(weights)["trained_on"] == joined
  assert "not all scenes" not in capsys.readouterr().out

  # A run that goes on is asked for its own list, not for that of where it began.
  params, settings = import_weights(tmp_path / "motion.safetensors")
  export_weights(tmp_path / "old.safetensors", params, settings=dataclasses.replace(settings, trained_on=None))
  assert train(second, rose, num_steps=3, vae=tmp_path / "old.safetensors") == joined
  # What has become unknown stays so.
  records = (rose / "records.jsonl").rename(tmp_path / "records.jsonl")
  assert train(second, rose, num_steps=4, vae=first) == "unknown"
  records.rename(rose / "records.jsonl")
  assert train(second, rose, num_steps=5, vae=first) == "unknown"
  assert "not all scenes" in capsys.readouterr().out
