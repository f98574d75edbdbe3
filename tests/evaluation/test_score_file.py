"""Scores question by question: what is read, and what cannot be compared."""

import json
import math
import random
from pathlib import Path

import pytest

from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError
from rag_jax.evaluation.score_file import read_evaluation, read_evaluations


def row(id: str, **changes: object) -> dict:
    scores = {"exact_match": 1.0, "recall@1": None}
    return {"id": id, "question": f"what is {id}", "answer": "a", "answers": ["a", "b"], "scores": scores} | changes


def folder(path: Path, rows: list[dict]) -> Path:
    write_jsonl(path / "scores.jsonl", rows)
    return path


def refused(*paths: Path, names: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as error:
        read_evaluations(paths, names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_or_its_file_is_read_in_the_order_of_ids(tmp_path: Path) -> None:
    rows = [row("b", answer="", answers=[""]), row("c", scores={"recall@1": 0, "exact_match": 0.5}), row("a")]
    found = read_evaluation(folder(tmp_path, rows))
    assert found.path == tmp_path / "scores.jsonl"
    assert [(each.id, each.line) for each in found.questions] == [("a", 3), ("b", 1), ("c", 2)]
    assert found.questions[1] == ("b", "what is b", "", ("",), 1, ())
    assert list(found.scores) == ["exact_match", "recall@1"]
    assert found.scores["exact_match"].tolist() == [1.0, 1.0, 0.5]
    assert [math.isnan(score) for score in found.scores["recall@1"]] == [True, True, False]
    assert read_evaluation(tmp_path / "scores.jsonl").questions == found.questions


def test_the_order_of_lines_and_of_gold_answers_does_not_matter(tmp_path: Path) -> None:
    rows = [row(f"q{n}", scores={"f1": n / 7}) for n in range(20)]
    shuffled = [each | {"answers": ["b", "a"]} for each in random.Random(0).sample(rows, len(rows))]
    a, b = read_evaluations([folder(tmp_path / "a", rows), folder(tmp_path / "b", shuffled)]).values()
    assert [each.id for each in a.questions] == [each.id for each in b.questions]
    assert a.scores["f1"].tolist() == b.scores["f1"].tolist()


def test_names_are_those_of_the_folders_made_distinct(tmp_path: Path) -> None:
    paths = [folder(tmp_path / name, [row("a")]) for name in ("x/dev", "y/dev", "z/test")]
    write_jsonl(tmp_path / "w" / "dev.jsonl", [row("a")])
    assert list(read_evaluations(paths[1:])) == ["dev", "test"]
    assert list(read_evaluations(paths)) == ["x/dev", "y/dev", "z/test"]
    assert list(read_evaluations([paths[0] / "scores.jsonl", tmp_path / "w" / "dev.jsonl"])) == ["dev", "dev.jsonl"]
    assert list(read_evaluations(paths, ["one", "two", "three"])) == ["one", "two", "three"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_score_that_is_no_number_is_refused(number: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "a", [row("a", scores={"f1": 0.25})]) / "scores.jsonl"
    path.write_text(path.read_text().replace("0.25", number))
    assert refused(path.parent, folder(tmp_path / "b", [row("a")])).startswith(f"{path}:1: ")


@pytest.mark.parametrize("names", [("one",), ("one", "one"), ("one", " "), ("one", "two", "three")])
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    paths = [folder(tmp_path / name, [row("a")]) for name in "ab"]
    assert "do not fit 2 evaluations" in refused(*paths, names=names)


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ([row("a"), row("a")], 2, 'the id "a" occurs twice'),
        ([row("a") | {"id": None}], 1, '"id" is null'),
        ([row("a", question=" ")], 1, '"question" is empty'),
        ([row("a", answer=None)], 1, '"answer" is missing'),
        ([row("a", answers="a")], 1, '"answers" is not a list'),
        ([row("a", answers=[3])], 1, '"answers" is a number, not a string'),
        ([row("a", scores={})], 1, '"scores" holds no scores'),
        ([row("a", scores=[1.0])], 1, '"scores" holds no scores'),
        *(([row("a", scores={"f1": score})], 1, '"f1" is no finite number') for score in ("1.0", True, 10**400)),
        ([row("a", scores={"f1": 1}), row("b", scores={"em": 1})], 2, '"em" is on one of lines 1 and 2 only'),
    ],
)
def test_malformed_lines_are_refused_by_file_and_line(rows: list, line: int, message: str, tmp_path: Path) -> None:
    good, bad = folder(tmp_path / "a", [row("a")]), folder(tmp_path / "b", rows)
    told = refused(good, bad)
    assert told.startswith(f"{bad}/scores.jsonl:{line}: {message}")
    assert "; " in told


def test_files_that_hold_no_scores_are_refused(tmp_path: Path) -> None:
    good = folder(tmp_path / "a", [row("a")])
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty: holds no scores.jsonl" in refused(good, tmp_path / "empty")
    (tmp_path / "empty" / "scores.jsonl").write_text("\n")
    assert f"{tmp_path}/empty/scores.jsonl: holds no scores" in refused(good, tmp_path / "empty")
    assert f"{tmp_path}/nothing: no such file" in refused(good, tmp_path / "nothing")


def test_fewer_than_two_evaluations_are_refused(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", [row("a")])
    assert refused() == "a comparison takes two evaluations or more, not 0; name their folders"
    assert refused(one) == "a comparison takes two evaluations or more, not 1; name their folders"
    assert "scores.jsonl: is given twice" in refused(one, one / "scores.jsonl")


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        ("ab", 'lacks 1 of its questions (first "c")'),
        ("cbaed", 'has 2 that it lacks (first "d")'),
        ("cx", 'lacks 2 of its questions (first "a") and has 1 that it lacks (first "x")'),
    ],
)
def test_evaluations_of_other_questions_are_refused(ids: str, what: str, tmp_path: Path) -> None:
    one = folder(tmp_path / "one", [row(id) for id in "abc"])
    two = folder(tmp_path / "two", [row(id) for id in ids])
    expected = f"{two}/scores.jsonl: compared with {one}/scores.jsonl, {what}; evaluate both on the same questions"
    assert refused(one, two) == expected


@pytest.mark.parametrize(
    ("change", "what"),
    [({"answers": ["a"]}, 'the gold answers of "b" differ'), ({"question": "who"}, 'the text of "b" differs')],
)
def test_the_same_id_with_another_question_or_gold_answers_is_refused(change: dict, what: str, tmp_path: Path) -> None:
    one = folder(tmp_path / "one", [row("b"), row("a")])
    two = folder(tmp_path / "two", [row("a"), row("b", **change)])
    assert refused(one, two).startswith(f"{two}/scores.jsonl:2: {what} from {one}/scores.jsonl:1; ")


def test_other_fields_of_a_line_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text(json.dumps(row("a", passages=["p1"], log_prob=-1.5)))
    assert len(read_evaluation(tmp_path).questions) == 1
