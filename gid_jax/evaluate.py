"""Judges a model: `python -m gid_jax.evaluate --config=configs/evaluation.py --workdir=runs/evaluation`.

Every scene's result is kept in the work folder, so the same command goes on where it was stopped; in the end stand
`report.html` and `report.json`. Errors end with status 2.
"""

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gid_jax.configuration import EvaluationSettings, ModelSettings, expect_model
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError
from gid_jax.evaluation.judging import MODEL, REAL, check_crop, find_result, judge_scene, load_result, save_result
from gid_jax.evaluation.networks.extractors import Extractor, digest_params, load_extractor
from gid_jax.evaluation.report.comparison import compare
from gid_jax.evaluation.report.content import ClipGroup, Figure, Report, read_report, write_report
from gid_jax.evaluation.report.figures import draw_amplitudes, draw_slices
from gid_jax.evaluation.report.page import write_page
from gid_jax.evaluation.scenes import ClipFile, JudgedScene, list_clips, read_clip, simulate_scenes
from gid_jax.evaluation.tables import make_motion_table, make_rendering_table, make_time_tables, make_video_table
from gid_jax.files import blame_machine, complete_or_nothing, lock_folder
from gid_jax.flow.estimators import find_estimator
from gid_jax.flow.tracking import digest_measurement
from gid_jax.media.encoding import write_video
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.parsing import parse, to_plain
from gid_jax.pipeline import Animator
from gid_jax.training.command_line import parse_flags


def load_extractors(config: EvaluationSettings) -> tuple[list[Extractor], list[str]]:
  """The feature networks that can be had, and one line for each that cannot: where to get it."""
  extractors, notes = [], []
  for kind in config.features:
    try:
      extractors.append(load_extractor(kind, weights=config.feature_weights.get(kind) or None))
    except UserError as error:
      notes.append(f"Skipped {kind}: {error}")
  return extractors, notes


def list_files(config: EvaluationSettings, animator: Animator) -> tuple[list[tuple[str, ClipFile]], list[str]]:
  """(source, file) of every real clip and loop that a config names and the model has not seen, and notes on these.

  Raises:
    UserError: see `list_clips`.
  """
  parts = [weights.trained_on for weights in (animator.motion_settings, animator.renderer_settings) if weights]
  files, notes = [], []
  if None in parts:
    notes.append("The weights do not say which scenes they were trained on; exclude those by name.")
  for source, part in (("real", config.real), ("loop", config.loops)):
    if part.folder:
      split = lambda text: tuple(filter(None, map(str.strip, text.split(","))))
      names = {name: split(getattr(part, name)) for name in ("tiers", "scenes", "exclude")}
      seen = {scene for trained_on in parts if trained_on for scene in trained_on.get(source) or ()}
      found = list_clips(part.folder, **names, takes=part.takes)
      unseen = [file for file in found if file.scene not in seen]
      known = sorted({file.scene for file in found if file.scene in seen})
      if known:
        notes.append(f"Left out, as the model was trained on them ({source}): {', '.join(known)}.")
      if not unseen:
        raise UserError(f"{part.folder}: the model was trained on every scene named; judge it on others")
      files += [(source, file) for file in unseen]
  return files, notes


def check_workdir(workdir: Path, config: EvaluationSettings, digests: Mapping[str, str]) -> None:
  """Claims a work folder for one model and configuration; the number of simulated scenes may change.

  Raises:
    UserError: it holds results of another.
  """
  settings = to_plain(config)
  del settings["simulated"]["number"], settings["cache"]
  path = workdir / "evaluation.json"
  text = json.dumps({"config": settings, "weights": digests}, indent=2, sort_keys=True)
  if path.exists() and path.read_text() != text:
    raise UserError(f"{workdir} holds results of another model or configuration (see {path}); use another --workdir")
  workdir.mkdir(parents=True, exist_ok=True)
  with complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_text(text)


def show_scene(folder: Path, scene: JudgedScene, videos: Mapping[str, np.ndarray], sample: Any) -> None:
  """Writes the videos of a scene and two pictures of it, for the report to take in."""
  folder.mkdir(parents=True, exist_ok=True)
  moving = {"real": scene.volume, MODEL: sample}
  pictures = {"slices": draw_slices(videos, row=scene.frames.shape[1] // 2), "amplitudes": draw_amplitudes(moving)}
  for name, data in pictures.items():
    with complete_or_nothing(folder / f"{name}.png", overwrite=True) as temporary:
      temporary.write_bytes(data)
  for name, frames in videos.items():
    write_video(folder / f"{name.replace(' ', '_')}.mp4", iter(frames), fps=scene.volume.fps, overwrite=True)


def gather_shown(workdir: Path) -> tuple[tuple[Figure, ...], tuple[ClipGroup, ...]]:
  """The pictures and videos that `show_scene` has written."""
  figures, groups = [], []
  for folder in sorted((workdir / "scenes").glob("*/")):
    slices, amplitudes = (folder / f"{name}.png" for name in ("slices", "amplitudes"))
    if not (slices.exists() and amplitudes.exists()):
      continue
    caption = "The middle row of the picture over time, downwards."
    figures.append(Figure(f"{folder.name}: X-t slices", caption, slices.read_bytes()))
    caption = "How far every place swings, real and sampled, on one scale."
    figures.append(Figure(f"{folder.name}: amplitudes", caption, amplitudes.read_bytes()))
    videos = {path.stem.replace("_", " "): str(path.relative_to(workdir)) for path in sorted(folder.glob("*.mp4"))}
    groups.append(ClipGroup(folder.name, videos))
  return tuple(figures), tuple(groups)


def evaluate(config: EvaluationSettings, workdir: str | Path, *, against: str | Path | None = None) -> Report:
  """Judges the model that `config` names on all its scenes, and writes the report.

  Raises:
    UserError: nothing to judge by, weights or clips that cannot be read, or a work folder of another evaluation.
  """
  workdir = Path(workdir)
  if not (config.real.folder or config.loops.folder or config.simulated.number):
    raise UserError(
      "nothing to judge by; give --config.real.folder, --config.loops.folder or --config.simulated.number"
    )
  previous = read_report(against) if against else None
  # --- model ----------------------------------------------------------------------------------------------------
  animator = Animator.from_pretrained(config.weights or None)
  model = expect_model(ModelSettings, animator.motion_settings)
  digests = {
    "motion": digest_params(animator.motion_params),
    "renderer": digest_params(animator.renderer_params),
  }
  facts = {"config": to_plain(config), "weights": digests}
  estimator = find_estimator(config.flow)
  check_workdir(workdir, config, digests | {"measurement": digest_measurement(estimator)})
  extractors, notes = load_extractors(config)
  if extractors:
    check_crop(config.crop, height=model.image_size[0], width=model.image_size[1])
  chosen, seen = list_files(config, animator)
  notes += seen
  cache = Path(config.cache or workdir / "measured")
  vgg = config.feature_weights.get("vgg16")
  vgg_params = vgg16_params(vgg) if vgg else None
  columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
  with Progress(*columns) as progress:
    # --- motion of all clips, of which blind predictions are made ------------------------------------------------
    known, files = [], []
    for source, file in progress.track(chosen, description="measuring"):
      try:
        scene = read_clip(file, model, source=source, cache=cache, estimator=estimator)
      except UserError as error:
        notes.append(f"Left out {file.name}: {error}")
        continue
      files.append((source, file))
      known.append((scene.name, scene.scene, source, scene.volume))
    first_takes: dict[tuple[str, str], str] = {}
    for source, file in files:
      first_takes.setdefault((source, file.scene), f"{source}-{file.name}")
    shown = [*first_takes.values()][: config.num_shown]
    # --- scenes -----------------------------------------------------------------------------------------------------
    results = []
    options = dict[str, Any](
      num_samples=config.num_samples, crop=tuple(config.crop), filmed=config.filmed, extractors=extractors,
      cache=cache, vgg_params=vgg_params,
    )  # fmt: skip
    for index, (source, file) in enumerate(progress.track(files, description="clips")):
      path = workdir / "results" / f"{source}-{file.name}.safetensors"
      result = find_result(path)
      # One of before a network of features could be had is judged again.
      if result is None or (config.filmed and any(f"{one.name}/{REAL}" not in result.features for one in extractors)):
        scene = read_clip(file, model, source=source, cache=cache, estimator=estimator)
        others = [volume for _, name, kind, volume in known if name != scene.scene and kind == source]
        same = [(take, volume) for take, name, kind, volume in known if name == scene.scene and kind == source]
        takes = [volume for take, volume in same if take != scene.name]
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        result, videos, sample = judge_scene(key, scene, animator, others=others, takes=takes, **options)
        if path.stem in shown:
          show_scene(workdir / "scenes" / path.stem, scene, videos, sample)
        save_result(path, result)
        result = load_result(path)
      results.append(result)
    results += _judge_simulated(config, workdir, animator, progress, vgg_params=vgg_params)

  # --- report -----------------------------------------------------------------------------------------------------
  tables = []
  for source in ("real", "loop", "synthetic"):
    tables += [make(results, source) for make in (make_motion_table, make_video_table, make_rendering_table)]
    tables += make_time_tables(results, source)
  figures, clips = gather_shown(workdir)
  report = Report(
    title="Evaluation",
    configuration=facts,
    tables=tuple(table for table in tables if table),
    figures=figures,
    clips=clips,
    notes=tuple(notes),
  )
  write_report(workdir / "report.json", report)
  write_page(workdir / "report.html", report, comparison=compare(report, previous) if previous else None)
  return report


def _judge_simulated(config, workdir, animator, progress, *, vgg_params):
  """Results of simulated scenes, one sample each."""
  settings, results = config.simulated, []
  backgrounds = load_backgrounds(settings.backgrounds) if settings.backgrounds else []
  sprites = load_sprites(settings.sprites) if settings.sprites else []
  seeds = range(settings.first_seed, settings.first_seed + settings.number)
  if seeds:
    try:
      from data_pipeline.synthetic.scene import sample_scene
    except ImportError as error:
      raise UserError("config.simulated: simulated scenes come with the checkout; start from there") from error
  for seed in progress.track(seeds, description="simulated"):
    path = workdir / "results" / f"synthetic-{seed}.safetensors"
    result = find_result(path)
    if result is None:
      model = expect_model(ModelSettings, animator.motion_settings)
      for scene in simulate_scenes(sample_scene, [seed], model, backgrounds=backgrounds, sprites=sprites):
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        rendered = seed - settings.first_seed < settings.rendered
        result, _, _ = judge_scene(key, scene, animator, num_samples=1, rendered=rendered, vgg_params=vgg_params)
        save_result(path, result)
        result = load_result(path)
    if result is not None:
      results.append(result)
  return results


def main(_: list[str]) -> None:
  """Runs `evaluate` with the flags; a `UserError` becomes one line."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  configure_jax()
  try:
    config, workdir = parse(EvaluationSettings, flags.FLAGS.config), Path(flags.FLAGS.workdir)
    with lock_folder(workdir, work="evaluation", option="--workdir"):
      evaluate(config, workdir, against=flags.FLAGS.against)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except Exception as error:
    line = blame_machine(error)
    if line is None:
      raise
    print(f"error: {line}; the same command goes on where it was", file=sys.stderr)
    sys.exit(2)
  print(f"Wrote {Path(flags.FLAGS.workdir) / 'report.html'}")


if __name__ == "__main__":
  # Here, as training has flags of the same names and a program may import both.
  config_flags.DEFINE_config_file("config", None, "Such as configs/evaluation.py.")
  flags.DEFINE_string("workdir", None, "Folder of results and of the report; gone on with when it has some.")
  flags.DEFINE_string("against", None, "report.json of another evaluation, to mark differences from.")
  flags.mark_flags_as_required(["config", "workdir"])
  examples = {"config": "configs/evaluation.py", "workdir": "runs/evaluation"}
  app.run(main, flags_parser=functools.partial(parse_flags, examples=examples))
