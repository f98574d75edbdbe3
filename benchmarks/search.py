"""The exact search beside FAISS's, in turn on the same vectors: rag-jax benchmark search [--passages N] [--width D]

Both get one query, eight and sixty-four; K = 10. Vectors are random and of length one. Also timed and measured against
the exact search: vectors in bfloat16 and int8.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from rag_jax.config.command_line import parse
from rag_jax.core import retrieval
from rag_jax.core.vectors import quantize_int8
from rag_jax.data.validation import Seed, validate_value
from rag_jax.errors import InputError

K = 10


@dataclass(frozen=True)
class SearchBenchmark:
    """Time the exact search beside faiss.IndexFlatIP."""

    passages: int = 400_000
    width: int = 768
    queries: tuple[int, ...] = (1, 8, 64)
    rounds: int = 7
    seed: int = 0


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    case = parse(
        SearchBenchmark,
        arguments,
        remedy="rag-jax benchmark search --help lists all options",
        prog="rag-jax benchmark search",
    )
    if min(case.passages, case.width, case.rounds, *case.queries) < 1:
        raise InputError("passages, width, queries and rounds: one is below 1; give numbers above 0")
    validate_value(Seed, case.seed, "seed")
    import faiss

    vectors = unit(case.passages, case.width, case.seed)
    flat = faiss.IndexFlatIP(case.width)
    flat.add(vectors)
    device = jax.device_put(vectors)
    kinds = {"float32": device, "bfloat16": device.astype("bfloat16"), "int8": jax.jit(quantize_int8)(device)}
    search = jax.jit(partial(retrieval.exact_top_k, k=K))
    table = Table("queries", "engine", "ms (range)", "x FAISS", "same ids / recall@10", box=None, pad_edge=False)
    for count in case.queries:
        queries = unit(count, case.width, case.seed + count)
        engines: dict[str, Callable[[], Any]] = {"FAISS Flat": partial(flat.search, queries, K)}
        engines |= {name: partial(searched, search, queries, kind) for name, kind in kinds.items()}
        found = {name: engine()[1] for name, engine in engines.items()}
        times = in_turn(engines, case.rounds)
        usual = statistics.median(times["FAISS Flat"])
        for name, seconds in times.items():
            shared = np.mean([len(set(a) & set(b)) / K for a, b in zip(found[name], found["FAISS Flat"], strict=True)])
            same = "" if name == "FAISS Flat" else f"{shared:.4f}"
            range_ = f"{1e3 * statistics.median(seconds):.0f} ({1e3 * min(seconds):.0f}-{1e3 * max(seconds):.0f})"
            table.add_row(str(count), name, range_, f"{usual / statistics.median(seconds):.2f}", same)
    Console().print(table)


def unit(count: int, width: int, seed: int) -> np.ndarray:
    """Random vectors of length one."""
    vectors = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def searched(search: Callable, queries: np.ndarray, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids, on the host."""
    scores, ids = search(queries, vectors)
    return np.asarray(scores), np.asarray(ids)


def in_turn(engines: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each, one after the other in every round, so that what else the machine does meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine()
            times[name].append(time.perf_counter() - began)
    return times
