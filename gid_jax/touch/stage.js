// What every part of the page shares: the photo that is open, how it is seen, and the loop that draws it.
import { decodeModes, findRims, grabability, makeBasis, widen } from "./modes.js";
import { Scene } from "./scene.js";

const $ = (id) => document.getElementById(id);
const source = `<!doctype html>\n${document.documentElement.outerHTML}\n`; // before the page changes itself
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const canvas = $("canvas");
const stage = $("stage");

/** The photo that is open: basis, scene and grip from its data, and its images once they are decoded. */
const photo = {};
const view = { speed: 1, overlay: 0, before: false, needed: true, recording: false, heat: null };
const listeners = { frame: [], open: [] };
let draw = null;
let last = 0;
let running = false;

const toShades = (values, most) => Uint8Array.from(values, (value) => 255 * Math.min(1, value / most));
const isOn = (id) => $(id).getAttribute("aria-pressed") === "true";

// A loop, as `from` with a function takes ten times as long, and the page waits for it.
function toBytes(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes.buffer;
}

async function decodeImage(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  await image.decode();
  return image;
}

const decodeImages = (data) => Promise.all([decodeImage(data.photo), decodeImage(data.plate)]);

/** Opens a photo from what `export.py` writes into a page, and its images, which may be under way. */
async function openPhoto(data, decoding = decodeImages(data)) {
  const { width, height } = data;
  const wide = widen(
    decodeModes(new Int16Array(toBytes(data.modes)), data.scales),
    Float32Array.from(new Uint16Array(toBytes(data.depth)), (value) => value / 65535),
    width, height,
  );
  const basis = makeBasis(wide.modes, width, height, data.omega);
  const grip = grabability(basis);
  const images = await decoding;
  Object.assign(photo, {
    data, width, height, basis, grip, depth: wide.depth, rims: findRims(wide.depth, width, height),
    image: images[0], plate: images[1], aspect: images[0].naturalWidth / images[0].naturalHeight,
    soft: 0.02 * basis.compliance, // below this a point resists, as in the engine
    gripShades: toShades(grip.map(Math.sqrt), Math.sqrt(2 * basis.compliance)), scene: new Scene(basis),
  });
  for (const listener of listeners.open) listener();
}

function gripAt([x, y]) {
  const column = Math.min(Math.max(Math.round(x), 0), photo.width - 1);
  const row = Math.min(Math.max(Math.round(y), 0), photo.height - 1);
  return photo.grip[row * photo.width + column];
}

const toPlace = ({ point, at }) => [point[0] + at[0], point[1] + at[1]];

function say(text) {
  $("status").textContent = text;
}

function fail(text) {
  draw = null;
  stage.hidden = true;
  $("hint").hidden = true;
  $("controls").hidden = true;
  $("panel").hidden = true;
  $("message").hidden = false;
  $("message").textContent = text;
}

/** Says who draws; null while the context is lost. */
function setDraw(value) {
  draw = value;
  wake();
}

/** Draws until everything rests. */
function wake() {
  view.needed = true;
  if (running || !draw) return;
  running = true;
  last = performance.now();
  requestAnimationFrame(turn);
}

function turn(now) {
  const dt = Math.min(Math.max(now - last, 0) / 1000, 0.1);
  last = now;
  let busy = view.recording;
  for (const listener of listeners.frame) busy = listener(dt) || busy;
  if (!view.before) photo.scene.advance(dt * view.speed);
  const target = isOn("grip") || view.heat ? 1 : 0;
  view.overlay += (target - view.overlay) * (calm.matches ? 1 : 1 - Math.exp(-dt / 0.08));
  if (Math.abs(target - view.overlay) < 0.01) view.overlay = target;
  if (draw) draw();
  showMarks();
  // At rest nothing is drawn, and no battery is used.
  busy ||= view.overlay !== target || (!view.before && !photo.scene.isStill());
  if (!draw || (!busy && !view.needed)) {
    running = false;
    return;
  }
  view.needed = false;
  requestAnimationFrame(turn);
}

/** Gives the photo the largest size that its room allows, sharp on every screen. */
function fit() {
  const room = stage.parentElement;
  const style = getComputedStyle(room);
  const wide = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const high = room.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  const shown = Math.max(1, Math.floor(Math.min(wide, high * photo.aspect)));
  stage.style.width = `${shown}px`;
  stage.style.height = `${Math.max(1, Math.round(shown / photo.aspect))}px`;
  // Below the photo, or on it where no room is left, but never across its edge.
  const below = (high - shown / photo.aspect) / 2 + parseFloat(style.paddingBottom);
  $("hint").style.bottom = `${below < 56 ? below + 14 : 14}px`;
  const ratio = Math.min(devicePixelRatio || 1, 3);
  // Even, as most encoders of video want it; and a video keeps the size with which it began.
  const toEven = (side) => 2 * Math.max(1, Math.round(side / 2));
  const [columns, rows] = [toEven(shown * ratio), toEven((shown / photo.aspect) * ratio)];
  if (!view.recording && (canvas.width !== columns || canvas.height !== rows)) {
    [canvas.width, canvas.height] = [columns, rows];
    draw?.(); // which has emptied it
  }
  wake();
}

const marks = new Map();

function moveTo(element, [x, y]) {
  element.style.left = `${(100 * (x + 0.5)) / photo.width}%`;
  element.style.top = `${(100 * (y + 0.5)) / photo.height}%`;
}

function showMarks() {
  const { holds } = photo.scene;
  for (const [id, hold] of holds) {
    if (!marks.has(id)) {
      const element = document.createElement("div");
      element.className = hold.pin ? "pin" : "finger";
      $("marks").append(element);
      marks.set(id, element);
    }
    moveTo(marks.get(id), toPlace(hold));
  }
  for (const [id, element] of marks) {
    if (holds.has(id)) continue;
    element.remove();
    marks.delete(id);
  }
}

export {
  $, calm, canvas, decodeImages, fail, fit, gripAt, isOn, listeners, moveTo, openPhoto, photo, say, setDraw, source, stage, toPlace,
  toShades, view, wake,
};
