"""config.json, in both directions: the networks' sizes, and what a RAG checkpoint says of how its parts are used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import Reading
from rag_jax.hub.described import Described, read_json
from rag_jax.hub.pooling import read_pooling
from rag_jax.models import bart, bert

Sizes = tuple[tuple[str, str], ...]  # our field, and the key that stands for it

TOWER: Sizes = (
    ("vocab_size", "vocab_size"),
    ("width", "hidden_size"),
    ("layers", "num_hidden_layers"),
    ("heads", "num_attention_heads"),
    ("ffn_width", "intermediate_size"),
    ("max_positions", "max_position_embeddings"),
    ("token_types", "type_vocab_size"),
    ("dropout", "hidden_dropout_prob"),
    ("attention_dropout", "attention_probs_dropout_prob"),
    ("layer_norm_eps", "layer_norm_eps"),
)
GENERATOR: Sizes = (
    ("vocab_size", "vocab_size"),
    ("width", "d_model"),
    ("encoder_layers", "encoder_layers"),
    ("decoder_layers", "decoder_layers"),
    ("heads", "encoder_attention_heads"),
    ("ffn_width", "encoder_ffn_dim"),
    ("max_positions", "max_position_embeddings"),
    ("dropout", "dropout"),
    ("attention_dropout", "attention_dropout"),
    ("activation_dropout", "activation_dropout"),
    ("scale_embedding", "scale_embedding"),
)
# What the networks here do; a checkpoint that asks for anything else is of another network.
ONLY_BERT = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
ONLY_BART = {
    "activation_function": "gelu",
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
    "extra_pos_embeddings": bart.POSITION_OFFSET,
}
MODELS: dict[str, Literal["token", "sequence"]] = {
    "RagTokenForGeneration": "token",
    "RagSequenceForGeneration": "sequence",
}
# What transformers keeps in generation_config.json, and kept in config.json before. First the settings that no search
# here knows, each with the value that changes nothing.
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
ARCHITECTURES = {model: name for name, model in MODELS.items()}


def read_config(folder: Path) -> Described:
    """The folder's config.json."""
    path = folder / "config.json"
    values = read_json(path)
    return Described(str(path), values if isinstance(values, dict) else {})


def tower(config: Described, folder: Path) -> bert.BertConfig:
    """BERT's sizes and pooling: DPR's [CLS], or as the config or a sentence-transformers `modules.json` says."""
    config.expect("bert", "dpr")
    config.require(**ONLY_BERT)
    pooling, norm = read_pooling(folder)
    return bert.BertConfig(
        **{ours: config[theirs] for ours, theirs in TOWER},
        init_std=config.get("initializer_range", 0.02),
        pooling=config.get("pooling", pooling),
        projection=config.get("projection_dim") or None,
        vector_norm=config.get("vector_norm", norm),
    )


def generator(config: Described) -> bart.BartConfig:
    """BART's sizes."""
    config.expect("bart")
    config.require(**ONLY_BART)
    for name in ("attention_heads", "ffn_dim"):  # one size here for both halves
        config.require(**{f"decoder_{name}": config[f"encoder_{name}"]})
    sizes = {ours: config[theirs] for ours, theirs in GENERATOR}
    return bart.BartConfig(**sizes, init_std=config.get("init_std", 0.02))


def describe_tower(config: bert.BertConfig, architecture: str | None) -> dict[str, Any]:
    """The config that transformers makes the same tower from; pooling that it does not know is said beside it."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in TOWER}
    own = {"pooling": config.pooling, "vector_norm": config.vector_norm} if not is_dpr(config) else {}
    return {
        "architectures": [architecture or ("DPRQuestionEncoder" if is_dpr(config) else "BertModel")],
        "model_type": "dpr" if is_dpr(config) else "bert",
        **sizes,
        "hidden_act": "gelu",
        "initializer_range": config.init_std,
        "pad_token_id": 0,
        **({"projection_dim": config.projection or 0} if is_dpr(config) else {}),
        **own,
    }


def describe_generator(config: bart.BartConfig, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The config that transformers makes the same BART from; it wants the special tokens of `generation` there too."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in GENERATOR}
    halves = {f"decoder_{name}": sizes[f"encoder_{name}"] for name in ("attention_heads", "ffn_dim")}
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        **sizes,
        **halves,
        "activation_function": "gelu",
        "init_std": config.init_std,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        **{key: value for key, value in generation.items() if key.endswith("_token_id")},
    }


def describe_rag(
    reading: Reading, tower: Mapping[str, Any], generator: Mapping[str, Any], sizes: bert.BertConfig
) -> dict[str, Any]:
    """The config of a RAG checkpoint around those of its parts. Raises `InputError` for a template of another form."""
    prefix, title, rest = reading.passage_template.partition("{title}")
    if not title or not rest.endswith("{text}") or not reading.question_template.endswith("{question}"):
        form = "a title, a separator, the text, a separator and the question"
        raise InputError(f"{reading.passage_template!r}: transformers joins {form}; nothing is written")
    return {
        "architectures": [ARCHITECTURES[reading.model]],
        "model_type": "rag",
        "is_encoder_decoder": True,
        "n_docs": reading.num_docs,
        "max_combined_length": reading.max_input,
        "title_sep": rest.removesuffix("{text}"),
        "doc_sep": reading.question_template.removesuffix("{question}"),
        "retrieval_vector_size": sizes.vector_width,
        "index_name": "custom",
        "question_from_tower": reading.question_from_tower,  # transformers does, whatever stands here
        "vocab_size": generator["vocab_size"],
        "question_encoder": dict(tower),
        "generator": {**generator, "prefix": prefix},
    }


def is_dpr(config: bert.BertConfig) -> bool:
    """Whether DPR's encoders pool as this tower does: the state of [CLS], as it is."""
    return config.pooling == "cls" and config.vector_norm is None
