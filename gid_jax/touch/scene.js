// A photo that is held, released, poked, blown at and played; all that is not drawing.
import { TINY, activate, displacementAt, displacementOf, modesAt } from "./modes.js";
import { findReach, limitPull, loadEvenly, poke, pullShape, pullSpeed } from "./grabs.js";
import { playback, restState, step, wind } from "./oscillators.js";

const GUST = 1 / 30; // seconds between the forces of the wind
const NUM_GUSTS = 2048;
const FIRM = { epsilon: 1e-7 }; // doubles can afford it: a finger beside a pin keeps its point under it
const PIN_TIME = 0.12; // seconds in which a pin comes to rest
const FLICK_TIME = 0.05; // seconds over which the velocity of a pointer is averaged
const FADE_TIME = 0.4; // seconds in which playback comes and goes
const MUTE_TIME = 0.12; // seconds in which a band comes and goes
const PULL_SIDE = 0.07; // how far a pull may move anything, as a part of the long side
const SWELLS = [[8, 0, 0.6], [18, 1, 0.3], [41, 4, 0.1]]; // of a steady wind: times in NUM_GUSTS, phase, share

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
    this.looping = true;
    this.windy = false;
    this.windAngle = 0; // radians, 0 blows to the right, a quarter turn downwards
    this.gustiness = 0.5; // 0 a steady wind, 1 nothing but gusts
    this.gains = Float64Array.from(basis.omega, () => 1);
    this.magnify = 1;
    this.farthest = PULL_SIDE * Math.max(basis.width, basis.height);
    this.maxSpeed = 4 * Math.max(basis.width, basis.height);
    this.time = 0;
    this.played = 0;
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
    return playback(this.basis, this.time).map((value, i) => size * this.gains[i >> 1] * value);
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

  /** Seconds after which the playback repeats itself. */
  get period() {
    return (2 * Math.PI) / this.basis.omega[0];
  }

  /** Starts the playback, for one period unless `looping`, or lets it fade. */
  play(on) {
    if (on && !this.playing) this.played = 0;
    this.playing = on;
  }

  /** Mutes the bands whose `active` [k] is 0; nothing that is held slips. */
  setActive(active) {
    activate(this.basis, active);
    for (const hold of this.holds.values()) hold.reach = null;
    this.#split();
  }

  /** Holds a point of the photo where it is now; it is then moved by `pull`. A pin comes to rest by itself. */
  hold(id, point, { pin = false } = {}) {
    const shapes = modesAt(this.basis, point);
    const at = displacementOf(shapes, this.total());
    this.holds.set(id, { point, shapes, at, from: at, before: at, velocity: [0, 0], pin, reach: null });
    this.#split();
  }

  /** Moves a held point towards a displacement [x, y] from its place, as far as the photo can show it. */
  pull(id, [x, y]) {
    const hold = this.holds.get(id);
    if (!hold) return;
    hold.reach ??= findReach(this.basis, hold.point, { most: this.farthest });
    const way = limitPull([x - hold.from[0], y - hold.from[1]], hold.reach);
    hold.at = [hold.from[0] + way[0], hold.from[1] + way[1]];
  }

  /** Moves a held point to a displacement [x, y] from its place in the photo, however far. */
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
    const pace = Math.sqrt(this.basis.mobility / Math.max(this.basis.compliance, TINY));
    const angle = 0.5 * Math.atan2(2 * xy, xx - yy);
    const reach = findReach(this.basis, point, { most: this.farthest });
    const [x, y] = limitPull([swing * Math.cos(angle), swing * Math.sin(angle)], reach);
    this.poke(point, [pace * x, pace * y]);
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
    if (this.playing) this.played += dt;
    if (!this.looping && this.played >= this.period - 1e-6) this.playing = false;
    this.#fadeBands(dt);
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
    if (this.basis.active.some((active, k) => active !== this.gains[k])) return false;
    for (const hold of this.holds.values()) {
      if (hold.pin ? Math.hypot(...hold.at) > 0.01 : hold.at !== hold.before) return false;
      if (Math.hypot(...hold.velocity) > 0.05) return false;
    }
    const size = Math.sqrt(this.basis.mobility);
    return this.basis.omega.every((omega, k) => {
      const { q, v } = this.free;
      return Math.hypot(q[2 * k], q[2 * k + 1], v[2 * k] / omega, v[2 * k + 1] / omega) * size < 0.01;
    });
  }

  #fadeBands(dt) {
    const [pace, left] = [1 - Math.exp(-dt / MUTE_TIME), Math.exp(-dt / MUTE_TIME)];
    this.basis.active.forEach((active, k) => {
      this.gains[k] += pace * (active - this.gains[k]);
      if (Math.abs(active - this.gains[k]) < 1e-3) this.gains[k] = active;
      if (active) return;
      for (const values of [this.free.q, this.free.v]) {
        values[2 * k] *= left;
        values[2 * k + 1] *= left;
      }
    });
  }

  // A wind leans everything its way, swelling and dying down, and shakes each spring at random.
  #force() {
    this.gusts ??= wind(this.basis, NUM_GUSTS, GUST);
    if (this.lean?.angle !== this.windAngle) {
      const q = loadEvenly(this.basis, [Math.cos(this.windAngle), Math.sin(this.windAngle)]);
      this.lean = { angle: this.windAngle, q };
    }
    const { basis, magnify, gustiness, lean } = this;
    const turn = (2 * Math.PI * this.gust) / NUM_GUSTS;
    const swell = SWELLS.reduce((sum, [times, phase, share]) => sum + share * Math.sin(times * turn + phase), 0);
    const steady = Math.sqrt(basis.mobility) * (1 - gustiness) * (0.7 + 0.6 * swell);
    return this.gusts[this.gust].map((value, i) => {
      const k = i >> 1;
      return magnify * basis.active[k] * (2 * gustiness * value + steady * basis.omega[k] ** 2 * lean.q[i]);
    });
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
