"""RAG-Token's answers, and the best of given ones."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import answering
import hypotheses
import naive
import readers
from answering import Beam, assert_best, assert_judged, close, decode, every_answer, found, judged, said
from rag_jax.core.decode import choice, rag_sequence, rag_token, sampling
from rag_jax.core.decode.decoded import Decoded
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Generator, Tokens
from readers import CAT, CHAINS, COW, DOG, END, HISTORIES, NETWORKS, SEEDS, B, Read, World, chain, of_chains, question
from suites import first

cases = hypotheses.costly
# Choices are compared, and rounding may decide a near-tie.
fixed = settings(cases, derandomize=True, max_examples=min(25, cases.max_examples))
seeds = st.integers(0, 2**32 - 1)
CASES = [(name, seed) for name in NETWORKS for seed in SEEDS]
networks = pytest.mark.parametrize(("name", "seed"), first(len(SEEDS), CASES))


# RAG-Token.


def assert_greedy(world: World, seed: int) -> None:
    seen = world.read(seed)
    decoded = decode("token", world, seen)
    for b in range(B):
        asked = question(world, seen, b)
        answer = naive.rag_token_greedy(asked.prior, asked.models, *world.limits[:3])
        assert found(decoded, b) == [answer]


@fixed
@drawn(seeds)
def test_one_beam_takes_the_likeliest_token_over_all_passages_at_each_step(seed):
    assert_greedy(HISTORIES, seed)


@networks
def test_one_beam_of_a_network_is_decoding_from_scratch_at_every_token(name, seed):
    assert_greedy(NETWORKS[name], seed)


@pytest.mark.parametrize("world", NETWORKS.values(), ids=NETWORKS)
def test_the_random_networks_answer_at_different_lengths_and_with_different_words(world):
    decoded = [decode("token", world, world.read(seed)) for seed in SEEDS]
    answers = [answer for each in decoded for b in range(B) for answer in found(each, b)]
    assert len({len(answer) for answer in answers}) > 1
    assert len({word for answer in answers for word in answer}) > 4


@cases
@drawn(seeds)
def test_likelihood_and_posteriors_are_the_papers_for_the_returned_tokens(seed):
    seen = HISTORIES.read(seed)
    assert_judged(decode("token", HISTORIES, seen, Beam(3)), "token", HISTORIES, seen)


@networks
def test_a_networks_likelihoods_are_those_of_decoding_from_scratch_at_every_token(name, seed):
    world, seen = NETWORKS[name], NETWORKS[name].read(seed)
    assert_judged(decode("token", world, seen, Beam(3)), "token", world, seen)


WIDE = Beam(num_beams=36, length_penalty=0.0, early_stopping="never")  # no beginning of tiny answers falls out of it
TINY = GenerationLimits((1,), 2, 4)
TINY_WORLDS = {
    "history": readers.history_world(4, TINY),
    "bart": readers.bart_world(4, TINY),
    "t5": readers.t5_world(4, TINY),
}


@pytest.mark.parametrize("world", first(2, TINY_WORLDS.values()), ids=TINY_WORLDS)
def test_a_wide_beam_finds_the_likeliest_of_all_answers(world):
    for seed in SEEDS:
        seen = world.read(seed)
        decoded = decode("token", world, seen, WIDE)
        assert_judged(decoded, "token", world, seen)
        for b in range(B):
            asked = question(world, seen, b)
            every = {tuple(answer): judged("token", asked, answer).log_prob for answer in every_answer(world)}
            close(sum(np.exp(list(every.values()))), 1.0)
            assert_best(decoded, b, every)


@pytest.mark.parametrize("penalty", first(1, [2.0, 0.0, 1.0]))
@hypotheses.costly
@drawn(seed=seeds)
def test_answers_are_ranked_by_the_likelihood_of_what_was_found_over_a_power_of_its_length(penalty, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    decoded = decode("token", HISTORIES, seen, Beam(3, penalty), given)
    assert np.all(decoded.exists)
    assert np.all(np.diff(decoded.score, axis=1) <= 0)
    for b in range(B):
        asked, begun = question(HISTORIES, seen, b), answering.prefix(given, b)
        told = judged("token", asked, begun).log_prob if begun else 0.0
        for c, answer in enumerate(found(decoded, b)):
            log_prob = judged("token", asked, answer).log_prob - told
            close(decoded.score[b, c], log_prob / (len(answer) - len(begun)) ** penalty)


CATS, DOGS = chain({CAT: 0.6, COW: 0.4}), chain({DOG: 0.6, COW: 0.4})


def test_rag_token_says_what_is_likeliest_over_all_passages_though_none_prefers_it():
    decoded = said("token", [CATS, DOGS, DOGS], [0.5, 0.2, 0.3])
    assert found(decoded, 0) == [[COW, END]]
    close(np.exp(decoded.log_prob), [[0.4]])


def test_rag_token_mixes_the_passages_anew_at_each_token():
    then_dog, then_cow = chain({CAT: 1.0}, {CAT: {DOG: 1.0}}), chain({CAT: 1.0}, {CAT: {COW: 1.0}})
    decoded = said("token", [then_dog, then_cow], [0.3, 0.7], Beam(2))
    assert found(decoded, 0) == [[CAT, COW, END], [CAT, DOG, END]]
    close(np.exp(decoded.log_prob), [[0.7, 0.3]])
    close(decoded.token_doc_posterior[0, 0], [[0.3, 0.0, 0.3], [0.7, 1.0, 0.7]])
    close(decoded.doc_posterior[0, 0], [0.2, 0.8])


def test_a_missing_passage_says_nothing():
    decoded = said("token", [chain({COW: 1.0}), CATS, CATS], [0.0, 0.5, 0.5])
    assert found(decoded, 0) == [[CAT, END]]
    close(decoded.doc_posterior[0, 0], [0.0, 0.5, 0.5])


@jax.jit
def _sampled(seen: Read, given: Tokens, keys) -> Decoded:
    search = partial(sampling.sample, keys=keys, num_samples=4)
    reader = EncodedInputs(HISTORIES.generator, seen.params, seen.memory)
    return rag_token.decode(reader, seen.log_prior, given, search=search, limits=HISTORIES.limits, n_best=4)


@cases
@drawn(seeds)
def test_any_search_decodes_rag_token_and_samples_have_its_likelihood(seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    decoded = jax.device_get(_sampled(seen, given, jax.random.split(jax.random.key(seed), B)))
    assert np.all(decoded.exists)
    assert_judged(decoded, "token", HISTORIES, seen)


# Choosing among given answers.

JUDGES = {"token": rag_token.marginalise, "sequence": rag_sequence.marginalise}
judges = pytest.mark.parametrize("model", list(JUDGES))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _choose(
    model: str, generator: Generator, limits: GenerationLimits, seen: Read, given: Tokens, answers: Tokens
) -> Decoded:
    reader = EncodedInputs(generator, seen.params, seen.memory)
    return choice.choose(reader, seen.log_prior, given, answers=answers, marginalise=JUDGES[model], limits=limits)


def choose(
    model: str, world: World, seen: Read, answers: list[list[list[int]]], given: Tokens | None = None
) -> Decoded:
    """Of the answers to each question; what stands behind their ends is no end token."""
    given = answering.nothing(len(answers)) if given is None else given
    lengths = np.array([[len(answer) for answer in row] for row in answers], np.int32)
    ids = np.full((*lengths.shape, world.limits.max_length), 1, np.int32)
    for b, c in np.ndindex(lengths.shape):
        ids[b, c, : lengths[b, c]] = answers[b][c]
    return jax.device_get(_choose(model, world.generator, world.limits, seen, given, Tokens(ids, lengths)))


def labels(seed: int, given: Tokens, count: int = 5) -> list[list[list[int]]]:
    """Different answers to each question, which share beginnings and begin with what they are given."""
    draw = np.random.default_rng(seed)
    chosen: list[list[list[int]]] = [[] for _ in range(B)]
    for b, row in enumerate(chosen):
        room = HISTORIES.limits.max_length - given.lengths[b]
        while len(row) < count:
            label = [*answering.prefix(given, b), *draw.integers(0, 3, draw.integers(1, room + 1)).tolist()]
            row.extend([label] * (label not in row))
    return chosen


@judges
@cases
@drawn(seed=seeds)
def test_given_answers_are_ranked_by_their_likelihood(model, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    answers = labels(seed, given)
    chosen = choose(model, HISTORIES, seen, answers, given)
    assert np.all(chosen.exists)
    for b in range(B):
        asked = question(HISTORIES, seen, b)
        expected = {tuple(answer): judged(model, asked, answer) for answer in answers[b]}
        assert_best(chosen, b, {answer: each.log_prob for answer, each in expected.items()})
        for c, answer in enumerate(found(chosen, b)):
            close(chosen.doc_posterior[b, c], expected[tuple(answer)].posterior)
            close(chosen.token_doc_posterior[b, c, :, : len(answer)], expected[tuple(answer)].token_posterior)
            close(chosen.score[b, c], chosen.log_prob[b, c] / len(answer))


@judges
def test_the_likelihoods_of_all_answers_sum_to_one(model):
    world = TINY_WORLDS["bart"]
    chosen = choose(model, world, world.read(0), [list(every_answer(world))] * B)
    close(np.exp(chosen.log_prob).sum(axis=1), np.ones(B))


@pytest.mark.parametrize(("model", "best"), [("token", [CAT, DOG]), ("sequence", [CAT, CAT])])
def test_the_models_choose_differently_where_the_passages_disagree(model, best):
    """CAT, then DOG: likely only if each token may come from another passage."""
    cats = chain({CAT: 0.9, DOG: 0.1}, {CAT: {CAT: 0.7, DOG: 0.3}})
    dogs = chain({CAT: 0.1, DOG: 0.9}, {CAT: {CAT: 0.1, DOG: 0.9}})
    answers = [[COW, END], [CAT, CAT], [CAT, DOG]]
    chosen = choose(model, CHAINS, of_chains([cats, dogs], [0.5, 0.5]), [answers])
    by_hand = {
        "token": [0.5 * 0.4, 0.5 * 0.6],
        "sequence": [(0.9 * 0.7 + 0.1 * 0.1) / 2, (0.9 * 0.3 + 0.1 * 0.9) / 2],
    }[model]
    assert found(chosen, 0)[0] == best
    close(np.exp(chosen.log_prob[0]), [*sorted(by_hand, reverse=True), 0.0])
