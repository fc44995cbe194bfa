"""The fit of how far places swing: against scikit-like closed forms written out, and scenes whose truth is known."""

import re
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
import training_runs
from scipy.optimize import minimize

from configs import ldm
from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.errors import UserError
from gid_jax.models.encoders import SWING_RANGE, SwingHead, combine_odds
from gid_jax.motion.spectral import spectrum_to_motion
from gid_jax.parsing import parse
from gid_jax.training import swing
from gid_jax.training.objectives import make_objective
from gid_jax.types import SpectralVolume
from gid_jax.weights.checkpoint import restore_params
from gid_jax.weights.pretrained import import_weights

RNG = np.random.default_rng(0)


def make_windows(rng, *, num_windows=12, size=(5, 6), channels=7, noise=0.3):
  """Features, and a log swing that is linear in them up to noise and a level of its own in every window."""
  weights = rng.normal(size=channels) / np.arange(1, channels + 1)
  deviations = rng.uniform(0.2, 3, size=channels)
  windows = []
  for _ in range(num_windows):
    features = rng.normal(size=(*size, channels)) * deviations + rng.normal(size=channels)
    windows.append((features, features @ weights + 3 * rng.normal() + noise * rng.normal(size=size)))
  return windows, weights


def centre(array):
  flat = array.reshape(-1, *array.shape[2:])
  return flat - flat.mean(0)


def test_ridge_is_the_penalised_fit_with_the_length_of_least_squares():
  windows, _ = make_windows(np.random.default_rng(1))
  ridge = swing.start_ridge(7)
  for features, target in windows:
    ridge = ridge.add(features.reshape(-1, 7), target.ravel())
  x, y = (np.concatenate([centre(part) for part in parts]) for parts in zip(*windows, strict=True))
  scaled = x / x.std(0)
  for penalty in (1e-6, 0.5, 30.0):
    # The penalised direction from an optimiser, which knows nothing of normal equations.
    cost = lambda w, penalty=penalty: ((scaled @ w - y) ** 2).mean() + penalty * (w**2).sum()
    direction = minimize(cost, np.zeros(7), method="L-BFGS-B", options=dict(ftol=1e-15, gtol=1e-10)).x / x.std(0)
    expected = direction * np.polyfit(x @ direction, y, 1)[0]
    np.testing.assert_allclose(ridge.solve(penalty), expected, rtol=1e-3, atol=1e-4)


def test_levels_of_whole_windows_do_not_disturb_the_fit():
  windows, weights = make_windows(np.random.default_rng(2), noise=0.0)
  ridge = swing.start_ridge(7)
  for features, target in windows:
    ridge = ridge.add(features.reshape(-1, 7), target.ravel())
  np.testing.assert_allclose(ridge.solve(1e-9), weights, rtol=1e-5)


def test_the_contrast_is_the_slope_of_scenes_left_out():
  windows, _ = make_windows(np.random.default_rng(5), num_windows=4)
  # A scene in which everything swings three times as unevenly as the same features say elsewhere.
  windows[3] = windows[3][0], windows[3][1] * 3
  groups = [swing.start_ridge(7).add(features.reshape(-1, 7), target.ravel()) for features, target in windows]
  whole = swing.start_ridge(7)
  for features, target in windows:
    whole = whole.add(features.reshape(-1, 7), target.ravel())
  agreement = size = 0
  for index, (features, target) in enumerate(windows):
    others = swing.start_ridge(7)
    for other, (more, truth) in enumerate(windows):
      others = others if other == index else others.add(more.reshape(-1, 7), truth.ravel())
    predicted = centre(features) @ others.solve(0.5)
    agreement, size = agreement + (predicted * centre(target)).sum(), size + (predicted**2).sum()
  expected = agreement / size * whole.solve(0.5)
  np.testing.assert_allclose(swing.fit_kernel(groups, penalty=0.5), expected, rtol=1e-6)
  assert abs(agreement / size - 1) > 0.05
  np.testing.assert_allclose(swing.fit_kernel(groups[:1], penalty=0.5), groups[0].solve(0.5))
  # Two scenes that contradict each other say nothing.
  features, target = windows[0]
  contrary = swing.start_ridge(7).add(features.reshape(-1, 7), -target.ravel())
  assert not swing.fit_kernel([groups[0], contrary], penalty=0.5).any()


def test_the_gate_is_the_minimum_of_the_penalised_logistic_loss():
  rng = np.random.default_rng(3)
  features = rng.normal(size=(60, 4)) * [1, 5, 0.3, 2] + [0, 2, 0, -1]
  is_moving = features @ [1, 0.1, -2, 0.3] + rng.normal(size=60) > 0.5
  share = np.where(is_moving, 0.5 / is_moving.sum(), 0.5 / (~is_moving).sum())
  mean = share @ features
  deviation = np.sqrt(share @ (features - mean) ** 2)

  def cost(w):
    odds = (features - mean) / deviation @ w[:-1] + w[-1]
    return share @ np.logaddexp(0, np.where(is_moving, -odds, odds)) + 0.05 * (w[:-1] ** 2).sum()

  best = minimize(cost, np.zeros(5), method="BFGS", options=dict(gtol=1e-8)).x
  kernel, bias = swing.fit_gate(features, is_moving, penalty=0.1)
  np.testing.assert_allclose(kernel, best[:-1] / deviation, rtol=1e-4)
  np.testing.assert_allclose(bias, best[-1] - mean @ (best[:-1] / deviation), rtol=1e-4)
  # A weight of two is the same as being there twice.
  twice = np.r_[np.arange(60), np.arange(0, 60, 3)]
  weights = 1.0 + (np.arange(60) % 3 == 0)
  one, other = (swing.fit_gate(features[i], is_moving[i], penalty=0.1, weights=w)
                for i, w in ((np.arange(60), weights), (twice, None)))  # fmt: skip
  np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
  np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
  with pytest.raises(UserError, match="give both"):
    swing.fit_gate(features, np.ones(60, bool), penalty=0.1)


def test_places_are_drawn_where_a_window_moves_and_scenes_count_alike():
  rng = np.random.default_rng(5)
  # The first channel says how far a place swings, the second whose window it is.
  sample, windows = swing.PlaceSample(), []
  for scene, offset in (("a", 0.0), ("a", 0.0), ("b", 3.0)):
    far = np.arange(200) < 50
    features = np.stack([np.where(far, 5.0, 0.0), np.full(200, offset)], -1) + rng.normal(size=(200, 2), scale=0.1)
    windows.append(features[far])
    sample.add_window(scene, features, np.log(np.where(far, 1.0, 0.1) + swing.FAINT))
  still = rng.normal(size=(40, 2))
  sample.add_still(still)
  is_moving = np.arange(190) < 150
  weights = np.r_[np.full(100, 0.01), np.full(50, 0.02), np.ones(40)]
  expected = swing.fit_gate(np.concatenate([*windows, still]), is_moving, penalty=0.1, weights=weights)
  found = sample.fit_gate(0.1)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
  np.testing.assert_allclose(found[1], expected[1] - swing.CAUTION, rtol=1e-6)


def test_log_swing_is_that_of_the_trajectories_in_photo_pixels():
  coefficients = RNG.normal(size=(3, 8, 12, 4), scale=20).astype(np.float32)
  coefficients[0, ..., 2:] = 0
  volume = SpectralVolume(coefficients, num_frames=16)
  motion = np.asarray(spectrum_to_motion(volume))
  square = ((motion - motion.mean(0)) ** 2).sum(-1).mean(0) * 2**2
  expected = np.log(np.sqrt(square.reshape(2, 4, 3, 4).mean((1, 3))) + 0.1)
  np.testing.assert_allclose(swing.find_log_swing(volume, stride=2, factor=4), expected, rtol=1e-4)


def test_a_fitted_head_finds_what_moves_and_calms_photos_of_nothing():
  windows, weights = make_windows(np.random.default_rng(4))
  shift = np.array([0, 0, 0, 0, 0, 0, 8.0])  # what only photos of nothing show
  stills = [RNG.normal(size=(5, 6, 7)) + shift for _ in range(10)]
  named = [(str(index), *window) for index, window in enumerate(windows)]
  head = swing.fit_swing(iter(named), iter(stills), penalty=0.01, gate_penalty=0.01)
  apply = jax.jit(lambda head, features: SwingHead().apply({"params": head}, features))
  features = np.stack([features for features, _ in windows])
  ungated = head | {"gate": 0 * head["gate"], "gate_bias": np.float32([100])}  # as if every place could move
  found = np.asarray(apply(ungated, features))
  expected = (features - features.mean((1, 2), keepdims=True)) @ weights
  # A tenth of a pixel was added before the logarithm, and is taken off again.
  level = np.mean([target.mean() for _, target in windows])
  faint = float(head["faint"][0])
  np.testing.assert_allclose(faint, min(0.1 / np.exp(level), 0.9), rtol=1e-5)
  inside = np.abs(expected) < 0.9 * abs(np.log(faint))
  assert inside.mean() > 0.3
  wanted = np.log(np.maximum(np.exp(np.minimum(expected, SWING_RANGE[1])) - faint, 1e-2) / (1 - faint))
  wanted -= np.percentile(wanted, 95, axis=(1, 2), keepdims=True)
  difference = (found - wanted)[inside]
  assert np.abs(difference - difference.mean()).mean() < 0.3
  # A twentieth of each photo may swing more than 1, photos of nothing by far less.
  tops = np.percentile(found, 95, axis=(1, 2))
  swings = [max(np.exp(np.percentile(target, 95)) - 0.1, 0.1) for _, target in windows]
  np.testing.assert_allclose(head["depth"], np.mean(np.log(swings)) - np.log(0.1), rtol=1e-5)
  np.testing.assert_allclose(tops, 0, atol=1e-5)
  found = np.asarray(apply(head, features))
  moves = np.stack([target > np.log(np.exp(target).max() / 2) for _, target in windows])
  assert found[moves].mean() > -0.3 * head["depth"]
  # A place of nothing in a photo that moves rests alone.
  mixed = features[:1].copy()
  mixed[0, 2, 3] = stills[0][2, 3]
  changed = np.asarray(apply(head, mixed))[0] - found[0]
  others = np.delete(changed.ravel(), 2 * changed.shape[1] + 3)
  assert changed[2, 3] < -0.5 * head["depth"] and np.abs(others).max() < 0.3 * head["depth"]
  calmed = np.asarray(apply(head, np.stack(stills)))
  assert np.percentile(calmed, 95, axis=(1, 2)).max() < -0.7 * head["depth"]
  extreme = np.asarray(apply(ungated, 1e6 * features))
  widest = np.log((np.exp(SWING_RANGE[1]) - faint) / (1 - faint)) - SWING_RANGE[0]
  assert np.ptp(extreme, axis=(1, 2)).max() <= widest + 1e-5


def test_fits_from_a_folder_and_a_motion_model_starts_from_it(tmp_path, quick_compilation):
  data, stills = tmp_path / "data", tmp_path / "stills"
  training_runs.write_windows(data, source="real")
  stills.mkdir()
  for index in range(3):
    cv2.imwrite(str(stills / f"{index}.png"), np.uint8(RNG.uniform(0, 255, (40, 90, 3))))
  output = tmp_path / "swing.safetensors"
  config = training_runs.make_config(ldm, data, num_steps=2, batch_size=4)
  training_runs.replace_parts(config, {"denoiser": training_runs.QUICK_PARTS["denoiser"]})
  with config.unlocked():
    config.model.codec = dict(kind="photo", factor=2)
  config.data.strength = True
  with pytest.raises(UserError, match="frozen image networks see"):
    swing.fit(parse(TrainSettings, config), stills, output, penalty=300.0, gate_penalty=0.1)
  config.model.encoder.trunks, config.init.encoder = ("my_parts:Edges",), "1"
  assert swing.fit(parse(TrainSettings, config), stills, output, penalty=300.0, gate_penalty=0.1) > 0
  params, settings = import_weights(output)
  assert settings.stage == "swing" and set(params) == {"swing_head"}
  assert np.abs(params["swing_head"]["kernel"]).max() > 0

  config.init.vae, config.init.swing, config.data.latent_draws = "", str(output), 1
  with config.unlocked():
    config.init.swing = ""
    with pytest.raises(UserError, match="needs a fitted swing"):
      make_objective(parse(TrainSettings, config))
    config.init.swing = str(output)
  state = training.train(config, tmp_path / "run")
  assert int(state.step) == 2
  trained, _ = restore_params(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, trained["swing_head"], params["swing_head"])
  np.testing.assert_allclose(trained["band_scale"], training_runs.SCALE[:4], rtol=1e-6)
  assert trained["strength"] > 1


def test_a_folder_without_clips_is_named(tmp_path):
  training_runs.write_windows(tmp_path / "data")
  config = ldm.get_config("default")
  config.data.directory = str(tmp_path / "data")
  with pytest.raises(UserError, match="no train windows of loop, real, only of synthetic"):
    swing.fit(parse(TrainSettings, config), "photos", tmp_path / "x.safetensors", penalty=300.0, gate_penalty=0.1)


def test_what_does_not_fit_is_said_before_anything_is_fitted(tmp_path):
  training_runs.write_windows(tmp_path / "data")
  config = training_runs.make_config(ldm, tmp_path / "data", num_steps=2, batch_size=4)
  fit = lambda output="x": swing.fit(
    parse(TrainSettings, config), "photos", tmp_path / output, penalty=300.0, gate_penalty=0.1)  # fmt: skip
  config.data.num_bands = config.model.num_bands = 99
  with pytest.raises(UserError, match=r"bands but config\.data\.num_bands=99"):
    fit()
  config.data.sources.live = 1.0
  with pytest.raises(UserError, match=r"give a share to others of config\.data\.sources than live"):
    fit()
  (tmp_path / "file").write_text("not a folder")
  with pytest.raises(UserError, match=r"cannot write .*file/x"):
    fit("file/x")


def test_the_command_says_what_it_wants():
  command = [sys.executable, "-m", "gid_jax.training.swing"]
  result = subprocess.run([*command, "--config=configs/ldm.py", "--stils=photos"], capture_output=True, text=True)
  assert (result.returncode, result.stdout) == (2, "")
  assert result.stderr == "error: --stills is missing, such as --stills=photos (not --stils)\n"
  result = subprocess.run(
    [*command, "--config=configs/ldm.py", "--stills=nowhere", "--output=x", "--config.data.directory=nowhere"],
    capture_output=True, text=True,
  )  # fmt: skip
  assert result.returncode == 2 and re.fullmatch(r"error: .*nowhere.*\n", result.stderr)


def test_a_places_odds_are_its_own_and_those_of_the_surest_tenth():
  odds = RNG.normal(size=(2, 5, 6)) * 3
  expected = [[0.7 * own + 0.3 * np.quantile(photo, 0.9) for own in photo.ravel()] for photo in odds]
  np.testing.assert_allclose(np.ravel(combine_odds(odds)), np.ravel(expected), atol=1e-5)
