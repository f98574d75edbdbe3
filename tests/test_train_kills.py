"""Runs on the demo's data that are killed at random moments, and end as the one that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 20


@pytest.mark.slow
def test_killed_runs_end_as_the_one_that_was_not(tmp_path: Path) -> None:
    here = Path(__file__).parent / "support"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, here / "train_kills.py", tmp_path, str(COUNT)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    print(told)
    assert told["killed"] == told["same"] == COUNT
    assert len(told["newest checkpoint"]) > 2, "the kills came at too few moments"
