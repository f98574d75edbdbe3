"""Scores of several runs, summarised and compared."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.data.questions import Question
from rag_jax.experiments import scores


def test_a_summary_is_over_runs_and_over_questions() -> None:
    array = np.array([[1.0, 0.0, 1.0, np.nan], [1.0, 0.0, 0.0, np.nan]])
    found = scores.summarise(array)
    runs = [(1 + 0 + 1) / 3, (1 + 0 + 0) / 3]
    assert found[:3] == pytest.approx((sum(runs) / 2, min(runs), max(runs)))
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_a_summary_of_nothing_is_not_a_number() -> None:
    assert all(map(math.isnan, scores.summarise(np.full((2, 3), np.nan))))


def test_the_p_value_is_that_of_the_means_over_the_runs() -> None:
    one, other = np.ones((2, 10)), np.zeros((2, 10))
    assert scores.p_value(one, other) == pytest.approx(2 / 2**10)  # all signs alike
    assert scores.p_value(one, one) == 1
    cancelling = np.array([[1.0] * 5 + [0.0] * 5, [0.0] * 5 + [1.0] * 5])
    assert scores.p_value(cancelling, np.full((2, 10), 0.5)) == 1


@pytest.mark.extended
def test_regular_expressions_match_the_whole_answer(trained, tmp_path: Path) -> None:
    rag = trained[0]
    text = "what colour is Norburg"
    answer = rag.answer([text])[0].text
    asked = [
        Question("1", text, (answer,)),
        Question("2", text, ("purple",)),
        Question("3", text, (f"{answer[0]}.*",), regex=True),
        Question("4", text, (answer[0],), regex=True),
    ]
    np.testing.assert_array_equal(scores.exact_matches(rag, asked, tmp_path), [1, 0, 1, 0])


def test_a_model_is_asked_once(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rag = trained[0]
    asked = [Question(str(number), f"what colour is {town}", ("red",)) for number, town in enumerate(("Norburg", "Aa"))]
    kept, given = tmp_path / "answers", []
    answer = type(rag).answer
    monkeypatch.setattr(type(rag), "answer", lambda *args, **options: given.append(args) or answer(*args, **options))
    found = scores.exact_matches(rag, asked, kept)
    np.testing.assert_array_equal(scores.exact_matches(rag, asked, kept), found)
    other = dataclasses.replace(rag, params=jax.tree.map(lambda leaf: 1.5 * leaf, rag.params))
    for calls, (model, questions, options) in enumerate(
        [(rag, asked, {}), (rag, asked, {"num_docs": 1}), (rag, asked[:1], {}), (other, asked, {})], start=1
    ):
        scores.exact_matches(model, questions, kept, **options)
        assert len(given) == len(list(kept.iterdir())) == calls
    scores.exact_matches(rag, asked, kept, "gold")
    assert len(given) == 5
