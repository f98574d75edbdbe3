"""Checkpoints of BERT: plain, as DPR encoders, and in the layout of sentence-transformers."""

from pathlib import Path
from typing import Any

from rag_jax.data.tower_inputs import PAIR, PLAIN, TITLE_AND_TEXT
from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import Side, TowerCheckpoint
from rag_jax.hub.config_json import ConfigJson, Sizes
from rag_jax.hub.formats import Layout, TowerFormat
from rag_jax.hub.input_format import describe_input_format
from rag_jax.hub.pooling import describe_pooling, read_pooling
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
QUESTION, PASSAGE = Layout("question_encoder.", DPR, "question"), Layout("ctx_encoder.", DPR, "passage")

SIZES: Sizes = (
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
# The only settings that the network here implements.
ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


def read_config(config: ConfigJson, folder: Path) -> BertConfig:
    """Read sizes and pooling: [CLS] as in DPR, unless the config or a sentence-transformers `modules.json` differs."""
    config.require(**ONLY)
    pooling, norm = read_pooling(folder)
    return BertConfig(
        **config.sizes(SIZES),
        init_std=config.get("initializer_range", 0.02),
        pooling=config.get("pooling", pooling),
        projection=config.get("projection_dim") or None,
        vector_norm=config.get("vector_norm", norm),
    )


def describe(config: BertConfig, architecture: str | None) -> dict[str, Any]:
    """The config.json of transformers for this tower, with additional keys for pooling that it does not support."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES}
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


def files(checkpoint: TowerCheckpoint) -> dict[str, Any]:
    """The JSON files of a DPR encoder, or, with other pooling, of a BERT in the layout of sentence-transformers."""
    config, fed = checkpoint.config, checkpoint.input_format
    assert isinstance(config, BertConfig)
    if is_dpr(config):
        is_passage = checkpoint.side == "passage"
        usual = PLAIN._replace(passage=PAIR if is_passage else fed.passage)  # a question encoder reads no passages
        described = describe(config, "DPRContextEncoder" if is_passage else "DPRQuestionEncoder")
        return {"config.json": described | describe_input_format(fed, usual)}
    if config.projection:
        raise InputError("a tower that projects and does not pool as DPR has no layout there; nothing is written")
    described = describe(config, "BertModel") | describe_input_format(fed, PLAIN)
    return {"config.json": described, **describe_pooling(config, fed.max_length)}


def layout(config: BertConfig, side: Side | None) -> Layout:
    """The layout of DPR's passage or question encoder for its pooling, otherwise that of plain BERT."""
    dpr = PASSAGE if side == "passage" else QUESTION
    return dpr if is_dpr(config) else Layout("", NAMES)


def is_dpr(config: BertConfig) -> bool:
    """Whether this tower pools as DPR's encoders: the state of [CLS], not normalised."""
    return config.pooling == "cls" and config.vector_norm is None


def passage(config: ConfigJson) -> str:
    """The default passage template: DPR's passage tower reads pairs."""
    return PAIR if config["model_type"] == "dpr" else TITLE_AND_TEXT


FORMAT = TowerFormat(
    architecture=bert.ARCHITECTURE,
    model_types=("bert", "dpr"),
    read_config=read_config,
    layouts=(Layout("", NAMES), Layout("bert.", NAMES), QUESTION, PASSAGE),
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
