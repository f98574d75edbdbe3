"""Baselines: the same program on other passages, or with another retriever."""

import dataclasses

import numpy as np
import pytest

from rag_jax.data.questions import Question, read_questions
from rag_jax.errors import InputError
from rag_jax.evaluation import baselines
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.index.engines.engine import Queries
from rag_jax.rag import RAG

LABELS = ["red", "blue"]


@pytest.fixture
def asked(towns) -> list[Question]:
    return read_questions(towns.data.evaluation)


def texts(questions: list[Question]) -> list[str]:
    return [question.question for question in questions]


def test_gold_passages_are_all_that_is_read(trained, asked: list[Question]) -> None:
    rag = baselines.BASELINES["gold"](trained[0], asked, 0)
    answers = rag.answer(texts(asked))
    assert [[passage.id for passage in answer.passages] for answer in answers] == [list(q.positive_ids) for q in asked]
    assert all(answer.passages[0].log_prior == 0 for answer in answers), "one passage has all of the prior"
    searched = rag.search(texts(asked), 5)
    assert [[each.id for each in found] for found in searched] == [list(q.positive_ids) for q in asked]
    (chosen,) = rag.choose(texts(asked[:1]), LABELS)
    assert [passage.id for passage in chosen.passages] == list(asked[0].positive_ids)
    rows = trained[0].components.store.find([question.positive_ids[0] for question in asked])
    direct = trained[0].answer(texts(asked), rows=rows[:, None])
    np.testing.assert_allclose([a.log_prob for a in answers], [a.log_prob for a in direct], atol=1e-5)


def test_questions_with_the_same_text_share_their_gold_passages(trained, capsys) -> None:
    rag, names = trained[0], [passage.id for passage in trained[0].components.store.passages][:3]
    questions = [Question(str(n), "what is here", ("x",), (name,)) for n, name in enumerate(names)]
    engine = baselines.GoldPassages.of(rag, questions)
    assert "2 questions repeat another's text, and share its gold passages" in capsys.readouterr().err
    assert engine.search(Queries(["what is here"], None), 2).rows.tolist() == [[0, 1]]
    assert engine.search(Queries(["what is here"], None), 4, np.array([[1]])).rows.tolist() == [[0, 2, -1, -1]]


def test_a_question_without_gold_passages_is_refused(trained) -> None:
    unknown = [Question("q7", "what colour is Nowhere", ("red",), ("nowhere",))]
    with pytest.raises(InputError, match='question "q7": none of its gold passages is in the index; give'):
        baselines.GoldPassages.of(trained[0], unknown)


def test_gold_passages_are_known_of_the_questions_that_they_were_read_for(trained, asked: list[Question]) -> None:
    rag = baselines.BASELINES["gold"](trained[0], asked[:2], 0)
    told = r"^no gold passages are known of 'what colour is Nowhere'; ask the questions that they were read for$"
    with pytest.raises(InputError, match=told):
        rag.answer([asked[0].question, "what colour is Nowhere"])
    with pytest.raises(InputError, match=told):
        rag.search("what colour is Nowhere", 1)


def test_random_passages_are_different_and_a_question_keeps_its_own(trained) -> None:
    alive = np.flatnonzero(trained[0].components.store.alive)
    engine, queries = baselines.RandomPassages(alive, seed=3), Queries(["a", "b", "a"], None)
    few, many = engine.search(queries, 4).rows, engine.search(queries, 20).rows
    assert few.tolist() == many[:, :4].tolist(), "what is read is the beginning of what is found"
    assert few[0].tolist() == few[2].tolist() != few[1].tolist()
    assert all(len(set(row)) == 20 for row in many.tolist())
    other = baselines.RandomPassages(alive, seed=4).search(queries, 4).rows
    assert other.tolist() != few.tolist()
    everything = baselines.RandomPassages(alive[:5]).search(queries, 5).rows
    assert np.sort(everything, axis=1).tolist() == [alive[:5].tolist()] * 3


def test_a_closed_book_reads_nothing_and_random_passages_do_not_help(trained, asked: list[Question]) -> None:
    rag = trained[0]

    def score(name: str | None) -> float:
        model = rag if name is None else baselines.BASELINES[name](rag, asked, 0)
        answers = model.answer(texts(asked))
        return sum(exact_match(answer.text, question.answers) for answer, question in zip(answers, asked, strict=True))

    assert baselines.without_passages(rag).components.store.is_closed_book
    assert score("gold") > max(score("random"), score("closed-book"))


def test_the_pretrained_tower_is_the_one_before_training(trained, asked: list[Question]) -> None:
    rag = trained[0]
    pretrained = baselines.with_pretrained_tower(rag)
    before = RAG(rag.components, rag.components.initial_params)
    np.testing.assert_array_equal(pretrained.encode(texts(asked)), before.encode(texts(asked)))
    assert pretrained.params.generator is rag.params.generator


def test_bm25_searches_by_words_and_its_scores_are_the_prior(trained, asked: list[Question]) -> None:
    rag = baselines.with_bm25(trained[0])
    (answer,) = rag.answer(texts(asked[:1]))
    (found,) = rag.search(texts(asked[:1]), 2)
    assert [passage.id for passage in answer.passages] == [each.id for each in found]
    scores = np.array([each.score for each in found])
    expected = scores - np.log(np.exp(scores).sum())
    np.testing.assert_allclose([passage.log_prior for passage in answer.passages], expected, atol=1e-5)


def test_stuffing_needs_positions_for_all_passages(trained) -> None:
    rag = trained[0]
    with pytest.raises(InputError, match=r"has positions for \d+ tokens, generator.max_input is \d+"):
        baselines.with_stuffing(rag)
    short = dataclasses.replace(rag.components.config.generator, max_passage=4, max_input=16)
    config = dataclasses.replace(rag.components.config, generator=short)
    stuffed = baselines.with_stuffing(RAG(dataclasses.replace(rag.components, config=config), rag.params))
    assert stuffed.components.config.generator.max_input == 20
    assert stuffed.components.layout.passages_per_input == 2


def test_another_index_has_its_own_search(trained, asked: list[Question]) -> None:
    rag = baselines.BASELINES["gold"](trained[0], asked, 0)
    assert rag.with_index(rag.components.store).components.host_search is None
    assert baselines.without_passages(rag).components.host_search is None
    assert baselines.with_bm25(rag).components.search is None
    assert baselines.with_num_docs(rag, 3).components.num_docs == 3
