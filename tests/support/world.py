"""A world small enough to learn in seconds: towns with a colour each, and a tower that has read nothing yet."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rag_jax.config.config import Config, Data, Generator, Optimizer, Retriever
from rag_jax.data.jsonl import write_jsonl
from rag_jax.hub import bert as bert_files
from rag_jax.hub import tensor_names
from rag_jax.hub.tokenizers import Stored
from rag_jax.hub.tokenizers import write as write_tokenizer
from rag_jax.models import bert

COLOURS = ("red", "blue", "green", "white", "black", "brown")
FIRST = [
    "Nor",
    "Sud",
    "Wes",
    "Eas",
    "Ober",
    "Unter",
    "Neu",
    "Alt",
    "Hoch",
    "Nieder",
    "Gross",
    "Klein",
    "Schwarz",
    "Weiss",
    "Rot",
    "Gold",
]
LAST = [
    "burg",
    "dorf",
    "feld",
    "hof",
    "see",
    "tal",
    "wald",
    "ort",
    "stadt",
    "heim",
    "hausen",
    "bach",
    "berg",
    "brunn",
    "kirch",
    "au",
]
TOWNS = tuple(first + last for first in FIRST for last in LAST)
UNSEEN = 32  # towns that no training question asks about


def write(folder: Path) -> Config:
    """Write corpus, questions and a random tower into a folder; the config of a run on them."""
    folder.mkdir(exist_ok=True)
    colours = np.random.default_rng(0).choice(COLOURS, len(TOWNS))
    facts = list(zip(np.random.default_rng(1).permutation(TOWNS).tolist(), colours.tolist(), strict=True))
    write_jsonl(folder / "passages.jsonl", ({"id": t, "title": t, "text": f"{t} is painted {c} ."} for t, c in facts))
    write_jsonl(folder / "train.jsonl", (question(*fact) for fact in facts[UNSEEN:]))
    write_jsonl(folder / "test.jsonl", (question(*fact) for fact in facts[:UNSEEN]))
    write_tower(folder / "tower")
    return config(folder)


def config(folder: Path) -> Config:
    """The config of a run on what `write` has written."""
    return Config(
        data=Data(folder / "passages.jsonl", folder / "train.jsonl", folder / "test.jsonl"),
        retriever=Retriever(
            tower=str(folder / "tower"),
            num_docs=2,
            vector_norm=4.0,
            max_question=16,
            max_passage=16,
            passage_template="{title}",
        ),
        generator=Generator(
            vocabulary=360,
            width=32,
            encoder_layers=1,
            decoder_layers=1,
            heads=2,
            ffn_width=64,
            dropout=0.0,
            max_passage=16,
            max_input=32,
            max_target=4,
        ),
        optimizer=Optimizer(
            kind="muon",
            learning_rate=0.02,
            adam_learning_rate=5e-3,
            tower_learning_rate=3e-4,
            warmup=5,
            clip=1.0,
        ),
        steps=200,
        batch_size=16,
        buckets=((16, 16),),
        log_every=10,
        save_every=100,
        eval_batch=16,
    )


def question(town: str, colour: str) -> dict:
    return {"id": f"q-{town}", "question": f"what colour is {town}", "answers": [colour], "positive_ids": [town]}


def write_tower(folder: Path, max_positions: int = 16) -> None:
    """A random BERT of one layer over whole words, in the layout of a checkpoint folder."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "what", "colour", "is", "painted", ".", *COLOURS, *TOWNS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = bert.BertConfig(
        vocab_size=len(words), width=32, layers=1, heads=2, ffn_width=64, max_positions=max_positions
    )
    folder.mkdir(parents=True)
    write_tokenizer(folder, Stored(tokenizer, {}))  # alone, transformers would read it as BERT's
    tensors = tensor_names.to_stored(bert.init(config, jax.random.key(1)), bert_files.NAMES)
    tensors["embeddings.word_embeddings.weight"] = 8 * tensors["embeddings.word_embeddings.weight"]  # words over places
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    stored = {
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(stored))
    pooling = [
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(pooling))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))


def change_tower(folder: Path) -> None:
    """Other weights in the place of a tower's own, as one that is trained again has."""
    path = folder / "model.safetensors"
    save_file({name: 2 * value for name, value in load_file(path).items()}, path)
