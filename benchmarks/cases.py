"""What is decoded, and the conversation between a benchmark and the processes that it compares."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rag_jax.errors import InputError
from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig, TowerConfig

# BART's, but for the start, which it has in common with the end: random weights would repeat it, and end at once.
END, PAD, START = 2, 1, 0
TOWER, GENERATOR = "question_encoder", "generator"  # the folders of the two networks

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Sizes:
    """The networks, with random weights: a DPR question encoder and BART."""

    tower_layers: int = 12
    tower_width: int = 768
    layers: int = 6
    width: int = 768
    vocabulary: int = 50_265
    dtype: str = "float32"  # of this library; transformers computes in float32

    @property
    def tower(self) -> TowerConfig:
        """The tower's sizes, with heads of 64."""
        return registry.TOWERS[registry.DEFAULT_TOWER].config(
            width=self.tower_width,
            layers=self.tower_layers,
            heads=self.tower_width // 64,
            ffn_width=4 * self.tower_width,
        )

    @property
    def generator(self) -> GeneratorConfig:
        """The generator's sizes, with heads of 64."""
        return registry.GENERATORS[registry.DEFAULT_GENERATOR].config(
            vocab_size=self.vocabulary,
            width=self.width,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            heads=self.width // 64,
            ffn_width=4 * self.width,
        )

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Sizes":
        return cls(**json.loads(text))


SIZES = {
    "tiny": Sizes(tower_layers=1, tower_width=64, layers=1, width=64),
    "base": Sizes(),
    "large": Sizes(layers=12, width=1_024),
}


@dataclass(frozen=True)
class Case:
    """One measurement. B questions, K passages, W beams, T target tokens."""

    decoder: str = "token"  # token, thorough or fast
    questions: int = 4
    docs: int = 5
    beams: int = 4
    target: int = 16
    inputs: int = 128  # S

    def arrays(self, sizes: Sizes) -> dict[str, np.ndarray]:
        """Random questions, the passages they found and their vectors."""
        draw = np.random.default_rng(0)
        return {
            "question": draw.integers(1_000, 30_000, (self.questions, 32)),
            "passages": draw.integers(4, sizes.vocabulary - 1, (self.questions * self.docs, self.inputs)),
            "vectors": draw.normal(0, 0.05, (self.questions, self.docs, sizes.tower_width)).astype(np.float32),
        }

    def flops(self, sizes: Sizes) -> float:
        """The multiplications and additions that RAG-Token and fast decoding need at least: the floor of their time.

        Every input passes the encoder once, and every token of every beam the decoder; the beams part after the first.
        """
        w, s = sizes.width, self.inputs
        rows = self.questions * self.docs
        layer = 4 * w * w + 2 * w * 4 * w
        reading = rows * s * sizes.layers * (layer + 2 * s * w + 2 * w * w)
        tokens = rows * (1 + self.beams * (self.target - 1))
        writing = tokens * (sizes.layers * (layer + 2 * w * w + 2 * s * w) + w * sizes.vocabulary)
        tower = self.questions * 32 * sizes.tower_layers * 12 * sizes.tower_width**2
        return 2.0 * (reading + writing + tower)


TINY = Case(questions=2, beams=2, target=4, inputs=16)  # for tiny networks: whether it runs at all


class Side:
    """A process that answers requests: a module of benchmarks/ with its arguments, and variables of its environment."""

    def __init__(self, name: str, *arguments: object, **variables: str):
        command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
        root = Path(__file__).parents[1]
        self._name = name
        environment = {**os.environ, **variables}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # Ctrl-C of a terminal is for the benchmark alone, which ends its sides with itself.
        self._process = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **pipes)
        try:
            self._answer()
        except RuntimeError:
            self.end()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the other process's `serve` makes of a request."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        """Let the process go, and its memory."""
        self._process.communicate()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # it would finish what it is asked first
            self._process.kill()
        self.end()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return json.loads(line)


def is_installed(module: str) -> bool:
    """Whether what is compared with can be imported."""
    return find_spec(module) is not None


def opponent(module: str) -> None:
    """Raise `InputError` where what is compared with is not installed."""
    if not is_installed(module):
        raise InputError(f"{module}: the opponent is not installed; run pip install {module}")


def threads() -> int:
    """Threads of every side: as many as XLA takes, the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def serve(work: Callable[[dict, dict[str, np.ndarray]], Any], probe: Callable[[], float] | None = None) -> None:
    """Answer requests, one JSON object per line: seconds, peak memory and what became of the request's `inputs`."""
    say, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"ready": True}), file=say, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        inputs = dict(np.load(request["inputs"]))
        rate = probe() if probe else None
        _forget_peak()
        began = time.perf_counter()
        result = work(request, inputs)
        seconds = time.perf_counter() - began
        told = {"seconds": seconds, "peak": _peak(), "result": result, "flops/s": rate}
        print(json.dumps(told), file=say, flush=True)


def _forget_peak() -> None:
    """Start the kernel's account of this process's peak memory anew."""
    CLEAR.write_text("5")


def _peak() -> int:
    """Bytes of memory at most since then, weights and program included."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
