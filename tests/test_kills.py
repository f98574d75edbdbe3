"""A hundred kills of each change to a store: every time it opens, and is the old or the new version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_store_survives_a_hundred_kills_of_each_change(tmp_path: Path) -> None:
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    command = [sys.executable, here / "kills.py", tmp_path, "100"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    print(told)
    for change in ("build", "add", "swap"):
        assert told[change]["killed"] == 100
        assert told[change]["old"] > 20, "most kills came before the change was made"
