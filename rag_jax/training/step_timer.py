"""Throughput of a run, model FLOPs utilisation, and the share of time by section."""

import re
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax

from rag_jax.index.engines.registry import ENGINES
from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.pipeline.components import Components
from rag_jax.types import Knowledge, Retrieved, Tokens

PEAK = {  # dense bfloat16 FLOP/s as the vendors state them, by a part of the device name
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}


class StepTimer:
    """Times the sections of a window of steps: `with step_timer("input"): ...`.

    Args:
        searching: seconds of each step that its compiled search takes, measured apart (`search_seconds`).
        devices: of the run's mesh.
    """

    def __init__(self, searching: float = 0.0, devices: int = 1) -> None:
        self._searching, self._devices = searching, devices
        self._begin()

    def _begin(self) -> None:
        self._since, self._spent = time.perf_counter(), defaultdict(float)
        self._examples = self._steps = 0

    @property
    def seconds(self) -> float:
        """The time since the last window."""
        return time.perf_counter() - self._since

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Time a section; the time of a nested section counts for that one only."""
        began, before = time.perf_counter(), sum(self._spent.values())
        yield
        inside = sum(self._spent.values()) - before
        self._spent[section] += time.perf_counter() - began - inside

    def saw(self, examples: int) -> None:
        """Count one step and its examples."""
        self._examples += examples
        self._steps += 1

    def close(self, tokens: float, flops: float) -> dict[str, float]:
        """Rates over the window and the share of time in each section; `mfu` where the devices' peak is known.

        `tokens` and `flops` are those of one question, see `work`.
        """
        seconds = self.seconds
        rate = self._examples / seconds
        if self._searching:
            self._spent["retrieval"] = self._searching * self._steps
        timings = {
            "seconds": seconds,
            "examples/s": rate,
            "tokens/s": rate * tokens,
            "model_flops/s": rate * flops,
            "memory": float(memory()),
            **{f"time/{name}": spent / seconds for name, spent in self._spent.items()},
        }
        most = peak()
        if most is not None:
            timings["mfu"] = timings["model_flops/s"] / (self._devices * most)
        self._begin()
        return timings


def search_seconds(components: Components) -> float:
    """Seconds of the search in a compiled training step: the median of three runs of it alone; 0 without a search."""
    c, recipe = components.config, components.recipe
    if not (c.searches and ENGINES[c.retriever.engine].in_step):
        return 0.0
    asked = c.batch_size // recipe.num_microbatches, components.bi_encoder.config.vector_width
    wanted = c.retriever.candidates or c.retriever.prior_docs or recipe.num_docs

    def search(knowledge: Knowledge) -> tuple[Retrieved, Tokens]:
        queries = jax.random.normal(jax.random.key(0), asked)
        rows = recipe.retrieve(recipe.lookup, queries, knowledge, wanted, None)
        return recipe.lookup.gather(queries, knowledge, rows)

    run, times = jax.jit(search, out_shardings=components.placement.replicated), []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(run(components.knowledge))
        times.append(time.perf_counter() - began)
    return recipe.num_microbatches * statistics.median(times[1:])  # the first one compiles


def flops(
    tower: TowerConfig,
    reader: GeneratorConfig,
    batch: int,
    k: int,
    lengths: tuple[float, float, float],
    trains_tower: bool,
    fuses: bool = False,
) -> float:
    """Model FLOPs of one step: two per weight and token, plus attention.

    `lengths` are Q, S and T. A trained network costs three forward passes; recomputation is not counted. With `fuses`
    a target is decoded once, over all K inputs.
    """
    q, s, t = map(float, lengths)
    asked = batch * registry.tower_of(tower).flops(tower, q)
    of_row = partial(registry.generator_of(reader).flops, reader)
    read = batch * (k * of_row(s, 0.0) + of_row(k * s, t) - of_row(k * s, 0.0) if fuses else k * of_row(s, t))
    return 3.0 * read + (3.0 if trains_tower else 1.0) * asked


def passage_flops(components: Components, tokens: Tokens | None) -> float:
    """Model FLOPs of a trained passage tower for one question of a step; 0 where it is not trained.

    The passages of the prior cost three forward passes, candidates and a step's share of the `[N, P]` tokens one.
    """
    c, size = components.config.retriever, components.bi_encoder.passage_encoder
    if tokens is None or size is None or size.config is None:
        return 0.0
    rows, length = tokens.ids.shape
    refreshed = 0.0 if c.refresh_every is None else rows / c.refresh_every / components.config.batch_size
    passages = 3 * (c.prior_docs or components.num_docs) + (c.candidates or 0) + refreshed
    return passages * registry.tower_of(size.config).flops(size.config, float(length))


def peak() -> float | None:
    """Peak FLOP/s of a device; None for an unknown one."""
    kind = jax.devices()[0].device_kind
    return next((rate for name, rate in PEAK.items() if re.search(rf"\b{name}(?!\d)", kind)), None)


def memory() -> int:
    """Peak bytes in use on the first local device; on a backend without statistics, of the process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
