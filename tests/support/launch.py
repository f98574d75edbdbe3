"""Training as users start it: the command in processes of its own, with as many virtual devices as asked for."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.config.files import save_config
from xla_flags import flags

ROOT = Path(__file__).parents[2]


def write(config: Config, folder: Path) -> Path:
    """A config file that stands for a config."""
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "given.json")
    path = folder / "given.py"
    lines = (
        "from pathlib import Path",
        "from rag_jax.config.files import load_config",
        "config = load_config(Path({!r}))",
    )
    path.write_text("\n".join(lines).format(str(folder / "given.json")) + "\n")
    return path


def start(*arguments: object, devices: int = 1, optimised: bool = False) -> subprocess.Popen[str]:
    """`python train.py`, under way; what is compiled once and runs for seconds is not worth optimising."""
    environment = os.environ | {"XLA_FLAGS": flags(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(not optimised))}
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def together(arguments: Sequence[object], processes: int, devices: int) -> list[subprocess.Popen[str]]:
    """As many processes of one run, each with so many devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = "--coordinator", f"localhost:{port}", "--processes", processes
    return [start(*arguments, *shared, "--process", number, devices=devices) for number in range(processes)]


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What the process said on its standard error, having ended as expected."""
    said, complained = process.communicate(timeout=900)
    assert process.returncode == code, f"{process.returncode}\n{said}\n{complained}"
    return complained
