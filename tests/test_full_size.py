"""BERT-base towers and BART-large: what transformers saves computes the same here, and what is saved here there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4  # absolute, in float32
SCRIPT = Path(__file__).parent / "support" / "full_size.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A RAG checkpoint of transformers with 515 million random parameters, and what torch computes with it."""
    folder = tmp_path_factory.mktemp("full")
    assert run("theirs", folder)["parameters"] == 515_183_104
    return folder


@pytest.fixture(scope="module")
def ours(folder) -> dict:
    return run("ours", folder)


def run(part: str, folder: Path) -> dict:
    """One part in a process of its own; what it found is told, for docs/performance.md."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(SCRIPT), part, str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    print(done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["vectors", "scores", "logits", "token_loss", "sequence_loss"])
def test_outputs_and_losses_are_torchs(ours, what):
    assert ours[f"{what}_difference"] < TOLERANCE


@pytest.mark.parametrize("model", ["token", "sequence"])
@pytest.mark.parametrize("beams", [1, 4])
def test_the_same_tokens_are_written(ours, model, beams):
    assert ours[f"{model}_{beams}_beams_same"]
    assert len(set(ours[f"{model}_{beams}_beams"][0])) > 3  # not one token over and over


def test_loading_takes_little_more_memory_than_the_parameters(ours):
    assert ours["peak_over_parameters"] < 1.3


def test_what_is_saved_here_computes_the_same_there(ours, folder):
    found = run("back", folder)
    assert found["keys"] == {}  # none missing, none unexpected, none of another shape
    assert found["logits_difference"] == 0
