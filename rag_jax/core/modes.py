"""Modes of the retriever in training: trained, frozen, replaced by gold passages, or absent.

A mode is a question tower and a way of retrieving, from which a recipe is composed: those of the paper, of its ablation
with a frozen retriever, of training the generator on gold passages, and of closed-book training.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core.retrieval import Index
from rag_jax.types import DropoutKey, Knowledge, PackedInputs, Params, Tokens, Tower


@runtime_checkable
class Retrieve(Protocol):
    """The passages that each question reads: rows of the index, -1 for a missing one."""

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
    """The first K gold passages, to train the generator before the retriever is useful."""
    del index, queries, knowledge
    if positives is None:
        raise ValueError("gold passages are known in training only")
    missing = ((0, 0), (0, max(0, num_docs - positives.shape[1])))
    return jnp.pad(positives, missing, constant_values=-1)[:, :num_docs]


def frozen(tower: Tower) -> Tower:
    """The tower without dropout, gradient or backward pass (the paper's frozen-retriever ablation)."""

    def constant(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Float[Array, "B D"]:
        del key
        return tower(jax.lax.stop_gradient(params), tokens, None)

    return constant


def uniform_prior(tower: Tower) -> Tower:
    """A tower of zero vectors, hence a uniform prior. Nothing of `tower` is computed."""

    def zeros(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Float[Array, "B D"]:
        return jnp.zeros_like(tower(params, tokens, key))  # only the shape is used: the compiler removes the rest

    return zeros
