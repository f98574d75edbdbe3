"""Two writers on one store, and kills beside a second writer: it always opens, and nothing that was made is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(script: str, place: Path, count: int) -> dict:
    """What a script tells, in a process of its own."""
    here = Path(__file__).parent / "support"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, here / script, place, str(count)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    print(told)
    return told


@pytest.mark.extended
@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_two_writers_lose_nothing(count: int, tmp_path: Path) -> None:
    told = run("interleavings.py", tmp_path, count)
    assert told["trials"] == count
    assert told["made"] > 2 * count


@pytest.mark.extended
@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_store_survives_kills_beside_a_second_writer(count: int, tmp_path: Path) -> None:
    changes = run("kills.py", tmp_path, count)
    assert set(changes) == {"build", "rebuild", "add", "replace", "swap"}
    for change in changes.values():
        assert change["killed"] == count
        assert change.get("old", 0) + change.get("new", 0) == count + change.get("finished", 0)
    assert sum(change.get("old", 0) for change in changes.values()) > 0, "kills came before the change was made"
    assert sum(change["beside"] for change in changes.values()) > 0, "the second writer made changes of its own"
