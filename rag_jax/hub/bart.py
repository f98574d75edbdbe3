"""Checkpoints of BART."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import GeneratorCheckpoint
from rag_jax.hub.config_json import ConfigJson, Deviation, Layers, Positions, Rate, Sizes, Vocabulary, Width
from rag_jax.hub.formats import GeneratorFormat
from rag_jax.hub.tensor_names import TensorNames, same
from rag_jax.hub.tensors import Stored, Tensors
from rag_jax.models import bart
from rag_jax.models.bart import BartConfig

PROJECTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
WORDS = "model.shared.weight"  # the token table
TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
BIAS = "final_logits_bias"
NAMES = TensorNames(
    (
        (r"^word/", "model.shared."),
        (r"^(encoder|decoder)_position/", r"model.\1.embed_positions."),
        (r"^(encoder|decoder)_norm/", r"model.\1.layernorm_embedding."),
        (r"^(encoder|decoder)_layers_(\d+)/", r"model.\1.layers.\2."),
        (r"attention/(query|key|value|out)/", lambda m: f"self_attn.{PROJECTION[m[1]]}."),
        (r"cross/(query|key|value|out)/", lambda m: f"encoder_attn.{PROJECTION[m[1]]}."),
        (r"attention_norm/", "self_attn_layer_norm."),
        (r"cross_norm/", "encoder_attn_layer_norm."),
        (r"ffn_norm/", "final_layer_norm."),
        (r"ffn/up/", "fc1."),
        (r"ffn/down/", "fc2."),
    ),
    rows=frozenset({BIAS}),
)

SIZES: Sizes = (
    ("vocab_size", "vocab_size", Vocabulary),
    ("width", "d_model", Width),
    ("encoder_layers", "encoder_layers", Layers),
    ("decoder_layers", "decoder_layers", Layers),
    ("heads", "encoder_attention_heads", Width),
    ("ffn_width", "encoder_ffn_dim", Width),
    ("max_positions", "max_position_embeddings", Positions),
    ("dropout", "dropout", Rate),
    ("attention_dropout", "attention_dropout", Rate),
    ("activation_dropout", "activation_dropout", Rate),
    ("scale_embedding", "scale_embedding", bool),
)
HALVES = ("attention_heads", "ffn_dim")  # one size here for both halves
# The only settings that the network here implements.
ONLY = {
    "activation_function": "gelu",
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
    "extra_pos_embeddings": bart.POSITION_OFFSET,
}


def read_config(config: ConfigJson) -> BartConfig:
    """Read the sizes."""
    config.require(**ONLY)
    for name in HALVES:
        config.require(**{f"decoder_{name}": config[f"encoder_{name}"]})
    sizes = config.sizes(SIZES)
    config.check_heads("d_model", "encoder_attention_heads")
    return BartConfig(**sizes, init_std=config.read("init_std", Deviation, 0.02))


def describe(config: BartConfig, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of transformers for this BART, which also holds the special tokens of `generation`."""
    sizes = {theirs: getattr(config, ours) for ours, theirs, _ in SIZES}
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        **sizes,
        **{f"decoder_{name}": sizes[f"encoder_{name}"] for name in HALVES},
        "activation_function": "gelu",
        "init_std": config.init_std,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        **{key: value for key, value in generation.items() if key.endswith("_token_id")},
    }


def files(checkpoint: GeneratorCheckpoint) -> dict[str, Any]:
    """config.json."""
    assert isinstance(checkpoint.config, BartConfig)
    return {"config.json": describe(checkpoint.config, checkpoint.generation)}


def merge_tied_tables(tensors: Tensors, config: BartConfig, prefix: str, source: str) -> dict[str, Stored]:
    """Merge the tied copies of the token table, and add a zero bias of the vocabulary if it is missing.

    Raises `InputError` if tied tensors differ.
    """
    words, *tied = (prefix + name for name in (WORDS, *TIED))
    bias = prefix + BIAS
    if not any(name.startswith(f"{prefix}model.") for name in tensors):  # saved without its head
        kept = (bias, tied[0])
        tensors = {_with_model(name, prefix) if name not in kept else name: each for name, each in tensors.items()}
    copies = [name for name in (words, *tied) if name in tensors]
    for name in copies[1:]:
        if not same(tensors[copies[0]], tensors[name]):
            remedy = "give a checkpoint whose token table is one"
            raise InputError(f"{source}: {name} is not {copies[0]}, and only tied tables are known here; {remedy}")
    found = {name: tensor for name, tensor in tensors.items() if name not in copies}
    size = config.vocab_size
    found.setdefault(bias, Stored((1, size), lambda: np.zeros((1, size), np.float32)))
    return found | ({words: tensors[copies[0]]} if copies else {})


def _with_model(name: str, prefix: str) -> str:
    return f"{prefix}model.{name.removeprefix(prefix)}"


BASE = BartConfig(width=768, encoder_layers=6, decoder_layers=6, heads=12, ffn_width=3_072)
FORMAT = GeneratorFormat(
    architecture=bart.ARCHITECTURE,
    model_types=("bart",),
    read_config=read_config,
    names=NAMES,
    files=files,
    normalize=merge_tied_tables,
    published={"facebook/bart-large": BartConfig(), "facebook/bart-base": BASE},
    generation={"decoder_start_token_id": 2, "forced_eos_token_id": 2},
)
