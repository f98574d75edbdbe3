"""The opponent: transformers' generate in bfloat16 with SDPA, and with a compiled decoder where that works."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.accelerator.part import Record, reason, run, seconds, spread
from benchmarks.accelerator.scale import Scale
from benchmarks.theirs import generated, load


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Seconds of a batch for each decoder."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    case = scale.decode
    given = {name: torch.from_numpy(array).to(where) for name, array in case.arrays(scale.networks).items()}
    told: list[dict[str, Any]] = []

    def measure(name: str, model: str, rounds: int, change: Callable[[Any], None] | None = None) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            rag = load(model, weights).to(where, torch.bfloat16)
            if change is not None:
                change(rag)

            answers: list[list[list[int]]] = []

            def answer() -> None:
                answers.append(generated(rag, given, case))

            if rounds > 1:  # to warm up
                answer()
            times = seconds(answer, rounds)
            found: dict[str, Any] = spread(times) | {"answers": answers[-1], "peak": peak(), "cold": rounds == 1}
            found["questions/s"] = case.questions / found["median"]
        except Exception as error:  # whatever fails over there is a row of the table
            found = {"error": reason(error)}
        told.append({"name": name} | found)
        record(decoders=told)

    measure("token", "token", 3)
    measure("thorough", "sequence", 1)
    measure("token, decoder compiled", "token", 3, compile_decoder)


def compile_decoder(rag: Any) -> None:
    """torch.compile on the decoder, whose shapes grow with every token."""
    decoder = rag.rag.generator.model.decoder
    decoder.forward = torch.compile(decoder.forward, dynamic=True)


def peak() -> int | None:
    """The most bytes of the device's memory in use."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


if __name__ == "__main__":
    run(main)
