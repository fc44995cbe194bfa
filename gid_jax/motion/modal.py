"""Interactive dynamics: the spectral volume as the modal basis of an elastic scene (section 6, supplement).

Band k = 1 ... K-1 is one mode with complex state q_k, v_k = dq_k/dt, shared by x and y:

  u(p) = sum_k Re[Phi_k(p) q_k],  Phi = 2 S / T px,  omega_k = 2 pi k fps / T rad/s,
  d2q/dt2 = f - gamma dq/dt - omega^2 q,  gamma = alpha + beta omega^2,  unit mass.

A force field F(p) drives mode k by f_k = sum_p conj(Phi_k(p)) . F(p). A grabbed point is a point load just
large enough to keep it under the finger; its static shape minimises sum_k omega_k^2 |q_k|^2.
Times are seconds, points are (x, y) pixels of the volume's grid, displacements pixels. The generated video
itself is q_k = exp(i omega_k t), so that playback and touch add up.
"""

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from gid_jax.errors import UserError
from gid_jax.motion import spectral
from gid_jax.motion.warp import sample_points
from gid_jax.types import AnyArray, PRNGKey, SpectralVolume

_PRECISION = jax.lax.Precision.HIGHEST
_TINY = 1e-12  # a scene in which nothing moves still has to be divided by something


@dataclasses.dataclass(frozen=True)
class Damping:
  """Rayleigh damping gamma = alpha + beta omega^2 (supplement, interactive dynamics).

  Attributes:
    alpha: damping of every mode, 1/s.
    beta: additional damping of fast modes, s.
  """

  alpha: float = 0.4
  beta: float = 0.08


@flax.struct.dataclass
class ModalBasis:
  """Mode shapes of one photo and how they oscillate; made by `spectrum_to_basis`.

  Attributes:
    modes: [k h w 2] complex Phi, pixels, bands 1 ... K-1.
    omega: [k] angular frequencies, rad/s.
    gamma: [k] damping, 1/s.
    compliance: typical `grabability` of what moves (its mean weighted by itself), px^2 s^2.
    mobility: the same for velocities, px^2.
  """

  modes: Complex[Array, "k h w 2"]
  omega: Float[Array, "k"]
  gamma: Float[Array, "k"]
  compliance: Float[Array, ""]
  mobility: Float[Array, ""]


class ModalState(flax.struct.PyTreeNode):
  """Coordinates of all modes.

  Attributes:
    q: [k] complex modal coordinates; |q| = 1 is the amplitude of the generated video.
    v: [k] their time derivatives, 1/s.
  """

  q: Complex[Array, "k"]
  v: Complex[Array, "k"]


def _trace(modes: Complex[Array, "k h w 2"], softness: Float[Array, "k"]) -> Float[Array, "h w"]:
  power = jnp.sum(modes.real**2 + modes.imag**2, axis=-1)
  return jnp.einsum("khw,k->hw", power, softness, precision=_PRECISION)


def _typical(field: Float[Array, "h w"]) -> Float[Array, ""]:
  """Mean of the field weighted by itself: neither a still background nor one wild pixel decides it."""
  return jnp.sum(field**2) / jnp.maximum(jnp.sum(field), _TINY)


def spectrum_to_basis(spectrum: SpectralVolume, *, damping: Damping | None = None) -> ModalBasis:
  """Modal basis of an unbatched volume [K h w 4]: Phi = 2 S / T for every band but DC (supplement).

  Raises:
    UserError: if the volume is batched or holds no band above DC.
  """
  shape = spectrum.coefficients.shape
  if len(shape) != 4 or shape[0] < 2:
    raise UserError(
      f"spectrum of shape {shape}: interaction needs one volume [k h w 4] with k >= 2; take one of the batch"
    )
  damping = Damping() if damping is None else damping
  weights = spectral.bin_weights(shape[0], spectrum.num_frames)
  modes = spectral.channels_to_complex(spectrum.coefficients[1:]) * weights[1:, None, None, None]
  frequencies = spectral.band_frequencies(shape[0], num_frames=spectrum.num_frames, fps=spectrum.fps)
  omega = 2 * np.pi * frequencies[1:]
  return ModalBasis(
    modes=modes,
    omega=omega,
    gamma=damping.alpha + damping.beta * omega**2,
    compliance=_typical(_trace(modes, omega**-2)),
    mobility=_typical(_trace(modes, jnp.ones_like(omega))),
  )


def rest_state(basis: ModalBasis) -> ModalState:
  """The photo at rest: every coordinate and velocity [k] zero."""
  zero = jnp.zeros(basis.omega.shape, jnp.complex64)
  return ModalState(q=zero, v=zero)


def modal_field(basis: ModalBasis, q: Complex[Array, "k"]) -> Float[Array, "h w 2"]:
  """Displacement of every pixel, sum_k Re[Phi_k q_k], as [h w 2] in pixels (px/s when given v)."""
  real = jnp.einsum("khwc,k->hwc", basis.modes.real, q.real, precision=_PRECISION)
  return real - jnp.einsum("khwc,k->hwc", basis.modes.imag, q.imag, precision=_PRECISION)


def _modes_at(basis: ModalBasis, points: Float[AnyArray, "n 2"]) -> Complex[Array, "k n 2"]:
  """Mode shapes at real-valued points (x, y), bilinear, clamped to the border."""
  return jax.vmap(sample_points, in_axes=(0, None))(basis.modes, points)


def modal_displacement(
  basis: ModalBasis, q: Complex[AnyArray, "k"], points: Float[AnyArray, "n 2"]
) -> Float[Array, "n 2"]:
  """`modal_field` at points (x, y) only, bilinear between pixels: [n 2] in pixels."""
  return jnp.einsum("knc,k->nc", _modes_at(basis, points), q, precision=_PRECISION).real


def grabability(basis: ModalBasis) -> Float[Array, "h w"]:
  """How far a unit load pulls each pixel: trace G(p) = sum_k |Phi_k(p)|^2 / omega_k^2, px^2 s^2, [h w]."""
  return _trace(basis.modes, basis.omega**-2)


def _pull(
  modes: Complex[Array, "k n 2"],
  targets: Float[AnyArray, "n 2"],
  softness: Float[Array, "k"],
  scale: Float[Array, ""],
  epsilon: float | Array,
  threshold: float | Array,
) -> Complex[Array, "k"]:
  """Coordinates with the least sum |q|^2 / softness for which the points reach their targets.

  The Gram matrix G of the responses is real, 2n x 2n. A direction in which a point hardly responds, below
  `threshold * scale`, has its target faded out, so that pulling a wall cannot fling the tree in front of it.
  """
  num_points = modes.shape[1]
  targets = jnp.asarray(targets, jnp.float32)
  gram = jnp.einsum("knc,kmd,k->ncmd", modes, modes.conj(), softness, precision=_PRECISION).real
  response, directions = jnp.linalg.eigh(jnp.einsum("ncnd->ncd", gram))
  ratio = jnp.clip(response / jnp.maximum(threshold * scale, _TINY), 0.0, 1.0)
  kept = ratio**2 * (3 - 2 * ratio)
  targets = jnp.einsum("nce,ne,nde,nd->nc", directions, kept, directions, targets, precision=_PRECISION)
  ridge = jnp.maximum(epsilon * scale, _TINY) * jnp.eye(2 * num_points)
  load = jnp.linalg.solve(gram.reshape(2 * num_points, 2 * num_points) + ridge, targets.ravel())
  load = load.reshape(num_points, 2)
  return softness * jnp.einsum("knc,nc->k", modes.conj(), load, precision=_PRECISION)


def grab(
  basis: ModalBasis,
  points: Float[AnyArray, "n 2"],
  displacements: Float[AnyArray, "n 2"],
  *,
  epsilon: float | Array = 1e-5,
  threshold: float | Array = 0.02,
) -> Complex[Array, "k"]:
  """Static shape in which each point is held at its displacement; a pin is a point held at 0 (closed form).

  Minimises sum omega^2 |q|^2 subject to u(p_j) = d_j: q_k = omega_k^-2 sum_j conj(Phi_k(p_j)) . lambda_j with
  lambda = (G + epsilon I)^-1 d. It is linear in `displacements`, so a scene that is already moving with q is
  taken up without a jump by q + grab(points, d - modal_displacement(q, points)).

  Args:
    points: [n 2] rest positions (x, y) in pixels of the grid; fingers and pins alike.
    displacements: [n 2] where they are held, pixels from rest.
    epsilon: ridge on G as a fraction of `basis.compliance`; it bounds the load of contradictory fingers.
    threshold: fraction of `basis.compliance` below which a direction starts to resist the pull; the point
      then lags behind the finger, down to not moving at all.

  Returns:
    Modal coordinates [k].
  """
  softness = basis.omega**-2
  return _pull(_modes_at(basis, points), displacements, softness, basis.compliance, epsilon, threshold)


def release(
  basis: ModalBasis,
  points: Float[AnyArray, "n 2"],
  displacements: Float[AnyArray, "n 2"],
  velocities: Float[AnyArray, "n 2"],
  *,
  epsilon: float | Array = 1e-5,
  threshold: float | Array = 0.02,
) -> ModalState:
  """The state in which a grab ends: its shape, moving on with the pointer velocities [n 2] px/s (a flick)."""
  options = {"epsilon": epsilon, "threshold": threshold}
  return ModalState(
    q=grab(basis, points, displacements, **options), v=grab(basis, points, velocities, **options)
  )


def poke(
  basis: ModalBasis,
  state: ModalState,
  points: Float[AnyArray, "n 2"],
  velocities: Float[AnyArray, "n 2"],
  *,
  epsilon: float | Array = 1e-5,
  threshold: float | Array = 0.02,
) -> ModalState:
  """Strikes the points so that their velocity changes at once by `velocities` [n 2] px/s.

  The impulse is the one with the least kinetic energy, v_k += sum_j conj(Phi_k(p_j)) . J_j; options as in
  `grab`, relative to `basis.mobility`.
  """
  softness = jnp.ones_like(basis.omega)
  change = _pull(_modes_at(basis, points), velocities, softness, basis.mobility, epsilon, threshold)
  return state.replace(v=state.v + change)


def wind(
  key: PRNGKey,
  basis: ModalBasis,
  num_steps: int,
  dt: float,
  *,
  strength: float = 1.0,
  band: tuple[float, float] = (0.05, 8.0),
) -> Complex[Array, "n k"]:
  """Band-limited complex Gaussian forces [num_steps k] for `step`, repeating without a seam.

  Args:
    dt: seconds between the forces.
    strength: root mean square |q| that a mode well inside the band settles to; 1 is as lively as the video.
    band: lowest and highest frequency of the gusts, Hz.
  """
  frequencies = np.abs(np.fft.fftfreq(num_steps, dt))
  inside = (frequencies >= band[0]) & (frequencies <= band[1])
  shape = (num_steps, basis.omega.shape[0])
  noise = jax.random.normal(key, shape, jnp.complex64) * inside[:, None].astype(np.float32)
  noise = jnp.fft.ifft(noise, axis=0) * np.float32(np.sqrt(num_steps))
  # White forcing of density D settles to E|q|^2 = D / (2 gamma omega^2); a sample has variance D / dt.
  return noise * strength * basis.omega * jnp.sqrt(2 * basis.gamma / dt)


def _propagator(omega: Float[Array, "k"], gamma: Float[Array, "k"], dt: float | Array):
  """exp(-a t) cosh(s t) and exp(-a t) sinh(s t) / s, a = gamma / 2, s = sqrt(a^2 - omega^2), real or not."""
  a = gamma / 2
  square = a**2 - omega**2
  z = square * dt**2
  near = jnp.abs(z) < 1e-2  # close to critical damping both quotients lose their digits: a series instead
  s = jnp.sqrt(jnp.where(near, 1.0, jnp.abs(square)))
  decay = jnp.exp(-a * dt)
  # Both exponents are at most 0, while cosh alone would overflow for a long step.
  slow, fast = jnp.exp(-(omega**2) / (a + s) * dt), jnp.exp(-(a + s) * dt)
  over = square > 0
  cosine = jnp.where(over, (slow + fast) / 2, decay * jnp.cos(s * dt))
  sine = jnp.where(over, (slow - fast) / (2 * s), decay * jnp.sin(s * dt) / s)
  cosine = jnp.where(near, decay * (1 + z / 2 * (1 + z / 12 * (1 + z / 30))), cosine)
  sine = jnp.where(near, decay * dt * (1 + z / 6 * (1 + z / 20 * (1 + z / 42))), sine)
  return cosine, sine


def step(
  basis: ModalBasis,
  state: ModalState,
  force: Complex[Array, "k"],
  dt: float | Array,
  *,
  integrator: Literal["exact", "euler"] = "exact",
) -> ModalState:
  """Advances every oscillator by `dt` seconds under a force held constant over the step (supplement).

  Args:
    force: [k] modal forces, 1/s^2; the static load of a grabbed shape q is omega^2 q.
    dt: seconds.
    integrator: "exact" is the propagator of the damped oscillator, right for any dt and any damping, so that
      screens of 30 and 144 Hz show the same motion. "euler" is the supplement's forward Euler, for
      comparison: an under-damped mode diverges unless dt < gamma / omega^2 = alpha / omega^2 + beta.

  Raises:
    UserError: if `integrator` is neither of the two.
  """
  if integrator == "euler":
    acceleration = force - basis.gamma * state.v - basis.omega**2 * state.q
    return ModalState(q=state.q + dt * state.v, v=state.v + dt * acceleration)
  if integrator != "exact":
    raise UserError(f'integrator={integrator!r}: use "exact" or "euler"')
  cosine, sine = _propagator(basis.omega, basis.gamma, dt)
  settled = force / basis.omega**2
  offset = state.q - settled
  half = basis.gamma / 2
  return ModalState(
    q=settled + offset * (cosine + half * sine) + state.v * sine,
    v=state.v * (cosine - half * sine) - offset * basis.omega**2 * sine,
  )


def playback(basis: ModalBasis, t: Float[AnyArray, "*t"] | float) -> Complex[Array, "*t k"]:
  """Coordinates [*t k] of the generated video itself at `t` [*t] seconds, exp(i omega_k t) (eq. 2)."""
  turns = jnp.mod(jnp.asarray(t, jnp.float32)[..., None] * (basis.omega / (2 * np.pi)), 1.0)
  angles = 2 * np.pi * turns
  return jax.lax.complex(jnp.cos(angles), jnp.sin(angles))
