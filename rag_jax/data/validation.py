"""Validation and conversion of user values against the annotated types of a config's fields.

    steps is 'many'; give a whole number

Configs are dataclasses that come from Python, JSON or the command line; after validation every field holds its type.
"""

import dataclasses
import difflib
import os
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from rag_jax.errors import InputError

T = TypeVar("T")


def validate_value(kind: Any, value: Any, name: str, source: str = "") -> Any:
    """Convert a value to `kind`: a list to a tuple, a string to a path, an integer to a float.

    `name` is the name that users know, `source` the prefix of messages, such as `FILE: `. Raises `InputError` for a
    value of another type.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return validate_dataclass(kind, value, source, name)
    try:
        return _convert(kind, value)
    except TypeError:
        raise InputError(f"{source}{name} is {reprlib.repr(value)}; give {_describe(kind)}") from None


def validate_dataclass(kind: type[T], value: Any, source: str = "", name: str = "") -> T:
    """Convert a mapping, or a dataclass that is not validated yet, to the dataclass `kind`.

    Raises `InputError` for a field that is missing, unknown, or of another type.
    """
    hints, known = typing.get_type_hints(kind), {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if isinstance(value, kind):
        value = {each: getattr(value, each) for each in known}
    if not isinstance(value, Mapping):
        raise InputError(f"{source}{name or 'the whole'} is {reprlib.repr(value)}; give {_describe(kind)}")
    prefix = f"{name}." if name else ""
    for each in value:
        if each not in known:
            close = difflib.get_close_matches(str(each), known, n=1, cutoff=0.0)[0]
            raise InputError(f"{source}unknown key {prefix + str(each)!r}; the nearest is {prefix + close!r}")
    for each, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if each not in value and required:
            raise InputError(f"{source}{prefix}{each} is missing; give {_describe(hints[each])}")
    return kind(**{key: validate_value(hints[key], each, prefix + key, source) for key, each in value.items()})


def _convert(kind: Any, value: Any) -> Any:
    """Convert a value. Raises `TypeError` for one of another type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in options):
            return value
        raise TypeError
    if origin in (types.UnionType, typing.Union):
        for option in options:
            try:
                return _convert(option, value)
            except TypeError:
                continue
        raise TypeError
    if origin is tuple:
        return _convert_tuple(options, value)
    if kind is None or kind is type(None):
        if value is None:
            return None
        raise TypeError
    return _convert_scalar(kind, value)


def _convert_scalar(kind: type, value: Any) -> Any:
    is_bool = isinstance(value, bool | np.bool_)
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, Real) and not is_bool:
        return float(value)
    if kind is str and isinstance(value, str):
        return str(value)
    if kind is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    if kind in (bool, int, float, str, Path) or not isinstance(value, kind):
        raise TypeError
    return value


def _convert_tuple(options: tuple, value: Any) -> tuple:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError
    kinds = [options[0]] * len(value) if options[1:] == (...,) else options
    if len(kinds) != len(value):
        raise TypeError
    return tuple(_convert(kind, each) for kind, each in zip(kinds, value, strict=True))


DESCRIPTIONS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a path",
}


def _describe(kind: Any) -> str:
    """A type in words, as messages name it."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(option) for option in options)
    if origin is tuple and options[1:] == (...,):
        return f"a list, each {_describe(options[0])}"
    if origin is tuple:
        return f"a list of {' and '.join(_describe(option) for option in options)}"
    if kind is None or kind is type(None):
        return "None"
    if dataclasses.is_dataclass(kind):
        return f"the fields of {getattr(kind, '__name__', kind)}"
    return DESCRIPTIONS.get(kind, f"a {getattr(kind, '__name__', kind)}")
