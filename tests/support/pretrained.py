"""Checkpoints as users of the Hugging Face ecosystem bring them: small, random, and saved by transformers."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.decoders import WordPiece
from transformers import (
    DPRContextEncoder,
    DPRQuestionEncoder,
    PreTrainedTokenizerFast,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

import oracle
from oracle import torch
from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig

PASSAGES = [
    Passage("a", "Aaron", "Aaron was a prophet, high priest and the brother of Moses."),
    Passage("b", '"Pokémon"', "Pokémon is a series of games about  creatures that are caught."),
    Passage("c", "Vienna", "Vienna is the capital of Austria; 1.9 million people live there."),
    Passage("d", "Danube", "The Danube is Europe's second-longest river. It flows through Vienna."),
]
QUESTIONS = ["Who was the brother of Moses?", "What is the capital of AUSTRIA?", "which river flows through Vienna"]
KINDS = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}


@cache
def tower_tokenizer() -> Tokenizer:
    """A lower-casing WordPiece like BERT's, learnt from the passages; learnt twice it would number its tokens anew."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*QUESTIONS, *(f"{p.title} {p.text}" for p in PASSAGES)], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def generator_tokenizer() -> Tokenizer:
    """A byte-level BPE like BART's."""
    return train_generator_tokenizer([f"{p.title} / {p.text}" for p in PASSAGES], 400).tokenizer


def sizes() -> tuple[BertConfig, BartConfig]:
    """Networks for these vocabularies."""
    tower = BertConfig(
        vocab_size=tower_tokenizer().get_vocab_size(), width=16, layers=2, heads=2, ffn_width=24, max_positions=40
    )
    generator = BartConfig(
        vocab_size=generator_tokenizer().get_vocab_size(),
        width=16,
        encoder_layers=1,
        decoder_layers=2,
        heads=2,
        ffn_width=24,
        max_positions=80,
    )
    return tower, generator


def rag(kind: str, seed: int = 0, **settings) -> torch.nn.Module:
    """RAG-Token or RAG-Sequence of transformers with random weights."""
    tower, generator = sizes()
    question_encoder = oracle.tower(DPRQuestionEncoder, tower, seed)[0]
    bart = oracle.generator(generator, seed)[0]
    settings = {"n_docs": 2, "max_combined_length": 64, "retrieval_vector_size": tower.width} | settings
    config = RagConfig.from_question_encoder_generator_configs(question_encoder.config, bart.config, **settings)
    return KINDS[kind](config=config, question_encoder=question_encoder, generator=bart).eval()


def save_rag(folder: Path, kind: str, seed: int = 0, **settings) -> torch.nn.Module:
    """A RAG checkpoint with its tokenizers, as transformers saves it."""
    model = rag(kind, seed, **settings)
    model.save_pretrained(folder)
    for place, tokenizer in tokenizers().items():
        tokenizer.save_pretrained(folder / place)
    return model


def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """transformers' tokenizers, by their place in a RAG checkpoint."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return {
        "question_encoder_tokenizer": PreTrainedTokenizerFast(tokenizer_object=tower_tokenizer(), **special),
        "generator_tokenizer": PreTrainedTokenizerFast(tokenizer_object=generator_tokenizer(), **ends),
    }


def save_networks(folder: Path, seed: int = 0) -> None:
    """Two towers and a generator that have not met: `question/`, `passages/` and `bart/`."""
    tower, generator = sizes()
    places = tokenizers()
    for place, model, tokenizer in (
        ("question", oracle.tower(DPRQuestionEncoder, tower, seed)[0], "question_encoder_tokenizer"),
        (
            "passages",
            oracle.tower(DPRContextEncoder, replace(tower, layers=1), seed + 1)[0],
            "question_encoder_tokenizer",
        ),
        ("bart", oracle.generator(generator, seed)[0], "generator_tokenizer"),
    ):
        model.save_pretrained(folder / place)
        places[tokenizer].save_pretrained(folder / place)
