"""The results of an evaluation as a table, and the warning where training made the retriever worse."""

import pytest

from rag_jax.evaluation import results_table
from rag_jax.terminal import Terminal

RESULTS = {
    "exact_match": 0.891,
    "f1": 0.905,
    "recall@1": 0.958,
    "recall@5": 0.99,
    "answer_recall@1": 0.97,
    "questions": 1000,
    "questions_cut": 0,
    "evaluated_on": "0123456789abcdef",
    "steps": 2500,
    "model": "token",
    "decoder": "greedy",
    "num_docs": 2,
    "index": "device",
    "passages": 34_003,
    "recall@1_before": 0.924,
    "recall@5_before": 0.98,
    "recall@1_bm25": 0.7,
    "closed_book_exact_match": 0.044,
    "train_seconds": 374.2,
}


def _shown(results: dict) -> list[str]:
    console = Terminal(width=100, force_terminal=False)
    with console.capture() as capture:
        results_table.show(console, results)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_every_score_stands_beside_its_baselines_and_the_counts_below():
    lines = _shown(RESULTS)
    cells = {line[:16].strip(): line[16:].split() for line in lines if line}
    assert lines[0].split() == ["this", "model", "before", "training", "BM25", "closed", "book"]
    assert cells["exact match"] == ["0.891", "0.044"]
    assert cells["f1"] == ["0.905"]
    assert cells["recall@1"] == ["0.958", "0.924", "0.700"]
    assert cells["recall@5"] == ["0.990", "0.980"]
    assert cells["answer recall@1"] == ["0.970"]
    assert lines[-1] == "1,000 questions, 34,003 passages, K = 2, 2,500 steps, 374 s"


def test_pretrained_networks_stand_beside_what_they_were():
    zero_shot = {"zero_shot_exact_match": 0.1, "zero_shot_f1": 0.3, "zero_shot_closed_book_exact_match": 0.02}
    lines = _shown(RESULTS | zero_shot)
    assert lines[0].split("  ")[-1] == "closed book, zero-shot"
    cells = {line[:16].strip(): line[16:].split() for line in lines if line}
    assert cells["exact match"] == ["0.891", "0.100", "0.044", "0.020"]
    assert cells["f1"] == ["0.905", "0.300"]


def test_columns_without_a_score_are_left_out():
    closed_book = {name: RESULTS[name] for name in ("exact_match", "f1", "questions", "num_docs", "passages", "steps")}
    lines = _shown(closed_book | {"questions_cut": 3})
    assert lines[0].split() == ["this", "model"]
    assert lines[-1] == "1,000 questions, 3 of them cut, 2,500 steps"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"recall@1": 0.915}, None),  # within the margin
        ({"recall@1": 0.9}, "recall@1 is 0.900 after training, 0.924 before"),
        ({"recall@5": 0.95}, "recall@5 is 0.950 after training, 0.980 before"),
    ],
)
def test_a_retriever_that_training_made_worse_is_reported_with_a_remedy(changed: dict, expected: str | None):
    remedy = "; lower optimizer.tower_learning_rate, or set retriever.mode to frozen"
    warning = results_table.retrieval_warning(RESULTS | changed)
    assert warning == (expected and expected + remedy)
    assert (_shown(RESULTS | changed)[-1] == f"warning: {warning}") == (expected is not None)


def test_results_of_a_closed_book_are_not_warned_about():
    assert results_table.retrieval_warning({"exact_match": 0.1}) is None
