// The keyboard on the photo: a crosshair chooses a point, arrow keys pull it.
import { pinOrUnpin, showMotion } from "./pointers.js";
import { $, canvas, listeners, moveTo, photo, toPlace, wake } from "./stage.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = "keys"; // the name of their hold

const keys = new Set();
let crosshair = [0, 0];
let aim = [0, 0];
let held = 0; // seconds

listeners.open.push(() => {
  keys.clear();
  let best = 0;
  photo.grip.forEach((value, i) => {
    if (value > photo.grip[best]) best = i;
  });
  crosshair = [best % photo.width, Math.floor(best / photo.width)];
});

listeners.frame.push((dt) => {
  const hold = photo.scene.holds.get(KEYS);
  if (keys.size && hold) {
    held += dt;
    const pace = photo.scene.farthest * (0.3 + 0.6 * held) * dt;
    for (const key of keys) aim = [aim[0] + ARROWS[key][0] * pace, aim[1] + ARROWS[key][1] * pace];
    photo.scene.pull(KEYS, aim);
  }
  moveTo($("crosshair"), hold ? toPlace(hold) : crosshair);
  return keys.size > 0;
});

function dropKeys() {
  keys.clear();
  photo.scene?.letGo(KEYS);
  wake();
}

function moveCrosshair([x, y]) {
  const size = 0.02 * Math.max(photo.width, photo.height);
  crosshair = [
    Math.min(Math.max(crosshair[0] + size * x, 0), photo.width - 1),
    Math.min(Math.max(crosshair[1] + size * y, 0), photo.height - 1),
  ];
  wake();
}

canvas.addEventListener("keydown", (event) => {
  if (!photo.scene || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  const point = () => photo.scene.findPoint(crosshair);
  if (arrow && event.shiftKey) {
    moveCrosshair(arrow);
  } else if (arrow) {
    showMotion();
    if (!keys.size) {
      photo.scene.hold(KEYS, point());
      aim = photo.scene.holds.get(KEYS).at;
      held = 0;
    }
    keys.add(event.key);
    wake();
  } else if (event.key === "Enter" && !event.repeat) {
    showMotion();
    photo.scene.tap(point());
    wake();
  } else if (event.key.toLowerCase() === "p" && !event.repeat) {
    showMotion();
    pinOrUnpin(point());
  } else {
    return;
  }
  event.preventDefault();
});

canvas.addEventListener("keyup", (event) => {
  if (keys.delete(event.key) && !keys.size) dropKeys();
});
canvas.addEventListener("focus", wake);
canvas.addEventListener("blur", dropKeys);
