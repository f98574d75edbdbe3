"""Folders of towers against sentence-transformers, where it is installed: the same texts, the same vectors."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from oracle import relative
from rag_jax import hub
from rag_jax.config.config import Config, Data, Retriever
from rag_jax.corpus.passage import Passage
from rag_jax.data.tower_inputs import TowerInputFormat
from rag_jax.models import bert, decoder
from rag_jax.models.bert import BertConfig
from rag_jax.models.decoder_tower import DecoderTowerConfig
from rag_jax.models.rope import Rope
from rag_jax.pipeline.assembly import load_bi_encoder

theirs = pytest.importorskip("sentence_transformers", reason="the oracle, of the extra test on Python 3.11")

PASSAGES = [Passage("a", "Bach", "a composer"), Passage("b", "", "Of no title"), Passage("c", "BACH", "brook " * 20)]
QUESTIONS = ["who was Bach", "where does a brook end " * 2, "?"]
FED = TowerInputFormat("text: {title}. {text}", "Query {q}: {question}", 24)
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def word_pieces() -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *".:?{}", *(f"##{each}" for each in letters)]
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).backend_tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["<|end|>", *LETTERS])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    return tokenizer


BERT = BertConfig(70, width=16, layers=1, heads=2, ffn_width=24, max_positions=48, init_std=0.3)
DECODER = DecoderTowerConfig(
    257, width=16, decoder_layers=2, heads=4, kv_heads=2, ffn_width=24, max_positions=48, rope=Rope(100.0),
    init_std=0.3, model_type="mistral", window=5
)  # fmt: skip


@pytest.mark.parametrize("network", ["bert", "decoder"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize(("norm", "width"), [(None, None), (1.0, None), (None, 5), (1.0, 5)])
def test_vectors_are_those_of_sentence_transformers(network, pooling, norm, width, tmp_path: Path) -> None:
    config = replace(BERT if network == "bert" else DECODER, pooling=pooling, vector_norm=norm, truncated_width=width)
    init, tokenizer = (bert.init, word_pieces()) if isinstance(config, BertConfig) else (decoder.init, byte_level())
    pad = "[PAD]" if network == "bert" else "<|end|>"
    params = init(config, jax.random.key(0))
    settings = {"pad_token": pad, "model_input_names": ["input_ids", "attention_mask"]}
    hub.save(tmp_path / "tower", hub.TowerCheckpoint(config, params, tokenizer, None, settings, FED))
    found = load_bi_encoder(Config(Data(), Retriever(str(tmp_path / "tower"), max_question=40, max_passage=40)))
    encoder = found.required_passage_encoder

    model = theirs.SentenceTransformer(str(tmp_path / "tower"), device="cpu", truncate_dim=width)
    assert model.max_seq_length == 24
    how = {"normalize_embeddings": norm is not None}  # sentence-transformers truncates after it normalises
    read = [f"{passage.title}. {passage.text}" if passage.title else passage.text for passage in PASSAGES]
    assert relative(encoder.encode_passages(PASSAGES), model.encode_document(read, **how)) < 1e-5
    asked = encoder.encode(found.question_tokenizer(QUESTIONS).ids)
    assert relative(asked, model.encode_query(QUESTIONS, **how)) < 1e-5
    scores = asked @ encoder.encode_passages(PASSAGES).T
    similarity = model.similarity(model.encode_query(QUESTIONS, **how), model.encode_document(read, **how))
    np.testing.assert_allclose(scores, np.asarray(similarity), rtol=1e-4, atol=1e-4)


def test_a_folder_of_theirs_is_the_tower_here(tmp_path: Path) -> None:
    """Saved by sentence-transformers: mean of a Mistral's states, with a prompt."""
    save_tower = hub.TowerCheckpoint(DECODER, decoder.init(DECODER, jax.random.key(0)), byte_level(), input_format=FED)
    hub.save(tmp_path / "ours", replace(save_tower, tokenizer_settings={"pad_token": "<|end|>"}))
    model = theirs.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    model.save(str(tmp_path / "theirs"))
    found, ours = hub.load_tower(tmp_path / "theirs"), hub.load_tower(tmp_path / "ours")
    assert (found.config, found.input_format) == (ours.config, ours.input_format)
    jax.tree.map(np.testing.assert_array_equal, found.params, ours.params)
