// Fingers and mouse: drags, flicks, taps, and pins with their undo.
import { $, canvas, gripAt, listeners, photo, say, view, wake } from "./stage.js";

const TAP_TIME = 260; // ms
const TAP_REACH = 8; // px that a finger may slip in a tap
const DOUBLE_TIME = 340; // ms between two taps on one point
const DOUBLE_REACH = 28; // px

const fingers = new Map();
const history = []; // of pins: { id, point, added }
let lastTap = { time: -Infinity, x: 0, y: 0 };
let numPins = 0;

listeners.open.push(() => {
  dropFingers();
  history.length = 0;
  showHistory();
});

function findPlace({ clientX, clientY }) {
  const box = canvas.getBoundingClientRect();
  return [
    ((clientX - box.left) / box.width) * photo.width - 0.5,
    ((clientY - box.top) / box.height) * photo.height - 0.5,
  ];
}

/** Any touch ends the view of the photo at rest and the hint. */
function showMotion() {
  view.before = false;
  $("before").setAttribute("aria-pressed", "false");
  $("hint").classList.add("gone");
}

function showHistory() {
  $("undo").disabled = !history.length;
}

/** Puts a pin in and returns its id, or null where nothing moves. */
function pin(point) {
  if (gripAt(point) < photo.soft) {
    say("Nothing moves here.");
    return null;
  }
  const id = `pin${numPins++}`;
  photo.scene.hold(id, point, { pin: true });
  history.push({ id, point, added: true });
  say("Pinned.");
  showHistory();
  wake();
  return id;
}

function unpin(id) {
  const { point } = photo.scene.holds.get(id);
  photo.scene.letGo(id);
  history.push({ id, point, added: false });
  say("Pin taken out.");
  showHistory();
  wake();
}

function pinOrUnpin(point) {
  const near = (DOUBLE_REACH * photo.width) / canvas.clientWidth;
  for (const [id, hold] of photo.scene.holds) {
    if (hold.pin && Math.hypot(hold.point[0] - point[0], hold.point[1] - point[1]) < near) return unpin(id);
  }
  pin(point);
}

/** Undoes the last pin that was put in or taken out. */
function undo() {
  const last = history.pop();
  if (!last) return;
  if (last.added) photo.scene.letGo(last.id);
  else photo.scene.hold(last.id, last.point, { pin: true });
  say(last.added ? "Pin taken out." : "Pinned again.");
  showHistory();
  wake();
}

function dropFingers() {
  fingers.clear();
  canvas.classList.remove("holding");
}

function forgetPins() {
  history.length = 0;
  showHistory();
}

function lift(event, { cancelled = false } = {}) {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  fingers.delete(event.pointerId);
  canvas.classList.toggle("holding", fingers.size > 0);
  const tap = finger.tap && !cancelled && event.timeStamp - finger.time < TAP_TIME;
  photo.scene.letGo(event.pointerId, { flick: !tap && !cancelled });
  if (tap) {
    const { clientX: x, clientY: y, timeStamp: time } = event;
    const again = time - lastTap.time < DOUBLE_TIME && Math.hypot(x - lastTap.x, y - lastTap.y) < DOUBLE_REACH;
    if (again) pinOrUnpin(finger.point);
    else photo.scene.tap(finger.point);
    lastTap = { time: again ? -Infinity : time, x, y };
  }
  wake();
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 0 || !photo.scene) return;
  showMotion();
  try {
    canvas.setPointerCapture(event.pointerId);
  } catch {
    // The finger is already gone; its end arrives anyway.
  }
  const point = photo.scene.findPoint(findPlace(event));
  fingers.set(event.pointerId, { point, x: event.clientX, y: event.clientY, time: event.timeStamp, tap: true });
  photo.scene.hold(event.pointerId, point);
  canvas.classList.add("holding");
  wake();
});

canvas.addEventListener("pointermove", (event) => {
  if (!photo.scene) return;
  const place = findPlace(event);
  const finger = fingers.get(event.pointerId);
  if (!finger) {
    canvas.classList.toggle("soft", gripAt(place) > photo.soft);
    return;
  }
  if (Math.hypot(event.clientX - finger.x, event.clientY - finger.y) > TAP_REACH) finger.tap = false;
  photo.scene.pull(event.pointerId, [place[0] - finger.point[0], place[1] - finger.point[1]]);
  wake();
});

canvas.addEventListener("pointerup", (event) => lift(event));
canvas.addEventListener("pointercancel", (event) => lift(event, { cancelled: true }));
canvas.addEventListener("lostpointercapture", (event) => lift(event, { cancelled: true }));
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

export { dropFingers, forgetPins, pin, pinOrUnpin, showMotion, undo, unpin };
