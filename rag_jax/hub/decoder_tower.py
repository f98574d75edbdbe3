"""Checkpoints of decoder-only towers: Llama, Mistral, Qwen2 and Qwen3.

Without a head or with one, which is dropped; plain or in the layout of sentence-transformers, as they are saved.
"""

import dataclasses
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError
from rag_jax.hub import decoder, sentence_transformers
from rag_jax.hub.checkpoints import Side, TowerCheckpoint
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.formats import Layout, TowerFormat
from rag_jax.hub.pooling import read_vector_settings
from rag_jax.hub.tensor_names import TensorNames
from rag_jax.hub.tensors import Stored, Tensors
from rag_jax.models import decoder_tower
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.decoder_tower import DecoderTowerConfig

# A model without a head has no prefix.
NAMES = TensorNames((*decoder.NAMES.rules, (r"^model\.", "")))
PLAIN, BELOW_A_HEAD = Layout("", NAMES), Layout("model.", NAMES)
# The only settings that the network here implements: some towers attend in both directions.
ONLY = {"is_causal": True, "use_bidirectional_attention": False}


def read_config(config: ConfigJson, folder: Path) -> DecoderTowerConfig:
    """Read the sizes and the pooling: the last token, unless the config or a `modules.json` differs."""
    config.require(**ONLY)
    if "AutoModel" in (config.get("auto_map") or {}):
        remedy = "delete auto_map in a copy if its network is the causal one of transformers"
        raise InputError(f"{config.source}: auto_map names code of its own, which is not run; {remedy}")
    network = decoder.read_config(config)
    vectors = read_vector_settings(config, folder, network.width, "last")
    return _tower(network, **vectors._asdict())


def _tower(network: DecoderConfig, **vectors: Any) -> DecoderTowerConfig:
    """The network without a head."""
    sizes = {each.name: getattr(network, each.name) for each in dataclasses.fields(network)}
    return DecoderTowerConfig(**{**sizes, "tied_head": True, **vectors})


def files(checkpoint: TowerCheckpoint) -> dict[str, Any]:
    """The JSON files, in the layout of sentence-transformers."""
    config = checkpoint.config
    assert isinstance(config, DecoderTowerConfig)
    described = decoder.describe(config, {})
    names = [name.replace("ForCausalLM", "Model") for name in described["architectures"]]
    return sentence_transformers.files(checkpoint, config, {**described, "architectures": names})


def layout(config: DecoderTowerConfig, side: Side | None) -> Layout:
    """The layout of a model without a head."""
    return PLAIN


def without_head(tensors: Tensors, config: DecoderTowerConfig, prefix: str, source: str) -> dict[str, Stored]:
    """The tensors without a head, and without the frequencies that old files hold."""
    return {
        name: each
        for name, each in tensors.items()
        if name != prefix + decoder.HEAD and not name.endswith("rotary_emb.inv_freq")
    }


FORMAT = TowerFormat(
    architecture=decoder_tower.ARCHITECTURE,
    model_types=decoder.FORMAT.model_types,
    read_config=read_config,
    layouts=(PLAIN, BELOW_A_HEAD),
    layout=layout,
    files=files,
    normalize=without_head,
    published={
        "intfloat/e5-mistral-7b-instruct": _tower(
            decoder.PUBLISHED["mistralai/Mistral-7B-v0.1"], pooling="last", vector_norm=1.0
        ),
    },
)
