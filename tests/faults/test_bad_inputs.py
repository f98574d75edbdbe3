"""Bad inputs of every family: each command ends in one line and exit code 2, or in the right result."""

import os
from pathlib import Path

import pytest

from faults.ask import FAMILIES, told, verdicts

MOST = {"full disks": 40, "stores": 40, "workdirs": 20, "towers": 40}
"""Of each family, spread over all that there are, 300 of the others: some 5,200 in all take an hour."""


@pytest.mark.faults
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_inputs_meet_the_promise(family: str, ground: Path, table: list) -> None:
    if family == "permissions" and os.getuid() != 0:
        pytest.skip("only root can give a command to a user without rights")
    found = verdicts(ground, "--families", family, "--most", str(MOST.get(family, 300)))
    assert found, "a family without cases"
    broken = [each for each in found if each["complaint"]]
    table.append((family, len(found), len(found) - len(broken)))
    assert not broken, told(broken)


def test_a_sample_of_them_meets_the_promise(ground: Path) -> None:
    found = verdicts(ground, "--sample", "15")
    assert len(found) >= 15
    broken = [each for each in found if each["complaint"]]
    assert not broken, told(broken)
