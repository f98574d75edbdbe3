"""Decoding RAG-Sequence (Lewis et al. 2020, section 2.5): no beam search can, for each passage has its own answers.

Each passage is searched for answers of its own; what they propose is judged under all passages, "thorough", or under
those that proposed it, "fast".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from rag_jax.core.decode import sampling
from rag_jax.core.decode.decoding import Decoded, best, marginalise_rag_sequence, score_answers
from rag_jax.core.decode.language_model import per_passage
from rag_jax.core.decode.search import GenerationLimits, Hypotheses, LogitsProcessor, Search
from rag_jax.core.decode.tree_cache import EncodedInputs, repeat_per_doc
from rag_jax.core.decode.trie import BLOCKS, Blocks
from rag_jax.types import Tokens


class Proposals(NamedTuple):
    """What the passages of a question propose, side by side: C = K * W answers, W from each passage."""

    answers: Hypotheses
    same: Bool[Array, "B C C"]  # whether two answers are equal and the second exists
    distinct: Bool[Array, "B C"]  # whether an answer exists and was not proposed before


def rag_sequence_thorough(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
    blocks: Blocks = BLOCKS,
) -> Decoded:
    """RAG-Sequence: every answer that any passage's search proposes, judged under all passages.

    A passage is asked only for the answers that it did not propose itself.
    """
    proposed = _proposals(inputs, doc_log_prior, prefix, search, limits)
    told, known = _own_evidence(proposed, doc_log_prior.shape[1])
    asked = proposed.distinct[:, :, None] & ~known & ~jnp.isneginf(doc_log_prior)[:, None, :]
    scored = score_answers(inputs, prefix, proposed.answers.tokens, asked, limits, blocks)
    told = jnp.where(known[:, :, :, None], told, scored)
    return best(marginalise_rag_sequence(doc_log_prior, proposed.answers.tokens, proposed.distinct, told), n_best)


def rag_sequence_fast(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
) -> Decoded:
    """RAG-Sequence: as thorough decoding, but a passage that did not propose an answer gives it no probability."""
    proposed = _proposals(inputs, doc_log_prior, prefix, search, limits)
    told, known = _own_evidence(proposed, doc_log_prior.shape[1])
    told = jnp.where(known[:, :, :, None], told, -jnp.inf)
    return best(marginalise_rag_sequence(doc_log_prior, proposed.answers.tokens, proposed.distinct, told), n_best)


def rag_sequence_sample(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    keys: Key[Array, " B"],
    num_samples: int,
    limits: GenerationLimits,
    logits_processors: tuple[LogitsProcessor, ...] = (),
    blocks: Blocks = BLOCKS,
) -> Decoded:
    """RAG-Sequence, sampled as it is defined: a passage from the prior, then an answer from that passage."""
    batch, k = doc_log_prior.shape
    both = jax.vmap(jax.random.split)(keys)
    draw = partial(jax.random.categorical, shape=(num_samples,))
    rows = (jnp.arange(batch)[:, None] * k + jax.vmap(draw)(both[:, 0], doc_log_prior)).reshape(-1)
    own = jax.vmap(partial(jax.random.split, num=num_samples))(both[:, 1]).reshape(-1)
    chosen = inputs._replace(encoded=jax.tree.map(lambda each: each[rows], inputs.encoded))
    model = per_passage(chosen, repeat_per_doc(prefix, num_samples), limits)
    drawn = sampling.sample(model, limits, keys=own, num_samples=1, logits_processors=logits_processors)
    tokens = jax.tree.map(lambda each: each.reshape(batch, num_samples, *each.shape[2:]), drawn.tokens)
    asked = jnp.broadcast_to(~jnp.isneginf(doc_log_prior)[:, None, :], (batch, num_samples, k))
    scored = score_answers(inputs, prefix, tokens, asked, limits, blocks)
    return marginalise_rag_sequence(doc_log_prior, tokens, jnp.any(asked, axis=2), scored)


def _proposals(
    inputs: EncodedInputs, doc_log_prior: Float[Array, "B K"], prefix: Tokens, search: Search, limits: GenerationLimits
) -> Proposals:
    """Search every passage; one that is missing proposes nothing."""
    batch, k = doc_log_prior.shape
    found = search(per_passage(inputs, repeat_per_doc(prefix, k), limits), limits)
    missing = jnp.isneginf(doc_log_prior).reshape(-1, 1)
    found = found._replace(scores=jnp.where(missing, -jnp.inf, found.scores))
    found = jax.tree.map(lambda each: each.reshape(batch, -1, *each.shape[2:]), found)
    ids = found.tokens.ids  # filled up alike behind their ends
    same = jnp.all(ids[:, :, None] == ids[:, None, :], axis=3) & found.exist[:, None, :]
    earlier = jnp.tril(jnp.ones(same.shape[1:], bool), -1)
    return Proposals(found, same, found.exist & ~jnp.any(same & earlier[None], axis=2))


def _own_evidence(proposed: Proposals, num_docs: int) -> tuple[Float[Array, "B C K T"], Bool[Array, "B C K"]]:
    """What each passage's search told of the tokens of each answer, and whether it did."""
    batch, count = proposed.distinct.shape
    by_passage = proposed.same.reshape(batch, count, num_docs, -1)
    told = proposed.answers.doc_log_probs[:, :, 0].reshape(batch, 1, num_docs, count // num_docs, -1)
    place = jnp.argmax(by_passage, axis=3)  # of each answer among each passage's proposals
    told = jnp.take_along_axis(told, place[:, :, :, None, None], axis=3)[:, :, :, 0]
    return told, jnp.any(by_passage, axis=3)
