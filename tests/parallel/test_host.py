"""What a CPU needs: an XLA option that is a known one, and memory that comes in large pages."""

import os
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from rag_jax.parallel import host

FAULTS = """
import resource, jax, jax.numpy as jnp

def work(x):
    return jax.lax.fori_loop(0, 2, lambda _, y: jnp.sin(y) + y[::-1], jnp.full((50_000_000,), x)).sum()

program, faults = jax.jit(work), []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(1.0).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[3:]))
"""


def test_a_program_with_the_options_computes_the_same() -> None:
    x = jax.random.normal(jax.random.key(0), (64, 32))
    product = jax.jit(lambda x: x @ x.T, compiler_options=host.product_options())
    assert jnp.allclose(product(x), x @ x.T, rtol=1e-5)
    assert "ynn" not in product.lower(x).compile().as_text()


@pytest.mark.extended
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_pages_are_fewer() -> None:
    def faults(**variables: str) -> int:
        environment = {**os.environ, **variables}
        command = [sys.executable, "-c", FAULTS]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert 4 * faults(**host.LARGE_PAGES) < faults()


HELD = """
import ctypes
from pathlib import Path
from rag_jax.parallel import host

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(65_536) for _ in range(4_000)]
for block in blocks:
    ctypes.memset(block, 1, 65_536)
for block in blocks[:-1]:  # the last one keeps the heap from shrinking
    libc.free(block)
before = held()
host.release_memory()
print(before - held())
"""


@pytest.mark.extended
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_between_blocks_in_use_is_given_back() -> None:
    told = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout
    assert int(told) > 200e6
