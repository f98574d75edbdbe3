"""What holds of every decoder: of RAG-Token, of RAG-Sequence thorough and fast."""

import jax
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import answering
import hypotheses
import readers
from answering import DECODERS, Beam, assert_judged, close, decode, found
from rag_jax.core.decode.decoded import Decoded
from rag_jax.types import Tokens
from readers import BARTS, CAT, CHAINS, DOG, END, HISTORIES, B, K, Read, World, chain, of_chains
from suites import first

cases = hypotheses.costly
# Choices are compared, and rounding may decide a near-tie.
fixed = settings(cases, derandomize=True, max_examples=min(25, cases.max_examples))
seeds = st.integers(0, 2**32 - 1)
decoders = pytest.mark.parametrize("decoder", first(2, DECODERS))
BEAM = Beam(3)
MODELS = {"token": "token", "thorough": "sequence"}


def row(seen: Read, given: Tokens, b: int) -> tuple[Read, Tokens]:
    """One question of several, with what its answers are given."""
    memory = jax.tree.map(lambda rows: rows[b * K : (b + 1) * K], seen.memory)
    return Read(seen.params, seen.log_prior[b : b + 1], memory), jax.tree.map(lambda rows: rows[b : b + 1], given)


def assert_same(one: Decoded, other: Decoded) -> None:
    """The same answers, and numbers that differ by rounding."""
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.exists, other.exists)
    jax.tree.map(close, one, other)


def assert_each_alone_is_as_in_the_batch(decoder: str, world: World, seed: int) -> None:
    seen, given = world.read(seed), answering.prefixes(seed, world, 2)
    together = decode(decoder, world, seen, BEAM, given)
    for b in range(B):
        own, begun = row(seen, given, b)
        assert_same(decode(decoder, world, own, BEAM, begun), jax.tree.map(lambda each, b=b: each[b : b + 1], together))


@decoders
@cases
@drawn(seed=seeds)
def test_a_batch_is_each_question_alone(decoder, seed):
    assert_each_alone_is_as_in_the_batch(decoder, HISTORIES, seed)


@pytest.mark.extended
def test_a_batch_read_by_a_network_is_each_question_alone():
    assert_each_alone_is_as_in_the_batch("token", BARTS, 0)


@decoders
@cases
@drawn(seed=seeds, other=seeds)
def test_wider_prefixes_and_what_stands_behind_their_ends_change_nothing(decoder, seed, other):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    wider = np.random.default_rng(other).integers(0, HISTORIES.words, (B, 4)).astype(np.int32)
    wider[:, :2] = np.where(np.arange(2)[None, :] < given.lengths[:, None], given.ids, wider[:, :2])
    expected = decode(decoder, HISTORIES, seen, BEAM, given)
    found = decode(decoder, HISTORIES, seen, BEAM, Tokens(wider, given.lengths))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_wider_inputs_and_what_stands_behind_their_ends_change_nothing():
    seen, given, draw = BARTS.read(0), answering.prefixes(0, BARTS, 2), np.random.default_rng(0)
    inputs = readers.inputs(draw, BARTS.words)
    wider = draw.integers(0, BARTS.words, (B * K, 9)).astype(np.int32)
    inside = np.arange(inputs.ids.shape[1])[None, :] < inputs.lengths[:, None]
    wider[:, : inputs.ids.shape[1]] = np.where(inside, inputs.ids, wider[:, : inputs.ids.shape[1]])
    encode = jax.jit(BARTS.generator.encode)
    one, other = (
        decode("token", BARTS, seen._replace(memory=encode(seen.params, each)), BEAM, given)
        for each in (inputs, Tokens(wider, inputs.lengths))
    )
    assert_same(one, other)


@pytest.mark.parametrize(
    ("decoder", "chunk"),
    [
        ("token", 3),
        ("thorough", 2),
        pytest.param("fast", 2, marks=pytest.mark.extended),
        *(pytest.param("token", chunk, marks=pytest.mark.slow) for chunk in (1, 2, 50)),
    ],
)
@cases
@drawn(seed=seeds)
def test_reading_what_is_given_in_chunks_changes_nothing(decoder, chunk, seed):
    in_chunks = HISTORIES._replace(limits=HISTORIES.limits._replace(prefill_chunk=chunk))
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 4)
    expected = decode(decoder, HISTORIES, seen, BEAM, given)
    jax.tree.map(np.testing.assert_array_equal, decode(decoder, in_chunks, seen, BEAM, given), expected)


@pytest.mark.parametrize("most", first(1, [2, 4]))
@pytest.mark.parametrize("decoder", list(MODELS))
@cases
@drawn(seed=seeds)
def test_answers_continue_what_is_given_and_their_likelihood_is_that_of_the_whole(decoder, most, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, most)
    decoded = decode(decoder, HISTORIES, seen, BEAM, given)
    assert_judged(decoded, MODELS[decoder], HISTORIES, seen)
    for b in range(B):
        begun = answering.prefix(given, b)
        assert all(answer[: len(begun)] == begun and len(answer) > len(begun) for answer in found(decoded, b))


@pytest.mark.parametrize(("decoder", "posterior"), first(2, [("token", 0.7), ("thorough", 0.9), ("fast", 0.9)]))
def test_what_is_given_is_evidence_for_the_passages_that_say_it(decoder, posterior):
    """RAG-Token's posterior is the mean over the given token, 0.9, and the end, 0.5."""
    seen = of_chains([chain({CAT: 0.9, DOG: 0.1}), chain({CAT: 0.1, DOG: 0.9})], [0.5, 0.5])
    decoded = decode(decoder, CHAINS, seen, given=Tokens(np.array([[CAT]], np.int32), np.ones(1, np.int32)))
    assert found(decoded, 0) == [[CAT, END]]
    close(decoded.doc_posterior[0, 0], [posterior, 1 - posterior])
    close(np.exp(decoded.log_prob), [[0.5]])


@decoders
@cases
@drawn(seed=seeds)
def test_a_question_without_any_passage_has_no_answer_and_leaves_the_others_alone(decoder, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    empty = seen._replace(log_prior=np.where(np.arange(B)[:, None] == 0, -np.inf, seen.log_prior).astype(np.float32))
    before, after = (decode(decoder, HISTORIES, each, BEAM, given) for each in (seen, empty))
    assert not np.any(after.exists[0])
    assert np.all(np.isneginf(after.log_prob[0]))
    assert not any(np.any(each[0]) for each in (after.mask, after.doc_posterior, after.token_doc_posterior))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[1:], new[1:])


@decoders
def test_prefixes_that_leave_no_room_for_an_answer_are_refused(decoder):
    seen, given = HISTORIES.read(0), answering.prefixes(0, HISTORIES, HISTORIES.limits.max_length)
    with pytest.raises(ValueError, match="a prefix of 5 tokens leaves no room in answers of 5"):
        decode(decoder, HISTORIES, seen, BEAM, given)


@cases
@drawn(seeds)
def test_with_one_passage_all_decoders_are_the_same(seed):
    """Ranked alike: without a length penalty, as likelihoods are."""
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    single = Read(seen.params, np.zeros((B, 1), np.float32), seen.memory[::K])
    token, *others = (decode(decoder, HISTORIES, single, Beam(3, length_penalty=0.0), given) for decoder in DECODERS)
    for other in others:
        assert_same(token._replace(score=other.score), other)
    close(token.doc_posterior, token.exists[:, :, None].astype(np.float32))


@decoders
@fixed
@drawn(seed=seeds)
def test_identical_passages_make_the_prior_irrelevant(decoder, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    same = seen._replace(memory=np.repeat(seen.memory[::K], K))
    certain = np.where(np.arange(K)[None, :] == np.zeros((B, 1)), 0.0, -np.inf).astype(np.float32)
    one, other = (
        decode(decoder, HISTORIES, same._replace(log_prior=prior), BEAM, given) for prior in (seen.log_prior, certain)
    )
    assert all(found(one, b) == found(other, b) for b in range(B))
    close(one.log_prob, other.log_prob)
    close(one.score, other.score)
    close(one.doc_posterior, np.exp(seen.log_prior)[:, None, :] * one.exists[:, :, None])


@pytest.mark.parametrize("decoder", list(MODELS))
@cases
@drawn(seed=seeds)
def test_the_n_best_are_the_first_of_all(decoder, seed):
    seen, given = HISTORIES.read(seed), answering.prefixes(seed, HISTORIES, 2)
    fewer, all_of_them = (decode(decoder, HISTORIES, seen, BEAM, given, n_best) for n_best in (2, 3))
    jax.tree.map(lambda some, every: np.testing.assert_array_equal(some, every[:, :2]), fewer, all_of_them)
