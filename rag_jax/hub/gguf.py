"""Checkpoints in a GGUF file of llama.cpp, read like a transformers folder: its config, names and tokenizer.

What the converter of llama.cpp changed is undone: names of tensors, and the order of query and key rows in the `llama`
architecture, which llama.cpp rotates in interleaved pairs and transformers in halves.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rag_jax.errors import InputError
from rag_jax.hub import gguf_file, gguf_tokenizer, tokenizers
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.gguf_file import GgufFile, Metadata
from rag_jax.hub.tensors import Stored

SUFFIX = ".gguf"
INTERLEAVED = {"llama": True, "qwen2": False, "qwen3": False}
"""The supported architectures, and whether their query and key rows are permuted. Mistral is stored as `llama`."""
MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
SIZES = (
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("max_position_embeddings", "context_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
)
"""Keys of config.json, and of the metadata below the architecture."""
NEUTRAL = {
    "expert_count": 0,
    "attention.causal": True,
    "attention.scale": 0,
    "attention.clamp_kqv": 0,
    "attention.max_alibi_bias": 0,
    "logit_scale": 0,
    "residual_scale": 0,
    "embedding_scale": 0,
}
"""Settings that make llama.cpp compute another network, and their neutral values."""
POOLING = {1: "mean", 2: "cls", 3: "last"}
"""`pooling_type` of llama.cpp, which models of text vectors have."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GgufCheckpoint(NamedTuple):
    """The contents of a transformers folder."""

    config: ConfigJson
    tensors: dict[str, Stored]  # transformers' names; float32
    tokenizer: tokenizers.Stored
    generation: dict[str, Any]  # token ids of generation_config.json


def read(path: Path) -> GgufCheckpoint:
    """Read a file; its tensors are dequantised when they are read.

    Raises `InputError` for a file that is damaged, and for an architecture, a tensor, a setting or a tokenizer that is
    not supported.
    """
    file = gguf_file.read(path)
    metadata = file.metadata
    architecture = metadata["general.architecture"]
    if architecture not in INTERLEAVED:
        what = f"general.architecture is {architecture!r}, supported are {', '.join(INTERLEAVED)}"
        raise InputError(f"{path}: {what}; give a model of one of them")
    ids = {f"{role}_token_id": f"tokenizer.ggml.{key}_token_id" for role, key in gguf_tokenizer.ROLES.items()}
    generation = {ours: metadata[key] for ours, key in ids.items() if key in metadata and ours != "unk_token_id"}
    ends = [metadata[key] for key in gguf_tokenizer.ENDS if key in metadata]
    if len(set(ends)) > 1:
        generation["eos_token_id"] = list(dict.fromkeys(ends))
    config = ConfigJson(str(path), {**_config(file, architecture), **generation})
    return GgufCheckpoint(config, _tensors(file, config, architecture), gguf_tokenizer.read(metadata), generation)


def _config(file: GgufFile, architecture: str) -> dict[str, Any]:
    """The config.json of transformers."""
    metadata, names = file.metadata, file.tensors
    for key, neutral in NEUTRAL.items():
        if (found := metadata.get(f"{architecture}.{key}", neutral)) != neutral:
            raise InputError(f"{metadata.source}: {key} is {found!r}; only {neutral!r} is supported")
    sizes = {ours: metadata.number(f"{architecture}.{key}") for ours, key in SIZES}
    heads = sizes["num_attention_heads"]
    window = metadata.number(f"{architecture}.attention.sliding_window", 0)
    width = _head_width(metadata, architecture, sizes["hidden_size"] // max(heads, 1))
    return {
        "model_type": architecture,
        **sizes,
        "num_key_value_heads": metadata.number(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": width,
        "vocab_size": metadata.number(f"{architecture}.vocab_size", len(metadata["tokenizer.ggml.tokens"])),
        "hidden_act": "silu",
        "rope_parameters": _rope(file, architecture, width),
        "tie_word_embeddings": "output.weight" not in names,
        **({"attention_bias": True} if architecture == "llama" and "blk.0.attn_q.bias" in names else {}),
        **({"mlp_bias": True} if architecture == "llama" and "blk.0.ffn_up.bias" in names else {}),
        **(_window(architecture, window) if window else {}),
        **_pooling(metadata, architecture),
    }


def _pooling(metadata: Metadata, architecture: str) -> dict[str, str]:
    """The pooling of a tower. Raises `InputError` for one that ranks; a generator has none."""
    kind = metadata.number(f"{architecture}.pooling_type", 0)
    if kind and kind not in POOLING:
        what = f"pooling_type is {kind}, supported are {', '.join(map(str, POOLING))}"
        raise InputError(f"{metadata.source}: {what}; give a model of text vectors")
    return {"pooling": POOLING[kind]} if kind else {}


def _window(architecture: str, window: int) -> dict[str, Any]:
    """A sliding window in all layers; transformers' Llama has none, its Mistral is a Llama with one."""
    if architecture == "llama":
        return {"model_type": "mistral", "sliding_window": window}
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}


def _head_width(metadata: Metadata, architecture: str, default: int) -> int:
    width = metadata.number(f"{architecture}.attention.key_length", default)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (found := metadata.number(f"{architecture}.{key}", width)) != width:
            what = f"{key} is {found} where keys have {width}"
            raise InputError(f"{metadata.source}: {what}; only heads of one width, rotated as a whole, are supported")
    return width


def _rope(file: GgufFile, architecture: str, width: int) -> dict[str, Any]:
    """The `rope_parameters` of transformers. Raises `InputError` for a scaling that they cannot express."""
    metadata, scaling = file.metadata, f"{architecture}.rope.scaling"
    theta = {"rope_theta": metadata.number(f"{architecture}.rope.freq_base", 10_000.0)}
    # A factor without a type is linear, and was once called scale_linear.
    factor = metadata.number(f"{scaling}.factor", metadata.number(f"{architecture}.rope.scale_linear", 1)) or 1
    kind = metadata.get(f"{scaling}.type", "linear")
    kind = "none" if kind == "linear" and factor == 1 else kind
    original = metadata.number(f"{scaling}.original_context_length", 0)
    if ROPE_FACTORS in file.tensors and kind == "none":
        factors = file.tensors[ROPE_FACTORS].read()
        return {**_llama3(factors, theta["rope_theta"], width, original, metadata.source), **theta}
    if ROPE_FACTORS in file.tensors or kind not in ("none", "linear"):
        what = f"RoPE is scaled by {kind}{f' and {ROPE_FACTORS}' if ROPE_FACTORS in file.tensors else ''}"
        raise InputError(f"{metadata.source}: {what}; supported are none, linear and Llama 3's")
    return {"rope_type": "default", **theta} if kind == "none" else {"rope_type": kind, "factor": factor, **theta}


def _llama3(factors: np.ndarray, theta: float, width: int, original: float, source: str) -> dict[str, Any]:
    """Recover Llama 3's scaling from the factor by which llama.cpp divides each frequency.

        factor                                     for wavelengths above L / low
        1                                          below L / high
        1 / ((1 - s) / factor + s)                 between them, s = (L / wavelength - low) / (high - low)

    for an original context of L tokens. Raises `InputError` if the published `low` and `high` do not give the factors.
    """
    found = {**LLAMA3, "factor": round(float(factors.max()), 4)}
    if original:
        found["original_max_position_embeddings"] = original
    low, high, context, factor = found.values()
    wavelengths = 2 * math.pi * theta ** (np.arange(0, width, 2) / width)
    smooth = np.clip((context / wavelengths - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if expected.shape != factors.shape or not np.allclose(expected, factors, rtol=1e-4):
        what = f"{ROPE_FACTORS} is not Llama 3's scaling with a factor of {factor}"
        raise InputError(f"{source}: {what}; use the model's transformers folder")
    return {"rope_type": "llama3", **found}


def _tensors(file: GgufFile, config: Mapping[str, Any], architecture: str) -> dict[str, Stored]:
    """The tensors under transformers' names, their rows in transformers' order."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = {}
    for name, tensor in file.tensors.items():
        if name == ROPE_FACTORS:
            continue
        layer = LAYER.fullmatch(name)
        module, _, leaf = name.rpartition(".")
        if layer and layer[2] in LAYER_MODULES:
            number, module, leaf = layer.groups()
            renamed = f"model.layers.{number}.{LAYER_MODULES[module]}.{leaf}"
        elif module in MODULES:
            renamed = f"{MODULES[module]}.{leaf}"
        else:
            what = f"{name} {tensor.shape} is not a tensor of the {architecture} architecture"
            raise InputError(f"{file.metadata.source}: {what}; use the model's transformers folder")
        interleaved = INTERLEAVED[architecture] and module in heads
        found[renamed] = tensor._replace(read=partial(_halved, tensor.read, heads[module])) if interleaved else tensor
    return found


def _halved(read: Callable[[], np.ndarray], heads: int) -> np.ndarray:
    """The rows of each head, from interleaved pairs (0, 1), (2, 3), … to halves: 0, 2, …, then 1, 3, …"""
    rows = read()
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
