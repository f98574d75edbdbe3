"""A checkpoint that cannot be written is one error, without the reports of the threads that write it."""

import asyncio
import logging
import subprocess
import sys
import threading

import pytest

from rag_jax.pipeline import quiet_writers

FAILING = """
import resource, signal, sys
import jax, jax.numpy as jnp
from pathlib import Path
from rag_jax.errors import InputError
from rag_jax.pipeline.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
params = {f"layer_{n}": jnp.ones((64, 64)) for n in range(40)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    checkpoints.save_params(params)
    checkpoints.wait()
except InputError as error:
    print(error)
"""


def test_a_full_disk_is_one_line(tmp_path) -> None:
    command = [sys.executable, "-c", FAILING, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "a checkpoint cannot be written" in ran.stdout
    assert ran.stdout.count("\n") == 1
    assert ran.stderr == ""


def test_other_failures_are_reported(caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: reported.append(str(failed.exc_value)))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    quiet_writers.install.cache_clear()
    quiet_writers.install()
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert reported == ["division by zero"]
    logging.getLogger("asyncio").warning("slow")
    assert "slow" in caplog.text

    async def fails() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(0)).add_done_callback(lambda _: 1 / 0)
        await asyncio.sleep(0.01)

    asyncio.run(fails())
    assert "ZeroDivisionError" in caplog.text, "a task of the user's own"
