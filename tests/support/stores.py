"""A small passage tower and passages for tests of the knowledge store."""

from functools import lru_cache

import jax
import jax.numpy as jnp

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.passage_tokenizer import PassageTokenizer

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
