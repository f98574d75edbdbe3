"""The sizes of networks that the paper and its successors start from, for planning where no checkpoint is at hand."""

from rag_jax.hub.reading import load_generator, load_tower
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig

BART_BASE = BartConfig(width=768, encoder_layers=6, decoder_layers=6, heads=12, ffn_width=3_072)
TOWERS = {
    "facebook/dpr-question_encoder-single-nq-base": BertConfig(),
    "facebook/dpr-question_encoder-multiset-base": BertConfig(),
    "google-bert/bert-base-uncased": BertConfig(),
}
GENERATORS = {
    "facebook/bart-large": BartConfig(),
    "facebook/bart-base": BART_BASE,
}


def tower_sizes(source: str) -> BertConfig:
    """A question tower's sizes, published or read. Raises `InputError` where there is neither."""
    name = source.partition("@")[0]
    return TOWERS[name] if name in TOWERS else load_tower(source).config


def generator_sizes(source: str) -> BartConfig:
    """A generator's sizes, published or read. Raises `InputError` where there is neither."""
    name = source.partition("@")[0]
    return GENERATORS[name] if name in GENERATORS else load_generator(source).config
