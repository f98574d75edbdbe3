"""What decoding is compared with, and why a side has no figure for a case."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import Case, Side, Sizes, is_installed


class Kind(NamedTuple):
    """A side: what is started, and what it cannot do."""

    module: str  # of benchmarks/
    arguments: tuple[str, ...] = ()  # behind the folder of the weights
    needs: str | None = None  # the module that must be there
    package: str | None = None  # what is installed to have it
    cannot: Mapping[str, str] = {}  # decoder -> why


OURS = "rag_jax"
_NO_MIXTURE = {"token": "cannot mix passages within a step"}
SIDES = {
    OURS: Kind("ours"),
    "transformers": Kind("theirs", (), "torch", "transformers", {"fast": "has no fast decoding"}),
    "ctranslate2 float32": Kind("ct2", ("float32",), "ctranslate2", "ctranslate2", _NO_MIXTURE),
    "ctranslate2 int8": Kind("ct2", ("int8",), "ctranslate2", "ctranslate2", _NO_MIXTURE),
}

Told = dict[str, Any]


class Sides:
    """The processes. One that is not installed or fails leaves its reason in place of figures; ours must not."""

    def __init__(self, stack: ExitStack, names: Sequence[str], sizes: Sizes, folder: Path):
        self.names, self._running, self._missing = tuple(names), dict[str, Side](), dict[str, str]()
        for name in names:
            kind = SIDES[name]
            arguments = (sizes,) if name == OURS else ()
            if kind.needs is not None and not is_installed(kind.needs):
                self._missing[name] = f"not installed: pip install {kind.needs}"
                continue
            try:
                side = Side(kind.module, *arguments, folder, *kind.arguments)
            except RuntimeError as error:
                self._fail(name, error)
                continue
            self._running[name] = stack.enter_context(side)

    def ask(self, case: Case, inputs: Path) -> dict[str, Told]:
        """What each makes of a case, in turn, or `{"missing": why}`."""
        return {name: self._ask(name, case, inputs) for name in self.names}

    def _ask(self, name: str, case: Case, inputs: Path) -> Told:
        why = self._missing.get(name, SIDES[name].cannot.get(case.decoder))
        if why is not None:
            return {"missing": why}
        try:
            return self._running[name].ask(case=asdict(case), inputs=str(inputs))
        except (RuntimeError, BrokenPipeError) as error:
            self._fail(name, error)
            return {"missing": self._missing[name]}

    def _fail(self, name: str, error: Exception) -> None:
        if name == OURS:
            raise error
        self._missing[name] = f"failed: {error}"
