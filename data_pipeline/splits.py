"""Which scenes a data set holds out for validation; a scene is never in both splits."""

import shlex
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gid_jax.errors import UserError

SPLITS = ("train", "validation")


def assign_splits(scenes: Collection[str], *, held_out: Collection[str] | None) -> dict[str, str]:
  """Assigns scenes to splits: by a list, or without one by a hash of their names.

  Args:
    scenes: names of all filmed scenes.
    held_out: those for validation; None for a tenth of them, at least one of two, never all.

  Returns:
    Scene -> "train" or "validation". A scene keeps its split when others come, unless it was the only one held out.
  """
  if held_out is not None:
    return {scene: SPLITS[scene in held_out] for scene in scenes}
  codes = {scene: zlib.crc32(scene.encode()) for scene in scenes}
  order = sorted(codes, key=lambda scene: (codes[scene] % 10, codes[scene], scene))
  tenth = sum(code % 10 == 0 for code in codes.values())
  number = min(max(tenth, 1), len(order) - 1)
  return {scene: SPLITS[place < number] for place, scene in enumerate(order)}


def pick_held_out_seeds(number: int) -> list[int]:
  """Which of the seeds 0 ... `number` - 1 are for validation: every tenth, of fewer than ten the last."""
  return list(range(9, number, 10)) or list(range(1, number))[-1:]


def check_splits(
  scenes: Sequence[tuple[str, str]], *, kept: Collection[str], held_out: Sequence[str] | None
) -> None:
  """Refuses to build what cannot be trained on.

  Args:
    scenes: (name, split) of everything to build.
    kept: splits of the windows that are there and stay.
    held_out: as the user gave it; an empty list wants no validation.

  Raises:
    UserError: nothing is left to train on or to validate on.
  """
  splits = {split for _, split in scenes} | {*kept}
  names = sorted({scene for scene, _ in scenes})
  listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
  if "train" not in splits:
    raise UserError(f"Every scene is held out, which leaves nothing to train on: hold out fewer of {listed}.")
  if "validation" in splits or held_out == []:
    return
  if held_out:
    raise UserError(
      f"--held_out_scenes {','.join(held_out)}: no such scene, which leaves nothing to validate on; there are {listed}."
    )
  raise UserError(
    f"All is one scene, {listed}, which leaves nothing to validate on: give clips of another scene, tell scenes apart"
    " in a table beside the folder, or build for training alone with --held_out_scenes=."
  )


def check_windows(
  records: Sequence[Mapping[str, Any]],
  rejected: Sequence[Mapping[str, str]],
  *,
  listed: Path,
  held_out: Sequence[str] | None,
) -> None:
  """Refuses what came out of a build if it cannot be trained on; warns on the standard error if it hardly can.

  Args:
    records: of every clip and simulated scene, see `data_pipeline.tasks.run_task`.
    rejected: what was left out, with "reason".
    listed: the file in which `rejected` stands.
    held_out: as the user gave it; an empty list wants no validation.

  Raises:
    UserError: no window is there to train on or to validate on.
  """
  scenes: dict[str, set[str]] = {split: set() for split in SPLITS}
  for record in records:
    if record["windows"]:
      scenes[record["split"]].add(record["scene"])
  reasons = Counter(lost["reason"] for lost in rejected).most_common(1)
  why = f"; {reasons[0][1]} of {len(rejected)} rejected: {reasons[0][0].rstrip('.')}" if reasons else ""
  if not scenes["train"]:
    raise UserError(f"No training window came out: see {listed}, and give more clips{why}.")
  if not scenes["validation"] and held_out != []:
    name = shlex.quote(min(scenes["train"]))
    advice = f"hold out another, as with --held_out_scenes {name}" if len(scenes["train"]) > 1 else "give more clips"
    raise UserError(f"No validation window came out: see {listed}, and {advice}{why}.")
  for split, purpose in (("train", "train on"), ("validation", "validate on")):
    if len(scenes[split]) == 1:
      (name,) = scenes[split]
      print(
        f"Windows of one scene only, {name}, are there to {purpose}: give clips of more scenes, or tell scenes apart"
        " in a table beside the folder.", file=sys.stderr)  # fmt: skip
