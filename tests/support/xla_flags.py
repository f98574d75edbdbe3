"""XLA's flags for processes of the tests. One that it does not know would abort them, so it is asked first."""

import os
import subprocess
import sys
from functools import cache

# Without its newer code generator for fusions XLA compiles the tests' programs in half the time. Of jaxlib 0.10.
QUICK = "--xla_cpu_use_fusion_emitters=false"


def flags(devices: int) -> str:
    """So many devices on any machine, and quick compilation where there is a flag for it."""
    return " ".join([f"--xla_force_host_platform_device_count={devices}", *([QUICK] if known(QUICK) else [])])


@cache
def known(flag: str) -> bool:
    """Whether a process starts with this flag. This one is proof enough where it has started with it."""
    if flag in os.environ.get("XLA_FLAGS", ""):
        return True
    environment = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    return not subprocess.run(
        [sys.executable, "-c", START], env=environment, capture_output=True, check=False
    ).returncode


START = "import jax; jax.devices()"
