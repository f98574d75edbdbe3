"""Our parameter paths and the names that the Hugging Face ecosystem stores the same tensors under.

The tables go from our path to the stored name, so that the model's own parameter tree says which tensors must exist.
Linear kernels are transposed there, and the generator's bias has a row of its own.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rag_jax.errors import InputError
from rag_jax.hub.tensors import Stored, Tensors
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

WORDS = "model.shared.weight"  # BART's token table, and the names of those tied to it
TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
BIAS = "final_logits_bias"

# What some checkpoints hold and no network here reads: counters, BERT's pooler, heads of its pre-training.
SURPLUS = re.compile(r"(^|\.)(embeddings\.position_ids$|pooler\.|cls\.)|^model\.(encoder|decoder)\.version$")
# LayerNorm's names in checkpoints that were converted from TensorFlow.
LEGACY = {"gamma": "weight", "beta": "bias"}


def stored_name(path: str, table: Table) -> str:
    """The stored name of our parameter `path` ("layer_0/up/kernel")."""
    module, _, leaf = path.rpartition("/")
    if not module:
        return leaf
    name = f"{module}/"
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name + _LEAF.get(leaf, leaf)


def modern(tensors: Tensors) -> dict[str, Stored]:
    """The tensors that matter, under today's names."""
    parts = ((name.rpartition("."), tensor) for name, tensor in tensors.items())
    named = {f"{module}{dot}{LEGACY.get(leaf, leaf)}": tensor for (module, dot, leaf), tensor in parts}
    return {name: tensor for name, tensor in named.items() if not SURPLUS.search(name)}


def untied(tensors: Tensors, vocab_size: int, prefix: str, where: str) -> dict[str, Stored]:
    """BART's tensors with the token table once, however often it was stored, and with a bias of the vocabulary.

    Raises `InputError` where tied tensors differ.
    """
    words, *tied = (prefix + name for name in (WORDS, *TIED))
    bias = prefix + BIAS
    if not any(name.startswith(f"{prefix}model.") for name in tensors):  # saved without its head
        kept = (bias, tied[0])
        tensors = {_with_model(name, prefix) if name not in kept else name: each for name, each in tensors.items()}
    copies = [name for name in (words, *tied) if name in tensors]
    for name in copies[1:]:
        if not _same(tensors[copies[0]], tensors[name]):
            remedy = "give a checkpoint whose token table is one"
            raise InputError(f"{where}: {name} is not {copies[0]}, and only tied tables are known here; {remedy}")
    found = {name: tensor for name, tensor in tensors.items() if name not in copies}
    found.setdefault(bias, Stored((1, vocab_size), lambda: np.zeros((1, vocab_size), np.float32)))
    return found | ({words: tensors[copies[0]]} if copies else {})


def from_stored(tensors: Tensors, like: Params, table: Table, *, where: str, prefix: str = "") -> Params:
    """Parameters shaped as `like` (arrays or shapes) from stored tensors whose names begin with `prefix`.

    Raises `InputError` with every missing, misshapen and unexpected tensor, before any is read, and for one that holds
    NaN or infinity.
    """
    shapes: dict[str, Any] = flatten_dict(like, sep="/")
    wanted = {prefix + stored_name(path, table): path for path in shapes}
    needed = {name: _stored_shape(path, shapes[path].shape) for name, path in wanted.items()}
    complaints = [f"{name} {shape} is missing" for name, shape in needed.items() if name not in tensors]
    for name, tensor in tensors.items():
        if name not in needed:
            complaints.append(f"{name} {tensor.shape} is unexpected")
        elif tensor.shape != needed[name] and (wanted[name] != BIAS or tensor.shape != needed[name][1:]):
            complaints.append(f"{name} has shape {tensor.shape}, the config says {needed[name]}")
    if complaints:
        raise InputError(f"{where}: the weights do not fit the config: {'; '.join(complaints)}")
    # The largest first: a tensor is copied on its way, and then least else is in memory.
    order = sorted(wanted, key=lambda name: -math.prod(needed[name]))
    read = {}
    for name in order:
        value = _checked(tensors[name].read(), shapes[wanted[name]].dtype, f"{where}: {name}")
        read[wanted[name]] = _ours(wanted[name], value, shapes[wanted[name]])
    return unflatten_dict(read, sep="/")


def to_stored(params: Params, table: Table, prefix: str = "") -> dict[str, np.ndarray]:
    """The same parameters under their stored names; what is transposed is a view."""
    flat: dict[str, Any] = flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    return {prefix + stored_name(path, table): _theirs(path, value) for path, value in flat.items()}


def _with_model(name: str, prefix: str) -> str:
    return f"{prefix}model.{name.removeprefix(prefix)}"


def _checked(value: np.ndarray, dtype: Any, where: str) -> np.ndarray:
    """A tensor in the precision of the parameters. Raises `InputError` where it is not finite there."""
    with np.errstate(over="ignore"):  # of float64
        value = value.astype(dtype, copy=False)
    if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):  # NaN wins both; nothing is copied
        raise InputError(f"{where} holds NaN or infinity; copy or download the weights again, or give others")
    return value


def _ours(path: str, value: np.ndarray, like: Any) -> jax.Array:
    value = value.T if path.endswith("/kernel") else value.reshape(like.shape)
    # Waited for: until it is copied both are in memory.
    return jnp.asarray(value).block_until_ready()


def _theirs(path: str, value: np.ndarray) -> np.ndarray:
    return value.T if path.endswith("/kernel") else value[None] if path == BIAS else value


def _stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if path.endswith("/kernel") else (1, *shape) if path == BIAS else shape


def _same(one: Stored, other: Stored) -> bool:
    return one is other or (one.shape == other.shape and bool(np.array_equal(one.read(), other.read())))


def summary(params: Params, table: Table, prefix: str = "") -> Mapping[str, tuple[str, int]]:
    """What is stored as what, layers drawn together: our path -> (stored name, how many tensors)."""
    found: dict[str, tuple[str, int]] = {}
    for path in flatten_dict(params, sep="/"):
        ours, theirs = (re.sub(r"\d+", "*", name) for name in (path, prefix + stored_name(path, table)))
        found[ours] = theirs, found.get(ours, ("", 0))[1] + 1
    return found
