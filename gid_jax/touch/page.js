// Draws the photo where its modes have moved it, and turns fingers, mouse and keys into grabs. Raw WebGL2.
import { Scene, decodeModes, displacementField, grabability, leverage, makeBasis, widen } from "./engine.js";

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const canvas = $("canvas");
const stage = $("stage");

const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

const { width, height } = data;
const { modes, depth } = widen(
  decodeModes(new Int16Array(toBytes(data.modes)), data.scales),
  Float32Array.from(new Uint16Array(toBytes(data.depth)), (value) => value / 65535),
  width, height,
);
const basis = makeBasis(modes, width, height, data.omega);
const grip = grabability(basis);
const scene = new Scene(basis);

const TAP_TIME = 260; // ms
const TAP_REACH = 8; // px that a finger may slip in a tap
const DOUBLE_TIME = 340; // ms between two taps on one point
const DOUBLE_REACH = 28; // px
const LIMIT = 0.07 * Math.max(width, height); // how far a pull may move anything; beyond, the photo resists
const MARGIN = 0.1; // by which the photo, mirrored, goes on beyond its edges: what moves in comes from there
const SOFT = 0.02 * basis.compliance; // below this a point resists, as in the engine
const FINER = 2; // triangles of the mesh for one cell of the grid of motion, per axis

const view = { speed: 1, overlay: 0, before: false, needed: true };

// ---------------------------------------------------------------------------------------------------------- drawing

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D field, depth;
uniform vec2 grid;
in vec2 place;
out vec2 uv;
vec4 look(sampler2D values, vec2 at) {
  at = clamp(at, vec2(0), grid - 1.0);
  ivec2 a = ivec2(at), b = min(a + 1, ivec2(grid) - 1);
  vec2 f = at - vec2(a);
  return mix(
    mix(texelFetch(values, a, 0), texelFetch(values, ivec2(b.x, a.y), 0), f.x),
    mix(texelFetch(values, ivec2(a.x, b.y), 0), texelFetch(values, b, 0), f.x), f.y);
}
void main() {
  vec2 at = place * grid - 0.5;
  vec2 seen = place + look(field, at).xy / grid;
  uv = place;
  gl_Position = vec4(2.0 * seen.x - 1.0, 1.0 - 2.0 * seen.y, 0.9 - 1.8 * look(depth, at).x, 1);
}`;

// Where one thing moves away from another the triangles between them are stretched over what comes into view. They
// fade, and what stands behind is seen. What is turned inside out lies under what has moved over it.
const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D photo, grip;
uniform vec2 size;
uniform float overlay;
uniform vec3 accent;
in vec2 uv;
out vec4 color;
void main() {
  vec3 seen = texture(photo, uv).rgb;
  vec2 dx = dFdx(uv) * size, dy = dFdy(uv) * size;
  float turned = dx.x * dy.y - dx.y * dy.x;
  float sum = dot(dx, dx) + dot(dy, dy);
  float squeezed = sqrt(max(0.0, 0.5 * (sum - sqrt(max(0.0, sum * sum - 4.0 * turned * turned)))));
  float solid = smoothstep(0.4, 0.62, squeezed);
  if (turned > 0.0 || solid < 0.02) discard;
  float soft = texture(grip, uv).r;
  vec3 marked = mix(seen * 0.45, mix(seen, accent, 0.62), soft);
  color = vec4(mix(seen, marked, overlay) * solid, solid);
}`;

const PLATE_VERTEX = `#version 300 es
in vec2 place;
out vec2 uv;
void main() {
  uv = place;
  gl_Position = vec4(2.0 * place.x - 1.0, 1.0 - 2.0 * place.y, 1, 1);
}`;

const PLATE_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D plate;
uniform float overlay;
in vec2 uv;
out vec4 color;
void main() { color = vec4(texture(plate, uv).rgb * (1.0 - 0.55 * overlay), 1); }`;

function makeProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "place");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(gl.getProgramInfoLog(program));
  }
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    at[name] = gl.getUniformLocation(program, name);
  }
  return { program, at };
}

function makeTexture(gl, unit, filter, wrap, fill) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, wrap);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter === gl.NEAREST ? gl.NEAREST : gl.LINEAR);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  fill();
}

function makeMesh(gl, columns, rows, margin) {
  const places = new Float32Array(2 * (columns + 1) * (rows + 1));
  const corners = new Uint32Array(6 * columns * rows);
  let p = 0;
  let c = 0;
  for (let y = 0; y <= rows; y++) {
    for (let x = 0; x <= columns; x++) {
      places[p++] = (1 + 2 * margin) * (x / columns) - margin;
      places[p++] = (1 + 2 * margin) * (y / rows) - margin;
      if (x === columns || y === rows) continue;
      const a = y * (columns + 1) + x;
      const b = a + columns + 1;
      corners.set([a, b, a + 1, a + 1, b, b + 1], c);
      c += 6;
    }
  }
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
  return { array, count: corners.length };
}

const FIELD = 0;
const DEPTH = 1;
const PHOTO = 2;
const PLATE = 3;
const GRIP = 4;

/** Everything on the GPU, made anew when a context is lost and comes back. */
function makeScreen(gl, images) {
  const edge = gl.CLAMP_TO_EDGE;
  const mesh = makeMesh(gl, FINER * width, FINER * height, MARGIN);
  const square = makeMesh(gl, 1, 1, 0);
  const moved = makeProgram(gl, VERTEX, FRAGMENT);
  const behind = makeProgram(gl, PLATE_VERTEX, PLATE_FRAGMENT);
  makeTexture(gl, FIELD, gl.NEAREST, edge, () => gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RG32F, width, height));
  makeTexture(gl, DEPTH, gl.NEAREST, edge, () =>
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, width, height, 0, gl.RED, gl.FLOAT, depth));
  const upload = (image) => {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
  };
  makeTexture(gl, PHOTO, gl.LINEAR_MIPMAP_LINEAR, gl.MIRRORED_REPEAT, () => upload(images.photo));
  makeTexture(gl, PLATE, gl.LINEAR_MIPMAP_LINEAR, edge, () => upload(images.plate));
  const most = Math.sqrt(2 * basis.compliance);
  const shades = Uint8Array.from(grip, (value) => 255 * Math.min(1, Math.sqrt(value) / most));
  makeTexture(gl, GRIP, gl.LINEAR, edge, () =>
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, width, height, 0, gl.RED, gl.UNSIGNED_BYTE, shades));
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const field = new Float32Array(2 * width * height);

  return function draw() {
    if (view.before) field.fill(0);
    else displacementField(basis, scene.total(), field);
    gl.activeTexture(gl.TEXTURE0 + FIELD);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RG, gl.FLOAT, field);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.DEPTH_BUFFER_BIT);
    gl.useProgram(behind.program);
    gl.uniform1i(behind.at.plate, PLATE);
    gl.uniform1f(behind.at.overlay, view.overlay);
    gl.bindVertexArray(square.array);
    gl.drawElements(gl.TRIANGLES, square.count, gl.UNSIGNED_INT, 0);
    gl.useProgram(moved.program);
    for (const [name, unit] of [["field", FIELD], ["depth", DEPTH], ["photo", PHOTO], ["grip", GRIP]]) {
      gl.uniform1i(moved.at[name], unit);
    }
    gl.uniform2f(moved.at.grid, width, height);
    gl.uniform2f(moved.at.size, canvas.width, canvas.height);
    gl.uniform1f(moved.at.overlay, view.overlay);
    gl.uniform3f(moved.at.accent, 0.94, 0.5, 0.24);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
  };
}

let draw = null;
let last = 0;
let running = false;

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
  pullByKeys(dt);
  if (!view.before) scene.advance(dt * view.speed);
  const target = $("grip").getAttribute("aria-pressed") === "true" ? 1 : 0;
  view.overlay += (target - view.overlay) * (calm.matches ? 1 : 1 - Math.exp(-dt / 0.08));
  if (Math.abs(target - view.overlay) < 0.01) view.overlay = target;
  if (draw) draw();
  showMarks();
  // At rest nothing is drawn, and no battery is used.
  const busy = fingers.size || keys.size || view.overlay !== target || (!view.before && !scene.isStill());
  if (!draw || (!busy && !view.needed)) {
    running = false;
    return;
  }
  view.needed = false;
  requestAnimationFrame(turn);
}

// ---------------------------------------------------------------------------------------------------------- layout

let aspect = width / height;

function fit() {
  const room = stage.parentElement;
  const style = getComputedStyle(room);
  const wide = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const high = room.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  const shown = Math.max(1, Math.floor(Math.min(wide, high * aspect)));
  stage.style.width = `${shown}px`;
  stage.style.height = `${Math.max(1, Math.round(shown / aspect))}px`;
  const ratio = Math.min(devicePixelRatio || 1, 3);
  const [columns, rows] = [Math.round(shown * ratio), Math.round((shown / aspect) * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, Math.max(1, rows)];
  wake();
}

const marks = new Map();

function mark(id, kind, [x, y]) {
  let element = marks.get(id);
  if (!element) {
    element = document.createElement("div");
    element.className = kind;
    $("marks").append(element);
    marks.set(id, element);
  }
  element.style.left = `${(100 * (x + 0.5)) / width}%`;
  element.style.top = `${(100 * (y + 0.5)) / height}%`;
}

function showMarks() {
  for (const [id, { point, at, pin }] of scene.holds) {
    mark(id, pin ? "pin" : "finger", [point[0] + at[0], point[1] + at[1]]);
  }
  for (const [id, element] of marks) {
    if (scene.holds.has(id)) continue;
    element.remove();
    marks.delete(id);
  }
  const [x, y] = scene.holds.has("keys") ? toPlace(scene.holds.get("keys")) : crosshair;
  $("crosshair").style.left = `${(100 * (x + 0.5)) / width}%`;
  $("crosshair").style.top = `${(100 * (y + 0.5)) / height}%`;
}

const toPlace = ({ point, at }) => [point[0] + at[0], point[1] + at[1]];

// -------------------------------------------------------------------------------------------------- fingers and mouse

const fingers = new Map();
let lastTap = { time: -Infinity, x: 0, y: 0 };
let numPins = 0;

function findPlace({ clientX, clientY }) {
  const box = canvas.getBoundingClientRect();
  return [((clientX - box.left) / box.width) * width - 0.5, ((clientY - box.top) / box.height) * height - 0.5];
}

function gripAt([x, y]) {
  const column = Math.min(Math.max(Math.round(x), 0), width - 1);
  const row = Math.min(Math.max(Math.round(y), 0), height - 1);
  return grip[row * width + column];
}

// A finger is followed exactly as long as nothing goes farther than LIMIT.
function limit([x, y], most) {
  const size = Math.hypot(x, y);
  if (size <= most) return [x, y];
  const give = most / 2;
  const scale = (most + give * (1 - Math.exp((most - size) / give))) / size;
  return [x * scale, y * scale];
}

function say(text) {
  $("status").textContent = text;
}

function pinOrUnpin(point) {
  const near = (DOUBLE_REACH * width) / canvas.clientWidth;
  for (const [id, hold] of scene.holds) {
    if (hold.pin && Math.hypot(hold.point[0] - point[0], hold.point[1] - point[1]) < near) return unpin(id);
  }
  if (gripAt(point) < SOFT) return say("Nothing moves here.");
  scene.hold(`pin${numPins++}`, point, { pin: true });
  say("Pinned.");
  showPins();
}

function unpin(id) {
  scene.letGo(id);
  say("Pin taken out.");
  showPins();
}

function pins() {
  return [...scene.holds].filter(([, hold]) => hold.pin).map(([id]) => id);
}

function showPins() {
  $("unpin").disabled = !pins().length;
  wake();
}

function showAll() {
  if (!view.before) return;
  view.before = false;
  $("photo").setAttribute("aria-pressed", "false");
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  showAll();
  $("hint").classList.add("gone");
  try {
    canvas.setPointerCapture(event.pointerId);
  } catch {
    // The finger is already gone; its end arrives anyway.
  }
  const place = findPlace(event);
  const point = scene.findPoint(place);
  const most = LIMIT / leverage(basis, point);
  fingers.set(event.pointerId, { point, most, x: event.clientX, y: event.clientY, time: event.timeStamp, tap: true });
  scene.hold(event.pointerId, point);
  canvas.classList.add("holding");
  wake();
});

canvas.addEventListener("pointermove", (event) => {
  const place = findPlace(event);
  const finger = fingers.get(event.pointerId);
  if (!finger) {
    canvas.classList.toggle("soft", gripAt(place) > SOFT);
    return;
  }
  if (Math.hypot(event.clientX - finger.x, event.clientY - finger.y) > TAP_REACH) finger.tap = false;
  scene.move(event.pointerId, limit([place[0] - finger.point[0], place[1] - finger.point[1]], finger.most));
  wake();
});

function lift(event, { cancelled = false } = {}) {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  fingers.delete(event.pointerId);
  canvas.classList.toggle("holding", fingers.size > 0);
  const tap = finger.tap && !cancelled && event.timeStamp - finger.time < TAP_TIME;
  scene.letGo(event.pointerId, { flick: !tap && !cancelled });
  if (tap) {
    const { clientX: x, clientY: y, timeStamp: time } = event;
    const again = time - lastTap.time < DOUBLE_TIME && Math.hypot(x - lastTap.x, y - lastTap.y) < DOUBLE_REACH;
    if (again) pinOrUnpin(finger.point);
    else scene.tap(finger.point);
    lastTap = { time: again ? -Infinity : time, x, y };
  }
  wake();
}

canvas.addEventListener("pointerup", (event) => lift(event));
canvas.addEventListener("pointercancel", (event) => lift(event, { cancelled: true }));
canvas.addEventListener("lostpointercapture", (event) => lift(event, { cancelled: true }));
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

// ---------------------------------------------------------------------------------------------------------- keyboard

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const keys = new Set();
let pace = 0;
let keyLimit = LIMIT;
let crosshair = findSoftest();

function findSoftest() {
  let best = 0;
  grip.forEach((value, i) => {
    if (value > grip[best]) best = i;
  });
  return [best % width, Math.floor(best / width)];
}

function pullByKeys(dt) {
  const hold = scene.holds.get("keys");
  if (!keys.size || !hold) return;
  pace += dt;
  let [x, y] = hold.at;
  for (const key of keys) {
    x += ARROWS[key][0] * keyLimit * (0.4 + 0.8 * pace) * dt;
    y += ARROWS[key][1] * keyLimit * (0.4 + 0.8 * pace) * dt;
  }
  scene.move("keys", limit([x, y], keyLimit));
}

function dropKeys() {
  keys.clear();
  scene.letGo("keys");
  wake();
}

canvas.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) {
    const size = 0.02 * Math.max(width, height);
    crosshair = [
      Math.min(Math.max(crosshair[0] + size * arrow[0], 0), width - 1),
      Math.min(Math.max(crosshair[1] + size * arrow[1], 0), height - 1),
    ];
    wake();
  } else if (arrow) {
    showAll();
    if (!keys.size) {
      pace = 0;
      const point = scene.findPoint(crosshair);
      keyLimit = LIMIT / leverage(basis, point);
      scene.hold("keys", point);
    }
    keys.add(event.key);
    wake();
  } else if (event.key === "Enter" && !event.repeat) {
    showAll();
    scene.tap(scene.findPoint(crosshair));
    wake();
  } else if (event.key === "p" || event.key === "P") {
    pinOrUnpin(scene.findPoint(crosshair));
  } else {
    return;
  }
  $("hint").classList.add("gone");
  event.preventDefault();
});

canvas.addEventListener("keyup", (event) => {
  if (!keys.delete(event.key)) return;
  if (!keys.size) dropKeys();
});
canvas.addEventListener("focus", wake);
canvas.addEventListener("blur", dropKeys);

// ---------------------------------------------------------------------------------------------------------- controls

function toggle(id, set) {
  $(id).addEventListener("click", () => {
    const on = $(id).getAttribute("aria-pressed") !== "true";
    $(id).setAttribute("aria-pressed", String(on));
    set(on);
    wake();
  });
}

function setPlaying(on) {
  scene.playing = on;
  $("play").setAttribute("aria-pressed", String(on));
}

toggle("play", (on) => {
  showAll();
  setPlaying(on);
});
toggle("wind", (on) => {
  showAll();
  scene.windy = on;
});
toggle("grip", () => {});
toggle("photo", (on) => {
  view.before = on;
});
$("unpin").addEventListener("click", () => unpin(pins().pop()));
$("reset").addEventListener("click", reset);

function reset() {
  canvas.classList.remove("holding");
  fingers.clear();
  keys.clear();
  setPlaying(false);
  scene.windy = false;
  scene.level = 0;
  scene.reset();
  for (const id of ["wind", "grip"]) $(id).setAttribute("aria-pressed", "false");
  for (const id of ["magnify", "speed"]) {
    $(id).value = 1;
    $(id).dispatchEvent(new Event("input"));
  }
  showAll();
  showPins();
  say("At rest.");
}

function slide(id, set) {
  $(id).addEventListener("input", () => {
    set(Number($(id).value));
    $(id).nextElementSibling.textContent = `${Number($(id).value)}×`;
    wake();
  });
}

slide("magnify", (value) => (scene.magnify = value));
slide("speed", (value) => (view.speed = value));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = { w: "wind", g: "grip", b: "photo", u: "unpin", Escape: "reset" }[
    event.key.length === 1 ? event.key.toLowerCase() : event.key
  ];
  const free = !["BUTTON", "INPUT"].includes(event.target.tagName); // there, space has a meaning of its own
  if (event.key === " " && free) {
    event.preventDefault();
    $("play").click();
  } else if (button) {
    $(button).click();
  }
});

calm.addEventListener("change", () => {
  if (!calm.matches) return;
  setPlaying(false);
  scene.windy = false;
  $("wind").setAttribute("aria-pressed", "false");
});

// ---------------------------------------------------------------------------------------------------------- beginning

function fail(text) {
  draw = null;
  stage.hidden = true;
  $("controls").hidden = true;
  $("message").hidden = false;
  $("message").textContent = text;
}

async function open(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  await image.decode();
  return image;
}

async function start() {
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: true });
  if (!gl) {
    return fail("This page draws with WebGL 2, which this browser does not have or has switched off. " +
      "A current version of Chrome, Edge, Firefox or Safari shows it.");
  }
  const [photo, plate] = await Promise.all([open(data.photo), open(data.plate)]);
  aspect = photo.naturalWidth / photo.naturalHeight;
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    draw = null;
  });
  canvas.addEventListener("webglcontextrestored", () => {
    draw = makeScreen(gl, { photo, plate });
    wake();
  });
  if (!gl.isContextLost()) draw = makeScreen(gl, { photo, plate });
  if (!calm.matches) setPlaying(true);
  new ResizeObserver(fit).observe(stage.parentElement);
  addEventListener("resize", fit);
  fit();
}

start().catch((error) => fail(`The photo cannot be shown: ${error.message}`));
