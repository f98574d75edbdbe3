"""SmolLM2 as all sides load it: a folder with its weights in float32, and real text for it to read.

The tiny size is a Llama of two layers with random weights and a vocabulary learnt from the same text. A question tower
of one layer with random weights scores the passages: what is measured is the generator.
"""

import dataclasses
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.cases import GENERATOR, TOWER
from benchmarks.smollm2_cases import PARAGRAPHS
from benchmarks.weights import drawn
from rag_jax import RAG, hub
from rag_jax.config.config import Compute, Config, Data, Generator, Retriever
from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.demo.requirements import SMOLLM2
from rag_jax.errors import InputError
from rag_jax.index.store import from_vectors
from rag_jax.models import registry
from rag_jax.pipeline.assembly import compose

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE = f"package:{SMOLLM2.module}/{FILE}"
TOPICS = 16  # of which there are passages to read
SHORTEST, LONGEST = 320, 1_200  # characters of a passage
MAX_TARGET = 64
PACKED = (112, 128, 144, 160, 176)  # tokens an input on average that this library may pack them to; tiny: the last
TINY = {"width": 64, "decoder_layers": 2, "heads": 4, "kv_heads": 2, "ffn_width": 96, "max_positions": 1_024}


def check_installed() -> None:
    """Raise `InputError` where the weights are not installed."""
    if find_spec(SMOLLM2.module) is None:
        raise InputError(f"the weights of SmolLM2 are not installed; run {SMOLLM2.command}")


def save(folder: Path, *, tiny: bool) -> None:
    """Write the generator, as transformers loads it too, and the question tower."""
    generator = _tiny() if tiny else hub.load_generator(SOURCE)
    hub.save(folder / GENERATOR, generator)
    family = registry.TOWERS[registry.DEFAULT_TOWER]
    sizes = {"width": 64, "layers": 1, "heads": 1, "ffn_width": 128, "dropout": 0.0, "attention_dropout": 0.0}
    config = family.config(vocab_size=generator.config.vocab_size, **sizes)
    params = drawn(lambda key: family.init(config, key), 0, gain=1.0)
    hub.save(folder / TOWER, hub.TowerCheckpoint(config, params, generator.tokenizer, side="question"))


def load(folder: Path, matmul_precision: Any = "default") -> RAG:
    """The model over the passages, from the folder that `save` wrote."""
    has_chat = "chat_template" in hub.load_generator(folder / GENERATOR).tokenizer_settings
    max_passage, max_input = (176, 208) if has_chat else (224, 288)  # the tiny size needs more tokens for a text
    config = Config(
        data=Data(),
        retriever=Retriever(tower=str(folder / TOWER), mode="frozen", num_docs=PARAGRAPHS, max_question=48),
        generator=Generator(
            checkpoint=str(folder / GENERATOR),
            chat=has_chat,
            system_prompt="Answer with a few words.",
            max_passage=max_passage,
            max_input=max_input,
            lengths=PACKED if has_chat else PACKED[-1:],
            max_target=MAX_TARGET,
        ),
        compute=Compute(scan=True, remat="dots", matmul_precision=matmul_precision),
        buckets=((48, 48),),
    )
    components, texts = compose(config), passages()
    width = components.bi_encoder.config.vector_width
    vectors = np.random.default_rng(0).normal(0, 0.05, (len(texts), width)).astype(np.float32)
    store = from_vectors(texts, vectors, components.passage_tokenizer)
    config = dataclasses.replace(config, data=Data(index=folder))  # in memory, but training must not be closed book
    return RAG(dataclasses.replace(components, config=config, store=store), components.initial_params)


def passages() -> list[Passage]:
    """Paragraphs of Python's language reference, `PARAGRAPHS` of each topic in turn."""
    read = {topic: list(islice(_paragraphs(topic), PARAGRAPHS)) for topic in sorted(topics.topics)}
    full = [topic for topic, texts in read.items() if len(texts) == PARAGRAPHS]
    return [
        Passage(f"{topic}-{number}", topic, text) for topic in full[:TOPICS] for number, text in enumerate(read[topic])
    ]


def questions() -> list[str]:
    """A question about each topic."""
    titles = [each.title for each in passages()[::PARAGRAPHS]]
    return [f"What does the reference of Python say about {title}?" for title in titles]


def answers() -> list[str]:
    """The beginning of the first passage of each topic."""
    return [" ".join(each.text.split()[:8]) for each in passages()[::PARAGRAPHS]]


def _paragraphs(topic: str) -> Iterator[str]:
    """Its paragraphs of prose, neither code nor headings."""
    for text in re.split(r"\n\s*\n", topics.topics[topic]):
        joined = " ".join(text.split())
        if SHORTEST <= len(joined) <= LONGEST and "::" not in joined:
            yield joined


def _tiny() -> hub.GeneratorCheckpoint:
    family = registry.GENERATORS["llama"]
    vocabulary = train_generator_tokenizer([each.text for each in passages()], 512, family.special_tokens)
    config = family.config(vocab_size=vocabulary.size, tied_head=True, model_type="llama", **TINY)
    tokenizer: Tokenizer = vocabulary.tokenizer
    return hub.GeneratorCheckpoint(config, drawn(lambda key: family.init(config, key), 1, gain=2.0), tokenizer, {})
