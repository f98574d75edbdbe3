"""GradCache's memory: a large batch in chunks, the same batch at once, and a batch of one chunk's questions at once.

A process each. A step is taken only where the memory that XLA plans for it is free; otherwise the plan is all that is
reported.
"""

from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.conversation import Side
from benchmarks.retriever_cases import Inputs, Options, written
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive.towers import Towers
from rag_jax.parallel.host import LARGE_PAGES

MEMINFO = Path("/proc/meminfo")
SPARE = 0.9  # of the free memory may be used
STEPS = 2  # the first is not timed: it pays for its memory


def measure(known: Options, loaded: Towers, folder: Path) -> list[dict[str, Any]]:
    """The three cases, the smallest first, with seconds of a step, its peak memory and the loss of the first step."""
    results = []
    for config in configs(known):
        size, chunk = config.batch_size, config.contrastive.chunk
        inputs = written(config, loaded, 1, folder / f"{size}-{chunk}")
        results.append({"batch_size": size, "chunk": chunk, **steps(inputs)})
    return results


def configs(known: Options) -> list[ContrastiveConfig]:
    """Those of the cases. Raises `InputError` for a chunk that does not divide the large batch and its groups."""
    cases = (known.chunk, None), (known.large_batch, known.chunk), (known.large_batch, None)
    return [known.config(size, chunk) for size, chunk in cases]


def steps(inputs: Inputs) -> dict[str, Any]:
    """Steps on one batch. Bytes `planned` are what the step's temporary arrays need."""
    (batch,) = map(str, inputs.batches)
    with Side("retriever_ours", inputs.config, inputs.layout, **LARGE_PAGES) as side:
        planned = side.ask(inputs=batch, plan=True)["result"]
        if planned > SPARE * available():
            return {"planned": planned}
        told = [side.ask(inputs=batch) for _ in range(STEPS)]
    return {"planned": planned, "seconds": told[-1]["seconds"], "peak": told[-1]["peak"], "loss": told[0]["result"]}


def available() -> int:
    """Bytes of memory that new work may use without swapping."""
    line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def shown(results: list[dict[str, Any]]) -> Table:
    """A row for each case."""
    table = Table("batch", "seconds a step", "peak GB", "XLA's arrays, GB", box=None, pad_edge=False)
    for each in results:
        name = f"{each['batch_size']}" + (f" in chunks of {each['chunk']}" if each["chunk"] else " at once")
        taken = (f"{each['seconds']:.2f}", f"{each['peak'] / 1e9:.2f}") if "seconds" in each else ("does not fit", "")
        table.add_row(name, *taken, f"{each['planned'] / 1e9:.2f}")
    return table
