"""The tokens that an index has for a generator are those that a model of this generator reads."""

import dataclasses
from pathlib import Path

import pytest

import chat_models
import pretrained
from gguf_files import smollm
from rag_jax.errors import InputError
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.pipeline.passage_tokenizers import load_passage_tokenizer
from rag_jax.rag import RAG


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    pretrained.save_networks(folder)
    pretrained.save_rag(folder / "rag", "token")
    chat_models.write(folder / "chat")
    chat_models.write(folder / "plain", template=None)
    return folder


def key_of(model: RAG, length: int) -> str:
    return dataclasses.replace(model.components.passage_tokenizer, max_length=length).key


@pytest.mark.parametrize("generator", ["bart", "chat", "plain"])
def test_of_a_generator_s_checkpoint(networks: Path, generator: str) -> None:
    model = RAG.from_networks(networks / "question", networks / generator, passage_tower=networks / "passages")
    assert load_passage_tokenizer(str(networks / generator)).key == key_of(model, 256)
    assert load_passage_tokenizer(str(networks / generator / "tokenizer.json"), 9).key == key_of(model, 9)


def test_of_a_rag_checkpoint(networks: Path) -> None:
    model = RAG.from_pretrained(networks / "rag")
    assert load_passage_tokenizer(str(networks / "rag")).key == key_of(model, 256)


def test_of_a_gguf_file() -> None:
    found = load_passage_tokenizer(str(smollm()))
    assert (found.tokenizer.bos, found.tokenizer.passage_template) == (None, "{title}\n{text}")


def test_of_a_workdir(trained) -> None:
    own: PassageTokenizer = RAG.from_workdir(trained[2]).components.passage_tokenizer
    for source in (trained[2], trained[2] / "tokenizer.json"):
        assert load_passage_tokenizer(str(source)).key == own.key
    assert load_passage_tokenizer(str(trained[2]), 7).key == dataclasses.replace(own, max_length=7).key


def test_of_a_checkpoint_without_a_tokenizer(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((networks / "bart" / "config.json").read_bytes())
    with pytest.raises(InputError, match="holds no tokenizer; save the checkpoint with its own"):
        load_passage_tokenizer(str(tmp_path))
