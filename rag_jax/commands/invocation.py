"""How a user starts `rag-jax` from the current folder, for messages that name the next command."""

import os
import shutil
import sys
from pathlib import Path


def invocation() -> str:
    """`rag-jax` where it is on the PATH, else the script beside this Python, else `python -m rag_jax`."""
    script = Path(sys.executable).with_name("rag-jax")
    if shutil.which("rag-jax"):
        return "rag-jax"
    return os.path.relpath(script) if script.exists() else f"{os.path.basename(sys.executable)} -m rag_jax"
