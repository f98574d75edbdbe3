"""Our parameter paths and the names that the Hugging Face ecosystem stores the same tensors under.

The tables go from our path to the stored name, so that the model's own parameter tree says which tensors must exist.
Linear kernels are transposed there.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rag_jax.errors import InputError
from rag_jax.types import Params

BERT = (
    (r"^(word|position|token_type)/", r"embeddings.\1_embeddings."),
    (r"^embedding_norm/", "embeddings.LayerNorm."),
    (r"^layer_(\d+)/", r"encoder.layer.\1."),
    (r"attention/(query|key|value)/", r"attention.self.\1."),
    (r"attention/out/", "attention.output.dense."),
    (r"attention_norm/", "attention.output.LayerNorm."),
    (r"up/", "intermediate.dense."),
    (r"down/", "output.dense."),
    (r"ffn_norm/", "output.LayerNorm."),
    (r"^projection/", "encode_proj."),
)
# DPR's encoders keep BERT under a name of its own, and the projection beside it.
DPR = (*BERT, (r"^(?=embeddings\.|encoder\.)", "bert_model."))

BART = (
    (r"^word/", "model.shared."),
    (r"^(encoder|decoder)_position/", r"model.\1.embed_positions."),
    (r"^(encoder|decoder)_norm/", r"model.\1.layernorm_embedding."),
    (r"^(encoder|decoder)_layers_(\d+)/", r"model.\1.layers.\2."),
    (r"attention/(query|key|value|out)/", lambda m: f"self_attn.{_PROJECTION[m[1]]}."),
    (r"cross/(query|key|value|out)/", lambda m: f"encoder_attn.{_PROJECTION[m[1]]}."),
    (r"attention_norm/", "self_attn_layer_norm."),
    (r"cross_norm/", "encoder_attn_layer_norm."),
    (r"ffn_norm/", "final_layer_norm."),
    (r"ffn/up/", "fc1."),
    (r"ffn/down/", "fc2."),
)

Table = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

_PROJECTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
_LEAF = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


def stored_name(path: str, table: Table) -> str:
    """The stored name of our parameter `path` ("layer_0/up/kernel")."""
    module, _, leaf = path.rpartition("/")
    if not module:
        return leaf
    name = f"{module}/"
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name + _LEAF.get(leaf, leaf)


def from_stored(
    tensors: Mapping[str, np.ndarray], like: Params, table: Table, *, where: str, prefix: str = ""
) -> Params:
    """Parameters shaped as `like` (arrays or shapes) from stored tensors whose names begin with `prefix`.

    Raises `InputError` with every missing and misshapen tensor; tensors that the model does not have are ignored.
    """
    shapes: dict[str, Any] = flatten_dict(like, sep="/")
    loaded, complaints = {}, []
    for path, leaf in shapes.items():
        name = prefix + stored_name(path, table)
        if name not in tensors:
            complaints.append(f"{name} is missing")
            continue
        value = np.asarray(tensors[name])
        value = value.T if path.endswith("/kernel") else value[0] if value.shape == (1, *leaf.shape) else value
        if value.shape != leaf.shape:
            complaints.append(f"{name} has shape {value.shape}, the config says {leaf.shape}")
        loaded[path] = jnp.asarray(value.astype(leaf.dtype))
    if complaints:
        raise InputError(f"{where}: the weights do not fit the config: {'; '.join(complaints)}")
    return unflatten_dict(loaded, sep="/")


def to_stored(params: Params, table: Table, prefix: str = "") -> dict[str, np.ndarray]:
    """The same parameters under their stored names."""
    flat: dict[str, Any] = flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    return {prefix + stored_name(path, table): v.T if path.endswith("/kernel") else v for path, v in flat.items()}
