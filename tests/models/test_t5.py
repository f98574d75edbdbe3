"""T5 against transformers. Differences are relative to the largest logit.

All networks here have dropout rates, so agreement with transformers in evaluation mode is also the proof that without a
key there is no dropout. Buckets are few, and the largest distance short, so that inputs reach into the last bucket.
"""

import math
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from oracle import jit, relative, torch
from rag_jax.core import likelihood, packing, reading
from rag_jax.hub import t5 as files
from rag_jax.models import t5
from rag_jax.models.relative_position import buckets
from rag_jax.models.t5 import T5Config
from rag_jax.types import Generator, PackedInputs, Tokens
from suites import first, only
from trees import assert_branches_are_lines, placed, some_trees

SMALL = T5Config(
    vocab_size=60,
    width=16,
    encoder_layers=2,
    decoder_layers=2,
    heads=2,
    ffn_width=24,
    gated=True,
    tied_head=False,
    position_buckets=8,
    max_distance=10,
    dropout=0.3,
)
CONFIGS = {
    "1.1": SMALL,
    "1.0": replace(SMALL, gated=False, tied_head=True),
    "narrow heads": replace(SMALL, heads=3, head_width=4, encoder_layers=1, decoder_layers=3),
    "wide heads, tied": replace(SMALL, vocab_size=41, heads=3, head_width=8, tied_head=True, layer_norm_eps=1e-2),
    "ReLU, head of its own": replace(SMALL, gated=False, encoder_layers=1, position_buckets=32, max_distance=128),
}
ROWS, S, T = 4, 14, 13
SIZES = st.builds(
    lambda distances, **sizes: replace(SMALL, position_buckets=distances[0], max_distance=distances[1], **sizes),
    distances=st.sampled_from([(4, 3), (4, 10), (8, 10), (8, 128), (32, 20), (32, 128)]),
    vocab_size=st.integers(8, 60),
    width=st.sampled_from([8, 16, 24]),
    encoder_layers=st.integers(1, 3),
    decoder_layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    head_width=st.sampled_from([None, 3, 8]),
    ffn_width=st.sampled_from([8, 24]),
    gated=st.booleans(),
    tied_head=st.booleans(),
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@cache
def compiled(config) -> Generator:
    network = t5.generator(config)
    return Generator(jit(network.encode), jit(network.decode), jit(network.logits), network.empty_cache)


def logits(config, params, inputs: Tokens, decoder_inputs, keys=(None, None)):
    network = compiled(config)
    memory = network.encode(params, inputs, keys[0])
    return network.logits(params, network.decode(params, decoder_inputs, memory, key=keys[1])[0])


def some_inputs(rng, config) -> tuple[Tokens, jax.Array]:
    inputs = oracle.tokens(rng, ROWS, S, config.vocab_size, oracle.T5_PAD)
    return inputs, jnp.asarray(rng.integers(oracle.FIRST_WORD, config.vocab_size, (ROWS, T)), jnp.int32)


@pytest.fixture
def problem(rng):
    """Parameters, inputs, decoder inputs and the memory of the small network."""
    params = oracle.t5_generator(SMALL)[1]
    inputs, decoder_inputs = some_inputs(rng, SMALL)
    return params, inputs, decoder_inputs, compiled(SMALL).encode(params, inputs)


def assert_same_logits(config, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, params = oracle.t5_generator(config, seed)
    inputs, decoder_inputs = some_inputs(rng, config)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(inputs), decoder_input_ids=oracle.as_torch(decoder_inputs)).logits
    assert relative(logits(config, params, inputs, decoder_inputs), theirs) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name):
    assert_same_logits(CONFIGS[name], 1)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(config=SIZES, seed=st.integers(0, 2**31))
def test_logits_of_any_sizes_are_those_of_transformers(config, seed):
    assert_same_logits(config, seed)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 256), (16, 64), (8, 10), (6, 20), (64, 99)])
def test_buckets_are_those_of_transformers(num_buckets, max_distance, is_causal):
    from transformers.models.t5.modeling_t5 import T5Attention  # needs torch, which may be missing

    relative_position = np.arange(-400, 401)
    ours = buckets(jnp.asarray(relative_position), num_buckets, max_distance, is_causal)
    told = {"bidirectional": not is_causal, "num_buckets": num_buckets, "max_distance": max_distance}
    theirs = T5Attention._relative_position_bucket(torch.tensor(relative_position), **told)
    np.testing.assert_array_equal(ours, theirs)


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
    assert relative(jnp.concatenate(parts, axis=1), expected) < 1e-5
    np.testing.assert_array_equal(cache.position[:, :T], whole.position)
    np.testing.assert_array_equal(whole.position, np.tile(np.arange(T), (ROWS, 1)))
    for kept, reference in zip(jax.tree.leaves(cache.layers), jax.tree.leaves(whole.layers), strict=True):
        assert relative(kept[..., :T] if kept.shape[3] == T + spare else kept[..., :T, :], reference) < 1e-5


def test_what_an_unfilled_cache_holds_does_not_matter(problem):
    params, _, decoder_inputs, memory = problem
    network = compiled(SMALL)
    empty = network.empty_cache(ROWS, T + 3)
    layers = jax.tree.map(lambda each: jnp.full_like(each, 1e3), empty.layers)
    stale = empty._replace(layers=layers, position=empty.position + 7)
    clean, other = (network.decode(params, decoder_inputs[:, :2], memory, each)[0] for each in (empty, stale))
    np.testing.assert_array_equal(clean, other)


@pytest.mark.parametrize(("chunks", "spare"), first(1, [((3, T - 3), 2), ((T,), 0), ((1,) * T, 3)]))
def test_tokens_in_a_tree_have_the_states_of_each_branch_in_a_line(problem, rng, chunks, spare):
    params, _, decoder_inputs, memory = problem
    cache, whole = assert_branches_are_lines(compiled(SMALL), params, decoder_inputs, memory, rng, chunks, spare)
    np.testing.assert_array_equal(cache.position[:, :T], whole.position)


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


def test_padding_does_not_matter(problem, rng):
    params, _, decoder_inputs, _ = problem
    short = oracle.tokens(rng, ROWS, 9, SMALL.vocab_size, oracle.T5_PAD)
    longer = short._replace(ids=jnp.pad(short.ids, ((0, 0), (0, S - 9))))
    expected = logits(SMALL, params, longer, decoder_inputs)
    other = oracle.other_padding(rng, longer, SMALL.vocab_size)
    np.testing.assert_array_equal(logits(SMALL, params, other, decoder_inputs), expected)
    assert relative(logits(SMALL, params, short, decoder_inputs), expected) < 1e-5


def test_rows_do_not_see_each_other(problem):
    params, inputs, decoder_inputs, _ = problem
    other = Tokens(inputs.ids.at[1:].set(inputs.ids[:-1]), inputs.lengths.at[1:].set(inputs.lengths[:-1]))
    changed = logits(SMALL, params, other, decoder_inputs.at[1:].set(decoder_inputs[:-1]))
    np.testing.assert_array_equal(changed[0], logits(SMALL, params, inputs, decoder_inputs)[0])


@pytest.mark.extended
def test_dropout_scatters_the_logits_as_transformers_does(problem):
    """Over many draws mean and variance agree to a few standard errors: the same places, the same rates."""
    draws = 6_000
    model, params = oracle.t5_generator(SMALL)
    _, inputs, decoder_inputs, _ = problem
    many = jax.tree.map(lambda each: jnp.repeat(each[:1, ...], draws, axis=0), inputs)
    many = Tokens(many.ids[:, :6], jnp.full_like(many.lengths, 6))
    targets = jnp.repeat(decoder_inputs[:1, :3], draws, axis=0)
    ours = logits(SMALL, params, many, targets, tuple(jax.random.split(jax.random.key(3))))
    torch.manual_seed(4)
    with torch.no_grad():
        theirs = model.train()(**oracle.torch_inputs(many), decoder_input_ids=oracle.as_torch(targets)).logits
    oracle.assert_same_scatter(ours, theirs)


def test_bfloat16_stays_near_float32(problem):
    params, inputs, decoder_inputs, memory = problem
    low = t5.generator(replace(SMALL, dtype=jnp.bfloat16))
    reduced = jit(low.encode)(params, inputs)
    states, cache = jit(low.decode)(params, decoder_inputs, reduced, low.empty_cache(ROWS, T))
    found = jit(low.logits)(params, states)
    assert {leaf.dtype for leaf in jax.tree.leaves((states, found, cache.layers))} == {jnp.dtype(jnp.bfloat16)}
    expected = compiled(SMALL).logits(params, compiled(SMALL).decode(params, decoder_inputs, memory)[0])
    a, b = (jax.nn.standardize(jnp.asarray(each, jnp.float32)) for each in (found, expected))
    assert jnp.mean(a * b) > 0.999


# Layers in training, whichever way they run.

IDS = np.random.default_rng(0).integers(3, 60, (2, 2, 9)).astype(np.int32)
INPUTS, TARGETS = Tokens(jnp.asarray(IDS), jnp.asarray([[7, 9], [4, 6]], jnp.int32)), jnp.asarray(IDS[:, 0, :5])
WAYS = {
    "scan and full": {"scan": True, "remat": "full"},
    "dots": {"remat": "dots"},
    "packed": {},
    "packed, scan": {"scan": True},
}


def total(generator: Generator, params, inputs: Tokens | PackedInputs = INPUTS, key=None):
    logits = reading.read(generator, params, inputs, TARGETS, key)
    return jnp.mean(likelihood.target_log_probs(logits, TARGETS))


@pytest.fixture(scope="module")
def plain():
    params = t5.init(SMALL, jax.random.key(0))
    return params, jax.jit(jax.value_and_grad(partial(total, t5.generator(SMALL))))(params)


@pytest.mark.extended
@pytest.mark.parametrize("way", only(["packed, scan"], WAYS))
def test_values_and_gradients_are_the_same_whichever_way_layers_run(plain, way: str) -> None:
    params, expected = plain
    generator = t5.generator(replace(SMALL, **WAYS[way]))
    inputs = packing.pack(reading.rows(INPUTS), 2, 16) if "packed" in way else INPUTS
    found = jax.jit(jax.value_and_grad(partial(total, generator, inputs=inputs)))(params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found[1]))


@pytest.mark.extended
def test_dropout_does_not_depend_on_how_many_packs_there_are(plain) -> None:
    params, generator = plain[0], t5.generator(replace(SMALL, scan=True, dropout=0.1))
    run = jax.jit(partial(total, generator))
    one, two = (packing.pack(reading.rows(INPUTS), *shape) for shape in ((1, 26), (2, 16)))
    # Attention's weights are dropped by row, whatever the packs.
    first, again, other = (run(params, *each) for each in ((one, KEY), (two, KEY), (one, jax.random.key(6))))
    assert float(first) == pytest.approx(float(again), rel=1e-6)
    assert float(first) != pytest.approx(float(other), rel=1e-4)


KEY = jax.random.key(5)


def test_a_network_for_training_refuses_a_cache(plain) -> None:
    generator = t5.generator(replace(SMALL, scan=True))
    memory = generator.encode(plain[0], reading.rows(INPUTS))
    with pytest.raises(ValueError, match="take them out of the config"):
        generator.decode(plain[0], TARGETS[:, :1], memory, generator.empty_cache(4, 5))


# Sizes as published, without their memory.

PARAMETERS = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "google/flan-t5-small": 76_961_152,
    "google/flan-t5-base": 247_577_856,
    "google/flan-t5-large": 783_150_080,
    "google/flan-t5-xl": 2_849_757_184,
}


FAST = ("t5-large", "google/flan-t5-small")


@pytest.mark.extended
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in PARAMETERS]
)
def test_published_networks_have_their_parameters(name):
    config = files.FORMAT.published[name]
    with torch.device("meta"):
        model = oracle.T5ForConditionalGeneration(oracle.transformers.T5Config(**oracle.t5_sizes(config)))
    theirs = sum(each.numel() for each in model.parameters())
    head = 0 if config.tied_head else config.vocab_size * config.width  # which transformers ties at first
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(oracle.generator_shapes(config)))
    assert ours == theirs + head == PARAMETERS[name]


@pytest.mark.extended
def test_t5_large_has_its_shapes():
    config = files.FORMAT.published["t5-large"]
    network, rows, length, shapes = t5.generator(config), 10, 300, oracle.generator_shapes(config)
    inputs = Tokens(jax.ShapeDtypeStruct((rows, length), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32))
    memory = jax.eval_shape(network.encode, shapes, inputs)
    assert [each.shape for each in jax.tree.leaves(memory.layers)] == [
        (rows, 16, 64, length),
        (rows, 16, length, 64),
    ] * 24
    empty = jax.eval_shape(lambda: network.empty_cache(rows, 26))
    step = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
    states, cache = jax.eval_shape(network.decode, shapes, step, memory, empty)
    assert jax.tree.map(lambda each: each.shape, cache) == jax.tree.map(lambda each: each.shape, empty)
    assert jax.eval_shape(network.logits, shapes, states).shape == (rows, 1, 32_128)
