"""Decoding as the tests do it, compiled once for each way, and what is expected of answers."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

import naive
import readers
from rag_jax.core.decode import beam, rag_sequence, rag_token
from rag_jax.core.decode.decoded import Decoded
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Generator, Tokens
from readers import CHAINS, B, Question, Read, World


class Beam(NamedTuple):
    """The options of a beam search, which tell compiled programs apart."""

    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: beam.EarlyStopping = False


GREEDY = Beam()
DECODERS = {
    "token": rag_token.decode,
    "thorough": rag_sequence.thorough,
    "fast": rag_sequence.fast,
}


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _decode(
    decoder: str, generator: Generator, beams: Beam, n_best: int, limits: GenerationLimits, seen: Read, given: Tokens
):
    reader = EncodedInputs(generator, seen.params, seen.memory)
    search = partial(beam.search, **beams._asdict())
    return DECODERS[decoder](reader, seen.log_prior, given, search=search, limits=limits, n_best=n_best)


def decode(
    decoder: str, world: World, seen: Read, beams: Beam = GREEDY, given: Tokens | None = None, n_best: int | None = None
) -> Decoded:
    """The best answers, as many as beams by default, which begin with what is given, if anything."""
    given = nothing(len(seen.log_prior)) if given is None else given
    n_best = beams.num_beams if n_best is None else n_best
    return jax.device_get(_decode(decoder, world.generator, beams, n_best, world.limits, seen, given))


def nothing(batch: int = B) -> Tokens:
    """What answers that may begin anyhow are given."""
    return Tokens(np.zeros((batch, 0), np.int32), np.zeros(batch, np.int32))


def said(decoder: str, passages: Sequence[np.ndarray], prior: Sequence[float], beams: Beam = GREEDY) -> Decoded:
    """What is answered to one question whose passages are chains."""
    return decode(decoder, CHAINS, readers.of_chains(passages, prior), beams)


def prefixes(seed: int, world: World, most: int) -> Tokens:
    """What the answers to each question begin with: up to so many words, and noise behind them."""
    draw = np.random.default_rng(seed)
    words = [word for word in range(world.words) if word != world.limits.eos]
    return Tokens(draw.choice(words, (B, most)).astype(np.int32), draw.integers(0, most + 1, B).astype(np.int32))


def prefix(given: Tokens, b: int) -> list[int]:
    return given.ids[b, : given.lengths[b]].tolist()


# What is expected of answers.


class Judged(NamedTuple):
    """The paper's quantities for one answer."""

    log_prob: float
    posterior: np.ndarray  # [K]
    token_posterior: np.ndarray  # [K, T]


def judged(model: str, asked: Question, answer: Sequence[int]) -> Judged:
    """An answer to a question, by the naive formulas of RAG-"token" or RAG-"sequence"."""
    probs = naive.teacher_forced(asked.models, answer, asked.start)[None]
    told = asked.prior[None], probs, np.array([answer]), np.ones((1, len(answer)), bool)
    if model == "token":
        per_token = naive.token_posterior(*told)[0]
        return Judged(naive.rag_token(*told)[0], per_token.mean(axis=1), per_token)
    posterior = naive.sequence_posterior(*told)[0]
    return Judged(naive.rag_sequence(*told)[0], posterior, np.repeat(posterior[:, None], len(answer), axis=1))


def every_answer(world: World) -> Iterator[list[int]]:
    """All there are: up to the end token, or as long as allowed."""
    eos, longest = world.limits.eos, world.limits.max_length
    others = [word for word in range(world.words) if word != eos]
    for length in range(longest):
        for inner in itertools.product(others, repeat=length):
            yield [*inner, eos]
            if length + 1 == longest:
                yield from ([*inner, last] for last in others)


def filled(answer: list[int], limits: GenerationLimits) -> list[int]:
    return answer + [limits.eos] * (limits.max_length - len(answer))


def found(decoded: Decoded, b: int) -> list[list[int]]:
    """The answers to a question that exist, up to their ends."""
    return [decoded.tokens[b, c][decoded.mask[b, c]].tolist() for c in np.flatnonzero(decoded.exists[b])]


close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def assert_judged(decoded: Decoded, model: str, world: World, seen: Read) -> None:
    """There are answers, with the paper's likelihood and posteriors; those that do not exist have none."""
    assert np.all(np.any(decoded.exists, axis=1))
    asked = [readers.question(world, seen, b) for b in range(len(decoded.exists))]
    for b, c in np.ndindex(decoded.exists.shape):
        if not decoded.exists[b, c]:
            assert np.isneginf(decoded.log_prob[b, c])
            assert not any(np.any(each[b, c]) for each in (decoded.mask, *decoded[-2:]))
            continue
        answer = decoded.tokens[b, c][decoded.mask[b, c]].tolist()
        assert decoded.tokens[b, c].tolist() == filled(answer, world.limits)
        expected = judged(model, asked[b], answer)
        close(decoded.log_prob[b, c], expected.log_prob)
        close(decoded.doc_posterior[b, c], expected.posterior)
        close(decoded.token_doc_posterior[b, c, :, : len(answer)], expected.token_posterior)
        assert not np.any(decoded.token_doc_posterior[b, c, :, len(answer) :])


def assert_best(decoded: Decoded, b: int, expected: dict[tuple[int, ...], float]) -> None:
    """The answers to a question are the likeliest of those expected, best first, as many as there are."""
    answers = [tuple(answer) for answer in found(decoded, b)]
    assert len(set(answers)) == len(answers) == min(decoded.exists.shape[1], len(expected))
    close(decoded.log_prob[b, : len(answers)], [expected[answer] for answer in answers])
    close(decoded.log_prob[b, : len(answers)], sorted(expected.values(), reverse=True)[: len(answers)])
