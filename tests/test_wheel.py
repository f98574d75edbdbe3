"""The wheel stands alone: it holds the configs and the demo, and its command works outside of a checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_works_without_a_checkout(tmp_path: Path) -> None:
    """The build needs hatchling, which pip downloads; the rest uses what is installed here."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(installed)
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rag_jax").rglob("*.py")}
    assert {f"rag_jax/{name}" for name in configs} | package <= names

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.path.insert(0, {str(installed)!r}); from rag_jax.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    for arguments, printed in (
        (["train", "--help"], "paper/nq_token"),
        (["train", "cities", "--help"], "--optimizer.learning-rate"),
        (["train", "paper/nq_token", "--help"], "--optimizer.learning-rate"),
        (["demo", "--help"], "--workdir"),
    ):
        ran = run(*arguments)
        assert (ran.returncode, printed in ran.stdout) == (0, True), ran.stderr
    ran = run("train", "own", "--workdir", "run")
    assert (ran.returncode, ran.stderr) == (2, "error: evaluation.jsonl: no such file; check the path\n")
