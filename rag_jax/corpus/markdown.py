"""Markdown documents: front matter, titles, and chunks that respect their structure.

`markdown_chunks` splits a document at its headings. Every section starts a chunk, titled with the document's title and
the headings above the text, "Document title > Section > Subsection", so that a chunk is found and read in its context.
A heading without text of its own is joined with the section after it. Within a section, consecutive blocks share a
chunk as long as they fit; fenced code, tables and paragraphs are blocks. A block that is longer than a chunk is split
between its lines, a table never right below its header, and only a line that is too long is split as plain text is,
with the overlap of the `Chunker`; other chunks do not overlap. Text keeps its line breaks.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from rag_jax.corpus.chunking import Chunker, number_chunks
from rag_jax.corpus.passage import Passage

HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
TABLE_DELIMITER = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
NOT_HEADING = re.compile(r"[ \t]*(?:[-*+>|]|\d+[.)])")  # lists, quotes and tables, which may stand above a rule

Lines = list[str]


class Block(NamedTuple):
    """Consecutive lines, with the blank lines after them; `level` is that of a heading, 0 for other blocks."""

    lines: Lines
    level: int = 0
    is_table: bool = False


class Section(NamedTuple):
    """The headings above some blocks, outermost first, and the blocks, headings included."""

    path: tuple[str, ...]
    blocks: list[Block]


def front_matter_lines(lines: Sequence[str]) -> int:
    """The number of lines from a first `---` to the next, or to `...`; 0 if the first line is no front matter.

    A blank line behind it makes it a horizontal rule, as in pandoc.
    """
    if len(lines) < 2 or lines[0].rstrip() != "---" or not lines[1].strip():
        return 0
    ends = (number for number, line in enumerate(lines[1:], start=2) if line.rstrip() in ("---", "..."))
    return next(ends, 0)


def first_heading(lines: Sequence[str]) -> str:
    """The first non-empty heading of level 1 that is written with `#`; empty if there is none."""
    headings = (block.lines[0] for block in _blocks([line.rstrip("\r\n") for line in lines]) if block.level == 1)
    return next((text for line in headings if HEADING.match(line) and (text := _heading_text(line))), "")


def markdown_chunks(passage: Passage, chunker: Chunker) -> Iterator[Passage]:
    """Split a Markdown document; one that fits into a chunk is left as it is. Ids are those of `Chunker.chunks`."""
    if chunker.count(passage.text) <= chunker.size:
        yield passage
        return
    chunks = []
    for section in _sections(passage.text.split("\n")):
        path = section.path[1:] if section.path[:1] == (passage.title,) else section.path
        title = " > ".join(filter(None, (passage.title, *path)))
        chunks += [(title, text) for text in _section_chunks(section.blocks, chunker)]
    yield from number_chunks(passage, chunks)


def _sections(lines: Sequence[str]) -> Iterator[Section]:
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []
    for block in _blocks(lines):
        if block.level:
            if any(not each.level for each in blocks):
                yield Section(tuple(text for _, text in path), blocks)
                blocks = []
            path = [*(each for each in path if each[0] < block.level), (block.level, _heading_text(block.lines[0]))]
        blocks.append(block)
    if blocks:
        yield Section(tuple(text for _, text in path), blocks)


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    start = 0
    while start < len(lines):
        stop, level, is_table = _block_end(lines, start)
        while stop < len(lines) and not lines[stop].strip():
            stop += 1
        yield Block(list(lines[start:stop]), level, is_table)
        start = stop


def _block_end(lines: Sequence[str], start: int) -> tuple[int, int, bool]:
    """The end of the block that begins at `start`, its level, and whether it is a table."""
    if heading := HEADING.match(lines[start]):
        return start + 1, len(heading[1]), False
    if fence := FENCE.match(lines[start]):
        return _fence_end(lines, start + 1, fence[1]), 0, False
    if _is_table(lines, start):
        stop = start + 2
        while (
            stop < len(lines) and lines[stop].strip() and not (HEADING.match(lines[stop]) or FENCE.match(lines[stop]))
        ):
            stop += 1
        return stop, 0, True
    stop = start + 1
    while stop < len(lines) and lines[stop].strip():
        if stop == start + 1 and UNDERLINE.match(lines[stop]) and _can_be_heading(lines[start]):
            return stop + 1, 1 if "=" in lines[stop] else 2, False
        if HEADING.match(lines[stop]) or FENCE.match(lines[stop]) or _is_table(lines, stop):
            break
        stop += 1
    return stop, 0, False


def _fence_end(lines: Sequence[str], start: int, fence: str) -> int:
    for number in range(start, len(lines)):
        line = lines[number].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return number + 1
    return len(lines)


def _is_table(lines: Sequence[str], start: int) -> bool:
    below = lines[start + 1] if start + 1 < len(lines) else ""
    return "|" in lines[start] and "|" in below and TABLE_DELIMITER.match(below) is not None


def _can_be_heading(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("    ", "\t")) and not NOT_HEADING.match(line)


def _heading_text(line: str) -> str:
    if not (heading := HEADING.match(line)):
        return line.strip()
    text = line.strip().removeprefix(heading[1]).strip()
    bare = text.rstrip("#")
    return text if bare and not bare[-1].isspace() else bare.strip()  # "# Closed #", but "# C#"


def _section_chunks(blocks: Sequence[Block], chunker: Chunker) -> Iterator[str]:
    """Greedily join the blocks of a section into texts of at most `chunker.size`."""
    current: Lines = []
    heading: Lines = []  # joined with the next block: no chunk ends with it
    for block in blocks:
        if block.level:
            heading += block.lines
            continue
        whole = [*heading, *block.lines]
        if _fits([*current, *whole], chunker):
            current += whole
        elif _fits(whole, chunker):
            yield from _text(current)
            current = whole
        else:
            yield from _text(current)
            *full, current = _split_block(heading, block, chunker)
            yield from chain.from_iterable(map(_text, full))
        heading = []
    trailing = _pack([[line] for line in heading], chunker)  # of a section without text, at the end of a document
    yield from chain.from_iterable(map(_text, [current, *trailing]))


def _split_block(heading: Lines, block: Block, chunker: Chunker) -> list[Lines]:
    """Split a block between its lines; the heading stays with the first line, a table's header with its first row."""
    together = 3 if block.is_table and _fits([*heading, *block.lines[:3]], chunker) else 1
    first, rest = block.lines[:together], [[line] for line in block.lines[together:]]
    if _fits([*heading, *first], chunker):
        return _pack([[*heading, *first], *rest], chunker)
    if heading and (start := _beginning(first[0], chunker.size - chunker.count("\n".join(heading)), chunker)):
        remaining = _normalize(first[0], chunker).removeprefix(start).strip()
        if _fits([*heading, start], chunker):
            return _pack([[*heading, start], [remaining], *rest], chunker)
    return _pack([*([line] for line in heading), first, *rest], chunker)


def _beginning(line: str, size: int, chunker: Chunker) -> str:
    """The first `size` words or tokens of a line; empty if there is no room for any."""
    return next(iter(replace(chunker, size=size, overlap=0).split(_normalize(line, chunker))), "") if size > 0 else ""


def _normalize(line: str, chunker: Chunker) -> str:
    """A line as `Chunker.split` reproduces it: words are joined by single spaces."""
    return line.strip() if chunker.tokenizer else " ".join(line.split())


def _pack(groups: Sequence[Lines], chunker: Chunker) -> list[Lines]:
    """Greedily join groups of lines; a group that is too long is split as plain text."""
    packed: list[Lines] = [[]]
    for group in groups:
        if _fits([*packed[-1], *group], chunker):
            packed[-1] += group
        elif _fits(group, chunker):
            packed.append(list(group))
        else:
            packed += [[text] for line in group for text in chunker.split(line.strip())]
    return packed


def _fits(lines: Sequence[str], chunker: Chunker) -> bool:
    return chunker.count("\n".join(lines)) <= chunker.size


def _text(lines: Lines) -> Lines:
    """The text of a chunk, as a list of one; nothing if it is blank."""
    text = "\n".join(lines).strip("\n").rstrip()
    return [text] if text.strip() else []
