"""BART against transformers. Differences are relative to the largest logit.

All networks here have dropout rates, so agreement with transformers in evaluation mode is also the proof that without a
key there is no dropout.
"""

import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import BartForConditionalGeneration

import oracle
from oracle import jit, relative, torch
from rag_jax.models import bart
from rag_jax.models.bart import BartConfig
from rag_jax.types import Generator, Tokens
from suites import first
from trees import assert_branches_are_lines, placed, some_trees

SMALL = BartConfig(
    vocab_size=60,
    width=16,
    encoder_layers=1,
    decoder_layers=2,
    heads=2,
    ffn_width=24,
    max_positions=14,
    dropout=0.2,
    attention_dropout=0.4,
    activation_dropout=0.4,
)
CONFIGS = {
    "small": SMALL,
    "scaled": replace(
        SMALL, vocab_size=41, width=32, heads=4, encoder_layers=2, decoder_layers=1, scale_embedding=True
    ),
    "deep": replace(SMALL, width=48, heads=3, encoder_layers=3, ffn_width=64),
}
ROWS, T = 4, 7


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@cache
def compiled(config) -> Generator:
    network = bart.generator(config)
    return Generator(jit(network.encode), jit(network.decode), jit(network.logits), network.empty_cache)


def logits(config, params, inputs: Tokens, decoder_inputs, keys=(None, None)):
    network = compiled(config)
    memory = network.encode(params, inputs, keys[0])
    return network.logits(params, network.decode(params, decoder_inputs, memory, key=keys[1])[0])


def some_inputs(rng, config) -> tuple[Tokens, jax.Array]:
    inputs = oracle.tokens(rng, ROWS, config.max_positions, config.vocab_size, oracle.BART_PAD)
    return inputs, jnp.asarray(rng.integers(oracle.FIRST_WORD, config.vocab_size, (ROWS, T)), jnp.int32)


@pytest.fixture
def problem(rng):
    """Parameters, inputs, decoder inputs and the memory of the small network."""
    params = oracle.generator(SMALL)[1]
    inputs, decoder_inputs = some_inputs(rng, SMALL)
    return params, inputs, decoder_inputs, compiled(SMALL).encode(params, inputs)


@pytest.mark.parametrize("name", first(2, CONFIGS))
def test_logits_are_those_of_transformers(rng, name):
    config = CONFIGS[name]
    model, params = oracle.generator(config, seed=1)
    assert model.final_logits_bias.any()
    inputs, decoder_inputs = some_inputs(rng, config)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(inputs), decoder_input_ids=oracle.as_torch(decoder_inputs)).logits
    assert relative(logits(config, params, inputs, decoder_inputs), theirs) < 1e-5


@pytest.mark.parametrize(("chunks", "spare"), first(1, [((2, T - 2), 3), ((1,) * T, 0), ((T - 2, 2), 3)]))
def test_decoding_in_chunks_is_decoding_at_once(problem, chunks, spare):
    params, _, decoder_inputs, memory = problem
    network = compiled(SMALL)
    cache, parts, done = network.empty_cache(ROWS, T + spare), [], 0
    for size in chunks:
        part, cache = network.decode(params, decoder_inputs[:, done : done + size], memory, cache)
        parts.append(part)
        done += size
        assert cache.length == done
    expected, whole = network.decode(params, decoder_inputs, memory)
    assert whole.length == T
    assert relative(jnp.concatenate(parts, axis=1), expected) < 1e-5
    for kept, reference in zip(cache.layers, whole.layers, strict=True):
        (keys, values), (all_keys, all_values) = kept, reference
        assert relative(keys[:, :, :, :T], all_keys) < 1e-5
        assert relative(values[:, :, :T], all_values) < 1e-5


def test_what_an_unfilled_cache_holds_does_not_matter(problem):
    params, _, decoder_inputs, memory = problem
    network = compiled(SMALL)
    empty = network.empty_cache(ROWS, T + 3)
    stale = empty._replace(layers=jax.tree.map(lambda each: jnp.full_like(each, 1e3), empty.layers))
    clean, other = (network.decode(params, decoder_inputs[:, :2], memory, each)[0] for each in (empty, stale))
    np.testing.assert_array_equal(clean, other)


# Tokens in a tree: every row has one of its own.


@pytest.mark.parametrize(("chunks", "spare"), first(1, [((3, T - 3), 2), ((T,), 0), ((1,) * T, 3)]))
def test_tokens_in_a_tree_have_the_states_of_each_branch_in_a_line(problem, rng, chunks, spare):
    params, _, decoder_inputs, memory = problem
    assert_branches_are_lines(compiled(SMALL), params, decoder_inputs, memory, rng, chunks, spare)


def test_a_token_in_a_tree_depends_on_those_it_sees_and_on_no_other(problem, rng):
    params, _, decoder_inputs, memory = problem
    place = placed(some_trees(rng, ROWS, T))
    expected, _ = compiled(SMALL).decode(params, decoder_inputs, memory, None, place)
    for s in range(T):
        other = decoder_inputs.at[:, s].set((decoder_inputs[:, s] + 1) % SMALL.vocab_size)
        found, _ = compiled(SMALL).decode(params, other, memory, None, place)
        np.testing.assert_array_equal(np.any(found != expected, axis=2), place.visible[:, :, s])


def test_the_same_place_for_all_rows_is_that_of_each(problem, rng):
    params, _, decoder_inputs, memory = problem
    one = jax.tree.map(lambda rows: rows[:1], placed(some_trees(rng, ROWS, T)))
    each = jax.tree.map(lambda row: np.repeat(row, ROWS, axis=0), one)
    shared, own = (compiled(SMALL).decode(params, decoder_inputs, memory, None, place)[0] for place in (one, each))
    assert relative(shared, own) < 1e-6


def test_later_tokens_leave_earlier_states_alone(problem, rng):
    params, _, decoder_inputs, memory = problem
    expected, _ = compiled(SMALL).decode(params, decoder_inputs, memory)
    for t in range(1, T):
        noise = jnp.asarray(rng.integers(0, SMALL.vocab_size, (ROWS, T - t)), jnp.int32)
        found, _ = compiled(SMALL).decode(params, decoder_inputs.at[:, t:].set(noise), memory)
        np.testing.assert_array_equal(found[:, :t], expected[:, :t])


@pytest.mark.extended
def test_states_depend_on_no_later_token_and_on_every_earlier_one(problem, rng):
    """Proven by gradient: token s is reached through row s of the decoder's position table."""
    params, _, decoder_inputs, memory = problem
    probe = jnp.asarray(rng.normal(size=SMALL.width), jnp.float32)

    def projected(table):
        changed = {**params, "decoder_position": {"embedding": table}}
        return jnp.sum(bart.generator(SMALL).decode(changed, decoder_inputs, memory)[0] @ probe, axis=0)

    reach = jit(jax.jacrev(projected))(params["decoder_position"]["embedding"])
    reaches = jnp.any(reach[:, bart.POSITION_OFFSET :][:, :T] != 0, axis=2)
    np.testing.assert_array_equal(reaches, np.tril(np.ones((T, T), bool)))
    assert not jnp.any(reach[:, : bart.POSITION_OFFSET])


@pytest.mark.extended
def test_states_depend_on_every_input_token_and_on_no_padding(problem, rng):
    """Proven by gradient: token s is reached through row s of the encoder's position table."""
    params, inputs, decoder_inputs, _ = problem
    probe = jnp.asarray(rng.normal(size=SMALL.width), jnp.float32)
    network = bart.generator(SMALL)

    def projected(table):
        memory = network.encode({**params, "encoder_position": {"embedding": table}}, inputs)
        return network.decode(params, decoder_inputs[:, :1], memory)[0][:, 0] @ probe

    reach = jit(jax.jacrev(projected))(params["encoder_position"]["embedding"])
    np.testing.assert_array_equal(jnp.any(reach[:, bart.POSITION_OFFSET :] != 0, axis=2), inputs.mask)


def test_padding_does_not_matter(problem, rng):
    params, _, decoder_inputs, _ = problem
    short = oracle.tokens(rng, ROWS, 9, SMALL.vocab_size, oracle.BART_PAD)
    longer = short._replace(ids=jnp.pad(short.ids, ((0, 0), (0, SMALL.max_positions - 9)), constant_values=1))
    expected = logits(SMALL, params, longer, decoder_inputs)
    other = oracle.other_padding(rng, longer, SMALL.vocab_size)
    np.testing.assert_array_equal(logits(SMALL, params, other, decoder_inputs), expected)
    assert relative(logits(SMALL, params, short, decoder_inputs), expected) < 1e-5


def test_rows_do_not_see_each_other(problem):
    params, inputs, decoder_inputs, _ = problem
    other = Tokens(inputs.ids.at[1:].set(inputs.ids[:-1]), inputs.lengths.at[1:].set(inputs.lengths[:-1]))
    changed = logits(SMALL, params, other, decoder_inputs.at[1:].set(decoder_inputs[:-1]))
    np.testing.assert_array_equal(changed[0], logits(SMALL, params, inputs, decoder_inputs)[0])


def test_the_final_bias_is_added_to_the_logits(problem):
    params, _, decoder_inputs, memory = problem
    network, bias = compiled(SMALL), params["final_logits_bias"]
    states, _ = network.decode(params, decoder_inputs, memory)
    found = network.logits(params, states)
    without = network.logits({**params, "final_logits_bias": jnp.zeros_like(bias)}, states)
    assert relative(found, without + bias[None, None, :]) < 1e-5


@pytest.mark.extended
def test_dropout_follows_the_keys_of_reading_and_of_decoding(problem):
    params, inputs, decoder_inputs, _ = problem
    one, two = jax.random.key(1), jax.random.key(2)
    first, again, read, decoded = (
        logits(SMALL, params, inputs, decoder_inputs, keys) for keys in ((one, one), (one, one), (two, one), (one, two))
    )
    np.testing.assert_array_equal(first, again)
    assert jnp.all(jnp.any(first != read, axis=(1, 2)))
    assert jnp.all(jnp.any(first != decoded, axis=(1, 2)))


@pytest.mark.extended
def test_dropout_scatters_the_logits_as_transformers_does(problem):
    """Over many draws mean and variance agree to a few standard errors: the same places, the same rates."""
    config, draws = SMALL, 8_000
    model, params = oracle.generator(config)
    _, inputs, decoder_inputs, _ = problem
    many = jax.tree.map(lambda each: jnp.repeat(each[:1, ...], draws, axis=0), inputs)
    many = Tokens(many.ids[:, :6], jnp.full_like(many.lengths, 6))
    targets = jnp.repeat(decoder_inputs[:1, :3], draws, axis=0)
    ours = logits(config, params, many, targets, tuple(jax.random.split(jax.random.key(3))))
    torch.manual_seed(4)
    with torch.no_grad():
        theirs = model.train()(**oracle.torch_inputs(many), decoder_input_ids=oracle.as_torch(targets)).logits
    oracle.assert_same_scatter(ours, theirs)


@pytest.mark.extended
def test_bfloat16_stays_near_float32(problem):
    params, inputs, decoder_inputs, memory = problem
    low = bart.generator(replace(SMALL, dtype=jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):  # flax's LayerNorm promotes implicitly
        reduced = jit(low.encode)(params, inputs)
        states, cache = jit(low.decode)(params, decoder_inputs, reduced, low.empty_cache(ROWS, T))
        found = jit(low.logits)(params, states)
    assert {leaf.dtype for leaf in jax.tree.leaves((states, found, cache.layers))} == {jnp.dtype(jnp.bfloat16)}
    expected = compiled(SMALL).logits(params, compiled(SMALL).decode(params, decoder_inputs, memory)[0])
    a, b = (jax.nn.standardize(jnp.asarray(each, jnp.float32)) for each in (found, expected))
    assert jnp.mean(a * b) > 0.999


@pytest.mark.extended
def test_bart_large_has_its_size():
    config = BartConfig()
    with torch.device("meta"):
        model = BartForConditionalGeneration(oracle.transformers.BartConfig())
    shapes = oracle.generator_shapes(config)
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    theirs = sum(each.numel() for each in [*model.parameters(), *model.buffers()])  # one buffer: the final bias
    assert ours == theirs == 406_291_456 + config.vocab_size

    network, rows, S = bart.generator(config), 10, 300
    heads, d = config.heads, config.width // config.heads
    inputs = Tokens(jax.ShapeDtypeStruct((rows, S), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32))
    memory = jax.eval_shape(network.encode, shapes, inputs)
    assert memory.mask.shape == (rows, S)
    assert [leaf.shape for leaf in jax.tree.leaves(memory.layers)] == [(rows, heads, d, S), (rows, heads, S, d)] * 12

    empty = jax.eval_shape(lambda: network.empty_cache(rows, 26))
    step = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
    states, cache = jax.eval_shape(network.decode, shapes, step, memory, empty)
    assert (states.shape, states.dtype) == ((rows, 1, config.width), jnp.float32)
    logits = jax.eval_shape(network.logits, shapes, states)
    assert (logits.shape, logits.dtype) == ((rows, 1, config.vocab_size), jnp.float32)
    assert jax.tree.map(lambda each: each.shape, cache) == jax.tree.map(lambda each: each.shape, empty)
    assert [leaf.shape for leaf in jax.tree.leaves(cache.layers)] == [(rows, heads, d, 26), (rows, heads, 26, d)] * 12
