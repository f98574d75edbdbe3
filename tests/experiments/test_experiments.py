"""Every experiment from its command to its files, on a small world and few steps; the runs are shared."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from experiment_files import STEPS, Files, run
from rag_jax.commands.experiment import USAGE, experiment
from rag_jax.data.jsonl import read_jsonl
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.generated_text import distinct_ngrams
from rag_jax.experiments import ablation, collapse, options, refresh
from rag_jax.experiments.registry import EXPERIMENTS
from rag_jax.experiments.report import own_folder
from rag_jax.experiments.runs import in_order
from rag_jax.experiments.setup import prepare


@pytest.mark.slow
def test_the_ablation_compares_retrievers_and_bounds(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "MODELS", {"token": "RAG-Token"})  # the other one is trained by another test
    stages = "--reader", files.reader, "--closed-book", files.closed_book
    text, rows = run("ablation", files, *stages, "--seeds", 1, "--questions", 16)
    names = ["BM25", "frozen", "trained", "random passages", "gold passages"]
    expected = [("RAG-Token", name) for name in names]
    assert [(row["model"], row["passages"]) for row in rows] == [*expected, ("no passages", "closed book")]
    assert all(0 <= float(row["lowest seed"]) <= float(row["exact match"]) <= 1 for row in rows)
    assert "questions: 16; seeds: 1" in text
    assert f"token-bm25-0: {STEPS} steps of 16 questions" in text
    saved = json.loads((files.workdir / "runs/token-trained-0/config.json").read_text())
    assert saved["start_from"].endswith("runs/reader-0")


@pytest.mark.extended
def test_runs_are_shared_and_not_trained_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "--reader", files.reader, "--seeds", 1, "--questions", 8
    text, rows = run("k-sweep", files, *given, "--ks", 1, 5)
    assert [(row["model"], row["K"]) for row in rows] == [(m, k) for m in ("RAG-Token", "RAG-Sequence") for k in "15"]
    monkeypatch.setattr("rag_jax.training.run.train", None)  # the loop
    recalls = [float(row["answer recall@K"]) for row in rows[:2]]
    assert recalls == sorted(recalls)
    assert "RAG-Token is best at K = " in text

    question = "what colour is Norburg"
    text, rows = run("posterior", files, "--reader", files.reader, "--question", question)
    tokens = {int(row["token"]) for row in rows}
    for token in tokens:
        of_token = [float(row["posterior"]) for row in rows if int(row["token"]) == token]
        assert len(of_token) == 5
        assert sum(of_token) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_collapse_reads_the_monitors(files: Files) -> None:
    text, rows = run("collapse", files, "--reader", files.reader)
    assert list(dict.fromkeys(row["run"] for row in rows)) == [collapse.HEALTHY, collapse.FAST, collapse.UNREAD]
    assert [int(row["step"]) for row in rows if row["run"] == collapse.HEALTHY] == list(range(1, STEPS + 1))
    assert "seeds: 1" in text
    assert "collapse-rate-100-0: " in text


def test_the_runs_that_are_to_collapse_differ_in_one_thing_each(files: Files) -> None:
    setup = prepare(options.Collapse(str(files.config), str(files.reader), files.workdir))
    healthy, fast, unread = collapse.named_runs(setup, 100.0).values()
    optimizer = healthy.config.optimizer
    faster = dataclasses.replace(optimizer, tower_learning_rate=100 * optimizer.tower_learning_rate)
    assert fast.config == dataclasses.replace(healthy.config, optimizer=faster)
    assert healthy.config.start_from == files.workdir / "runs" / "reader-0"
    assert unread.config == dataclasses.replace(healthy.config, start_from=None)


def test_seeds_follow_the_configs_and_each_starts_from_its_own_reader(files: Files) -> None:
    setup = prepare(options.Ablation(str(files.config), str(files.reader), files.workdir, seeds=2))
    found = {run.name: run.config for run in in_order(ablation.runs(setup))}
    names = [f"{m}-{r}" for m in ("token", "sequence") for r in ("bm25", "frozen", "trained")]
    assert sorted(found) == sorted(f"{name}-{seed}" for name in ("reader", *names) for seed in (0, 1))
    for name, config in found.items():
        seed = int(name[-1])
        assert config.seed == setup.config.seed + seed
        if not name.startswith("reader"):
            assert config.start_from == files.workdir / "runs" / f"reader-{seed}"
    assert found["token-bm25-0"].retriever.engine == "bm25"
    assert found["token-frozen-0"].retriever.mode == "frozen"


@pytest.mark.extended
def test_staleness_trains_with_a_lag(files: Files) -> None:
    _, rows = run("staleness", files, "--reader", files.reader, "--seeds", 1, "--lags", 4)
    assert [row["lag"] for row in rows] == ["4"]
    assert all(float(row["seconds per step"]) > 0 and float(row["loss"]) > 0 for row in rows)
    saved = json.loads((files.workdir / "runs/staleness-4-0/config.json").read_text())["retriever"]
    assert (saved["engine"], saved["staleness"]) == ("faiss", 4)


@pytest.mark.slow
def test_distillation_compares_the_objectives_with_the_likelihood(files: Files) -> None:
    text, rows = run("distillation", files, "--reader", files.reader, "--seeds", 1, "--objectives", "pdist", "adist")
    token, fid = "RAG-Token", "Fusion-in-Decoder"
    named = [("frozen", token), ("frozen", fid), ("likelihood", token), ("pdist", token), ("adist", fid)]
    assert [(row["objective"], row["model"]) for row in rows] == named
    assert all(0 <= float(row["recall@1"]) <= 1 and float(row["seconds per step"]) > 0 for row in rows)
    assert [row["p against the likelihood"] == "" for row in rows] == [False, False, True, False, False]
    assert [row["p against frozen"] == "" for row in rows] == [True, True, False, False, False]
    assert "pdist: " in text
    saved = json.loads((files.workdir / "runs/distillation-pdist-0/config.json").read_text())
    assert (saved["model"], saved["retriever"]["distillation"]["objective"]) == ("token", "pdist")
    saved = json.loads((files.workdir / "runs/distillation-adist-0/config.json").read_text())
    assert saved["start_from"].endswith("runs/fid-reader-0")
    frozen = json.loads((files.workdir / "runs/fid-frozen-0/config.json").read_text())
    assert frozen["start_from"] == saved["start_from"]


@pytest.mark.extended
def test_refresh_trains_both_towers_from_random_weights(files: Files) -> None:
    text, rows = run("refresh", files, "--reader", files.reader, "--seeds", 1, "--every", 4)
    assert re.search(r"random towers after 10 contrastive steps, whose recall@1 is 0\.\d{3}\.", text)
    assert [row["index"] for row in rows] == [refresh.FROZEN, refresh.SHARE, refresh.ALL]
    frozen, share, at_once = rows
    assert frozen["oldest vector"] == frozen["mean age"] == ""
    assert (float(share["oldest vector"]), float(share["mean age"])) == (3, 1.5)
    assert float(at_once["oldest vector"]) == 3
    assert float(frozen["TFLOP per step"]) < float(share["TFLOP per step"])
    workdir = files.workdir / "runs" / "scratch-10-refresh-4-0"
    saved = json.loads((workdir / "config.json").read_text())
    (tower,) = files.workdir.glob("random-tower-*-10-steps/towers")
    assert (saved["retriever"]["tower"], saved["retriever"]["passage_tower"]) == (str(tower), None)
    assert saved["data"]["index"] == str(tower.with_name("index"))
    assert saved["start_from"].endswith("runs/scratch-10-reader-0")
    assert (workdir / "refreshed_index").is_dir()


@pytest.mark.extended
def test_a_trained_model_answers_from_the_index_that_it_has(files: Files, trained, tmp_path: Path) -> None:
    """The run of the session's model stands in for that of the experiment, whose config is the same but for steps."""
    config, workdir = tmp_path / "config.py", tmp_path / "experiments"
    config.write_text(files.config.read_text().replace(f"steps={STEPS},", ""))
    own_folder(workdir).claim()
    shutil.copytree(trained[2], workdir / "runs" / "token-trained-0")
    shutil.copytree(trained[2] / "index", workdir / "index")
    other = "--other-passages", files.other_passages, "--other-questions", files.other_questions
    text, rows = run("hot-swap", files._replace(config=config), *other, "--seeds", 1, workdir=workdir)
    cells = {(row["index"], row["answers of"]): float(row["exact match"]) for row in rows}
    assert min(cells["A", "A"], cells["B", "B"]) > 0.5 > max(cells["A", "B"], cells["B", "A"])
    assert "of 32 questions" in text.lower()


@pytest.mark.slow
def test_diversity_needs_texts_and_measures_them(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test.jsonl: answers of 1.0 words on average; give a task with texts of"):
        run("diversity", files, workdir=tmp_path / "short")
    assert not (tmp_path / "short").exists()
    sentences = files._replace(config=files.sentences)
    text, rows = run("diversity", sentences, "--seeds", 1, "--questions", 8, workdir=tmp_path / "texts")
    assert [row["text"] for row in rows] == ["gold", "RAG-Sequence", "RAG-Token", "closed book"]
    texts = [row["answers"][0] for _, row in read_jsonl(files.sentences.with_suffix(".jsonl"))][:8]
    assert float(rows[0]["distinct trigrams"]) == pytest.approx(distinct_ngrams(texts))
    assert "asked without its passages" in text


@pytest.mark.extended
def test_a_report_that_was_changed_is_not_replaced(files: Files) -> None:
    given = "--reader", files.reader, "--question", "what colour is Norburg"
    run("posterior", files, *given)
    run("posterior", files, *given)
    report = files.workdir / "posterior" / "posterior.md"
    report.write_text("my notes")
    with pytest.raises(InputError, match=r"posterior.md: not written by this command, or changed since; move it"):
        run("posterior", files, *given)
    assert report.read_text() == "my notes"


def test_usage_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    experiment(["--help"])
    assert capsys.readouterr().out == USAGE + "\n"
    assert all(f"\n  {name} " in USAGE for name in EXPERIMENTS)
    assert all(dataclasses.is_dataclass(each.options) for each in EXPERIMENTS.values())
