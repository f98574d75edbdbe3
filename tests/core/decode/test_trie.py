"""Given answers, scored together, against each of them read by itself."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import readers
from rag_jax.core.decode import trie
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.decode.trie import Blocks
from rag_jax.types import Generator, Tokens
from readers import HISTORIES, NETWORKS, SEEDS, Read, World
from suites import first, only

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
R, C, T, G = readers.B * readers.K, 7, 5, 3
BLOCKS = [Blocks(), Blocks(1, 1, 1), Blocks(2, 3, 4), Blocks(3, 2, 3), Blocks(100, 5, 2), Blocks(4, 100, 100)]
blocked = pytest.mark.parametrize("blocks", only([BLOCKS[0], BLOCKS[2]], BLOCKS), ids=str)


def problem(seed: int, most_given: int = G) -> tuple[Tokens, Tokens, np.ndarray]:
    """What each row is given, answers of few words that begin with it, and which of them are present."""
    draw = np.random.default_rng(seed)
    given = draw.integers(0, most_given + 1, R).astype(np.int32)
    prefix = draw.integers(0, 3, (R, most_given)).astype(np.int32)
    ids = draw.integers(0, 3, (R, C, T)).astype(np.int32)
    held = np.arange(most_given)[None, :] < given[:, None]
    ids[:, :, :most_given] = np.where(held[:, None], prefix[:, None], ids[:, :, :most_given])
    lengths = draw.integers(given[:, None], T + 1, (R, C)).astype(np.int32)
    return Tokens(prefix, given), Tokens(ids, lengths), draw.random((R, C)) < 0.7


@partial(jax.jit, static_argnums=(0, 1, 2))
def _score(generator: Generator, limits: GenerationLimits, blocks: Blocks, seen: Read, *told):
    return trie.score_rows(EncodedInputs(generator, seen.params, seen.memory), *told, limits, blocks)


def score(world: World, seen: Read, *told, blocks: Blocks = trie.BLOCKS, chunk: int | None = None) -> np.ndarray:
    return jax.device_get(_score(world.generator, world.limits._replace(prefill_chunk=chunk), blocks, seen, *told))


def alone(world: World, seen: Read, answers: Tokens, present: np.ndarray) -> np.ndarray:
    """Each answer read by itself, from its beginning at every token; zero where there is none."""
    expected = np.zeros(answers.ids.shape)
    for row, c in zip(*np.nonzero(present), strict=True):
        next_probs, answer = world.next_probs(seen, row), answers.ids[row, c, : answers.lengths[row, c]].tolist()
        for t, token in enumerate(answer):
            expected[row, c, t] = np.log(next_probs([*world.limits.decoder_start, *answer[:t]])[token])
    return expected


@blocked
@cases
@given(seed=seeds)
def test_the_score_of_an_answer_is_that_of_reading_it_by_itself(blocks, seed):
    seen, (prefix, answers, present) = HISTORIES.read(seed), problem(seed)
    found = score(HISTORIES, seen, prefix, answers, present, blocks=blocks)
    close(found, alone(HISTORIES, seen, answers, present))


@pytest.mark.parametrize("blocks", first(1, [BLOCKS[2], BLOCKS[0]]), ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("world", first(1, NETWORKS.values()), ids=NETWORKS)
def test_a_networks_score_of_an_answer_is_that_of_reading_it_by_itself(world, blocks, seed):
    seen, (prefix, answers, present) = world.read(seed), problem(seed)
    close(score(world, seen, prefix, answers, present, blocks=blocks), alone(world, seen, answers, present))


@pytest.mark.parametrize("chunk", first(1, [2, 1]))
@cases
@given(seed=seeds)
def test_what_the_answers_are_given_is_read_in_chunks_with_the_same_scores(chunk, seed):
    seen, (prefix, answers, present) = HISTORIES.read(seed), problem(seed)
    found = score(HISTORIES, seen, prefix, answers, present, chunk=chunk)
    close(found, alone(HISTORIES, seen, answers, present))


@cases
@given(seeds)
def test_answers_that_were_given_nothing_are_scored_alike(seed):
    """Whether they share their first tokens by a given prefix or by themselves."""
    seen, (prefix, answers, present) = HISTORIES.read(seed), problem(seed)
    nothing = Tokens(prefix.ids[:, :0], 0 * prefix.lengths)
    given_some, given_none = (score(HISTORIES, seen, each, answers, present) for each in (prefix, nothing))
    close(given_some, given_none)


@cases
@given(seeds, seeds)
def test_what_stands_behind_the_ends_and_in_absent_answers_does_not_matter(seed, other):
    seen, (prefix, answers, present) = HISTORIES.read(seed), problem(seed)
    draw = np.random.default_rng(other)
    noise = draw.integers(0, HISTORIES.words, (R, C, T)).astype(np.int32)
    inside = (np.arange(T) < answers.lengths[:, :, None]) & present[:, :, None]
    lengths = np.where(present, answers.lengths, draw.integers(0, T + 1, (R, C)).astype(np.int32))
    prefix_noise = draw.integers(0, HISTORIES.words, (R, G)).astype(np.int32)
    prefix_ids = np.where(np.arange(G)[None, :] < prefix.lengths[:, None], prefix.ids, prefix_noise)
    noisy = Tokens(prefix_ids, prefix.lengths), Tokens(np.where(inside, answers.ids, noise), lengths), present
    expected = score(HISTORIES, seen, prefix, answers, present, blocks=BLOCKS[2])
    np.testing.assert_array_equal(score(HISTORIES, seen, *noisy, blocks=BLOCKS[2]), expected)


# The work: each distinct beginning once.


def beginnings(answers: Tokens, row: int, chosen, given: int) -> set[tuple[int, ...]]:
    """What is followed by a token in one of the chosen answers, and is longer than what was given."""
    cut = [answers.ids[row, c, : answers.lengths[row, c]].tolist() for c in chosen]
    return {tuple(answer[:t]) for answer in cut for t in range(given + 1, len(answer))}


_build = jax.jit(trie.build_trie)


@cases
@given(seeds)
def test_the_nodes_are_the_distinct_beginnings_parents_first(seed):
    prefix, answers, _ = problem(seed)
    built = jax.device_get(_build(answers, prefix.lengths))
    for row in range(R):
        size, given = built.num_nodes[row], prefix.lengths[row]
        nodes = list(zip(built.answer[row, :size].tolist(), built.last[row, :size].tolist(), strict=True))
        listed = [tuple(answers.ids[row, c, : t + 1].tolist()) for c, t in nodes]
        assert len(listed) == len(set(listed))
        assert set(listed) == beginnings(answers, row, range(C), given)
        assert [len(each) for each in listed] == sorted(len(each) for each in listed)
        for c, t in np.ndindex(C, T):
            inner = given <= t < answers.lengths[row, c] - 1
            beginning = tuple(answers.ids[row, c, : t + 1].tolist())
            assert built.node[row, c, t] == (listed.index(beginning) if inner else -1)


def recording(passed: list[np.ndarray]) -> Generator:
    """A generator that notes what passes behind the start: the hashes of input and beginning, for each token."""

    def decode(params, decoder_inputs, memory, cache=None, place=None, key=None):
        states, cache = HISTORIES.generator.decode(params, decoder_inputs, memory, cache, place)
        if place is not None:
            jax.debug.callback(lambda states: passed.append(np.array(states)), states)
        return states, cache

    return HISTORIES.generator._replace(decode=decode)


def groups(present: np.ndarray, size: int) -> list[np.ndarray]:
    """The answers of a row that are present, so many at a time."""
    chosen = np.flatnonzero(present)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


@pytest.mark.parametrize("at_once", [2, C])
@pytest.mark.parametrize("nodes", [1, 3])
def test_each_distinct_beginning_passes_the_decoder_once(at_once, nodes):
    passed: list[np.ndarray] = []
    read_by = partial(_score, recording(passed), HISTORIES.limits, Blocks(1, at_once, nodes))
    for seed in range(10):
        passed.clear()
        seen, (prefix, answers, present) = HISTORIES.read(seed), problem(seed)
        jax.block_until_ready(read_by(seen, prefix, answers, present))
        jax.effects_barrier()
        expected, calls = [], 0
        for row in range(R):
            for chosen in groups(present[row], at_once):
                own = beginnings(answers, row, chosen, prefix.lengths[row])
                expected += [
                    (seen.memory[row], readers.hash_of([*HISTORIES.limits.decoder_start, *each])) for each in own
                ]
                calls += -(-len(own) // nodes)
        assert len(passed) == calls
        told = [tuple(token) for call in passed for token in call.reshape(-1, 2).astype(int).tolist()]
        if nodes == 1:
            assert sorted(told) == sorted(expected)
        else:  # the last call of a group may hold any tokens behind its nodes
            assert set(expected) <= set(told)
