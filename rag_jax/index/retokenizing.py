"""A store's passages as another generator reads them: other tokens of the same rows."""

from dataclasses import replace

from rag_jax.index import manifest
from rag_jax.index.columns import PassageTable, SegmentedArray
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import Store, closed_book, open_store
from rag_jax.index.truncation import Truncation


def with_tokens(store: Store, passage_tokenizer: PassageTokenizer) -> Store:
    """The store with the tokens of a generator: its own, those in its folder, or made now, in memory.

    Raises `InputError` for a folder that is damaged.
    """
    if store.is_closed_book:
        return closed_book(store.width, passage_tokenizer.tokenizer)
    if store.tokens_key == passage_tokenizer.key:
        return store
    if store.folder is not None and _is_as_stored(store):
        return replace(open_store(store.folder, None, passage_tokenizer), removed=store.removed)
    tokens = [passage_tokenizer.tokenize(list(PassageTable([segment]))) for segment in store.passages.segments]
    return replace(
        store,
        passage_tokens=SegmentedArray([each.ids for each in tokens], passage_tokenizer.tokenizer.pad),
        passage_lengths=SegmentedArray([each.lengths for each in tokens]),
        truncated=Truncation.total(each.truncated for each in tokens),
        passage_tokenizer=passage_tokenizer,
    )


def _is_as_stored(store: Store) -> bool:
    """Whether its folder holds the same rows: none were added in memory, and no process has changed it since."""
    opened, folder = store.manifest, store.folder
    if opened is None or folder is None or store.size != opened.rows or not (folder / manifest.FILE).exists():
        return False
    return manifest.read(folder).content == opened.content
