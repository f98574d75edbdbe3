"""The threshold of an earlier evaluation: what is calibrated on, and what cannot be."""

from pathlib import Path
from typing import Any

import pytest

from rag_jax import cli
from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError
from rag_jax.evaluation.threshold import calibrated

ASKED = [{"id": name, "question": f"what is {name}", "answers": ["red"]} for name in "abc"]
ANSWERS = [
    {"id": "a", "answer": "red", "log_prob": -0.1},
    {"id": "b", "answer": "red", "log_prob": -0.2},
    {"id": "c", "answer": "blue", "log_prob": -3.0},
]


def evaluated(folder: Path, questions: list[dict[str, Any]]) -> Path:
    """A folder with an evaluation of these answers."""
    write_jsonl(folder / "questions.jsonl", questions)
    write_jsonl(folder / "answers.jsonl", ANSWERS)
    given = ("--questions", folder / "questions.jsonl", "--predictions", folder / "answers.jsonl")
    cli.main(["evaluate", "--output", str(folder / "out"), *map(str, given)])
    return folder / "out"


def test_questions_that_are_answered_by_regular_expressions_have_no_exact_match(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, [*ASKED[:2], ASKED[2] | {"answers": ["r.d"], "regex": True}])
    with pytest.raises(InputError) as caught:
        calibrated(folder, [])
    problem = "some questions are answered by regular expressions, which exact match does not score"
    assert str(caught.value) == f"{folder}: {problem}; calibrate on an evaluation of others"


def test_questions_of_one_kind_leave_nothing_to_choose(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, ASKED)
    with pytest.raises(InputError, match=rf"^{folder}: all of the questions have an answer, so there is no threshold"):
        calibrated(folder, [])
