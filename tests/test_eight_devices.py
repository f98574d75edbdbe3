"""Training and answering with the index over eight devices, and the program for an index of Wikipedia's size."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.extended


@lru_cache
def told() -> dict:
    """What `eight_devices.py` measured, in a process of its own: the devices are counted when JAX starts."""
    here = Path(__file__).parent / "support"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    ran = subprocess.run(
        [sys.executable, here / "eight_devices.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_eight_devices_train_as_one_does() -> None:
    assert told()["devices"] == 8
    one, eight = told()["losses"]
    np.testing.assert_allclose(eight, one, rtol=1e-6)
    assert one[2] < one[0], "something was learnt"
    assert told()["parameters"] < 1e-5


def test_eight_devices_train_adapters_as_one_does() -> None:
    one, eight = told()["lora losses"]
    np.testing.assert_allclose(eight, one, rtol=1e-6)
    assert one[2] < one[0]
    assert told()["adapters"] < 1e-4
    assert told()["split"] > 0, "adapters are split over the devices"


def test_eight_devices_answer_as_one_does() -> None:
    for name in ("rows", "answers"):
        one, eight = told()[name]
        assert one == eight
    np.testing.assert_allclose(*told()["log_probs"], rtol=1e-5)


def test_a_step_with_wikipedia_s_index_needs_no_memory_that_grows_with_it() -> None:
    memory, share = told()["wikipedia"], told()["each"]
    assert share < memory["arguments"] < 1.01 * share + 1e6, "an eighth of the index on each"
    assert memory["temporary"] < 0.05 * share
