"""Every length against what the networks can read: beyond its positions a network gives NaN, and no error."""

import dataclasses
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import chat_models
import pretrained
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.config.generation import GenerationConfig
from rag_jax.data.batches import bucket
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.pipeline import length_limits
from rag_jax.pipeline.generation import resolve
from rag_jax.rag import RAG
from rag_jax.training.run import fit
from suites import first

TOWER, GENERATOR = pretrained.sizes()  # of 40 and 80 positions


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Two towers and a generator: `question/`, `passages/` and `bart/`, and questions about passages."""
    folder = tmp_path_factory.mktemp("networks")
    pretrained.save_networks(folder)
    write_jsonl(folder / "passages.jsonl", (passage._asdict() for passage in pretrained.PASSAGES))
    write_jsonl(folder / "train.jsonl", ({"question": each, "answers": ["Moses"]} for each in pretrained.QUESTIONS))
    return folder


def config(folder: Path, retriever: dict | None = None, generator: dict | None = None) -> Config:
    lengths_of = {"max_question": 40, "max_passage": 40} | (retriever or {})
    read = {"max_passage": 40, "max_input": 80, "max_target": 80} | (generator or {})
    return Config(
        Data(folder / "passages.jsonl", folder / "train.jsonl"),
        Retriever(str(folder / "question"), str(folder / "passages"), num_docs=2, **lengths_of),
        Generator(str(folder / "bart"), **read),
        buckets=((32, 32),),
    )


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"retriever": {"max_question": 41}}, "question: has positions for 40 tokens, retriever.max_question is 41; "),
        ({"retriever": {"max_passage": 41}}, "passages: has positions for 40 tokens, retriever.max_passage is 41; "),
        ({"generator": {"max_input": 81}}, "bart: has positions for 80 tokens, generator.max_input is 81; give 80"),
        ({"generator": {"max_target": 81}}, "bart: has positions for 80 tokens, generator.max_target is 81; give 80"),
    ],
)
def test_no_length_is_above_a_network_s_positions(networks: Path, tmp_path: Path, asked: dict, what: str) -> None:
    with pytest.raises(InputError) as said:
        fit(config(networks, **asked), tmp_path / "run")
    assert f"{networks}/{what}" in str(said.value)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_dry_run_refuses_them_too() -> None:
    asked = Config(Data(), Retriever("tower", max_question=41), Generator("bart", max_input=80, max_target=80))
    with pytest.raises(InputError, match=r"^tower: has positions for 40 tokens, retriever.max_question is 41; give 40"):
        length_limits.check_networks(asked, TOWER, GENERATOR)
    fitting = dataclasses.replace(asked, retriever=Retriever("tower", max_question=40))
    short = dataclasses.replace(GENERATOR, max_positions=79)
    with pytest.raises(InputError, match=r"^bart: has positions for 79 tokens, generator.max_input is 80; give 79"):
        length_limits.check_networks(fitting, TOWER, short)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3).map(sorted),
    st.integers(1, 60),
    st.integers(0, 10),
)
def test_every_question_has_a_shape_and_none_is_beyond_the_positions(buckets: list, longest: int, more: int) -> None:
    asked = Config(Data(), Retriever("tower", max_question=longest), Generator(max_input=31 + longest))
    asked = dataclasses.replace(asked, buckets=tuple(buckets))
    shapes = length_limits.length_buckets(asked, longest + more)
    for question, prompt in product((1, longest // 2 + 1, longest), repeat=2):
        q, p = bucket(question, prompt, shapes)
        assert question <= q <= longest + more
        assert prompt <= p < asked.generator.max_input
        usual = bucket(question, prompt, buckets)
        assert (q, p) == (min(usual[0], longest + more), min(usual[1], asked.generator.max_input - 1))


@pytest.mark.parametrize("model", first(1, ["token", "sequence"]))
def test_answers_and_targets_as_long_as_the_positions_are_numbers(networks: Path, tmp_path: Path, model: str) -> None:
    """As long as 29: padded to a multiple of four, targets would be longer."""
    short = dataclasses.replace(GENERATOR, max_positions=29)
    bart = pretrained.oracle.generator(short, 0)[0]
    bart.save_pretrained(tmp_path / "bart")
    pretrained.tokenizers()["generator_tokenizer"].save_pretrained(tmp_path / "bart")
    sources = networks / "question", tmp_path / "bart"
    rag = RAG.from_networks(*sources, passage_tower=networks / "passages", model=model, num_docs=2)
    rag = rag.with_passages(pretrained.PASSAGES)
    longest = {"max_length": 29, "min_length": 29}
    for options in ({"num_beams": 2, "n_best": 2}, {"do_sample": True, "n_best": 2}):
        answers = rag.answer(pretrained.QUESTIONS, **longest, **options)
        every = [each for answer in answers for each in (answer, *answer.alternatives)]
        assert [len(each.tokens) for each in every] == [29] * len(every)
        assert np.isfinite([each.log_prob for each in every]).all()
    long = " ".join("a" * 28)
    assert len(rag.components.generator_tokenizer.targets([long])[0]) == 29
    assert np.isfinite(rag.log_likelihood(pretrained.QUESTIONS, [long] * 3)).all()


def test_an_answer_that_continues_its_input_may_take_all_positions_behind_it(networks: Path, tmp_path: Path) -> None:
    chat_models.write(tmp_path / "chat")
    sources = networks / "question", tmp_path / "chat"
    rag = RAG.from_networks(*sources, passage_tower=networks / "passages", num_docs=2)
    rag = rag.with_passages(pretrained.PASSAGES)
    config, positions = rag.components.config, rag.components.generator.config.max_positions
    longest = config.generator.max_target
    assert config.generator.max_input + longest == positions
    assert longest > 64
    assert config.decoding.max_length == 64
    for asked, length in (({}, 64), ({"max_length": None}, longest)):
        assert resolve(rag.components, GenerationConfig(num_beams=2), asked).limits.max_length == length
    (answer,) = rag.answer(pretrained.QUESTIONS[:1], max_length=longest, min_length=longest)
    assert len(answer.tokens) == longest
    with pytest.raises(InputError, match=f"max_length is {longest + 1}, generator.max_target is {longest}; give 1 to"):
        rag.answer(pretrained.QUESTIONS[:1], max_length=longest + 1)


@pytest.mark.parametrize(("place", "kind"), [("question", "question_encoder"), ("bart", "generator")])
def test_a_token_without_an_embedding_is_refused(networks: Path, tmp_path: Path, place: str, kind: str) -> None:
    """A tokenizer that learnt a word more than the network has rows."""
    shutil.copytree(networks, tmp_path, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / place / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["Aaron's"])
    tokenizer.save(str(tmp_path / place / "tokenizer.json"))
    with pytest.raises(InputError, match=f"{kind.split('_')[0]}|tokenizer") as said:
        RAG.from_networks(tmp_path / "question", tmp_path / "bart", passage_tower=tmp_path / "passages")
    assert str(tmp_path / place) in str(said.value)
    assert "use the tokenizer that was saved with the weights" in str(said.value)
    assert size in (TOWER.vocab_size, GENERATOR.vocab_size)


def test_a_workdir_s_tokenizer_must_fit_its_checkpoint(networks: Path, tmp_path: Path) -> None:
    """Where it was put there by hand, before a run begins."""
    many = generator_words(GENERATOR.vocab_size + 20)
    many.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        InputError, match=r"bart: the tokenizer's ids go up to \d+, the network's vocabulary has \d+ tokens"
    ):
        fit(config(networks), tmp_path)


def test_special_tokens_that_no_text_has_may_be_beyond_the_vocabulary() -> None:
    tokenizer = generator_words(300)
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["[NEW]"])
    length_limits.check_tokens("bart", tokenizer, size)
    tokenizer.add_tokens(["word"])
    with pytest.raises(InputError, match=rf"bart: the tokenizer's ids go up to {size + 1}, the network's vocabulary"):
        length_limits.check_tokens("bart", tokenizer, size)


def generator_words(size: int) -> Tokenizer:
    return train_generator_tokenizer(
        [f"{p.title} / {p.text} {p.text[::-1]}" for p in pretrained.PASSAGES] * 9, size
    ).tokenizer
