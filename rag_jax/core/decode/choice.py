"""Choose among given answers: the labels of a classifier, the options of a multiple-choice question."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core.decode.decoded import Decoded, Marginalise, best
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.decode.trie import BLOCKS, Blocks, score_answers
from rag_jax.types import Tokens


def choose(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    answers: Tokens,
    marginalise: Marginalise,
    limits: GenerationLimits,
    blocks: Blocks = BLOCKS,
) -> Decoded:
    """Rank answers `[B, C, T]` by `log p(y|x)`, best first. They must begin with `prefix`.

    `marginalise` is `rag_token.marginalise` or `rag_sequence.marginalise`.
    """
    shape = answers.lengths.shape
    present = jnp.broadcast_to(~jnp.isneginf(doc_log_prior)[:, None, :], (*shape, doc_log_prior.shape[1]))
    log_probs = score_answers(inputs, prefix, answers, present, limits, blocks)
    return best(marginalise(doc_log_prior, answers, jnp.ones(shape, bool), log_probs), shape[1])
