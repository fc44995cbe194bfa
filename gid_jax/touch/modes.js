// Mode shapes of one photo, after gid_jax/motion/modal.py: no DOM, no dependencies, runs in Node too.
//
//   u(p) = sum_k Re[Phi_k(p) q_k],  d2q/dt2 = f - gamma dq/dt - omega^2 q,  gamma = alpha + beta omega^2
//
// Mode shapes are Float32 [k h w 4], channels (Re x, Re y, Im x, Im y), pixels of the w x h grid. Coordinates q, v and
// forces f are Float64 [2 k], real and imaginary parts in turn. Points and displacements are [x, y] pixels of the grid,
// times are seconds.

export const TINY = 1e-12;

/** Basis from modes [k h w 4] and omega [k]; what `spectrum_to_basis` makes from a volume. */
export function makeBasis(modes, width, height, omega, { alpha = 0.4, beta = 0.08 } = {}) {
  const gamma = omega.map((w) => alpha + beta * w * w);
  const basis = { modes, width, height, omega, gamma, active: [], compliance: 0, mobility: 0 };
  activate(basis, omega.map(() => 1));
  return basis;
}

/** Lets only the bands whose `active` [k] is 1 take part in grabs. */
export function activate(basis, active) {
  basis.active = Array.from(active);
  basis.compliance = typical(trace(basis, (w, k) => active[k] * w ** -2));
  basis.mobility = typical(trace(basis, (_, k) => active[k]));
}

function trace(basis, softness) {
  const size = basis.width * basis.height;
  const sum = new Float64Array(size);
  basis.omega.forEach((w, k) => {
    const weight = softness(w, k);
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

/** How far each pixel [h w] swings with the bands whose `weights` [k] are 1: the root of sum_k |Phi_k|^2. */
export function swingOf(basis, weights) {
  return trace(basis, (_, k) => weights[k]).map(Math.sqrt);
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

/** Modes as gid_jax/touch/export.py writes them: int16 [k h w 4], one scale a mode, to Float32. */
export function decodeModes(values, scales) {
  const size = values.length / scales.length;
  const modes = new Float32Array(values.length);
  scales.forEach((scale, k) => {
    for (let i = k * size; i < (k + 1) * size; i++) modes[i] = values[i] * scale;
  });
  return modes;
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

/** Where one thing lies beside another that moves much more [h w], 0 to 1: only there a stretched photo is cut. */
export function findRims(depth, width, height) {
  return Float32Array.from(depth, (_, p) => {
    const [column, row] = [p % width, Math.floor(p / width)];
    let [low, high] = [Infinity, 0];
    for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
      for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
        low = Math.min(low, depth[y * width + x]);
        high = Math.max(high, depth[y * width + x]);
      }
    }
    const step = Math.min(Math.max(((high + 0.02) / (low + 0.02) - 1.3) / 0.5, 0), 1);
    return step * step * (3 - 2 * step);
  });
}
