"""What training may do without: a retriever that learns, or one that is asked at all.

Each mode is a tower and a search to compose a recipe of: the paper's own, its ablation with a frozen retriever, gold
passages for a generator that is to learn reading first, and none.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core.retrieval import Index
from rag_jax.types import DropoutKey, Knowledge, Params, Tokens, Tower


@runtime_checkable
class Retrieve(Protocol):
    """Which passages a question reads: rows of the index, -1 for none."""

    def __call__(
        self,
        index: Index,
        queries: Float[Array, "B D"],
        knowledge: Knowledge,
        num_docs: int,
        positives: Int[Array, "B G"] | None,
    ) -> Int[Array, "B K"]: ...


def retrieve_nearest(
    index: Index,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    num_docs: int,
    positives: Int[Array, "B G"] | None = None,
) -> Int[Array, "B K"]:
    """The K passages of the largest inner product: the paper's retrieval."""
    del positives
    return index.nearest(queries, knowledge, num_docs).rows


def retrieve_gold(
    index: Index,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    num_docs: int,
    positives: Int[Array, "B G"] | None,
) -> Int[Array, "B K"]:
    """The first K gold passages, for a generator that is to learn reading before retrieval is any good."""
    del index, queries, knowledge
    if positives is None:
        raise ValueError("gold passages are known in training only")
    missing = ((0, 0), (0, max(0, num_docs - positives.shape[1])))
    return jnp.pad(positives, missing, constant_values=-1)[:, :num_docs]


def frozen(tower: Tower) -> Tower:
    """The tower as a constant: no dropout, no gradient, no backward pass (the paper's frozen-retriever ablation)."""

    def constant(params: Params, tokens: Tokens, key: DropoutKey = None) -> Float[Array, "B D"]:
        del key
        return tower(jax.lax.stop_gradient(params), tokens, None)

    return constant


def uniform_prior(tower: Tower) -> Tower:
    """No opinion on the passages: zero vectors, a uniform prior, and no work for the tower."""

    def zeros(params: Params, tokens: Tokens, key: DropoutKey = None) -> Float[Array, "B D"]:
        return jnp.zeros_like(tower(params, tokens, key))  # the compiler drops what only gave the shape

    return zeros
