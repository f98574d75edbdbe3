"""`rag-jax evaluate`: from a model or a file of predictions to scores, and back again after an interruption."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from interruptions import stream_until
from rag_jax import cli
from rag_jax.commands.evaluate import EvaluateCommand
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.rag import RAG

COLOURS = ("red", "blue", "green", "white", "black", "brown")


def evaluate(out: Path, *options: object) -> dict:
    """Run the command; what metrics.json holds."""
    cli.main(["evaluate", "--output", str(out), *map(str, options)])
    return json.loads((out / "metrics.json").read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(capsys, *options: object) -> str:
    """The line of a command that ends with 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", *map(str, options)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    return line


@pytest.fixture
def model(trained, towns) -> tuple:
    return "--workdir", trained[2], "--questions", towns.data.evaluation


def test_a_model_is_scored_and_everything_is_written(trained, towns, model, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    metrics = evaluate(out, *model, "--token-posteriors", "--likelihood", "--figures", "--depth", "20")
    questions = read_questions(towns.data.evaluation)
    answers = trained[0].answer([question.question for question in questions])
    expected = np.mean([exact_match(a.text, q.answers) for a, q in zip(answers, questions, strict=True)])
    figures = metrics["figures"]
    assert figures["exact_match"]["value"] == pytest.approx(expected)
    assert figures["exact_match"]["questions"] == len(questions)
    assert figures["recall@1"]["value"] == pytest.approx(trained[1]["recall@1"])
    assert figures["answer_recall@5"]["value"] == pytest.approx(trained[1]["answer_recall@5"])
    assert (metrics["num_docs"], metrics["decoder"], metrics["index"]["recall"]) == (2, "greedy", "exact")
    assert {"rag-jax", "jax", "python"} <= metrics["versions"].keys()
    assert all(each["low"] <= each["value"] <= each["high"] for each in figures.values() if each["value"] is not None)
    scores, predictions = lines(out / "scores.jsonl"), lines(out / "predictions.jsonl")
    assert np.mean([line["scores"]["exact_match"] for line in scores]) == pytest.approx(expected)
    assert [line["id"] for line in predictions] == [line["id"] for line in scores] == [q.id for q in questions]
    for line, answer in zip(predictions, answers, strict=True):
        assert line["answer"] == answer.text
        assert line["passages"][0]["posterior"] == pytest.approx(answer.passages[0].posterior, abs=1e-5)
        assert np.shape(line["token_posteriors"]) == (2, len(answer.tokens))
        assert len(line["retrieved"]) == 20
    log_likelihood = trained[0].log_likelihood([q.question for q in questions], [q.answers[0] for q in questions])
    assert figures["gold_log_likelihood"]["value"] == pytest.approx(float(np.mean(log_likelihood)), abs=1e-4)
    assert len((out / "run.trec").read_text().splitlines()) == 20 * len(questions)
    assert len(json.loads((out / "dpr.json").read_text())) == len(questions) == len(lines(out / "kilt.jsonl"))
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "risk_coverage.png").exists()
    printed = capsys.readouterr().out
    assert f"{expected:.3f}" in printed
    assert str(out) in printed
    assert f"| exact_match | {expected:.3f} |" in (out / "table.md").read_text()


def test_its_own_outputs_are_scored_alike(trained, towns, model, tmp_path: Path) -> None:
    whole = evaluate(tmp_path / "model", *model)["figures"]
    given = ("--questions", towns.data.evaluation, "--index", trained[2] / "index")
    again = evaluate(tmp_path / "a", *given, "--predictions", tmp_path / "model" / "predictions.jsonl")
    assert again["figures"] == whole
    kilt = evaluate(tmp_path / "b", *given, "--predictions", tmp_path / "model" / "kilt.jsonl")["figures"]
    assert kilt == {name: whole[name] for name in kilt}
    assert "recall@1" in kilt
    from_dpr = evaluate(tmp_path / "c", "--questions", tmp_path / "model" / "dpr.json", *model[:2])["figures"]
    assert from_dpr["exact_match"] == whole["exact_match"], "DPR's retriever output is a question file"


@pytest.mark.extended
def test_baselines_are_the_same_program(trained, model, tmp_path: Path) -> None:
    scores = {}
    for name in ("closed-book", "bm25", "pretrained-tower", "random", "gold"):
        metrics = evaluate(tmp_path / name, *model, "--baseline", name)
        assert metrics["baseline"] == name
        scores[name] = metrics["figures"]["exact_match"]["value"]
        assert ("recall@1" in metrics["figures"]) == (name != "closed-book")
        assert ("citation_recall" in metrics["figures"]) == (name != "closed-book")
    assert scores["gold"] > max(scores["closed-book"], scores["random"])


@pytest.mark.extended
def test_labels_are_chosen_by_their_likelihood(trained, towns, tmp_path: Path) -> None:
    questions = read_questions(towns.data.evaluation)
    rows = [{"id": q.id, "claim": q.question, "label": q.answers[0].upper()} for q in questions]
    write_jsonl(tmp_path / "claims.jsonl", rows)
    labels = [f"{colour.upper()}={colour}" for colour in COLOURS]
    given = ("--workdir", trained[2], "--questions", tmp_path / "claims.jsonl", "--labels", *labels)
    figures = evaluate(tmp_path / "out", *given, "--likelihood")["figures"]
    asked, gold = [q.question for q in questions], [q.answers[0] for q in questions]
    chosen = trained[0].choose(asked, COLOURS)
    likelihood = np.mean(trained[0].log_likelihood(asked, gold))
    assert figures["gold_log_likelihood"]["value"] == pytest.approx(likelihood, abs=1e-4), "of the text, not the name"
    expected = np.mean([answer.text == q.answers[0] for answer, q in zip(chosen, questions, strict=True)])
    assert figures["accuracy"]["value"] == pytest.approx(expected)
    assert {"macro_f1", "expected_calibration_error", "aurc", "brier"} <= figures.keys()
    assert "exact_match" not in figures
    assert "answer_recall@1" not in figures, "a passage with the word of a label is no hit"
    write_jsonl(tmp_path / "by_text.jsonl", [{"id": q.id, "answer": q.answers[0]} for q in questions])
    of_others = ("--predictions", tmp_path / "by_text.jsonl", "--questions", given[3], "--labels", *labels)
    assert evaluate(tmp_path / "others", *of_others)["figures"]["accuracy"]["value"] == 1
    confusion = json.loads((tmp_path / "out" / "metrics.json").read_text())["confusion"]
    assert np.trace(confusion["gold_by_predicted"]) == sum(map(sum, confusion["gold_by_predicted"])) * expected
    for line in lines(tmp_path / "out" / "predictions.jsonl"):
        assert sum(line["labels"].values()) == pytest.approx(1, abs=1e-5)
        assert math.exp(line["log_prob"]) == pytest.approx(max(line["labels"].values()), abs=1e-5)


@pytest.mark.extended
def test_answers_below_a_calibrated_threshold_are_withheld(trained, towns, tmp_path: Path, capsys) -> None:
    """Towns that no passage is about are the unanswerable questions."""
    questions = read_questions(towns.data.evaluation)
    rows = [{"id": q.id, "question": q.question, "answers": list(q.answers)} for q in questions[:8]]
    squad = {"title": "t", "paragraphs": [{"context": "c", "qas": [
        *({"id": row["id"], "question": row["question"], "answers": [{"text": row["answers"][0]}]} for row in rows),
        *({"id": f"x{n}", "question": f"what colour is Xq{n}", "answers": [], "is_impossible": True} for n in range(8)),
    ]}]}  # fmt: skip
    (tmp_path / "squad.json").write_text(json.dumps({"version": "v2.0", "data": [squad]}))
    given = ("--workdir", trained[2], "--questions", tmp_path / "squad.json")
    before = evaluate(tmp_path / "before", *given)["figures"]
    assert before["exact_match"]["value"] <= 0.5, "a model that always answers is wrong on half of them"
    after = evaluate(tmp_path / "after", *given, "--calibrate-on", tmp_path / "before")
    assert "has 16 of the questions that are evaluated" in capsys.readouterr().err
    again = evaluate(tmp_path / "again", *given, "--calibrate-on", tmp_path / "after")
    assert again["abstain_below"] == after["abstain_below"], "of the answers before any was withheld"
    others = (tmp_path / "before" / "predictions.jsonl").read_text().replace('"answer": "', '"answer": "not ')
    (tmp_path / "before" / "predictions.jsonl").write_text(others)
    of_another = ("--output", tmp_path / "of_another", *given, "--calibrate-on", tmp_path / "before")
    assert "has another answer in predictions.jsonl than in scores.jsonl" in refused(capsys, *of_another)
    assert after["calibrated"]["score"] == after["figures"]["abstaining"]["value"]
    assert after["abstain_below"] < 0
    figures = after["figures"]
    assert figures["exact_match"]["value"] == pytest.approx(figures["abstaining"]["value"])
    assert figures["always_answering"]["value"] == pytest.approx(before["exact_match"]["value"])
    assert figures["abstaining"]["value"] >= before["exact_match"]["value"]
    withheld = [line["answer"] for line in lines(tmp_path / "after" / "scores.jsonl")].count("")
    assert figures["abstained"]["value"] == pytest.approx(withheld / 16)


@pytest.mark.extended
def test_an_interrupted_evaluation_resumes(trained, model, tmp_path: Path, monkeypatch, capsys) -> None:
    whole = evaluate(tmp_path / "whole", *model, "--batch-size", 4)
    interrupted = stream_until(10)
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(RAG, "stream", interrupted)
        with pytest.raises(SystemExit) as stopped:
            evaluate(out, *model, "--batch-size", 4)
    assert stopped.value.code == 130
    assert "10 of 32 predictions are in" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "rag-jax.evaluation"]
    assert evaluate(out, *model, "--batch-size", 4)["figures"] == whole["figures"]
    assert (out / "scores.jsonl").read_text() == (tmp_path / "whole" / "scores.jsonl").read_text()
    assert evaluate(out, *model, "--batch-size", 8)["figures"] == whole["figures"], "a third time, all ours"
    assert "not from this command" in refused(capsys, "--output", out, *model, "--num-docs", "1")


OK = {"id": "a", "question": "what colour is Norburg", "answers": ["red"]}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([OK], ["--labels", "blue", "green"], 'question "a": its gold answer "red" is none of the labels blue, green'),
        ([OK], ["--labels", "red", "red"], "give two or more that differ in more than case and punctuation"),
        ([OK], ["--labels", "A=yes", "B=Yes."], "give two or more that differ in more than case and punctuation"),
        ([OK], ["--labels", "A=B", "B=A"], 'the text of "A" is the name of "B"; give another'),
        ([OK], ["--labels", "+1", "-1"], "give two or more that differ in more than case and punctuation"),
        (
            [{**OK, "answers": ["red", "blue"]}],
            ["--labels", "red", "blue"],
            "has 2 gold answers; a classification has one",
        ),
        ([OK], ["--labels", "red", "blue", "--num-beams", "3"], "leave the generation options out"),
        ([OK], ["--labels", "red", "blue " * 200], "tokens, more than max_target"),
        ([OK], ["--abstain-below", "0.5"], "give a log-probability in nats, at most 0"),
        ([OK], ["--abstain-below", "nan"], "give a log-probability in nats, at most 0"),
        ([OK], ["--cite-at-least", "7"], "give a posterior above 0, at most 1"),
        ([OK], ["--baseline", "random", "--seed", "-1"], "seed is -1; give 0 to 2**32 - 1"),
        ([OK], ["--baseline", "stuffing"], "tokens, generator.max_input is 48"),
        ([{**OK, "answers": ["r.d"], "regex": True}], ["--task", "abstractive"], "has no gold text, which --task"),
        ([OK], ["--labels", "red", "=x"], "give each as NAME or NAME=TEXT"),
        ([OK], ["--labels"], "give two or more"),
        ([OK], ["--baseline", "gold"], 'question "a": none of its gold passages is in the index'),
        ([{**OK, "positive_ids": ["no"]}], [], "none of the 1 positive_ids of the questions is a passage of the index"),
        ([OK, OK], [], 'questions.jsonl:2: the id "a" occurs twice'),
        ([{"id": "a", "question": "what"}], [], "questions.jsonl:1: no answers"),
        ([{**OK, "answers": ["("], "regex": True}], [], "questions.jsonl:1: '(': not a regular expression"),
        ([], [], "holds no questions"),
        ([OK], ["--abstain-below", "-1", "--calibrate-on", "x"], "--abstain-below, or calibrate it"),
        ([OK], ["--calibrate-on", "nowhere"], "nowhere"),
        ([OK], ["--labels", "red", "blue", "--task", "abstractive"], "labels are chosen, not generated"),
        ([OK], ["--num-docs", "0"], "--num-docs is 0; give 1 or more"),
        ([OK], ["--num-docs", "999"], "cannot read K = 999 of 256 passages"),
        ([OK], ["--checkpoint", "x"], "name a --workdir, a --checkpoint or a file of --predictions, one of the three"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    trained, tmp_path: Path, capsys, rows: list, options: list, message: str
) -> None:
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    given = ("--workdir", trained[2], "--questions", tmp_path / "questions.jsonl", "--output", out)
    assert message in refused(capsys, *given, *options)
    assert not out.exists()


def test_options_of_a_model_are_refused_beside_predictions(tmp_path: Path, capsys) -> None:
    (tmp_path / "questions.jsonl").write_text(json.dumps(OK) + "\n")
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "answer": "red"}\n')
    given = ("--questions", tmp_path / "questions.jsonl", "--predictions", tmp_path / "answers.jsonl")
    given = (*given, "--output", tmp_path / "out")
    for option in (["--num-docs", "2"], ["--baseline", "gold"], ["--likelihood"], ["--system-prompt", "none"]):
        assert f"{option[0]} is for a model; leave it out beside --predictions" in refused(capsys, *given, *option)
    assert "generation options are for a model" in refused(capsys, *given, "--num-beams", "2")
    assert "some predictions have no log_prob" in refused(capsys, *given, "--figures")
    assert "answers.jsonl: some predictions have no log_prob" in refused(capsys, *given, "--abstain-below", "-1")
    assert not (tmp_path / "out").exists()
    cli.main(["evaluate", *map(str, given)])
    assert "exact match" in capsys.readouterr().out


def test_the_task_and_the_least_posterior_of_a_citation_are_followed(tmp_path: Path) -> None:
    read = [
        {"id": "n", "title": "Sudhof", "text": "Sudhof is blue .", "log_prior": -1, "posterior": 0.6},
        {"id": "m", "title": "Norburg", "text": "Norburg is red .", "log_prior": -1, "posterior": 0.4},
    ]
    write_jsonl(tmp_path / "questions.jsonl", [{**OK, "answers": ["red paint"]}])
    write_jsonl(tmp_path / "answers.jsonl", [{"id": "a", "answer": "red", "passages": read}])
    given = ("--questions", tmp_path / "questions.jsonl", "--predictions", tmp_path / "answers.jsonl")
    usual, abstractive, generation = (
        {name: each["value"] for name, each in evaluate(tmp_path / name, *given, *options)["figures"].items()}
        for name, options in (
            ("usual", ()),
            ("texts", ("--task", "abstractive", "--cite-at-least", 0.4)),
            ("questions", ("--task", "question-generation")),
        )
    )
    assert (usual["citation_recall"], usual["citation_precision"]) == (0, 0), "the likelier passage is of another town"
    assert (abstractive["citation_recall"], abstractive["citation_precision"]) == (1, 0.5)
    assert abstractive["rouge_l"] == pytest.approx(2 / 3)
    assert abstractive.keys() - usual.keys() >= {"rouge_l", "bleu_1", "corpus_bleu_1"}
    assert generation.keys() - abstractive.keys() == {"q_bleu_1"}


def test_a_run_does_not_leave_the_files_of_another_beside_its_own(trained, towns, tmp_path: Path) -> None:
    questions = read_questions(towns.data.evaluation)
    rows = [{"id": q.id, "answer": "red", "retrieved": [{"id": q.positive_ids[0]}]} for q in questions]
    write_jsonl(tmp_path / "with.jsonl", rows)
    write_jsonl(tmp_path / "without.jsonl", ({"id": row["id"], "answer": "blue"} for row in rows))
    out, given = tmp_path / "out", ("--questions", towns.data.evaluation)
    evaluate(out, *given, "--predictions", tmp_path / "with.jsonl", "--index", trained[2] / "index")
    assert (out / "run.trec").exists()
    evaluate(out, *given, "--predictions", tmp_path / "without.jsonl")
    assert not (out / "run.trec").exists()
    assert {line["answer"] for line in lines(out / "predictions.jsonl")} == {"blue"}


def test_the_pretrained_tower_is_not_in_a_checkpoint(tmp_path: Path, towns) -> None:
    command = EvaluateCommand(towns.data.evaluation, tmp_path / "out", checkpoint="x", baseline="pretrained-tower")
    with pytest.raises(InputError, match="which a checkpoint does not hold"):
        command.run()


def test_a_file_of_another_is_not_overwritten(trained, model, tmp_path: Path, capsys) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    line = refused(capsys, "--output", tmp_path, *model)
    assert "holds metrics.json, but no evaluation; choose another --output" in line
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
