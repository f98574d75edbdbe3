"""A decoder-only generator with real weights, beside transformers and llama.cpp: rag-jax benchmark smollm2

SmolLM2-135M-Instruct reads paragraphs of Python's language reference, in float32, and here and in torch with products
in bfloat16 too. Every side is a process that holds the same weights, has the same number of threads and gets the same
inputs in turn: RAG-Token decoding, greedy decoding, and steps of training. No answer ends early, so that all sides
write as many tokens.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from rich.console import Console

from benchmarks import smollm2_model
from benchmarks.decode import machine
from benchmarks.decode_sides import NO_MIXTURE, OURS, OURS_BFLOAT16, Kind, Sides
from benchmarks.decode_table import compared, shown
from benchmarks.smollm2_cases import CASES, MIXTURE, TINY, Case
from benchmarks.smollm2_inputs import arrays
from rag_jax import RAG
from rag_jax.config.command_line import parse
from rag_jax.data.outputs import new_json
from rag_jax.errors import InputError, report_errors
from rag_jax.hub import resolve
from rag_jax.parallel.host import LARGE_PAGES

Name = Literal["rag-token", "greedy", "training"]


@dataclass(frozen=True)
class Options:
    """Time a decoder-only generator beside transformers and llama.cpp, in one run on the same weights and inputs."""

    json: Path | None = None  # write the figures here
    size: Literal["tiny", "135m"] = "135m"  # tiny: random weights and small cases
    cases: tuple[Name, ...] = ("rag-token", "greedy", "training")
    rounds: int = 3  # warm repetitions, the sides in turn
    opponents: tuple[Literal["transformers", "llama.cpp"], ...] = ("transformers", "llama.cpp")
    llama_cpp: Path | None = None  # an interpreter that has llama-cpp-python; None: this one


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with report_errors():
        remedy = "rag-jax benchmark smollm2 --help lists all options"
        given = sys.argv[1:] if arguments is None else arguments
        known = parse(Options, given, remedy=remedy, prog="rag-jax benchmark smollm2")
        if known.rounds < 1:
            raise InputError(f"rounds is {known.rounds}; give 1 or more, the cold one is not counted")
        if known.size != "tiny":
            smollm2_model.check_installed()
        console, results = Console(), []
        with new_json(known.json) as write, TemporaryDirectory() as made:
            folder = Path(made)
            smollm2_model.save(folder, tiny=known.size == "tiny")
            rag = smollm2_model.load(folder)
            for name in known.cases:
                with ExitStack() as stack:
                    sides = Sides(stack, kinds(name, known), folder)
                    for case in (TINY if known.size == "tiny" else CASES)[name]:
                        console.print(f"measuring {case} …", highlight=False, soft_wrap=True)
                        results.append(measure(case, rag, sides, folder, known.rounds))
                        write({"machine": machine(), "size": known.size, "results": results})
    for each in shown(results):
        console.print(each, highlight=False)


def kinds(name: Name, known: Options) -> dict[str, Kind]:
    """The sides of some cases: this library and the opponents that can be compared with it."""
    part = "smollm2_train_" if name == "training" else "smollm2_"
    settings = LARGE_PAGES if name == "training" else {}
    precisions = {OURS: "default", OURS_BFLOAT16: "bfloat16"}
    sides = {side: Kind(f"{part}ours", (how,), settings=settings) for side, how in precisions.items()}
    if "transformers" in known.opponents:
        dtypes = {"transformers": "float32", "transformers bfloat16": "bfloat16"}
        sides |= {side: Kind(f"{part}theirs", (how,), "torch", settings=settings) for side, how in dtypes.items()}
    if "llama.cpp" in known.opponents and known.size != "tiny" and name != "training":
        source = str(resolve(smollm2_model.SOURCE))
        for dtype in ("float32", "q8_0"):
            sides[f"llama.cpp {dtype}"] = _llama((source, dtype), known.llama_cpp)
    return sides


def _llama(arguments: tuple[str, ...], interpreter: Path | None) -> Kind:
    kind = Kind("smollm2_llama", arguments, cannot={MIXTURE: NO_MIXTURE})
    if interpreter is not None:
        return kind._replace(settings={"python": os.path.abspath(interpreter)})
    remedy = "pip install llama-cpp-python, here or where --llama-cpp names an interpreter"
    return kind._replace(needs="llama_cpp", remedy=remedy)


def measure(case: Case, rag: RAG, sides: Sides, folder: Path, rounds: int) -> dict[str, Any]:
    """A case on every side, cold and then warm in turn."""
    told, inputs = arrays(case, rag), folder / "inputs.npz"
    np.savez(inputs, **told)  # pyright: ignore[reportArgumentType]
    runs = [sides.ask(asdict(case), inputs) for _ in range(1 + rounds)]
    for side in (side for run in runs for side in run.values() if "tokens" in side.get("result", {})):
        side["result"]["answers"] = list(map(rag.components.generator_tokenizer.text, side["result"].pop("tokens")))
    lengths = (told["prompt_lengths"] - 1).tolist(), told["label_lengths"].tolist()
    flops = case.flops(rag.components.generator.config, *lengths)
    return compared(asdict(case), flops, {name: [each[name] for each in runs] for name in sides.names})


if __name__ == "__main__":
    main()
