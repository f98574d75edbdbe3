"""Instruction tuning over eight devices, in microbatches, beside one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.extended
def test_eight_devices_train_as_one_does(tmp_path: Path) -> None:
    here = Path(__file__).parent / "support"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    ran = subprocess.run(
        [sys.executable, here / "instruction_devices.py", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["devices"] == 8
    one, eight = told["one"], told["eight"]
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
    assert np.isclose(eight["nll"], one["nll"], rtol=1e-5)
    np.testing.assert_allclose(eight["parameters"], one["parameters"], atol=1e-4)
