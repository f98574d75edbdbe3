"""The two rates that everything else is held against: a matrix product in bfloat16, and a copy in memory."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.accelerator import device
from benchmarks.accelerator.part import Record, run, spread
from benchmarks.accelerator.scale import Scale

CALLS = 10  # queued at once


def main(scale: Scale, weights: Path, record: Record) -> None:
    """FLOP/s of a square product, and bytes per second of a copy, read and written bytes both counted."""
    del weights
    size, rows = scale.matrix, scale.copied // 4
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16) for seed in (0, 1))
    times = in_a_row(partial(jax.jit(jnp.matmul), a, b), scale.rounds)
    record(matrix=2 * size**3 / spread(times)["median"], matrix_times=times)
    held = jnp.arange(rows, dtype=jnp.uint32)
    times = in_a_row(partial(jax.jit(lambda held: held + jnp.uint32(1)), held), scale.rounds)
    record(copy=2 * held.nbytes / spread(times)["median"], copy_times=times)
    single = jax.random.normal(jax.random.key(2), (size, size))
    for name in ("default", "highest"):
        product = jax.jit(partial(jnp.matmul, precision=name))
        times = in_a_row(partial(product, single, single), 3)
        record(**{f"matrix_float32_{name}": 2 * size**3 / spread(times)["median"]})


def in_a_row(call: Callable[[], jax.Array], rounds: int) -> list[float]:
    """Seconds of a call where several are queued before the last is waited for, as programs queue their kernels."""

    def several() -> jax.Array:
        for _ in range(CALLS - 1):
            call()
        return call()

    return [each / CALLS for each in device.timed(several, rounds)]


if __name__ == "__main__":
    run(main)
