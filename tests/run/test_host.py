"""What a CPU needs: an XLA option that is a known one, and memory that a second call finds where the first left it."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from rag_jax.run import host

FAULTS = """
import resource, sys
from rag_jax.run import host
if "keep" in sys.argv:
    host.keep_memory()
import jax, jax.numpy as jnp

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_kept_memory_is_not_asked_for_again() -> None:
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FAULTS, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 1_000 < faults()
