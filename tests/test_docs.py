"""What the pages say: the example runs, and every file that is pointed to exists."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

import gguf_files
from rag_jax import cli
from rag_jax.commands.refusals import RefusalsCommand
from rag_jax.config.command_line import parse
from rag_jax.config.config import Config
from rag_jax.config.generation import GenerationConfig
from rag_jax.errors import InputError
from rag_jax.moderation.categories import Categories

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str | Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_readme_runs(trained, towns: Config, tmp_path: Path, capsys) -> None:
    facade, core, checkpoint = blocks("README.md")
    names: dict = {}
    question = json.loads(towns.data.evaluation.read_text().splitlines()[0])["question"]
    short = facade.replace("runs/demo", str(trained[2])).replace("What is the population of Lyon?", question)
    short = short.replace("Which country is Lyon in?", question).replace('"France", "Italy", "Spain"', '"red", "blue"')
    exec(compile(short, "README.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + 3
    exec(compile(core, "README.md", "exec"), {})
    assert capsys.readouterr().out == "(4, 64)\n"
    names["rag"].save_pretrained(tmp_path / "checkpoint")
    local = checkpoint.replace("facebook/rag-token-nq", str(tmp_path / "checkpoint"))
    local = local.replace("path/to/index", str(trained[2] / "index")).replace('"folder"', f'"{tmp_path / "saved"}"')
    exec(compile(local, "README.md", "exec"), names)
    assert (tmp_path / "saved" / "config.json").is_file()


@pytest.mark.extended
def test_the_step_of_ones_own_trains(trained, towns: Config, capsys) -> None:
    example = blocks("docs/training.md")[0]
    here = example.replace("runs/demo/data/train.jsonl", str(towns.data.train)).replace("runs/demo", str(trained[2]))
    exec(compile(here, "training.md", "exec"), {})
    told = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 10
    assert all(0 < loss < 0.5 for loss in told), "it goes on from what was learnt"


@pytest.mark.extended
def test_the_evaluation_of_the_page_runs(trained, towns: Config, tmp_path: Path, capsys) -> None:
    scoring, comparing = blocks("docs/evaluation.md")
    here = scoring.replace("runs/demo/data/test.jsonl", str(towns.data.evaluation)).replace(
        "runs/demo", str(trained[2])
    )
    exec(compile(here, "evaluation.md", "exec"), {})
    rag, without, gold = map(int, capsys.readouterr().out.split())
    assert without < min(rag, gold)
    for name, options in (("pretrained-tower", ["--baseline", "pretrained-tower"]), ("rag", [])):
        asked = ["--workdir", str(trained[2]), "--questions", str(towns.data.evaluation), *options]
        cli.main(["evaluate", "--output", str(tmp_path / name), *asked])
    capsys.readouterr()
    exec(compile(comparing.replace("runs/evaluated", str(tmp_path)), "evaluation.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["exact_match", "f1"]


def test_the_guard_of_the_page_answers(trained, towns: Config, tmp_path: Path, capsys) -> None:
    text = (ROOT / "docs" / "moderation.md").read_text(encoding="utf-8")
    (categories,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "categories.json").write_text(categories)
    assert Categories.read(tmp_path / "categories.json").names == ("fine", "spam", "complaint")
    (example,) = blocks("docs/moderation.md")
    question = json.loads(towns.data.evaluation.read_text().splitlines()[0])["question"]
    here = example.replace("runs/moderator", str(trained[2])).replace("runs/demo", str(trained[2]))
    for named, colour in (("illegal", "blue"), ("hateful", "green"), ("advice", "white")):
        here = here.replace(f'"{named}"', f'"{colour}", threshold=1.0')
    here = here.replace('Category("white", threshold=1.0)))', 'Category("white", threshold=1.0)), "red")')
    for asked in ("How do I forge a signature?", "What is the population of Osaka?"):
        here = here.replace(asked, question)
    here = here.replace('["Lyon", "Mumbai"]', f'["{question.split()[-1]}"]')
    exec(compile(here, "moderation.md", "exec"), {})
    decision, answered = capsys.readouterr().out.splitlines()
    assert decision.startswith("Decision(role='question'")
    assert answered.startswith("None ")
    assert question.split()[-1] not in answered.partition("[")[2], "its own passage is denied"


@pytest.mark.slow
def test_the_generator_of_the_page_answers(capsys) -> None:
    gguf_files.smollm()
    first, second = blocks("docs/generators.md")
    exec(compile(first + second, "generators.md", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert "Portugal" in told[0]
    assert "Brazil" in told[-1]


def test_the_refusal_of_the_page_is_one(capsys) -> None:
    (example,) = blocks("docs/guardrails.md")
    exec(compile(example, "guardrails.md", "exec"), {})
    assert capsys.readouterr().out == "True ['declines'] False\n"


def test_the_commands_of_the_page_are_read() -> None:
    """The models that they name are large; tests/test_refusals_command.py runs the same with small ones."""
    (block,) = re.findall(r"```sh\n(rag-jax refusals.*?)```", (ROOT / "docs/guardrails.md").read_text(), re.DOTALL)
    commands = [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]
    assert [command[:3] for command in commands] == [["rag-jax", "refusals", "prompts.jsonl"]] * 3
    for command in commands:
        with pytest.raises(InputError, match=r"^prompts\.jsonl: no such file"):
            parse(RefusalsCommand, command[2:], remedy="").run()


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page behind `rag-jax`, but for usages, in which something is left out."""
    found = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(found).replace("\\\n", "").splitlines()
    whole = [line for line in lines if line.startswith("rag-jax ") and "..." not in line and "…" not in line]
    return [shlex.split(line, comments=True)[1:] for line in whole]


class ReadError(Exception):
    """A command has read its options."""


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=f"{page.name}: {shlex.join(words)}") for page in PAGES for words in commands(page)]
)
def test_every_command_of_a_page_takes_its_options(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = "dpr_miniwiki" if "--data.negatives" in words else "own"
    name, *options = [config if word == "CONFIG" else word for word in words]
    folder, entry = "rag_jax.commands", name
    if name == "benchmark":
        folder, entry, (name, *options) = "benchmarks", "main", options
    command = importlib.import_module(f"{folder}.{name}")
    reader = "override" if name == "train" else "parse"
    read = getattr(command, reader)

    def only_read(*given: object, **how: object) -> None:
        read(*given, **how)
        raise ReadError

    monkeypatch.setattr(command, reader, only_read)
    monkeypatch.setattr(command, "own_decoding", lambda _: GenerationConfig(), raising=False)  # the workdir's own
    with pytest.raises(ReadError):
        getattr(command, entry)(options)


def test_almost_every_command_is_in_an_example() -> None:
    found = {name for page in PAGES for name, *_ in commands(page)}
    assert found | {"demo", "benchmark"} == {*cli.COMMANDS}, "those two are named in a sentence"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_is_python(page: Path) -> None:
    for example in blocks(page):
        compile(example, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
