"""Layers in training, whichever way they run: the same values and gradients, from the same parameters."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core import likelihood, packing, reading
from rag_jax.models import bart, bert
from rag_jax.models.dropout import Dropout
from rag_jax.types import Networks, PackedInputs, Tokens
from suites import first

READER = bart.BartConfig(vocab_size=60, width=16, encoder_layers=2, decoder_layers=2, heads=2, ffn_width=24,
                         max_positions=14, dropout=0.2)  # fmt: skip
TOWER = bert.BertConfig(vocab_size=60, width=16, layers=2, heads=2, ffn_width=24, max_positions=14)
IDS = np.random.default_rng(0).integers(3, 60, (2, 2, 9)).astype(np.int32)
INPUTS = Tokens(jnp.asarray(IDS), jnp.asarray([[7, 9], [4, 6]], jnp.int32))
TARGETS = jnp.asarray(IDS[:, 0, :5])
WAYS = {
    "scan": {"scan": True},
    "dots": {"remat": "dots"},
    "full": {"remat": "full"},
    "scan and full": {"scan": True, "remat": "full"},
    "fused": {"attention": "fused"},
    "fused and scan": {"attention": "fused", "scan": True},
}


def networks(**how) -> Networks:
    return Networks(bert.tower(replace(TOWER, **how)), bart.generator(replace(READER, **how)))


def total(networks: Networks, params, key=None, inputs: Tokens | PackedInputs = INPUTS):
    """Something that all parameters have a part in."""
    logits = reading.read(networks.generator, params[1], inputs, TARGETS, key)
    vectors = networks.tower(params[0], Tokens(INPUTS.ids[:, 0], INPUTS.lengths[:, 0]), key)
    return jnp.mean(likelihood.target_log_probs(logits, TARGETS)) + jnp.mean(vectors[:, :3])


@pytest.fixture(scope="module")
def params():
    return bert.init(TOWER, jax.random.key(1)), bart.init(READER, jax.random.key(0))


@pytest.fixture(scope="module")
def plain(params):
    """The value, and the gradients, of layers one after the other."""
    return jax.jit(jax.value_and_grad(partial(total, networks())))(params)


EXTENDED = ("full", "fused")


def parameters(way: str):
    marks = () if way == "scan" else pytest.mark.extended if way in EXTENDED else pytest.mark.slow
    return pytest.param(way, marks=marks)


@pytest.mark.parametrize("way", [parameters(way) for way in WAYS])
def test_values_and_gradients_are_the_same(params, plain, way: str) -> None:
    other = jax.jit(jax.value_and_grad(partial(total, networks(**WAYS[way]))))(params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), other, plain)


SHAPES = {"plain": [(1, 26), (1, 36), (2, 16)], "scan and full": [(2, 16)], "fused": [(1, 36)]}
PACKED = [
    pytest.param(way, *shape, marks=() if shape in SHAPES[way] else pytest.mark.slow)
    for way in SHAPES
    for shape in SHAPES["plain"]
]


@pytest.mark.parametrize(("way", "lines", "size"), first(1, PACKED[2:] + PACKED[:2]))
def test_packed_inputs_have_the_values_and_gradients_of_padded_ones(
    params, plain, way: str, lines: int, size: int
) -> None:
    packed = packing.pack(reading.rows(INPUTS), lines, size)
    other = jax.jit(jax.value_and_grad(partial(total, networks(**WAYS.get(way, {})), inputs=packed)))(params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), other, plain)


@pytest.mark.extended
@pytest.mark.parametrize("way", first(1, ["plain", "scan and full"]))
def test_dropout_does_not_depend_on_how_many_lines_inputs_are_packed_into(params, way: str) -> None:
    config = {**WAYS.get(way, {}), "activation_dropout": 0.1}
    reader = Networks(networks().tower, bart.generator(replace(READER, **config)))

    @jax.jit
    def run(params, key, packed: PackedInputs):
        return total(reader, params, key, packed)

    def told(lines: int, size: int, seed: int) -> float:
        return float(run(params, jax.random.key(seed), packing.pack(reading.rows(INPUTS), lines, size)))

    assert told(1, 26, 0) == pytest.approx(told(2, 16, 0), rel=1e-6)
    assert told(1, 26, 0) != pytest.approx(told(1, 26, 1), rel=1e-4)


def test_packed_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    packed = packing.pack(Tokens(jnp.zeros((40, 50), jnp.int32), jnp.full(40, 45, jnp.int32)), 2, 900)
    module = Dropout(0.3)
    found = module.apply({}, jnp.ones((2, 900, 64)), False, packed, rngs={"dropout": jax.random.key(0)})
    assert float(jnp.mean(found == 0)) == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(found[found != 0], 1 / 0.7, rtol=1e-6)
    assert len(np.unique(np.asarray(found).reshape(1800, 64), axis=0)) == 1800  # each token has its own


@pytest.mark.parametrize("way", first(1, ["scan", "dots"]))
def test_dropout_is_drawn_by_the_key(params, way: str) -> None:
    run = jax.jit(partial(total, networks(**WAYS[way])))
    one, again, other = (run(params, jax.random.key(seed)) for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.extended
@pytest.mark.parametrize("how", [{}, {"scan": True, "remat": "dots"}], ids=str)
def test_bfloat16_is_near_and_its_results_are_float32(params, plain, how: dict) -> None:
    near = jax.jit(jax.value_and_grad(partial(total, networks(dtype=jnp.bfloat16, **how))))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(near)} == {jnp.dtype("float32")}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0.1, atol=0.02), near, plain)
    assert not np.array_equal(near[0], plain[0])


def test_parameters_are_the_same_whatever_the_way(params) -> None:
    how = {"scan": True, "remat": "full", "attention": "fused", "dtype": jnp.bfloat16}
    again = bert.init(replace(TOWER, **how), jax.random.key(1)), bart.init(replace(READER, **how), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.extended
def test_a_loop_holds_one_layer_however_many_there_are() -> None:
    def size(layers: int, scan: bool) -> int:
        config = replace(TOWER, layers=layers, scan=scan)
        params = bert.init(config, jax.random.key(0))
        tokens = Tokens(INPUTS.ids[:, 0], INPUTS.lengths[:, 0])
        lowered = jax.jit(partial(bert.tower(config), tokens=tokens)).lower(params)
        return lowered.as_text().count("dot_general")

    assert size(6, True) == size(2, True)
    assert size(6, False) == 3 * size(2, False)


@pytest.mark.extended
def test_the_more_is_computed_again_the_less_is_kept(params) -> None:
    def kept(**how) -> int:
        _, backward = jax.eval_shape(lambda params: jax.vjp(partial(total, networks(**how)), params), params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept(remat="full") < kept(remat="dots") < kept()


def test_a_network_for_training_refuses_a_cache(params) -> None:
    generator = networks(scan=True).generator
    memory = generator.encode(params[1], reading.rows(INPUTS))
    with pytest.raises(ValueError, match="take them out of the config"):
        generator.decode(params[1], TARGETS[:, :1], memory, generator.empty_cache(4, 5))
