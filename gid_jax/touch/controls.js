// Buttons, sliders and the keys that stand for them.
import { dropFingers, forgetPins, showMotion, undo } from "./pointers.js";
import { $, calm, isOn, listeners, photo, say, view, wake } from "./stage.js";

const SHORTCUTS = { " ": "play", w: "wind", g: "grip", u: "undo", Escape: "reset", m: "more", r: "record" };

function press(id, on) {
  $(id).setAttribute("aria-pressed", String(on));
}

function toggle(id, set) {
  $(id).addEventListener("click", () => {
    press(id, !isOn(id));
    set(isOn(id));
    wake();
  });
}

function setPlaying(on) {
  photo.scene.play(on);
  press("play", on);
  wake();
}

function setWindy(on) {
  photo.scene.windy = on;
  press("wind", on);
  wake();
}

function setBefore(on) {
  view.before = on;
  press("before", on);
  wake();
}

/** Everything at rest, no pins, all as it was when the page was opened but for the panel. */
function reset() {
  dropFingers();
  forgetPins();
  setPlaying(false);
  setWindy(false);
  photo.scene.level = 0;
  photo.scene.reset();
  press("grip", false);
  for (const slider of document.querySelectorAll("#panel input[type=range]")) {
    slider.value = slider.defaultValue;
    slider.dispatchEvent(new Event("input"));
  }
  $("loop").checked = true;
  photo.scene.looping = true;
  for (const listener of resetters) listener();
  showMotion();
  say("At rest.");
  wake();
}

const resetters = [];

function slide(id, format, set) {
  const show = () => {
    const value = Number($(id).value);
    $(id).nextElementSibling.textContent = format(value);
    $(id).setAttribute("aria-valuetext", format(value));
    set(value);
    wake();
  };
  $(id).addEventListener("input", show);
  listeners.open.push(show);
}

const times = (value) => `${value}×`;
slide("magnify", times, (value) => (photo.scene.magnify = value));
slide("speed", times, (value) => (view.speed = value));
slide("direction", (value) => "→↘↓↙←↖↑↗"[Math.round(value / 45) % 8], (value) => {
  photo.scene.windAngle = (value * Math.PI) / 180;
});
slide("gusts", (value) => `${Math.round(100 * value)}%`, (value) => (photo.scene.gustiness = value));

toggle("play", (on) => {
  showMotion();
  setPlaying(on);
});
toggle("wind", (on) => {
  showMotion();
  setWindy(on);
});
toggle("grip", () => {});
$("loop").addEventListener("change", () => (photo.scene.looping = $("loop").checked));
$("undo").addEventListener("click", undo);
$("reset").addEventListener("click", reset);
$("more").addEventListener("click", () => {
  const open = $("panel").hidden;
  $("panel").hidden = !open;
  $("more").setAttribute("aria-expanded", String(open));
});

listeners.open.push(() => {
  photo.scene.looping = $("loop").checked;
  photo.scene.windy = isOn("wind");
  photo.scene.playing = isOn("play");
});
listeners.frame.push(() => {
  if (isOn("play") !== photo.scene.playing) press("play", photo.scene.playing);
  return false;
});

// The photo at rest is seen for as long as the button or its key is held; a click without either keeps it.
const before = $("before");
before.addEventListener("pointerdown", (event) => {
  before.setPointerCapture(event.pointerId);
  setBefore(true);
});
for (const kind of ["pointerup", "pointercancel", "blur"]) before.addEventListener(kind, () => setBefore(false));
before.addEventListener("click", (event) => {
  if (event.detail === 0) setBefore(!view.before);
});
before.addEventListener("contextmenu", (event) => event.preventDefault());

let isHeld = false; // the key of the photo at rest
document.addEventListener("keydown", (event) => {
  if (!photo.scene || event.altKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") undo();
    return;
  }
  // On a button, space has a meaning of its own.
  if (key === " " && ["BUTTON", "INPUT"].includes(event.target.tagName)) return;
  if (key === "b") setBefore((isHeld = true));
  else if (SHORTCUTS[key] && !$(SHORTCUTS[key]).disabled) $(SHORTCUTS[key]).click();
  else return;
  event.preventDefault();
});
function letKeyGo() {
  if (isHeld) setBefore((isHeld = false));
}

document.addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "b") letKeyGo();
});
addEventListener("blur", letKeyGo); // it is let go elsewhere

// A query of its own: Chromium tells of no change that a frame has read before, as the drawing of `stage.js` reads `calm`.
const wish = matchMedia(calm.media);
wish.addEventListener("change", (event) => {
  if (!event.matches) return;
  setPlaying(false);
  setWindy(false);
});

export { press, reset, resetters, setPlaying, setWindy };
