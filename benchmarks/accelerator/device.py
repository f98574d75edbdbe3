"""The accelerator under JAX: timing, memory, and its longest kernels."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.accelerator.part import reason, seconds

# What compilers and kernels raise for a size or a device that they do not support: that row says so, the rest runs.
FAILURES = (RuntimeError, ValueError)  # JaxRuntimeError and NotImplementedError are RuntimeErrors


def timed(call: Callable[[], Any], rounds: int) -> list[float]:
    """Seconds until the results are there, after one call to warm up."""
    jax.block_until_ready(call())
    return seconds(lambda: jax.block_until_ready(call()), rounds)


def compiled(function: Any, *arguments: Any) -> tuple[Callable, float, dict[str, float]]:
    """A jitted function ahead of time, the seconds that compiling took, and the bytes of its temporaries and of all."""
    began = time.perf_counter()
    program = function.lower(*arguments).compile()
    took, analysis = time.perf_counter() - began, program.memory_analysis()
    temporary = float(getattr(analysis, "temp_size_in_bytes", 0))
    arrays = sum(float(getattr(analysis, f"{each}_size_in_bytes", 0)) for each in ("argument", "output"))
    donated = float(getattr(analysis, "alias_size_in_bytes", 0))
    return program, took, {"temporary": temporary, "peak": temporary + arrays - donated}


def limit() -> int | None:
    """Bytes that the device's allocator may take; None where it keeps no account (a CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def longest_kernels(call: Callable[[], Any], count: int = 10) -> list[dict[str, Any]]:
    """The kernels of a call that take longest: name, share of all kernels' time, milliseconds, launches.

    Empty where the profiler sees no device (a CPU's kernels are no events of their own), or fails: what was measured
    before is worth more.
    """
    try:
        return _longest_kernels(call, count)
    except Exception as error:
        print(f"no profile: {reason(error)}")
        return []


def _longest_kernels(call: Callable[[], Any], count: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        traces = [jax.profiler.ProfileData.from_file(str(path)) for path in Path(folder).rglob("*.xplane.pb")]
    spent, launches = Counter(), Counter()
    for trace in traces:
        for plane in trace.planes:
            if not plane.name.startswith("/device:"):
                continue
            for line in plane.lines:
                if not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    spent[event.name] += event.duration_ns
                    launches[event.name] += 1
    total = sum(spent.values())
    return [
        {"kernel": name, "share": held / total, "ms": held / 1e6, "launches": launches[name]}
        for name, held in spent.most_common(count)
    ]
