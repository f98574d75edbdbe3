"""Estimates for an index of any size: bytes of each part, number of devices, and the lower bound of a search's time.

A search reads every vector once, so its time is at least their size divided by the memory bandwidth; inner products
need few operations per byte, which only matter for large batches of questions.
"""

from dataclasses import dataclass

import numpy as np

from rag_jax.errors import InputError
from rag_jax.index.passage_tokenizer import token_type
from rag_jax.index.placement import Precision, padded_rows

BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
RESERVE = 0.85  # fraction of a device's memory for the index; networks and their states need the rest


@dataclass(frozen=True)
class Device:
    """An accelerator."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes / s


DEVICES = (
    Device("A100 40 GB", 40e9, 1.555e12),
    Device("A100 80 GB", 80e9, 2.039e12),
    Device("H100 80 GB", 80e9, 3.35e12),
    Device("H200 141 GB", 141e9, 4.8e12),
    Device("TPU v4 32 GB", 32e9, 1.228e12),
    Device("TPU v5p 95 GB", 95e9, 2.765e12),
)


@dataclass(frozen=True)
class IndexSize:
    """An index: N passages, D numbers in a vector, P tokens of a generator's vocabulary in a passage."""

    passages: int
    width: int = 768
    tokens: int = 160
    vocabulary: int = 50_265

    def __post_init__(self) -> None:
        for name in ("passages", "width", "tokens", "vocabulary"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; give 1 or more")

    def parts(self, precision: Precision, shards: int = 1) -> dict[str, int]:
        """Bytes on the devices, by part."""
        rows = padded_rows(self.passages, shards)
        return {
            "vectors": rows * self.width * BYTES[precision] + (4 * rows if precision == "int8" else 0),
            "tokens": rows * (np.dtype(token_type(self.vocabulary)).itemsize * self.tokens + 4),
            "alive": rows,
        }

    def devices(self, precision: Precision, device: Device) -> int:
        """The number of devices that hold it."""
        return int(np.ceil(sum(self.parts(precision).values()) / (RESERVE * device.memory)))

    def roofline(self, precision: Precision, device: Device) -> float:
        """Seconds to read all vectors at the full bandwidth of `devices(precision, device)` devices."""
        return self.parts(precision)["vectors"] / (device.bandwidth * self.devices(precision, device))
