"""A bad input as data: a command, how the files that it names are spoilt, and what may come of it."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

Tree = dict[str, str]
"""What is at each path of a folder: its kind, with the digest of a file or the target of a link."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None  # None: by a signal, or not in time
    signal: int | None
    seconds: float
    grown: float  # MB that the process needed beyond what it began with
    out: str
    err: str
    before: Tree
    after: Tree


@dataclass(frozen=True)
class Case:
    """A command in a folder of its own, a copy of the ground."""

    name: str  # unique in its family
    argv: tuple[str, ...]  # after `rag-jax`, with paths relative to the folder
    spoil: Callable[[Path], object] | None = None  # makes the bad input, in that folder
    inside: Callable[[], object] | None = None  # in the command's process before it runs: limits, rights, failing disks
    gives: Callable[[Ended], bool] | None = None  # the right result of a command that need not refuse
    says: str = ""  # what the line must name: the file or the option that is wrong
    leaves: str | None = None  # pattern of the paths that are documented to stay behind: what a rerun resumes from
    seconds: float = 60.0  # that it may take
    megabytes: float | None = None  # that it may need beyond what the process began with
    needs: str = "files"  # the part of the ground that it runs on


def refused(case: Case, ended: Ended) -> str | None:
    """What breaks the promise; None where it is kept."""
    if ended.signal is not None:
        return f"ended by signal {ended.signal} after {ended.seconds:.0f} s"
    if case.megabytes is not None and ended.grown > case.megabytes:
        return f"needed {ended.grown:.0f} MB more, not {case.megabytes:.0f}"
    if "Traceback (most recent call last)" in ended.err:
        return "a traceback"
    if ended.code == 0:
        if case.gives is None:
            return "accepted"
        return None if case.gives(ended) else "another result than the right one"
    if ended.code != 2:
        return f"exit code {ended.code}"
    return _complaint(case, ended) or _left(case, ended)


def _complaint(case: Case, ended: Ended) -> str | None:
    *before, line = ended.err.splitlines() or [""]
    if not line.startswith("error: "):
        return "the last line is no error"
    others = [each for each in before if not each.startswith("warning: ") and not PROGRESS.match(each)]
    if others:
        return f"{len(others)} lines beside the error, the first of them {others[0][:80]!r}"
    if not line.isprintable():
        return "the line holds control characters"
    if "; " not in line and ": " not in line.removeprefix("error: "):
        return "the line has no remedy"
    return None if case.says in line else f"the line does not name {case.says!r}"


PROGRESS = re.compile(r"(reading|encoding|answering|moderating|mining)\b.*[0-9]")  # lines where there is no terminal


def _left(case: Case, ended: Ended) -> str | None:
    changed = {name for name in ended.before.keys() | ended.after if ended.before.get(name) != ended.after.get(name)}
    odd = sorted(name for name in changed if case.leaves is None or not re.fullmatch(case.leaves, name))
    return f"left or changed {', '.join(odd[:5])}" if odd else None


def tree(folder: Path) -> Tree:
    """Everything in a folder; links are not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = _held(path)
    return found


def _held(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISREG(mode):
        size = os.lstat(path).st_size
        return sha256(Path(path).read_bytes()).hexdigest() if size < 2**26 else f"{size} bytes"
    return str(stat.S_IFMT(mode))
