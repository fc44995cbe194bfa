// Sends photos, shows how far they are, and shows the page that has come of each in a frame.
const $ = (id) => document.getElementById(id);

const MAX_BYTES = Number(document.body.dataset.limit); // beyond, it need not be sent to be refused
const MAX_JOBS = 12;
const UNFINISHED = ["sending", "queued", "seeing", "compiling", "sampling"];

const jobs = new Map(); // id to { id, name, seed, motion, video, picture, follow, sending }
let shown = null; // id of the job that is looked at
let frame = null;
let broken = null; // id of the job whose page could not be loaded
let stream = null;
let isLost = false;
let numSent = 0;

const isUnfinished = (job) => UNFINISHED.includes(job.motion.phase);
const isReady = (job) => job?.motion.phase === "ready";

// ------------------------------------------------------------------------------------------------------------ words

function describe({ motion }) {
  if (motion.phase === "sending") return "Sending";
  if (motion.phase === "queued") {
    if (motion.warming) return "The model is getting ready, once after the start";
    return motion.place ? `Waiting in line: ${motion.place === 1 ? "one" : motion.place} ahead` : "Waiting in line";
  }
  if (motion.phase === "seeing") return "Seeing what is in the photo";
  if (motion.phase === "compiling") return "Getting ready for photos of this shape, once";
  if (motion.phase === "sampling") return `Sampling its motion${motion.total > 1 ? `: ${motion.done} of ${motion.total}` : ""}`;
  if (motion.phase === "cancelled") return "Cancelled.";
  if (motion.phase === "failed") return motion.reason.replace(/\.?$/, ".");
  return "";
}

function describeVideo({ phase, done, total }) {
  if (phase === "queued") return "Video: waiting";
  if (phase === "rendering") return `Video: ${Math.round((100 * done) / total)} %`;
  return phase === "failed" ? "Video failed; try again" : "Video";
}

const title = ({ name, seed }) => `${name}, motion ${seed + 1}`;

// ---------------------------------------------------------------------------------------------------------- drawing

function draw() {
  const job = jobs.get(shown);
  const pending = [...jobs.values()].reverse().find(isUnfinished);
  $("name").textContent = job?.name ?? "A photo to touch";
  $("motion").textContent = job && !isUnfinished(job) && job.motion.phase === "ready" ? `motion ${job.seed + 1}` : "";
  document.title = job ? job.name : "A photo to touch";
  drawStatus(job, pending);
  drawCard(job);
  drawStrip();
  restFrame(Boolean(pending));
  $("again").disabled = !isReady(job) || Boolean(pending);
  $("save").firstElementChild.setAttribute("aria-disabled", String(!isReady(job)));
  $("save").firstElementChild.tabIndex = isReady(job) ? 0 : -1;
  if (!isReady(job)) return void ($("save").open = false);
  for (const kind of ["html", "gid"]) $(kind).href = `/jobs/${job.id}/${kind}`;
  $("gid").hidden = !job.has_file; // which is written after the page
  $("video").textContent = describeVideo(job.video);
}

function drawStatus(job, pending) {
  const elsewhere = pending && pending !== job ? `${title(pending)}: ${describe(pending)}` : "";
  const told = broken !== null && broken === shown ? "The photo could not be loaded; reload this page." : elsewhere;
  setText($("status"), isLost ? "The server does not answer." : told);
  $("progress").hidden = !pending;
  if (!pending) return;
  const { phase, done, total } = pending.motion;
  $("progress").value = phase === "sampling" ? 0.2 + (0.75 * done) / Math.max(total, 1) : phase === "queued" ? 0.03 : 0.1;
}

function drawCard(job) {
  const ready = isReady(job);
  $("wait").hidden = ready && frame?.classList.contains("shown");
  $("card").hidden = ready;
  const seen = job?.picture && job.motion.phase !== "failed";
  $("picture").hidden = !seen;
  if (seen && $("picture").getAttribute("src") !== job.picture) $("picture").src = job.picture;
  $("picture").alt = job ? job.name : "";
  $("picture").classList.toggle("dim", Boolean(job && isUnfinished(job)));
  setText($("text"), job ? describe(job) : "Choose, drop or paste a photo with plants, and touch it.");
  $("text").setAttribute("role", job?.motion.phase === "failed" ? "alert" : "status");
  $("cancel").hidden = !job || !isUnfinished(job);
  $("other").hidden = Boolean(job) && !["failed", "cancelled"].includes(job.motion.phase);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // else a screen reader says it again
}

function drawStrip() {
  const listed = [...jobs.values()].filter((job) => isReady(job) || isUnfinished(job));
  $("strip").hidden = listed.length < 2 && listed[0]?.id === shown; // else it leads back
  for (const button of [...$("strip").children]) {
    if (!listed.some((job) => job.id === button.dataset.id)) button.remove();
  }
  for (const job of listed) {
    let button = [...$("strip").children].find((one) => one.dataset.id === job.id);
    if (!button) {
      button = document.createElement("button");
      button.dataset.id = job.id;
      button.append(new Image(), document.createElement("span"));
      button.firstElementChild.alt = "";
      button.addEventListener("click", () => show(job.id));
      $("strip").append(button);
    }
    if (job.picture && button.firstElementChild.getAttribute("src") !== job.picture) button.firstElementChild.src = job.picture;
    button.lastElementChild.textContent = isUnfinished(job) ? "…" : String(job.seed + 1);
    button.setAttribute("aria-label", isUnfinished(job) ? `${title(job)}: ${describe(job)}` : title(job));
    button.setAttribute("aria-current", String(job.id === shown));
    button.classList.toggle("unfinished", isUnfinished(job));
  }
}

// ------------------------------------------------------------------------------------------------------------ frame

function show(id) {
  shown = id;
  const job = jobs.get(id);
  if (frame?.dataset.id !== id) {
    frame?.remove();
    frame = null;
  }
  if (isReady(job) && !frame) openFrame(job);
  draw();
}

function openFrame(job) {
  // A new element each time: another address in the same one would be a step of the browser's history.
  broken = null;
  frame = document.createElement("iframe");
  frame.dataset.id = job.id;
  frame.title = `${title(job)}: a photo that answers to touch`;
  frame.src = `/jobs/${job.id}/page`;
  frame.addEventListener("load", ({ target }) => {
    if (!findTouch(target)) {
      target.remove();
      if (frame === target) frame = null;
      broken = job.id;
      return draw();
    }
    listenToDrops(target.contentWindow);
    target.classList.add("shown");
    if (document.activeElement === document.body) target.focus();
    draw();
  });
  document.querySelector("main").append(frame);
}

/** The hands of the page in a frame; none where the browser shows a page of its own, as of a lost connection. */
function findTouch(element) {
  try {
    return element?.contentWindow.gidTouch;
  } catch {
    return undefined;
  }
}

/** What is shown rests while the server works, which may be on the same machine and then needs all of it. */
function restFrame(rests) {
  const touch = findTouch(frame);
  if (!touch || frame.dataset.rests === String(rests)) return;
  frame.dataset.rests = rests;
  touch.rest(rests);
}

// ----------------------------------------------------------------------------------------------------------- server

function listen() {
  stream?.close();
  const ids = [...jobs.keys()].filter((id) => !id.startsWith("sending"));
  sessionStorage.setItem("jobs", JSON.stringify(ids));
  if (!ids.length) return;
  stream = new EventSource(`/events?${ids.map((id) => `job=${encodeURIComponent(id)}`).join("&")}`);
  stream.addEventListener("open", () => setLost(false));
  stream.addEventListener("message", ({ data }) => receive(JSON.parse(data)));
  stream.addEventListener("error", ({ target }) => {
    setLost(true);
    if (target.readyState === EventSource.CLOSED && target === stream) setTimeout(listen, 2000);
  });
}

function setLost(lost) {
  isLost = lost;
  draw();
}

function receive(state) {
  const job = jobs.get(state.id);
  if (!job) return;
  if (state.is_gone) {
    if (isReady(job) || isUnfinished(job)) forget(job);
    return draw();
  }
  const before = { ...job };
  Object.assign(job, state);
  if (state.motion.phase !== "queued") job.picture ??= `/jobs/${job.id}/preview`;
  if (before.motion.phase !== "ready" && isReady(job) && (job.id === shown || job.follow === shown)) show(job.id);
  if (job.wantsVideo && job.video.phase === "ready") {
    job.wantsVideo = false;
    save(`/jobs/${job.id}/mp4`);
  }
  draw();
}

function forget(job) {
  jobs.delete(job.id);
  if (shown !== job.id) return;
  const next = [...jobs.values()].filter(isReady).pop();
  show(next ? next.id : null);
}

function save(address) {
  const link = document.createElement("a");
  link.href = address;
  link.download = "";
  link.click();
}

function add(state, more) {
  while (jobs.size >= MAX_JOBS) jobs.delete([...jobs.keys()].find((id) => id !== shown));
  jobs.set(state.id, { ...state, ...more });
}

async function order(method, address, body, signal) {
  const response = await fetch(address, { method, body, signal });
  const answer = response.status === 204 ? null : await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.reason ?? `The server refused this (${response.status}).`);
  return answer;
}

async function send(file) {
  if (!file) return;
  const id = `sending${numSent++}`;
  const picture = file.type.startsWith("image/") ? URL.createObjectURL(file) : null;
  const name = file.name.replace(/\.\w+$/, "") || "photo";
  const sending = new AbortController();
  add({ id, name, seed: 0, motion: { phase: "sending" }, video: { phase: "none" } }, { picture, sending });
  show(id);
  try {
    if (file.size > MAX_BYTES) throw new Error(`This file is larger than ${MAX_BYTES / 1e6} MB; save it smaller, as JPEG.`);
    const state = await order("POST", `/jobs?name=${encodeURIComponent(file.name.slice(-100))}`, file, sending.signal);
    if (!jobs.has(id)) return void order("DELETE", `/jobs/${state.id}`).catch(() => {});
    const wasShown = shown === id;
    jobs.delete(id);
    add(state, { picture });
    if (wasShown) show(state.id);
    listen();
  } catch (error) {
    const job = jobs.get(id);
    if (job) job.motion = { phase: "failed", reason: error instanceof TypeError ? "The server does not answer." : error.message };
    draw();
  }
}

// ----------------------------------------------------------------------------------------------------------- people

async function again() {
  const job = jobs.get(shown);
  $("again").disabled = true;
  try {
    add(await order("POST", `/jobs/${job.id}/again`), { picture: job.picture, follow: job.id });
    listen();
    draw();
  } catch (error) {
    draw();
    setText($("status"), error.message);
  }
}

function cancel() {
  const job = jobs.get(shown);
  if (job.motion.phase !== "sending") order("DELETE", `/jobs/${job.id}`).catch(() => {});
  else {
    jobs.delete(job.id);
    job.sending.abort();
  }
  const ready = [...jobs.values()].filter(isReady).pop();
  show(ready ? ready.id : shown && jobs.has(shown) ? shown : null);
}

async function film() {
  const job = jobs.get(shown);
  if (job.video.phase === "ready") return save(`/jobs/${job.id}/mp4`);
  job.wantsVideo = true;
  await order("POST", `/jobs/${job.id}/video`).catch((error) => setText($("status"), error.message));
}

const choose = () => $("file").click();

// What the browser cannot show, the server may still read, and then shows.
$("picture").addEventListener("error", () => {
  const job = jobs.get(shown);
  if (job) job.picture = null;
  $("picture").removeAttribute("src");
  draw();
});
$("picture").addEventListener("load", ({ target }) => {
  target.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
});
$("choose").addEventListener("click", choose);
$("other").addEventListener("click", choose);
$("again").addEventListener("click", again);
$("cancel").addEventListener("click", cancel);
$("mp4").addEventListener("click", film);
$("file").addEventListener("change", () => {
  send($("file").files[0]);
  $("file").value = "";
});
for (const id of ["html", "gid"]) $(id).addEventListener("click", () => ($("save").open = false));
document.addEventListener("pointerdown", ({ target }) => {
  if (!$("save").contains(target)) $("save").open = false;
});
addEventListener("blur", () => ($("save").open = false)); // a finger on the frame
document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape" || !$("save").open) return;
  $("save").open = false;
  $("save").firstElementChild.focus();
});

function listenToDrops(target) {
  target.addEventListener("dragenter", (event) => {
    if ([...event.dataTransfer.types].includes("Files")) document.body.classList.add("dropping");
  });
  target.addEventListener("dragover", (event) => event.preventDefault());
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    send(event.dataTransfer.files[0]);
  });
  target.addEventListener("paste", (event) => send(event.clipboardData.files[0]));
}

listenToDrops(window);
$("drop").addEventListener("dragleave", () => document.body.classList.remove("dropping"));

// -------------------------------------------------------------------------------------------------------- beginning

const opening = document.body.dataset.opening;
const kept = JSON.parse(sessionStorage.getItem("jobs") ?? "[]");
for (const id of new Set([...(opening ? [opening] : []), ...kept].slice(-MAX_JOBS))) {
  add({ id, name: "A photo to touch", seed: 0, motion: { phase: "queued" }, video: { phase: "none" } }, {});
}
show([...jobs.keys()].pop() ?? null);
listen();
