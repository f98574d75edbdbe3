"""The `rag-jax` command."""

from pathlib import Path

import pytest

from rag_jax import cli


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


@pytest.mark.parametrize(
    ("question", "options", "what"),
    [
        ("  ", [], "question 1 is empty; write one"),
        ("what colour is Norburg", ["--num-docs", "1000"], "cannot read 1000 of 256 passages; ask for 1 to 256"),
        ("what colour is Norburg", ["--num-docs", "0"], "cannot read 0 of 256 passages; ask for 1 to 256"),
        ("old " * 50, [], "max_question = 16"),
    ],
)
def test_bad_questions_are_one_line(trained, capsys, question, options, what) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", question, "--workdir", str(trained[2]), *options])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert what in said
    assert said.count("\n") == 1


def test_a_folder_that_is_no_workdir_is_named(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", "what", "--workdir", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'config.json'}: no such file; ")
