"""Command lines by tyro, whose complaints become one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError


def parse(kind: Any, arguments: Sequence[str], *, remedy: str, **options: Any) -> Any:
    """`tyro.cli`, raising `InputError` for arguments that it does not take; `remedy` says where to read more."""
    import tyro  # by commands only

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(kind, args=list(arguments), **options)
        if any(not each or each.endswith("=") for each in arguments):
            _check_paths(found)
        return found
    except SystemExit as stopped:
        if not stopped.code:  # --help
            raise
        words = _FURTHER.split(said.getvalue().translate(_BOX))[0].split()
        what = _TITLE.sub("", " ".join(word for word in words if word.strip("-"))).rstrip(".")
        raise InputError(f"{what}; {remedy}") from None


def _check_paths(found: Any, inside: str = "") -> None:
    """Refuse a path that is given as an empty text, as by a variable that is not set: it would be this folder."""
    for field in dataclasses.fields(found) if dataclasses.is_dataclass(found) else ():
        name, value = f"{inside}{field.name.replace('_', '-')}", getattr(found, field.name)
        if Path() in (value if isinstance(value, tuple) else (value,)):
            raise InputError(f"{name} is {EMPTY}")
        _check_paths(value, f"{name}.")


def check_counts(**options: int | None) -> None:
    """Refuse counts below 1; those that are not given are None."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give 1 or more")


EMPTY = "empty; name a file or a folder (. for this one)"
_FURTHER = re.compile(r"Argument\s+helptext|For\s+full\s+helptext")
_TITLE = re.compile(r"^(.+?) (?=\1)", re.IGNORECASE)  # a title that the sentence behind it repeats
_BOX = str.maketrans(dict.fromkeys("─│╭╮╰╯┌┐└┘", " "))
