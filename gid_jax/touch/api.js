// window.gidTouch: the page's hands for other scripts, and for a page around its frame by messages.
import { reset, resetters, setPlaying, setWindy } from "./controls.js";
import { pin, showMotion, unpin } from "./pointers.js";
import { record, stop } from "./saving.js";
import { $, openPhoto, photo, view, wake } from "./stage.js";

const isWhole = (...values) => values.every((value) => typeof value === "number" && Number.isFinite(value));
let numPulls = 0;
let rested = null; // what `rest` has stopped, until somebody decides otherwise
resetters.push(() => (rested = null));
for (const id of ["play", "wind"]) $(id).addEventListener("click", () => (rested = null));

function toPoint(x, y) {
  if (!isWhole(x, y)) throw new TypeError("a point is two numbers, parts of the photo's width and height");
  return [x * photo.width - 0.5, y * photo.height - 0.5];
}

function setSlider(id, value) {
  if (value === undefined) return;
  if (!isWhole(value)) throw new TypeError(`${id} is a number`);
  $(id).value = value;
  $(id).dispatchEvent(new Event("input"));
}

/** The calls of docs/touch.md. Points and ways are parts of the photo's width and height, from its top left corner. */
const api = {
  /** Opens another photo: the text of an exported page, or the data in it. */
  async load(page) {
    let data = page;
    if (typeof page === "string") {
      const found = page.match(/<script type="application\/json" id="data">([^<]*)/);
      if (!found) throw new TypeError("this is no exported page");
      data = JSON.parse(found[1]);
    }
    stop();
    await openPhoto(data);
  },
  /** Takes hold of a point, or moves a pull by its id, by a way (dx, dy) from rest; returns the id. */
  pull(x, y, dx, dy, id = `pull${numPulls++}`) {
    const point = toPoint(x, y);
    if (!isWhole(dx, dy)) throw new TypeError("a way is two numbers, parts of the photo's width and height");
    showMotion();
    if (!photo.scene.holds.has(id)) photo.scene.hold(id, point);
    photo.scene.pull(id, [dx * photo.width, dy * photo.height]);
    wake();
    return id;
  },
  /** Lets a pull or a pin go; without an id, all of them. */
  release(id) {
    for (const each of id === undefined ? [...photo.scene.holds.keys()] : [id]) {
      if (photo.scene.holds.get(each)?.pin) unpin(each);
      else photo.scene.letGo(each);
    }
    wake();
  },
  /** Pins a point; returns the pin's id, or null where nothing moves. */
  pin: (x, y) => pin(toPoint(x, y)),
  /** Lets the wind blow, with { direction in degrees, gusts 0 to 1, strength }, or stops it with false. */
  wind(options = {}) {
    if (options) {
      const { direction } = options;
      // The slider has eight directions, the wind any.
      setSlider("direction", isWhole(direction) ? 45 * (((Math.round(direction / 45) % 8) + 8) % 8) : direction);
      if (isWhole(direction)) photo.scene.windAngle = (direction * Math.PI) / 180;
      showMotion();
      setSlider("gusts", options.gusts);
      setSlider("magnify", options.strength);
    }
    setWindy(Boolean(options));
  },
  /** Plays the generated motion, or stops it with false; { speed, loop }. */
  play(on = true, { speed, loop } = {}) {
    setSlider("speed", speed);
    if (loop !== undefined) $("loop").checked = photo.scene.looping = Boolean(loop);
    if (on) showMotion();
    setPlaying(Boolean(on));
  },
  /** Stops playback and wind, or with false goes on with what it has stopped. */
  rest(on = true) {
    if (on) rested ??= { playing: photo.scene.playing, windy: photo.scene.windy };
    if (rested?.playing) setPlaying(!on);
    if (rested?.windy) setWindy(!on);
    if (!on) rested = null;
  },
  /** A video of some seconds, by itself one period of the motion, as a Blob. */
  record(seconds = photo.scene.period / view.speed) {
    if (!isWhole(seconds) || seconds <= 0) throw new TypeError("a video lasts a number of seconds");
    return record(seconds);
  },
  reset,
};

/** Whether a page of this origin may send messages. */
function isAllowed(origin) {
  const allowed = photo.origins ?? [];
  return allowed.includes("*") || allowed.includes(origin) || (origin === location.origin && origin !== "null");
}

/** Makes the calls possible once `ready` is, and answers messages { gidTouch, args, id } with { gidTouch, id, result }. */
export function listen(ready) {
  window.gidTouch = Object.fromEntries(
    Object.entries(api).map(([name, call]) => [name, async (...args) => {
      await ready;
      return call(...args);
    }]),
  );
  addEventListener("message", async ({ data, origin, source }) => {
    const name = data?.gidTouch;
    if (typeof name !== "string" || !Object.hasOwn(api, name) || !source) return;
    await ready.catch(() => {}); // what fails is told below
    if (!isAllowed(origin)) return;
    const answer = { gidTouch: name, id: data.id };
    try {
      answer.result = await window.gidTouch[name](...(data.args ?? []));
    } catch (error) {
      answer.error = error.message;
    }
    source.postMessage(answer, { targetOrigin: origin === "null" ? "*" : origin });
  });
}
