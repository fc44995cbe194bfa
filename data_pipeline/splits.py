"""Which scenes a data set holds out for validation; a scene is never in both splits."""

import zlib
from collections.abc import Collection, Sequence

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
