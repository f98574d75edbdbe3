"""`rag-jax compare`, as it is typed."""

import json
from pathlib import Path

import pytest

from rag_jax.commands.compare import compare
from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import report_errors


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three evaluations of ten questions: old answers 2 of them, new 8 and last 5."""
    for name, right in (("old", 2), ("new", 8), ("last", 5)):
        rows = (
            {
                "id": f"q{n}",
                "question": f"what is {n}",
                "answer": f"right {n}" if n < right else "wrong",
                "answers": [f"right {n}"],
                "scores": {"exact_match": float(n < right), "f1": 1.0 if n < right else n / 30, "recall@1": None},
            }
            for n in range(10)
        )
        write_jsonl(tmp_path / name / "scores.jsonl", rows)
    return [tmp_path / name for name in ("old", "new", "last")]


def run(capsys, *arguments: object) -> list[str]:
    """The lines that a command prints."""
    compare([*map(str, arguments), "--resamples", "200"])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def refused(capsys, *arguments: object) -> str:
    """The one line of a command that fails."""
    with pytest.raises(SystemExit) as ended, report_errors():
        compare([str(argument) for argument in arguments])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_the_first_evaluation_is_the_reference(runs, capsys) -> None:
    lines = run(capsys, *runs, "--show", 2)
    at = lines.index("exact match, 10 questions")
    assert lines[at + 3] == "old 0.200 reference"
    # Six of ten questions differ, all for the better: p = 2 / 2^6, and as much by f1: corrected, p 4 / 2. Then 2 / 2^3.
    assert lines[at + 4].startswith("new 0.800 +0.600 ")
    assert lines[at + 4].endswith(" 0.031 0.062 6/4/0")
    assert lines[at + 5].startswith("last 0.500 +0.300 ")
    assert lines[at + 5].endswith(" 0.250 0.250 3/7/0")
    assert "f1, 10 questions" in lines
    # q2, q3 and q4 are answered by new and last; f1 differs most where that of a wrong answer is least.
    at = lines.index("Questions that differ most")
    assert lines[at + 2 :] == [
        *("q2 what is 2", "gold answers right 2", "old wrong exact match 0.000, f1 0.067"),
        *("new right 2 exact match 1.000, f1 1.000", "last right 2 exact match 1.000, f1 1.000", ""),
        *("q3 what is 3", "gold answers right 3", "old wrong exact match 0.000, f1 0.100"),
        *("new right 3 exact match 1.000, f1 1.000", "last right 3 exact match 1.000, f1 1.000"),
    ]


def test_pairs_metrics_and_names_are_chosen_and_the_report_is_written(runs, tmp_path, capsys) -> None:
    options = ("--all-pairs", "--metric", "f1", "--names", "a", "b", "c", "--output")
    lines = run(capsys, *runs, *options, tmp_path / "new folder" / "report.json")
    report = json.loads((tmp_path / "new folder" / "report.json").read_text())
    assert [(each["reference"], each["system"]) for each in report["comparisons"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert {each["metric"] for each in report["comparisons"]} == {"f1"}
    assert lines.count("f1, 10 questions") == 2
    run(capsys, *runs, *options, tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text().count("| b | ") == 2


def test_the_seed_determines_the_result_whatever_the_order_of_lines(runs, capsys) -> None:
    before = run(capsys, *runs, "--seed", 3)
    for folder in runs[1:]:
        path = folder / "scores.jsonl"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert run(capsys, *runs, "--seed", 3) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resamples", "99"], "--resamples is 99; give 100 to 1,000,000"),
        (["--resamples", "1000001"], "--resamples is 1000001; give 100 to 1,000,000"),
        (["--seed", "-1"], "seed is -1; give 0 to 2**32 - 1"),
        (["--show", "-1"], "--show is -1; give 0 or more"),
        (["--names", "a"], "--names 'a': do not fit 3 evaluations"),
        (["--metric", "mrr"], "has no 'mrr'; metrics in common are exact_match, f1, recall@1"),
        (["--metric", "recall@1"], "'recall@1' applies to no question"),
        (["--output", "report.txt"], "report.txt: not a format of reports"),
        (["--no-such-option"], "rag-jax compare --help lists all options"),
    ],
)
def test_bad_options_are_refused_in_one_line(runs, options: list[str], message: str, capsys) -> None:
    assert message in refused(capsys, *runs, *options)


def test_bad_input_is_refused_in_one_line_and_nothing_is_written(runs, tmp_path, capsys) -> None:
    output = tmp_path / "report.md"
    assert "not 1; name their folders" in refused(capsys, runs[0], "--output", output)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert f"{loop}" in refused(capsys, runs[0], loop, "--output", output)
    (runs[2] / "scores.jsonl").write_text("{")
    assert f"{runs[2]}/scores.jsonl:1: malformed JSON" in refused(capsys, *runs, "--output", output)
    assert not output.exists()
    output.write_text("mine")
    assert "report.md: exists already" in refused(capsys, *runs[:2], "--output", output)
    assert output.read_text() == "mine"
