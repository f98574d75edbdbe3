"""Decoding: from questions to answers in one compiled program.

The loop knows nothing of retrieval: it repeats a step function. RAG-Token's step marginalises over the passages before
a token is chosen; RAG-Sequence lets each passage propose its own answer and then scores every proposal under every
passage (Lewis et al. 2020, section 2.5, "thorough decoding"). Each passage is encoded once.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.core import likelihood, reading, retrieval
from rag_jax.types import Generator, Knowledge, Networks, Params, RagParams, Retrieved, Tokens


class Limits(NamedTuple):
    """How an answer begins and ends."""

    prefix: tuple[int, ...]  # tokens that the decoder starts from: those that training started targets with
    eos: int
    max_length: int  # T: target tokens at most, the end token included


class Decoded(NamedTuple):
    """One answer per question; after its end an answer is filled up with the end token."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    log_prob: Float[Array, "B"]  # log p(y|x) of the model that decoded it
    doc_posterior: Float[Array, "B K"]  # RAG-Sequence: p(z|x,y); RAG-Token: the mean over tokens
    token_doc_posterior: Float[Array, "B K T"]  # RAG-Token: p(z|x,y_t,y_<t); RAG-Sequence: the same for each token


class Answered(NamedTuple):
    """Answers with the passages they rest on."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    decoded: Decoded


@runtime_checkable
class Step(Protocol):
    """Log-probabilities of the token after `tokens`, which continue what `state` has seen."""

    def __call__(self, tokens: Int[Array, "R t"], state: Any) -> tuple[Float[Array, "R V"], Any]: ...


@runtime_checkable
class Decoder(Protocol):
    """Decode from a prior over passages `[B, K]` and their encoded inputs (rows `B * K`)."""

    def __call__(
        self, generator: Generator, params: Params, doc_log_prior: Array, memory: PyTree[Array], limits: Limits
    ) -> Decoded: ...


def answer(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    question: Tokens,
    prompt: Tokens,
    *,
    decoder: Decoder,
    limits: Limits,
    num_docs: int,
    max_length: int,
) -> Answered:
    """Encode the questions, search, read the passages, decode: jit this with everything after `prompt` fixed."""
    queries = networks.tower(params.question_tower, question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs)
    prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, prompt, max_length)
    memory = networks.generator.encode(params.generator, reading.rows(inputs))
    return Answered(retrieved, prior, decoder(networks.generator, params.generator, prior, memory, limits))


def rag_token_greedy(
    generator: Generator,
    params: Params,
    doc_log_prior: Float[Array, "B K"],
    memory: PyTree[Array],
    limits: Limits,
) -> Decoded:
    """RAG-Token, greedy: at each step the token of the largest marginal `sum_z p(z|x) p(y_t | x, z, y_<t)`."""
    batch, k = doc_log_prior.shape

    def step(tokens: Int[Array, "B t"], state: Any) -> tuple[Float[Array, "B V"], Any]:
        logits, cache = generator.decode(params, jnp.repeat(tokens, k, axis=0), memory, state)
        log_probs = jax.nn.log_softmax(logits[:, -1].astype(jnp.float32), axis=1).reshape(batch, k, -1)
        return jax.nn.logsumexp(doc_log_prior[:, :, None] + log_probs, axis=1), cache

    tokens = greedy(step, _empty_cache(generator, batch * k, limits), batch, limits)
    mask = until_end(tokens, limits.eos)
    scored = score(generator, params, memory, tokens, limits.prefix, k)
    posterior = likelihood.token_doc_posterior(doc_log_prior, scored, mask)
    mean_posterior = jnp.sum(posterior, axis=2) / jnp.sum(mask, axis=1)[:, None].astype(jnp.float32)
    log_prob = likelihood.rag_token(doc_log_prior, scored, mask)
    return Decoded(tokens, mask, log_prob, mean_posterior, posterior)


def rag_sequence_greedy(
    generator: Generator,
    params: Params,
    doc_log_prior: Float[Array, "B K"],
    memory: PyTree[Array],
    limits: Limits,
) -> Decoded:
    """RAG-Sequence, thorough: each passage's greedy answer is a candidate; the likeliest under all passages wins."""
    batch, k = doc_log_prior.shape

    def step(tokens: Int[Array, "R t"], state: Any) -> tuple[Float[Array, "R V"], Any]:
        logits, cache = generator.decode(params, tokens, memory, state)
        return logits[:, -1], cache

    proposals = greedy(step, _empty_cache(generator, batch * k, limits), batch * k, limits)
    candidates = jnp.swapaxes(proposals.reshape(batch, k, -1), 0, 1)

    def judge(tokens):
        mask = until_end(tokens, limits.eos)
        scored = score(generator, params, memory, tokens, limits.prefix, k)
        log_prob = likelihood.rag_sequence(doc_log_prior, scored, mask)
        posterior = likelihood.sequence_doc_posterior(doc_log_prior, scored, mask)
        per_token = jnp.where(mask[:, None, :], posterior[:, :, None], 0.0)
        return Decoded(tokens, mask, log_prob, posterior, per_token)

    judged = jax.lax.map(judge, candidates)  # one candidate of every question at a time: memory does not grow with K
    proposed = jnp.where(jnp.isneginf(doc_log_prior).T, -jnp.inf, judged.log_prob)  # a missing passage proposes nothing
    best = jnp.argmax(proposed, axis=0)
    return jax.tree.map(lambda each: each[best, jnp.arange(batch)], judged)


DECODERS: dict[str, Decoder] = {"token": rag_token_greedy, "sequence": rag_sequence_greedy}


def greedy(step: Step, state: Any, rows: int, limits: Limits) -> Int[Array, "R T"]:
    """The most probable token at each step, until every row has ended or T tokens are written.

    The prefix goes through `step` in one pass. What follows a row's end token is the end token again.
    """
    prefix = jnp.broadcast_to(jnp.asarray(limits.prefix, jnp.int32)[None, :], (rows, len(limits.prefix)))
    log_probs, state = step(prefix, state)
    token = jnp.argmax(log_probs, axis=1).astype(jnp.int32)
    tokens = jnp.full((rows, limits.max_length), limits.eos, jnp.int32).at[:, 0].set(token)

    def unfinished(carry):
        written, token, _, _ = carry
        return (written < limits.max_length) & jnp.any(token != limits.eos)

    def extend(carry):
        written, token, tokens, state = carry
        log_probs, state = step(token[:, None], state)
        following = jnp.argmax(log_probs, axis=1).astype(jnp.int32)
        following = jnp.where(token == limits.eos, limits.eos, following)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, following[:, None], written, axis=1)
        return written + 1, following, tokens, state

    return jax.lax.while_loop(unfinished, extend, (jnp.int32(1), token, tokens, state))[2]


def score(
    generator: Generator,
    params: Params,
    memory: PyTree[Array],
    targets: Int[Array, "B T"],
    prefix: tuple[int, ...],
    num_docs: int,
) -> Float[Array, "B K T"]:
    """`log p(y_t | x, z, y_<t)` of given answers under each of their K encoded passages, in one pass."""
    batch, length = targets.shape
    start = jnp.broadcast_to(jnp.asarray(prefix, targets.dtype)[None, :], (batch, len(prefix)))
    inputs = jnp.concatenate([start, targets[:, :-1]], axis=1)
    logits, _ = generator.decode(params, jnp.repeat(inputs, num_docs, axis=0), memory)
    logits = logits[:, len(prefix) - 1 :].reshape(batch, num_docs, length, -1)
    return likelihood.target_log_probs(logits, targets)


def until_end(tokens: Int[Array, "B T"], eos: int) -> Bool[Array, "B T"]:
    """True up to and including the first end token."""
    ended = jnp.cumsum((tokens == eos).astype(jnp.int32), axis=1)
    return (ended == 0) | ((ended == 1) & (tokens == eos))


def _empty_cache(generator: Generator, rows: int, limits: Limits) -> PyTree[Array]:
    return generator.empty_cache(rows, len(limits.prefix) + limits.max_length - 1)
