"""Beam searches of `tables`, compiled once for each way to search, and the same as loops in Python."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

import naive
import tables
from rag_jax.core.decode import beam
from rag_jax.core.decode.search import GenerationLimits, Hypotheses, LogitsProcessor
from rag_jax.types import Tokens
from tables import END

close = partial(np.testing.assert_allclose, rtol=1e-6)


class Options(NamedTuple):
    """What tells compiled searches apart."""

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: beam.EarlyStopping | None = False  # None: naively only
    logits_processors: tuple[LogitsProcessor, ...] = ()


@partial(jax.jit, static_argnums=(2, 3))
def _search(table, prefixes: Tokens, limits: GenerationLimits, options: Options) -> Hypotheses:
    return beam.search(tables.model(table, prefixes, limits), limits, **options._asdict())


def search(table: np.ndarray, options: Options, limits: GenerationLimits, prefixes: Tokens | None = None) -> Hypotheses:
    """Answers to each question, going on from its prefix (default: from nothing)."""
    prefixes = tables.nothing(len(table)) if prefixes is None else prefixes
    return jax.device_get(_search(table, prefixes, limits, options))


def found(hypotheses: Hypotheses, b: int) -> list[naive.Scored]:
    """The answers to a question that exist."""
    ids, lengths = hypotheses.tokens.ids[b], hypotheses.tokens.lengths[b]
    there = np.flatnonzero(hypotheses.exists[b])
    return [(float(hypotheses.scores[b, w]), ids[w, : lengths[w]].tolist()) for w in there]


def by_loops(
    table: np.ndarray, options: Options, limits: GenerationLimits, prefix: naive.Tokens = ()
) -> list[naive.Scored]:
    """The same search of one question, whose model goes on from a prefix."""
    follows, length = tables.next_log_probs(table), limits.max_length - len(prefix)
    answers = naive.beam_search(lambda tokens: follows([*prefix, *tokens]), limits.eos, length, *options[:3])
    return [(score, [*prefix, *tokens]) for score, tokens in answers]


def assert_same(answers: list[naive.Scored], expected: list[naive.Scored]) -> None:
    assert [tokens for _, tokens in answers] == [tokens for _, tokens in expected]
    close([score for score, _ in answers], [score for score, _ in expected])


def rounds(table: np.ndarray, options: Options, length: int) -> int:
    """How often the loop in Python looks for what follows."""
    asked = set()

    def follows(tokens: naive.Tokens) -> np.ndarray:
        asked.add(len(tokens))
        return tables.next_log_probs(table)(tokens)

    naive.beam_search(follows, END, length, *options[:3])
    return len(asked)
