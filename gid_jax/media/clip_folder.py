"""The clips of a folder: which files are videos, and which scene each shows, by a table or by the file's name."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gid_jax.errors import UserError
from gid_jax.files import PathLike, first_line

VIDEO_SUFFIXES = (
  ".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv",
  ".3gp", ".mxf")  # fmt: skip
# Of a folder of clips; elsewhere these may as well be photos.
_SUFFIXES = {*VIDEO_SUFFIXES, ".gif", ".webp"}
_EXAMPLES = ".mp4, .mov, .webm, .mkv, .avi, .gif or other video"
# What cameras, telephones and hasty people call their files; a number behind it tells one scene from another.
_SAYS_NOTHING = re.compile(
  "img|dsc|dscn|dscf|mg|mvi|mov|mah|pxl|vid|dji|gopr|gh|gp|gx|gl|cimg|sam|sdc|imag|wa|ts|mp|whatsapp|signal|at|"
  "video|movie|film|clip|shot|take|scene|file|recording|rec|screen|capture|untitled|trim|cam|camera"
)


class ClipFile(NamedTuple):
  """A video of a folder.

  Attributes:
    path: of the video.
    scene: what it shows; takes of one scene are not independent.
    tier: "A" (steady), "B" (a flaw) or "S" (rendered, not filmed), from the table beside the folder; "A" without one.
    name: of the video among those of the folder: its path below it without the suffix, `day-oak` of `day/oak.mp4`.
  """

  path: Path
  scene: str
  tier: str
  name: str


def read_clip_folder(folder: PathLike) -> tuple[list[ClipFile], list[str]]:
  """Lists the videos of a folder with their scenes.

  `FOLDER.csv` beside it may give them: columns file (its name, or its path below the folder), scene and, if wanted,
  tier. What it does not list, the file's name decides, see `file_to_scene`; one that says nothing, below the folder,
  is a scene together with the names of the folders that it is in.

  Returns:
    The videos, and what was skipped, see `find_clips`.

  Raises:
    UserError: the folder is missing or holds no video, two videos share a name, or the table cannot be read.
  """
  paths, skipped = find_clips(folder)
  rows = _read_table(find_table(folder))
  files: dict[str, ClipFile] = {}
  for path in paths:
    below = path.relative_to(folder)
    name = "-".join(below.with_suffix("").parts)
    places = below.as_posix(), f"{Path(folder).name}/{below.as_posix()}", path.name
    row = next((rows[place] for place in places if place in rows), {})
    scene = row.get("scene") or (name if _says_nothing(path.stem) else file_to_scene(path))
    other = files.setdefault(name, ClipFile(path, scene, row.get("tier") or "A", name))
    if other.path is not path:
      raise UserError(f"{other.path} and {path} are both called {name}: rename one, windows are named by their file.")
  return list(files.values()), skipped


def find_clips(folder: PathLike) -> tuple[list[Path], list[str]]:
  """Finds the video files of a folder and of the folders in it, sorted.

  Returns:
    The files, and a line for each thing that has the name of a video and is none: hidden files, as macOS leaves beside
    others, dead links, folders, and what may not be read.

  Raises:
    UserError: the folder is missing or holds no video.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(f"No folder {folder}: give one with {_EXAMPLES} files.")
  paths, skipped = [], []
  for path in sorted(_walk(folder, skipped)):
    if path.suffix.lower() not in _SUFFIXES:
      continue
    reason = _find_fault(path)
    if reason:
      skipped.append(f"{path.relative_to(folder)} ({reason})")
    else:
      paths.append(path)
  if not paths:
    rest = f"; skipped {', '.join(skipped)}" if skipped else ""
    raise UserError(f"No videos in {folder}: give a folder with {_EXAMPLES} files, in it or in folders below{rest}.")
  return paths, skipped


def _walk(folder: Path, skipped: list[str]) -> Iterator[Path]:
  """All in a folder and below it, without hidden folders; one that links lead to twice is entered once."""
  entered = set()
  note = lambda error: skipped.append(f"{os.path.relpath(error.filename, folder)} (folder may not be read)")
  for root, folders, files in os.walk(folder, followlinks=True, onerror=note):
    place = os.path.realpath(root)
    if place in entered:
      folders.clear()
      continue
    entered.add(place)
    yield from (Path(root) / name for name in (*folders, *files))
    folders[:] = sorted(name for name in folders if not name.startswith("."))


def _find_fault(path: Path) -> str:
  if path.name.startswith("."):
    return "hidden"
  if path.is_dir():
    return "a folder"
  if not path.exists():
    return "dead link"
  if not path.is_file():
    return "not a file"
  return "" if os.access(path, os.R_OK) else "may not be read"


def find_table(folder: PathLike) -> Path:
  """The table that belongs to a folder: `clips.csv` beside `clips/`."""
  place = Path(os.path.abspath(folder))
  return place.with_name(f"{place.name}.csv")


def _read_table(table: Path) -> dict[str, dict[str, str]]:
  """File name -> row of a table; nothing where there is none."""
  if not table.exists():
    return {}
  try:
    with open(table, newline="", encoding="utf-8-sig") as file:  # Spreadsheets begin a file with a byte order mark.
      rows = list(csv.DictReader(file))
  except (OSError, ValueError, csv.Error) as error:
    raise UserError(f"{table}: not a readable table ({first_line(error)}); save it as CSV in UTF-8.") from error
  if rows and not {"file", "scene"} <= rows[0].keys():
    raise UserError(f"{table}: needs the columns `file` and `scene` in its first line.")
  return {Path(row["file"] or "").as_posix(): row for row in rows}


def _says_nothing(stem: str) -> bool:
  words = re.findall(r"[^\W\d_]+", stem.lower())
  counts = len(re.findall(r"\d", stem)) > 3  # A letter beside a long number, as in C0001 and IMG_E0001.
  return all(_SAYS_NOTHING.fullmatch(word) or (counts and len(word) == 1) for word in words)


def file_to_scene(path: PathLike) -> str:
  """Guesses the scene from a file name: its stem without a trailing number, `sim_x_view1_0` being scene x.

  A name that says nothing of what it shows, as those that cameras give, is a scene of its own: IMG_0001 and IMG_0002
  are two.
  """
  stem = Path(path).stem
  if _says_nothing(stem):
    return stem
  return re.sub(r"[ _-]+\(?\d+\)?$", "", re.sub(r"^sim_(.*?)(_view\d+)?(_\d+)?$", r"\1", stem))
