"""From what a person writes to typed settings: nested mappings are parsed once, where a program begins.

`parse` fills frozen dataclasses and refuses what it does not know by its name, with the nearest name that there is. A
`Part` names something that can be replaced, of ours or of anybody's module; `make_part` makes it.
"""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from flax.core import FrozenDict

from gid_jax.errors import UserError
from gid_jax.files import first_line

T = TypeVar("T")
_NOTHING = FrozenDict()


@dataclasses.dataclass(frozen=True)
class Part:
  """One replaceable part of a model.

  Attributes:
    kind: a name of ours, or "module:attribute".
    fields: arguments of what it names.
  """

  kind: str
  fields: Mapping[str, Any] = _NOTHING


def parse(kind: type[T], values: Mapping[str, Any], *, where: str = "config") -> T:
  """Makes frozen settings of nested mappings.

  Args:
    kind: the dataclass.
    values: names and values, such as a ConfigDict or what JSON gives; lists become tuples.
    where: how messages call them.

  Raises:
    UserError: a name is unknown, a value is missing or of the wrong type.
  """
  if not _is_mapping(values):
    raise UserError(f"{where}={values!r}: give settings by their names")
  types_of = typing.get_type_hints(kind)
  fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
  unknown = [name for name in values if name not in fields]
  if unknown:
    _refuse(where, unknown[0], list(fields))
  for name, field in fields.items():
    if name not in values and _is_needed(field):
      raise UserError(f"{where}.{name} is missing")
  return kind(**{name: _parse_value(types_of[name], values[name], f"{where}.{name}") for name in values})


def freeze(value: Any) -> Any:
  """A value that can be hashed: mappings frozen, lists as tuples."""
  if _is_mapping(value):
    return FrozenDict({name: freeze(value[name]) for name in value})
  return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value


def to_plain(settings: Any) -> Any:
  """Settings as nested dictionaries, lists and scalars that JSON knows; `parse` turns them back."""
  if isinstance(settings, Part):
    return {"kind": settings.kind} | to_plain(settings.fields)
  if dataclasses.is_dataclass(settings):
    return {field.name: to_plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
  if isinstance(settings, Mapping):
    return {name: to_plain(value) for name, value in settings.items()}
  return [to_plain(item) for item in settings] if isinstance(settings, list | tuple) else settings


def look_up(kind: str, known: Mapping[str, Any], *, what: str) -> Any:
  """What a `kind` names: one of ours, or "module:attribute" of anybody's.

  Args:
    kind: the name.
    known: ours.
    what: how the message calls it, such as "denoiser".

  Raises:
    UserError: nothing has this name, or its module cannot be imported.
  """
  module, _, attribute = kind.partition(":")
  if not (module and attribute):
    if kind not in known:
      raise UserError(f"unknown {what} {kind!r}; use one of {', '.join(known)}, or module:attribute of your own")
    return known[kind]
  try:
    return getattr(importlib.import_module(module), attribute)
  except Exception as error:  # whatever somebody's own module does
    reason = f"{type(error).__name__}: {first_line(error)}"
    raise UserError(f"{what} {kind!r} cannot be imported ({reason}); is its module on the Python path?") from error


def make_part(part: Part, known: Mapping[str, Any], *, what: str, **more: Any) -> Any:
  """Makes what a part names, of its fields and some more, which are not for settings.

  Raises:
    UserError: nothing has this name, it is no class of fields, it has no such field, or one is missing.
  """
  kind = look_up(part.kind, known, what=what)
  if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
    raise UserError(f"the {what} {part.kind!r} is not a Linen module")
  hidden = {"parent", "name", *more}
  fields = {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in hidden}
  for name in part.fields:
    if name not in fields:
      raise UserError(f"the {what} {part.kind!r} has no setting {name!r}{suggest(name, fields)}")
  for name, field in fields.items():
    if name not in part.fields and _is_needed(field):
      raise UserError(f"the {what} {part.kind!r} needs the setting {name!r}")
  return kind(**part.fields, **more)


def suggest(name: str, names: Iterable[str]) -> str:
  """What a message says after a name that is not known: the nearest one, or all."""
  known = list(names)
  nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  return f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(known)}"


def _is_mapping(value: Any) -> bool:
  return isinstance(value, Mapping) or hasattr(value, "to_dict")


def _is_needed(field: dataclasses.Field) -> bool:
  return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _parse_value(kind: Any, value: Any, where: str) -> Any:
  origin, options = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return None if value is None and type(None) in options else _parse_union(options, value, where)
  if kind is Part:
    if isinstance(value, Part):
      return value
    if not _is_mapping(value) or "kind" not in value:
      raise UserError(f"{where} has no `kind`; name one")
    return Part(str(value["kind"]), freeze({name: value[name] for name in value if name != "kind"}))
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    return value if isinstance(value, kind) else parse(kind, value, where=where)
  if origin is Mapping:
    if not _is_mapping(value):
      raise UserError(f"{where}={value!r}: give values by their names")
    return freeze(value)
  if origin is tuple:
    return _parse_tuple(options, value, where)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
    raise UserError(f"{where}={value!r}: give {_KINDS[kind]}")
  return value


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _parse_union(options: tuple, value: Any, where: str) -> Any:
  """The first dataclass that has all of the names."""
  kinds = [option for option in options if option is not type(None)]
  if len(kinds) > 1 and not (_is_mapping(value) or isinstance(value, tuple(kinds))):
    raise UserError(f"{where}={value!r}: give settings by their names")
  for kind in kinds:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
      if isinstance(value, kind):
        return value
      if len(kinds) > 1 and set(value) - {field.name for field in dataclasses.fields(kind)}:
        continue
    return _parse_value(kind, value, where)
  names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
  unknown = sorted(set(value) - names)
  return _parse_value(kinds[0], value, where) if not unknown else _refuse(where, unknown[0], sorted(names))


def _refuse(where: str, name: str, names: list[str]) -> NoReturn:
  name = str(name) if str(name).isprintable() else repr(name)  # in one line
  raise UserError(f"{where}.{name} is unknown here{suggest(name, names)}")


def _parse_tuple(options: tuple, value: Any, where: str) -> tuple:
  if not isinstance(value, list | tuple):
    raise UserError(f"{where}={value!r}: give values in brackets")
  if options[-1] is not Ellipsis and len(value) != len(options):
    raise UserError(f"{where}={tuple(value)}: give {len(options)} values in brackets")
  kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
  return tuple(_parse_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
