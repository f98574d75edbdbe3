"""The null document: an empty passage among the K, for questions that no passage of the index helps with.

Lewis et al. 2020, appendix "Null document probabilities": as in REALM, one of the K passages is empty, and its score is
learned. They tried three scores, and found no gain:

    a learned vector    s_0 = q(x) . d_0        `vector_score`
    a learned bias      s_0 = b                 `bias_score`
    a small network     s_0 = f(q(x))           `network_score`

The score is a further component of the question's vector, so that it is trained with the question tower: compose
`tower` and `index` into a recipe. It is never searched for, and its row is -1 in the metrics. Its vectors do not fit
the index of a passage tower that is trained (`Recipe.refresh`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import retrieval
from rag_jax.core.vectors import FULL_PRECISION
from rag_jax.types import DropoutKey, Knowledge, PackedInputs, Params, Retrieved, SearchResults, Tokens, Tower

Score = Callable[[Any, Float[Array, "B D"]], Float[Array, " B"]]
"""The score of the null document, from parameters of its own and the questions' vectors."""


def vector_score(params: Float[Array, " D"], queries: Float[Array, "B D"]) -> Float[Array, " B"]:
    """`q(x) . d_0`, with a vector as parameter."""
    return jnp.einsum("BD,D->B", queries, params, precision=FULL_PRECISION)


def bias_score(params: Float[Array, ""], queries: Float[Array, "B D"]) -> Float[Array, " B"]:
    """`b`, whatever the question."""
    return jnp.broadcast_to(params, queries.shape[:1])


def network_score(params: dict[str, Array], queries: Float[Array, "B D"]) -> Float[Array, " B"]:
    """`w . tanh(W q(x) + c) + b`, with parameters `hidden` [D, h], `offset` [h], `out` [h] and `bias` []."""
    hidden = jnp.einsum("BD,Dh->Bh", queries, params["hidden"], precision=FULL_PRECISION)
    hidden = jnp.tanh(hidden + params["offset"][None, :])
    return jnp.einsum("Bh,h->B", hidden, params["out"], precision=FULL_PRECISION) + params["bias"]


def tower(tower: Tower, score: Score) -> Tower:
    """A question tower whose vectors end with the score of the null document.

    Its parameters are `{"tower": those of the tower, "null": those of the score}`.
    """

    def extended(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Float[Array, "B more"]:
        queries = tower(params["tower"], tokens, key)
        return jnp.concatenate([queries, score(params["null"], queries)[:, None]], axis=1)

    return extended


def index(index: retrieval.Index, passage: tuple[int, ...]) -> retrieval.Index:
    """An index of which the null document is always the last of the K passages.

    Args:
        index: what finds and gathers the K - 1 others.
        passage: the tokens of the empty passage, as `(bos,)`. Passages of the index are at least as long.
    """

    def nearest(
        queries: Float[Array, "B more"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
    ) -> SearchResults:
        found = index.nearest(queries[:, :-1], knowledge, k - 1, excluded)
        rows = jnp.pad(found.rows, ((0, 0), (0, 1)), constant_values=-1)
        if found.scores is None:
            return SearchResults(rows, None)
        own = jax.lax.stop_gradient(queries[:, -1:]).astype(found.scores.dtype)
        return SearchResults(rows, jnp.concatenate([found.scores, own], axis=1))

    def gather(
        queries: Float[Array, "B more"], knowledge: Knowledge, rows: Int[Array, "B K"]
    ) -> tuple[Retrieved, Tokens]:
        retrieved, passages = index.gather(queries[:, :-1], knowledge, rows[:, :-1])
        batch, _, length = passages.ids.shape
        ids = jnp.pad(jnp.asarray(passage, passages.ids.dtype), (0, length - len(passage)))
        ids = jnp.broadcast_to(ids[None, None, :], (batch, 1, length))
        lengths = jnp.full((batch, 1), len(passage), passages.lengths.dtype)
        scores = jnp.concatenate([retrieved.scores, queries[:, -1:].astype(retrieved.scores.dtype)], axis=1)
        valid = jnp.concatenate([retrieved.valid, jnp.ones((batch, 1), bool)], axis=1)
        tokens = Tokens(
            jnp.concatenate([passages.ids, ids], axis=1), jnp.concatenate([passages.lengths, lengths], axis=1)
        )
        return Retrieved(rows, scores, valid), tokens

    return retrieval.Index(nearest, gather)
