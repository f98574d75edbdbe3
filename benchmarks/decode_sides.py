"""What decoding is compared with, and why a side has no figure for a case."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import is_installed
from benchmarks.conversation import Side


class Kind(NamedTuple):
    """A side: what is started, and what it cannot do."""

    module: str  # of benchmarks/
    arguments: tuple[str, ...] = ()  # behind the folder of the weights
    needs: str | None = None  # the module that must be there
    package: str | None = None  # what is installed to have it
    cannot: Mapping[str, str] = {}  # decoder -> why
    remedy: str | None = None  # how it is installed, where the module's name does not say it
    settings: Mapping[str, str] = {}  # of its process: `python`, an interpreter, and variables of the environment


OURS, OURS_BFLOAT16 = "rag_jax", "rag_jax bfloat16"  # with `compute.matmul_precision` bfloat16
NO_MIXTURE, NO_FAST = "cannot mix passages within a step", "has no fast decoding"
SIDES = {
    OURS: Kind("ours"),
    OURS_BFLOAT16: Kind("ours"),
    "transformers": Kind("theirs", ("float32",), "torch", "transformers", {"fast": NO_FAST}),
    "transformers bfloat16": Kind("theirs", ("bfloat16",), "torch", "transformers", {"fast": NO_FAST}),
    "ctranslate2 float32": Kind("ct2", ("float32",), "ctranslate2", "ctranslate2", {"token": NO_MIXTURE}),
    "ctranslate2 int8": Kind("ct2", ("int8",), "ctranslate2", "ctranslate2", {"token": NO_MIXTURE}),
}

Told = dict[str, Any]


class Sides:
    """The processes. One that is not installed or fails leaves its reason in place of figures; ours must not."""

    def __init__(self, stack: ExitStack, kinds: Mapping[str, Kind], folder: Path):
        self._kinds, self._running, self._missing = dict(kinds), dict[str, Side](), dict[str, str]()
        for name, kind in kinds.items():
            if kind.needs is not None and not is_installed(kind.needs):
                self._missing[name] = f"not installed: {kind.remedy or f'pip install {kind.needs}'}"
                continue
            try:
                side = Side(kind.module, folder, *kind.arguments, **kind.settings)
            except (RuntimeError, OSError) as error:
                self._fail(name, error)
                continue
            self._running[name] = stack.enter_context(side)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    def ask(self, case: Mapping[str, Any], inputs: Path) -> dict[str, Told]:
        """What each makes of a case, in turn, or `{"missing": why}`."""
        return {name: self._ask(name, case, inputs) for name in self._kinds}

    def _ask(self, name: str, case: Mapping[str, Any], inputs: Path) -> Told:
        why = self._missing.get(name, self._kinds[name].cannot.get(case["decoder"]))
        if why is not None:
            return {"missing": why}
        try:
            return self._running[name].ask(case=case, inputs=str(inputs))
        except (RuntimeError, BrokenPipeError) as error:
            self._fail(name, error)
            return {"missing": self._missing[name]}

    def _fail(self, name: str, error: Exception) -> None:
        if name in (OURS, OURS_BFLOAT16):
            raise error
        self._missing[name] = f"failed: {error}"
