"""Decode RAG-Sequence (Lewis et al. 2020, section 2.5). Its likelihood is no product over tokens: no beam search fits.

Each passage is searched for answers of its own, the candidates. *Thorough* decoding scores every candidate under all
passages; *fast* decoding counts only the passages whose search found it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from rag_jax.core import likelihood
from rag_jax.core.decode import sampling
from rag_jax.core.decode.decoded import Decoded, best, decoded, existing, per_answer
from rag_jax.core.decode.language_model import per_passage
from rag_jax.core.decode.search import GenerationLimits, Hypotheses, LogitsProcessor, Search
from rag_jax.core.decode.tree_cache import EncodedInputs, repeat_per_doc
from rag_jax.core.decode.trie import BLOCKS, Blocks, score_answers
from rag_jax.types import Tokens


class Candidates(NamedTuple):
    """The answers found from a question's passages, side by side: C = K * W, W from each passage."""

    hypotheses: Hypotheses
    same: Bool[Array, "B C C"]  # whether two answers are equal and the second exists
    distinct: Bool[Array, "B C"]  # whether an answer exists and equals none before it


def thorough(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
    blocks: Blocks = BLOCKS,
) -> Decoded:
    """Score the candidates of all passages under all passages.

    Where a passage's own search found a candidate, its log-probabilities are known and not computed again.
    """
    candidates = _candidates(inputs, doc_log_prior, prefix, search, limits)
    answers = candidates.hypotheses.tokens
    log_probs, known = _own_log_probs(candidates, doc_log_prior.shape[1])
    missing = candidates.distinct[:, :, None] & ~known & _has_passage(doc_log_prior)[:, None, :]
    scored = score_answers(inputs, prefix, answers, missing, limits, blocks)
    log_probs = jnp.where(known[:, :, :, None], log_probs, scored)
    return best(marginalise(doc_log_prior, answers, candidates.distinct, log_probs), n_best)


def fast(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
) -> Decoded:
    """As `thorough`, with probability zero under the passages whose search did not find the candidate."""
    candidates = _candidates(inputs, doc_log_prior, prefix, search, limits)
    answers = candidates.hypotheses.tokens
    log_probs, known = _own_log_probs(candidates, doc_log_prior.shape[1])
    log_probs = jnp.where(known[:, :, :, None], log_probs, -jnp.inf)
    return best(marginalise(doc_log_prior, answers, candidates.distinct, log_probs), n_best)


def sample(
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
    """Sample a passage from the prior, then an answer given that passage (ancestral sampling)."""
    batch, k = doc_log_prior.shape
    both = jax.vmap(jax.random.split)(keys)
    passage_keys, answer_keys = both[:, 0], both[:, 1]
    draw = partial(jax.random.categorical, shape=(num_samples,))
    rows = (jnp.arange(batch)[:, None] * k + jax.vmap(draw)(passage_keys, doc_log_prior)).reshape(-1)
    row_keys = jax.vmap(partial(jax.random.split, num=num_samples))(answer_keys).reshape(-1)
    sampled = inputs._replace(encoded=jax.tree.map(lambda each: each[rows], inputs.encoded))
    model = per_passage(sampled, repeat_per_doc(prefix, num_samples), limits)
    hypotheses = sampling.sample(model, limits, keys=row_keys, num_samples=1, logits_processors=logits_processors)
    answers = jax.tree.map(lambda each: each.reshape(batch, num_samples, *each.shape[2:]), hypotheses.tokens)
    present = jnp.broadcast_to(_has_passage(doc_log_prior)[:, None, :], (batch, num_samples, k))
    log_probs = score_answers(inputs, prefix, answers, present, limits, blocks)
    exists = jnp.any(present, axis=2) & hypotheses.exists.reshape(batch, num_samples)
    return marginalise(doc_log_prior, answers, exists, log_probs)


def marginalise(
    doc_log_prior: Float[Array, "B K"],
    answers: Tokens,
    exists: Bool[Array, "B C"],
    target_log_probs: Float[Array, "B C K T"],
) -> Decoded:
    """Likelihood and posterior of answers under RAG-Sequence, in their order."""
    mask = existing(answers, exists)
    log_prob = per_answer(likelihood.rag_sequence)(doc_log_prior, target_log_probs, mask)
    posterior = per_answer(likelihood.sequence_doc_posterior)(doc_log_prior, target_log_probs, mask)
    token_doc_posterior = jnp.where(mask[:, :, None, :], posterior[:, :, :, None], 0.0)
    return decoded(answers, exists, log_prob, token_doc_posterior)


def _candidates(
    inputs: EncodedInputs, doc_log_prior: Float[Array, "B K"], prefix: Tokens, search: Search, limits: GenerationLimits
) -> Candidates:
    """Search every passage; a missing one has no candidates."""
    batch, k = doc_log_prior.shape
    hypotheses = search(per_passage(inputs, repeat_per_doc(prefix, k), limits), limits)
    missing = ~_has_passage(doc_log_prior).reshape(-1, 1)
    hypotheses = hypotheses._replace(scores=jnp.where(missing, -jnp.inf, hypotheses.scores))
    hypotheses = jax.tree.map(lambda each: each.reshape(batch, -1, *each.shape[2:]), hypotheses)
    ids = hypotheses.tokens.ids  # all are padded with the end token, so that equal answers have equal rows
    same = jnp.all(ids[:, :, None] == ids[:, None, :], axis=3) & hypotheses.exists[:, None, :]
    earlier = jnp.tril(jnp.ones(same.shape[1:], bool), -1)
    return Candidates(hypotheses, same, hypotheses.exists & ~jnp.any(same & earlier[None], axis=2))


def _own_log_probs(candidates: Candidates, num_docs: int) -> tuple[Float[Array, "B C K T"], Bool[Array, "B C K"]]:
    """Each candidate's token log-probabilities from each passage's own search, and whether that search found it."""
    batch, count = candidates.distinct.shape
    by_passage = candidates.same.reshape(batch, count, num_docs, -1)
    log_probs = candidates.hypotheses.doc_log_probs[:, :, 0].reshape(batch, 1, num_docs, count // num_docs, -1)
    beam = jnp.argmax(by_passage, axis=3)  # of each candidate in each passage's search
    log_probs = jnp.take_along_axis(log_probs, beam[:, :, :, None, None], axis=3)[:, :, :, 0]
    return log_probs, jnp.any(by_passage, axis=3)


def _has_passage(doc_log_prior: Float[Array, "B K"]) -> Bool[Array, "B K"]:
    return ~jnp.isneginf(doc_log_prior)
