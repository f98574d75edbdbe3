"""Beam search against a loop in plain Python: whatever the number of beams, beside others and from any beginning."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import beams
import hypotheses
import naive
import tables
from beams import Options, assert_same, close, found, rounds
from rag_jax.core.decode import beam, logits_processors
from rag_jax.core.decode.search import GenerationLimits
from suites import first, only
from tables import CAT, DOG, END

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
B, V, T = 4, 4, 5
LIMITS = GenerationLimits((), END, T)
PREFIXES = [[], [2], [0, 3], [3, 3, 0]]
EARLY = [False, True, "never"]
PENALTIES = [0.0, 1.0, 2.0, -0.5]


def search(table, options, prefixes=None, limits=LIMITS):
    """Answers to each question."""
    return beams.search(table, options, limits, prefixes)


def by_loops(table, options, prefix=()):
    """The same of one question, in plain Python."""
    return beams.by_loops(table, options, LIMITS, prefix)


# Hand-made questions: of two words, one makes answers whose length pays off late, the other never ends.

PATIENT = tables.chain(V, T, {END: 0.5, CAT: 0.35, DOG: 0.15}, {CAT: {END: 0.6, CAT: 0.4}, DOG: {DOG: 1.0}})
ENDLESS = tables.chain(V, T, {CAT: 0.6, DOG: 0.4}, {CAT: {CAT: 1.0}, DOG: {DOG: 1.0}})
CATS, DOGS = [CAT] * T, [DOG] * T


def test_only_a_search_that_never_stops_early_waits_for_an_answer_whose_length_pays_off():
    table = np.stack([PATIENT] * B)
    best = {early: found(search(table, Options(2, 1.0, early)), 0)[0] for early in EARLY}
    assert best["never"][1] == DOGS
    assert best[False] == best[True]
    assert best[False][1] == [END]
    assert best["never"][0] > best[False][0]


def test_an_answer_without_an_end_is_cut_at_full_length():
    answers = found(search(np.stack([ENDLESS] * B), Options(2)), 0)
    assert [tokens for _, tokens in answers] == [CATS, DOGS]
    close([score for score, _ in answers], np.log([0.6, 0.4]) / T, atol=2**-12)  # the grid


@pytest.mark.parametrize("early", [False, True])
def test_a_question_that_is_done_gains_nothing_while_another_runs_on(early):
    options = Options(2, 1.0, early)
    together = search(np.stack([PATIENT, ENDLESS] * 2), options)
    assert [tokens for _, tokens in found(together, 1)] == [CATS, DOGS]
    assert_same(found(together, 0), by_loops(PATIENT, options))
    assert by_loops(PATIENT, options._replace(early_stopping=None))[0][1] == DOGS  # what it would have gained


# Any number of beams.

DRAWS = {"histories": tables.draw, "chains": tables.draw_chains}
WAYS = [Options(count, 1.0, early) for count in (1, 2) for early in EARLY]
WAYS += [Options(3, penalty, early) for penalty in PENALTIES for early in EARLY if penalty > 0 or early is not True]
WAYS += [Options(4)]
EVERY_DAY = [Options(1), *(Options(3, 2.0, early) for early in EARLY), Options(3, 0.0, "never")]
ways = pytest.mark.parametrize("options", only(EVERY_DAY, WAYS), ids=lambda options: "-".join(map(str, options[:3])))


@ways
@cases
@given(seeds, st.sampled_from(list(DRAWS)))
def test_the_search_is_the_loop_in_python(options, seed, kind):
    table = DRAWS[kind](seed, B, V, T)
    hypotheses = search(table, options)
    for b in range(B):
        assert_same(found(hypotheses, b), by_loops(table[b], options))


@pytest.mark.parametrize("options", [each for each in WAYS if each.num_beams == 1])
@cases
@given(seeds)
def test_one_beam_is_greedy_whenever_it_is_told_to_stop(options, seed):
    table = tables.draw(seed, B, V, T)
    hypotheses = search(table, options)
    for b in range(B):
        follows = tables.next_log_probs(table[b])
        answer = naive.greedy(follows, [], END, T)
        log_prob = sum(float(follows(answer[:t])[token]) for t, token in enumerate(answer))
        assert_same(found(hypotheses, b), [(log_prob / len(answer), answer)])


NOTHING_LOST = [each for each in WAYS if each.num_beams == 3 and each.early_stopping == "never"]
NOTHING_LOST += [Options(3, penalty, False) for penalty in PENALTIES if penalty <= 0]


@pytest.mark.parametrize("options", first(1, NOTHING_LOST))
@cases
@given(seeds)
def test_stopping_loses_nothing_if_never_early_or_if_length_is_not_rewarded(options, seed):
    table = tables.draw(seed, B, V, T)
    hypotheses = search(table, options)
    for b in range(B):
        assert_same(found(hypotheses, b), by_loops(table[b], options._replace(early_stopping=None)))


@pytest.mark.parametrize("penalty", [1.0, 2.0])
@cases
@given(seeds)
def test_who_stops_later_finds_nothing_worse(penalty, seed):
    table = tables.draw(seed, B, V, T)
    at_once, at_length, never = (search(table, Options(3, penalty, early)).scores for early in (True, False, "never"))
    assert np.all(at_once <= at_length)
    assert np.all(at_length <= never)


@ways
@cases
@given(seeds)
def test_answers_come_best_first_and_no_two_are_the_same(options, seed):
    hypotheses = search(tables.draw_chains(seed, B, V, T), options)
    assert np.all(hypotheses.exists)
    assert np.all(np.diff(hypotheses.scores, axis=1) <= 0)
    for b in range(B):
        assert len({tuple(tokens) for _, tokens in found(hypotheses, b)}) == options.num_beams


def test_a_word_of_probability_zero_is_in_no_answer():
    table = tables.chain(V, T, {END: 0.5, CAT: 0.3, DOG: 0.2}, {CAT: {DOG: 0.6, END: 0.4}})
    hypotheses = search(np.stack([table] * B), Options(4))
    expected = [[END], [CAT, END], [CAT, DOG, END], [DOG, END]]
    assert sorted(tokens for _, tokens in found(hypotheses, 0)) == expected
    lonely = tables.chain(V, T, {END: 0.5, CAT: 0.5}, {})
    hypotheses = search(np.stack([table, lonely] * 2), Options(4))
    assert sorted(tokens for _, tokens in found(hypotheses, 1)) == [[END], [CAT, END]]
    assert hypotheses.scores[1, 2:].tolist() == [-np.inf] * 2


# Questions side by side.

TOGETHER = [Options(3, 1.0, False), Options(3, 2.0, True)]


@pytest.mark.parametrize("options", first(1, TOGETHER))
@cases
@given(seeds)
def test_a_batch_is_each_question_alone(options, seed):
    table = tables.draw(seed, B, V, T)
    together = search(table, options)
    for b in range(B):
        alone = search(table[b : b + 1], options)
        for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(one[b : b + 1], other)


# Where answers begin and end.

GIVEN = [Options(3, 1.0, False), Options(2, 2.0, "never")]


@pytest.mark.parametrize("options", first(1, GIVEN))
@cases
@given(seeds, st.permutations(PREFIXES))
def test_going_on_from_a_prefix_is_searching_what_follows_it(options, seed, prefixes):
    """Of any length, in one batch; what was given neither counts as length nor into the score."""
    table = tables.draw(seed, B, V, T)
    hypotheses = search(table, options, tables.given(*prefixes))
    for b, prefix in enumerate(prefixes):
        assert_same(found(hypotheses, b), by_loops(table[b], options, prefix))


@pytest.mark.parametrize(
    "options",
    [
        GIVEN[0],
        pytest.param(GIVEN[1], marks=pytest.mark.extended),
        Options(3, 1.0, False, (logits_processors.forced_eos(T, END),)),
    ],
)
@cases
@given(seeds, st.permutations(PREFIXES))
def test_what_is_remembered_of_each_token_stays_with_it_and_tells_the_models_log_probability(options, seed, prefixes):
    table = tables.draw(seed, B, V, T)
    hypotheses = search(table, options, tables.given(*prefixes))
    for b in range(B):
        for w, (_, answer) in enumerate(found(hypotheses, b)):
            tables.assert_remembered(table[b], answer, hypotheses.doc_log_probs[b, w])


@cases
@given(seeds)
def test_an_answer_ends_with_its_end_token_or_at_full_length_and_is_filled_up_with_the_end_token(seed):
    ids, lengths = search(tables.draw(seed, B, V, T), Options(3)).tokens
    for tokens, length in zip(ids.reshape(-1, T).tolist(), lengths.flatten(), strict=True):
        assert tokens[:length] == naive.until_end(tokens, END)
        assert tokens[length:] == [END] * (T - length)


@cases
@given(seeds)
def test_answers_of_one_token_are_the_best_tokens(seed):
    table = tables.draw(seed, B, V, 1)
    hypotheses = search(table, Options(3), limits=GenerationLimits((), END, 1))
    for b in range(B):
        expected = naive.best([(float(score), [token]) for token, score in enumerate(table[b, 0])], 3)
        assert_same(found(hypotheses, b), expected)


# The program.


def steps(options: Options, length: int):
    """A search that tells how often its model was asked for what follows."""
    limits, asked = GenerationLimits((), END, length), []

    @jax.jit
    def program(table, prefixes):
        model = tables.model(table, prefixes, limits)

        def step(tokens, origin, state):
            jax.debug.callback(lambda: asked.append(1))
            return model.decode_step(tokens, origin, state)

        return beam.search(model._replace(decode_step=step), limits, **options._asdict())

    def taken(table) -> int:
        asked.clear()
        jax.block_until_ready(program(table, tables.nothing(len(table))))
        jax.effects_barrier()
        return len(asked)

    return taken


@pytest.mark.parametrize("options", first(2, [Options(1), Options(2), Options(2, 1.0, True), Options(2, 0.5, "never")]))
def test_the_model_is_asked_as_long_as_some_question_may_gain(options):
    """The first tokens are told when it begins."""
    taken, expected = steps(options, T), []
    for seed in range(10):
        table = tables.draw(seed, 2, V, T)
        expected.append(max(rounds(each, options, T) for each in table) - 1)
        assert taken(table) == expected[-1]
    assert len(set(expected)) > 1


def test_for_one_token_the_model_need_only_begin():
    assert steps(Options(2), 1)(tables.draw(0, B, V, 1)) == 0


def test_one_program_searches_whatever_the_values_and_moves_nothing_to_or_from_the_host():
    begun = []

    @jax.jit
    def program(table, prefixes):
        model = tables.model(table, prefixes, LIMITS)

        def begin(width):
            begun.append(width)
            return model.prefill(width)

        return beam.search(model._replace(prefill=begin), LIMITS, num_beams=3)

    for seed in range(3):
        table, prefixes = tables.draw(seed, B, V, T), tables.given(*PREFIXES[seed:], *PREFIXES[:seed])
        on_device = jax.device_put((table, prefixes))
        with jax.transfer_guard("disallow"):
            hypotheses = jax.block_until_ready(program(*on_device))
        expected = search(table, Options(3), prefixes)
        for one, other in zip(jax.tree.leaves(hypotheses), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)
    assert begun == [3]
