"""Text and Markdown files, one document each, alone or in a folder and its subfolders.

The id of a document is its path relative to the folder; hidden files and folders are skipped. Its title is the first
heading (`# …`) of Markdown, otherwise the file name with `_` and `-` as spaces. YAML front matter is removed from
Markdown, and the line ends of Windows become line feeds; everything else stays as written, and
`rag_jax.corpus.markdown` splits it into chunks.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rag_jax.corpus.markdown import first_heading, front_matter_lines
from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.data.bad_lines import OnBadLine
from rag_jax.data.lines import read_lines
from rag_jax.errors import InputError

MARKDOWN_SUFFIXES = (".md", ".markdown")
DOCUMENT_SUFFIXES = (".txt", *MARKDOWN_SUFFIXES)


def read_document(path: Path, on_bad_line: OnBadLine) -> Iterator[tuple[str, Passage]]:
    """Yield the document in a file, with the file name as its id."""
    return _read(path, path.name, on_bad_line)


def read_folder(folder: Path, on_bad_line: OnBadLine) -> Iterator[tuple[str, Passage]]:
    """Yield the documents of a folder, sorted by name, each with its path."""
    for path in files_in(folder, is_document):
        yield from _read(path, path.relative_to(folder).as_posix(), on_bad_line)


def is_document(name: str) -> bool:
    """Whether a file of this name is a document."""
    return _plain_name(name).lower().endswith(DOCUMENT_SUFFIXES)


def is_markdown(name: str) -> bool:
    """Whether a file of this name is Markdown."""
    return _plain_name(name).lower().endswith(MARKDOWN_SUFFIXES)


def files_in(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files in a folder and its subfolders whose names match, sorted; links to folders are not followed."""
    return (Path(entry.path) for entry in _entries(folder) if entry.is_file() and wanted(entry.name))


def linked_folders(folder: Path) -> Iterator[Path]:
    """The links to folders in a folder and its subfolders, sorted, which `files_in` does not follow."""
    return (Path(entry.path) for entry in _entries(folder) if entry.is_dir())


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """All that is in a folder and its subfolders, sorted, but for what is hidden and the subfolders themselves."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)
        else:
            yield entry


def _read(path: Path, new: str, on_bad_line: OnBadLine) -> Iterator[tuple[str, Passage]]:
    location = os.fsencode(path).decode(errors="replace")  # also for a name that is not UTF-8
    faults: list[InputError] = []
    lines = [line.replace("\r\n", "\n") for line in read_lines(path, faults.append)]
    name = _plain_name(path.name)
    title = Path(name).stem.replace("_", " ").replace("-", " ").strip()
    if is_markdown(name):
        lines = lines[front_matter_lines(lines) :]
        title = first_heading(lines) or title
    text = "".join(lines).strip()
    try:
        if faults:
            raise faults[0]
        if not text:
            raise InputError(f"{location}:1: holds no text; write some, remove the file, or give --skip-bad")
        passage = validate_passage(new, title, text, location)
    except InputError as error:
        on_bad_line(error)
        return
    yield location, passage


def _plain_name(name: str) -> str:
    return name.removesuffix(".gz")
