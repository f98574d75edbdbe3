"""Passages added to, replaced in and removed from an index in memory; `rag_jax.index.updates` changes stores on disk.

Documents are found by their ids: an edit concerns all chunks of a document, or one chunk that is named by its own id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import documents
from rag_jax.index.building import check_finite
from rag_jax.index.store import Store, from_vectors
from rag_jax.pipeline import user_inputs
from rag_jax.pipeline.components import Components

WHERE = "the index"  # in error messages


def encode_passages(components: Components, passages: Iterable[Passage]) -> Store:
    """A store in memory of these passages alone."""
    return _encode(components, user_inputs.passages(passages))


def add_passages(components: Components, passages: Iterable[Passage]) -> Store:
    """The components' store with more passages. Raises `InputError` for an id that is there already."""
    _check_engine(components)
    store, new = components.store, user_inputs.passages(passages)
    documents.check_new(store.passages, store.alive, new, WHERE)
    return store.concatenate(_encode(components, new))


def replace_passage(components: Components, passage: Passage) -> Store:
    """The store with one document rewritten: all its chunks go, or the one chunk that has the passage's own id."""
    _check_engine(components)
    store = components.store
    rows, new = documents.plan_replacement(store.passages, store.alive, user_inputs.passages([passage]), WHERE)
    return store.remove_rows(rows.tolist()).concatenate(_encode(components, new))


def remove_passages(components: Components, ids: Sequence[str]) -> Components:
    """The components without some documents or chunks. Raises `InputError` for an unknown id."""
    store = components.store
    rows = documents.find_rows(store.passages, store.alive, user_inputs.ids(ids, "ids"), WHERE)
    return without_rows(components, rows.tolist())


def without_rows(components: Components, rows: Sequence[int]) -> Components:
    """The components without some rows of the index, which no search returns any more.

    Where the index is on the device, it stays there, and only the mask of its rows is loaded again.
    """
    _check_engine(components)
    store = components.store.remove_rows(rows)
    changed = components.with_store(store)
    loaded = components.knowledge_in_memory
    if loaded is None:
        return changed
    return replace(changed, loaded=loaded._replace(alive=components.placement.rows(store.alive)))


def _check_engine(components: Components) -> None:
    if components.search is not None:
        problem = "the search engine is one of your own, which knows nothing of changed passages"
        raise InputError(f"{problem}; change the model's passages first, and give it an engine over them")


def _encode(components: Components, passages: list[Passage]) -> Store:
    encoder = components.bi_encoder.required_passage_encoder
    vectors, truncated = encoder.encode_and_count_truncation(passages)
    store = from_vectors(passages, check_finite(vectors, passages), components.passage_tokenizer)
    truncated.warn("tower", encoder.max_length)
    store.truncated.warn("generator", components.passage_tokenizer.max_length)
    return store
