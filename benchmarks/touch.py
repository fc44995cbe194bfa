"""Claim: the page that answers to touch plays smoothly without a graphics card.

  python -m benchmarks.touch PAGE.html [PAGE.html ...] [--frames 60] [--rounds 3] [--size 1280x800]

Plays the page in Chromium, which draws in software, and pulls at it. First frames are asked for one after the other,
each finished before the next begins, to count draw calls and bytes sent to the GPU; then the browser draws and shows as
many by itself. Reports the processor time of a frame over all of the browser's processes, so how many frames two idle
cores would make, and how many were made by the clock. What else runs adds to all of it: of several rounds, in which
several pages take turns, the best counts. Needs Linux, playwright and a browser named chromium.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

BROWSER = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
COUNT = """
const proto = WebGL2RenderingContext.prototype;
window.counts = { frames: 0, calls: 0, bytes: 0, vertices: 0 };
const wrap = (name, note) => {
  const call = proto[name];
  proto[name] = function (...args) { note(...args); return call.apply(this, args); };
};
wrap("drawElements", (mode, count) => { counts.calls++; counts.vertices += count; });
wrap("clear", () => { counts.frames++; });
window.next = null;
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (call) => { if (window.byHand) window.next = call; else ask(call); return 0; };
window.showFrames = (number) => new Promise((done) => {
  counts.frames = 0;
  byHand = false;
  requestAnimationFrame(next);
  const look = () => {
    if (counts.frames < number) return setTimeout(look, 2);
    byHand = true;
    done(counts.frames);
  };
  look();
});
window.makeFrames = (number) => {
  const gl = document.getElementById("canvas").getContext("webgl2");
  for (let i = 0; i < number; i++) {
    window.next(performance.now());
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }
};
for (const name of ["texSubImage2D", "texImage2D", "bufferData", "bufferSubData"]) {
  wrap(name, (...args) => { counts.bytes += args.find((each) => each?.byteLength)?.byteLength ?? 0; });
}
"""


def processor_time() -> float:
  """Seconds of processor time of all that this process has started and that still runs (Linux)."""
  parents, seconds = {}, {}
  for stat in Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
      continue
    number = int(stat.parent.name)
    parents[number] = int(fields[1])
    seconds[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  total = 0.0
  for number in parents:
    above = parents[number]
    while above in parents and above != os.getpid():
      above = parents[above]
    total += seconds[number] if above == os.getpid() else 0.0
  return total


def measure(browser, path: Path, frames: int, size: tuple[int, int]) -> dict[str, float]:
  """Counts of so many frames in a browser of playwright, and `seconds` and `processor` (seconds) that they took.

  And of about as many that it shows by itself: `shown`, `shown_seconds`, `shown_processor`.
  """
  page = browser.new_page(viewport={"width": size[0], "height": size[1]})
  page.set_default_timeout(300_000)
  page.add_init_script(COUNT)
  page.goto(path.resolve().as_uri())
  page.evaluate("gidTouch.play()")
  page.evaluate("gidTouch.pull(0.5, 0.5, 0.03, 0.02)")
  page.evaluate("window.byHand = true")
  while not page.evaluate("Boolean(window.next)"):
    page.wait_for_timeout(100)
  page.evaluate("makeFrames(5)")
  page.evaluate("Object.keys(counts).forEach((key) => (counts[key] = 0))")
  start, spent = time.perf_counter(), processor_time()
  page.evaluate("(frames) => makeFrames(frames)", frames)
  counts = page.evaluate("counts") | {
    "seconds": time.perf_counter() - start, "processor": processor_time() - spent}
  start, spent = time.perf_counter(), processor_time()
  counts |= {
    "shown": page.evaluate("(frames) => showFrames(frames)", frames), "shown_seconds": time.perf_counter() - start,
    "shown_processor": processor_time() - spent}  # fmt: skip
  counts["pixels"] = page.evaluate("canvas.width * canvas.height")
  page.close()
  return counts


def main() -> None:
  from playwright.sync_api import sync_playwright

  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("pages", type=Path, nargs="+")
  parser.add_argument("--frames", type=int, default=60)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--size", default="1280x800", help="of the window")
  options = parser.parse_args()
  width, height = (int(side) for side in options.size.split("x"))
  rounds = {path: [] for path in options.pages}
  with sync_playwright() as player:
    browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
    for _ in range(options.rounds):
      for path, found in rounds.items():
        found.append(measure(browser, path, options.frames, (width, height)))
    browser.close()
  for path, found in rounds.items():
    one, frames = found[0], options.frames
    print(f"{path}: canvas of {one['pixels'] / 1e6:.2f} megapixels, page of {path.stat().st_size / 1e6:.2f} MB")
    print(f"{one['calls'] / frames:.1f} draw calls, {one['vertices'] / frames:.0f} indices, "
          f"{one['bytes'] / frames / 1e3:.1f} kB a frame")  # fmt: skip
    for what, prefix in (("drawn", ""), ("drawn and shown", "shown_")):
      numbers = [each["shown"] if prefix else frames for each in found]
      costs = [each[f"{prefix}processor"] / number for each, number in zip(found, numbers, strict=True)]
      pace = max(number / each[f"{prefix}seconds"] for each, number in zip(found, numbers, strict=True))
      print(f"{what}: {1e3 * min(costs):.1f} ms of processor time a frame, {2 / min(costs):.0f} frames/s on two idle "
            f"cores at most; {pace:.1f} frames/s by the clock")  # fmt: skip


if __name__ == "__main__":
  main()
