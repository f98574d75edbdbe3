"""Command lines whose texts are not UTF-8, or whose checkpoints have no name: one line, and exit code 2."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rag_jax import cli
from rag_jax.config.command_line import parse
from rag_jax.errors import InputError

HALF = "caf\udce9"  # "café" in Latin-1, as Python passes it on


@dataclass(frozen=True)
class Inner:
    """Options within options."""

    template: str | None = None


@dataclass(frozen=True)
class Options:
    """Options of each kind."""

    name: str = ""
    names: tuple[str, ...] = ()
    path: Path = Path()
    mode: Literal["one", "other"] = "one"
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--name", HALF], "name"),
        (["--names", "x", HALF], "names"),
        (["--inner.template", HALF], "template"),
        (["--name", "a\0"], "name"),
    ],
)
def test_a_text_that_is_no_utf_8_is_one_line(arguments: list[str], option: str) -> None:
    with pytest.raises(InputError, match=f'^the command: "{option}" holds ') as caught:
        parse(Options, arguments, remedy="--help lists all options")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_path_may_be_of_any_bytes() -> None:
    found = parse(Options, ["--path", HALF, "--name", "café", "--names", "亀", "🐢"], remedy="")
    assert found == Options("café", ("亀", "🐢"), Path(HALF))


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["search", HALF, "--index", "nowhere"], "queries"),
        (["answer", HALF], "questions"),
        (["index", "c.jsonl", "--out", "nowhere", "--tower", "t", "--template", HALF], "template"),
        (["refusals", "p.jsonl", "--output", "nowhere", "--workdir", "w", "--system-prompts", HALF], "system-prompts"),
    ],
)
def test_a_command_ends_with_that_line(arguments: list[str], option: str, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert ends(arguments, capsys) == (
        2,
        f'error: the command: "{option}" holds half a surrogate pair; write the whole character\n',
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["search", "what", "--index", "nowhere", "--tower="], "--tower"),
        (["mine", "q.jsonl", "--index", "nowhere", "--output", "o", "--engine", "device", "--tower="], "--tower"),
        (["index", "c.jsonl", "--out", "nowhere", "--tower="], "--tower"),
        (["index", "--out", "nowhere", "--generator", " "], "--generator"),
        (["index", "--out", "nowhere", "--faiss", "Flat", "--question-tower="], "--question-tower"),
        (["answer", "what", "--checkpoint="], "--checkpoint"),
        (["evaluate", "--questions", "q.jsonl", "--output", "o", "--checkpoint="], "--checkpoint"),
        (["refusals", "p.jsonl", "--output", "o", "--generator="], "--generator"),
        (["refusals", "p.jsonl", "--output", "o", "--generator", "g", "--tower="], "--tower"),
        (["moderate", "t.jsonl", "--output", "o", "--categories", "c.jsonl", "--tower="], "--tower"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_checkpoint_without_a_name_is_not_this_folder(
    arguments: list[str], option: str, capsys, monkeypatch, tmp_path: Path
) -> None:
    """As by a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    expected = f"error: {option} is empty; name a checkpoint, or leave it out\n"
    assert ends(arguments, capsys) == (2, expected)
    assert not list(tmp_path.iterdir())


def ends(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """How a command ends: the exit code, and all that it says."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    said = capsys.readouterr()
    assert said.out == ""
    return stopped.value.code, said.err
