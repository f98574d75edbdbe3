"""The verdicts on bad inputs, from a process of its own: one that has touched a device cannot be forked."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FAMILIES = (
    *("corpora", "questions", "configs", "options", "paths", "permissions", "full disks", "memory"),
    *("foreign folders", "stores", "workdirs", "towers"),
)
Verdict = dict[str, Any]


def verdicts(folder: Path, *options: str) -> list[Verdict]:
    """Run `run_cases.py` with these options."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    command = [sys.executable, str(Path(__file__).with_name("run_cases.py")), str(folder), *options]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def told(broken: Sequence[Verdict]) -> str:
    """What was typed, what is wrong with how it ended, and what it said."""
    return "\n\n".join(
        f"{each['name']}\n  rag-jax {shlex.join(each['argv'])}\n  {each['complaint']}\n  {each['err'].strip()[-600:]}"
        for each in broken
    )
