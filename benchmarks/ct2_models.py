"""BERT and BART as models of CTranslate2, from the tensors of a transformers checkpoint.

CTranslate2's own converter reads a checkpoint through torch and needs a tokenizer; here the same specification is
filled with arrays. Each token is spelled as its id, so that ids and tokens map one to one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

from benchmarks.cases import END, START

UNKNOWN = "3"  # BART's
POSITION_OFFSET = 2  # BART's position tables begin with two rows that nothing reads

Dtype = Literal["float32", "int8"]  # of the weights; int8 also multiplies in it, and all else is float32


class Tensors(NamedTuple):
    """Stored tensors, copied into the parts of a specification by name: it is quantised in place."""

    stored: Mapping[str, np.ndarray]

    def linear(self, spec: Any, *names: str) -> None:
        """One linear layer, or several that have the same input, side by side."""
        spec.weight = np.concatenate([self.stored[f"{name}.weight"] for name in names])
        spec.bias = np.concatenate([self.stored[f"{name}.bias"] for name in names])

    def norm(self, spec: Any, name: str) -> None:
        spec.gamma, spec.beta = self.stored[f"{name}.weight"], self.stored[f"{name}.bias"]


def convert_bart(stored: Mapping[str, np.ndarray], config: Mapping[str, Any], folder: Path, dtype: Dtype) -> None:
    """Write `folder`, which `ctranslate2.Translator` loads. `config` is transformers' config.json."""
    tensors, words = Tensors(stored), np.array(stored["model.shared.weight"])
    spec: Any = transformer_spec.TransformerSpec.from_config(
        (config["encoder_layers"], config["decoder_layers"]),
        config["encoder_attention_heads"],
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
    )
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = spec.decoder.projection.weight = words
    spec.decoder.projection.bias = stored["final_logits_bias"].reshape(-1)
    for half in ("encoder", "decoder"):
        part = getattr(spec, half)
        part.scale_embeddings = 1.0
        part.position_encodings.encodings = stored[f"model.{half}.embed_positions.weight"][POSITION_OFFSET:]
        tensors.norm(part.layernorm_embedding, f"model.{half}.layernorm_embedding")
        for number, layer in enumerate(part.layer):
            _bart_layer(tensors, layer, f"model.{half}.layers.{number}", half == "decoder")
    vocabulary = _vocabulary(words)
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.unk_token, spec.config.eos_token = UNKNOWN, str(END)
    spec.config.decoder_start_token = str(START)
    _write(spec, folder, dtype)


def convert_bert(stored: Mapping[str, np.ndarray], heads: int, eps: float, folder: Path, dtype: Dtype) -> None:
    """Write `folder`, which `ctranslate2.Encoder` loads: the last layer's states, without a pooler."""
    tensors = Tensors(stored)
    layers = sum(name.endswith("intermediate.dense.weight") for name in stored)
    encoder: Any = transformer_spec.TransformerEncoderSpec(
        layers,
        heads,
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    for spec, name in zip(encoder.embeddings, ("word", "token_type"), strict=True):
        spec.weight = np.array(stored[f"embeddings.{name}_embeddings.weight"])
    encoder.position_encodings.encodings = stored["embeddings.position_embeddings.weight"]
    tensors.norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        _bert_layer(tensors, layer, f"encoder.layer.{number}")
    spec: Any = transformer_spec.TransformerEncoderModelSpec(encoder)
    spec.register_vocabulary(_vocabulary(stored["embeddings.word_embeddings.weight"]))
    spec.config.layer_norm_epsilon, spec.config.unk_token = eps, UNKNOWN
    _write(spec, folder, dtype)


def states(tower: ctranslate2.Encoder, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The last layer's states `[rows, S, width]` of token ids `[rows, S]`."""
    told = tower.forward_batch(*(ctranslate2.StorageView.from_array(each) for each in (ids, lengths)))
    return np.array(told.last_hidden_state)


def _bart_layer(tensors: Tensors, layer: Any, name: str, decodes: bool) -> None:
    own, cross = f"{name}.self_attn", f"{name}.encoder_attn"
    tensors.linear(layer.self_attention.linear[0], f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
    tensors.linear(layer.self_attention.linear[1], f"{own}.out_proj")
    tensors.norm(layer.self_attention.layer_norm, f"{own}_layer_norm")
    if decodes:
        tensors.linear(layer.attention.linear[0], f"{cross}.q_proj")
        tensors.linear(layer.attention.linear[1], f"{cross}.k_proj", f"{cross}.v_proj")
        tensors.linear(layer.attention.linear[2], f"{cross}.out_proj")
        tensors.norm(layer.attention.layer_norm, f"{cross}_layer_norm")
    tensors.linear(layer.ffn.linear_0, f"{name}.fc1")
    tensors.linear(layer.ffn.linear_1, f"{name}.fc2")
    tensors.norm(layer.ffn.layer_norm, f"{name}.final_layer_norm")


def _bert_layer(tensors: Tensors, layer: Any, name: str) -> None:
    own = f"{name}.attention"
    tensors.linear(layer.self_attention.linear[0], *(f"{own}.self.{part}" for part in ("query", "key", "value")))
    tensors.linear(layer.self_attention.linear[1], f"{own}.output.dense")
    tensors.norm(layer.self_attention.layer_norm, f"{own}.output.LayerNorm")
    tensors.linear(layer.ffn.linear_0, f"{name}.intermediate.dense")
    tensors.linear(layer.ffn.linear_1, f"{name}.output.dense")
    tensors.norm(layer.ffn.layer_norm, f"{name}.output.LayerNorm")


def _vocabulary(words: np.ndarray) -> list[str]:
    return [str(token) for token in range(len(words))]


def _write(spec: Any, folder: Path, dtype: Dtype) -> None:
    spec.validate()
    spec.optimize(quantization=dtype)
    folder.mkdir()
    spec.save(str(folder))
