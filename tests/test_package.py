"""The wheel stands alone: it holds the training loop, the configs and the demo, and no file that it must not."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(folder / built.stdout.split()[-1])


def test_wheel_contains_every_module_and_config(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rag_jax").rglob("*.py")}
    configs = {f"rag_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.py")}
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == modules | configs | {"rag_jax/py.typed"}
    assert {"rag_jax/training/loop.py", "rag_jax/configs/paper/nq_token.py", "rag_jax/commands/demo.py"} <= files


def test_wheel_installs_the_command_and_its_extras(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA")).rpartition("/")[0]
    assert "rag-jax = rag_jax.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert {"cuda", "demo", "tpu"} <= {
        line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if line.startswith("Provides-Extra: ")
    }


@pytest.mark.extended
def test_wheel_runs_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rag_jax", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "installed"), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("--version").stdout == "rag-jax 0.1.0\n"
    for arguments, printed in (
        (["train", "--help"], "paper/nq_token"),
        (["train", "cities", "--help"], "--optimizer.learning-rate"),
        (["train", "paper/nq_token", "--help"], "--optimizer.learning-rate"),
        (["demo", "--help"], "--workdir"),
        (["demo", "elements", "--help"], "chemical elements"),
    ):
        completed = run(*arguments)
        assert (completed.returncode, printed in completed.stdout) == (0, True), completed.stderr
    unknown = run("train", "citys", "--workdir", "run")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: citys: no such config; the nearest is cities; ")
    completed = run("train", "own", "--workdir", "run")
    assert (completed.returncode, completed.stderr) == (2, "error: evaluation.jsonl: no such file; check the path\n")
    assert not (tmp_path / "run").exists()
