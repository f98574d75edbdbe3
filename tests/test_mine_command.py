"""`rag-jax mine`, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest

from rag_jax.commands.index import index, question_encoder
from rag_jax.commands.mine import mine
from rag_jax.config.config import Config
from rag_jax.contrastive.negatives import read_negatives, resolve
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import Question, read_questions
from rag_jax.errors import report_errors
from rag_jax.index.store import Store, open_store

NORM = 4.0


@pytest.fixture(scope="module")
def folder(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the towns by their tower."""
    out = tmp_path_factory.mktemp("mine") / "index"
    options = ["--tower", towns.retriever.tower, "--max-length", "16", "--template", "{title}", "--norm", str(NORM)]
    index([str(towns.data.passages), "--out", str(out), *options, "--bm25"])
    return out


@pytest.fixture
def asked(towns: Config, tmp_path: Path) -> Path:
    """Questions about eight towns; the answers are their colours."""
    rows = (question._asdict() for question in read_questions(str(towns.data.evaluation))[:8])
    write_jsonl(tmp_path / "questions.jsonl", rows)
    return tmp_path / "questions.jsonl"


def run(capsys, *arguments: object) -> str:
    """What the command prints."""
    capsys.readouterr()
    mine([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended, report_errors():
        mine([str(argument) for argument in arguments])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = (each for each in said.err.splitlines() if not each.startswith("mining:"))
    return line


def hardest(store: Store, scores: np.ndarray, question: Question, count: int) -> list[str]:
    """The best-scoring towns of another colour."""
    ranked = [store.passages[row] for row in np.argsort(-scores, kind="stable").tolist()]
    wrong = [passage.id for passage in ranked if f" {question.answers[0]} " not in passage.text]
    return wrong[:count]


def test_the_tower_s_hard_negatives_are_its_best_passages_of_another_colour(towns, folder, asked, capsys) -> None:
    output, questions = asked.with_name("negatives.jsonl"), read_questions(asked)
    options = ("--engine", "device", "--depth", 40, "--negatives", 3)
    said = run(capsys, asked, "--index", folder, "--output", output, *options)
    assert said.startswith(
        "8 questions with 3.00 hard negatives on average; passages ranked before them and left out: "
    )
    assert said.endswith(f"Questions with fewer than 3: 0.\nNext: rag-jax train CONFIG --data.negatives {output}\n")
    store = open_store(folder, None, None)
    assert store.manifest is not None
    vectors = question_encoder(store)([question.question for question in questions])
    scores = vectors @ store.passage_vectors.whole.T
    for line, question, own in zip(output.read_text().splitlines(), questions, scores, strict=True):
        row = json.loads(line)
        assert row["id"] == question.id
        assert row["negative_ids"] == hardest(store, own, question, 3)
        np.testing.assert_allclose(row["scores"], own[store.find(row["negative_ids"])], rtol=1e-5)
        if row["positive_score"] is not None:
            np.testing.assert_allclose(row["positive_score"], own[store.find(question.positive_ids)].max(), rtol=1e-5)
    negatives = read_negatives(output, questions)
    assert all(len(rows) == 3 for rows in resolve(questions, negatives, store, output).values())
    run(capsys, asked, "--index", folder, "--output", asked.with_name("again.jsonl"), *options)
    assert asked.with_name("again.jsonl").read_bytes() == output.read_bytes()


def test_passages_that_hold_an_answer_are_kept_where_that_is_asked_for(towns, folder, asked, capsys) -> None:
    output, questions, store = asked.with_name("kept.jsonl"), read_questions(asked), open_store(folder, None, None)
    options = ("--engine", "device", "--depth", 40, "--negatives", 3, "--keep-answers")
    assert "hold an answer" not in run(capsys, asked, "--index", folder, "--output", output, *options)
    scores = question_encoder(store)([question.question for question in questions]) @ store.passage_vectors.whole.T
    kept = [json.loads(line)["negative_ids"] for line in output.read_text().splitlines()]
    ranked = [[store.passages[row].id for row in np.argsort(-own, kind="stable").tolist()] for own in scores]
    pairs = zip(questions, ranked, strict=True)
    assert kept == [[town for town in towns if town not in question.positive_ids][:3] for question, towns in pairs]
    assert kept != [hardest(store, own, question, 3) for own, question in zip(scores, questions, strict=True)]


def test_bm25_finds_passages_with_the_words_of_the_question(folder, asked, capsys) -> None:
    # A town's name is in its own passage only: nothing else shares a word with "what colour is Norburg".
    output = asked.with_name("negatives.jsonl")
    line = refused(capsys, asked, "--index", folder, "--output", output)
    assert line.startswith("error: no hard negatives for any of 8 questions; raise the depth")
    assert not output.exists()
    rows = [question._replace(question=f"{question.question} painted") for question in read_questions(asked)]
    write_jsonl(asked, (question._asdict() for question in rows))
    said = run(capsys, asked, "--index", folder, "--output", output, "--relative-margin", "0.9", "--skip", 1)
    assert "8 gold, 8 skipped" in said
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(len(row["negative_ids"]) == 10 and max(row["scores"]) <= 0.9 * row["positive_score"] for row in lines)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--negatives", 0), "0 negatives are none; ask for 1 or more"),
        (("--depth", 5), "a ranking of 5 passages does not hold 10 negatives; raise the depth"),
        (("--depth", 257), "a ranking of 257 passages of 256 in the index; lower the depth"),
        (("--margin", -1), "the margin is -1.0; give a finite number of at least 0"),
        (("--tower", "x"), "--engine bm25 searches without vectors; leave --tower out"),
        (
            ("--question-template", "{question}"),
            "--engine bm25 searches without vectors; leave --question-template out",
        ),
        (("--engine", "device", "--tower", "x", "--workdir", "y"), "--tower and --workdir are two question towers"),
        (
            ("--engine", "faiss", "--precision", "int8"),
            "--engine faiss searches no vectors on the device; leave --precision int8 out",
        ),
        (("--engine", "google"), "rag-jax mine --help lists all options"),
        (("--index", "nowhere"), "nowhere/manifest.json: no knowledge store there"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(folder, asked, capsys, options, what: str) -> None:
    output = asked.with_name("negatives.jsonl")
    line = refused(capsys, asked, "--index", folder, "--output", output, *options)
    assert line.startswith("error: ")
    assert what in line
    assert not output.exists()


def test_an_index_without_the_engine_is_refused(folder, asked, capsys) -> None:
    line = refused(capsys, asked, "--index", folder, "--output", asked.with_name("n.jsonl"), "--engine", "faiss")
    assert line == f"error: {folder}: has no index of FAISS; build one with rag-jax index --out DIR --faiss HNSW32"


def test_questions_without_gold_passages_and_existing_files_are_refused(folder, asked, capsys) -> None:
    output, questions = asked.with_name("negatives.jsonl"), read_questions(asked)
    write_jsonl(asked, (question._replace(positive_ids=())._asdict() for question in questions))
    line = refused(capsys, asked, "--index", folder, "--output", output)
    assert line.startswith(f'error: {asked}: "{questions[0].id}" has no positive_ids: a passage that is right')
    output.write_text("mine\n")
    line = refused(capsys, asked, "--index", folder, "--output", output)
    assert line == f"error: {output}: exists already; choose another name, or delete it: nothing is overwritten"
    assert output.read_text() == "mine\n"
