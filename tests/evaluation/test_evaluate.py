"""Evaluation: what is counted, against what."""

import numpy as np

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.index.store import from_vectors
from stores import reads

PASSAGES = [
    Passage("a", "Mumbai", "It has 12 people."),
    Passage("b", "Paris", "It has 7 people."),
    Passage("c", "", "x"),
]


def test_recall_counts_gold_passages_and_passages_with_an_answer() -> None:
    questions = [
        Question("1", "how many in Paris", ("7",), ("b",)),
        Question("2", "how many in Mumbai", ("12",), ("a",)),
        Question("3", "no gold passage is known", ("7",)),
    ]
    found = [[PASSAGES[0]], [PASSAGES[0]], [PASSAGES[1]]]
    assert evaluate.recalls(found, questions, 1) == {"recall@1": 1 / 2, "answer_recall@1": 2 / 3}
    unanswerable = [question._replace(answers=("",)) for question in questions]
    assert evaluate.recalls(found, [questions[0], *unanswerable[1:]], 1) == {"recall@1": 1 / 2, "answer_recall@1": 0}
    assert evaluate.recalls(found, unanswerable, 1) == {"recall@1": 1 / 2}


def test_bm25_finds_words() -> None:
    store = from_vectors(PASSAGES, np.zeros((3, 1), np.float32), reads())
    scores = evaluate.bm25_recall(store, [Question("1", "people of Paris", ("7",), ("b",))])
    assert scores["recall@1"] == 1.0


def test_exact_match_and_f1_are_means_over_questions(trained) -> None:
    rag, _, _ = trained
    answers, scores = evaluate.answering(
        rag, [Question("1", "what colour is Norburg", ("purple",)), Question("2", "what colour is Westal", ("x", "y"))]
    )
    assert len(answers) == 2
    assert scores == {"exact_match": 0.0, "f1": 0.0}
