"""Samples against the probabilities of all answers there are."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
import tables
from rag_jax.core.decode import logits_processors, sampling
from rag_jax.core.decode.search import GenerationLimits, Hypotheses, LogitsProcessor
from rag_jax.types import Tokens
from suites import only
from tables import CAT, DOG, END

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
B, V, T, W = 3, 4, 4, 6
LIMITS = GenerationLimits((), END, T)
PREFIXES = [[], [CAT], [0, DOG]]


@partial(jax.jit, static_argnums=(3, 4, 5))
def _sample(
    table, prefixes: Tokens, keys, count: int, obeyed: tuple[LogitsProcessor, ...], limits: GenerationLimits
) -> Hypotheses:
    model = tables.model(table, prefixes, limits)
    return sampling.sample(model, limits, keys=keys, num_samples=count, logits_processors=obeyed)


def sample(
    table,
    keys,
    prefixes=None,
    count: int = W,
    obeyed: tuple[LogitsProcessor, ...] = (),
    limits: GenerationLimits = LIMITS,
):
    """Answers to each question, going on from its prefix (default: from nothing)."""
    prefixes = tables.nothing(len(table)) if prefixes is None else prefixes
    return jax.device_get(_sample(table, prefixes, keys, count, obeyed, limits))


def keys(seed: int, questions: int = B) -> jax.Array:
    return jax.random.split(jax.random.key(seed), questions)


def draw(seed: int, questions: int = B, words: int = V, length: int = T) -> np.ndarray:
    return tables.draw(seed, questions, words, length)


def assert_equal(one: Hypotheses, other: Hypotheses) -> None:
    for each, as_each in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(each, as_each)


def answers(drawn: Hypotheses, b: int) -> list[tuple[int, ...]]:
    """Of a question, in the order drawn."""
    ids, lengths = drawn.tokens.ids[b], drawn.tokens.lengths[b]
    return [tuple(each[:length].tolist()) for each, length in zip(ids, lengths, strict=True)]


# Keys.


@cases
@given(seeds)
def test_the_same_keys_draw_the_same_answers_and_others_draw_others(seed):
    table = draw(0)
    drawn, again, others = (sample(table, keys(each), count=50) for each in (seed, seed, seed ^ 1))
    assert_equal(drawn, again)
    for b in range(B):
        assert answers(drawn, b) != answers(others, b)


@cases
@given(seeds)
def test_questions_with_different_keys_draw_different_answers_from_the_same_model(seed):
    drawn = sample(draw(0)[[0, 0, 0]], keys(seed), count=50)
    assert len({tuple(answers(drawn, b)) for b in range(B)}) == B


@cases
@given(seeds, st.permutations(range(B)))
def test_what_a_question_draws_depends_neither_on_its_place_nor_on_those_beside_it(seed, order):
    table, own, prefixes = draw(seed), keys(seed), tables.given(*PREFIXES)
    drawn = sample(table, own, prefixes)
    order = np.array(order)
    elsewhere = sample(table[order], own[order], jax.tree.map(lambda each: each[order], prefixes))
    assert_equal(elsewhere, jax.tree.map(lambda each: each[order], drawn))
    mine = np.arange(B) == order[0]
    others = np.where(mine[:, None, None], table, draw(seed + 1))
    beside_others = sample(others, jnp.where(mine, own, keys(seed ^ 1)), prefixes)
    assert_equal(*(jax.tree.map(lambda each: each[order[0]], each) for each in (drawn, beside_others)))


@cases
@given(seeds)
def test_a_batch_is_each_question_alone(seed):
    table, own = draw(seed), keys(seed)
    together = sample(table, own)
    for b in range(B):
        alone = sample(table[b : b + 1], own[b : b + 1])
        assert_equal(alone, jax.tree.map(lambda each, b=b: each[b : b + 1], together))


# Frequencies.

MANY = 20_000
SHORT, WORDS = 3, 3  # 15 answers
Shape = Callable[[naive.Tokens, np.ndarray], np.ndarray]  # what is written, probabilities -> those to draw from


def barred(written: naive.Tokens, probs: np.ndarray) -> np.ndarray:
    """No end before the second token, no CAT twice in a row."""
    banned = [END] * (len(written) < 1) + [CAT] * (written[-1:] == [CAT])
    return naive.only(probs, [token for token in range(len(probs)) if token not in banned])


SHAPES: dict[str, tuple[tuple[LogitsProcessor, ...], Shape]] = {
    "as the model says": ((), lambda _, p: p),
    "sharper": ((logits_processors.temperature(0.5),), lambda _, p: naive.tempered(p, 0.5)),
    "flatter": ((logits_processors.temperature(2.0),), lambda _, p: naive.tempered(p, 2.0)),
    "top_k": ((logits_processors.top_k(2),), lambda _, p: naive.only(p, naive.most_probable(p, 2))),
    "top_p": ((logits_processors.top_p(0.7),), lambda _, p: naive.only(p, naive.nucleus(p, 0.7))),
    "min_p": ((logits_processors.min_p(0.4),), lambda _, p: naive.only(p, naive.likely_enough(p, 0.4))),
    "flatter, then top_p": (
        (logits_processors.temperature(3.0), logits_processors.top_p(0.7)),
        lambda _, p: naive.only(naive.tempered(p, 3.0), naive.nucleus(naive.tempered(p, 3.0), 0.7)),
    ),
    "barred": ((logits_processors.min_length(2, END), logits_processors.bad_words([[CAT, CAT]])), barred),
}


def probabilities(table: np.ndarray, shape: Shape, prefix: naive.Tokens) -> dict[tuple[int, ...], float]:
    """Of every answer that goes on from a prefix."""
    follows, found = tables.next_log_probs(table), {}
    for rest in tables.every_answer(WORDS, SHORT - len(prefix)):
        answer, probability = list(prefix), 1.0
        for token in rest:
            probability *= shape(answer, np.exp(follows(answer)))[token]
            answer.append(token)
        found[tuple(answer)] = probability
    return found


def assert_drawn_from(drawn: list, probability: dict) -> None:
    """Every count is within five standard deviations, and nothing else is drawn."""
    assert set(drawn) <= {answer for answer, p in probability.items() if p > 0}
    for answer, p in probability.items():
        expected = len(drawn) * p
        assert abs(drawn.count(answer) - expected) <= 5 * math.sqrt(expected * (1 - p)) + 1


@pytest.mark.parametrize("name", only(["as the model says", "flatter, then top_p"], SHAPES))
def test_answers_are_as_frequent_as_they_are_probable(name):
    obeyed, shape = SHAPES[name]
    table, limits = draw(1, words=WORDS, length=SHORT), GenerationLimits((), END, SHORT)
    prefixes = [[], [], [CAT]]
    drawn = sample(table, keys(0), tables.given(*prefixes), MANY, obeyed, limits)
    for b, prefix in enumerate(prefixes):
        probability = probabilities(table[b], shape, prefix)
        np.testing.assert_allclose(sum(probability.values()), 1.0, rtol=1e-3)  # the grid of the tables
        assert_drawn_from(answers(drawn, b), probability)


@pytest.mark.parametrize("neighbours", ["samples", "questions"])
def test_samples_and_questions_do_not_know_of_each_other(neighbours):
    table, limits = draw(1, words=WORDS, length=SHORT)[[0, 0, 0]], GenerationLimits((), END, SHORT)
    drawn = sample(table, keys(0), None, MANY, (), limits)
    one = answers(drawn, 0)
    other = [*one[1:], one[0]] if neighbours == "samples" else answers(drawn, 1)
    alone = probabilities(table[0], lambda _, p: p, [])
    both = {(a, b): p * q for a, p in alone.items() for b, q in alone.items()}
    assert_drawn_from(list(zip(one, other, strict=True)), both)


# What comes with an answer.

GIVEN = [(), (logits_processors.temperature(2.0), logits_processors.top_k(3), logits_processors.forced_eos(T, END))]


@pytest.mark.parametrize("obeyed", GIVEN, ids=["free", "with rules"])
@cases
@given(seeds, st.permutations(PREFIXES))
def test_the_score_is_the_mean_log_probability_of_the_tokens_found_under_the_model_itself(obeyed, seed, prefixes):
    table = draw(seed)
    drawn = sample(table, keys(seed), tables.given(*prefixes), obeyed=obeyed)
    for b, prefix in enumerate(prefixes):
        follows = tables.next_log_probs(table[b])
        for score, answer in zip(drawn.scores[b], map(list, answers(drawn, b)), strict=True):
            assert answer[: len(prefix)] == prefix
            told = [follows(answer[:t])[answer[t]] for t in range(len(prefix), len(answer))]
            np.testing.assert_allclose(score, np.mean(told), rtol=1e-6)


@pytest.mark.parametrize("obeyed", GIVEN, ids=["free", "with rules"])
@cases
@given(seeds, st.permutations(PREFIXES))
def test_what_is_remembered_of_each_token_stays_with_it(obeyed, seed, prefixes):
    table = draw(seed)
    drawn = sample(table, keys(seed), tables.given(*prefixes), obeyed=obeyed)
    for b in range(B):
        for w, answer in enumerate(answers(drawn, b)):
            tables.assert_remembered(table[b], answer, drawn.doc_log_probs[b, w])


@cases
@given(seeds)
def test_an_answer_ends_with_its_end_token_or_at_full_length_and_is_filled_up_with_the_end_token(seed):
    ids, lengths = sample(draw(seed), keys(seed)).tokens
    for tokens, length in zip(ids.reshape(-1, T).tolist(), lengths.flatten(), strict=True):
        assert tokens[:length] == naive.until_end(tokens, END)
        assert tokens[length:] == [END] * (T - length)


def test_an_end_may_be_forced_where_the_answer_is_cut():
    never = tables.chain(V, T, {CAT: 1.0}, {CAT: {CAT: 0.5, DOG: 0.5}, DOG: {CAT: 0.5, DOG: 0.5}})
    free, forced = (sample(never[None], keys(0, 1), count=50, obeyed=obeyed) for obeyed in ((), GIVEN[1][2:]))
    assert np.all(free.tokens.lengths == T)
    assert np.all(free.tokens.ids != END)
    assert np.all(forced.tokens.lengths == T)
    np.testing.assert_array_equal(forced.tokens.ids == END, np.broadcast_to(np.arange(T) == T - 1, (1, 50, T)))


def test_there_is_no_answer_where_every_token_is_banned():
    def ban(generated: Tokens, log_probs):
        nothing = generated.lengths[:, :, None] == 1
        return jnp.where(nothing & (generated.ids[:, :, :1] == CAT), -jnp.inf, log_probs)

    table = tables.chain(V, T, {CAT: 0.5, DOG: 0.5}, {CAT: {DOG: 1.0}, DOG: {DOG: 1.0}})
    drawn = sample(table[None], keys(0, 1), count=50, obeyed=(ban,))
    first = drawn.tokens.ids[0, :, 0]
    assert set(first.tolist()) == {CAT, DOG}
    np.testing.assert_array_equal(drawn.exists[0], first == DOG)


# The program.


def test_the_model_is_asked_as_long_as_some_answer_has_not_ended():
    asked, taken = [], []

    @jax.jit
    def program(table, keys):
        model = tables.model(table, tables.nothing(B), LIMITS)

        def step(tokens, origin, state):
            jax.debug.callback(lambda: asked.append(1))
            return model.decode_step(tokens, origin, state)

        return sampling.sample(model._replace(decode_step=step), LIMITS, keys=keys, num_samples=2)

    for seed in range(10):
        asked.clear()
        drawn = jax.block_until_ready(program(draw(seed), keys(seed)))
        jax.effects_barrier()
        taken.append(len(asked))
        assert taken[-1] == np.max(drawn.tokens.lengths) - 1  # the first tokens are told when it begins
    assert len(set(taken)) > 1


def test_one_program_samples_whatever_the_values_and_moves_nothing_to_or_from_the_host():
    begun = []

    @jax.jit
    def program(table, prefixes, keys):
        model = tables.model(table, prefixes, LIMITS)

        def begin(width):
            begun.append(width)
            return model.prefill(width)

        return sampling.sample(model._replace(prefill=begin), LIMITS, keys=keys, num_samples=W)

    for seed in range(3):
        told = draw(seed), tables.given(*PREFIXES[seed:], *PREFIXES[:seed]), keys(seed)
        on_device = jax.device_put(told)
        with jax.transfer_guard("disallow"):
            drawn = jax.block_until_ready(program(*on_device))
        table, prefixes, own = told
        assert_equal(jax.device_get(drawn), sample(table, own, prefixes))
    assert begun == [W]
