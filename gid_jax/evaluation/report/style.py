"""What a report's page carries with it: its style, for light and dark, wide and narrow, and its few lines of script."""

# Blue for better and vermilion for worse, which colour-blind readers can tell apart; words say it too.
STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1b1b; --soft: #5c5c5c; --line: #dcdcdc; --band: #f4f6f8;
  --model: #7fb2d9; --baseline: #bdbdbd; --bound: #e3e3e3; --mark: #1b1b1b;
  --better: #005a94; --worse: #a83f00; --link: #005a94;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181a; --ink: #e8e8e8; --soft: #a6a6a6; --line: #3a3e42; --band: #1f2225;
    --model: #2f6fa3; --baseline: #666; --bound: #3f4347; --mark: #e8e8e8;
    --better: #7cc0f5; --worse: #ff9d66; --link: #7cc0f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(0.75rem, 3vw, 2.5rem) 4rem; max-width: 90rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.75rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.4rem; }
a { color: var(--link); }
p, ul, .feet { max-width: 72ch; }
.notes {
  padding: 0.6rem 1rem 0.6rem 2rem; margin: 0 0 1rem;
  background: var(--band); border-left: 4px solid var(--soft);
}
nav ul {
  display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem;
  padding: 0; margin: 0; list-style: none; max-width: none;
}
.legend, .feet, figcaption, caption { color: var(--soft); font-size: 0.875rem; }
.legend { margin-bottom: 0; }
.scroll { overflow-x: auto; position: relative; }  /* or hidden words inside would widen the page */
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.5rem; caption-side: top; }
/* A table may be wider than the screen; what it is about stays on it. */
caption span { position: sticky; left: 0; display: inline-block; max-width: min(72ch, 100vw - 1.5rem); }
th, td { padding: 0.45rem 0.9rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th, thead td { border-top: 0; border-bottom: 2px solid var(--soft); }
th { font-weight: 600; }
tbody th { font-weight: 500; min-width: 8rem; max-width: 16rem; }
tr > :first-child { position: sticky; left: 0; background: var(--paper); padding-left: 0; }
tr.bound > th, tr.bound .value { color: var(--soft); }
small, .kind { display: block; font-size: 0.78rem; font-weight: 400; color: var(--soft); white-space: nowrap; }
.value { font-size: 1.05rem; }
strong { font-weight: 750; }
sup { font-size: 0.7rem; line-height: 0; margin-left: 0.15rem; }
.bar { display: block; margin: 0.1rem 0; }
.bar.model { fill: var(--model); } .bar.baseline { fill: var(--baseline); } .bar.bound { fill: var(--bound); }
.bar circle { fill: var(--mark); }
.axis { stroke: var(--line); fill: none; }
.whisker { stroke: var(--mark); fill: none; }
.change { margin-top: 0.15rem; }
.better { color: var(--better); font-weight: 600; } .worse { color: var(--worse); font-weight: 600; }
.changed { color: var(--ink); font-weight: 600; }
.settings td, .settings th { max-width: 28rem; }
code, pre { font: 0.85rem/1.45 ui-monospace, monospace; }
pre { background: var(--band); padding: 1rem; overflow-x: auto; }
summary { cursor: pointer; font-size: 1.25rem; font-weight: 700; margin-top: 2.75rem; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: 0.3rem; max-width: 72ch; }
.clips { display: flex; flex-wrap: wrap; gap: 0.75rem; }
.clips figure { flex: 1 1 14rem; max-width: 28rem; }
video { display: block; width: 100%; height: auto; background: var(--band); }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 40rem) {
  th, td { padding: 0.4rem 0.6rem; }
  tbody th { min-width: 6rem; max-width: 8rem; }
}
"""

# What is done to one video of a scene is done to all; a play or a seek that others already follow changes nothing.
SCRIPT = """
for (const group of document.querySelectorAll(".clips")) {
  const videos = [...group.querySelectorAll("video")];
  for (const video of videos) {
    const others = videos.filter((other) => other !== video);
    const align = (slack) => {
      for (const other of others) {
        if (Math.abs(other.currentTime - video.currentTime) > slack) other.currentTime = video.currentTime;
      }
    };
    video.addEventListener("play", () => {
      for (const other of others) if (other.paused) { other.currentTime = video.currentTime; other.play(); }
    });
    video.addEventListener("pause", () => { for (const other of others) other.pause(); });
    video.addEventListener("seeking", () => align(0.1));
    if (video === videos[0]) video.addEventListener("timeupdate", () => align(0.15));
    // Setting the rate that a video already has raises no event.
    video.addEventListener("ratechange", () => {
      for (const other of others) other.playbackRate = video.playbackRate;
    });
  }
}
"""
