"""Config files, their overrides, and the JSON that a run leaves."""

import dataclasses
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rag_jax.config import keys
from rag_jax.config.catalog import config_names, find_config
from rag_jax.config.config import AdamW, Compute, Config, Data, Mesh, Optimizer, Retriever
from rag_jax.config.files import (
    AnyConfig,
    load_config,
    read_any_config_file,
    read_config_file,
    relocate,
    save_config,
)
from rag_jax.config.generation import GenerationConfig
from rag_jax.config.overrides import override
from rag_jax.errors import InputError

ROOT = Path(__file__).parents[2]
PLAIN = Config(Data(Path("p.jsonl"), Path("q.jsonl"), Path("e.jsonl")), Retriever("tower"))


def test_dotted_overrides_reach_every_room() -> None:
    changed = override(
        PLAIN,
        [
            "--steps",
            "7",
            "--optimizer.learning-rate",
            "0.5",
            "--retriever.mode",
            "frozen",
            "--data.answers",
            "all",
            "--model",
            "sequence",
        ],
    )
    expected = dataclasses.replace(
        PLAIN,
        steps=7,
        model="sequence",
        optimizer=dataclasses.replace(PLAIN.optimizer, learning_rate=0.5),
        retriever=dataclasses.replace(PLAIN.retriever, mode="frozen"),
        data=dataclasses.replace(PLAIN.data, answers="all"),
    )
    assert changed == expected


def test_underscores_and_hyphens_are_the_same() -> None:
    assert override(PLAIN, ["--batch_size", "3"]) == override(PLAIN, ["--batch-size", "3"])


def test_passages_can_be_switched_off() -> None:
    assert override(PLAIN, ["--data.passages", "None"]).data.passages is None


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [("--optimizer.learning-rat", "--optimizer.learning-rate"), ("--batchsize", "--batch-size")],
)
def test_an_unknown_key_is_refused_with_the_nearest_real_one(argument: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"{argument}; the nearest is {nearest}$"):
        override(PLAIN, [argument, "1"])


@pytest.mark.parametrize("arguments", [["--steps", "many"], ["--model", "tokens"], ["--steps"], ["stray"]])
def test_a_value_that_does_not_fit_is_one_line(arguments: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        override(PLAIN, arguments)
    assert "\n" not in str(caught.value)
    assert arguments[-1].removeprefix("--") in str(caught.value)


def test_json_and_back_is_the_same_config(tmp_path: Path) -> None:
    config = override(PLAIN, ["--data.passages", "None", "--start-from", "elsewhere"])
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", r"config\.json:1: damaged"),
        ('{"stepps": 3}', "unknown key 'stepps'; the nearest is 'steps'"),
        ("[]", r"the whole is \[\]; give the fields of Config"),
        ("3", "the whole is 3"),
        ('{"data": {}}', "retriever is missing; give the fields of Retriever"),
        ('{"data": {}, "retriever": {}}', r"retriever\.tower is missing; give a text in quotes"),
        ('{"data": {}, "retriever": {"tower": "x"}, "steps": "3"}', "steps is '3'; give a whole number"),
        ('{"data": {}, "retriever": {"tower": "x"}, "buckets": 3}', "buckets is 3; give a list"),
        ('{"data": {"answers": "some"}, "retriever": {"tower": "x"}}', r"data\.answers is 'some'; give 'first' or"),
    ],
)
def test_a_damaged_json_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=what):
        load_config(tmp_path / "config.json")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.py: no such config file"):
        read_config_file(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match=r"empty\.py: defines no config"):
        read_config_file(tmp_path / "empty.py")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Config(Data(), Retriever('x'), steps='many')", r":3: Config\.steps is 'many'; give a whole number"),
        ("Config(Data(), Retriever('x'), stepz=3)", r":3: TypeError: .*unexpected keyword argument 'stepz'"),
        ("Config(Data(), Retriever('x')", r":3: SyntaxError: '\(' was never closed"),
        (
            "Config(Data(), Retriever('x'), generator=Generator(lengths='12'))",
            r":3: Generator\.lengths is '12'; give a list",
        ),
        ("Config(Data(passages=3), Retriever('x'))", r":3: Data\.passages is 3; give a path or None"),
        ("Config(Data(), 'x')", r":3: Config\.retriever is 'x'; give the fields of Retriever"),
        (
            "Config(Data(), Retriever('x'), decoding=GenerationConfig(early_stopping='sometimes'))",
            r":3: GenerationConfig\.early_stopping is",
        ),
        ("nothing", r":3: NameError: name 'nothing' is not defined"),
        ("exit(0)", r":3: SystemExit: 0"),
        ("(_ for _ in ()).throw(type('E', (Exception,), {'__str__': None})())", r":3: E: its message cannot be read"),
    ],
)
def test_a_config_file_that_is_wrong_is_one_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "c.py"
    path.write_text(f"from rag_jax.config.config import *\n\nconfig = {text}\n")
    with pytest.raises(InputError, match=f"^{path}{what}") as caught:
        read_config_file(path)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_module_that_a_config_imports_has_the_line_of_the_import(tmp_path: Path) -> None:
    (tmp_path / "broken_helper.py").write_text(7 * "\n" + "(")
    (tmp_path / "c.py").write_text("\nimport broken_helper\n")
    with pytest.raises(InputError, match=rf"^{tmp_path / 'c.py'}:2: SyntaxError: .*broken_helper\.py, line 8"):
        read_config_file(tmp_path / "c.py")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--data.passages", ""], "data.passages"),
        (["--data.passages="], "data.passages"),
        (["--data.index", ""], "data.index"),
        (["--start-from="], "start-from"),
        (["--generator.tokenizer", ""], "generator.tokenizer"),
        (["--data.passages", ".", "--data.index", ""], "data.index"),
    ],
)
def test_an_empty_path_is_not_the_folder_that_one_is_in(arguments: list[str], name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} is empty; name a file or a folder"):
        override(PLAIN, arguments)


def test_an_empty_text_is_no_empty_path() -> None:
    changed = override(PLAIN, ["--data.passages", ".", "--retriever.question-template", ""])
    assert (changed.data.passages, changed.retriever.question_template) == (Path(), "")


def test_lists_in_a_config_file_are_tuples(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(
        "from rag_jax.config.config import *\n"
        "config = Config(Data('p'), Retriever('x'), generator=Generator(lengths=[1, 2]), buckets=[[3, 4]])\n"
    )
    found = read_config_file(tmp_path / "c.py")
    assert (found.data.passages, found.generator.lengths, found.buckets) == (Path("p"), (1, 2), ((3, 4),))
    hash(found)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_of_the_project_reads(path: Path) -> None:
    assert isinstance(read_any_config_file(path), AnyConfig)


def test_relocation_moves_what_is_below_and_nothing_else() -> None:
    moved = relocate(read_config_file(ROOT / "configs" / "cities.py"), Path("runs/demo"), Path("/elsewhere"))
    assert moved.data.passages == Path("/elsewhere/data/passages.jsonl")
    assert moved.start_from == Path("/elsewhere/reader")
    assert moved.retriever == read_config_file(ROOT / "configs" / "cities.py").retriever


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--epochs", r"the nearest is --steps \(an epoch is pairs / batch-size steps\)$"),
        (
            "--resume-from",
            r"the nearest is --start-from \(which begins another run; to resume one, run its command again",
        ),
    ],
)
def test_a_key_that_means_something_else_is_explained(argument: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        override(PLAIN, [argument, "3"])


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--lr", "--optimizer.learning-rate"),
        ("--k", "--retriever.num-docs"),
        ("--top-k", "--retriever.num-docs"),
        ("--beams", "--decoding.num-beams"),
        ("--bs", "--batch-size"),
        ("--data.batch_sise", "--batch-size"),
        ("--retriever.learning-rate", "--optimizer.learning-rate"),
        ("--num-doc", "--retriever.num-docs"),
    ],
)
def test_an_unknown_key_is_matched_by_meaning(argument: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"the nearest is {nearest}$"):
        override(PLAIN, [argument, "1"])


def test_every_alias_is_a_key() -> None:
    assert set(keys.ALIASES.values()) <= {name.replace("_", "-") for name in keys.names()}


def test_help_describes_every_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stopped:
        override(PLAIN, ["--help"])
    assert not stopped.value.code
    printed = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    descriptions = {}
    for line, following in pairwise(printed):
        if line.startswith("--"):
            descriptions[line.partition(" ")[0].rstrip(",").removeprefix("--")] = following
    for name in keys.names():
        assert not descriptions[name.replace("_", "-")].startswith("(default"), name


def test_every_config_is_found_by_name_and_by_path() -> None:
    assert {"cities", "own", "paper/nq_token"} <= set(config_names())
    assert "paper/recipe" not in config_names()
    for name in config_names():
        assert find_config(name) == find_config(str(find_config(name)))
        assert isinstance(read_any_config_file(find_config(name)), AnyConfig)


@pytest.mark.parametrize("name", ["citys", "configs/cities.py", "cities.py"])
def test_an_unknown_config_is_refused_with_the_nearest(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{name}: no such config; the nearest is cities; .* one of cities, .*own"):
        find_config(name)


def test_a_config_imports_what_lies_beside_it(tmp_path: Path) -> None:
    for folder, steps in (("a", 3), ("b", 4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside.py").write_text(f"steps = {steps}\n")
        (tmp_path / folder / "c.py").write_text(
            "from beside import steps\nfrom rag_jax.config.config import *\n"
            "config = Config(Data(), Retriever('x'), steps=steps)\n"
        )
    assert [read_config_file(tmp_path / folder / "c.py").steps for folder in "ab"] == [3, 4]


@pytest.mark.parametrize("marker", ["__init__.py", "of_a_namespace.py"])
def test_a_config_imports_the_package_that_lies_beside_it(tmp_path: Path, marker: str) -> None:
    """Not the one of its name beside another config; what lies in a virtual environment there stays imported."""
    for folder, steps in (("a", 3), ("b", 4)):
        elsewhere = tmp_path / folder / "venv" / "own_packages"
        for package in (tmp_path / folder / "beside", elsewhere):
            package.mkdir(parents=True)
            (package / marker).write_text("")
            (package / "inner.py").write_text(f"steps = {steps}\n")
        (tmp_path / folder / "c.py").write_text(
            f"import sys\nsys.path.append({str(elsewhere.parent)!r})\nimport own_packages.inner\n"
            "from beside.inner import steps\nfrom rag_jax.config.config import *\n"
            "config = Config(Data(), Retriever('x'), steps=steps)\n"
        )
    before = list(sys.path)
    try:
        assert [read_config_file(tmp_path / folder / "c.py").steps for folder in "ab"] == [3, 4]
        assert "own_packages.inner" in sys.modules
        assert not {"beside", "beside.inner"} & set(sys.modules)
    finally:
        sys.path[:] = before
        for name in ("own_packages", "own_packages.inner"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Optimizer(kind="sgd"), "Optimizer.kind is 'sgd'; give 'adamw' or 'muon'"),
        (lambda: Compute(attention="flash"), "Compute.attention is 'flash'; give 'plain' or 'fused'"),
        (lambda: replace(Optimizer(), kind="sgd"), "Optimizer.kind is 'sgd'"),
        (lambda: Config(Data(), Retriever("x"), steps="3"), "Config.steps is '3'; give a whole number"),
        (lambda: GenerationConfig(num_beams=True), "GenerationConfig.num_beams is True; give a whole number"),
        (lambda: AdamW(learning_rate=None), "AdamW.learning_rate is None; give a number"),
        (lambda: Mesh(data=2**70), "Mesh.data is 1180591620717411303424; give a whole number of at most 64 bits"),
    ],
)
def test_a_config_holds_what_its_types_say_however_it_is_made(make: Callable[[], object], told: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        make()


def test_infinity_and_a_path_that_is_not_utf_8_survive_the_json(tmp_path: Path) -> None:
    config = replace(PLAIN, optimizer=Optimizer(clip=math.inf), start_from=Path("a\udcff"))
    save_config(config, tmp_path / "config.json")
    assert "Infinity" not in (tmp_path / "config.json").read_text()
    assert load_config(tmp_path / "config.json") == config
