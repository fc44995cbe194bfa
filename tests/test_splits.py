"""Which scenes are held out."""

import pathlib
import zlib

import pytest

from data_pipeline import splits
from gid_jax.errors import UserError


def count(scenes, **options):
  return list(splits.assign_splits(scenes, **{"held_out": None, **options}).values()).count("validation")


def test_a_tenth_of_many_scenes_is_held_out_by_name_alone():
  scenes = [f"scene{i}" for i in range(2000)]
  chosen = splits.assign_splits(scenes, held_out=None)
  assert chosen == splits.assign_splits(scenes[::-1], held_out=None)
  assert {scene for scene in scenes if chosen[scene] == "validation"} == {
    scene for scene in scenes if zlib.crc32(scene.encode()) % 10 == 0}
  assert 140 < count(scenes) < 260


@pytest.mark.parametrize("number", [2, 3, 5])
def test_of_few_scenes_one_is_held_out_and_one_stays(number):
  held = []
  for group in range(100):
    scenes = [f"scene{group}_{i}" for i in range(number)]
    assert 1 <= count(scenes) < number
    held.append(count([*reversed(scenes)]) == count(scenes))
  assert all(held)
  tenth = [scene for i in range(100) if zlib.crc32((scene := f"a{i}").encode()) % 10 == 0]
  assert count(tenth[:number]) == number - 1  # The hash alone would hold out all of these.


def test_one_scene_is_for_training_and_a_list_decides():
  assert splits.assign_splits(["oak"], held_out=None) == {"oak": "train"}
  assert splits.assign_splits([], held_out=None) == {}
  assert splits.assign_splits(["oak", "fern"], held_out=["oak"]) == {"oak": "validation", "fern": "train"}
  assert count(["oak", "fern"], held_out=[]) == 0


def test_seeds():
  assert [splits.pick_held_out_seeds(n) for n in (0, 1, 2, 9, 10, 25)] == [[], [], [1], [8], [9], [9, 19]]


@pytest.mark.parametrize(
  ("scenes", "options", "message"),
  [
    ([("oak", "train")], {}, "All is one scene, oak, which leaves nothing to validate on: .*--held_out_scenes="),
    ([("oak", "train")] * 2, {}, "one scene"),
    ([("oak", "train"), ("fern", "train")], {"held_out": ["fir"]}, "fir: no such scene.* there are fern, oak"),
    ([("oak", "validation")], {"held_out": ["oak"]}, "nothing to train on: hold out fewer of oak"),
    ([("oak", "train"), ("fern", "validation")], {}, None),
    ([("oak", "train")], {"held_out": []}, None),
    ([("oak", "train")], {"kept": {"validation"}}, None),
    ([("oak", "validation")], {"kept": {"train"}}, None),
  ],
)
def test_what_cannot_be_trained_on_is_refused(scenes, options, message):
  check = lambda: splits.check_splits(scenes, **{"kept": set(), "held_out": None, **options})
  if message is None:
    check()
  else:
    with pytest.raises(UserError, match=message):
      check()


def test_where_no_held_out_clip_gave_a_window_another_scene_is_named():
  record = lambda scene, split, windows: {"scene": scene, "split": split, "windows": windows}
  lost = [record("broken", "validation", 0)]
  for names, advice in (
    (["two oaks", "fern lake"], "hold out another, as with --held_out_scenes 'fern lake'"),
    (["oak"], "give more clips"),
  ):
    with pytest.raises(UserError, match=rf"and {advice}; 1 of 1 rejected: too short\.$"):
      splits.check_windows(
        lost + [record(name, "train", 1) for name in names], [{"reason": "too short."}],
        listed=pathlib.Path("rejected.jsonl"), held_out=None)
