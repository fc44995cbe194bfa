// Opens the page: its photo, its screen, and a screen anew when a context was lost.
import { listen } from "./api.js";
import { setPlaying } from "./controls.js";
import { makeScreen } from "./screen.js";
import { $, calm, canvas, decodeImages, fail, fit, listeners, openPhoto, photo, setDraw, stage } from "./stage.js";
import "./keyboard.js";
import "./mixer.js";

async function start() {
  const data = JSON.parse($("data").textContent);
  photo.origins = data.origins;
  const decoding = decodeImages(data); // beside the start of WebGL, which takes as long
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false });
  if (!gl) {
    return fail("This page draws with WebGL 2, which this browser does not have or has switched off. " +
      "A current version of Chrome, Edge, Firefox or Safari shows it.");
  }
  let screen = null;
  const show = () => {
    if (gl.isContextLost()) return;
    screen?.free();
    screen = makeScreen(gl);
    setDraw(screen);
  };
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    screen = null;
    setDraw(null);
  });
  canvas.addEventListener("webglcontextrestored", show);
  listeners.open.push(show, fit);
  await openPhoto(data, decoding);
  if (!calm.matches) setPlaying(true);
  new ResizeObserver(fit).observe(stage.parentElement);
  addEventListener("resize", fit);
}

const ready = start();
ready.catch((error) => fail(`The photo cannot be shown: ${error.message}`));
listen(ready);
