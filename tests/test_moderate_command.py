"""`rag-jax moderate`, as it is typed; the model names the colours of towns, which are the categories."""

import json

import numpy as np
import pytest

from rag_jax.commands.moderate import moderate
from rag_jax.data.questions import read_questions
from rag_jax.errors import report_errors
from rag_jax.moderation import report
from world import COLOURS


@pytest.fixture
def files(towns, tmp_path):
    """Texts with their categories, and the categories: every colour but the first is moderated."""
    rows = [{"id": each.id, "text": each.question, "label": each.answers[0]} for each in questions(towns)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    moderated = [{"name": name, "threshold": 0.3, "policy": "flag"} for name in COLOURS[1:]]
    (tmp_path / "categories.json").write_text(json.dumps({"moderated": moderated, "acceptable": COLOURS[0]}))
    return tmp_path


def _without_ids(path):
    kept = [{**json.loads(line), "id": None} for line in path.read_text().splitlines()]
    return "".join(json.dumps({key: value for key, value in row.items() if key != "id"}) + "\n" for row in kept)


def questions(towns):
    return read_questions(towns.data.evaluation)[:20]


def run(files, trained, *more: object, texts: str = "texts.jsonl", output: str = "out"):
    asked = [files / texts, "--output", files / output, "--categories", files / "categories.json"]
    with report_errors():
        moderate([str(each) for each in [*asked, "--workdir", trained[2], *more]])


def rows(files, output="out"):
    return [json.loads(line) for line in (files / output / "decisions.jsonl").read_text().splitlines()]


def test_it_writes_decisions_figures_and_the_curve(files, trained, towns, capsys, monkeypatch):
    drawings, as_png = [], report.as_png
    monkeypatch.setattr(report, "as_png", lambda drawing: drawings.append(drawing) or as_png(drawing))
    run(files, trained)
    found, labels = rows(files), [each.answers[0] for each in questions(towns)]
    assert [row["id"] for row in found] == [each.id for each in questions(towns)]
    metrics = json.loads((files / "out" / "metrics.json").read_text())
    flagged = np.array([row["policy"] == "flag" for row in found])
    positive = np.array(labels) != COLOURS[0]
    assert metrics["figures"]["precision"]["value"] == pytest.approx((flagged & positive).sum() / flagged.sum())
    assert metrics["figures"]["recall"]["value"] == pytest.approx((flagged & positive).sum() / positive.sum())
    assert metrics["figures"]["accuracy"]["value"] == pytest.approx((flagged == positive).mean())
    assert metrics["policies"] == {"flag": int(flagged.sum()), "pass": int((~flagged).sum())}
    assert metrics["figures"][f"{COLOURS[1]}: recall"]["questions"] == 20
    assert (files / "out" / "thresholds.png").read_bytes().startswith(b"\x89PNG")
    check_curve(drawings[0].axes[0], positive, 1 - np.array([row["probabilities"][COLOURS[0]] for row in found]))
    assert "| precision |" in (files / "out" / "table.md").read_text()
    printed = capsys.readouterr().out
    assert f"20 texts: {int((~flagged).sum())} passed, {int(flagged.sum())} flagged, 0 blocked." in printed


def check_curve(axes, positive, score):
    """At each threshold, precision and recall of the texts whose score reaches it."""
    precision, recall, f1 = axes.lines
    assert [line.get_label() for line in axes.lines] == ["precision", "recall", "F1"]
    assert precision.get_xdata().tolist() == recall.get_xdata().tolist() == sorted({*score.tolist()})
    for at, threshold in enumerate(precision.get_xdata()):
        detected = score >= threshold
        hits = (detected & positive).sum()
        assert precision.get_ydata()[at] == pytest.approx(hits / detected.sum())
        assert recall.get_ydata()[at] == pytest.approx(hits / positive.sum())
        assert f1.get_ydata()[at] == pytest.approx(2 * hits / (detected.sum() + positive.sum()))


@pytest.mark.extended
def test_the_same_command_resumes_and_ends_alike(files, trained):
    run(files, trained)
    whole = (files / "out" / "decisions.jsonl").read_text()
    kept = "".join(line.replace('"role": "question"', '"role": "kept"') + "\n" for line in whole.splitlines()[:7])
    (files / "out" / "decisions.jsonl").write_text(kept)
    run(files, trained)
    assert [row["role"] for row in rows(files)] == ["kept"] * 7 + ["question"] * 13, "the others are not judged again"
    for again, before in zip(rows(files), map(json.loads, whole.splitlines()), strict=True):
        assert again["id"] == before["id"]
        assert again["probability"] == pytest.approx(before["probability"], abs=1e-5)


def test_texts_without_labels_are_decided_without_figures(files, trained, towns):
    (files / "bare.jsonl").write_text("".join(json.dumps({"text": each.question}) + "\n" for each in questions(towns)))
    run(files, trained, "--role", "passage", texts="bare.jsonl")
    assert [row["role"] for row in rows(files)] == ["passage"] * 20
    metrics = json.loads((files / "out" / "metrics.json").read_text())
    assert (metrics["role"], metrics["figures"]) == ("passage", {})
    assert not (files / "out" / "thresholds.png").exists()


@pytest.mark.extended
def test_labels_of_another_scheme_are_acceptable_or_not(files, trained, towns):
    labels = ["ok" if each.answers[0] == COLOURS[0] else "bad" for each in questions(towns)]
    texts = [{"text": each.question, "label": label} for each, label in zip(questions(towns), labels, strict=True)]
    (files / "binary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    run(files, trained, "--acceptable-label", "ok", texts="binary.jsonl")
    run(files, trained, output="named")
    named, binary = (json.loads((files / out / "metrics.json").read_text())["figures"] for out in ("named", "out"))
    assert binary["recall"] == named["recall"]
    assert not any(":" in name for name in binary)


@pytest.mark.extended
def test_calibration_is_fitted_to_other_texts(files, trained, towns, capsys):
    more = read_questions(towns.data.train)[:64]
    lines = [json.dumps({"text": each.question, "label": each.answers[0]}) + "\n" for each in more]
    (files / "more.jsonl").write_text("".join(lines))
    (files / "both.jsonl").write_text("".join(lines) + _without_ids(files / "texts.jsonl"))
    run(files, trained, "--calibrate-on", files / "more.jsonl")
    run(files, trained, output="before")
    assert rows(files)[0]["probability"] != pytest.approx(rows(files, "before")[0]["probability"], abs=1e-6)
    assert "too good" not in capsys.readouterr().err
    run(files, trained, "--calibrate-on", files / "both.jsonl", output="itself")
    assert "has 20 of the texts that are moderated, so their figures are too good" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--acceptable-label", "safe"], "--acceptable-label is 'safe', which no text has"),
        (["--tower", "x"], "--tower is for a --generator; leave it out"),
        (["--closed-book"], "--closed-book is for a --checkpoint without an index; leave it out"),
        (["--batch-size", "0"], "--batch-size is 0; give 1 or more"),
        (["--generator", "x"], "name a --workdir, a --checkpoint or a --generator, one of the three"),
        (["--calibrate-on", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--role", "reader"], "invalid choice 'reader' for argument '--role'"),
        (["--categories", "missing.json"], "missing.json: no such file"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(files, trained, capsys, more, told):
    with pytest.raises(SystemExit) as stopped:
        run(files, trained, *more)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (files / "out").exists()


def test_a_label_outside_the_categories_is_refused(files, trained, capsys):
    (files / "odd.jsonl").write_text(json.dumps({"text": "what colour is Norburg", "label": "pink"}) + "\n")
    with pytest.raises(SystemExit):
        run(files, trained, texts="odd.jsonl")
    assert "label 'pink' is not one of the categories red, blue" in capsys.readouterr().err


def test_a_file_that_is_labelled_in_part_is_refused(files, trained, capsys):
    rows = [{"text": "what colour is Norburg", "label": "red"}, {"text": "what colour is Goldau"}]
    (files / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit):
        run(files, trained, texts="part.jsonl")
    assert "part.jsonl:2: some texts have a label, others none" in capsys.readouterr().err


def test_a_folder_of_other_things_is_refused(files, trained, capsys):
    (files / "out").mkdir()
    (files / "out" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        run(files, trained)
    assert "holds notes.txt, but no moderation; choose another --output" in capsys.readouterr().err
