"""RAG-Sequence's answers, thorough, fast and sampled, against the paper's words in loops."""

import math
from collections import Counter
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
from rag_jax.core.decode import beam, language_model, logits_processors, rag_sequence
from rag_jax.core.decode.decoded import Decoded
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs, repeat_per_doc
from rag_jax.core.decode.trie import Blocks
from rag_jax.types import Generator, Tokens
from readers import (
    CAT,
    CHAINS,
    COW,
    DOG,
    END,
    HISTORIES,
    NETWORKS,
    SEEDS,
    B,
    K,
    Read,
    World,
    chain,
    of_chains,
    question,
)
from suites import first

cases = hypotheses.costly
# Choices are compared, and rounding may decide a near-tie.
fixed = settings(cases, derandomize=True, max_examples=min(25, cases.max_examples))
seeds = st.integers(0, 2**32 - 1)
CASES = [(name, seed) for name in NETWORKS for seed in SEEDS]
networks = pytest.mark.parametrize(("name", "seed"), first(len(SEEDS), CASES))
methods = pytest.mark.parametrize("method", ["thorough", "fast"])
Answer = tuple[int, ...]


# What the passages propose, judged by all of them or by those that proposed it.


@partial(jax.jit, static_argnums=(0, 1, 2))
def _proposed(generator: Generator, beams: Beam, limits: GenerationLimits, seen: Read, given: Tokens):
    model = language_model.per_passage(
        EncodedInputs(generator, seen.params, seen.memory), repeat_per_doc(given, K), limits
    )
    return beam.search(model, limits, **beams._asdict())


def proposed(world: World, seen: Read, beams: Beam, given: Tokens) -> list[list[set[Answer]]]:
    """The beam set of each passage of each question; of a missing passage, none."""
    tokens, scores, _ = jax.device_get(_proposed(world.generator, beams, world.limits, seen, given))
    sets: list[list[set[Answer]]] = [[set() for _ in range(K)] for _ in range(B)]
    for row, w in zip(*np.nonzero(np.isfinite(scores)), strict=True):
        b, k = divmod(row, K)
        if np.isfinite(seen.log_prior[b, k]):
            sets[b][k].add(tuple(naive.until_end(tokens.ids[row, w].tolist(), world.limits.eos)))
    return sets


def likelihoods(method: str, asked: readers.Question, sets: list[set[Answer]]) -> dict[Answer, float]:
    """Of all that the passages propose: a sum over the passages, or over those that have it in their beams."""
    told = {}
    for answer in set().union(*sets):
        total = 0.0
        for p, probs, beams in zip(asked.prior, asked.models, sets, strict=True):
            if method == "thorough" or answer in beams:
                by_token = naive.teacher_forced([probs], answer, asked.start)[0]
                total += p * math.prod(by_token[t, token] for t, token in enumerate(answer))
        told[answer] = math.log(total)
    return told


def assert_as_in_the_paper(method: str, world: World, seed: int, beams: Beam, most_given: int = 2) -> None:
    seen, given = world.read(seed), answering.prefixes(seed, world, most_given)
    sets = proposed(world, seen, beams, given)
    decoded = decode(method, world, seen, beams, given)
    for b in range(B):
        assert_best(decoded, b, likelihoods(method, question(world, seen, b), sets[b]))
        assert all(answer[: given.lengths[b]] == answering.prefix(given, b) for answer in found(decoded, b))
    if method == "thorough":
        assert_judged(decoded, "sequence", world, seen)


@methods
@cases
@drawn(seed=seeds)
def test_answers_are_what_the_passages_propose_by_the_papers_likelihood(method, seed):
    assert_as_in_the_paper(method, HISTORIES, seed, Beam(3))


@methods
@networks
def test_a_networks_answers_are_those_of_decoding_from_scratch_at_every_token(method, name, seed):
    assert_as_in_the_paper(method, NETWORKS[name], seed, Beam(3))


@fixed
@drawn(seeds)
def test_with_one_beam_each_passage_proposes_its_greedy_answer(seed):
    seen = HISTORIES.read(seed)
    decoded = decode("thorough", HISTORIES, seen)
    for b in range(B):
        asked = question(HISTORIES, seen, b)
        answer = naive.rag_sequence_greedy(asked.prior, asked.models, *HISTORIES.limits[:3])
        assert found(decoded, b) == [answer]


@cases
@drawn(seeds)
def test_fast_posteriors_are_those_of_the_passages_that_proposed_the_answer(seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    decoded, sets = decode("fast", HISTORIES, seen, Beam(3), given), proposed(HISTORIES, seen, Beam(3), given)
    for b in range(B):
        asked = question(HISTORIES, seen, b)
        for c, answer in enumerate(map(tuple, found(decoded, b))):
            told = [answer in beams for beams in sets[b]]
            posterior = judged("sequence", asked._replace(prior=asked.prior * told), answer).posterior
            close(decoded.doc_posterior[b, c], posterior)
            close(decoded.token_doc_posterior[b, c, :, : len(answer)], np.repeat(posterior[:, None], len(answer), 1))


TINY = GenerationLimits((1,), 2, 3)
TINY_WORLDS = {"history": readers.history_world(4, TINY), "bart": readers.bart_world(4, TINY)}
ALL = Beam(num_beams=42, length_penalty=0.0, early_stopping="never")  # more than there are tiny answers


@pytest.mark.parametrize(
    ("method", "world"), first(1, [("thorough", "history"), ("thorough", "bart"), ("fast", "history")])
)
def test_where_every_passage_proposes_every_answer_the_likeliest_of_all_are_found(method, world):
    world = TINY_WORLDS[world]
    for seed in SEEDS:
        seen = world.read(seed)
        decoded = decode(method, world, seen, ALL)
        assert_judged(decoded, "sequence", world, seen)
        for b in range(B):
            asked = question(world, seen, b)
            every = {tuple(answer): judged("sequence", asked, answer).log_prob for answer in every_answer(world)}
            close(sum(np.exp(list(every.values()))), 1.0)
            assert_best(decoded, b, every)


CATS, DOGS = chain({CAT: 0.6, COW: 0.4}), chain({DOG: 0.6, COW: 0.4})


def test_what_one_passage_proposed_and_all_support_is_said():
    decoded = said("thorough", [CATS, DOGS, chain({COW: 1.0})], [0.4, 0.4, 0.2])
    assert found(decoded, 0) == [[COW, END]]
    close(np.exp(decoded.log_prob), [[0.4 * 0.4 + 0.4 * 0.4 + 0.2]])


def test_fast_counts_only_the_support_of_those_that_proposed():
    decoded = said("fast", [CATS, DOGS, chain({COW: 1.0})], [0.4, 0.4, 0.2])
    assert found(decoded, 0) in ([[CAT, END]], [[DOG, END]])
    close(np.exp(decoded.log_prob), [[0.4 * 0.6]])


def test_a_proposal_has_the_support_of_the_other_passages():
    cats = chain({CAT: 0.5, DOG: 0.4, COW: 0.1}, {CAT: {END: 0.3, DOG: 0.3, COW: 0.4}})
    decoded = said("thorough", [cats, DOGS, DOGS], [0.7, 0.1, 0.2])
    assert found(decoded, 0) == [[DOG, END]]
    close(np.exp(decoded.log_prob), [[0.7 * 0.4 + 0.3 * 0.6]])


@methods
def test_a_missing_passage_proposes_nothing_and_supports_nothing(method):
    lonely = chain({DOG: 0.6, COW: 0.4}, {DOG: {END: 0.25, CAT: 0.25, DOG: 0.25, COW: 0.25}})
    missing = chain({COW: 1.0})  # its proposal would be likelier: 0.4 against 0.6 * 0.25
    decoded = said(method, [missing, lonely, lonely], [0.0, 0.5, 0.5])
    assert decoded.tokens[0, 0, 0] == DOG
    close(decoded.doc_posterior[0, 0], [0.0, 0.5, 0.5])


def test_a_passage_is_not_asked_for_what_it_proposed_itself():
    """Where all passages propose alike, nothing passes the decoder after their searches."""
    shapes: list[tuple[int, ...]] = []

    def follow(params, decoder_inputs, *rest, **others):
        jax.debug.callback(partial(shapes.append, decoder_inputs.shape))
        return CHAINS.generator.decode(params, decoder_inputs, *rest, **others)

    def scored(*passages: np.ndarray) -> int:
        shapes.clear()
        jax.block_until_ready(answer(of_chains(passages, [0.5, 0.5]), answering.nothing(1)))
        jax.effects_barrier()
        return shapes.count((2, 7))

    @jax.jit
    def answer(seen: Read, given: Tokens):
        reader = EncodedInputs(CHAINS.generator._replace(decode=follow), seen.params, seen.memory)
        options = {"search": partial(beam.search, num_beams=2), "limits": CHAINS.limits, "blocks": Blocks(nodes=7)}
        return rag_sequence.thorough(reader, seen.log_prior, given, **options)

    assert scored(CATS, CATS) == 0
    assert scored(CATS, DOGS) > 0


# Samples.

GREEDY = (logits_processors.top_k(1),)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sample(
    generator: Generator, limits: GenerationLimits, count: int, shaping, seen: Read, keys, given: Tokens
) -> Decoded:
    reader, blocks = EncodedInputs(generator, seen.params, seen.memory), Blocks(9, 128, 64)
    options = {"keys": keys, "num_samples": count, "limits": limits, "logits_processors": shaping, "blocks": blocks}
    return rag_sequence.sample(reader, seen.log_prior, given, **options)


def sample(world: World, seen: Read, count: int, seed: int = 0, shaping=(), given: Tokens | None = None) -> Decoded:
    batch = len(seen.log_prior)
    keys, given = jax.random.split(jax.random.key(seed), batch), answering.nothing(batch) if given is None else given
    return jax.device_get(_sample(world.generator, world.limits, count, shaping, seen, keys, given))


@pytest.mark.extended
@pytest.mark.parametrize("world", [TINY_WORLDS["history"], CHAINS], ids=["history", "chain"])
def test_answers_are_drawn_as_often_as_the_paper_says(world):
    """Within five standard errors, all of them."""
    count = 4096
    seen = world.read(0)
    decoded = sample(world, seen, count)
    assert np.all(decoded.exists)
    for b in range(B):
        often, asked = Counter(map(tuple, found(decoded, b))), question(world, seen, b)
        every = {tuple(answer): judged("sequence", asked, answer).log_prob for answer in every_answer(world)}
        assert set(often) <= set(every)
        for answer, log_prob in every.items():
            p = np.exp(log_prob)
            assert abs(often[answer] / count - p) <= 5 * np.sqrt(p * (1 - p) / count)
        close(decoded.log_prob[b], [every[tuple(answer)] for answer in found(decoded, b)])


def test_one_passage_writes_the_whole_answer():
    cats, dogs = (chain({word: 1.0}, {word: {word: 1.0}}) for word in (CAT, DOG))
    decoded = sample(CHAINS, of_chains([cats, dogs], [0.5, 0.5]), 64)
    assert {tuple(answer) for answer in found(decoded, 0)} == {(CAT,) * 3, (DOG,) * 3}
    close(np.exp(decoded.log_prob), np.full((1, 64), 0.5))


def test_a_missing_passage_is_never_drawn():
    decoded = sample(CHAINS, of_chains([CATS, chain({DOG: 1.0})], [1.0, 0.0]), 64)
    assert {answer[0] for answer in found(decoded, 0)} == {CAT, COW}
    close(decoded.doc_posterior[0], np.array([[1.0, 0.0]] * 64))


def test_a_question_without_any_passage_has_no_sample_and_leaves_the_others_alone():
    seen = HISTORIES.read(0)
    empty = seen._replace(log_prior=np.where(np.arange(B)[:, None] == 0, -np.inf, seen.log_prior).astype(np.float32))
    before, after = (sample(HISTORIES, each, 4, given=answering.prefixes(0, HISTORIES, 3)) for each in (seen, empty))
    assert not any(np.any(each[0]) for each in (after.exists, after.mask, after.doc_posterior))
    assert np.all(np.isneginf(after.log_prob[0]))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[1:], new[1:])


@cases
@drawn(seeds)
def test_samples_continue_what_is_given_and_have_the_likelihood_of_the_whole(seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 3)
    decoded = sample(HISTORIES, seen, 4, seed, given=given)
    assert np.all(decoded.exists)
    assert_judged(decoded, "sequence", HISTORIES, seen)
    for b in range(B):
        assert all(answer[: given.lengths[b]] == answering.prefix(given, b) for answer in found(decoded, b))


@networks
def test_a_networks_samples_have_the_likelihood_of_decoding_from_scratch(name, seed):
    world, seen = NETWORKS[name], NETWORKS[name].read(seed)
    assert_judged(sample(world, seen, 4, seed), "sequence", world, seen)


@cases
@drawn(seeds)
def test_rules_shape_what_is_drawn_and_not_its_likelihood(seed):
    """Of the likeliest token only: the passages' greedy answers."""
    seen = HISTORIES.read(seed)
    decoded = sample(HISTORIES, seen, 4, seed, GREEDY)
    assert_judged(decoded, "sequence", HISTORIES, seen)
    sets = proposed(HISTORIES, seen, Beam(1), answering.nothing())
    for b in range(B):
        assert {tuple(answer) for answer in found(decoded, b)} <= set().union(*sets[b])


def test_the_same_keys_draw_the_same_and_other_keys_others():
    seen, given = HISTORIES.read(0), answering.prefixes(0, HISTORIES, 3)
    first, again, other = (sample(HISTORIES, seen, 4, seed, given=given) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all(found(first, b) != found(other, b) for b in range(B))
    assert len({tuple(answer) for answer in found(first, 0)}) > 1


def test_what_a_question_draws_does_not_depend_on_those_beside_it():
    seen, keys = HISTORIES.read(0), jax.random.split(jax.random.key(0), B)
    mirrored = seen.memory.reshape(B, K)[::-1].reshape(-1)
    told = seen, keys, answering.prefixes(0, HISTORIES, 3)
    reverse = (
        seen._replace(log_prior=seen.log_prior[::-1], memory=mirrored),
        *jax.tree.map(lambda each: each[::-1], told[1:]),
    )
    together, other = (
        jax.device_get(_sample(HISTORIES.generator, HISTORIES.limits, 4, (), *each)) for each in (told, reverse)
    )
    jax.tree.map(lambda one, two: np.testing.assert_array_equal(one, two[::-1]), together, other)
