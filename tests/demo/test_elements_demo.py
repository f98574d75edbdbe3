"""The demo of the elements from end to end, with small networks from scratch in place of the pretrained ones."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rag_jax import cli
from rag_jax.commands import demo_elements
from rag_jax.config.config import Config
from rag_jax.demo import data, elements
from rag_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # a network that has learnt nothing writes anything
pytest.importorskip("matplotlib", reason="figures need the demo extra")


@pytest.fixture
def small(towns: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 30 elements, a tower and a decoder-only generator that have read nothing, two steps."""
    config_of = data.demo_config

    def demo_config(name: str, workdir: Path, default: Path) -> Config:
        config = config_of(name, workdir, default)
        generator = dataclasses.replace(
            towns.generator,
            architecture="llama",
            vocabulary=300,
            max_input=64,
            max_target=24,
            question_template="{question}=",
        )
        return dataclasses.replace(
            towns,
            data=dataclasses.replace(config.data, long_questions="cut"),
            generator=generator,
            steps=2,
            save_every=1,
        )

    first = elements.load_elements()[:30]
    monkeypatch.setattr(demo_elements, "demo_config", demo_config)
    monkeypatch.setattr("rag_jax.demo.element_questions.load_elements", lambda: first)


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.extended
def test_it_is_interrupted_resumes_to_its_end_and_runs_again(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    command = ["demo", "elements", "--workdir", str(workdir)]
    with monkeypatch.context() as patched:
        patched.setattr(demo_elements, "train_and_evaluate", interrupted)
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
    assert stopped.value.code == 130
    assert capsys.readouterr().out.count("log p(y|x) = ") == len(demo_elements.SHOWN)
    index = {path: path.stat().st_mtime_ns for path in (workdir / "index").rglob("*") if path.is_file()}
    assert index
    (workdir / "notes.txt").write_text("mine")

    cli.main(command)
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if re.match(r"\d\. [A-Z]", line)]
    assert [title[0] for title in titles] == ["1", "2", "3", "4", "5"]
    assert printed.count("log p(y|x) = ") == 2 * len(demo_elements.SHOWN)
    for column in ("this model", "zero-shot", "closed book"):
        assert column in printed
    results = json.loads((workdir / "results.json").read_text())
    for prefix in ("", "zero_shot_", "closed_book_", "zero_shot_closed_book_"):
        assert {f"{prefix}exact_match", f"{prefix}f1"} <= set(results)
    for name in ("posterior.png", "posterior_zero_shot.png"):
        assert (workdir / "figures" / name).read_bytes().startswith(b"\x89PNG")

    kept = {name: (workdir / name).read_bytes() for name in ("metrics.jsonl", "config.json", "results.json")}
    cli.main(command)
    assert {name: (workdir / name).read_bytes() for name in kept} == kept
    assert {path: path.stat().st_mtime_ns for path in index} == index
    assert (workdir / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["data/train.jsonl", "figures/posterior.png"])
def test_files_of_the_users_own_are_not_taken_for_the_demos(small: None, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        InputError, match=rf"{Path(name).parent}: holds {Path(name).name}, but no .* of this demo; choose"
    ):
        demo_elements.ElementsDemo(tmp_path).run()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"
