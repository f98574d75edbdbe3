"""The linter sees undefined names although jaxtyping's dimension strings look like forward references."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHAPES = 'from jaxtyping import Array, Float\n\n\ndef f(x: Float[Array, " B"]) -> Float[Array, "B K"]:\n    return {}\n'


@pytest.mark.parametrize(("returned", "undefined"), [("x", False), ("tower(x)", True)])
def test_undefined_names_fail_the_linter(returned: str, undefined: bool):
    pytest.importorskip("ruff", reason="the linter is not installed (make lint installs it)")
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", "rag_jax/x.py"]
    run = subprocess.run(
        [*command, "-"], cwd=ROOT, input=SHAPES.format(returned), capture_output=True, text=True, check=False
    )
    assert (run.returncode, "F821 Undefined name `tower`" in run.stdout) == (int(undefined), undefined), run
