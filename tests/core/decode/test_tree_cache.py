"""The generator as a step function, against language models that read every answer from its beginning."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import readers
from rag_jax.core.decode import tree_cache
from rag_jax.core.decode.prefill import prefill
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Generator, Tokens
from readers import HISTORIES, NETWORKS, SEEDS, Read, World
from suites import first, only

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
R, W, G, STEPS = readers.B * readers.K, 3, 4, 3
CHUNKS = [None, 1, 3, 50, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in (2, 4))]
chunked = pytest.mark.parametrize("chunk", only([None, 3], CHUNKS))


@partial(jax.jit, static_argnums=(0, 1))
def _grown(generator: Generator, limits: GenerationLimits, seen: Read, prefix: Tokens, tokens, origin):
    """What reading the prefixes tells, and what follows each of W hypotheses after each step."""
    reader = EncodedInputs(generator, seen.params, seen.memory)
    opened = prefill(reader, prefix, limits, W, W * STEPS)

    def extend(grown, step):
        log_probs, grown = tree_cache.decode_step(reader, grown, *step)
        return grown, log_probs

    return opened.log_probs, opened.prefix_log_probs, jax.lax.scan(extend, opened.tree, (tokens, origin))[1]


def grown(world: World, seen: Read, prefix: Tokens, tokens, origin, chunk: int | None = None):
    limits = world.limits._replace(prefill_chunk=chunk)
    return jax.device_get(_grown(world.generator, limits, seen, prefix, tokens, origin))


def growth(seed: int, words: int) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """Prefixes of lengths 0 to G, noise behind their ends; at each step new tokens, and what they are appended to."""
    draw = np.random.default_rng(seed)
    prefix = Tokens(draw.integers(0, words, (R, G)).astype(np.int32), draw.integers(0, G + 1, R).astype(np.int32))
    tokens = draw.integers(0, words, (STEPS, R, W)).astype(np.int32)
    return prefix, tokens, draw.integers(0, W, (STEPS, R, W)).astype(np.int32)


def assert_grown_as_from_scratch(world: World, seed: int, chunk: int | None) -> None:
    seen, (prefix, tokens, origin) = world.read(seed), growth(seed, world.words)
    first, evidence, following = grown(world, seen, prefix, tokens, origin, chunk)
    for row in range(R):
        next_probs = world.next_probs(seen, row)
        given = prefix.ids[row, : prefix.lengths[row]].tolist()
        written = [[*world.limits.decoder_start, *given]] * W
        close(first[row], np.log(next_probs(written[0])))
        for t, token in enumerate(given):
            close(evidence[row, t], np.log(next_probs([*world.limits.decoder_start, *given[:t]])[token]))
        for step in range(STEPS):
            written = [[*written[origin[step, row, w]], int(tokens[step, row, w])] for w in range(W)]
            close(following[step, row], np.log([next_probs(each) for each in written]))


@chunked
@cases
@given(seed=seeds)
def test_hypotheses_grow_as_if_each_were_read_from_its_beginning(chunk, seed):
    assert_grown_as_from_scratch(HISTORIES, seed, chunk)


@pytest.mark.parametrize("chunk", first(1, [None, 2]))
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", first(1, NETWORKS))
def test_a_networks_cache_holds_what_reading_from_the_beginning_finds(name, chunk, seed):
    assert_grown_as_from_scratch(NETWORKS[name], seed, chunk)


@cases
@given(seeds)
def test_reading_token_by_token_is_reading_at_once(seed):
    """The given tokens as steps of a hypothesis that was given nothing."""
    seen, (prefix, *_) = HISTORIES.read(seed), growth(seed, HISTORIES.words)
    tokens = np.repeat(prefix.ids.T[:STEPS, :, None], W, axis=2)
    _, _, stepwise = grown(HISTORIES, seen, Tokens(prefix.ids[:, :0], 0 * prefix.lengths), tokens, 0 * tokens)
    for step in range(STEPS):
        at_once, *_ = grown(HISTORIES, seen, prefix._replace(lengths=0 * prefix.lengths + step + 1), tokens, 0 * tokens)
        for w in range(W):
            np.testing.assert_array_equal(stepwise[step, :, w], at_once)


@cases
@given(seeds, seeds)
def test_a_wider_prefix_and_what_stands_behind_its_end_do_not_matter(seed, other):
    seen, (prefix, *steps) = HISTORIES.read(seed), growth(seed, HISTORIES.words)
    noise = np.random.default_rng(other).integers(0, HISTORIES.words, (R, G + 3)).astype(np.int32)
    within = np.arange(G)[None, :] < prefix.lengths[:, None]
    noise[:, :G] = np.where(within, prefix.ids, noise[:, :G])
    first, evidence, following = grown(HISTORIES, seen, prefix, *steps)
    wider_first, wider_evidence, wider_following = grown(HISTORIES, seen, Tokens(noise, prefix.lengths), *steps)
    np.testing.assert_array_equal(wider_first, first)
    np.testing.assert_array_equal(wider_evidence[:, :G][within], evidence[within])
    np.testing.assert_array_equal(wider_following, following)


@pytest.mark.parametrize("world", first(2, [HISTORIES, *NETWORKS.values()]), ids=["history", *NETWORKS])
def test_nothing_that_the_cache_holds_is_moved(world):
    seen, (prefix, tokens, origin) = world.read(0), growth(0, world.words)

    @jax.jit
    def caches(seen, prefix, tokens, origin):
        reader = EncodedInputs(world.generator, seen.params, seen.memory)
        opened = prefill(reader, prefix, world.limits, W, W * STEPS).tree
        return opened, tree_cache.decode_step(reader, opened, tokens, origin)[1]

    before, after = jax.device_get(caches(seen, prefix, tokens[0], origin[0]))
    assert before.num_filled == len(world.limits.decoder_start) + G
    assert after.num_filled == before.num_filled + W
    slots = before.visible.shape[2]
    held = [each for each in jax.tree.leaves(before.cache) if slots in np.shape(each)]
    grown = [each for each in jax.tree.leaves(after.cache) if slots in np.shape(each)]
    assert len(held) == len(grown) > 0
    for old, new in zip(held, grown, strict=True):
        axis = np.shape(old).index(slots)
        np.testing.assert_array_equal(*(np.moveaxis(each, axis, 0)[: before.num_filled] for each in (old, new)))
        assert np.any(np.moveaxis(new, axis, 0)[before.num_filled : after.num_filled] != 0)


@chunked
def test_no_more_than_a_chunk_passes_at_once_and_of_the_start_only_the_last_state_is_projected(chunk):
    decoded, projected = [], []

    def decode(params, decoder_inputs, *rest, **others):
        decoded.append(decoder_inputs.shape[1])
        return HISTORIES.generator.decode(params, decoder_inputs, *rest, **others)

    def logits(params, states):
        projected.append(states.shape[1])
        return HISTORIES.generator.logits(params, states)

    counted = HISTORIES.generator._replace(decode=decode, logits=logits)
    limits, seen, (prefix, *_) = (
        HISTORIES.limits._replace(prefill_chunk=chunk),
        HISTORIES.read(0),
        growth(0, HISTORIES.words),
    )
    whole = len(limits.decoder_start) + G

    def opened(seen, prefix):
        return prefill(EncodedInputs(counted, seen.params, seen.memory), prefix, limits, W, W)

    jax.eval_shape(opened, seen, prefix)
    assert max(decoded) == min(chunk or whole, whole)
    assert max(projected) == min(chunk or whole, G)

    projected.clear()
    jax.eval_shape(opened, seen, Tokens(prefix.ids[:, :0], prefix.lengths))
    assert sum(projected) == 1
