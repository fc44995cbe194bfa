// The band mixer: slow to fast, each group of bands with its heat-map, to be heard alone or not at all.
import { swingOf } from "./modes.js";
import { resetters } from "./controls.js";
import { $, listeners, photo, toShades, view, wake } from "./stage.js";

const NUM_GROUPS = 5;
let groups = [];

/** Bands in groups of about equal steps in pitch, as [first, last] each. */
export function groupBands(count) {
  const starts = [];
  for (let i = 0; i < Math.min(NUM_GROUPS, count); i++) {
    starts.push(Math.max(Math.round(count ** (i / NUM_GROUPS)) - 1, starts.length ? starts[starts.length - 1] + 1 : 0));
  }
  return starts.map((start, i) => [start, (starts[i + 1] ?? count) - 1]);
}

function name([first, last]) {
  const hertz = (k) => (photo.basis.omega[k] / (2 * Math.PI)).toFixed(1);
  return first === last ? `${hertz(first)} Hz` : `${hertz(first)} to ${hertz(last)} Hz`;
}

function apply() {
  const alone = groups.some((group) => group.solo);
  const active = photo.basis.omega.map(() => 0);
  for (const { bands, solo, mute, row } of groups) {
    const on = alone ? solo : !mute;
    row.classList.toggle("off", !on);
    for (let k = bands[0]; k <= bands[1]; k++) active[k] = on ? 1 : 0;
  }
  photo.scene.setActive(active);
  wake();
}

function show(group) {
  view.heat = group?.shades ?? null;
  for (const each of groups) each.map.setAttribute("aria-pressed", String(each === group));
  wake();
}

function makeButton(className, text, label, click) {
  const button = document.createElement("button");
  button.className = className;
  button.textContent = text;
  button.title = label;
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", click);
  return button;
}

function paint(shades) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [photo.width, photo.height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(photo.width, photo.height);
  shades.forEach((shade, i) => image.data.set([240, 128, 61, shade], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

function makeGroup(bands) {
  const group = { bands, solo: false, mute: false, row: document.createElement("div") };
  const weights = photo.basis.omega.map((_, k) => (k >= bands[0] && k <= bands[1] ? 1 : 0));
  const swing = swingOf(photo.basis, weights);
  group.shades = toShades(swing, swing.reduce((most, value) => Math.max(most, value), 1e-12));
  const label = name(bands);
  const set = (which) => (event) => {
    group[which] = !group[which];
    event.currentTarget.setAttribute("aria-pressed", String(group[which]));
    apply();
  };
  const look = () => show(view.heat === group.shades ? null : group);
  group.map = makeButton("map", "", `Show where ${label} swings`, look);
  group.map.append(paint(group.shades));
  group.row.className = "band";
  const text = document.createElement("span");
  text.textContent = label.replace(" to ", "–");
  const solo = makeButton("small", "Solo", `Only ${label}`, set("solo"));
  const mute = makeButton("small", "Mute", `Without ${label}`, set("mute"));
  group.row.append(group.map, text, solo, mute);
  return group;
}

function open() {
  groups = groupBands(photo.basis.omega.length).map(makeGroup);
  view.heat = null;
  $("bands").replaceChildren(...groups.map(({ row }) => row));
}

listeners.open.push(open);
resetters.push(() => {
  show(null);
  for (const group of groups) [group.solo, group.mute] = [false, false];
  for (const button of $("bands").querySelectorAll(".small")) button.setAttribute("aria-pressed", "false");
  apply();
});
