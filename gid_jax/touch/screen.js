// Draws the photo where its modes have moved it, then the plate where that left holes: two draw calls. Raw WebGL2.
import { displacementField } from "./modes.js";
import { canvas, isOn, photo, view } from "./stage.js";

const MARGIN = 0.1; // by which the photo, mirrored, goes on beyond its edges: what moves in comes from there
const FINER = 1; // cells of the mesh for one cell of the grid of motion, per axis
const [FIELD, PHOTO, PLATE, HEAT] = [0, 1, 2, 3];

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D field;
uniform vec2 grid;
in vec4 vertex;
out vec2 uv;
out float rim;
void main() {
  vec2 at = clamp(vertex.xy * grid - 0.5, vec2(0), grid - 1.0);
  ivec2 a = ivec2(at), b = min(a + 1, ivec2(grid) - 1);
  vec2 f = at - vec2(a);
  vec2 moved = mix(
    mix(texelFetch(field, a, 0).xy, texelFetch(field, ivec2(b.x, a.y), 0).xy, f.x),
    mix(texelFetch(field, ivec2(a.x, b.y), 0).xy, texelFetch(field, b, 0).xy, f.x), f.y);
  vec2 seen = vertex.xy + moved / grid;
  uv = vertex.xy;
  rim = vertex.w;
  gl_Position = vec4(2.0 * seen.x - 1.0, 1.0 - 2.0 * seen.y, 0.9 - 1.8 * vertex.z, 1);
}`;

// Where one thing moves away from another the triangles between them are stretched over what comes into view. They
// fade, and what stands behind is seen; inside a thing they stretch. What is turned inside out lies under what has
// moved over it.
const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D photo, plate, heat;
uniform vec2 size;
uniform float overlay;
uniform vec3 accent;
in vec2 uv;
in float rim;
out vec4 color;
void main() {
  vec3 seen = texture(photo, uv).rgb;
  vec2 dx = dFdx(uv) * size, dy = dFdy(uv) * size;
  float turned = dx.x * dy.y - dx.y * dy.x;
  float sum = dot(dx, dx) + dot(dy, dy);
  float squeezed = sqrt(max(0.0, 0.5 * (sum - sqrt(max(0.0, sum * sum - 4.0 * turned * turned)))));
  float solid = mix(1.0, smoothstep(0.4, 0.66, squeezed), rim);
  if (turned > 0.0 || solid < 0.02) discard;
  if (overlay > 0.0) {
    float soft = texture(heat, uv).r;
    seen = mix(seen, mix(seen * 0.45, mix(seen, accent, 0.62), soft), overlay);
  }
  if (solid < 1.0) {
    vec2 at = gl_FragCoord.xy / size;
    seen = mix(texture(plate, vec2(at.x, 1.0 - at.y)).rgb * (1.0 - 0.55 * overlay), seen, solid);
  }
  color = vec4(seen, 1);
}`;

const PLATE_VERTEX = `#version 300 es
in vec4 vertex;
out vec2 uv;
void main() {
  uv = vertex.xy;
  gl_Position = vec4(2.0 * vertex.x - 1.0, 1.0 - 2.0 * vertex.y, 1, 1);
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
  gl.bindAttribLocation(program, 0, "vertex");
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
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, wrap);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter === gl.NEAREST ? gl.NEAREST : gl.LINEAR);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  fill();
  return texture;
}

/** Vertices (x, y, depth, rim) and triangles over the photo and a margin of it. */
function makeMesh(gl, columns, rows, margin, look) {
  const vertices = new Float32Array(4 * (columns + 1) * (rows + 1));
  const corners = new Uint32Array(6 * columns * rows);
  let v = 0;
  let c = 0;
  for (let row = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++) {
      const x = (1 + 2 * margin) * (column / columns) - margin;
      const y = (1 + 2 * margin) * (row / rows) - margin;
      vertices.set([x, y, ...look(x, y)], v);
      v += 4;
      if (column === columns || row === rows) continue;
      const a = row * (columns + 1) + column;
      const b = a + columns + 1;
      corners.set([a, b, a + 1, a + 1, b, b + 1], c);
      c += 6;
    }
  }
  const array = gl.createVertexArray();
  const buffers = [gl.createBuffer(), gl.createBuffer()];
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers[0]);
  gl.bufferData(gl.ARRAY_BUFFER, vertices, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 4, gl.FLOAT, false, 0, 0);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[1]);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
  return { array, buffers, count: corners.length };
}

// Depth and rim at a place of the photo, bilinear.
function lookAt(x, y) {
  const { width, height, depth, rims } = photo;
  const column = Math.min(Math.max(x * width - 0.5, 0), width - 1);
  const row = Math.min(Math.max(y * height - 0.5, 0), height - 1);
  const [left, top] = [Math.floor(column), Math.floor(row)];
  const [right, below] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
  const [fx, fy] = [column - left, row - top];
  return [depth, rims].map((values) => {
    const at = (i, j) => values[j * width + i];
    return (1 - fy) * ((1 - fx) * at(left, top) + fx * at(right, top)) +
      fy * ((1 - fx) * at(left, below) + fx * at(right, below));
  });
}

/** Everything on the GPU, made anew for another photo and when a lost context comes back. */
export function makeScreen(gl) {
  const { width, height, basis } = photo;
  const edge = gl.CLAMP_TO_EDGE;
  const mesh = makeMesh(gl, FINER * width, FINER * height, MARGIN, lookAt);
  const square = makeMesh(gl, 1, 1, 0, () => [0, 0]);
  const moved = makeProgram(gl, VERTEX, FRAGMENT);
  const behind = makeProgram(gl, PLATE_VERTEX, PLATE_FRAGMENT);
  const upload = (image) => {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
  };
  const textures = [
    makeTexture(gl, FIELD, gl.NEAREST, edge, () => gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RG32F, width, height)),
    makeTexture(gl, PHOTO, gl.LINEAR_MIPMAP_NEAREST, gl.MIRRORED_REPEAT, () => upload(photo.image)),
    makeTexture(gl, PLATE, gl.LINEAR_MIPMAP_NEAREST, edge, () => upload(photo.plate)),
    makeTexture(gl, HEAT, gl.LINEAR, edge, () => gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R8, width, height)),
  ];
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  const field = new Float32Array(2 * width * height);
  let heat = null;

  function showHeat(shades) {
    if (heat === shades) return;
    heat = shades;
    gl.activeTexture(gl.TEXTURE0 + HEAT);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RED, gl.UNSIGNED_BYTE, shades);
  }

  function draw() {
    if (view.before) field.fill(0);
    else displacementField(basis, photo.scene.total(), field);
    showHeat(view.heat ?? (isOn("grip") || !heat ? photo.gripShades : heat));
    gl.activeTexture(gl.TEXTURE0 + FIELD);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RG, gl.FLOAT, field);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.DEPTH_BUFFER_BIT);
    gl.useProgram(moved.program);
    for (const [name, unit] of [["field", FIELD], ["photo", PHOTO], ["plate", PLATE], ["heat", HEAT]]) {
      gl.uniform1i(moved.at[name], unit);
    }
    gl.uniform2f(moved.at.grid, width, height);
    gl.uniform2f(moved.at.size, canvas.width, canvas.height);
    gl.uniform1f(moved.at.overlay, view.overlay);
    gl.uniform3f(moved.at.accent, 0.94, 0.5, 0.24);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    gl.useProgram(behind.program);
    gl.uniform1i(behind.at.plate, PLATE);
    gl.uniform1f(behind.at.overlay, view.overlay);
    gl.bindVertexArray(square.array);
    gl.drawElements(gl.TRIANGLES, square.count, gl.UNSIGNED_INT, 0);
  }

  draw.free = () => {
    for (const texture of textures) gl.deleteTexture(texture);
    for (const { array, buffers } of [mesh, square]) {
      gl.deleteVertexArray(array);
      for (const buffer of buffers) gl.deleteBuffer(buffer);
    }
    for (const { program } of [moved, behind]) gl.deleteProgram(program);
  };
  return draw;
}
