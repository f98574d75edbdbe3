"""The index of a model: opened in any layout, and checked against the networks and the corpus that it belongs to."""

from collections.abc import Sequence
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import manifest, pending_build
from rag_jax.index.importers import import_index
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.retokenizing import with_tokens
from rag_jax.index.store import Store, check_tower, from_vectors, open_store
from rag_jax.pipeline.components import BiEncoder, GeneratorBundle


def open_index(
    path: Path, config: Config, bi_encoder: BiEncoder, generator: GeneratorBundle, tokens: bool = True
) -> Store:
    """An existing index: a store of this library, or one in a layout that `rag_jax.index.importers` reads.

    Args:
        tokens: with the passage tokens of this generator, made in memory where the store has none; False: without.
    """
    passage_tokenizer = PassageTokenizer(generator.tokenizer, config.generator.max_passage)
    if (path / manifest.FILE).exists() or (path / pending_build.FILE).exists() or not path.exists():
        store = open_store(path, bi_encoder.passage_encoder, passage_tokenizer if tokens else None)
        return check_width(store, bi_encoder, str(path))
    imported = import_index(path, bi_encoder.config.vector_width)
    store = from_vectors(imported.passages, imported.vectors, passage_tokenizer)
    store.truncated.warn("generator", passage_tokenizer.max_length)
    return store


def fitted(store: Store, bi_encoder: BiEncoder, passage_tokenizer: PassageTokenizer) -> Store:
    """An opened store as a model reads it: with the tokens of its generator.

    Raises `InputError` for vectors of another tower, or of another width.
    """
    if store.folder is not None and store.manifest is not None:
        check_tower(store.folder, store.manifest, bi_encoder.passage_encoder)
    check_width(store, bi_encoder, "the store")
    is_unknown = store.tokens_key is None and not store.has_no_tokens and not store.is_closed_book  # the caller's own
    return store if is_unknown else with_tokens(store, passage_tokenizer)


def check_width(store: Store, bi_encoder: BiEncoder, where: str) -> Store:
    """The store. Raises `InputError` where its vectors have another width than the question tower's."""
    width, expected = store.width, bi_encoder.config.vector_width
    if width != expected:
        raise InputError(f"{where}: vectors of width {width}, the question tower's have {expected}; take its own index")
    return store


def check_corpus(corpus: Sequence[Passage], store: Store, folder: Path, source: Path | None) -> Store:
    """The store. Raises `InputError` where its passages are not the corpus, read from `source`."""
    if len(corpus) != len(store) or any(a != b for a, b in zip(store.live_passages(), corpus, strict=True)):
        remedy = "give data.passages None to train on the index as it is, or name another data.index"
        raise InputError(f"{folder}: holds other passages than {source}; {remedy}")
    return store
