"""Validation and conversion of user values against the annotated types of a config's fields.

    steps is 'many'; give a whole number

Configs are dataclasses that come from Python, JSON or the command line; after validation every field holds its type.
The range of a number is part of its type: `Annotated[int, Range(1)]`, in short `Count`.
"""

import dataclasses
import difflib
import functools
import math
import os
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np

from rag_jax.errors import InputError

T = TypeVar("T")
LARGEST = 2**63 - 1  # whole number


class Range(NamedTuple):
    """The numbers from `low` to `high`; NaN is outside."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # without `low`
    below: bool = False  # without `high`

    def holds(self, value: float) -> bool:
        """Whether a number is inside."""
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"more than {self.low}" if self.above else f"{self.low} or more"
        if self.above or self.below:
            return f"{'more than ' if self.above else ''}{self.low}{'' if self.above else ' or more'}, " + (
                f"below {self.high}" if self.below else f"at most {self.high}"
            )
        return f"{self.low} to {self.high}"


Count = Annotated[int, Range(1)]
NotNegative = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, math.inf, above=True, below=True)]
Rate = Annotated[float, Range(0, math.inf, below=True)]  # a learning rate, a weight: finite
Share = Annotated[float, Range(0, 1)]
Dropout = Annotated[float, Range(0, 1, below=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


class OutOfRangeError(TypeError):
    """A number of the right type outside its range; the message is the range in words."""


def validate_value(kind: Any, value: Any, name: str, source: str = "") -> Any:
    """Convert a value to `kind`: a list to a tuple, a string to a path, an integer to a float.

    `name` is the name that users know, `source` the prefix of messages, such as `FILE: `. Raises `InputError` for a
    value of another type.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return validate_dataclass(kind, value, source, name)
    try:
        return _convert(kind, value)
    except TypeError as error:
        wanted = str(error) if isinstance(error, OutOfRangeError) else _describe(kind)
        raise InputError(f"{source}{name} is {reprlib.repr(value)}; give {wanted}") from None


def validate_dataclass(kind: type[T], value: Any, source: str = "", name: str = "") -> T:
    """Convert a mapping, or a dataclass that is not validated yet, to the dataclass `kind`.

    Raises `InputError` for a field that is missing, unknown, or of another type.
    """
    hints, known = _hints(kind), {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
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


def check_int32(name: str, value: object) -> None:
    """Raise `InputError` for a whole number that programs cannot hold: they count in 32 bits."""
    if isinstance(value, int) and value >= 2**31:
        raise InputError(f"{name} is {value}; give less than 2**31")


class Validated:
    """A base of frozen dataclasses: their fields are validated however they are made.

    `Optimizer(kind="sgd")` raises `InputError`, and so does `dataclasses.replace` with such a value.
    """

    def __post_init__(self) -> None:
        for name, kind in _hints(type(self)).items():
            value = getattr(self, name)
            if not (dataclasses.is_dataclass(kind) and type(value) is kind):  # validated by itself
                object.__setattr__(self, name, validate_value(kind, value, f"{type(self).__name__}.{name}"))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _convert(kind: Any, value: Any) -> Any:
    """Convert a value. Raises `TypeError` for one of another type, `OutOfRangeError` for a number outside its range."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _convert_in_range(options[0], options[1:], value)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in options):
            return value
        raise TypeError
    if origin in (types.UnionType, typing.Union):
        found = TypeError()
        for option in options:
            try:
                return _convert(option, value)
            except TypeError as error:
                found = error if isinstance(error, OutOfRangeError) else found
        raise found
    if origin is tuple:
        return _convert_tuple(options, value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise TypeError
        return {_convert(options[0], key): _convert(options[1], each) for key, each in value.items()}
    if kind is Any:
        return value
    if kind is None or kind is type(None):
        if value is None:
            return None
        raise TypeError
    return _convert_scalar(kind, value)


def _convert_in_range(kind: Any, ranges: Sequence[Any], value: Any) -> Any:
    converted = _convert(kind, value)
    for each in ranges:
        if isinstance(each, Range) and not each.holds(converted):
            raise OutOfRangeError(str(each))
    return converted


def _convert_scalar(kind: type, value: Any) -> Any:
    is_bool = isinstance(value, bool | np.bool_)
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, Integral) and not is_bool:
        if abs(int(value)) > LARGEST:
            raise OutOfRangeError("a whole number of at most 64 bits")
        return int(value)
    if kind is float and value == "inf":  # as configs write it, for JSON has no infinity
        return math.inf
    if kind is float and isinstance(value, Real) and not is_bool:
        try:
            return float(value)
        except OverflowError:
            raise OutOfRangeError("a smaller number") from None
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
    if origin is Annotated:
        return _describe(options[0])
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(option) for option in options)
    if origin is tuple and options[1:] == (...,):
        return f"a list, each {_describe(options[0])}"
    if origin is tuple:
        return f"a list of {' and '.join(_describe(option) for option in options)}"
    if origin is dict:
        return "an object" if options[1] is Any else f"an object, each value {_describe(options[1])}"
    if kind is None or kind is type(None):
        return "None"
    if dataclasses.is_dataclass(kind):
        return f"the fields of {getattr(kind, '__name__', kind)}"
    return DESCRIPTIONS.get(kind, f"a {getattr(kind, '__name__', kind)}")
