"""What the accelerator at hand can compute."""

from functools import cache
from typing import Any

import jax

BFLOAT16_PRODUCTS = 8.0  # compute capability: A100 and newer


@cache
def has_bfloat16_products() -> bool:
    """Whether every NVIDIA device of this process multiplies bfloat16 matrices; True where there is no GPU.

    V100 and T4 do not, and their kernels by Triton and cuDNN fail when they are compiled. AMD's devices have neither.
    """
    gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
    return all(_capability(device) >= BFLOAT16_PRODUCTS for device in gpus)


def _capability(device: Any) -> float:
    try:
        return float(getattr(device, "compute_capability", ""))
    except ValueError:  # gfx90a
        return 0.0
