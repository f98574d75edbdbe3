"""The `rag-jax` command."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rag_jax
from interruptions import stream_until
from rag_jax import cli
from rag_jax.config.generation import GenerationConfig
from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.evaluation import figures
from rag_jax.pipeline.answers import Answer, SearchResult
from rag_jax.pipeline.inference import Inference
from rag_jax.rag import RAG


def test_answer_prints_answer_probability_and_passages(trained, capsys) -> None:
    rag, _, workdir = trained
    cli.main(["answer", "what colour is Norburg", "--workdir", str(workdir)])
    printed = capsys.readouterr().out
    (expected,) = rag.answer(["what colour is Norburg"])
    assert expected.text in printed
    assert f"log p(y|x) = {expected.log_prob:.4f}" in printed
    for passage in expected.passages:
        assert f"{passage.posterior:.3f}" in printed
        assert passage.text in printed


@pytest.mark.extended
def test_n_best_answers_are_printed_one_below_the_other(trained, capsys) -> None:
    rag, _, workdir = trained
    cli.main(["answer", "what colour is Norburg", "--workdir", str(workdir), "--num-beams", "3", "--n-best", "3"])
    printed = capsys.readouterr().out
    (expected,) = rag.answer(["what colour is Norburg"], num_beams=3, n_best=3)
    places = [printed.index(f"{each.log_prob:.4f}") for each in (expected, *expected.alternatives)]
    assert places == sorted(places)
    assert f"{ASKED}   best first, by score" in printed
    scores = [f"score = {each.score:.4f}" for each in (expected, *expected.alternatives)]
    assert [printed.index(score) for score in scores] == sorted(printed.index(score) for score in scores)
    for options, order in (
        (["--labels", "red", "blue"], "best first, by log p(y|x)"),
        (["--do-sample", "--n-best", "2"], "in the order drawn"),
    ):
        cli.main(["answer", ASKED, "--workdir", str(workdir), *options])
        assert f"{ASKED}   {order}" in capsys.readouterr().out


def test_a_file_of_questions_becomes_a_file_of_answers(trained, tmp_path: Path, capsys) -> None:
    rag, _, workdir = trained
    asked = {"a": "what colour is Norburg", "b": "what colour is Sudhof", "3": "what colour is Westal"}
    write_jsonl(tmp_path / "asked.jsonl", ({"id": name, "question": text} for name, text in asked.items()))
    options = ["--num-beams", "2", "--n-best", "2", "--num-docs", "3"]
    files = ["--file", str(tmp_path / "asked.jsonl"), "--output", str(tmp_path / "answers.jsonl")]
    cli.main(["answer", "--workdir", str(workdir), *files, *options])
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(line["id"], line["question"]) for line in lines] == list(asked.items())
    for line, answer in zip(lines, rag.answer(list(asked.values()), num_beams=2, n_best=2, num_docs=3), strict=True):
        assert line["answer"] == answer.text
        assert line["tokens"] == answer.tokens
        assert line["log_prob"] == pytest.approx(answer.log_prob, rel=1e-4)
        assert line["score"] == pytest.approx(answer.score, rel=1e-4)
        assert [passage["id"] for passage in line["passages"]] == [passage.id for passage in answer.passages]
        assert np.shape(line["token_posteriors"]) == (3, len(answer.tokens))
        assert [each["answer"] for each in line["alternatives"]] == [each.text for each in answer.alternatives]


def test_labels_are_ranked(trained, tmp_path: Path) -> None:
    rag, _, workdir = trained
    output = ["--output", str(tmp_path / "answers.jsonl")]
    cli.main(["answer", "what colour is Norburg", "--workdir", str(workdir), *output, "--labels", "red", "blue"])
    (line,) = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert line["answer"] == rag.choose(["what colour is Norburg"], ["red", "blue"])[0].text
    assert {line["answer"], line["alternatives"][0]["answer"]} == {"red", "blue"}


def asked_and_answered(workdir: Path, folder: Path, count: int = 40) -> list[str]:
    """A command that answers a file of questions, of two lengths, so that they do not come in the order of the file."""
    towns = ("Norburg", "Sudhof", "Westal")
    texts = [f"what colour is {' old' * (number % 3)} {towns[number % 3]}" for number in range(count)]
    write_jsonl(folder / "asked.jsonl", ({"id": f"q{n}", "question": text} for n, text in enumerate(texts)))
    files = ["--file", str(folder / "asked.jsonl"), "--output", str(folder / "answers.jsonl")]
    return ["answer", "--workdir", str(workdir), *files, "--do-sample", "--temperature", "9", "--batch-size", "4"]


def ends(arguments: list[str], capsys) -> tuple[int, str]:
    """How a command ends: the exit code, and what it says last."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    return int(stopped.value.code or 0), capsys.readouterr().err.splitlines()[-1]


def test_an_interrupted_command_keeps_its_answers_and_resumes_to_the_same_ones(
    trained, tmp_path: Path, monkeypatch, capsys
) -> None:
    command, output = asked_and_answered(trained[2], tmp_path), tmp_path / "answers.jsonl"
    cli.main(command)
    whole = output.read_text()
    output.unlink()
    interrupted = stream_until(10)
    for kept in (10, 20):
        with monkeypatch.context() as patched:
            patched.setattr(RAG, "stream", interrupted)
            code, said = ends(command, capsys)
        assert code == 130
        assert said == f"interrupted: {kept} of 40 answers are in {output}; run the same command to resume"
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(lines) == kept
    code, said = ends([*command, "--seed", "1"], capsys)
    assert (code, said.partition("; ")[0]) == (
        2,
        f"error: {output}:1: exists already, and is not from this command with these questions, options and model",
    )
    output.write_text(output.read_text() + output.read_text().splitlines()[0][:50])  # killed while it wrote a line
    cli.main(command)
    again, straight = ([json.loads(line) for line in text.splitlines()] for text in (output.read_text(), whole))
    assert [line["id"] for line in again] == [f"q{number}" for number in range(40)]
    assert [line["answer"] for line in again] == [line["answer"] for line in straight], "samples too"
    assert len({line["answer"] for line in straight}) > 1
    monkeypatch.setattr(Inference, "_retrieve", None)  # nothing is left to be answered
    before = output.read_bytes()
    cli.main(command)
    assert output.read_bytes() == before


def test_answers_overwrite_nothing(trained, tmp_path: Path, capsys) -> None:
    _, _, workdir = trained
    command = asked_and_answered(workdir, tmp_path, 1)
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "thesis.txt")
    places = [tmp_path / "thesis.txt", tmp_path / "link", tmp_path / "asked.jsonl", workdir / "config.json"]
    places += [workdir / "new.jsonl", workdir / "index" / "new.jsonl", Path("/dev/stdout"), tmp_path]
    before = [(tmp_path / name).read_bytes() for name in ("thesis.txt", "asked.jsonl")]
    config = (workdir / "config.json").read_bytes()
    for place in places:
        code, said = ends([*command, "--output", str(place)], capsys)
        assert code == 2
        assert said.startswith(f"error: {place}")
    assert [(tmp_path / name).read_bytes() for name in ("thesis.txt", "asked.jsonl")] == before
    assert (workdir / "config.json").read_bytes() == config
    assert not (workdir / "new.jsonl").exists()


@pytest.mark.extended
def test_a_long_question_of_a_file_is_named_by_its_id_or_cut(trained, tmp_path: Path, capsys) -> None:
    write_jsonl(tmp_path / "asked.jsonl", [{"id": "a", "question": ASKED}, {"id": "b", "question": f"{ASKED} old" * 9}])
    command = ["answer", "--workdir", str(trained[2]), "--file", str(tmp_path / "asked.jsonl")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(command)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith(f"error: question 'b' ({ASKED} old")
    assert said.count("\n") == 1
    cli.main([*command, "--output", str(tmp_path / "answers.jsonl"), "--long-questions", "cut"])
    assert "warning: 1 of 2 questions are cut to 16 tokens" in capsys.readouterr().err
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


def test_a_model_with_an_index_is_not_asked_closed_book(trained, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["answer", ASKED, "--workdir", str(trained[2]), "--closed-book"])
    assert capsys.readouterr().err == f"error: {trained[2]}: has an index; leave --closed-book out\n"


ASKED = "what colour is Norburg"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["  "], "question 1 is empty; write one"),
        ([ASKED, "--num-docs", "1000"], "cannot read K = 1000 of 256 passages (num_docs); ask for 1 to 256"),
        ([ASKED, "--num-docs", "0"], "cannot read K = 0 of 256 passages (num_docs); ask for 1 to 256"),
        (["old " * 50], "max_question = 16"),
        ([ASKED, "--num-beams", "0"], "num_beams is 0; search with 1 (greedy) or more"),
        ([ASKED, "--num-beams", "2", "--n-best", "3"], "n_best is 3, more than num_beams = 2; ask for 1 to 2"),
        ([ASKED, "--max-length", "5"], "max_length is 5, generator.max_target is 4; give 1 to 4"),
        ([ASKED, "--prefix", "red blue green white"], "shorten it to 3 at most"),
        ([ASKED, "--method", "fast"], "method fast is a search of RAG-Sequence"),
        ([ASKED, "--top-k", "3"], "top_k shapes samples, and do_sample is off"),
        ([ASKED, "--labels", "red", "red"], "give two or more, all different"),
        (
            [ASKED, "--labels", "red", "blue", "--num-beams", "3"],
            "labels are scored as they are; leave out prefix, attention and generation options",
        ),
        ([ASKED, "--num-beams", "many"], "rag-jax answer --help lists all options"),
        ([ASKED, "--file", "questions.jsonl"], "ask QUESTIONS or name a --file of them, one of the two"),
        ([], "ask QUESTIONS or name a --file of them, one of the two"),
        ([ASKED, ASKED, "--figure", "a.png"], "--figure draws the answer to one question; ask one, without --output"),
        ([ASKED, "--figure", "a.png", "--output", "a.jsonl"], "--figure draws the answer to one question"),
        (["--file", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_what_cannot_be_answered_is_one_line(trained, capsys, arguments, what) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", *arguments, "--workdir", str(trained[2])])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert what in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["ask"], f"no command 'ask'; the commands are {', '.join(cli.COMMANDS)}"),
        (["benchmark"], "no benchmark ''; the benchmarks are decode"),
        (["benchmark", "decode", "--size", "huge"], "rag-jax benchmark decode --help lists all options"),
    ],
)
def test_commands_that_do_not_exist_are_named(capsys, arguments, what) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert what in capsys.readouterr().err


def test_help_lists_the_commands_and_their_options(capsys) -> None:
    cli.main(["--help"])
    assert "answer" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", "--help"])
    assert not stopped.value.code
    assert "--num-beams" in capsys.readouterr().out


def test_the_version_is_that_of_the_package() -> None:
    told = subprocess.run([sys.executable, "-m", "rag_jax", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"rag-jax {importlib.metadata.version('rag-jax')}\n"


def test_a_command_does_not_ask_for_pytorch() -> None:
    without_torch = "import sys; sys.modules['torch'] = None"
    program = f"{without_torch}; from rag_jax import cli; cli.main(['--version']); import transformers"
    silent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "PyTorch" not in silent.stdout + silent.stderr


def test_the_facade_stands_at_the_top_of_the_package() -> None:
    assert (rag_jax.RAG, rag_jax.Answer, rag_jax.Passage) == (RAG, Answer, Passage)
    assert (rag_jax.SearchResult, rag_jax.GenerationConfig) == (SearchResult, GenerationConfig)
    assert all(hasattr(rag_jax, name) for name in rag_jax.__all__)
    assert (Path(rag_jax.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_benchmarks(capsys, option: str) -> None:
    cli.main(["benchmark", option])
    printed = capsys.readouterr()
    assert printed.err == ""
    for name in ("decode", "encode", "train", "search", "retrieval", "store"):
        assert f"\n  {name} " in printed.out
        assert (Path(cli.__file__).parents[1] / "benchmarks" / f"{name}.py").is_file()


def test_the_posterior_of_an_answer_is_drawn_and_overwrites_nothing(
    trained, tmp_path: Path, capsys, monkeypatch
) -> None:
    pytest.importorskip("matplotlib", reason="figures need the demo extra")
    drawings, save = [], figures.save
    monkeypatch.setattr(figures, "save", lambda drawing, path: drawings.append(drawing) or save(drawing, path))
    figure = tmp_path / "posterior.png"
    command = ["answer", ASKED, "--workdir", str(trained[2]), "--figure", str(figure)]
    cli.main(command)
    assert f"{figure}: p(passage | question, token)" in capsys.readouterr().out.replace("\n", "")
    (image,) = drawings[0].axes[0].images
    np.testing.assert_allclose(image.get_array(), trained[0].answer(ASKED).token_posteriors, atol=1e-5)
    drawn = figure.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert ends(command, capsys) == (
        2,
        f"error: {figure}: exists already; choose another name, or delete it: nothing is overwritten",
    )
    assert figure.read_bytes() == drawn


def test_ctrl_c_of_a_command_is_one_line(monkeypatch, capsys) -> None:
    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rag_jax.commands.plan.parse", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["plan"])
    assert stopped.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_folder_that_is_no_workdir_is_named(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", "what", "--workdir", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'config.json'}: no such file; ")
