"""Recall of rankings, by gold passages and by answers."""

import io

import numpy as np
import pytest
from rich.console import Console

from rag_jax.contrastive.evaluation import results_table, scores, vector_rows
from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.evaluation.evaluate import bm25_rows
from rag_jax.index.store import Store, without_vectors

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


@pytest.fixture
def store() -> Store:
    """Eight passages whose vectors are the axes."""
    passages = [Passage(f"p{i}", f"title {i}", f"the number {word}") for i, word in enumerate(WORDS)]
    return without_vectors(passages).with_vectors(np.eye(8, dtype=np.float32))


def test_the_nearest_vectors_are_found(store: Store) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert np.array_equal(vector_rows(store, vectors, 8), np.argsort(-vectors, axis=1))


def test_bm25_finds_words(store: Store) -> None:
    rows = bm25_rows(store, [Question("q", "what has the number delta", ("x",))])
    assert rows[0, 0] == 3


def test_scores_are_means_over_the_questions_that_have_gold(store: Store) -> None:
    questions = [
        Question("1", "q", ("number beta",), ("p1",)),
        Question("2", "q", ("theta",), ("p7", "p6")),
        Question("3", "q", ("nowhere",)),
    ]
    rows = np.asarray([[1, 0, 2, 3, 4, 5], [0, 1, 6, 2, 3, 4], [0, 1, 2, 3, 4, -1]], np.int32)
    found = scores(store, rows, questions)
    assert found["recall@1"] == 1 / 2
    assert found["recall@5"] == 2 / 2
    assert found["mrr"] == (1 + 1 / 3) / 2
    assert found["answer_recall@1"] == 1 / 3
    assert found["answer_recall@5"] == 1 / 3
    assert "recall@20" not in found


def test_questions_without_answers_are_scored_by_gold_alone(store: Store) -> None:
    rows = np.asarray([[1, 0]], np.int32)
    by_gold = Question("1", "q", (), ("p1",))
    assert set(scores(store, rows, [by_gold])) == {"recall@1", "mrr"}
    found = scores(store, np.repeat(rows, 2, axis=0), [by_gold, Question("2", "q", ("alpha",))])
    assert (found["recall@1"], found["answer_recall@1"]) == (1.0, 0.0), "of one question each"


def test_the_table_has_a_column_for_each_system() -> None:
    results = {"recall@1": 0.5, "mrr": 0.6, "recall@1_bm25": 0.25, "recall@1_before": 0.125}
    results |= {"questions": 8, "passages": 1_000, "steps": 6, "train_seconds": 2.0}
    out = io.StringIO()
    Console(file=out, width=100).print(results_table(results))
    head, recall, mrr, *_, facts = out.getvalue().strip().splitlines()
    assert head.split() == ["this", "model", "before", "BM25"]
    assert recall.split() == ["recall@1", "0.500", "0.125", "0.250"]
    assert mrr.split() == ["mrr", "0.600"]
    assert facts == "8 questions, 1,000 passages, 6 steps, 2 s"
