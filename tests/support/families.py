"""Random small networks of the decoder-only families and of T5, whose options are drawn and all occur.

A network's sizes are drawn apart from its weights: those of equal sizes share their compiled programs.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

import oracle
from oracle import torch
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope
from rag_jax.models.t5 import T5Config
from rag_jax.types import Params

V, PAD, EOS = 24, 0, 1  # PAD also starts T5's answers, and ends the prompts of the others
LONGEST = 12  # tokens of an input
Config = DecoderConfig | T5Config

ROPES = {
    "default": Rope(100.0),
    "default, theta 10": Rope(10.0),
    "linear": Rope(100.0, "linear", 2.0),
    "llama3": Rope(100.0, "llama3", 4.0, 1.0, 4.0, 12),
}
SIZES: dict[str, list[Any]] = {
    "model_type": ["llama", "mistral", "qwen2", "qwen3"],
    "width": [24, 48],  # transformers refuses one that the heads do not divide, also where their width is given
    "decoder_layers": [1, 2, 3],
    "heads": [(4, 4), (4, 2), (4, 1), (6, 2)],  # of queries, and of keys and values
    "head_width": [None, 4, 10],
    "ffn_width": [16, 40],
    "norm_eps": [1e-6, 1e-5, 1e-2],
    "rope": list(ROPES),
    "tied_head": [False, True],
    "bias": [False, True],  # of a Llama or a Qwen3; the other families have theirs or none
    # Shorter than the prompt; reached by the answer; longer than both. With a window of one token, answers of the same
    # pairs of tokens are equally good.
    "window": [None, 2, 5, LONGEST + 4, 40],
    "prefill_chunk": [None, 3],
}
T5_SIZES: dict[str, list[Any]] = {
    "width": [16, 24],
    "encoder_layers": [1, 2],
    "decoder_layers": [1, 2, 3],
    "heads": [2, 4],
    "head_width": [None, 3, 10],
    "ffn_width": [16, 40],
    "gated": [False, True],
    "tied_head": [False, True],
    "buckets": [(4, 3), (8, 10), (32, 128)],  # and the largest distance
    "layer_norm_eps": [1e-6, 1e-2],
}


def drawn(sizes: dict[str, list[Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """So many draws, in which every value of an option is as frequent as the others."""
    draw = np.random.default_rng(seed)
    columns = {name: draw.permutation([n % len(values) for n in range(count)]) for name, values in sizes.items()}
    return [{name: values[columns[name][n]] for name, values in sizes.items()} for n in range(count)]


def decoder_configs(count: int, seed: int) -> list[DecoderConfig]:
    """What a family does not have, a draw of it leaves out: a Llama has no window, for example."""
    return [_decoder_config(**each) for each in drawn(SIZES, count, seed)]


def _decoder_config(heads: tuple[int, int], rope: str, bias: bool, **sizes: Any) -> DecoderConfig:
    family = sizes["model_type"]
    config = DecoderConfig(
        vocab_size=V, heads=heads[0], kv_heads=heads[1], max_positions=64, rope=ROPES[rope],
        qkv_bias=family == "qwen2" or (bias and family != "mistral"), out_bias=bias and family in ("llama", "qwen3"),
        qk_norm=family == "qwen3", **sizes
    )  # fmt: skip
    return replace(config, window=None) if family == "llama" else config


def t5_configs(count: int, seed: int) -> list[T5Config]:
    return [
        T5Config(vocab_size=V, position_buckets=buckets, max_distance=distance, **sizes)
        for each in drawn(T5_SIZES, count, seed)
        for (buckets, distance), sizes in [(each.pop("buckets"), each)]
    ]


@cache
def network(config: Config, seed: int) -> tuple[torch.nn.Module, Params]:
    """A generator of transformers with random weights, and the same as our parameters.

    The end token's row of the head is drawn up to three times as long as the others', so that answers end early and
    late.
    """
    model, _ = oracle.any_generator(config, seed)
    with torch.no_grad():
        model.get_output_embeddings().weight[EOS] *= np.random.default_rng(seed).uniform(1, 3)
    return model, oracle.any_params(config, oracle.state(model))
