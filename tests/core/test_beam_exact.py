"""Beam search with beams enough for every answer: exact, which answers exist and which rules allow."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
import tables
from beams import Options, close, found, search
from rag_jax.core.decode import logits_processors
from rag_jax.core.decode.search import GenerationLimits
from suites import first
from tables import END

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
B, V, T = 4, 3, 4
LIMITS = GenerationLimits((), END, T)
EVERY = 24  # beams: no step has more extensions; the last one has V of each of (V - 1) ** (T - 1) beginnings
PREFIXES = [[], [2], [0, 2], [2, 0]]
PENALTIES = [0.0, 1.0, 2.0, -0.5]


def best_of_all(follows: naive.NextLogProbs, prefix: naive.Tokens, penalty: float, count: int) -> list[naive.Scored]:
    """Of all answers that begin so, the best; those of probability zero are none."""
    answers = []
    for rest in tables.every_answer(V, T - len(prefix)):
        log_prob = sum(float(follows([*prefix, *rest[:t]])[token]) for t, token in enumerate(rest))
        if log_prob > -np.inf:
            answers.append((log_prob / len(rest) ** penalty, [*prefix, *rest]))
    return naive.best(answers, count)


def assert_best(answers: list[naive.Scored], expected: list[naive.Scored], score_of) -> None:
    """The same up to equals: as many, different ones, as good, and each scored as it should be."""
    assert len({tuple(tokens) for _, tokens in answers}) == len(answers)
    close([score for score, _ in answers], [score for score, _ in expected])
    close([score for score, _ in answers], [score_of(tokens) for _, tokens in answers])


def assert_exact(table: np.ndarray, options: Options, follow, prefixes: list[naive.Tokens]) -> None:
    """`follow` makes a question's table the function that a search should see."""
    hypotheses = search(table, options, LIMITS, tables.given(*prefixes))
    for b, prefix in enumerate(prefixes):
        follows = follow(table[b])
        everything = best_of_all(follows, prefix, options.length_penalty, 99)
        scores = {tuple(tokens): score for score, tokens in everything}
        expected = everything[: options.num_beams]
        assert_best(found(hypotheses, b), expected, lambda tokens, scores=scores: scores[tuple(tokens)])


@pytest.mark.parametrize("penalty", first(2, PENALTIES))
@cases
@given(seeds)
def test_with_beams_enough_for_everything_the_best_of_all_answers_are_found_in_order(penalty, seed):
    table = tables.draw(seed, B, V, T)
    assert_exact(table, Options(EVERY, penalty, "never"), tables.next_log_probs, [[]] * B)


def obeying(change):
    """A table's function under a rule written as `change(written, log_probs)` of a list, in place."""

    def follow(table: np.ndarray) -> naive.NextLogProbs:
        free = tables.next_log_probs(table)

        def follows(written: naive.Tokens) -> np.ndarray:
            log_probs = free(written).copy()
            change(written, log_probs)
            return log_probs

        return follows

    return follow


def not_early(written, log_probs):
    if len(written) < 2:
        log_probs[END] = -np.inf


def no_bigram_twice(written, log_probs):
    for one, other in itertools.pairwise(written):
        if one == written[-1]:
            log_probs[other] = -np.inf


def no_two_after_zero_nor_three_twos(written, log_probs):
    if written[-1:] == [0] or written[-2:] == [2, 2]:
        log_probs[2] = -np.inf


def from_two(written, log_probs):
    if not written:
        log_probs[:] = -np.inf
        log_probs[2] = 0.0


def to_the_end(written, log_probs):
    if len(written) == T - 1:
        log_probs[:] = -np.inf
        log_probs[END] = 0.0


RULES = {
    "min_length": (logits_processors.min_length(3, END), not_early),
    "no_repeated_ngrams": (logits_processors.no_repeat_ngram(2), no_bigram_twice),
    "bad_words": (logits_processors.bad_words([[0, 2], [2, 2, 2]]), no_two_after_zero_nor_three_twos),
    "forced_bos": (logits_processors.forced_bos(2), from_two),
    "forced_eos": (logits_processors.forced_eos(4, END), to_the_end),
}


@pytest.mark.parametrize("name", first(2, RULES))
@cases
@given(seeds)
def test_the_best_of_all_answers_that_obey_a_rule_are_found_and_those_that_do_not_exist_are_missing(name, seed):
    rule, change = RULES[name]
    table = tables.draw(seed, B, V, T)
    assert_exact(table, Options(EVERY, logits_processors=(rule,)), obeying(change), PREFIXES)


# Fewer answers than beams.

TWO = tables.draw(0, 1, 2, 3)
FEWER = {
    "no word but the end": (np.zeros((1, 3, 1), np.float32), 0, (), [[0]]),
    "one word": (TWO, END, (), [[0, 0, 0], [0, 0, END], [0, END], [END]]),
    "no answer": (TWO, END, (logits_processors.bad_words([[0], [END]]),), []),
}


@pytest.mark.parametrize("fewer", first(2, FEWER))
def test_answers_that_do_not_exist_score_minus_infinity_behind_those_that_do(fewer):
    table, end, obeyed, answers = FEWER[fewer]
    hypotheses = search(table, Options(6, logits_processors=obeyed), GenerationLimits((), end, 3))
    there = len(answers)
    assert hypotheses.exists[0].tolist() == [True] * there + [False] * (6 - there)
    assert np.all(hypotheses.scores[0, there:] == -np.inf)
    assert sorted(tokens for _, tokens in found(hypotheses, 0)) == answers
