// The dynamics of gid_jax/motion/modal.py for a page: no DOM, no dependencies, runs in Node too.
//
//   u(p) = sum_k Re[Phi_k(p) q_k],  d2q/dt2 = f - gamma dq/dt - omega^2 q,  gamma = alpha + beta omega^2
//
// Mode shapes are Float32 [k h w 4], channels (Re x, Re y, Im x, Im y), pixels of the w x h grid. Coordinates q, v and
// forces f are Float64 [2 k], real and imaginary parts in turn. Points and displacements are [x, y] pixels of the grid,
// times are seconds.

const TINY = 1e-12;
const PULL = { epsilon: 1e-5, threshold: 0.02 };

/** Basis from modes [k h w 4] and omega [k]; what `spectrum_to_basis` makes from a volume. */
export function makeBasis(modes, width, height, omega, { alpha = 0.4, beta = 0.08 } = {}) {
  const gamma = omega.map((w) => alpha + beta * w * w);
  const basis = { modes, width, height, omega, gamma, compliance: 0, mobility: 0 };
  basis.compliance = typical(grabability(basis));
  basis.mobility = typical(trace(basis, () => 1));
  return basis;
}

/** State at rest: q and v all zero. */
export function restState(basis) {
  return { q: new Float64Array(2 * basis.omega.length), v: new Float64Array(2 * basis.omega.length) };
}

function trace(basis, softness) {
  const size = basis.width * basis.height;
  const sum = new Float64Array(size);
  basis.omega.forEach((w, k) => {
    const weight = softness(w);
    for (let p = 0, i = 4 * k * size; p < size; p++, i += 4) {
      const m = basis.modes;
      sum[p] += weight * (m[i] ** 2 + m[i + 1] ** 2 + m[i + 2] ** 2 + m[i + 3] ** 2);
    }
  });
  return sum;
}

function typical(field) {
  let sum = 0;
  let squares = 0;
  for (const value of field) {
    sum += value;
    squares += value * value;
  }
  return squares / Math.max(sum, TINY);
}

/** How far a unit load pulls each pixel [h w]: sum_k |Phi_k|^2 / omega_k^2. */
export function grabability(basis) {
  return trace(basis, (w) => w ** -2);
}

/** Displacement of every pixel, into a Float32 [h w 2]. */
export function displacementField(basis, q, out) {
  const { modes } = basis;
  const size = basis.width * basis.height;
  out.fill(0);
  for (let k = 0; k < basis.omega.length; k++) {
    const real = q[2 * k];
    const imag = q[2 * k + 1];
    if (real === 0 && imag === 0) continue;
    for (let p = 0, i = 4 * k * size; p < 2 * size; p += 2, i += 4) {
      out[p] += modes[i] * real - modes[i + 2] * imag;
      out[p + 1] += modes[i + 1] * real - modes[i + 3] * imag;
    }
  }
  return out;
}

/** Mode shapes [k 4] at a point, bilinear, clamped to the border. */
export function modesAt(basis, [px, py]) {
  const { width, height, modes } = basis;
  const x = Math.min(Math.max(px, 0), width - 1);
  const y = Math.min(Math.max(py, 0), height - 1);
  const left = Math.floor(x);
  const top = Math.floor(y);
  const right = Math.min(left + 1, width - 1);
  const bottom = Math.min(top + 1, height - 1);
  const fx = x - left;
  const fy = y - top;
  const corners = [
    [top * width + left, (1 - fx) * (1 - fy)],
    [top * width + right, fx * (1 - fy)],
    [bottom * width + left, (1 - fx) * fy],
    [bottom * width + right, fx * fy],
  ];
  const found = new Float64Array(4 * basis.omega.length);
  for (let k = 0; k < basis.omega.length; k++) {
    for (const [place, share] of corners) {
      const i = 4 * (k * width * height + place);
      for (let c = 0; c < 4; c++) found[4 * k + c] += share * modes[i + c];
    }
  }
  return found;
}

/** Displacement [x, y] where the mode shapes are `shapes`, from `modesAt`. */
export function displacementOf(shapes, q) {
  let x = 0;
  let y = 0;
  for (let k = 0; 2 * k < q.length; k++) {
    x += shapes[4 * k] * q[2 * k] - shapes[4 * k + 2] * q[2 * k + 1];
    y += shapes[4 * k + 1] * q[2 * k] - shapes[4 * k + 3] * q[2 * k + 1];
  }
  return [x, y];
}

/** Displacement [x, y] at a point of the photo. */
export function displacementAt(basis, q, point) {
  return displacementOf(modesAt(basis, point), q);
}

// Fades out the part of a target along which the point, of 2 x 2 response (a b; b c), hardly moves.
function fade(a, b, c, [x, y], limit) {
  const keep = (response) => {
    const ratio = Math.min(Math.max(response / limit, 0), 1);
    return ratio * ratio * (3 - 2 * ratio);
  };
  const mean = (a + c) / 2;
  const radius = Math.hypot((a - c) / 2, b);
  const most = keep(mean + radius);
  const least = keep(mean - radius);
  const angle = 0.5 * Math.atan2(2 * b, a - c);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const along = most * (cos * x + sin * y);
  const across = least * (cos * y - sin * x);
  return [cos * along - sin * across, sin * along + cos * across];
}

// Solves a symmetric positive definite system in place by Cholesky's method.
function solve(matrix, rhs) {
  const n = rhs.length;
  for (let j = 0; j < n; j++) {
    for (let i = j; i < n; i++) {
      let sum = matrix[i * n + j];
      for (let k = 0; k < j; k++) sum -= matrix[i * n + k] * matrix[j * n + k];
      matrix[i * n + j] = i === j ? Math.sqrt(Math.max(sum, 1e-300)) : sum / matrix[j * n + j];
    }
  }
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) rhs[i] -= matrix[i * n + k] * rhs[k];
    rhs[i] /= matrix[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) rhs[i] -= matrix[k * n + i] * rhs[k];
    rhs[i] /= matrix[i * n + i];
  }
  return rhs;
}

// Coordinates with the least sum |q|^2 / softness for which the points reach their targets.
function pull(shapes, targets, softness, scale, { epsilon, threshold }) {
  const count = shapes.length;
  const size = 2 * count;
  const gram = new Float64Array(size * size);
  for (let n = 0; n < count; n++) {
    for (let m = 0; m <= n; m++) {
      for (let c = 0; c < 2; c++) {
        for (let d = 0; d < 2; d++) {
          let sum = 0;
          for (let k = 0; k < softness.length; k++) {
            const [i, j] = [4 * k + c, 4 * k + d];
            sum += softness[k] * (shapes[n][i] * shapes[m][j] + shapes[n][i + 2] * shapes[m][j + 2]);
          }
          gram[(2 * n + c) * size + 2 * m + d] = sum;
          gram[(2 * m + d) * size + 2 * n + c] = sum;
        }
      }
    }
  }
  const load = new Float64Array(size);
  for (let n = 0; n < count; n++) {
    const i = 2 * n * size + 2 * n;
    load.set(fade(gram[i], gram[i + 1], gram[i + size + 1], targets[n], Math.max(threshold * scale, TINY)), 2 * n);
  }
  for (let i = 0; i < size; i++) gram[i * size + i] += Math.max(epsilon * scale, TINY);
  solve(gram, load);
  const q = new Float64Array(2 * softness.length);
  for (let k = 0; k < softness.length; k++) {
    for (let n = 0; n < count; n++) {
      for (let c = 0; c < 2; c++) {
        q[2 * k] += softness[k] * shapes[n][4 * k + c] * load[2 * n + c];
        q[2 * k + 1] -= softness[k] * shapes[n][4 * k + c + 2] * load[2 * n + c];
      }
    }
  }
  return q;
}

const shapesOf = (basis, points) => points.map((point) => modesAt(basis, point));
const pullShape = (basis, shapes, targets, options) =>
  pull(shapes, targets, basis.omega.map((w) => w ** -2), basis.compliance, { ...PULL, ...options });
const pullSpeed = (basis, shapes, targets, options) =>
  pull(shapes, targets, basis.omega.map(() => 1), basis.mobility, { ...PULL, ...options });

/** Static shape in which each point is held at its displacement; a pin is a point held at [0, 0]. */
export function grab(basis, points, displacements, options) {
  return pullShape(basis, shapesOf(basis, points), displacements, options);
}

/** How many times as far as a point, when it is pulled, the place goes that goes farthest. */
export function leverage(basis, point) {
  const shapes = [modesAt(basis, point)];
  const field = new Float32Array(2 * basis.width * basis.height);
  let farthest = 0;
  for (const direction of [[1, 0], [0, 1]]) {
    displacementField(basis, pullShape(basis, shapes, [direction]), field);
    for (let i = 0; i < field.length; i += 2) farthest = Math.max(farthest, Math.hypot(field[i], field[i + 1]));
  }
  return Math.max(1, farthest);
}

/** The state in which a grab ends: its shape, moving on with the velocities of the pointers. */
export function release(basis, points, displacements, velocities, options) {
  return { q: grab(basis, points, displacements, options), v: grab(basis, points, velocities, options) };
}

/** Strikes the points so that their velocities change at once, with the least kinetic energy. */
export function poke(basis, state, points, velocities, options) {
  const change = pullSpeed(basis, shapesOf(basis, points), velocities, options);
  return { q: state.q.slice(), v: state.v.map((value, i) => value + change[i]) };
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

const GUST = 1 / 30; // seconds between the forces of the wind
const NUM_GUSTS = 2048;
const FIRM = { epsilon: 1e-7 }; // doubles can afford it: a finger beside a pin keeps its point under it
const PIN_TIME = 0.12; // seconds in which a pin comes to rest
const FLICK_TIME = 0.05; // seconds over which the velocity of a pointer is averaged
const FADE_TIME = 0.4; // seconds in which playback comes and goes

/**
 * A photo that is held, released, poked, blown at and played.
 *
 * What is shown is free + held + playback. The held part is the static shape of all fingers and pins. The free part
 * moves on by itself, and what of it would move a held point is taken away after every step: that projection never
 * adds energy, so nothing can blow up, and a scene that comes to rest comes to rest in the static shape.
 */
export class Scene {
  constructor(basis) {
    this.basis = basis;
    this.playing = false;
    this.windy = false;
    this.magnify = 1;
    this.maxSpeed = 4 * Math.max(basis.width, basis.height);
    this.time = 0;
    this.level = 0;
    this.reset();
  }

  /** Everything at rest, no fingers, no pins; playback and wind as they were. */
  reset() {
    this.free = restState(this.basis);
    this.held = new Float64Array(this.free.q.length);
    this.holds = new Map();
    this.gust = 0;
    this.gustEnds = GUST;
  }

  /** Coordinates of the playback that is shown now. */
  shown() {
    const size = this.level * this.magnify;
    return playback(this.basis, this.time).map((value) => size * value);
  }

  /** Coordinates of all that is shown now. */
  total() {
    return this.shown().map((value, i) => value + this.held[i] + this.free.q[i]);
  }

  /** The point of the photo [x, y] that is seen at a place [x, y]. */
  findPoint([x, y]) {
    const q = this.total();
    let point = [x, y];
    let best = point;
    let error = Infinity;
    for (let i = 0; i < 24; i++) {
      const [dx, dy] = displacementAt(this.basis, q, point);
      const miss = [x - point[0] - dx, y - point[1] - dy];
      const size = Math.hypot(...miss);
      if (size < error) [best, error] = [point, size];
      const pace = i < 6 ? 1 : 0.5; // half steps settle where full ones swing to and fro
      point = [point[0] + pace * miss[0], point[1] + pace * miss[1]];
    }
    return best;
  }

  /** Holds a point of the photo where it is now; it is then moved by `move`. A pin comes to rest by itself. */
  hold(id, point, { pin = false } = {}) {
    const shapes = modesAt(this.basis, point);
    const at = displacementOf(shapes, this.total());
    this.holds.set(id, { point, shapes, at, before: at, velocity: [0, 0], pin });
    this.#split();
  }

  /** Moves a held point to a displacement [x, y] from its place in the photo. */
  move(id, displacement) {
    const hold = this.holds.get(id);
    if (hold) hold.at = displacement;
  }

  /** Lets a point go; it moves on with the velocity of its pointer, or from rest. */
  letGo(id, { flick = true } = {}) {
    const hold = this.holds.get(id);
    if (!hold) return;
    if (flick && !hold.pin) {
      const speed = Math.hypot(...hold.velocity);
      const scale = Math.min(1, this.maxSpeed / Math.max(speed, TINY));
      const holds = [...this.holds.values()];
      const targets = holds.map((other) => (other === hold ? hold.velocity.map((value) => scale * value) : [0, 0]));
      const change = pullShape(this.basis, holds.map((other) => other.shapes), targets, FIRM);
      change.forEach((value, i) => (this.free.v[i] += value));
    }
    this.holds.delete(id);
    this.#split();
  }

  /** Strikes a point with a velocity [x, y], pixels per second. */
  poke(point, velocity) {
    this.free = poke(this.basis, this.free, [point], [velocity]);
  }

  /** Strikes a point as a tap does: along the line on which it moves most, to about twice its usual swing. */
  tap(point) {
    const shapes = modesAt(this.basis, point);
    let [xx, xy, yy] = [0, 0, 0];
    for (let i = 0; i < shapes.length; i += 4) {
      xx += shapes[i] ** 2 + shapes[i + 2] ** 2;
      xy += shapes[i] * shapes[i + 1] + shapes[i + 2] * shapes[i + 3];
      yy += shapes[i + 1] ** 2 + shapes[i + 3] ** 2;
    }
    const side = Math.max(this.basis.width, this.basis.height);
    const swing = Math.min(Math.max(2 * Math.sqrt(xx + yy), 0.012 * side), 0.05 * side);
    const speed = swing * Math.sqrt(this.basis.mobility / Math.max(this.basis.compliance, TINY));
    const angle = 0.5 * Math.atan2(2 * xy, xx - yy);
    this.poke(point, [speed * Math.cos(angle), speed * Math.sin(angle)]);
  }

  /** Advances everything by dt seconds. */
  advance(dt) {
    if (!(dt > 0)) return;
    for (let left = dt; left > 1e-9; ) {
      // A force is constant between gusts, so the steps end where it changes, whatever the screen's rate.
      const part = this.windy ? Math.min(left, this.gustEnds) : left;
      step(this.basis, this.free, this.windy ? this.#force() : null, part);
      left -= part;
      if (!this.windy) continue;
      this.gustEnds -= part;
      if (this.gustEnds > 1e-9) continue;
      this.gust = (this.gust + 1) % NUM_GUSTS;
      this.gustEnds = GUST;
    }
    this.time += dt;
    this.level += ((this.playing ? 1 : 0) - this.level) * (1 - Math.exp(-dt / FADE_TIME));
    if (!this.playing && this.level < 1e-3) this.level = 0;
    for (const hold of this.holds.values()) {
      if (hold.pin) hold.at = hold.at.map((value) => value * Math.exp(-dt / PIN_TIME));
      const pace = 1 - Math.exp(-dt / FLICK_TIME);
      hold.velocity = hold.velocity.map((value, i) => value + pace * ((hold.at[i] - hold.before[i]) / dt - value));
      hold.before = hold.at;
    }
    this.#project();
    this.held = this.#shape();
  }

  /** Whether nothing would change if time went on, to within a share of a pixel. */
  isStill() {
    if (this.playing || this.windy || this.level > 0) return false;
    for (const hold of this.holds.values()) {
      if (!hold.pin || Math.hypot(...hold.at) > 0.01) return false;
    }
    const size = Math.sqrt(this.basis.mobility);
    return this.basis.omega.every((omega, k) => {
      const { q, v } = this.free;
      return Math.hypot(q[2 * k], q[2 * k + 1], v[2 * k] / omega, v[2 * k + 1] / omega) * size < 0.01;
    });
  }

  #force() {
    this.gusts ??= wind(this.basis, NUM_GUSTS, GUST);
    return this.gusts[this.gust].map((value) => this.magnify * value);
  }

  // The static shape of all that is held, playback left out.
  #shape() {
    const holds = [...this.holds.values()];
    if (!holds.length) return new Float64Array(this.held.length);
    const shown = this.shown();
    const targets = holds.map(({ at, shapes }) => {
      const moved = displacementOf(shapes, shown);
      return [at[0] - moved[0], at[1] - moved[1]];
    });
    return pullShape(this.basis, holds.map((hold) => hold.shapes), targets, FIRM);
  }

  // Divides what is shown anew into held and free, so that nothing jumps.
  #split() {
    const held = this.#shape();
    this.free.q = this.free.q.map((value, i) => value + this.held[i] - held[i]);
    this.held = held;
    this.#project({ shape: false });
  }

  // Takes from the free part what moves a held point.
  #project({ shape = true } = {}) {
    const shapes = [...this.holds.values()].map((hold) => hold.shapes);
    if (!shapes.length) return;
    const { q, v } = this.free;
    if (shape) {
      const moved = pullShape(this.basis, shapes, shapes.map((at) => displacementOf(at, q)), FIRM);
      moved.forEach((value, i) => (q[i] -= value));
    }
    const moving = pullSpeed(this.basis, shapes, shapes.map((at) => displacementOf(at, v)), FIRM);
    moving.forEach((value, i) => (v[i] -= value));
  }
}

/** Modes as gid_jax/touch/export.py writes them: int16 [k h w 4], one scale a mode, to Float32. */
export function decodeModes(values, scales) {
  const size = values.length / scales.length;
  return Float32Array.from(values, (value, i) => value * scales[Math.floor(i / size)]);
}

/**
 * Modes and W in which a place beside something that moves much more moves along with it.
 *
 * The grid of motion is coarser than the photo, so the rim of a leaf lies in cells that are half leaf. With this it
 * stays whole, and what is stretched when the leaf moves away is the background.
 */
export function widen(modes, depth, width, height, { ratio = 1.5 } = {}) {
  const size = width * height;
  const [wide, deep] = [modes.slice(), depth.slice()];
  for (let p = 0; p < size; p++) {
    const [column, row] = [p % width, Math.floor(p / width)];
    let best = p;
    for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
      for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
        if (depth[y * width + x] > depth[best]) best = y * width + x;
      }
    }
    if (depth[best] <= ratio * depth[p]) continue;
    deep[p] = depth[best];
    for (let k = 0; k < modes.length; k += 4 * size) {
      for (let c = 0; c < 4; c++) wide[k + 4 * p + c] = modes[k + 4 * best + c];
    }
  }
  return { modes: wide, depth: deep };
}
