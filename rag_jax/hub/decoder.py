"""Checkpoints of the Llama family: Llama, Mistral, Qwen2 and Qwen3."""

from collections.abc import Mapping
from typing import Any

from rag_jax.data.validation import NotNegative
from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import GeneratorCheckpoint
from rag_jax.hub.config_json import (
    REMEDY,
    ConfigJson,
    Deviation,
    Epsilon,
    Layers,
    Positions,
    Scale,
    Sizes,
    Vocabulary,
    Width,
)
from rag_jax.hub.formats import GeneratorFormat
from rag_jax.hub.tensor_names import TensorNames, same
from rag_jax.hub.tensors import Stored, Tensors
from rag_jax.models import decoder
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope

PROJECTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
WORDS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NAMES = TensorNames(
    (
        (r"^word/", "model.embed_tokens."),
        (r"^norm/", "model.norm."),
        (r"^head/", "lm_head."),
        (r"^layers_(\d+)/", r"model.layers.\1."),
        (r"attention_norm/", "input_layernorm."),
        (r"ffn_norm/", "post_attention_layernorm."),
        (r"attention/(query|key)_norm/", lambda m: f"self_attn.{m[1][0]}_norm."),
        (r"attention/(query|key|value|out)/", lambda m: f"self_attn.{PROJECTION[m[1]]}."),
        (r"ffn/(gate|up|down)/", r"mlp.\1_proj."),
    )
)
SIZES: Sizes = (
    ("vocab_size", "vocab_size", Vocabulary),
    ("width", "hidden_size", Width),
    ("decoder_layers", "num_hidden_layers", Layers),
    ("heads", "num_attention_heads", Width),
    ("ffn_width", "intermediate_size", Width),
    ("max_positions", "max_position_embeddings", Positions),
    ("norm_eps", "rms_norm_eps", Epsilon),
)
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# The only settings that the network here implements.
ONLY = {"hidden_act": "silu", "mlp_bias": False, "attention_dropout": 0.0, "quantization_config": None}
DEFAULT_WINDOW = 4_096  # of a Mistral or Qwen whose config.json does not state it
QWEN_FULL_LAYERS = 28  # the first layers, which have no window, of a Qwen whose config.json does not say how many
DEFAULT_THETA = 10_000.0
SCALINGS = ("default", "linear", "llama3")


def read_config(config: ConfigJson) -> DecoderConfig:
    """Read the sizes. Some settings are implied by the family, and missing in config.json."""
    config.require(**ONLY)
    sizes, kv_heads = config.sizes(SIZES), config.read("num_key_value_heads", Width, None)
    family, heads, head_width = config["model_type"], sizes["heads"], config.read("head_dim", Width, None)
    if heads % (kv_heads or heads):
        raise InputError(
            f"{config.source}: {heads} query heads do not divide into {kv_heads} key-value heads; correct one of them"
        )
    if head_width is None:
        config.check_heads("hidden_size", "num_attention_heads")
    if (head_width or sizes["width"] // heads) % 2:
        raise InputError(f"{config.source}: heads of an odd width cannot be rotated in halves; {REMEDY}")
    bias = config.read("attention_bias", bool, False)
    return DecoderConfig(
        **sizes,
        kv_heads=None if kv_heads == heads else kv_heads,
        head_width=None if head_width and head_width * heads == sizes["width"] else head_width,
        rope=_rope(config),
        qkv_bias=family == "qwen2" or bias,
        out_bias=family != "qwen2" and bias,
        qk_norm=family == "qwen3",
        tied_head=config.read("tie_word_embeddings", bool, False),
        window=_window(config),
        init_std=config.read("initializer_range", Deviation, 0.02),
        model_type=family,
    )


def _rope(config: ConfigJson) -> Rope:
    """The rotary positions, as transformers 5 stores them or as older files do."""
    older, newer = (config.read(name, dict[str, Any], {}) for name in ("rope_scaling", "rope_parameters"))
    if older and newer and older != newer:
        raise InputError(
            f"{config.source}: rope_scaling and rope_parameters differ; leave out the one that does not hold"
        )
    stored = ConfigJson(f"{config.source}: rope_parameters", newer or older)
    kind = stored.get("rope_type", stored.get("type", "default"))
    if kind not in SCALINGS:
        known = ", ".join(SCALINGS)
        raise InputError(f"{config.source}: rope_type is {kind!r}; only {known} are supported, give such a checkpoint")
    theta = stored.read("rope_theta", Scale, config.read("rope_theta", Scale, DEFAULT_THETA))
    if kind == "default":
        return Rope(theta)
    factor = stored.read("factor", Scale)
    if kind == "linear":
        return Rope(theta, "linear", factor)
    low, high = stored.read("low_freq_factor", Scale), stored.read("high_freq_factor", Scale)
    if low >= high:
        raise InputError(f"{stored.source}: low_freq_factor is {low}, high_freq_factor {high}; {REMEDY}")
    return Rope(theta, "llama3", factor, low, high, stored.read("original_max_position_embeddings", Positions))


def _window(config: ConfigJson) -> int | None:
    """The sliding window. Raises `InputError` where only some layers have one."""
    family = config["model_type"]
    kinds = set(config.read("layer_types", tuple[str, ...], ()))
    if len(kinds) > 1:
        raise InputError(f"{config.source}: layer_types differ; give a checkpoint whose layers are of one type")
    if family == "llama":
        return None
    if family.startswith("qwen"):  # transformers' Mistral does not look at the types of its layers
        if kinds == {"full_attention"}:
            return None
        if not config.read("use_sliding_window", bool, False):
            return None
        without = config.read("max_window_layers", NotNegative, QWEN_FULL_LAYERS)
        if not kinds and 0 < without < config["num_hidden_layers"]:
            raise InputError(
                f"{config.source}: max_window_layers gives only some layers a window; give one with all or none"
            )
        if not kinds and without >= config["num_hidden_layers"]:
            return None
    default = DEFAULT_WINDOW if "sliding_window" not in config else None
    return config.read("sliding_window", Positions, default)


def describe(config: DecoderConfig, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of transformers for this network, which also holds the special tokens of `generation`."""
    layer = "full_attention" if config.window is None else "sliding_attention"
    family: dict[str, Any] = {"llama": {"attention_bias": config.qkv_bias, "mlp_bias": False}}.get(
        config.model_type, {}
    )
    if config.model_type == "mistral":
        family = {"sliding_window": config.window}
    if config.model_type.startswith("qwen"):
        window = {"use_sliding_window": config.window is not None, "sliding_window": config.window}
        family = {**window, "max_window_layers": 0, "layer_types": [layer] * config.decoder_layers}
    if config.model_type == "qwen3":
        family["attention_bias"] = config.qkv_bias
    return {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        **{theirs: getattr(config, ours) for ours, theirs, _ in SIZES},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.d,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_parameters": _describe_rope(config.rope),
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied_head,
        **family,
        **{key: value for key, value in generation.items() if key.endswith("_token_id")},
    }


def _describe_rope(rope: Rope) -> dict[str, Any]:
    stored: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    if rope.scaling != "none":
        stored |= {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        stored |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_positions,
        }
    return stored


def files(checkpoint: GeneratorCheckpoint) -> dict[str, Any]:
    """config.json."""
    assert isinstance(checkpoint.config, DecoderConfig)
    return {"config.json": describe(checkpoint.config, checkpoint.generation)}


def without_tied_head(tensors: Tensors, config: DecoderConfig, prefix: str, source: str) -> dict[str, Stored]:
    """The tensors without the stored copy of a tied head, and without the frequencies that old files hold.

    Raises `InputError` if the copy differs from the token table.
    """
    found = {name: each for name, each in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    head, words = found.get(prefix + HEAD), found.get(prefix + WORDS)
    if not config.tied_head or head is None:
        return found
    if words is not None and not same(words, head):
        remedy = "set tie_word_embeddings to false in a copy"
        raise InputError(f"{source}: {HEAD} differs from {WORDS}, although the config ties them; {remedy}")
    del found[prefix + HEAD]
    return found


def _llama3(**sizes: Any) -> DecoderConfig:
    rope = Rope(5e5, "llama3", 8.0, 1.0, 4.0, 8_192)
    return DecoderConfig(vocab_size=128_256, kv_heads=8, max_positions=131_072, rope=rope, model_type="llama", **sizes)


PUBLISHED = {
    "mistralai/Mistral-7B-v0.1": DecoderConfig(vocab_size=32_000, kv_heads=8, rope=Rope(1e4), window=4_096),
    "mistralai/Mistral-7B-Instruct-v0.2": DecoderConfig(vocab_size=32_000, kv_heads=8),
    "mistralai/Mistral-7B-v0.3": DecoderConfig(kv_heads=8),
    "mistralai/Mistral-7B-Instruct-v0.3": DecoderConfig(kv_heads=8),
    "meta-llama/Llama-3.1-8B": _llama3(),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(),
    "HuggingFaceTB/SmolLM2-135M-Instruct": DecoderConfig(
        vocab_size=49_152,
        width=576,
        decoder_layers=30,
        heads=9,
        kv_heads=3,
        head_width=64,
        ffn_width=1_536,
        max_positions=8_192,
        rope=Rope(1e5),
        tied_head=True,
        model_type="llama",
    ),
}
FORMAT = GeneratorFormat(
    architecture=decoder.ARCHITECTURE,
    model_types=tuple(ARCHITECTURES),
    read_config=read_config,
    names=NAMES,
    files=files,
    normalize=without_tied_head,
    published=PUBLISHED,
)
