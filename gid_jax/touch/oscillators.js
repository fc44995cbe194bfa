// Oscillators of gid_jax/motion/modal.py: exact steps, playback, wind.

/** State at rest: q and v all zero. */
export function restState(basis) {
  return { q: new Float64Array(2 * basis.omega.length), v: new Float64Array(2 * basis.omega.length) };
}

// exp(-a t) cosh(s t) and exp(-a t) sinh(s t) / s, a = gamma / 2, s = sqrt(a^2 - omega^2), real or not.
function propagator(omega, gamma, dt) {
  const a = gamma / 2;
  const square = a * a - omega * omega;
  const z = square * dt * dt;
  const decay = Math.exp(-a * dt);
  if (Math.abs(z) < 1e-2) {
    // Close to critical damping both quotients lose their digits: a series instead.
    return [
      decay * (1 + (z / 2) * (1 + (z / 12) * (1 + z / 30))),
      decay * dt * (1 + (z / 6) * (1 + (z / 20) * (1 + z / 42))),
    ];
  }
  const s = Math.sqrt(Math.abs(square));
  if (square < 0) return [decay * Math.cos(s * dt), (decay * Math.sin(s * dt)) / s];
  // Both exponents are at most 0, while cosh alone would overflow for a long step.
  const slow = Math.exp((-omega * omega * dt) / (a + s));
  const fast = Math.exp(-(a + s) * dt);
  return [(slow + fast) / 2, (slow - fast) / (2 * s)];
}

/** Advances every oscillator, in place, by dt seconds under a force held constant: right for any dt. */
export function step(basis, state, force, dt) {
  const { q, v } = state;
  basis.omega.forEach((omega, k) => {
    const half = basis.gamma[k] / 2;
    const [cosine, sine] = propagator(omega, basis.gamma[k], dt);
    for (let i = 2 * k; i < 2 * k + 2; i++) {
      const settled = force ? force[i] / omega ** 2 : 0;
      const offset = q[i] - settled;
      q[i] = settled + offset * (cosine + half * sine) + v[i] * sine;
      v[i] = v[i] * (cosine - half * sine) - offset * omega ** 2 * sine;
    }
  });
  return state;
}

/** Coordinates of the generated video at t seconds: exp(i omega t). */
export function playback(basis, t) {
  const q = new Float64Array(2 * basis.omega.length);
  basis.omega.forEach((omega, k) => {
    q[2 * k] = Math.cos(omega * t);
    q[2 * k + 1] = Math.sin(omega * t);
  });
  return q;
}

// Inverse discrete Fourier transform in place, without a factor; the length is a power of two.
function invert(real, imag) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imag[i], imag[j]] = [imag[j], imag[i]];
    }
  }
  for (let length = 2; length <= n; length *= 2) {
    for (let k = 0; k < length / 2; k++) {
      const cos = Math.cos((2 * Math.PI * k) / length);
      const sin = Math.sin((2 * Math.PI * k) / length);
      for (let a = k; a < n; a += length) {
        const b = a + length / 2;
        const re = real[b] * cos - imag[b] * sin;
        const im = real[b] * sin + imag[b] * cos;
        real[b] = real[a] - re;
        imag[b] = imag[a] - im;
        real[a] += re;
        imag[a] += im;
      }
    }
  }
}

/**
 * Band-limited Gaussian forces, `count` (a power of two) arrays for `step` of dt seconds, repeating without a seam.
 * A mode well inside the band settles to a root mean square |q| of `strength`.
 */
export function wind(basis, count, dt, { strength = 1, band = [0.05, 8], random = Math.random } = {}) {
  const forces = Array.from({ length: count }, () => new Float64Array(2 * basis.omega.length));
  basis.omega.forEach((omega, k) => {
    const real = new Float64Array(count);
    const imag = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const frequency = Math.min(i, count - i) / (count * dt);
      if (frequency < band[0] || frequency > band[1]) continue;
      const radius = Math.sqrt(-Math.log(1 - random()) / count);
      const angle = 2 * Math.PI * random();
      real[i] = radius * Math.cos(angle);
      imag[i] = radius * Math.sin(angle);
    }
    invert(real, imag);
    const scale = strength * omega * Math.sqrt((2 * basis.gamma[k]) / dt);
    for (let i = 0; i < count; i++) forces[i].set([scale * real[i], scale * imag[i]], 2 * k);
  });
  return forces;
}
