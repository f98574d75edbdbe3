"""The two rates that everything else is held against: a matrix product in bfloat16, and a copy in memory."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.accelerator import device
from benchmarks.accelerator.part import Record, run, spread
from benchmarks.accelerator.scale import Scale


def main(scale: Scale, weights: Path, record: Record) -> None:
    """FLOP/s of a square product, and bytes per second of a copy, read and written bytes both counted."""
    del weights
    size, rows = scale.matrix, scale.copied // 2
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16) for seed in (0, 1))
    times = device.timed(partial(jax.jit(jnp.matmul), a, b), scale.rounds)
    record(matrix=2 * size**3 / spread(times)["median"], matrix_times=times)
    held = jnp.arange(rows, dtype=jnp.uint16)
    times = device.timed(partial(jax.jit(lambda held: held + jnp.uint16(1)), held), scale.rounds)
    record(copy=2 * held.nbytes / spread(times)["median"], copy_times=times)
    single = jax.random.normal(jax.random.key(2), (size, size))
    for name in ("default", "highest"):
        product = jax.jit(partial(jnp.matmul, precision=name))
        record(
            **{
                f"matrix_float32_{name}": 2
                * size**3
                / spread(device.timed(partial(product, single, single), 3))["median"]
            }
        )


if __name__ == "__main__":
    run(main)
