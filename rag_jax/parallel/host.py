"""CPU settings: one library for matrix products, large pages, released memory. Results change by rounding only."""

import ctypes
import platform

import jax

# Set it in the environment of a new process. XLA allocates the buffers of each step anew, and the kernel zeroes them
# page by page: of 2 MB with this setting, of 4 KB without. Needs Linux with glibc 2.35 or newer; ignored elsewhere.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def product_options(matmul_precision: str = "default") -> dict[str, str]:
    """XLA options that route the matrix products of a training step to one library.

    XLA has two, Eigen and YNNPACK, each with its own threads, and they contend in a backward pass that uses both. All
    products go to Eigen, or, where factors are rounded to bfloat16, to YNNPACK, which alone multiplies these without
    widening them; nothing else goes there, since its sums over an axis are slow. Empty if this XLA lacks the option,
    which is experimental.
    """
    fused = {"default": "", "bfloat16": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    options = {"xla_cpu_experimental_ynn_fusion_type": fused[matmul_precision]}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return {}
    return options


def release_memory() -> None:
    """Return freed memory to the system: more than half a gigabyte after compiling.

    glibc keeps free blocks between used ones for later allocations, but the buffers of a step do not fit into them.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
