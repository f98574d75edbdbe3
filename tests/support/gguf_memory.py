"""What loading a GGUF file takes.

    python tests/support/gguf_memory.py FILE

prints how many bytes the parameters and the process's peak take.
"""

import json
import resource
import sys

import jax
import jax.numpy as jnp

from rag_jax.hub import load_generator


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(8)))
    before = peak()
    loaded = load_generator(sys.argv[1])
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
    print(json.dumps({"parameters": held, "peak": peak() - before}))
