// Draws the photo where its modes have moved it: what is whole, then the rims that are stretched. Raw WebGL2.
import { displacementField } from "./modes.js";
import { canvas, isOn, photo, view } from "./stage.js";

const MARGIN = 0.1; // by about which the photo, mirrored, goes on beyond its edges: what moves in comes from there
const [GONE_AT, WHOLE_FROM] = [0.4, 0.66]; // sizes of what is stretched between which it fades
const [PHOTO, PLATE, HEAT] = [0, 1, 2];

// Mirrored by the vertices, which lie on the photo's edges, as a texture that mirrors itself costs each pixel more.
const VERTEX = `
in vec4 vertex;
in vec2 moved;
uniform vec2 grid;
out vec2 uv;
#ifdef RIM
out float rim;
#endif
void main() {
  vec2 seen = vertex.xy + moved / grid;
  uv = 1.0 - abs(1.0 - abs(vertex.xy));
#ifdef RIM
  rim = vertex.w;
#endif
  gl_Position = vec4(2.0 * seen.x - 1.0, 1.0 - 2.0 * seen.y, 0.9 - 1.8 * vertex.z, 1);
}`;

// Programs of their own for what most pixels do without: in software both sides of a condition are computed.
//
// Where one thing moves away from another the triangles between them are stretched over what comes into view. They
// fade, and what stands behind is seen, behind all else; inside a thing they stretch.
const FRAGMENT = `
precision highp float;
uniform sampler2D photo, plate, heat;
uniform vec2 size;
uniform float overlay;
uniform vec3 accent;
in vec2 uv;
#ifdef RIM
in float rim;
#endif
out vec4 color;
vec3 look() {
  vec3 seen = textureLod(photo, uv, 0.0).rgb;
#ifdef OVERLAY
  float soft = textureLod(heat, uv, 0.0).r;
  seen = mix(seen, mix(seen * 0.45, mix(seen, accent, 0.62), soft), overlay);
#endif
  return seen;
}
#ifdef RIM
void main() {
  vec2 dx = dFdx(uv) * size, dy = dFdy(uv) * size;
  float turned = dx.x * dy.y - dx.y * dy.x;
  float sum = dot(dx, dx) + dot(dy, dy);
  float squeezed = sqrt(max(0.0, 0.5 * (sum - sqrt(max(0.0, sum * sum - 4.0 * turned * turned)))));
  float solid = mix(1.0, smoothstep(${GONE_AT}, ${WHOLE_FROM}, squeezed), rim);
  vec2 at = gl_FragCoord.xy / size;
  vec3 behind = textureLod(plate, vec2(at.x, 1.0 - at.y), 0.0).rgb * (1.0 - 0.55 * overlay);
  color = vec4(mix(behind, look(), solid), 1);
  gl_FragDepth = solid < 0.02 ? 1.0 : gl_FragCoord.z;
}
#else
void main() { color = vec4(look(), 1); }
#endif`;

/** Has the driver compile a program; `findUniforms` waits for it. */
function beginProgram(gl, ...defined) {
  const program = gl.createProgram();
  const head = ["#version 300 es", ...defined.map((name) => `#define ${name}`)].join("\n");
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, head + text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "vertex");
  gl.bindAttribLocation(program, 1, "moved");
  gl.linkProgram(program);
  return program;
}

function findUniforms(gl, program) {
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(gl.getProgramInfoLog(program));
  }
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    at[name] = gl.getUniformLocation(program, name);
  }
  return at;
}

function makeTexture(gl, unit) {
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  for (const size of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, size, gl.LINEAR);
  return texture;
}

function upload(gl, unit, image) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
}

/** The image at the size in which it is shown, so that each pixel reads one place of it; never enlarged. */
function shrink(image) {
  if (image.naturalWidth <= canvas.width) return image;
  const small = document.createElement("canvas");
  [small.width, small.height] = [canvas.width, canvas.height];
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, small.width, small.height);
  return small;
}

// Between which of `count` points of the grid of motion a part x of the photo's side lies, and how far on.
function findBetween(x, count) {
  const at = Math.min(Math.max(x * count - 0.5, 0), count - 1);
  const before = Math.floor(at);
  return [before, Math.min(before + 1, count - 1), at - before];
}

/** Where lines of a mesh cross a side of `count` points of the grid of motion, parts of it: on 0, on 1, and beyond. */
function divide(count) {
  const beyond = Math.max(1, Math.round((count * MARGIN) / (1 + 2 * MARGIN)));
  const within = Math.max(1, count - 2 * beyond);
  return Array.from({ length: within + 2 * beyond + 1 }, (_, i) => (i - beyond) / within);
}

/**
 * Vertices (x, y, depth, rim) over the photo and a margin of it, and triangles, those without a rim and those with one.
 * `cell` is the size of its cells, points of the grid of motion.
 * `sample` brings values [h w c] of the grid of motion to the vertices, those on the mesh's edge only if `onEdge`.
 */
function makeMesh() {
  const { width, height } = photo;
  const [xs, ys] = [divide(width), divide(height)];
  const [columns, rows] = [xs.length, ys.length];
  const across = xs.map((x) => findBetween(x, width));
  const down = ys.map((y) => findBetween(y, height));
  const sample = (values, size, out, stride = size, onEdge = false) => {
    const edge = onEdge ? 0 : 1;
    for (let row = edge; row < rows - edge; row++) {
      const [top, below, fy] = down[row];
      for (let column = edge; column < columns - edge; column++) {
        const [left, right, fx] = across[column];
        const [a, b] = [(top * width + left) * size, (top * width + right) * size];
        const [c, d] = [(below * width + left) * size, (below * width + right) * size];
        const to = (row * columns + column) * stride;
        for (let i = 0; i < size; i++) {
          out[to + i] = (1 - fy) * ((1 - fx) * values[a + i] + fx * values[b + i]) +
            fy * ((1 - fx) * values[c + i] + fx * values[d + i]);
        }
      }
    }
  };
  const vertices = new Float32Array(4 * columns * rows);
  for (let row = 0, v = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, v += 4) {
      vertices.set([xs[column], ys[row]], v);
    }
  }
  sample(photo.depth, 1, vertices.subarray(2), 4, true);
  sample(photo.rims, 1, vertices.subarray(3), 4);
  const [whole, rim] = [[], []];
  for (let row = 0; row < rows - 1; row++) {
    for (let column = 0; column < columns - 1; column++) {
      const a = row * columns + column;
      const b = a + columns;
      for (const corners of [[a, b, a + 1], [b + 1, a + 1, b]]) {
        (corners.some((corner) => vertices[4 * corner + 3] > 0) ? rim : whole).push(...corners);
      }
    }
  }
  const cell = [(xs[1] - xs[0]) * width, (ys[1] - ys[0]) * height];
  return { vertices, cell, whole: Uint32Array.from(whole), rim: Uint32Array.from(rim), sample };
}

/**
 * Sorts triangles into `sorted`, those that are stretched last, and returns how many corners come before them.
 *
 * The first corner of each has the right angle of a cell [wide, high], so the others' ways from it are the columns of
 * how what has `moved` stretches it; all in points of the grid of motion.
 */
function sortByStretch(corners, [wide, high], moved, sorted) {
  let [first, last] = [0, corners.length];
  for (let i = 0; i < corners.length; i += 3) {
    const [a, down, across] = [corners[i], corners[i + 1], corners[i + 2]];
    const [x, y] = across > a ? [wide, high] : [-wide, -high];
    const xx = 1 + (moved[2 * across] - moved[2 * a]) / x;
    const yx = (moved[2 * across + 1] - moved[2 * a + 1]) / x;
    const xy = (moved[2 * down] - moved[2 * a]) / y;
    const yy = 1 + (moved[2 * down + 1] - moved[2 * a + 1]) / y;
    const sum = xx * xx + xy * xy + yx * yx + yy * yy;
    const area = xx * yy - xy * yx;
    const most = 0.5 * (sum + Math.sqrt(Math.max(0, sum * sum - 4 * area * area))); // the largest stretch, squared
    const at = most * WHOLE_FROM * WHOLE_FROM < 1 ? (first += 3) - 3 : (last -= 3);
    sorted[at] = a;
    sorted[at + 1] = down;
    sorted[at + 2] = across;
  }
  return first;
}

// Mode shapes at the vertices; the mesh's edge stays where it is, so that all of the canvas is covered whatever moves.
function sampleModes({ modes, width, height, omega }, { vertices, sample }) {
  const [size, count] = [4 * width * height, vertices.length];
  const shapes = new Float32Array(count * omega.length);
  omega.forEach((_, k) => sample(modes.subarray(k * size, (k + 1) * size), 4, shapes.subarray(k * count)));
  return { modes: shapes, omega, width: count / 4, height: 1 };
}

/** Everything on the GPU, made anew for another photo and when a lost context comes back. */
export function makeScreen(gl) {
  const { width, height, basis } = photo;
  const programs = {}; // by what is defined in them: { program, at }
  const begin = (...defined) => (programs[defined] ??= { program: beginProgram(gl, ...defined), at: null });
  begin(); // the driver compiles them while the mesh is made
  begin("RIM");
  const mesh = makeMesh();
  const rim = new Uint32Array(mesh.rim.length); // with what is stretched last
  const shapes = sampleModes(basis, mesh);
  const moved = new Float32Array(mesh.vertices.length / 2);
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  const buffers = [[mesh.vertices, 4, gl.STATIC_DRAW], [moved, 2, gl.DYNAMIC_DRAW]].map(([values, size, use], i) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, use);
    gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(i, size, gl.FLOAT, false, 0, 0);
    return buffer;
  });
  buffers.push(gl.createBuffer());
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[2]);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.whole.byteLength + rim.byteLength, gl.DYNAMIC_DRAW);
  gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, 0, mesh.whole);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const textures = [PHOTO, PLATE, HEAT].map((unit) => makeTexture(gl, unit));
  upload(gl, PLATE, photo.plate);
  gl.activeTexture(gl.TEXTURE0 + HEAT);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R8, width, height);
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  gl.enable(gl.CULL_FACE); // what is turned inside out lies under what has moved over it
  let heat = null;
  let shown = []; // width and height in which the photo is on the GPU

  function showHeat(shades) {
    if (heat === shades) return;
    heat = shades;
    gl.activeTexture(gl.TEXTURE0 + HEAT);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RED, gl.UNSIGNED_BYTE, shades);
  }

  function showPhoto() {
    if (shown[0] === canvas.width && shown[1] === canvas.height) return;
    shown = [canvas.width, canvas.height];
    upload(gl, PHOTO, shrink(photo.image));
    gl.viewport(0, 0, canvas.width, canvas.height);
  }

  function use(...defined) {
    const made = begin(...defined);
    const isNew = !made.at;
    const at = (made.at ??= findUniforms(gl, made.program));
    gl.useProgram(made.program);
    gl.uniform2f(at.size, canvas.width, canvas.height);
    gl.uniform1f(at.overlay, view.overlay);
    if (!isNew) return;
    gl.uniform2f(at.grid, width, height);
    gl.uniform3f(at.accent, 0.94, 0.5, 0.24);
    for (const [name, unit] of [["photo", PHOTO], ["plate", PLATE], ["heat", HEAT]]) gl.uniform1i(at[name], unit);
  }

  function draw() {
    if (view.before) moved.fill(0);
    else displacementField(shapes, photo.scene.total(), moved);
    showHeat(view.heat ?? (isOn("grip") || !heat ? photo.gripShades : heat));
    showPhoto();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[1]);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, moved);
    const numWhole = mesh.whole.length + sortByStretch(mesh.rim, mesh.cell, moved, rim);
    gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, mesh.whole.byteLength, rim);
    gl.clear(gl.DEPTH_BUFFER_BIT);
    const overlay = view.overlay ? ["OVERLAY"] : [];
    use(...overlay);
    gl.drawElements(gl.TRIANGLES, numWhole, gl.UNSIGNED_INT, 0);
    use("RIM", ...overlay);
    gl.drawElements(gl.TRIANGLES, mesh.whole.length + rim.length - numWhole, gl.UNSIGNED_INT, 4 * numWhole);
  }

  draw.free = () => {
    for (const texture of textures) gl.deleteTexture(texture);
    gl.deleteVertexArray(array);
    for (const buffer of buffers) gl.deleteBuffer(buffer);
    for (const { program } of Object.values(programs)) gl.deleteProgram(program);
  };
  return draw;
}
