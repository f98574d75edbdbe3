"""A small passage tower and passages for tests of the knowledge store."""

from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.index import manifest, updates
from rag_jax.index.building import build
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines import store_engines
from rag_jax.index.engines.engine import Queries
from rag_jax.index.manifest import Manifest
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import open_store

PASSAGES = [Passage(f"p{i}", f"Town {i}", "people " * (i % 7) + f"and {i} more") for i in range(50)]
MORE = [Passage(f"more{i}", f"Village {i}", f"nobody but {i} goats, " * 3) for i in range(5)]


@lru_cache
def reads(max_length: int = 16, size: int = 300) -> PassageTokenizer:
    """What a generator with a vocabulary of these passages reads of them."""
    return PassageTokenizer(train_generator_tokenizer([f"{p.title} / {p.text}" for p in PASSAGES], size), max_length)


def mean_of_words(params, tokens, key=None):
    """A tower: the mean of the tokens' embeddings."""
    del key
    weight = jnp.where(tokens.mask, 1.0, 0.0)
    return jnp.einsum("BQ,BQD->BD", weight, params["word"][tokens.ids]) / tokens.lengths[:, None].astype(jnp.float32)


@lru_cache
def encoder(width: int = 8) -> TextEncoder:
    vocabulary = reads().tokenizer
    params = {"word": jax.random.normal(jax.random.key(0), (vocabulary.size, width))}
    return TextEncoder(mean_of_words, params, vocabulary.tokenizer, 32, source="here")


def build_all_parts(folder: Path) -> Manifest:
    """A store with every kind of part: two segments with tokens, removed rows, FAISS and BM25."""
    build(folder, PASSAGES, encoder(), reads())
    updates.add(folder, MORE, encoder())
    updates.remove(folder, ["p7", "more2"])
    store = open_store(folder, encoder(), reads())
    store_engines.add_faiss(store, "HNSW8", store_engines.passage_queries(store))
    return store_engines.add_bm25(open_store(folder, None, None))


def is_checked(folder: Path, expected: Manifest) -> bool:
    """As `rag-jax index --check`: open a store and compare every byte. Raises `InputError` for damage."""
    open_store(folder, None, None)
    found = manifest.read(folder)
    manifest.verify(folder, found)
    return found == expected


def is_used(folder: Path) -> bool:
    """Open a store and use all of it. Raises `InputError` for damage that is noticed."""
    store = open_store(folder, encoder(), reads())
    assert len(list(store.passages)) == store.size
    store.find(["p3", "nowhere"])
    jax.block_until_ready(jax.tree.map(jnp.asarray, store.knowledge))
    asked = Queries(["goats in town 3"], np.asarray(store.passage_vectors[np.asarray([3])]))
    for engine in (store_engines.open_bm25(store), store_engines.open_faiss(store)):
        engine.search(asked, 4)
    return True
