"""What training needs of a host whose CPU is the device: one library for matrix products, and its memory.

None of it changes a result by more than rounding. docs/training.md says how to train with all of it.
"""

import ctypes
import platform

import jax

# For a process that is about to start. XLA asks for a step's gigabytes anew each time, and the system fills them with
# zeros page by page: of 2 MB with this, of 4 KB without. Linux with glibc 2.35 or newer; others do not know it.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def product_options() -> dict[str, str]:
    """XLA's options for a compiled step: matrix products by one library.

    It has two, each with threads of its own, and where a backward pass uses both they are in each other's way. Nothing
    where XLA knows no such option: it is an experimental one.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return {}
    return options


def release_memory() -> None:
    """Give the system the memory that was freed in this process: after compiling, more than half a gigabyte.

    glibc keeps what lies between blocks in use for the next who asks, but a step's blocks are too large for it.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
