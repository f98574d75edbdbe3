"""RAG with any small generator as a naive marginalisation in torch, one passage at a time; and ours of the same."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import families
import naive
import oracle
from families import EOS, PAD, Config, V
from oracle import jit, torch
from rag_jax.core import likelihood, reading
from rag_jax.core.decode import beam, rag_sequence, rag_token
from rag_jax.core.decode.decoded import Decoded
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.models import registry
from rag_jax.types import Params, Tokens

B, K, S, T = 2, 3, 9, 6
LIMITS = GenerationLimits((PAD,), EOS, T)
DECODERS = {"token": rag_token.decode, "sequence": rag_sequence.thorough}


class Case(NamedTuple):
    """A generator by its sizes, and the seed of its weights."""

    config: Config
    seed: int


class Problem(NamedTuple):
    """Inputs `[B, K, S]` with scores, and answers; the last passage of the last question does not exist."""

    inputs: Tokens
    scores: np.ndarray  # [B, K]
    valid: np.ndarray
    targets: np.ndarray  # [B, T], padded
    mask: np.ndarray


@cache
def problem() -> Problem:
    rng = np.random.default_rng(2)
    with jax.ensure_compile_time_eval():  # the first to ask may be a program that is being traced
        inputs = oracle.tokens(rng, B * K, S, V, PAD)
        inputs = Tokens(inputs.ids.reshape(B, K, S), inputs.lengths.reshape(B, K))
    lengths = np.array([T, 3])
    targets = rng.integers(oracle.FIRST_WORD, V, (B, T)).astype(np.int32)
    targets[np.arange(B), lengths - 1] = EOS
    mask = np.arange(T)[None, :] < lengths[:, None]
    valid = np.arange(B * K).reshape(B, K) < B * K - 1
    return Problem(inputs, rng.normal(size=(B, K)).astype(np.float32), valid, np.where(mask, targets, PAD), mask)


# torch, one passage at a time.


def passages(b: int) -> list[int]:
    return [k for k in range(K) if problem().valid[b, k]]


def their_log_probs(case: Case, b: int, k: int, tokens: list[int]) -> torch.Tensor:
    """What follows the start token and each of the tokens, by one passage without padding: `[len + 1, V]`."""
    ids, length = problem().inputs.ids[b, k], int(problem().inputs.lengths[b, k])
    return oracle.next_logits(families.network(*case)[0], np.asarray(ids[:length]), [PAD, *tokens]).log_softmax(1)


def next_probs(case: Case, b: int, k: int) -> naive.NextProbs:
    @cache
    def after(tokens: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            return their_log_probs(case, b, k, list(tokens))[-1].double().exp().numpy()

    return lambda tokens: after(tuple(tokens))


def their_answer(case: Case, model: str, b: int, num_beams: int) -> list[int]:
    """By a naive search: of the mixture, or of each passage with all found answers scored under all passages."""
    models = [next_probs(case, b, k) for k in passages(b)]
    prior = naive.softmax(problem().scores[b, passages(b)])

    def search(probs: naive.NextProbs) -> list[list[int]]:
        found = naive.beam_search(lambda tokens: np.log(probs(tokens)), EOS, T, num_beams, 1.0, False)
        return [tokens for _, tokens in found]

    if model == "token":
        return search(lambda tokens: sum(p * each(tokens) for p, each in zip(prior, models, strict=True)))[0]
    return max(
        {tuple(answer) for each in models for answer in search(each)},
        key=lambda answer: log_likelihood(case, model, b, list(answer)),
    )


def log_likelihood(case: Case, model: str, b: int, answer: list[int]) -> float:
    """log p(y|x) by the paper's formula."""
    models = [next_probs(case, b, k) for k in passages(b)]
    prior = naive.softmax(problem().scores[b, passages(b)])[None]
    told = prior, naive.teacher_forced(models, answer, ())[None], np.array([answer]), np.ones((1, len(answer)), bool)
    return (naive.rag_token if model == "token" else naive.rag_sequence)(*told)[0]


# Ours.


def encoded(config: Config, params: Params) -> tuple[EncodedInputs, jax.Array]:
    data, generator = problem(), registry.generator(config)
    inputs = EncodedInputs(generator, params, generator.encode(params, reading.rows(data.inputs)))
    return inputs, likelihood.doc_log_prior(jnp.asarray(data.scores), jnp.asarray(data.valid))


@cache
def _program(config: Config, model: str, num_beams: int):
    """The same for all weights."""

    def decode(params: Params) -> Decoded:
        inputs, prior = encoded(config, params)
        search = partial(beam.search, num_beams=num_beams)
        return DECODERS[model](inputs, prior, no_prefix(B), search=search, limits=LIMITS)

    return jit(decode)


def assert_same_answers(case: Case, model: str, num_beams: int) -> None:
    """The best answer to each question is that of the naive search, and its likelihood that of the formula."""
    found = jax.device_get(_program(case.config, model, num_beams)(families.network(*case)[1]))
    for b in range(B):
        answer = found.tokens[b, 0][found.mask[b, 0]].tolist()
        assert answer == list(their_answer(case, model, b, num_beams))
        # A probability of nearly 1 is a sum of float32 numbers that are rounded by 6e-8 each.
        expected = log_likelihood(case, model, b, answer)
        np.testing.assert_allclose(found.log_prob[b, 0], expected, rtol=1e-4, atol=1e-6)
