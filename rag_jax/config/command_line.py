"""Command lines by tyro, whose complaints become one line."""

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_jax.data.jsonl import validate_characters
from rag_jax.errors import InputError


def parse(kind: Any, arguments: Sequence[str], *, remedy: str, **options: Any) -> Any:
    """`tyro.cli`, raising `InputError` for arguments that it does not take; `remedy` says where to read more."""
    import tyro  # by commands only

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = tyro.cli(kind, args=list(arguments), registry=_registry(), **options)
    except SystemExit as stopped:
        if not stopped.code:  # --help
            raise
        words = _FURTHER.split(said.getvalue().translate(_BOX))[0].split()
        what = _TITLE.sub("", " ".join(word for word in words if word.strip("-"))).rstrip(".")
        if found := _EMPTY_PATH.search(what):
            raise InputError(f"{found[1] or 'a path'} is {EMPTY}") from None
        raise InputError(f"{what}; {remedy}") from None
    _check_texts(parsed)
    _check_names(parsed)
    return parsed


CHECKPOINTS = ("checkpoint", "generator", "tower", "question_tower")  # options that name one


def _check_texts(value: Any, name: str = "an argument") -> None:
    """Refuse texts that are not UTF-8, which Python passes on as halves of surrogate pairs; a path may be any bytes."""
    if isinstance(value, str):
        validate_characters(value, name, "the command")
    elif isinstance(value, tuple):
        for each in value:
            _check_texts(each, name)
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            _check_texts(getattr(value, each.name), each.name.replace("_", "-"))


@functools.cache
def _registry() -> Any:
    """tyro's rules, in which an empty path, as by a variable that is not set, is none: it would be this folder."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    def path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(1, "PATH", _path, _is_path, lambda value: [str(value)])

    registry = ConstructorRegistry()
    registry.primitive_rule(path)
    return registry


def _is_path(value: Any) -> bool:
    return isinstance(value, Path)


def _path(arguments: Sequence[str]) -> Path:
    if not arguments[0]:
        raise ValueError(EMPTY)
    return Path(arguments[0])


def check_counts(**options: int | None) -> None:
    """Refuse counts below 1; those that are not given are None."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give 1 or more")


def _check_names(parsed: Any) -> None:
    """Refuse empty names of checkpoints, as by a variable that is not set: they would be this folder."""
    for name in CHECKPOINTS:
        value = getattr(parsed, name, None)
        if isinstance(value, str) and not value.strip():
            raise InputError(f"--{name.replace('_', '-')} is empty; name a checkpoint, or leave it out")


EMPTY = "empty; name a file or a folder (. for this one)"
_EMPTY_PATH = re.compile(rf"Error parsing (?:--([\w.-]+))?.*(?:{re.escape(EMPTY)}|arguments: \[(?:.*, )?''[,\]])")
_FURTHER = re.compile(r"Argument\s+helptext|For\s+full\s+helptext")
_TITLE = re.compile(r"^(.+?) (?=\1)", re.IGNORECASE)  # a title that the sentence behind it repeats
_BOX = str.maketrans(dict.fromkeys("─│╭╮╰╯┌┐└┘", " "))
