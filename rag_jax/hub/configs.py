"""Reading and writing config.json: the networks' sizes, and the settings of RAG checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.core.variants import Model
from rag_jax.errors import InputError
from rag_jax.hub import registry
from rag_jax.hub.checkpoints import Reading
from rag_jax.hub.config_json import ConfigJson, read_settings
from rag_jax.models.architecture import GeneratorConfig, TowerConfig


class RagArchitecture(NamedTuple):
    """A RAG model in transformers."""

    architecture: str
    max_length: int  # default for answers; only RAG-Token counts the start token


DEFAULT_MAX_LENGTH = 21  # of generators by themselves: the start token and 20 more
RAG_ARCHITECTURES: dict[Model, RagArchitecture] = {
    "token": RagArchitecture("RagTokenForGeneration", 20),
    "sequence": RagArchitecture("RagSequenceForGeneration", 21),
}
MODELS: dict[str, Model] = {theirs.architecture: model for model, theirs in RAG_ARCHITECTURES.items()}

# The settings in generation_config.json, formerly in config.json. First those that no decoding here supports, each with
# its neutral value.
NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "encoder_no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "force_words_ids": None,
    "constraints": None,
    "stop_strings": None,
    "renormalize_logits": False,
    "top_h": None,
    "watermarking_config": None,
    "token_healing": False,
    "dola_layers": None,
    "max_time": None,
}
GENERATION = frozenset(NEUTRAL) | {
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "num_return_sequences",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
}


def read_config(folder: Path) -> ConfigJson:
    """Read a folder's config.json."""
    return read_settings(folder / "config.json")


def tower(config: ConfigJson, folder: Path) -> TowerConfig:
    """Read a tower's sizes and pooling from its config and, if present, a sentence-transformers `modules.json`."""
    return registry.tower(config).read_config(config, folder)


def generator(config: ConfigJson) -> GeneratorConfig:
    """Read a generator's sizes."""
    return registry.generator(config).read_config(config)


def describe_rag(
    reading: Reading, tower: Mapping[str, Any], generator: Mapping[str, Any], sizes: TowerConfig
) -> dict[str, Any]:
    """The config.json of a RAG checkpoint. Raises `InputError` for templates that transformers cannot express."""
    prefix, title, rest = reading.passage_template.partition("{title}")
    if reading.model not in RAG_ARCHITECTURES:
        remedy = "keep the workdir, or save its generator alone (rag_jax.hub.save)"
        raise InputError(f"model {reading.model}: transformers has no such RAG; nothing is written; {remedy}")
    separator, question, end = reading.question_template.partition("{question}")
    if not title or not rest.endswith("{text}") or not question or end or "{passage}" in separator:
        templates = f"{reading.passage_template!r} and {reading.question_template!r}"
        form = "a title, a separator, the text, a separator and the question"
        raise InputError(f"{templates}: transformers joins {form}; nothing is written")
    return {
        "architectures": [RAG_ARCHITECTURES[reading.model].architecture],
        "model_type": "rag",
        "is_encoder_decoder": True,
        "n_docs": reading.num_docs,
        "max_combined_length": reading.max_input,
        "title_sep": rest.removesuffix("{text}"),
        "doc_sep": separator,
        "retrieval_vector_size": sizes.vector_width,
        "index_name": "custom",
        "question_from_tower": reading.question_from_tower,  # transformers ignores this and always does so
        "vocab_size": generator["vocab_size"],
        "question_encoder": dict(tower),
        "generator": {**generator, "prefix": prefix},
    }
