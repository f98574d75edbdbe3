"""Questions as examples: prompts are those of answering, and the response says where the passages do not."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import instruction_runs
from rag_jax.config.config import Config
from rag_jax.config.instruction import InstructionConfig, Retriever
from rag_jax.core import reading
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.instruction import run
from rag_jax.instruction.examples import Reader
from rag_jax.pipeline import recipes
from rag_jax.pipeline.components import GeneratorBundle
from rag_jax.rag import RAG
from rag_jax.types import Tokens


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> InstructionConfig:
    found = instruction_runs.config(tmp_path_factory.mktemp("asking"))
    file = found.data.train[1][0]
    data = dataclasses.replace(found.data, train=((file, 1.0),), passages=file.with_name("passages.jsonl"))
    return dataclasses.replace(found, data=data)


@pytest.fixture(scope="module")
def bundle(config: InstructionConfig) -> GeneratorBundle:
    return run.load(config).generator


def items(config: InstructionConfig, bundle: GeneratorBundle, held_out: bool = False):
    return Reader(config, bundle).read(config.data.train[0][0], held_out).items


def responses(config: InstructionConfig, bundle: GeneratorBundle, **retriever) -> list[list[str]]:
    changed = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, **retriever))
    found = items(changed, bundle)
    return [[bundle.tokenizer.text(each.tokens[each.targets]) for each in variants] for variants in found]


@pytest.mark.parametrize(
    ("closed_book", "template"), [(False, None), (True, None), (True, "Document: {text}\n")], ids=str
)
def test_the_tokens_are_those_that_answering_reads_and_scores(
    config: InstructionConfig, towns: Config, closed_book: bool, template: str | None
) -> None:
    """Assembled from what a RAG model over the same generator holds, by its own layout."""
    changes = {"passages_per_prompt": 1 if closed_book else 2, "system_prompt": "Say.", "passage_template": template}
    generator = dataclasses.replace(config.generator, **changes)
    data = dataclasses.replace(config.data, passages=None if closed_book else config.data.passages)
    retriever = dataclasses.replace(config.retriever, num_docs=2, irrelevant=0.0)
    config = dataclasses.replace(config, generator=generator, data=data, retriever=retriever)
    bundle = run.load(config).generator
    (first, *_), *_ = items(config, bundle)

    question = read_questions(config.data.train[0][0])[0]
    rag = RAG.from_networks(towns.retriever.tower, config.generator.checkpoint).with_prompt(system_prompt="Say.")
    tokenizer = rag.components.generator_tokenizer
    no_passage = [tokenizer.empty_passage]  # as `closed_book` has it
    passages = no_passage if closed_book else tokenizer.passages(shown_passages(first.tokens, bundle))
    ids = np.zeros((1, len(passages), max(map(len, passages)) or 1), np.int32)
    for row, each in zip(ids[0], passages, strict=True):
        row[: len(each)] = each
    (prompt,) = tokenizer.prompts([question.question])
    layout = recipes.layout(rag.components.config, tokenizer.header, tokenizer.separator)
    layout = layout._replace(passages_per_input=len(passages))
    lengths = np.asarray([list(map(len, passages))], np.int32)
    asked = Tokens(np.asarray([prompt], np.int32), np.asarray([len(prompt)], np.int32))  # pyright: ignore
    read = reading.assemble(*jax_arrays((Tokens(ids, lengths), asked)), layout)  # pyright: ignore
    (target,) = tokenizer.targets([question.answers[0]])
    expected = [*np.asarray(read.ids)[0, 0, : int(read.lengths[0, 0])].tolist(), tokenizer.decoder_start, *target]
    assert first.tokens.tolist() == expected
    assert first.targets.tolist() == list(range(len(expected) - len(target), len(expected)))


def jax_arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def shown_passages(tokens: np.ndarray, bundle: GeneratorBundle) -> list[tuple[str, str]]:
    """The passages of a prompt, in their order, found in its text."""
    text = bundle.tokenizer.tokenizer.decode(tokens.tolist())
    found = [(each["title"], each["text"]) for each in instruction_runs.PASSAGES]
    found = [each for each in found if f"{each[0]}\n{each[1]}" in text]
    return sorted(found, key=lambda each: text.index(f"{each[0]}\n"))


def test_a_question_is_answered_where_a_passage_holds_the_answer(config, bundle) -> None:
    found = responses(config, bundle, irrelevant=0.0)
    assert found == [[("red", "blue")[n % 2]] for n in range(8)], "BM25 finds the passage by its name"


def test_irrelevant_passages_are_answered_by_saying_so(config, bundle) -> None:
    found = [response for own in responses(config, bundle, irrelevant=1.0, num_docs=8) for response in own]
    assert len(found) == 64
    unanswered = found.count("do not say") / 64
    assert 0.3 < unanswered < 0.7, "half of the passages hold the answer by accident"
    always = responses(config, bundle, irrelevant=1.0, unanswerable=None)
    assert always == [[("red", "blue")[n % 2]] for n in range(8)]


def test_the_share_without_an_answer_is_told(config, bundle) -> None:
    (file,) = Reader(config, bundle).train().files
    nothing = sum(own == ["do not say"] for own in responses(config, bundle)) / 8
    assert file.format == f"questions (plain, {nothing:.0%} of the prompts without an answer)"


def test_every_prompt_has_every_answer_if_they_are_sampled(config, bundle) -> None:
    sampled = dataclasses.replace(config, data=dataclasses.replace(config.data, answers="sampled"))
    prompts = responses(config, bundle, irrelevant=0.0, num_docs=2)
    found = responses(sampled, bundle, irrelevant=0.0, num_docs=2)
    assert [len(own) for own in found] == [2 * len(own) for own in prompts], "two answers to each prompt"


def test_what_the_search_does_not_find_is_not_read(config, bundle, tmp_path) -> None:
    """As in answering: fewer passages, and without any the empty one, whose prompt is that of a closed book."""
    found = [{"id": "a", "question": "where is Ada", "answers": ["red"]}]
    nothing = [{"id": "b", "question": "¿dónde?", "answers": ["blue"], "positive_ids": ["7", "gone"]}]
    write_jsonl(tmp_path / "questions.jsonl", found + nothing)
    data = dataclasses.replace(config.data, train=((tmp_path / "questions.jsonl", 1.0),))
    retriever = dataclasses.replace(config.retriever, num_docs=4, irrelevant=0.0)
    asked = dataclasses.replace(config, data=data, retriever=retriever)
    closed = dataclasses.replace(asked, data=dataclasses.replace(data, passages=None))
    joined = dataclasses.replace(asked, generator=dataclasses.replace(config.generator, passages_per_prompt=4))
    for each in (asked, joined):
        one, none = items(each, bundle)
        assert [shown_passages(prompt.tokens, bundle) for prompt in one] == [[("Ada", "Ada is red")]]
        (empty,), (_, (without,)) = none, items(closed, bundle)
        start = len(empty.tokens) - len(empty.targets)
        assert empty.tokens[:start].tolist() == without.tokens[: len(without.tokens) - len(without.targets)].tolist()
        assert bundle.tokenizer.text(empty.tokens[empty.targets]) == "do not say"


def test_held_out_questions_are_asked_once_with_the_best_passages(config, bundle) -> None:
    config = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, irrelevant=1.0, num_docs=4))
    found = items(config, bundle, held_out=True)
    assert [len(own) for own in found] == [1] * 8
    assert [bundle.tokenizer.text(own[0].tokens[own[0].targets]) for own in found] == ["red", "blue"] * 4


def test_the_same_seed_draws_the_same_passages(config, bundle) -> None:
    first, again, other = (
        [each.tokens.tolist() for own in items(dataclasses.replace(config, seed=seed), bundle) for each in own]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_an_index_is_searched_by_its_tower(config, bundle, trained) -> None:
    """The nearest passage is the one that the RAG model retrieves."""
    rag, _, workdir = trained
    tower = rag.components.config.retriever
    data = dataclasses.replace(config.data, passages=None, index=workdir / "index")
    retriever = Retriever(tower.tower, tower.passage_tower, num_docs=1, max_question=48, irrelevant=0.0)
    asking = Reader(dataclasses.replace(config, data=data, retriever=retriever), bundle)._asking
    questions = read_questions(Path(rag.components.config.data.evaluation))[:5]
    expected = RAG(rag.components, rag.components.initial_params).search([each.question for each in questions], k=1)
    found = asking._search(questions)
    assert [asking._store.passages[row].id for (row,) in found.tolist()] == [each[0].id for each in expected]


def test_more_passages_than_there_are_are_refused(config, bundle) -> None:
    changed = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, num_docs=9))
    with pytest.raises(InputError, match=r"retriever\.num_docs is 9, there are 8 passages; give as many at most"):
        items(changed, bundle)
