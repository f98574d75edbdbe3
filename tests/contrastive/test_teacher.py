"""The scores of a teacher, read from the file of the hard negatives."""

import json
from math import nan
from pathlib import Path

import numpy as np
import pytest

from rag_jax.contrastive.teacher import Scores, by_row, read_teacher
from rag_jax.data.question import Question
from rag_jax.errors import InputError

LINE = {"id": "q1", "negative_ids": ["p5", 4], "scores": [2, -1.5], "positive_score": 3.0}


def written(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "negatives.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_scores_are_read_by_question_and_passage(tmp_path: Path, capsys) -> None:
    path = written(tmp_path, LINE, {"id": 2, "negative_ids": [], "scores": [], "positive_score": None})
    found = read_teacher(path)
    assert found["q1"] == Scores(3.0, {"p5": 2.0, "4": -1.5})
    assert found["2"].negatives == {}
    assert np.isnan(found["2"].positive)
    assert capsys.readouterr().err == f"warning: {path}: 1 of 2 questions have no positive_score, and no Margin-MSE\n"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"scores": [1.0]}, "has 1 scores for 2 negative_ids; write one for each"),
        ({"scores": None}, 'has no list of "scores" for 2 negative_ids'),
        ({"scores": [1.0, "2"]}, "has '2' in \"scores\"; write finite numbers"),
        ({"scores": [1.0, True]}, 'has True in "scores"'),
        ({"scores": [1.0, 10**400]}, "has 1000"),
        ({"scores": [1.0, 1e39]}, 'has 1e+39 in "scores"; write finite numbers'),
        ({"scores": [1.0, None]}, 'has None in "scores"'),
        ({"negative_ids": ["p5", "p5"], "scores": [1, 2]}, "names a passage twice, with two scores; leave one out"),
        ({"positive_score": 1e39}, 'has 1e+39 in "positive_score"; write finite numbers'),
    ],
)
def test_bad_scores_are_named_by_file_line_and_question(tmp_path: Path, change: dict, what: str) -> None:
    path = written(tmp_path, LINE | {"id": "q0"}, LINE | change)
    with pytest.raises(InputError) as caught:
        read_teacher(path)
    assert str(caught.value).startswith(f'{path}:2: "q1" {what}')


def test_a_file_without_scores_of_gold_passages_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no question has a "positive_score"'):
        read_teacher(written(tmp_path, LINE | {"positive_score": None}))


def test_scores_by_row_are_those_of_gold_passages_and_negatives() -> None:
    questions = [Question("q1", "?", ("a",), ("p0", "p1")), Question("q2", "?", ("a",), ("p2",))]
    scores = {"q1": Scores(3.0, {"p5": 2.0, "p4": -1.5})}
    found = by_row(questions, [[0, 1], [2]], scores, {"q1": ("p5", "p4")}, {"q1": [5, 4]})
    assert found == [{0: 3.0, 1: 3.0, 5: 2.0, 4: -1.5}, {}]
    unknown = by_row(questions, [[0], [2]], {"q1": Scores(nan, {})}, {"q1": ()}, {"q1": []})
    assert np.isnan(unknown[0][0])
