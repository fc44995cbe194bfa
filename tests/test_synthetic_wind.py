"""The wind's courses: at rest at frame 0, solutions of the oscillator's equation, gusts that travel and part."""

import numpy as np
import pytest

from data_pipeline.synthetic import wind as winds
from data_pipeline.synthetic.wind import COSINE, LINEAR, SINE, SQUARE, Wind, course_index

NUM_FRAMES, FPS, WIDTH = 60, 20.0, 256
STIFF = 1e7  # Hz: such an oscillator follows the force at once
ZETA = 0.07


def make_wind(seed: int) -> Wind:
  return Wind(np.random.default_rng(seed), num_frames=NUM_FRAMES, fps=FPS, width=WIDTH)


def make_periodic_wind() -> Wind:
  """The first wind whose frequencies are all whole cycles of the window."""
  return next(wind for wind in map(make_wind, range(40)) if (wind.cycles == np.rint(wind.cycles)).all())


def follow(wind: Wind, driver: int, times) -> np.ndarray:
  return wind.courses(np.asarray(times))[:, course_index(driver, LINEAR)]


@pytest.mark.parametrize("poked", [0.0, 1.1])
def test_courses_are_zero_at_frame_zero_and_functions_of_one_angle(monkeypatch, poked):
  monkeypatch.setattr(winds, "POKED_SHARE", poked)
  wind = make_wind(0)
  np.testing.assert_array_equal(wind.courses(np.arange(3)), np.zeros((3, 1)))
  drivers = [wind.add_driver(hz, x=x, scale=0.5) for hz, x in ((0.6, 20), (2.0, 200))]
  drivers.append(wind.add_quadrature(drivers[0]))
  courses = wind.courses(np.array([0.0, 3.25, 17.0]))
  assert courses.shape == (3, 13) and not courses[0].any() and not courses[:, 0].any()
  for driver in drivers:
    d, sine, cosine, square = (courses[1:, course_index(driver, kind)] for kind in (LINEAR, SINE, COSINE, SQUARE))
    assert np.abs(d).min() > 1e-4
    np.testing.assert_allclose([sine, cosine, square], [np.sin(d), np.cos(d) - 1, d**2], atol=1e-12)


@pytest.mark.parametrize("poked", [0.0, 1.1])
@pytest.mark.parametrize("seed", range(4))
def test_a_driver_obeys_the_damped_oscillators_equation(monkeypatch, seed, poked):
  monkeypatch.setattr(winds, "POKED_SHARE", poked)
  hz, step = 1.3, 0.02
  soft, stiff = make_wind(seed), make_wind(seed)  # both draw the same force
  driver = soft.add_driver(hz, x=70, scale=1.0, damping=(ZETA, ZETA))
  follower = stiff.add_driver(STIFF, x=70, scale=1.0, damping=(ZETA, ZETA))
  times, omega = np.arange(5, 55, 0.3), 2 * np.pi * hz
  before, now, after = (follow(soft, driver, times + offset) for offset in (-step, 0, step))
  seconds = step / FPS
  left = (after - 2 * now + before) / seconds**2 + 2 * ZETA * omega * (after - before) / (2 * seconds) + omega**2 * now
  # D counts from frame 0 and each driver has its own level, so the force is known up to offset and positive factor.
  force = follow(stiff, follower, times)
  (factor, offset), *_ = np.linalg.lstsq(np.stack([force, np.ones_like(force)], 1), left, rcond=None)
  assert factor > 0
  np.testing.assert_allclose(factor * force + offset, left, atol=2e-3 * left.std())


def test_what_was_pulled_aside_swings_freely_until_it_rests(monkeypatch):
  monkeypatch.setattr(winds, "POKED_SHARE", 1.1)
  wind, hz = make_periodic_wind(), 2.0
  driver = wind.add_driver(hz, x=100, scale=1.0, damping=(ZETA, ZETA))
  times = np.linspace(0, 40, 201)
  # The little wind repeats itself after the window, which leaves the free motion.
  free = follow(wind, driver, times) - follow(wind, driver, times + 20 * NUM_FRAMES)
  seconds, omega = times / FPS, 2 * np.pi * hz
  expected = np.exp(-ZETA * omega * seconds) * np.cos(omega * np.sqrt(1 - ZETA**2) * seconds)
  assert 0.1 < abs(free[0]) < 1
  np.testing.assert_allclose(free / free[0], expected, atol=1e-9)


def test_drivers_reach_about_their_scale(monkeypatch):
  monkeypatch.setattr(winds, "POKED_SHARE", 0.0)
  farthest = []
  for seed in range(40):
    wind = make_wind(seed)
    drivers = [wind.add_driver(hz, x=90, scale=3.0) for hz in (0.4, 1.0, 2.5)]
    farthest += [np.abs(follow(wind, driver, np.arange(NUM_FRAMES))).max() for driver in drivers]
  assert 1.5 < np.median(farthest) < 4.5 and max(farthest) < 9


def test_a_quadrature_is_a_quarter_cycle_late_in_every_band(monkeypatch):
  monkeypatch.setattr(winds, "POKED_SHARE", 0.0)
  wind = make_periodic_wind()
  driver = wind.add_driver(0.9, x=30, scale=1.0)
  late = wind.add_quadrature(driver)
  # Sampled finely enough for the highest band.
  one, two = (np.fft.rfft(follow(wind, n, np.arange(0, NUM_FRAMES, 0.25)))[1 : winds.NUM_BANDS] for n in (driver, late))
  np.testing.assert_allclose(two, -1j * one, atol=1e-9 * np.abs(one).max())


def test_gusts_part_with_distance_and_frequency_as_davenport_says():
  wind, crossing = make_wind(1), 0.8
  gusts = np.stack([wind._draw_gusts(crossing) for _ in range(3000)])
  power = (np.abs(gusts) ** 2).mean(0)
  apart = np.arange(winds.NUM_COLUMNS) * 1.5 / (winds.NUM_COLUMNS - 1)  # in widths
  for band in (0, 2, 8):
    cross = (gusts[:, band] * gusts[:, band, :1].conj()).mean(0)
    found = np.abs(cross) / np.sqrt(power[band] * power[band, 0])
    expected = np.exp(-winds.COHERENCE_DECAY * wind.hz[band] * crossing * apart)
    np.testing.assert_allclose(found, expected, atol=0.06)
  # The power falls as frequency to the -5/3.
  slope = np.polyfit(np.log(wind.hz), np.log(power.mean(1)), 1)[0]
  np.testing.assert_allclose(slope, -5 / 3, atol=0.05)


def test_near_things_move_together_more_than_far_ones(monkeypatch):
  monkeypatch.setattr(winds, "POKED_SHARE", 0.0)
  near, far = [], []
  for seed in range(60):
    wind = make_wind(seed)
    first, beside, away = (
      follow(wind, wind.add_driver(STIFF, x=x, scale=1.0), np.arange(NUM_FRAMES)) for x in (20, 24, 236)
    )
    near.append(np.corrcoef(first, beside)[0, 1])
    far.append(np.corrcoef(first, away)[0, 1])
  assert np.mean(near) > np.mean(far) + 0.2 and np.mean(near) < 0.99


def test_a_gust_that_keeps_its_shape_comes_later_downwind(monkeypatch):
  monkeypatch.setattr(winds, "POKED_SHARE", 0.0)
  monkeypatch.setattr(winds, "COHERENCE_DECAY", 0.0)
  directions = set()
  for seed in range(12):
    wind = make_wind(seed)
    wind.coherence = 1.0  # no wake of its own
    first, second, third = (wind.add_driver(STIFF, x=x, scale=1.0) for x in (0, 60, 120))
    times, shifts = np.arange(0.0, 200.0, 2.0), np.arange(-20, 20, 0.1)
    moved = follow(wind, first, (times - shifts[:, None]).ravel()).reshape(len(shifts), -1)
    found = []
    for driver in (second, third):
      scores = np.corrcoef(follow(wind, driver, times), moved)[0, 1:]
      if max(scores) > 0.999:  # else it takes longer
        found.append(shifts[np.argmax(scores)])
    if len(found) == 2:
      assert abs(found[1] - 2 * found[0]) < 0.16
      crossing = abs(found[1]) / FPS * WIDTH / 120
      assert 0.25 < crossing < 4.2
      directions.add(np.sign(found[1]))
  assert directions == {-1, 1}
