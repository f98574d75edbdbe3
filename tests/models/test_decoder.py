"""The Llama family against transformers. Differences are relative to the largest logit."""

import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from oracle import jit, relative, torch
from rag_jax.core import packing
from rag_jax.hub import decoder as decoder_files
from rag_jax.models import decoder, grouped_attention
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope
from rag_jax.types import Generator, Tokens
from suites import first, only
from trees import assert_branches_are_lines

LLAMA = DecoderConfig(
    vocab_size=40, width=16, decoder_layers=3, heads=4, kv_heads=2, head_width=6, ffn_width=24, max_positions=64,
    rope=Rope(100.0, "llama3", 4.0, 1.0, 4.0, 12), model_type="llama"
)  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "llama, biases, one head of keys": replace(LLAMA, rope=Rope(50.0), kv_heads=1, qkv_bias=True, out_bias=True),
    "mistral, window 4": replace(LLAMA, rope=Rope(100.0, "linear", 2.0), window=4, model_type="mistral"),
    "mistral, window 1": replace(LLAMA, rope=Rope(100.0), kv_heads=None, window=1, model_type="mistral"),
    "qwen2": replace(LLAMA, rope=Rope(100.0), head_width=None, qkv_bias=True, tied_head=True, model_type="qwen2"),
    "qwen3": replace(LLAMA, rope=Rope(100.0), qk_norm=True, model_type="qwen3"),
}
ROWS, S, T = 3, 11, 6
PAD = 0
each_config = pytest.mark.parametrize("name", only(["llama", "mistral, window 4", "qwen2", "qwen3"], CONFIGS))
windowed = pytest.mark.parametrize("name", ["llama", "mistral, window 4"])


@cache
def compiled(config: DecoderConfig) -> Generator:
    network = decoder.generator(config)
    return Generator(jit(network.encode), jit(network.decode), jit(network.logits), network.empty_cache)


@cache
def weights(name: str):
    return oracle.decoder_generator(CONFIGS[name], seed=1)


@cache
def problem() -> tuple[Tokens, np.ndarray]:
    """Prompts of different lengths, and what follows each of them."""
    rng = np.random.default_rng(0)
    prompts = oracle.tokens(rng, ROWS, S, LLAMA.vocab_size, PAD)
    return prompts, rng.integers(oracle.FIRST_WORD, LLAMA.vocab_size, (ROWS, T)).astype(np.int32)


@cache
def their_logits(name: str) -> np.ndarray:
    """Those of the tokens behind each prompt, which is read without padding, in one pass."""
    prompts, ids = problem()
    rows = [[*prompt[:n], *answer] for prompt, n, answer in zip(*map(np.asarray, prompts), ids, strict=True)]
    with torch.no_grad():
        return np.stack([weights(name)[0](oracle.as_torch([row])).logits[0, -T:].numpy() for row in rows])


def our_logits(config: DecoderConfig, params, prompts, ids) -> jax.Array:
    network = compiled(config)
    return network.logits(params, network.decode(params, ids, network.encode(params, prompts))[0])


@each_config
def test_logits_are_those_of_transformers(name):
    assert relative(our_logits(CONFIGS[name], weights(name)[1], *problem()), their_logits(name)) < 1e-5


@pytest.mark.parametrize("changes", first(1, [{}, {"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}]))
@pytest.mark.parametrize("name", only(["mistral, window 4", "qwen2"], CONFIGS))
def test_targets_read_with_their_prompts_have_the_same_logits(name, changes):
    network, (prompts, ids) = decoder.generator(replace(CONFIGS[name], **changes)), problem()
    assert network.read_targets is not None
    read = jit(lambda *given: network.logits(given[0], network.read_targets(*given)))
    for inputs in (prompts, *(packing.pack(prompts, packs, packs_size(prompts, packs)) for packs in (1, ROWS))):
        assert relative(read(weights(name)[1], inputs, ids), their_logits(name)) < 1e-5


def packs_size(prompts: Tokens, packs: int) -> int:
    """Slots of a pack, two more than are needed."""
    return int(prompts.lengths.reshape(packs, -1).sum(axis=1).max()) + 2


@pytest.mark.parametrize("length", only([67], [63, 64, 65, 67, 130]))
@pytest.mark.parametrize("name", first(1, ["mistral, window 4", "llama"]))
def test_causal_attention_in_parts_is_that_of_all_queries_at_once(name, length, monkeypatch):
    params, rng = weights(name)[1], np.random.default_rng(length)
    prompts = oracle.tokens(rng, ROWS, length, LLAMA.vocab_size, PAD)

    def gradient() -> jax.Array:
        network = decoder.generator.__wrapped__(CONFIGS[name])
        ids = jnp.asarray(problem()[1])
        return jax.grad(lambda given: jnp.sum(jnp.sin(network.read_targets(given, prompts, ids))))(params)

    parts = gradient()
    monkeypatch.setattr(grouped_attention, "SHORTEST_SPLIT", 10_000)
    for found, expected in zip(*map(jax.tree.leaves, (parts, gradient())), strict=True):
        assert jnp.max(jnp.abs(found - expected)) <= 1e-4 * jnp.max(jnp.abs(expected))  # the head has no gradient


@pytest.mark.parametrize("chunk", only([3], [1, 3, 4, S]))
@windowed
def test_prompts_read_in_chunks_give_the_same(name, chunk):
    found = our_logits(replace(CONFIGS[name], prefill_chunk=chunk), weights(name)[1], *problem())
    assert relative(found, their_logits(name)) < 1e-5


def test_the_buffer_of_a_long_prompt_holds_its_last_window():
    prompts, _ = problem()
    name = "mistral, window 4"
    memory = compiled(CONFIGS[name]).encode(weights(name)[1], prompts)
    chunked = compiled(replace(CONFIGS[name], prefill_chunk=S + 1)).encode(weights(name)[1], prompts)
    assert jax.tree.map(jnp.shape, chunked) == jax.tree.map(jnp.shape, memory), "whatever the chunk"
    for length, position in zip(prompts.lengths.tolist(), memory.position.tolist(), strict=True):
        assert sorted(position) == sorted([*range(max(0, length - 4), length), *[-1] * max(0, 4 - length)])
        assert all(p == -1 or p % 4 == slot for slot, p in enumerate(position))
    assert {leaf.shape[2:] for leaf in jax.tree.leaves(memory.layers)} == {(6, 4), (4, 6)}


@windowed
def test_packed_prompts_give_the_same(name):
    prompts, ids = problem()
    packed = packing.pack(prompts, 1, int(prompts.lengths.sum()) + 2)
    assert relative(our_logits(CONFIGS[name], weights(name)[1], packed, ids), their_logits(name)) < 1e-5


@pytest.mark.parametrize("chunks", [pytest.param((1,) * T, marks=pytest.mark.extended), (2, 3, 1)])
@pytest.mark.parametrize("name", ["mistral, window 4", "qwen3"])
def test_decoding_in_chunks_is_decoding_at_once(name, chunks):
    (prompts, ids), params, network = problem(), weights(name)[1], compiled(CONFIGS[name])
    memory, cache, parts, done = network.encode(params, prompts), network.empty_cache(ROWS, T + 2), [], 0
    for size in chunks:
        part, cache = network.decode(params, ids[:, done : done + size], memory, cache)
        parts.append(network.logits(params, part))
        done += size
    assert relative(jnp.concatenate(parts, axis=1), their_logits(name)) < 1e-5


@pytest.mark.parametrize(
    "chunks", [*(pytest.param(each, marks=pytest.mark.extended) for each in ((T,), (1,) * T)), (3, T - 3)]
)
@windowed
def test_tokens_in_a_tree_have_the_states_of_each_branch_in_a_line(name, chunks):
    (prompts, ids), params, network = problem(), weights(name)[1], compiled(CONFIGS[name])
    memory, rng = network.encode(params, prompts), np.random.default_rng(3)
    assert_branches_are_lines(network, params, ids, memory, rng, chunks, spare=1)


def test_padding_does_not_matter():
    prompts, ids = problem()
    longer = prompts._replace(ids=jnp.pad(prompts.ids, ((0, 0), (0, 5)), constant_values=7))
    for name in ("llama", "mistral, window 4"):
        assert relative(our_logits(CONFIGS[name], weights(name)[1], longer, ids), their_logits(name)) < 1e-5


def test_bfloat16_stays_near_float32():
    found = our_logits(replace(LLAMA, dtype=jnp.bfloat16), weights("llama")[1], *problem())
    assert found.dtype == jnp.bfloat16
    a, b = (jax.nn.standardize(jnp.asarray(each, jnp.float32)) for each in (found, their_logits("llama")))
    assert jnp.mean(a * b) > 0.99


PUBLISHED = {  # parameters, as their cards state them
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}


@pytest.mark.extended
@pytest.mark.parametrize("name", only(["HuggingFaceTB/SmolLM2-135M-Instruct"], PUBLISHED))
def test_published_sizes(name):
    config = decoder_files.PUBLISHED[name]
    shapes = oracle.generator_shapes(config)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == PUBLISHED[name]
    network = decoder.generator(config)
    prompts = Tokens(jax.ShapeDtypeStruct((4, 6_000), jnp.int32), jax.ShapeDtypeStruct((4,), jnp.int32))
    memory = jax.eval_shape(network.encode, shapes, prompts)
    assert memory.layers[0][1].shape == (4, config.num_kv_heads, min(6_000, config.window or 6_000), config.d)
    step = jax.ShapeDtypeStruct((4, 3), jnp.int32)
    states, cache = jax.eval_shape(
        network.decode, shapes, step, memory, jax.eval_shape(lambda: network.empty_cache(4, 9))
    )
    assert states.shape == (4, 3, config.width)
    assert cache.layers[-1][0].shape == (4, config.num_kv_heads, config.d, 9)
    assert jax.eval_shape(network.logits, shapes, states).shape == (4, 3, config.vocab_size)
