"""What the `gid` command can be asked for.

Nothing heavy is imported here, so that help is instant and a typing error is answered at once.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
_Picture = Annotated[Path | None, tyro.conf.arg(metavar="PICTURE", help_behavior_hint="")]
_Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
_Output = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="", aliases=("-o",))]
Format = Literal["mp4", "webm", "mov", "gif", "webp", "avif", "apng", "frames", "html"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionRequest:
  """What `gid animate` and `gid loop` have in common.

  Attributes:
    sources: Photos to animate. Several are animated in turn, of folders their photos, and a quoted '*.jpg' stands for
      what it matches; - reads one photo from standard input. Without any, a demonstration photo is animated.
    output: What to write. The ending chooses: .mp4 plays everywhere, .webm in browsers, .gif and .webp in messages and
      pages, .mov, .avif, .apng or .png; a pattern such as out/%04d.png writes pictures; .html a page in which the photo
      answers to touch. In a folder, and a name without an ending is one, it gets a name by default; - is standard
      output. A file that exists is not replaced. Default: a new name beside the source, numbered where the first is
      taken.
    format: Chooses the ending where --output does not: mp4, webm, mov, gif, webp, avif, apng, html, or frames, which is
      a folder of pictures.
    codec: How .mp4 and .webm are compressed; av1 is smaller, slower and not played by old devices.
    seed: Another seed gives another motion of a photo.
    steps: Sampling steps of a photo, 1 to 1000; more is slower and finer. Default: what the weights were tuned for.
    fps: Frames per second of the video; the motion keeps its speed.
    wind: How hard it blows in a photo: calm, breeze or windy, as in 15, 50 and 85 % of clips filmed outdoors.
    magnify: Scales the motion; 0 is a still, 2 moves twice as far, and much more tears the picture.
    bands: Frequencies of a photo's motion to keep, such as 1-4,7; band i swings i times in 5 seconds.
    mask: Picture over the photo: white may move, black rests.
    still: Picture over the photo: white rests.
    direction: Turns a photo's motion, in degrees counter-clockwise; 90 makes upwards of rightwards.
    speed: Speed of a photo's motion; 0.25 is slow motion with true frames in between.
    size: Long side of the video in pixels; a photo is never enlarged.
    side_by_side: Show the photo at rest to the left of the motion.
    xt: Write a picture too: a row of pixels over time, downwards; what swings draws waves.
    motion: Write a picture too: how far each place swings.
    save: Write the photo and its sampled motion, not yet edited, to this .gid file too, to animate it again at once.
    weights: Folder of motion.safetensors, and renderer.safetensors for a trained renderer, from `gid export`.
      Default: the embedded weights.
    note: Leave out the note in the file that the video is generated, and by which version of which program.
    watch: Animate every picture that appears in this folder from now on, until interrupted.
    json: Print one line of JSON for each input, and nothing else, on standard output.
    force: Replace files that exist.
  """

  sources: Annotated[
    tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PHOTO or VIDEO ...]", help_behavior_hint="")
  ] = ()
  output: _Output = None
  format: Annotated[Format | None, tyro.conf.arg(metavar="{mp4,gif,...}", help_behavior_hint="")] = None
  codec: Annotated[
    Literal["h264", "vp9", "av1"] | None, tyro.conf.arg(metavar="{h264,vp9,av1}", help_behavior_hint="")
  ] = None
  seed: int = 0
  steps: _Number = None
  fps: float = 30.0
  wind: Literal["calm", "breeze", "windy"] = "breeze"
  magnify: float = 1.0
  bands: Annotated[str | None, tyro.conf.arg(metavar="BANDS", help_behavior_hint="")] = None
  mask: _Picture = None
  still: _Picture = None
  direction: float = 0.0
  speed: float = 1.0
  size: int = 1080
  side_by_side: Flag = False
  xt: _Picture = None
  motion: _Picture = None
  save: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
  weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
  note: Flag = True
  watch: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
  json: Flag = False
  force: Flag = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimateRequest(MotionRequest):
  """Animate photos: predict how they move, render the motion and write a video of each.

  Given a video (or a GIF of half a second or more), its own measured motion animates its first frame instead, and
  the result is compared with the film. A .gid file that --save wrote is rendered again, without sampling.

  Attributes:
    duration: Seconds of video. Default: one period of a photo's motion, 5 seconds / speed, after which it repeats
      exactly; of a video, its first 5 seconds.
    frames: Number of frames, instead of --duration.
  """

  duration: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
  frames: _Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopRequest(MotionRequest):
  """Animate photos into seamless loops: one period of a motion that is guided to be calm where it starts again.

  Says how much the velocity changes at the seam, against the median change between frames inside. A .gid file is
  rendered again, as it was sampled.

  Attributes:
    free: Do not guide the motion: quicker, and it repeats exactly too, but crosses the seam like any other moment.
    report: Write a picture too: both sides of the seam, and the change from each frame to the next. Needs matplotlib:
      pip install '.[plots]'.
  """

  free: Flag = False
  report: _Picture = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectRequest:
  """Explain the motion of a video in one picture.

  Flow, confidence, power per frequency and X-t slices of five seconds, or all of a shorter one. Needs matplotlib:
  pip install '.[plots]'.

  Attributes:
    video: The video, or GIF, to look into.
    output: Picture to write, .png. Default: VIDEO_inspect.png beside the video, numbered where it is taken.
    start: Where to begin in the video, in seconds.
    force: Replace the output if it exists.
  """

  video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
  output: _Output = None
  start: float = 0.0
  force: Flag = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
  """Write checkpoints of training runs as weights for `gid animate --weights FOLDER`, or a .gid file for others.

  Attributes:
    bundle: File to write with --packed, from `gid animate --save`.
    packed: Write the .gid file as the viewer of the paper's authors reads it: image.png, flow_xy_data and, for the
      tables of its page, tables.json.
    motion: Work folder of a `ldm_coordinated` (or `ldm`) run.
    renderer: Work folder of a `renderer` run.
    plate: Work folder of a `plate` run.
    output: Folder to write into; weights there are replaced.
    best: Take the checkpoints with the lowest validation loss instead of the newest.
    label: Version of the weights, any text; the files carry it.
  """

  bundle: Annotated[
    Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[x.gid]", help_behavior_hint="")
  ] = None
  packed: Flag = False
  motion: Path | None = None
  renderer: Path | None = None
  plate: Path | None = None
  output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
  best: bool = False
  label: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorRequest:
  """Say what runs here and what does not, with the command that mends it; exit status 2 where something is wrong."""
