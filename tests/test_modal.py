"""Modal dynamics against SciPy's integrator, closed forms and the Fourier series itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gid_jax.errors import UserError
from gid_jax.motion import modal, spectral
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEIGHT, WIDTH = 10, 12
TIP = np.float32([[8.0, 2.0]])
WALL = np.float32([[1.0, 8.0]])

step = jax.jit(modal.step, static_argnames="integrator")
grab = jax.jit(modal.grab)
poke = jax.jit(modal.poke)
field = jax.jit(modal.modal_field)


def _scene(num_bands=8, num_frames=60, seed=0):
  """A plant around TIP that sways, before a wall at the left that moves a thousand times less."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  reach = np.exp(-((x - 8) ** 2 + (y - 2) ** 2) / 12) + 1e-3
  phases = rng.normal(size=(num_bands, 4)) * np.exp(-np.arange(num_bands) / 3)[:, None]
  rates, offsets = rng.uniform(0.2, 0.6, (num_bands, 1, 1)), rng.uniform(0, 6, (num_bands, 1, 1))
  texture = 1 + 0.5 * np.sin(x[None] * rates + offsets)
  values = 60 * phases[:, None, None, :] * (reach * texture)[..., None]
  return SpectralVolume(jnp.asarray(values, jnp.float32), num_frames, 30.0)


@pytest.fixture(scope="module")
def basis():
  return jax.jit(modal.spectrum_to_basis)(_scene())


def _lengths(vectors):
  return np.linalg.norm(vectors, axis=-1)


def test_playback_is_the_generated_video(basis):
  volume = _scene()
  frames = np.array([0.0, 3.5, 59.0, 61.25])
  coordinates = modal.playback(basis, frames / 30)
  still = volume.replace(coefficients=volume.coefficients.at[0].set(0.0))
  expected = spectral.evaluate_motion(still, frames)
  np.testing.assert_allclose(jnp.stack([field(basis, q) for q in coordinates]), expected, atol=1e-4)


def test_nyquist_band_plays_back_too():
  motion = np.random.default_rng(0).normal(size=(6, 2, 2, 2)).astype(np.float32)
  motion -= motion.mean(axis=0)
  nyquist = modal.spectrum_to_basis(spectral.motion_to_spectrum(motion, num_bands=4))
  shown = [modal.modal_field(nyquist, q) for q in modal.playback(nyquist, np.arange(6) / 30)]
  np.testing.assert_allclose(np.stack(shown), motion, atol=1e-5)


def test_basis_follows_its_definitions():
  volume = _scene()
  basis = modal.spectrum_to_basis(volume, damping=modal.Damping(alpha=0.3, beta=0.05))
  omega = 2 * np.pi * np.arange(1, 8) * 30 / 60
  np.testing.assert_allclose(basis.omega, omega, rtol=1e-6)
  np.testing.assert_allclose(basis.gamma, 0.3 + 0.05 * omega**2, rtol=1e-6)
  values = np.asarray(volume.coefficients)[1:]
  modes = 2 / 60 * (values[..., :2] + 1j * values[..., 2:])
  np.testing.assert_allclose(basis.modes, modes, rtol=1e-5)
  expected = (np.abs(modes) ** 2 / omega[:, None, None, None] ** 2).sum(axis=(0, 3))
  np.testing.assert_allclose(modal.grabability(basis), expected, rtol=1e-4)
  mobility = (np.abs(modes) ** 2).sum(axis=(0, 3))
  for found, field in ((basis.compliance, expected), (basis.mobility, mobility)):
    np.testing.assert_allclose(found, np.average(field, weights=field), rtol=1e-4)


def test_volumes_without_modes_are_refused():
  with pytest.raises(UserError, match="k >= 2"):
    modal.spectrum_to_basis(SpectralVolume(jnp.zeros((1, 4, 4, 4))))
  with pytest.raises(UserError, match="batch"):
    modal.spectrum_to_basis(SpectralVolume(jnp.zeros((2, 3, 4, 4, 4))))


def test_displacement_at_points_interpolates_the_field(basis):
  q = modal.playback(basis, 0.4)
  whole = np.asarray(field(basis, q))
  points = np.float32([[3, 4], [11, 9], [2.25, 6.5], [40, -3]])
  got = modal.modal_displacement(basis, q, points)
  between = 0.5 * (0.75 * whole[6, 2] + 0.25 * whole[6, 3] + 0.75 * whole[7, 2] + 0.25 * whole[7, 3])
  np.testing.assert_allclose(got, [whole[4, 3], whole[9, 11], between, whole[0, 11]], atol=1e-5)


def _minimum_norm(basis, points, displacements):
  """The constrained minimum by a pseudo-inverse in float64: real unknowns omega Re q and omega Im q."""
  omega = np.asarray(basis.omega, np.float64)
  columns = np.array([np.asarray(basis.modes)[:, int(y), int(x)] for x, y in points], np.complex128)
  columns = columns.transpose(0, 2, 1).reshape(2 * len(points), -1) / omega
  solution = np.linalg.pinv(np.concatenate([columns.real, -columns.imag], axis=1)) @ displacements.ravel()
  return (solution[: len(omega)] + 1j * solution[len(omega) :]) / omega


@settings(max_examples=25, deadline=None)
@given(dx=st.floats(-20, 20, width=32), dy=st.floats(-20, 20, width=32))
def test_grabbed_point_stays_under_the_finger_in_the_softest_shape(basis, dx, dy):
  displacement = np.float32([[dx, dy]])
  q = grab(basis, TIP, displacement)
  size = max(1.0, float(np.abs(displacement).max()))
  np.testing.assert_allclose(modal.modal_displacement(basis, q, TIP), displacement, atol=2e-3 * size)
  np.testing.assert_allclose(q, _minimum_norm(basis, TIP, displacement), atol=5e-3 * size)


def test_fingers_and_pins_hold_together(basis):
  points = np.float32([[8, 2], [6, 2], [9, 4]])
  displacements = np.float32([[2, 1], [0, 0], [-1, 0.5]])
  q = grab(basis, points, displacements, epsilon=1e-7)
  np.testing.assert_allclose(modal.modal_displacement(basis, q, points), displacements, atol=2e-2)
  free = grab(basis, points[:1], displacements[:1])
  assert _lengths(modal.modal_displacement(basis, free, points[1:2]))[0] > 0.5  # the pin made a difference


def test_a_moving_scene_is_taken_up_without_a_jump(basis):
  q = modal.playback(basis, 1.1)
  here = modal.modal_displacement(basis, q, TIP)
  np.testing.assert_allclose(grab(basis, TIP, here - modal.modal_displacement(basis, q, TIP)), 0.0, atol=1e-6)
  held = q + grab(basis, TIP, np.float32([[3, -1]]) - here)
  np.testing.assert_allclose(modal.modal_displacement(basis, held, TIP), [[3, -1]], atol=1e-2)


def test_a_wall_cannot_be_torn_nor_fling_what_stands_before_it(basis):
  pull = np.float32([[30, 20]])
  shape = _lengths(field(basis, grab(basis, WALL, pull)))
  assert shape.max() < 0.05 * np.linalg.norm(pull)
  assert shape[8, 1] < 0.1
  struck = poke(basis, modal.rest_state(basis), WALL, pull)
  assert _lengths(field(basis, struck.v)).max() < 0.05 * np.linalg.norm(pull)


def test_a_direction_without_motion_is_not_pulled():
  volume = _scene()
  sideways = volume.replace(coefficients=volume.coefficients.at[..., 1::2].multiply(1e-3))
  basis = modal.spectrum_to_basis(sideways)
  np.testing.assert_allclose(
    modal.modal_displacement(basis, grab(basis, TIP, np.float32([[4, 30]])), TIP), [[4, 0]], atol=0.1
  )


def test_contradictory_fingers_and_still_scenes_give_finite_answers(basis):
  twice = np.float32([[8, 2], [8, 2]])
  q = grab(basis, twice, np.float32([[5, 0], [-5, 0]]))
  assert _lengths(field(basis, q)).max() < 1.0
  still = modal.spectrum_to_basis(SpectralVolume(jnp.zeros((4, HEIGHT, WIDTH, 4)), 60))
  np.testing.assert_array_equal(field(still, grab(still, TIP, np.float32([[5, 5]]))), 0.0)


def test_release_keeps_shape_and_pointer_velocity(basis):
  displacement, velocity = np.float32([[3, 1]]), np.float32([[-40, 25]])
  state = modal.release(basis, TIP, displacement, velocity)
  np.testing.assert_allclose(state.q, grab(basis, TIP, displacement), rtol=1e-5)
  np.testing.assert_allclose(modal.modal_displacement(basis, state.v, TIP), velocity, atol=0.1)
  dt = 1e-3
  moved = step(basis, state, jnp.zeros_like(state.q), dt)
  gained = modal.modal_displacement(basis, moved.q - state.q, TIP) / dt
  np.testing.assert_allclose(gained, velocity, atol=1.5)


def test_poke_adds_momentum_and_moves_nothing_at_once(basis):
  before = modal.release(basis, TIP, np.float32([[2, 0]]), np.float32([[5, 5]]))
  after = poke(basis, before, TIP, np.float32([[60, -30]]))
  np.testing.assert_array_equal(after.q, before.q)
  gained = modal.modal_displacement(basis, after.v - before.v, TIP)
  np.testing.assert_allclose(gained, [[60, -30]], atol=0.1)
  # An impulse J at the point is conj(Phi) . J in every mode: one real J explains all of them.
  responses = np.asarray(basis.modes)[:, 2, 8].conj()
  system = np.concatenate([responses.real, responses.imag])
  change = np.asarray(after.v - before.v)
  _, residual, _, _ = np.linalg.lstsq(system, np.concatenate([change.real, change.imag]), rcond=None)
  assert residual[0] < 1e-6 * np.sum(np.abs(change) ** 2)


def _oscillators(omega, gamma):
  omega, gamma = jnp.asarray(omega, jnp.float32), jnp.asarray(gamma, jnp.float32)
  zero = jnp.zeros(())
  return modal.ModalBasis(jnp.zeros((omega.size, 1, 1, 2), jnp.complex64), omega, gamma, zero, zero)


# Under-damped, undamped, just below, at and just above critical damping, and over-damped.
OMEGA = np.float32([1.26, 5.0, 4.0, 4.0, 4.0, 10.0, 29.0])
GAMMA = np.float32([0.53, 0.0, 7.99, 8.0, 8.01, 50.0, 67.7])


@pytest.mark.parametrize("dt", [1e-3, 0.05, 0.7])
def test_exact_step_is_the_solution_of_the_equation(dt):
  rng = np.random.default_rng(0)
  q, v, force = (rng.normal(size=(3, 7)) + 1j * rng.normal(size=(3, 7))) * np.array([[1], [5], [20]])
  state = modal.ModalState(jnp.asarray(q, jnp.complex64), jnp.asarray(v, jnp.complex64))
  got = step(_oscillators(OMEGA, GAMMA), state, jnp.asarray(force, jnp.complex64), dt)

  def equation(_, y):
    return np.concatenate([y[7:], force - GAMMA * y[7:] - OMEGA**2 * y[:7]])

  start = np.concatenate([q, v])
  solved = solve_ivp(equation, (0, dt), start, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
  np.testing.assert_allclose(got.q, solved[:7], atol=2e-5)
  np.testing.assert_allclose(got.v, solved[7:], atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(
  omega=st.floats(0.125, 64, width=32), gamma=st.floats(0, 256, width=32), dt=st.floats(2**-12, 64, width=32)
)
def test_free_motion_never_gains_energy(omega, gamma, dt):
  basis = _oscillators([omega], [gamma])
  state = modal.ModalState(jnp.asarray([1.0 + 0.5j]), jnp.asarray([-3.0 + 1.0j]))
  after = step(basis, state, jnp.zeros(1, jnp.complex64), dt)
  energy = lambda s: float(np.abs(s.v[0]) ** 2 + (omega * np.abs(s.q[0])) ** 2)
  assert energy(after) <= energy(state) * (1 + 1e-3)


def test_every_frame_rate_shows_the_same_motion(basis):
  start = modal.release(basis, TIP, np.float32([[4, 1]]), np.float32([[0, 30]]))
  force = 0.3 * basis.omega**2 * modal.playback(basis, 0.2)
  ends = []
  for rate in (30, 60, 120, 144):
    advance = lambda _, state, rate=rate: modal.step(basis, state, force, 1 / rate)
    ends.append(jax.lax.fori_loop(0, rate, advance, start))
  for end in ends[1:]:
    np.testing.assert_allclose(end.q, ends[0].q, atol=1e-4)
    np.testing.assert_allclose(end.v, ends[0].v, atol=1e-3)


def test_a_held_shape_is_an_equilibrium(basis):
  q = grab(basis, TIP, np.float32([[5, -2]]))
  state = modal.ModalState(q, jnp.zeros_like(q))
  after = step(basis, state, basis.omega**2 * q, 0.3)
  np.testing.assert_allclose(after.q, q, atol=1e-6)
  np.testing.assert_allclose(after.v, 0.0, atol=1e-5)


def test_euler_is_the_formula_and_is_stable_up_to_its_limit():
  omega, gamma = 10.0, 0.4 + 0.08 * 100
  basis = _oscillators([omega], [gamma])
  state = modal.ModalState(jnp.asarray([1.0 + 0j]), jnp.asarray([2.0 + 0j]))
  force = jnp.asarray([3.0 + 0j])
  once = step(basis, state, force, 0.01, integrator="euler")
  np.testing.assert_allclose(once.q, [1.02], rtol=1e-6)
  np.testing.assert_allclose(once.v, [2 + 0.01 * (3 - gamma * 2 - 100)], rtol=1e-6)
  limit = gamma / omega**2
  for dt, grows in ((0.9 * limit, False), (1.1 * limit, True)):
    walker = state
    for _ in range(200):
      walker = step(basis, walker, 0 * force, dt, integrator="euler")
    size = abs(complex(walker.q[0])) + abs(complex(walker.v[0])) / omega
    assert size > 100 if grows else size < 0.1


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_integrator_is_refused(basis):
  with pytest.raises(UserError, match="verlet"):
    modal.step(basis, modal.rest_state(basis), 0 * basis.omega, 0.01, integrator="verlet")


def test_euler_approaches_the_exact_motion_at_first_order(basis):
  state = modal.release(basis, TIP, np.float32([[4, 1]]), np.float32([[0, 0]]))
  nothing = jnp.zeros_like(state.q)
  exact = step(basis, state, nothing, 0.1)
  errors = []
  for count in (50, 100):
    walker = state
    for _ in range(count):
      walker = step(basis, walker, nothing, 0.1 / count, integrator="euler")
    errors.append(np.abs(walker.q - exact.q).max())
  assert 1.7 < errors[0] / errors[1] < 2.3


def test_wind_keeps_to_its_band_and_moves_every_mode_as_the_video_does():
  omega = 2 * np.pi * np.arange(1, 9) * 0.4
  basis = _oscillators(omega, 0.4 + 0.08 * omega**2)
  dt, count = 1 / 30, 6000
  force = np.asarray(modal.wind(jax.random.key(0), basis, count, dt, strength=0.5, band=(0.1, 6.0)))
  spectrum = np.abs(np.fft.fft(force, axis=0))
  outside = (np.abs(np.fft.fftfreq(count, dt)) > 6.0) | (np.abs(np.fft.fftfreq(count, dt)) < 0.1)
  assert spectrum[outside].max() < 1e-3 * spectrum.max()
  assert not np.allclose(force, modal.wind(jax.random.key(1), basis, count, dt, strength=0.5))

  def advance(state, force):
    after = modal.step(basis, state, force, dt)
    return after, after.q

  rest = modal.rest_state(basis)
  _, path = jax.jit(lambda force: jax.lax.scan(advance, rest, force))(jnp.asarray(force))
  lively = np.sqrt(np.mean(np.abs(path[600:]) ** 2, axis=0))
  np.testing.assert_allclose(lively, 0.5, rtol=0.3)
