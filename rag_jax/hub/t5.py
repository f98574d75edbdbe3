"""Checkpoints of T5: versions 1.0 and 1.1, Flan, and Fusion-in-Decoder in the layout of its authors."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from rag_jax.data.validation import Range
from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import GeneratorCheckpoint
from rag_jax.hub.config_json import ConfigJson, Epsilon, Layers, Rate, Sizes, Vocabulary, Width
from rag_jax.hub.formats import GeneratorFormat
from rag_jax.hub.tensor_names import TensorNames, same
from rag_jax.hub.tensors import Stored, Tensors
from rag_jax.models import t5
from rag_jax.models.t5 import T5Config

PROJECTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
WORDS, HEAD = "shared.weight", "lm_head.weight"  # the token table; the head, or another name of the same
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"  # in the first published weights
NAMES = TensorNames(
    (
        (r"^word/", "shared."),
        (r"^head/", "lm_head."),
        (r"^(encoder|decoder)_position/", r"\1.block.0.layer.0.SelfAttention.relative_attention_bias."),
        (r"^(encoder|decoder)_norm/", r"\1.final_layer_norm."),
        (r"^(encoder|decoder)_layers_(\d+)/", r"\1.block.\2."),
        (r"(?<=\.)attention/(\w+)/", lambda m: f"layer.0.SelfAttention.{PROJECTION[m[1]]}."),
        (r"attention_norm/", "layer.0.layer_norm."),
        (r"cross/(\w+)/", lambda m: f"layer.1.EncDecAttention.{PROJECTION[m[1]]}."),
        (r"cross_norm/", "layer.1.layer_norm."),
        (r"^(encoder\.block\.\d+\.)ffn", r"\1layer.1.ffn"),
        (r"^(decoder\.block\.\d+\.)ffn", r"\1layer.2.ffn"),
        (r"ffn_norm/", "layer_norm."),
        (r"ffn/gate/", "DenseReluDense.wi_0."),
        (r"ffn/gated_up/", "DenseReluDense.wi_1."),
        (r"ffn/up/", "DenseReluDense.wi."),
        (r"ffn/down/", "DenseReluDense.wo."),
    )
)

SIZES: Sizes = (
    ("vocab_size", "vocab_size", Vocabulary),
    ("width", "d_model", Width),
    ("encoder_layers", "num_layers", Layers),
    ("heads", "num_heads", Width),
    ("ffn_width", "d_ff", Width),
    ("dropout", "dropout_rate", Rate),
    ("layer_norm_eps", "layer_norm_epsilon", Epsilon),
)
FEED_FORWARD = {"relu": False, "gated-gelu": True}  # whether it is gated
Buckets = Annotated[int, Range(4, 2**20)]
Distance = Annotated[int, Range(1, 2**20)]  # there is a table of all distances
MAX_DISTANCE = "relative_attention_max_distance"  # missing in older configs


def read_config(config: ConfigJson) -> T5Config:
    """Read the sizes."""
    feed_forward = config.read("feed_forward_proj", str, "relu")
    if feed_forward not in FEED_FORWARD:
        known = " and ".join(FEED_FORWARD)
        raise InputError(f"{config.source}: feed_forward_proj is {feed_forward!r}; only {known} are supported")
    config.require(dense_act_fn="gelu_new" if FEED_FORWARD[feed_forward] else "relu")
    sizes, head_width = config.sizes(SIZES), config.read("d_kv", Width)
    buckets = config.read("relative_attention_num_buckets", Buckets)
    distance = config.read(MAX_DISTANCE, Distance, T5Config.max_distance)
    if distance <= buckets // 2:  # log(max_distance / (buckets / 2)) must be positive
        what = f"{MAX_DISTANCE} is {distance}, too small for {buckets} buckets"
        raise InputError(f"{config.source}: {what}; take the config.json that was saved with the weights")
    return T5Config(
        **sizes,
        decoder_layers=config.read("num_decoder_layers", Layers, None) or sizes["encoder_layers"],
        head_width=None if head_width * sizes["heads"] == sizes["width"] else head_width,
        gated=FEED_FORWARD[feed_forward],
        # Current versions of transformers store whether there is a scale, and call untied tables tied.
        tied_head=config.read("scale_decoder_outputs", bool, config.read("tie_word_embeddings", bool, True)),
        position_buckets=buckets,
        max_distance=distance,
    )


def describe(config: T5Config, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of transformers for this T5, which also holds the special tokens of `generation`."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        **{theirs: getattr(config, ours) for ours, theirs, _ in SIZES},
        "num_decoder_layers": config.decoder_layers,
        "d_kv": config.d,
        "relative_attention_num_buckets": config.position_buckets,
        MAX_DISTANCE: config.max_distance,
        "feed_forward_proj": next(name for name, gated in FEED_FORWARD.items() if gated == config.gated),
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tied_head,
        "scale_decoder_outputs": config.tied_head,
        **{key: value for key, value in generation.items() if key.endswith("_token_id")},
    }


def files(checkpoint: GeneratorCheckpoint) -> dict[str, Any]:
    """config.json."""
    assert isinstance(checkpoint.config, T5Config)
    return {"config.json": describe(checkpoint.config, checkpoint.generation)}


def normalize(tensors: Tensors, config: T5Config, prefix: str, source: str) -> dict[str, Stored]:
    """The tensors without Fusion-in-Decoder's wrappers, the unused table, and tied copies of the token table.

    A head that is missing is the token table. Raises `InputError` if tied tensors differ.
    """
    found = {prefix + _unwrapped(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    found.pop(prefix + UNUSED, None)
    words, head, *tied = (prefix + name for name in (WORDS, HEAD, *TIED))
    copies = [name for name in (words, *tied, *([head] if config.tied_head else [])) if name in found]
    if not copies:
        return found
    for name in copies[1:]:
        if not same(found[copies[0]], found[name]):
            remedy = "give a checkpoint with one token table"
            raise InputError(f"{source}: {name} differs from {copies[0]}, although the config ties them; {remedy}")
    table = found[copies[0]]
    found = {name: tensor for name, tensor in found.items() if name not in copies} | {words: table}
    return found if config.tied_head else {head: table} | found


def _unwrapped(name: str) -> str:
    """A name without the modules that Izacard and Grave's code puts around the encoder and each of its layers."""
    return re.sub(r"^(encoder\.block\.\d+)\.module\.", r"\1.", re.sub(r"^encoder\.encoder\.", "encoder.", name))


def _published(width: int, layers: int, heads: int, ffn_width: int, newer: bool = False) -> T5Config:
    """Sizes of version 1.0, or of 1.1 and Flan (`newer`)."""
    return T5Config(
        width=width,
        encoder_layers=layers,
        decoder_layers=layers,
        heads=heads,
        head_width=None if 64 * heads == width else 64,
        ffn_width=ffn_width,
        gated=newer,
        tied_head=not newer,
    )


V1_0 = {"small": (512, 6, 8, 2_048), "base": (768, 12, 12, 3_072), "large": (1_024, 24, 16, 4_096)}
V1_1 = {
    "small": (512, 8, 6, 1_024),
    "base": (768, 12, 12, 2_048),
    "large": (1_024, 24, 16, 2_816),
    "xl": (2_048, 24, 32, 5_120),
}
FORMAT = GeneratorFormat(
    architecture=t5.ARCHITECTURE,
    model_types=("t5",),
    read_config=read_config,
    names=NAMES,
    files=files,
    normalize=normalize,
    published={
        f"{name}{size}": _published(*sizes, newer=table is V1_1)
        for table, names in ((V1_0, ("t5-", "google-t5/t5-")), (V1_1, ("google/t5-v1_1-", "google/flan-t5-")))
        for size, sizes in table.items()
        for name in names
    },
)
