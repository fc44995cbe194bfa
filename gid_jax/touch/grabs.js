// Pulls and strikes of gid_jax/motion/modal.py: fingers and pins as point loads, and how far a pull may go.
import { TINY, displacementField, displacementOf, modesAt } from "./modes.js";

const PULL = { epsilon: 1e-5, threshold: 0.02 };
const NUM_DIRECTIONS = 8; // of a half turn, in which reach is measured
const CROWD = 0.99; // share of places of which none may be stretched more than is allowed

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

/** Coordinates [2 k] with which points of mode shapes `shapes` reach their targets, at the least elastic energy. */
export function pullShape(basis, shapes, targets, options) {
  const softness = basis.omega.map((w, k) => basis.active[k] * w ** -2);
  return pull(shapes, targets, softness, basis.compliance, { ...PULL, ...options });
}

/** Velocities [2 k] with which the points reach their target velocities, at the least kinetic energy. */
export function pullSpeed(basis, shapes, targets, options) {
  return pull(shapes, targets, basis.active, basis.mobility, { ...PULL, ...options });
}

/** Static shape in which each point is held at its displacement; a pin is a point held at [0, 0]. */
export function grab(basis, points, displacements, options) {
  return pullShape(basis, shapesOf(basis, points), displacements, options);
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

/**
 * How far a point may be pulled, pixels, in each of eight directions of a half turn, [8], from +x on towards +y.
 *
 * A load at a place that hardly moves swings what is lively beside it. The farther anything goes along, as a multiple
 * of the point's own way, the less of `most` it may go; and nothing is stretched by more than `strain`, a part of its
 * length.
 */
export function findReach(basis, point, { most, strain = 0.5 }) {
  const { width, height } = basis;
  const size = width * height;
  const shapes = [modesAt(basis, point)];
  const [along, down] = [[1, 0], [0, 1]].map((target) => {
    const q = pullShape(basis, shapes, [target]);
    return { at: displacementOf(shapes[0], q), field: displacementField(basis, q, new Float32Array(2 * size)) };
  });
  const stretch = new Float32Array(size);
  const field = new Float32Array(2 * size);
  return Float64Array.from({ length: NUM_DIRECTIONS }, (_, n) => {
    const angle = (Math.PI * n) / NUM_DIRECTIONS;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    let farthest = TINY;
    for (let i = 0; i < 2 * size; i += 2) {
      field[i] = cos * along.field[i] + sin * down.field[i];
      field[i + 1] = cos * along.field[i + 1] + sin * down.field[i + 1];
      farthest = Math.max(farthest, field[i] ** 2 + field[i + 1] ** 2);
    }
    farthest = Math.sqrt(farthest);
    for (let p = 0; p < size; p++) {
      const i = 2 * p;
      const right = p % width < width - 1 ? i + 2 : i;
      const below = p < size - width ? i + 2 * width : i;
      const [x, y] = [field[i], field[i + 1]];
      stretch[p] = Math.max(
        (field[right] - x) ** 2 + (field[right + 1] - y) ** 2,
        (field[below] - x) ** 2 + (field[below + 1] - y) ** 2,
      );
    }
    const steep = Math.sqrt(stretch.sort()[Math.floor(CROWD * (size - 1))]);
    const own = Math.hypot(cos * along.at[0] + sin * down.at[0], cos * along.at[1] + sin * down.at[1]);
    return Math.min((most / farthest) * Math.min(own / farthest, 1), strain / Math.max(steep, TINY));
  });
}

/** A pull [x, y] brought within `findReach`: followed exactly so far, then against more and more resistance. */
export function limitPull([x, y], reach) {
  const size = Math.hypot(x, y);
  if (size === 0) return [0, 0];
  const turn = ((Math.atan2(y, x) / Math.PI + 2) % 1) * reach.length;
  const before = Math.floor(turn) % reach.length;
  const most = reach[before] + (turn - Math.floor(turn)) * (reach[(before + 1) % reach.length] - reach[before]);
  if (size <= most) return [x, y];
  const give = most / 3;
  const scale = (most + give * (1 - Math.exp((most - size) / Math.max(give, TINY)))) / size;
  return [x * scale, y * scale];
}

/** Static shape [2 k] of a wind that blows evenly in a direction [x, y]; its farthest place goes one pixel. */
export function loadEvenly(basis, [x, y]) {
  const size = basis.width * basis.height;
  const q = new Float64Array(2 * basis.omega.length);
  basis.omega.forEach((omega, k) => {
    for (let i = 4 * k * size; i < 4 * (k + 1) * size; i += 4) {
      q[2 * k] += x * basis.modes[i] + y * basis.modes[i + 1];
      q[2 * k + 1] -= x * basis.modes[i + 2] + y * basis.modes[i + 3];
    }
    q[2 * k] /= omega ** 2;
    q[2 * k + 1] /= omega ** 2;
  });
  const field = displacementField(basis, q, new Float32Array(2 * size));
  let farthest = TINY;
  for (let i = 0; i < 2 * size; i += 2) farthest = Math.max(farthest, Math.hypot(field[i], field[i + 1]));
  return q.map((value) => value / farthest);
}
