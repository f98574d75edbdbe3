"""Every `rag-jax benchmark` runs, as it is typed, at a tiny size; `train` has tests of its own as well."""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.decode_sides import OURS, SIDES
from rag_jax.cli import main
from rag_jax.commands.benchmark import BENCHMARKS
from rag_jax.config.config import Config

SMALL = ("--max-length", "16", "--template", "{title}", "--norm", "4")


@pytest.fixture
def benchmark(capsys, monkeypatch, tmp_path: Path) -> Callable[..., str]:
    """Runs a command, and returns what it prints on a wide terminal; its processes compile as quickly as the tests."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))

    def run(name: str, *arguments: object) -> str:
        main(["benchmark", name, *map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_decoders_write_the_same_tokens_on_every_side(benchmark, tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    printed = benchmark("decode", "--size", "tiny", "--rounds", 1, "--json", path)
    results = json.loads(path.read_text())["results"]
    told = {(each["case"]["decoder"], each["case"]["beams"]): each["sides"] for each in results}
    assert list(told) == [("token", 2), ("thorough", 2), ("fast", 2), ("fast", 1)]
    assert all(list(sides) == list(SIDES) for sides in told.values())
    assert all(len(sides[OURS]["warm"]) == 1 for sides in told.values())
    for (decoder, _), sides in told.items():
        for name, figures in sides.items():
            kind = SIDES[name]
            if find_spec(kind.needs or "jax") is None:
                assert figures == {"missing": f"not installed: pip install {kind.needs}"}
            elif decoder in kind.cannot:
                assert figures == {"missing": kind.cannot[decoder]}
            elif not name.endswith(("int8", "bfloat16")):
                assert figures["same answers"] == figures["questions"] == 2
                assert figures.get("log p apart", 0.0) < 1e-3
    assert printed.count("cannot mix passages within a step") == (2 if find_spec("ctranslate2") else 0)
    assert printed.count(f"\n{OURS} ") == 2 * len(results)  # with products in bfloat16, too
    assert "\nthorough, B 2, K 5, W 2, T 4\n" in printed


@pytest.mark.slow
def test_a_side_that_is_not_installed_or_fails_leaves_its_reason(benchmark, monkeypatch, tmp_path: Path) -> None:
    failing = SIDES["ctranslate2 float32"]._replace(arguments=("int9",), needs="jax")
    monkeypatch.setitem(SIDES, "ctranslate2 float32", failing)
    monkeypatch.setitem(SIDES, "ctranslate2 int8", SIDES["ctranslate2 int8"]._replace(needs="no_such_module"))
    path = tmp_path / "told.json"
    sizes = ("--size", "tiny", "--rounds", 1)
    benchmark("decode", *sizes, "--opponents", "ctranslate2", "--json", path)
    for each in json.loads(path.read_text())["results"]:
        ours, rounded, fails, absent = each["sides"].values()
        assert min(ours["median"], rounded["median"]) > 0
        assert fails == {"missing": "failed: ct2 ended with 1"}
        assert absent == {"missing": "not installed: pip install no_such_module"}


@pytest.mark.extended
def test_vectors_are_the_same_on_both_sides(benchmark, towns: Config, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the opponent")
    path = tmp_path / "told.json"
    sizes = ("--count", 8, "--rounds", 1, "--batches", 3, "--max-length", 16)
    benchmark("encode", towns.data.passages, "--tower", towns.retriever.tower, *sizes, "--json", path)
    results = json.loads(path.read_text())["results"]
    names = ["rag_jax", "torch 32", "torch sorted 3"]
    names += ["ctranslate2 float32 3", "ctranslate2 int8 3"] if find_spec("ctranslate2") else []
    assert list(results) == names
    assert all(len(told["warm"]) == 1 for told in results.values())
    assert all(told["difference"] < (0.5 if "int8" in name else 1e-5) for name, told in results.items())


def test_the_exact_search_finds_what_faiss_does(benchmark) -> None:
    printed = benchmark("search", "--passages", 300, "--width", 16, "--queries", 1, 3, "--rounds", 1)
    rows = [line.split() for line in printed.splitlines()]
    found = [(row[0], row[1], row[-1]) for row in rows if row[1] == "float32"]
    assert found == [("1", "float32", "1.0000"), ("3", "float32", "1.0000")]
    assert sum(row[1] in ("bfloat16", "int8") for row in rows) == 4


def test_engines_find_the_towns_that_are_asked_for(benchmark, towns: Config, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "index"
    main(["index", str(towns.data.passages), "--out", str(folder), "--tower", towns.retriever.tower, *SMALL, "--bm25"])
    capsys.readouterr()
    printed = benchmark("retrieval", "--index", folder, "--questions", towns.data.evaluation)
    names, *rows, count = (line.split() for line in printed.splitlines())
    gold = {row[0]: float(row[names.index("gold@1")]) for row in rows}
    assert list(gold) == ["device", "bm25", "hybrid"]
    assert gold["bm25"] == 100.0  # a town's name is a word of its own passage only
    assert count[:2] == ["32", "questions,"]


@pytest.mark.extended
def test_a_store_is_built_opened_and_searched(tmp_path: Path, capfd) -> None:
    folder = tmp_path / "store"
    main(["benchmark", "store", "--passages", "100", "--width", "8", "--folder", str(folder)])
    printed = capfd.readouterr().out
    for line in ("build: 100 passages x 8", "open: 100 passages", "search: 64 queries in", "search: peak memory"):
        assert line in printed
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        *((name, ["--no-such-option"], f"rag-jax benchmark {name} --help lists all options") for name in BENCHMARKS),
        ("decode", ["--rounds", 0], "rounds is 0; give 1 or more"),
        ("search", ["--queries", 0], "one is below 1; give numbers above 0"),
        ("store", ["--passages", 0], "one is below 1; give numbers above 0"),
    ],
)
def test_what_cannot_be_measured_is_one_line(name: str, arguments: list[Any], told: str, benchmark, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark(name, *arguments)
    assert stopped.value.code == 2
    complained = capsys.readouterr().err
    assert told in complained
    assert complained.count("\n") == 1


@pytest.mark.parametrize("name", ["train", "encode"])
def test_an_opponent_that_is_not_installed_is_named(name: str, benchmark, towns: Config, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stopped:
        benchmark(name, *([towns.data.passages] if name == "encode" else []))
    assert stopped.value.code == 2
    assert "torch: the opponent is not installed; run pip install torch" in capsys.readouterr().err
