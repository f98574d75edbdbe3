"""What makes training fast where the device is a CPU: one library for matrix products, and memory that is kept.

Neither changes a result by more than rounding. docs/performance.md has what each of them saves.
"""

import ctypes
import platform

import jax

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h
NEVER = -1


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


def keep_memory() -> None:
    """Let this process keep what a step has used for the next one.

    XLA asks for a step's gigabytes anew each time, and glibc gives each back to the system, which fills it with zeros
    page by page when it is asked again. Call it before anything else touches JAX, whose threads otherwise have arenas
    of their own.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER)):
        libc.mallopt(option, value)
