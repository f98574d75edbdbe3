"""Standard JSON (RFC 8259), read and written strictly.

Python's `json` also reads and writes NaN and Infinity, and of a key that occurs twice it takes the last value. Both are
errors here when they are read, and a number that is not finite is written as null. Every error of `read` is an
`InputError` of one line.
"""

import codecs
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError

COPY_AGAIN = "copy or download it again"


class NotStrictError(ValueError):
    """What Python reads as JSON and the standard does not; the message says what."""


def loads(text: str | bytes, paths: bool = False) -> Any:
    """Parse a document, UTF-8 with or without a byte-order mark.

    Args:
        paths: whether strings may hold half a surrogate pair, as those of paths do that are not UTF-8.

    Raises `ValueError` for anything else than standard JSON, for half a surrogate pair, and for a document that is
    nested too deeply to be read.
    """
    if isinstance(text, bytes):
        text = text.removeprefix(codecs.BOM_UTF8).decode()
    found = decode(text)
    if not paths and "\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError, too
    return found


def decode(text: str) -> Any:
    """`loads`, where strings may hold half a surrogate pair."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise NotStrictError("nested too deeply") from None


def read(path: Path, missing: str, remedy: str = COPY_AGAIN) -> Any:
    """Read a JSON file.

    Args:
        missing: what to do where there is no such file, for the error message.
        remedy: what to do with a damaged file.

    Raises `InputError` for a file that is missing, cannot be read, or does not hold standard JSON.
    """
    try:
        return loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {missing}") from None
    except ValueError as error:
        raise InputError(f"{location(path, error)}: {describe(error)}; {remedy}") from None


def read_object(path: Path, missing: str, remedy: str = COPY_AGAIN) -> dict[str, Any]:
    """`read` a file that holds an object. Raises as `read`, and for any other value."""
    found = read(path, missing, remedy)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds {type_name(found)}, not an object; {remedy}")
    return found


def location(path: Path, error: ValueError) -> str:
    """`FILE:LINE` of an error of `loads` that has a line, otherwise the file."""
    return f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)


def describe(error: ValueError) -> str:
    """What an error of `loads` says is wrong, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg})"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, UnicodeEncodeError):
        return "a string holds half a surrogate pair"
    return f"not JSON ({error})" if isinstance(error, NotStrictError) else "not JSON (a number is too long)"


def dumps(value: Any, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """The text of a value; numbers that are not finite become null."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    except (TypeError, ValueError):  # a mapping that is no dict, a number that is not finite: the rare cases
        return json.dumps(_finite(value), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def type_name(value: object) -> str:
    """The type of a value in the words of JSON; null, true and false by themselves."""
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), json.dumps(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise NotStrictError(f"the key {json.dumps(next(key for key in keys if keys.count(key) > 1))} occurs twice")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotStrictError(f"the number {text[:20]} is too large")
    return value


def _constant(name: str) -> Any:
    raise NotStrictError(f"{name} is no number of JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_float, parse_constant=_constant)
