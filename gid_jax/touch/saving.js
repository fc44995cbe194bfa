// What one can take along: a video of the photo in motion, and the page itself.
import { $, canvas, fit, photo, say, source, view, wake } from "./stage.js";
import { press } from "./controls.js";

const KINDS = ["video/mp4;codecs=avc1.42E01F", "video/mp4", "video/webm;codecs=vp9", "video/webm"];
const BITS = 12e6; // a second

let recorder = null;

function findKind() {
  if (!window.MediaRecorder || !canvas.captureStream) return null;
  return KINDS.find((kind) => MediaRecorder.isTypeSupported(kind)) ?? null;
}

/** Records the photo for some seconds from its first frame on, or until `stop`; the video as a Blob. */
export async function record(seconds = Infinity) {
  const kind = findKind();
  if (!kind) throw new Error("this browser cannot record a canvas");
  if (recorder) throw new Error("a recording is already running");
  const stream = canvas.captureStream(60);
  const parts = [];
  recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: BITS });
  const stopped = new Promise((resolve, reject) => {
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = resolve;
    recorder.onerror = ({ error }) => reject(error ?? new Error("the recording failed"));
  });
  view.recording = true;
  press("record", true);
  recorder.start();
  wake();
  let timer = null;
  const own = recorder;
  const limit = () => {
    if (recorder === own) timer = setTimeout(stop, 1000 * seconds);
  };
  if (Number.isFinite(seconds)) requestAnimationFrame(() => requestAnimationFrame(limit));
  try {
    await stopped;
  } finally {
    clearTimeout(timer);
    for (const track of stream.getTracks()) track.stop();
    recorder = null;
    view.recording = false;
    press("record", false);
    fit();
  }
  const video = new Blob(parts, { type: kind.split(";")[0] });
  if (!video.size) throw new Error("no frame was drawn in that time");
  return video;
}

/** Ends a recording. */
export function stop() {
  if (recorder?.state === "recording") recorder.stop();
}

function offer(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${document.title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim() || "photo"}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("record").addEventListener("click", async () => {
  if (recorder) return stop();
  say("Recording.");
  try {
    const video = await record();
    offer(video, video.type === "video/mp4" ? "mp4" : "webm");
    say("The video is saved.");
  } catch (error) {
    say(`No video: ${error.message}.`);
  }
});
$("record").hidden = !findKind();
$("download").addEventListener("click", () => {
  const data = JSON.stringify(photo.data).replaceAll("<", "\\u003c");
  const page = source.replace(/(<script type="application\/json" id="data">)[^<]*/, (_, tag) => tag + data);
  offer(new Blob([page], { type: "text/html" }), "html");
});
