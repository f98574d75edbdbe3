"""Networks with products in bfloat16: near to float32, in every architecture, however the layers run."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core import likelihood, packing, reading
from rag_jax.models import bart, bert, decoder, precision, registry, t5
from rag_jax.models.rope import Rope
from rag_jax.types import Tokens
from suites import first

V, WIDTH = 60, 32
BERT = bert.BertConfig(vocab_size=V, width=WIDTH, layers=2, heads=2, ffn_width=48, max_positions=30, dropout=0.0,
                       attention_dropout=0.0, init_std=0.2)  # fmt: skip
GENERATORS: dict[str, Any] = {
    "bart": bart.BartConfig(vocab_size=V, width=WIDTH, encoder_layers=2, decoder_layers=2, heads=2, ffn_width=48,
                            max_positions=40, dropout=0.0, init_std=0.2),
    "llama": decoder.DecoderConfig(vocab_size=V, model_type="llama", width=WIDTH, decoder_layers=2, heads=4, kv_heads=1,
                                   ffn_width=48, max_positions=64, rope=Rope(100.0), tied_head=True, init_std=0.2),
    "t5": t5.T5Config(vocab_size=V, width=WIDTH, encoder_layers=2, decoder_layers=2, heads=1, ffn_width=48, dropout=0.0,
                      tied_head=False),
}  # fmt: skip
WAYS = {"plain": {}, "scan and dots": {"scan": True, "remat": "dots"}, "bfloat16": {"dtype": jnp.bfloat16}}
DRAW = np.random.default_rng(0)
IDS = jnp.asarray(DRAW.integers(3, V, (2, 2, 20)), jnp.int32)
INPUTS = Tokens(IDS, jnp.asarray([[20, 17], [9, 20]], jnp.int32))
TARGETS = jnp.asarray(DRAW.integers(3, V, (2, 5)), jnp.int32)


def loss(generator, inputs, params):
    logits = reading.read(generator, params, inputs, TARGETS, None)
    return -jnp.mean(likelihood.target_log_probs(logits, TARGETS))


def test_the_default_changes_nothing_and_the_functions_stay_the_same() -> None:
    tower, generator = registry.tower(BERT), registry.generator(GENERATORS["bart"])
    assert precision.tower(tower, "default") is tower
    assert precision.generator(generator, "default") is generator
    assert precision.tower(tower, "bfloat16") is precision.tower(tower, "bfloat16") is not tower
    assert precision.generator(generator, "bfloat16") == precision.generator(generator, "bfloat16") != generator


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", first(1, GENERATORS))
@pytest.mark.parametrize("packed", first(1, [False, True]))
def test_losses_and_gradients_are_near(family: str, way: str, packed: bool) -> None:
    config = GENERATORS[family]
    params = registry.generator_of(config).init(config, jax.random.key(0))
    inputs = packing.pack(reading.rows(INPUTS), 1, 72) if packed else INPUTS

    def computed(name: str, **how: Any):
        network = precision.generator(registry.generator(replace(config, **how)), name)
        return jax.jit(jax.value_and_grad(partial(loss, network, inputs)))(params)

    exact, near = computed("default"), computed("bfloat16", **WAYS[way])
    assert near[0] != exact[0]
    np.testing.assert_allclose(near[0], exact[0], rtol=0.02)
    exact_leaves, near_leaves = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(each[1])])
                                 for each in (exact, near))  # fmt: skip
    cosine = exact_leaves @ near_leaves / np.linalg.norm(exact_leaves) / np.linalg.norm(near_leaves)
    assert cosine > 0.995


@pytest.mark.parametrize("rows", [1, 3])
def test_vectors_of_a_tower_are_near(rows: int) -> None:
    network, params = registry.tower(BERT), bert.init(BERT, jax.random.key(0))
    texts = Tokens(IDS.reshape(4, 20)[:rows], INPUTS.lengths.reshape(4)[:rows])
    exact, near = (jax.jit(precision.tower(network, name))(params, texts) for name in precision.PRECISIONS)
    np.testing.assert_allclose(near, exact, atol=0.1)
    assert not np.array_equal(near, exact)


@pytest.mark.parametrize("family", GENERATORS)
def test_one_row_is_read_and_answered(family: str) -> None:
    """Products of one row and one head are those that a compiler rewrites most."""
    config = GENERATORS[family]
    params = registry.generator_of(config).init(config, jax.random.key(0))
    one, targets = Tokens(INPUTS.ids[0, :1], INPUTS.lengths[0, :1]), TARGETS[:1]

    def logits(name: str):
        network = precision.generator(registry.generator(config), name)
        return jax.jit(lambda params: reading.read(network, params, Tokens(one.ids[None], one.lengths[None]), targets,
                                                   None))(params)  # fmt: skip

    exact, near = map(logits, precision.PRECISIONS)
    assert np.abs(near - exact).max() < 0.1 * np.abs(exact).max()
