"""Text and Markdown files, one document each, alone or in a folder and the folders in it.

The id of a document is its path within the folder; hidden files and folders are passed over. Its title is the first
heading (`# …`) of Markdown, else the file's name in words. Markdown stays as it is written, but for YAML front matter.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.data.bad_lines import OnBadLine
from rag_jax.data.lines import read_lines
from rag_jax.errors import InputError

MARKDOWN_SUFFIXES = (".md", ".markdown")
DOCUMENT_SUFFIXES = (".txt", *MARKDOWN_SUFFIXES)
HEADING = re.compile(r" {0,3}#[ \t]")
FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")


def read_document(path: Path, bad: OnBadLine) -> Iterator[tuple[str, Passage]]:
    """Yields the document in a file, whose id is the file's name."""
    return _read(path, path.name, bad)


def read_folder(folder: Path, bad: OnBadLine) -> Iterator[tuple[str, Passage]]:
    """Yields the documents of a folder, sorted by name, each with its file."""
    for path in files_in(folder, is_document):
        yield from _read(path, path.relative_to(folder).as_posix(), bad)


def is_document(name: str) -> bool:
    """Whether a file of this name is read."""
    return _plain_name(name).lower().endswith(DOCUMENT_SUFFIXES)


def files_in(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files whose names are wanted, sorted, in a folder and the folders in it; links to folders are passed over."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(folder / entry.name, wanted)
        elif entry.is_file() and wanted(entry.name):
            yield folder / entry.name


def _read(path: Path, new: str, bad: OnBadLine) -> Iterator[tuple[str, Passage]]:
    place = os.fsencode(path).decode(errors="replace")  # of a name that is not UTF-8 too
    faults: list[InputError] = []
    lines = list(read_lines(path, faults.append))
    name = _plain_name(path.name)
    title = Path(name).stem.replace("_", " ").replace("-", " ").strip()
    if name.lower().endswith(MARKDOWN_SUFFIXES):
        lines = lines[_front_matter(lines) :]
        title = _heading(lines) or title
    text = "".join(lines).strip()
    try:
        if faults:  # one is enough to leave the document out
            raise faults[0]
        if not text:
            raise InputError(f"{place}:1: holds no text; write some, or remove the file")
        passage = validate_passage(new, title, text, place)
    except InputError as error:
        bad(error)
        return
    yield place, passage


def _plain_name(name: str) -> str:
    return name.removesuffix(".gz")


def _front_matter(lines: Sequence[str]) -> int:
    """The number of lines from a first `---` to the next, or to `...`; 0 if it is a rule in the text."""
    if not lines or lines[0].rstrip() != "---":
        return 0
    ends = (number for number, line in enumerate(lines[1:], start=2) if line.rstrip() in ("---", "..."))
    return next(ends, 0)


def _heading(lines: Sequence[str]) -> str:
    """The first heading; a line that begins with # within a fence is code."""
    fence = ""
    for line in lines:
        if fence:
            closing = line.strip()
            fence = "" if closing.startswith(fence) and not closing.strip(fence[0]) else fence
        elif opening := FENCE.match(line):
            fence = opening[1]
        elif HEADING.match(line):
            words = line.strip().removeprefix("#").strip()
            bare = words.rstrip("#")
            if title := words if bare and not bare[-1].isspace() else bare.strip():  # "# Closed #", but "# C#"
                return title
    return ""
