"""Every experiment from its command to its files, on a small world and few steps; the runs are shared."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

import world
from rag_jax import hub
from rag_jax.commands.experiment import USAGE, experiment
from rag_jax.config.config import Config
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.generated_text import distinct_ngrams
from rag_jax.experiments import ablation, collapse, options, random_towers, refresh
from rag_jax.experiments.registry import EXPERIMENTS
from rag_jax.experiments.report import own_folder
from rag_jax.experiments.runs import Run, in_order, train
from rag_jax.experiments.setup import prepare
from rag_jax.pipeline.checkpoints import saved_host_state
from rag_jax.training.provenance import START

STEPS = 8
CONFIG = """import dataclasses
from pathlib import Path

import world

config = world.config(Path({world!r}))
config = dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, {data}),
    retriever=dataclasses.replace(config.retriever, {retriever}),
    generator=dataclasses.replace(config.generator, {generator}),
    {fields}
)
"""


class Files(NamedTuple):
    """The files of the experiments on the small world."""

    config: Path
    reader: Path
    closed_book: Path
    sentences: Path  # a config whose answers are sentences
    other_passages: Path
    other_questions: Path
    workdir: Path


@pytest.fixture(scope="module")
def files(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, data = tmp_path_factory.mktemp("small"), towns.data.passages.parent
    next_colour = dict(zip(world.COLOURS, (*world.COLOURS[1:], world.COLOURS[0]), strict=True))

    def write(name: str, **changes: str) -> Path:
        parts = {"data": "", "retriever": "", "generator": "", "fields": f"steps={STEPS},"} | changes
        (folder / name).write_text(CONFIG.format(world=str(data), **parts))
        return folder / name

    passages = [row for _, row in read_jsonl(towns.data.passages)]
    for row in passages:
        colour = row["text"].split()[-2]
        row["text"] = row["text"].replace(f" {colour} ", f" {next_colour[colour]} ")
    write_jsonl(folder / "other.jsonl", passages)
    questions = [row for _, row in read_jsonl(towns.data.evaluation)]
    described = [{**row, "answers": [f"the town {row['positive_ids'][0]} is {row['answers'][0]}"]} for row in questions]
    write_jsonl(folder / "sentences.jsonl", described)
    for row in questions:
        row["answers"] = [next_colour[row["answers"][0]]]
    write_jsonl(folder / "questions.jsonl", questions)
    sentences = f"train=Path({str(folder / 'sentences.jsonl')!r}), evaluation=Path({str(folder / 'sentences.jsonl')!r})"
    return Files(
        config=write("config.py"),
        reader=write("reader.py", retriever='mode="gold", num_docs=1'),
        closed_book=write("closed_book.py", data="passages=None"),
        sentences=write("sentences.py", data=sentences, generator="max_target=20, max_input=48"),
        other_passages=folder / "other.jsonl",
        other_questions=folder / "questions.jsonl",
        workdir=folder / "experiments",
    )


def run(name: str, files: Files, *options: object, workdir: Path | None = None) -> tuple[str, list[dict[str, str]]]:
    """Conduct an experiment; its Markdown, and the rows of its .csv."""
    where = workdir or files.workdir
    experiment([name, "--config", str(files.config), "--workdir", str(where), *map(str, options)])
    text, image = (where / name / f"{name}.md").read_text(), (where / name / f"{name}.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert f"rag-jax experiment {name} --config" in text
    with (where / name / f"{name}.csv").open(newline="") as file:
        return text, list(csv.DictReader(file))


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


def test_each_random_tower_has_a_folder_and_an_index_of_its_own(files: Files, tmp_path: Path) -> None:
    world.write_tower(tmp_path / "larger", max_positions=32)
    larger = tmp_path / "larger.py"
    larger.write_text(
        files.config.read_text().replace(
            "config.retriever, ", f"config.retriever, tower={str(tmp_path / 'larger')!r}, "
        )
    )
    made = []
    for config in (files.config, larger, files.config):
        first, *_ = refresh.plan(options.Refresh(str(config), workdir=tmp_path, every=4)).runs
        made.append((first.config.retriever.tower, first.config.data.index))
    assert made[0] == made[2]
    assert made[0][0] != made[1][0]
    assert made[0][1] != made[1][1]


@pytest.mark.extended
def test_a_random_tower_has_the_sizes_of_the_other(towns: Config, tmp_path: Path) -> None:
    known = hub.load_tower(towns.retriever.tower)
    random_towers.write_tower(tmp_path / "tower", known)
    random = hub.load_tower(tmp_path / "tower")
    assert random.config == known.config
    shapes = jax.tree.map(np.shape, known.params)
    assert jax.tree.map(np.shape, random.params) == shapes
    kernels = [tower.params["layer_0"]["up"]["kernel"] for tower in (known, random)]
    assert not np.allclose(*kernels)


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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "name an experiment; the experiments are ablation, k-sweep, "),
        (("ablations",), "no experiment 'ablations'; the experiments are ablation, k-sweep, "),
        (("ablation", "--seeds", "0"), "--seeds is 0; give 1 or more"),
        (("ablation", "--questions", "0"), "--questions is 0; give 1 or more"),
        (("ablation", "--closed-book", "CONFIG"), "config.py: reads passages; name a closed-book config as"),
        (("k-sweep", "--ks", "1", "257"), "--ks: 257 is more than the 256 passages of the index; give 1 to 256"),
        (("k-sweep", "--ks", "2", "2"), "--ks are 2 2; give different numbers of 1 or more"),
        (("hot-swap",), "name the second version of the world: --other-passages FILE and --other-questions FILE"),
        (("posterior",), 'ask a question: --question "What is the population of Lyon?"'),
        (("posterior", "--question", "x", "--num-docs", "999"), "--num-docs is 999, the index has 256 passages; give"),
        (("posterior", "--question", "x", "--model-workdir", "nowhere"), "leave --config and --reader out"),
        (("collapse", "--rate-factor", "1"), "--rate-factor is 1.0; give more than 1"),
        (("collapse", "--seeds", "2"), "Unrecognized options: --seeds"),
        (("distillation", "--objectives", "lsr", "lsr"), "--objectives are lsr lsr; give one or more, each once"),
        (("distillation", "--objectives"), "--objectives are empty; give one or more, each once"),
        (("refresh", "--every", "1"), f"--every is 1; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--every", "8"), f"--every is 8; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--every", "9"), f"--every is 9; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--contrastive-steps", "0"), "--contrastive-steps is 0; give 1 or more"),
        (("staleness", "--lags", "0", "-1"), "--lags are 0 -1; give different numbers of 0 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    files: Files, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    given = [each.replace("CONFIG", str(files.config)) for each in arguments]
    if given and given[0] in EXPERIMENTS:
        given += ["--config", str(files.config), "--workdir", str(tmp_path / "new")]
    with pytest.raises(InputError) as refused:
        experiment(given)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("passages=None", "closed book, and experiments need passages"),
        ("evaluation=None", "data.evaluation is not given"),
        ("train=None", "data.train is not given"),
    ],
)
def test_configs_that_cannot_be_measured_are_refused(files: Files, tmp_path: Path, change: str, line: str) -> None:
    config, data = tmp_path / "config.py", "dataclasses.replace(config.data, "
    config.write_text(files.config.read_text().replace(data, data + change))
    with pytest.raises(InputError, match=line):
        run("ablation", files._replace(config=config), workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_second_version_must_ask_for_something_else(files: Files, towns: Config, tmp_path: Path) -> None:
    same = "--other-passages", towns.data.passages, "--other-questions", towns.data.evaluation
    with pytest.raises(InputError, match=r"test.jsonl: no question of data.evaluation has another answer there; give"):
        run("hot-swap", files, *same, workdir=tmp_path / "new")


def test_a_foreign_folder_and_a_run_of_another_config_are_refused(files: Files, trained, tmp_path: Path) -> None:
    (tmp_path / "thesis.md").write_text("text")
    with pytest.raises(InputError, match=r"holds thesis.md, but no experiments; choose another --workdir"):
        run("collapse", files, workdir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.md"]
    workdir = tmp_path / "experiments"
    own_folder(workdir).claim()
    shutil.copytree(trained[2], workdir / "runs" / "token-trained-0")
    with pytest.raises(InputError, match=r"runs/token-trained-0/config.json: belongs to a run with another config"):
        run("k-sweep", files._replace(config=files.sentences), "--seeds", 1, "--ks", 1, workdir=workdir)


def test_a_finished_run_is_not_reused_for_another_model(
    towns: Config, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, data = tmp_path / "run", towns.data
    shutil.copytree(trained[2], workdir)
    train(Run("it", towns, workdir))

    text = data.train.read_text()
    (tmp_path / "train.jsonl").write_text(text.replace('"red"', '"RED"'))
    other = dataclasses.replace(towns, data=dataclasses.replace(data, train=tmp_path / "train.jsonl"))
    with pytest.raises(InputError, match=r"run: trained with other training questions \(.*train\.jsonl\); give those"):
        train(Run("it", other, workdir))
    started = dataclasses.replace(towns, start_from=trained[2])
    with pytest.raises(InputError, match=r"run: trained with other parameters to start from \(.*run\); give those"):
        train(Run("it", started, workdir))
    with pytest.raises(InputError, match=r"nowhere: no checkpoint there"):
        train(Run("it", dataclasses.replace(towns, start_from=tmp_path / "nowhere"), workdir))
    with pytest.raises(InputError, match=r"run: trained with other training questions"):
        train(Run("next", started, tmp_path / "next", before=(Run("it", other, workdir),)))
    assert not (tmp_path / "next").exists()

    state = saved_host_state(workdir)
    assert state is not None
    began = state | {"made_of": state["made_of"] | {START: "of another run"}}
    monkeypatch.setattr("rag_jax.training.run.saved_host_state", lambda workdir: began)
    with pytest.raises(InputError, match=r"run: trained with other parameters to start from; give those"):
        train(Run("it", towns, workdir))


def test_an_index_of_the_users_own_is_not_changed(files: Files, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    own = f"dataclasses.replace(config.data, index=Path({str(tmp_path / 'index')!r})"
    config.write_text(files.config.read_text().replace("dataclasses.replace(config.data, ", own))
    with pytest.raises(
        InputError, match=r"index: has no exact index of FAISS; build one with rag-jax index --out .* --faiss Flat"
    ):
        run("staleness", files._replace(config=config), workdir=tmp_path / "new")


def test_usage_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    experiment(["--help"])
    assert capsys.readouterr().out == USAGE + "\n"
    assert all(f"\n  {name} " in USAGE for name in EXPERIMENTS)
    assert all(dataclasses.is_dataclass(each.options) for each in EXPERIMENTS.values())
