"""The rows of documents and chunks: an id names a document, with all its chunks, or a single chunk.

Each passage keeps the id of its document, so that a document can be removed or replaced whatever its number of chunks.
"""

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index.columns import PassageTable

compute: Any = importlib.import_module("pyarrow.compute")
PIECE, PIECES = re.compile(r"#\d+$"), re.compile(r"(#\d+)+$")  # the numbers of a chunk, in its id


def find_rows(
    texts: PassageTable, alive: Bool[np.ndarray, " N"], ids: Sequence[str], source: str
) -> Int[np.ndarray, " rows"]:
    """The alive rows of some documents and single chunks. Raises `InputError` for an unknown id."""
    by_document, by_id = _documents(texts), texts.ids
    chosen = alive & (_is_in(by_document, ids) | _is_in(by_id, ids) | _are_pieces(texts, ids))
    there = {*_values(by_document, chosen), *_values(by_id, chosen)}
    for each in ids:
        if each not in there:
            raise InputError(f'{source}: no passage has the id "{each}"; rag-jax search shows the ids that there are')
    return np.flatnonzero(chosen)


def known(texts: PassageTable, names: Sequence[str], by: str) -> set[str]:
    """Those among some documents of which there is a passage, removed or not; by their "ids" or "titles"."""
    if by == "ids":
        by_document = _documents(texts)
        return {*_values(by_document, _is_in(by_document, names))} & {*names}
    forms = {unicodedata.normalize(form, name): name for name in names for form in ("NFC", "NFD")}
    titles = texts.table.column("title")
    return {forms[title] for title in _values(titles, _is_in(titles, [*forms]))}


def pieces(texts: PassageTable, ids: Sequence[str]) -> dict[str, list[int]]:
    """The rows of the passages of some documents, but for the passage that has the document's id; removed ones too.

    In the order of their numbers. Where a corpus came in pieces, `doc#2` is one of `doc`.
    """
    found: dict[str, list[int]] = {id: [] for id in ids}
    if not found:
        return found
    column = texts.table.column("document")
    whole = compute.replace_substring_regex(texts.ids, PIECE.pattern, "")
    column = compute.if_else(compute.equal(column, ""), whole, column)
    of_named = _is_in(column, [*found])
    there = zip(np.flatnonzero(of_named).tolist(), _values(texts.ids, of_named), _values(column, of_named), strict=True)
    for row, id, document in sorted(there, key=lambda each: _numbers(each[1])):
        if id != document:
            found[document].append(row)
    return found


def _numbers(id: str) -> list[int]:
    """[2, 3] of `doc#2#3`."""
    found = PIECES.search(id)
    return [] if found is None else [int(number) for number in found[0][1:].split("#")]


def check_new(texts: PassageTable, alive: Bool[np.ndarray, " N"], more: Sequence[Passage], where: str) -> None:
    """Raise `InputError` for passages whose ids exist already or occur twice."""
    ids = [passage.id for passage in more]
    twice = [each for each, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f'{where}: the id "{twice[0]}" is given twice; give each passage once')
    taken = _values(texts.ids, alive & _is_in(texts.ids, ids))
    if taken:
        raise InputError(f'{where}: has a passage "{taken[0]}" already; replace it, or give the new one another id')


def plan_replacement(
    texts: PassageTable, alive: Bool[np.ndarray, " N"], changed: Sequence[Passage], where: str
) -> tuple[Int[np.ndarray, " rows"], list[Passage]]:
    """The rows to remove, and the passages to add; a chunk that is replaced alone keeps its document.

    Raises `InputError` for an unknown id, and for new ids that other passages have.
    """
    rows = find_rows(texts, alive, list(dict.fromkeys(map(document_id, changed))), where)
    homes = {old.id: old.document for old in (texts[int(row)] for row in rows)}
    new = [passage._replace(document=_document_of(homes, passage)) for passage in changed]
    left = alive.copy()
    left[rows] = False
    check_new(texts, left, new, where)
    return rows, new


def document_id(passage: Passage) -> str:
    """The id of a passage's document: its own id, unless it is a chunk."""
    return passage.document or passage.id


def _document_of(homes: Mapping[str, str], passage: Passage) -> str:
    """The document of a new passage: that of the chunk that it replaces, if any; `homes` are those of old ids."""
    own = document_id(passage)
    home = homes.get(own, "")
    return passage.document if home in ("", own) else home


def _are_pieces(texts: PassageTable, ids: Sequence[str]) -> Bool[np.ndarray, " N"]:
    """The rows of pieces of the chunks that are named: a longer text that replaced `doc#2` is `doc#2`, `doc#2#2`, …

    They are looked for in the documents of these chunks only.
    """
    documents, named = texts.table.column("document"), {*ids}
    of_named = _is_in(documents, [*({*_values(documents, _is_in(texts.ids, ids))} - {""})])
    found = np.zeros(len(of_named), bool)
    found[of_named] = [not named.isdisjoint(_chunks_above(id)) for id in _values(texts.ids, of_named)]
    return found


def _chunks_above(id: str) -> Iterator[str]:
    """`doc#2` and `doc` of `doc#2#3`."""
    while (above := PIECE.sub("", id)) != id:
        yield above
        id = above


def _documents(texts: PassageTable) -> pa.ChunkedArray:
    cut_from = texts.table.column("document")
    return compute.if_else(compute.equal(cut_from, ""), texts.ids, cut_from)


def _is_in(column: pa.ChunkedArray, ids: Sequence[str]) -> Bool[np.ndarray, " N"]:
    return compute.is_in(column, value_set=pa.array(ids, pa.string())).to_numpy()


def _values(column: pa.ChunkedArray, rows: Bool[np.ndarray, " N"]) -> list[str]:
    return column.filter(pa.array(rows)).to_pylist()
