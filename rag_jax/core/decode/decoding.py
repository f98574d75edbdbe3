"""Decoding: from questions to answers in one compiled program (Lewis et al. 2020, section 2.5).

RAG-Token is one language model, the mixture of the passages at every token, and any search decodes it. RAG-Sequence has
a module of its own. Each passage is encoded once; every answer comes back with the passages that it rests on.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import likelihood, reading, retrieval
from rag_jax.core.decode import trie
from rag_jax.core.decode.language_model import mixture
from rag_jax.core.decode.search import GenerationLimits, Search, take
from rag_jax.core.decode.tree_cache import EncodedInputs, repeat_per_doc
from rag_jax.core.decode.trie import BLOCKS, Blocks
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import InferenceBatch, Knowledge, Networks, RagParams, Retrieved, SearchResults, Tokens


class Decoded(NamedTuple):
    """The best answers to each question, best first; after its end an answer is filled up with the end token."""

    tokens: Int[Array, "B C T"]
    mask: Bool[Array, "B C T"]  # the answer's tokens, its end included; none where there is no such answer
    exists: Bool[Array, "B C"]  # False where fewer answers were found than asked for
    log_prob: Float[Array, "B C"]  # log p(y|x) of the model that decoded it
    score: Float[Array, "B C"]  # length-normalised: the search's own (RAG-Token), log_prob per token (RAG-Sequence)
    doc_posterior: Float[Array, "B C K"]  # RAG-Sequence: p(z|x,y); RAG-Token: the mean over tokens
    token_doc_posterior: Float[Array, "B C K T"]  # RAG-Token: p(z|x,y_t,y_<t); RAG-Sequence: the same for each token


class Answered(NamedTuple):
    """Answers with the passages they rest on."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    decoded: Decoded


@runtime_checkable
class Decoder(Protocol):
    """Decode from what was read, a prior over its passages, and the tokens `[B, G]` that the answers begin with."""

    def __call__(self, inputs: EncodedInputs, doc_log_prior: Array, prefix: Tokens) -> Decoded: ...


@runtime_checkable
class Marginalise(Protocol):
    """Answers with their likelihood and posteriors, from their tokens' log-probabilities under each passage."""

    def __call__(
        self, doc_log_prior: Array, answers: Tokens, exist: Array, target_log_probs: Float[Array, "B C K T"]
    ) -> Decoded: ...


def answer(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: InferenceBatch,
    prefix: Tokens,
    search_results: SearchResults | None = None,
    *,
    decoder: Decoder,
    num_docs: int,
    max_length: int,
    index: Index = LOCAL,
) -> Answered:
    """Encode the questions, search, read the passages, decode: one program from question tokens to answer tokens.

    What another search `found` is read instead of the K nearest.
    """
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    return answer_from(
        networks, params, retrieved, passages, batch.prompt, prefix, decoder=decoder, max_length=max_length
    )


def answer_from(
    networks: Networks,
    params: RagParams,
    retrieved: Retrieved,
    passages: Tokens,
    prompt: Tokens,
    prefix: Tokens,
    *,
    decoder: Decoder,
    max_length: int,
) -> Answered:
    """Read the passages `[B, K, P]`, wherever they come from, and decode."""
    prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
    assembled = reading.assemble(passages, prompt, max_length)
    encoded = networks.generator.encode(params.generator, reading.rows(assembled))
    return Answered(
        retrieved, prior, decoder(EncodedInputs(networks.generator, params.generator, encoded), prior, prefix)
    )


def rag_token(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
) -> Decoded:
    """RAG-Token: search the mixture `sum_z p(z|x) p(y_t | x, z, y_<t)`, one set of hypotheses per question."""
    found = search(mixture(inputs, doc_log_prior, prefix, limits), limits)
    found = jax.tree.map(lambda each: each[:, :n_best], found)
    decoded = marginalise_rag_token(doc_log_prior, found.tokens, found.exist, found.doc_log_probs)
    return decoded._replace(score=found.scores)


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
    """Of given answers `[B, C, T]` the likeliest, best first: the labels of a classifier, the choices of a question.

    `judge` is `by_token` or `by_sequence`. The answers must begin with what they are `prefix`.
    """
    asked = jnp.broadcast_to(~jnp.isneginf(doc_log_prior)[:, None, :], (*answers.lengths.shape, doc_log_prior.shape[1]))
    scored = score_answers(inputs, prefix, answers, asked, limits, blocks)
    return best(
        marginalise(doc_log_prior, answers, jnp.ones(answers.lengths.shape, bool), scored), answers.lengths.shape[1]
    )


def score_answers(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    asked: Bool[Array, "B C K"],
    limits: GenerationLimits,
    blocks: Blocks = BLOCKS,
) -> Float[Array, "B C K T"]:
    """`log p(y_t | x, z, y_<t)` of answers `[B, C, T]` under the passages that are `asked` for each; zero elsewhere."""
    k = asked.shape[2]
    by_row = jnp.swapaxes(asked, 1, 2).reshape(-1, asked.shape[1])
    found = trie.score_trie(inputs, repeat_per_doc(prefix, k), repeat_per_doc(answers, k), by_row, limits, blocks)
    return jnp.swapaxes(found.reshape(-1, k, *found.shape[1:]), 1, 2)


def marginalise_rag_token(
    doc_log_prior: Float[Array, "B K"],
    answers: Tokens,
    exist: Bool[Array, "B C"],
    target_log_probs: Float[Array, "B C K T"],
) -> Decoded:
    """Answers with their likelihood and posteriors under RAG-Token, in the order given."""
    mask = answers.mask & exist[:, :, None]
    log_prob = _per_answer(likelihood.rag_token)(doc_log_prior, target_log_probs, mask)
    per_token = _per_answer(likelihood.token_doc_posterior)(doc_log_prior, target_log_probs, mask)
    return _decoded(answers, exist, mask, log_prob, per_token)


def marginalise_rag_sequence(
    doc_log_prior: Float[Array, "B K"],
    answers: Tokens,
    exist: Bool[Array, "B C"],
    target_log_probs: Float[Array, "B C K T"],
) -> Decoded:
    """Answers with their likelihood and posterior under RAG-Sequence, in the order given."""
    mask = answers.mask & exist[:, :, None]
    log_prob = _per_answer(likelihood.rag_sequence)(doc_log_prior, target_log_probs, mask)
    posterior = _per_answer(likelihood.sequence_doc_posterior)(doc_log_prior, target_log_probs, mask)
    per_token = jnp.where(mask[:, :, None, :], posterior[:, :, :, None], 0.0)
    return _decoded(answers, exist, mask, log_prob, per_token)


def best(decoded: Decoded, count: int) -> Decoded:
    """The likeliest `count` answers to each question, best first."""
    return take(decoded, jax.lax.top_k(decoded.log_prob, count)[1])


def _per_answer(function: Callable) -> Callable:
    """A likelihood of one answer per question, for C of them."""
    return jax.vmap(function, in_axes=(None, 1, 1), out_axes=1)


def _decoded(
    answers: Tokens,
    exist: Bool[Array, "B C"],
    mask: Bool[Array, "B C T"],
    log_prob: Float[Array, "B C"],
    per_token: Float[Array, "B C K T"],
) -> Decoded:
    """What both models tell of an answer, from its likelihood and its tokens' posteriors."""
    length = jnp.maximum(jnp.sum(mask, axis=2), 1).astype(jnp.float32)
    log_prob = jnp.where(exist, log_prob, -jnp.inf)
    posterior = jnp.sum(per_token, axis=3) / length[:, :, None]
    return Decoded(answers.ids, mask, exist, log_prob, log_prob / length, posterior, per_token)
