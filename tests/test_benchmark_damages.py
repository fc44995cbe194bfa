"""Damage of benchmarks/damages.py: nothing at strength 0, growing with it, and what each kind must leave alone."""

import runpy
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gid_jax.errors import UserError
from gid_jax.evaluation import motion, motion_samples, rendering
from gid_jax.evaluation.networks import extractors
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("quick_compilation")

damage = types.SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "damages.py")))
GRID = np.linspace(0, 1, 6)


def _clip(num_frames=21, dtype=np.uint8, seed=0):
  values = np.random.default_rng(seed).uniform(0, 255, size=(num_frames, 9, 11, 3))
  return values.astype(dtype)


def _volume(seed=0, num_bands=5, height=6, width=7, num_frames=20):
  values = np.random.default_rng(seed).normal(size=(num_bands, height, width, 4)).astype(np.float32)
  values[0, ..., 2:] = 0  # the mean position is real
  return SpectralVolume(values * (1 + seed), num_frames=num_frames, fps=10.0)


def _values(sample):
  if isinstance(sample, list):
    return np.stack([_values(volume) for volume in sample])
  return np.asarray(sample.coefficients if isinstance(sample, SpectralVolume) else sample, np.float64)


def _samples(kind):
  if kind.acts_on == "frames":
    return _clip(41), _clip(41, seed=1)  # six blocks to shuffle
  if kind.acts_on == "samples":
    return [_volume(seed) for seed in range(6)], None
  return _volume(), _volume(seed=1)


@pytest.mark.parametrize("name", damage.DAMAGES)
def test_every_damage_grows_from_nothing(name):
  kind = damage.DAMAGES[name]
  sample, other = _samples(kind)
  before = _values(sample).copy()
  distances = []
  for strength in GRID:
    damaged = kind.apply(jax.random.key(3), sample, other, strength)
    assert type(damaged) is type(sample) and _values(damaged).shape == before.shape
    distances.append(np.abs(_values(damaged) - before).mean())
  assert distances[0] == 0
  assert (np.diff(distances) > 0).all()
  np.testing.assert_array_equal(_values(sample), before)  # the input is not touched
  assert kind.meant_for and not {*kind.meant_for} & {*kind.blind}


@pytest.mark.parametrize("name", damage.DAMAGES)
def test_every_damage_repeats_with_its_key_and_checks_its_strength(name):
  kind = damage.DAMAGES[name]
  sample, other = _samples(kind)
  first, second = (_values(kind.apply(jax.random.key(4), sample, other, 0.6)) for _ in range(2))
  np.testing.assert_array_equal(first, second)
  third = _values(kind.apply(jax.random.key(5), sample, other, 0.6))
  is_random = name in ("flicker", "frozen frames", "shuffled frames", "phase noise", "repeated samples")
  assert (third != first).any() == is_random
  for strength in (-0.1, 1.1, float("nan")):
    with pytest.raises(UserError, match="strength"):
      kind.apply(jax.random.key(4), sample, other, strength)


@pytest.mark.parametrize("strength, sigma", [(0.25, 1.0), (0.5, 2.0)])
def test_blur_is_a_gaussian(strength, sigma):
  frames = np.random.default_rng(0).uniform(size=(2, 40, 32, 3)).astype(np.float32)
  expected = ndimage.gaussian_filter(frames.astype(np.float64), (0, sigma, sigma, 0), mode="mirror", truncate=4)
  np.testing.assert_allclose(damage.blur_frames(frames, strength), expected, atol=1e-4)
  in_bytes = np.rint(frames * 255).astype(np.uint8)
  blurred = damage.blur_frames(in_bytes, strength)
  assert blurred.dtype == np.uint8
  assert np.abs(blurred - expected * 255).max() < 1.1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num_frames=st.integers(2, 30), strength=st.floats(0, 1))
def test_frozen_frames_repeat_the_one_before(seed, num_frames, strength):
  frames = np.arange(num_frames, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 1, 3), np.float32)
  frozen = damage.freeze_frames(jax.random.key(seed), frames, strength)[:, 0, 0, 0]
  repeats = np.diff(frozen) == 0
  assert repeats.sum() == round(strength * (num_frames - 1))
  expected = np.arange(num_frames)
  for t in range(1, num_frames):
    expected[t] = expected[t - 1] if repeats[t - 1] else t
  np.testing.assert_array_equal(frozen, expected)


def test_frozen_frames_nest_and_end_at_a_still():
  frames = _clip()
  key, before = jax.random.key(0), np.zeros(20, bool)
  for strength in GRID:
    repeats = (np.diff(damage.freeze_frames(key, frames, strength).astype(int), axis=0) == 0).all((1, 2, 3))
    assert (repeats | ~before).all()
    before = repeats
  np.testing.assert_array_equal(damage.freeze_frames(key, frames, 1), np.stack([frames[0]] * 21))
  np.testing.assert_array_equal(damage.freeze_frames(key, frames[:1], 1), frames[:1])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.sampled_from([0.3, 0.5, 1.0]), num_frames=st.sampled_from([16, 19, 33]))
def test_shuffled_frames_stay_in_their_blocks(seed, strength, num_frames):
  frames = np.arange(num_frames, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 1, 3), np.float32)
  order = damage.shuffle_frames(jax.random.key(seed), frames, strength)[:, 0, 0, 0].astype(int)
  blocks = {16: [8, 8], 19: [7, 6, 6], 33: [7, 7, 7, 6, 6]}[num_frames]
  block_of = np.repeat(np.arange(len(blocks)), blocks)
  np.testing.assert_array_equal(block_of[order], block_of)
  np.testing.assert_array_equal(np.sort(order), np.arange(num_frames))
  assert np.unique(block_of[order != np.arange(num_frames)]).size <= round(strength * len(blocks))


def test_blocks_are_shuffled_alike_at_every_strength():
  frames, key = _clip(64), jax.random.key(1)
  full = damage.shuffle_frames(key, frames, 1).reshape(8, -1)
  untouched = frames.reshape(8, -1)
  before = np.zeros(8, bool)
  for strength in (0.25, 0.5, 0.75):
    part = damage.shuffle_frames(key, frames, strength).reshape(8, -1)
    changed = (part != untouched).any(1)
    np.testing.assert_array_equal(part[changed], full[changed])
    assert changed.sum() == round(8 * strength) and (changed | ~before).all()
    before = changed


def test_flicker_changes_the_brightness_of_whole_frames():
  frames = np.full((200, 4, 5, 3), 0.5, np.float32)
  flickering = damage.flicker_frames(jax.random.key(0), frames, 0.5, largest=0.2)
  factors = flickering[:, 0, 0, 0] / 0.5
  np.testing.assert_allclose(flickering, frames * factors[:, None, None, None], rtol=1e-6)
  assert np.abs(factors - 1).max() == pytest.approx(0.1, abs=0.005) and np.unique(factors).size > 150
  assert factors.mean() == pytest.approx(1, abs=0.02)
  in_bytes = damage.flicker_frames(jax.random.key(0), np.full((200, 4, 5, 3), 250, np.uint8), 1)
  assert in_bytes.dtype == np.uint8 and in_bytes.max() == 255 and 225 <= in_bytes.min() < 230


@pytest.mark.parametrize("name, factor", [("motion x 2", 2.0), ("motion x 0.5", 0.5)])
def test_motion_scales_geometrically(name, factor):
  volume = _volume()
  apply = damage.DAMAGES[name].apply
  scaled = [_values(apply(jax.random.key(0), volume, None, s)) for s in (0, 0.5, 1)]
  np.testing.assert_allclose(scaled[1] ** 2, scaled[0] * scaled[2], rtol=1e-5)
  np.testing.assert_allclose(scaled[2], factor * _values(volume), rtol=1e-6)


def _to_complex(volume):
  channels = _values(volume)
  return channels[..., :2] + 1j * channels[..., 2:]


def test_phase_noise_keeps_amplitudes_and_orbits():
  volume = _volume(num_bands=6, num_frames=10)  # band 5 is the Nyquist band
  scattered = damage.scatter_phases(jax.random.key(0), volume, 0.7)
  before, after = _to_complex(volume), _to_complex(scattered)
  np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-5)
  np.testing.assert_array_equal(after[[0, 5]], before[[0, 5]])
  turned = np.angle(after / before)[1:5]
  np.testing.assert_allclose(turned[..., 0], turned[..., 1], atol=1e-4)
  assert np.abs(turned).max() <= 0.7 * np.pi + 1e-4
  assert np.unique(np.round(turned[..., 0], 5)).size == turned[..., 0].size  # each pixel and band its own
  assert (scattered.num_frames, scattered.fps) == (10, 10.0)


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75, 1.0])
def test_phase_noise_is_as_wide_as_it_says(strength):
  volume = SpectralVolume(np.ones((2, 100, 100, 4), np.float32), num_frames=20)
  after = _to_complex(damage.scatter_phases(jax.random.key(0), volume, strength))[1, ..., 0] / (1 + 1j)
  assert np.mean(after.real) == pytest.approx(np.sinc(strength), abs=0.03)
  assert np.mean(after.imag) == pytest.approx(0, abs=0.03)


def test_takes_are_independent_and_alike_but_for_their_phases():
  volume = _volume(num_bands=6, num_frames=10)
  takes = damage.draw_takes(jax.random.key(0), volume, 3)
  before = _to_complex(volume)
  turns = []
  for take in takes:
    ratio = _to_complex(take)[1:5] / before[1:5]
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] * np.ones_like(ratio), atol=1e-4)  # a band turns as one
    np.testing.assert_allclose(np.abs(ratio), 1, rtol=1e-5)
    np.testing.assert_array_equal(_values(take)[[0, 5]], _values(volume)[[0, 5]])
    turns += np.angle(ratio[:, 0, 0, 0]).tolist()
  assert np.unique(np.round(turns, 4)).size == 12 and np.ptp(turns) > np.pi


def test_samples_repeat_the_first_one():
  samples = [_volume(seed) for seed in range(9)]
  before = set()
  for strength, num in ((0, 0), (0.25, 2), (0.5, 4), (1, 8)):
    found = damage.repeat_samples(jax.random.key(2), samples, strength)
    repeated = {number for number in range(1, 9) if found[number] is samples[0]}
    assert len(repeated) == num and before <= repeated
    assert all(found[number] is samples[number] for number in set(range(9)) - repeated)
    before = repeated


def _swing(values):
  return np.sqrt((values[1:] ** 2).mean())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), likeness=st.floats(-0.9, 0.9), size=st.floats(0.1, 10))
def test_the_wrong_motion_takes_over_at_constant_swing(seed, likeness, size):
  rng = np.random.default_rng(seed)
  kept, wrong = rng.normal(size=(2, 3, 4, 5, 4)).astype(np.float32)
  wrong = size * (likeness * kept + (1 - abs(likeness)) * wrong)
  volume, other = SpectralVolume(kept, num_frames=20), SpectralVolume(wrong, num_frames=20)
  correlations, shares = [], []
  for strength in GRID:
    mixed = _values(damage.mix_motion(volume, other, strength))
    assert _swing(mixed) == pytest.approx(_swing(kept), rel=1e-4)
    correlations.append((mixed[1:] * kept[1:]).mean() / _swing(kept) ** 2)
    shares.append((mixed[1:] * wrong[1:]).mean())
  assert (np.diff(correlations) < 1e-5).all() and correlations[-1] < correlations[0] == pytest.approx(1)
  assert (np.diff(shares) > -1e-5).all()
  np.testing.assert_allclose(mixed, wrong * (_swing(kept) / _swing(wrong)), rtol=1e-4, atol=1e-5)


def test_mixing_with_a_scene_that_stands_still_or_does_not_fit():
  volume = _volume()
  still = volume.replace(coefficients=np.zeros_like(volume.coefficients))
  np.testing.assert_array_equal(_values(damage.mix_motion(volume, still, 0.5)), _values(volume))
  np.testing.assert_array_equal(_values(damage.mix_motion(still, volume, 0.5)), 0)
  for other in (_volume(width=8), _volume(num_frames=24)):
    with pytest.raises(UserError, match="resize_spectrum"):
      damage.mix_motion(volume, other, 0.5)


def _swaying(*, column, peak, power, seed):
  """A volume that sways around `column`, in step with its neighbours, fastest in band `peak`."""
  rng = np.random.default_rng(seed)
  bands, (y, x) = np.arange(5), np.mgrid[:24, :32]
  envelope = np.exp(-(((x - column) / 8) ** 2) - 0.05 * np.abs(bands[:, None, None] - peak) * (1 + y % 7))
  size = 60 * np.exp(-power * np.abs(bands - peak))[:, None, None] * envelope
  phase = rng.uniform(0, 6, size=(5, 1, 1)) + 0.03 * (x + y)
  coefficients = np.stack([size * np.cos(phase), 0.3 * size, size * np.sin(phase), 0.1 * size], -1)
  coefficients[0, ..., 2:] = 0
  return SpectralVolume(coefficients.astype(np.float32), num_frames=20, fps=10.0)


def test_motion_metrics_see_the_damage_meant_for_them():
  real = _swaying(column=8, peak=1, power=0.7, seed=0)
  other = _swaying(column=24, peak=3, power=0.3, seed=1)
  swing = motion.rms_swing(real, stride=2)
  regions = motion.Regions(swing > 0.3 * swing.max(), swing < 0.05 * swing.max())
  takes = damage.draw_takes(jax.random.key(1), real, 9)
  for kind in damage.DAMAGES.values():
    if kind.acts_on == "frames":
      continue
    found = []
    for strength in (0, 0.5, 1):
      if kind.acts_on == "volume":
        damaged = kind.apply(jax.random.key(0), real, other, strength)
        judged = motion.judge_prediction(damaged, real, regions, stride=2)
        found.append(judged | motion_samples.judge_samples([damaged], [real], regions.moving, stride=2))
      else:
        samples = kind.apply(jax.random.key(0), takes[:5], None, strength)
        found.append(motion_samples.judge_samples(samples, takes[5:], regions.moving, stride=2))
    for metric in kind.meant_for:
      better = {"auc": "higher", "share_moving": "", "diversity": ""}.get(metric, "lower")
      worsening = damage.measure_worsening([row[metric] for row in found], better=better)
      assert worsening[2] > 0, metric
      if metric != "band_correlation_error":  # half way between two scenes, bands may be less alike than in either
        assert damage.is_monotone(worsening), metric
    if kind.acts_on == "volume":  # of few samples, those that are left decide
      for metric in kind.blind:
        np.testing.assert_allclose([row[metric] for row in found], found[0][metric], atol=1e-3, err_msg=metric)


def test_names_are_those_of_the_results():
  meant = {name for kind in damage.DAMAGES.values() for name in (*kind.meant_for, *kind.blind)}
  real = _swaying(column=8, peak=1, power=0.7, seed=0)
  everywhere = np.ones((24, 32), bool)
  known = {*motion.judge_prediction(real, real, motion.Regions(everywhere, everywhere), stride=2)}
  known |= {*motion_samples.judge_samples([real], [real], everywhere, stride=2)}
  known |= {*rendering.METRICS, *rendering.Flicker._fields, *extractors.VIDEO_FRAMES}
  # Of networks of frames only this one needs no weights; the others follow its pattern.
  name = extractors.load_extractor("efficientnet_lite0").name
  known |= {f"{network}-{kind}" for network in ("VGG16", "ResNet34") for kind in ("Fréchet", "kernel")}
  assert meant - known == {"FID", "KID", name, name.replace("Fréchet", "kernel")}


@pytest.mark.parametrize(
  "values, better, expected, monotone",
  [
    ([5, 4, 2], "higher", [0, 1, 3], True),
    ([5, 4, 2], "lower", [0, -1, -3], False),
    ([5, 4, 7], "", [0, 1, 2], True),
    ([0, 2, 1], "lower", [0, 2, 1], False),
    ([0, 1, 0.99, 2], "lower", [0, 1, 0.99, 2], True),  # within the tolerance
    ([0, np.nan, 1], "lower", [0, np.nan, 1], True),
    ([3, 3, 3], "lower", [0, 0, 0], False),
    ([0, 0, 2], "lower", [0, 0, 2], True),
  ],
)
def test_worsening_and_whether_it_is_monotone(values, better, expected, monotone):
  worsening = damage.measure_worsening(values, better=better)
  np.testing.assert_allclose(worsening, expected)
  assert damage.is_monotone(worsening) == monotone
