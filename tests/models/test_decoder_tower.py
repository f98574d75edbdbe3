"""Decoder-only towers against transformers. Differences are relative to the largest magnitude of the output."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

import oracle
from oracle import jit, relative, torch
from rag_jax.hub import TowerCheckpoint, tensor_names
from rag_jax.hub import decoder_tower as files
from rag_jax.hub.tensors import in_memory
from rag_jax.models import decoder, decoder_tower
from rag_jax.models.decoder_tower import DecoderTowerConfig
from rag_jax.models.rope import Rope
from suites import only

LLAMA = DecoderTowerConfig(
    vocab_size=40, width=16, decoder_layers=2, heads=4, kv_heads=2, ffn_width=24, max_positions=32,
    rope=Rope(100.0), model_type="llama"
)  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "mistral, window 3": replace(LLAMA, window=3, model_type="mistral"),
    "qwen3": replace(LLAMA, head_width=6, qk_norm=True, model_type="qwen3"),
}
each_config = pytest.mark.parametrize("name", only(["llama", "qwen3"], CONFIGS))
TOKENS = oracle.tokens(np.random.default_rng(0), 4, 9, LLAMA.vocab_size, 0)


@cache
def theirs(name: str) -> tuple[torch.nn.Module, dict]:
    """The model of transformers without a head, and its weights as our parameters."""
    config = CONFIGS[name]
    described = files.files(TowerCheckpoint(config, {}))["config.json"]
    sizes = transformers.AutoConfig.for_model(**described, attn_implementation="eager")
    model = oracle.draw(transformers.AutoModel.from_config(sizes), seed=1)
    assert described["architectures"] == [type(model).__name__]
    shapes = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    return model, tensor_names.from_stored(in_memory(oracle.state(model)), shapes, files.NAMES, source="oracle")


@cache
def compiled(config: DecoderTowerConfig):
    return jit(decoder_tower.tower(config))


@each_config
@pytest.mark.parametrize("pooling", only(["last", "mean"], ["last", "mean", "cls"]))
@pytest.mark.parametrize(("norm", "width"), [(None, None), (1.0, 5)])
def test_vectors_are_those_of_transformers(name, pooling, norm, width):
    """A batch with padding here; there each text by itself."""
    model, params = theirs(name)
    pooled = []
    for ids, length in zip(np.asarray(TOKENS.ids), np.asarray(TOKENS.lengths), strict=True):
        with torch.no_grad():
            states = model(oracle.as_torch(ids[None, :length])).last_hidden_state[0]
        vector = {"last": states[-1], "mean": states.mean(0), "cls": states[0]}[pooling][:width]
        pooled.append((vector if norm is None else norm * vector / vector.norm()).numpy())
    config = replace(CONFIGS[name], pooling=pooling, vector_norm=norm, truncated_width=width)
    found = compiled(config)(params, TOKENS)
    assert found.shape[1] == config.vector_width
    assert relative(found, np.stack(pooled)) < 1e-5


@each_config
def test_padding_does_not_matter(name):
    params = theirs(name)[1]
    longer = TOKENS._replace(ids=jnp.pad(TOKENS.ids, ((0, 0), (0, 4))))
    other = oracle.other_padding(np.random.default_rng(1), longer, LLAMA.vocab_size)
    expected = compiled(CONFIGS[name])(params, longer)
    np.testing.assert_array_equal(compiled(CONFIGS[name])(params, other), expected)
    assert relative(compiled(CONFIGS[name])(params, TOKENS), expected) < 1e-5


@pytest.mark.parametrize(
    "changes", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}, {"attention": "fused"}]
)
def test_how_it_is_computed_does_not_matter(changes):
    params = theirs("qwen3")[1]
    config = CONFIGS["qwen3"]
    assert relative(compiled(replace(config, **changes))(params, TOKENS), compiled(config)(params, TOKENS)) < 1e-5


def test_every_parameter_is_trained_and_dropout_has_none():
    config = CONFIGS["qwen3"]
    params = theirs("qwen3")[1]
    assert "head" not in params
    probe = jnp.asarray(np.random.default_rng(2).normal(size=(4, config.width)), jnp.float32)
    gradient = jit(jax.grad(lambda params: jnp.sum(probe * decoder_tower.tower(config)(params, TOKENS))))(params)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(compiled(config)(params, TOKENS, jax.random.key(0)), compiled(config)(params, TOKENS))


def test_bfloat16_stays_near_float32():
    config = replace(CONFIGS["llama"], vector_norm=1.0)
    params = theirs("llama")[1]
    low = compiled(replace(config, dtype=jnp.bfloat16))(params, TOKENS)
    assert low.dtype == jnp.float32
    assert jnp.all(jnp.sum(low * compiled(config)(params, TOKENS), axis=1) > 0.999)


def test_flops_are_those_of_the_weights_and_of_attention():
    params = theirs("llama")[1]
    weights = sum(leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path[-1]))
    attention = 2 * 2 * (9 * 9 / 2) * LLAMA.width  # scores and sums, of half of all pairs
    assert decoder_tower.flops(LLAMA, 9) == 2 * 9 * weights + LLAMA.decoder_layers * attention
