"""Checkpoints of BERT: plain, as DPR encoders, and in the layout of sentence-transformers."""

from pathlib import Path
from typing import Annotated, Any

from rag_jax.data.tower_inputs import PAIR, PLAIN, TITLE_AND_TEXT
from rag_jax.data.validation import Range
from rag_jax.errors import InputError
from rag_jax.hub import sentence_transformers
from rag_jax.hub.checkpoints import Side, TowerCheckpoint
from rag_jax.hub.config_json import ConfigJson, Deviation, Epsilon, Layers, Positions, Rate, Sizes, Vocabulary, Width
from rag_jax.hub.formats import Layout, TowerFormat
from rag_jax.hub.input_format import describe_input_format
from rag_jax.hub.pooling import read_vector_settings
from rag_jax.hub.tensor_names import TensorNames
from rag_jax.models import bert
from rag_jax.models.bert import BertConfig

NAMES = TensorNames(
    (
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
)
# In DPR's encoders, BERT has a prefix, and the projection is beside it.
DPR = TensorNames((*NAMES.rules, (r"^(?=embeddings\.|encoder\.)", "bert_model.")))
QUESTION = Layout("question_encoder.", DPR, "question", "DPRQuestionEncoder")
PASSAGE = Layout("ctx_encoder.", DPR, "passage", "DPRContextEncoder")
PLAIN_BERT = Layout("", NAMES, architecture="BertModel")

SIZES: Sizes = (
    ("vocab_size", "vocab_size", Vocabulary),
    ("width", "hidden_size", Width),
    ("layers", "num_hidden_layers", Layers),
    ("heads", "num_attention_heads", Width),
    ("ffn_width", "intermediate_size", Width),
    ("max_positions", "max_position_embeddings", Positions),
    ("token_types", "type_vocab_size", Width),
    ("dropout", "hidden_dropout_prob", Rate),
    ("attention_dropout", "attention_probs_dropout_prob", Rate),
    ("layer_norm_eps", "layer_norm_eps", Epsilon),
)
Projection = Annotated[int, Range(0, 2**20)]  # 0: none
# The only settings that the network here implements.
ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


def read_config(config: ConfigJson, folder: Path) -> BertConfig:
    """Read sizes and pooling: [CLS] as in DPR, unless the config or a sentence-transformers `modules.json` differs."""
    config.require(**ONLY)
    sizes, projection = config.sizes(SIZES), config.read("projection_dim", Projection, None) or None
    config.check_heads("hidden_size", "num_attention_heads")
    vectors = read_vector_settings(config, folder, projection or sizes["width"], "cls")
    init_std = config.read("initializer_range", Deviation, 0.02)
    return BertConfig(**sizes, init_std=init_std, projection=projection, **vectors._asdict())


def describe(config: BertConfig, side: Side | None) -> dict[str, Any]:
    """The config.json of transformers for this tower."""
    dpr = is_dpr(config, side)
    return {
        "architectures": [layout(config, side).architecture],
        "model_type": "dpr" if dpr else "bert",
        **{theirs: getattr(config, ours) for ours, theirs, _ in SIZES},
        "hidden_act": "gelu",
        "initializer_range": config.init_std,
        "pad_token_id": 0,
        **({"projection_dim": config.projection or 0} if dpr else {}),
    }


def files(checkpoint: TowerCheckpoint) -> dict[str, Any]:
    """The JSON files of a DPR encoder, or, with other pooling, of a BERT in the layout of sentence-transformers."""
    config, side = checkpoint.config, checkpoint.side
    assert isinstance(config, BertConfig)
    described = describe(config, side)
    if is_dpr(config, side):
        shared = {"side": None} if side is None else {}
        fed = describe_input_format(checkpoint.input_format, PLAIN._replace(passage=PAIR))
        return {"config.json": described | shared | fed}
    if config.projection:
        raise InputError("a tower that projects and does not pool as DPR has no layout there; nothing is written")
    return sentence_transformers.files(checkpoint, config, described)


def layout(config: BertConfig, side: Side | None) -> Layout:
    """The layout of DPR's passage or question encoder for its pooling, otherwise that of plain BERT."""
    dpr = PASSAGE if side == "passage" else QUESTION
    return dpr if is_dpr(config, side) else PLAIN_BERT


def is_dpr(config: BertConfig, side: Side | None) -> bool:
    """Whether transformers can have this tower as one of DPR's encoders: the state of [CLS], not normalised.

    Without a side only where it projects, which a plain BERT cannot.
    """
    pools = config.pooling == "cls" and config.vector_norm is None and config.truncated_width is None
    return pools and (side is not None or config.projection is not None)


def passage(config: ConfigJson) -> str:
    """The default passage template: DPR's passage tower reads pairs."""
    return PAIR if config["model_type"] == "dpr" else TITLE_AND_TEXT


FORMAT = TowerFormat(
    architecture=bert.ARCHITECTURE,
    model_types=("bert", "dpr"),
    read_config=read_config,
    layouts=(PLAIN_BERT, Layout("bert.", NAMES), QUESTION, PASSAGE),
    layout=layout,
    files=files,
    inputs=("input_ids", "token_type_ids", "attention_mask"),
    passage=passage,
    published={
        "facebook/dpr-question_encoder-single-nq-base": BertConfig(),
        "facebook/dpr-question_encoder-multiset-base": BertConfig(),
        "google-bert/bert-base-uncased": BertConfig(),
    },
)
