"""The file format GGUF: metadata and the places of the tensors in a header, then the tensors, most of them quantised.

    GGUF, version, counts | key, type, value … | name, shape, type, offset … | aligned tensors

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is read here, because the reader of the
package `gguf` keeps an array for each string of the vocabulary and maps the whole file; the package dequantises.
"""

import struct
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rag_jax.errors import InputError
from rag_jax.hub.tensors import Stored

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
QUANTISATIONS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The types of numbers in the metadata, as `struct` names them."""
FLOAT32, STRING, ARRAY = 6, 8, 9
MOST_DIMENSIONS = 4
CHUNK = 1 << 20  # bytes that are dequantised at a time

COPY_AGAIN = "copy or download it again"


class Metadata(dict):
    """Values by key; indexing with a missing key raises `InputError`. `source` names the file in errors."""

    def __init__(self, source: str):
        super().__init__()
        self.source = source

    def __missing__(self, key: str):
        raise InputError(f"{self.source}: has no {key!r}; convert the model again with llama.cpp")

    def number(self, key: str, default: float | None = None) -> Any:
        """A number. Raises `InputError` for a value of another kind, such as one for each layer."""
        value = self[key] if default is None else self.get(key, default)
        if not isinstance(value, int | float):
            raise InputError(f"{self.source}: {key} is {str(value)[:50]}; only a single number is supported")
        return value


class GgufFile(NamedTuple):
    """An opened file; the tensors have llama.cpp's names and torch's shapes, and are read as float32."""

    metadata: Metadata
    tensors: dict[str, Stored]


class Place(NamedTuple):
    """Where and how a tensor is stored."""

    path: Path
    offset: int  # bytes
    shape: tuple[int, ...]
    quantisation: str


@lru_cache(maxsize=1)  # a vocabulary takes seconds to read, and several callers ask for it
def _read_once(path: Path, modified: int, size: int) -> GgufFile:
    del modified, size  # of the file: another one is read again
    with path.open("rb") as file:
        return _read_header(_Header(file, path))


def read(path: Path) -> GgufFile:
    """Read the header.

    Raises `InputError` for a file that is not GGUF, is cut short, big-endian, of an unknown version or one of several
    parts, and for a tensor of a quantisation that is not supported.
    """
    try:
        status = path.stat()
        return _read_once(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a .gguf file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the header is damaged (text that is not UTF-8); {COPY_AGAIN}") from None


class _Header:
    """Reads the values of a header in order."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path, self.size = file, path, path.stat().st_size

    def bytes(self, count: int) -> bytes:
        found = self.file.read(count) if count <= self.size else b""
        if len(found) < count:
            raise InputError(f"{self.path}: ends within its header, the file is cut short; {COPY_AGAIN}")
        return found

    def numbers(self, form: str, count: int = 1) -> tuple:
        found = self.bytes(
            count * struct.calcsize(f"<{form}")
        )  # fails before a format string is built from a damaged count
        return struct.unpack(f"<{count}{form}", found)

    def text(self) -> str:
        return self.bytes(*self.numbers("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            (kind,), (count,) = self.numbers("I"), self.numbers("Q")
            if kind in NUMBERS:
                return list(self.numbers(NUMBERS[kind], count))
            return [self.value(kind) for _ in range(count)]
        if kind not in NUMBERS:
            raise self.damaged(f"a value of type {kind}")
        (value,) = self.numbers(NUMBERS[kind])
        return float(str(np.float32(value))) if kind == FLOAT32 else value  # 1e-5, not 9.99999974e-06

    def damaged(self, what: str) -> InputError:
        return InputError(f"{self.path}: the header is damaged ({what}); {COPY_AGAIN}")


def _read_header(header: _Header) -> GgufFile:
    path = header.path
    if header.size < len(MAGIC) or header.bytes(len(MAGIC)) != MAGIC:
        raise InputError(f"{path}: not a GGUF file; give one that llama.cpp can load")
    (version,) = header.numbers("I")
    if version not in VERSIONS:
        what = f"is GGUF of version {version}" if version % 2**16 else "is big-endian"
        raise InputError(f"{path}: {what}, supported are little-endian versions 2 and 3; convert the model again")
    num_tensors, num_values = header.numbers("Q", 2)
    metadata = Metadata(str(path))
    for _ in range(num_values):
        key, kind = header.text(), *header.numbers("I")
        metadata[key] = header.value(kind)
    if (parts := metadata.number("split.count", 1)) > 1:
        remedy = "merge them with llama-gguf-split --merge"
        raise InputError(f"{path}: is one of {parts} parts, and only whole files are supported; {remedy}")
    places = dict(_tensor_place(header) for _ in range(num_tensors))
    alignment = metadata.number("general.alignment", ALIGNMENT)
    if alignment < 1:
        raise header.damaged(f"an alignment of {alignment}")
    begin = -(-header.file.tell() // alignment) * alignment
    placed = {name: each._replace(offset=begin + each.offset) for name, each in places.items()}
    for name, place in placed.items():
        if place.offset + prod(place.shape[:-1]) * _row_bytes(place) > header.size:
            raise InputError(f"{path}: ends before the end of {name}, the file is cut short; {COPY_AGAIN}")
    return GgufFile(
        metadata, {name: Stored(place.shape, partial(_dequantised, place)) for name, place in placed.items()}
    )


def _tensor_place(header: _Header) -> tuple[str, Place]:
    """A tensor's name, and its place with an offset from the first tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = header.text(), *header.numbers("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise header.damaged(f"{name} has {dimensions} dimensions")
    shape = header.numbers("Q", dimensions)[::-1]  # stored with the contiguous dimension first
    (kind,), (offset,) = header.numbers("I"), header.numbers("Q")
    quantisation = {each.value: each.name for each in GGMLQuantizationType}.get(kind, f"type {kind}")
    if quantisation not in QUANTISATIONS:
        known = ", ".join(QUANTISATIONS)
        raise InputError(
            f"{header.path}: {name} is {quantisation}, supported are {known}; quantise the model as one of them"
        )
    if shape[-1] % GGML_QUANT_SIZES[GGMLQuantizationType[quantisation]][0]:
        raise header.damaged(f"{name} has rows of {shape[-1]} numbers in {quantisation}")
    return name, Place(header.path, offset, shape, quantisation)


def _row_bytes(place: Place) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType[place.quantisation]]  # of a block
    return place.shape[-1] // numbers * size


def _dequantised(place: Place) -> np.ndarray:
    """Read a tensor in chunks of rows, so that nothing else of its size is in memory."""
    from gguf import GGMLQuantizationType, dequantize

    *rows, width = place.shape
    size = _row_bytes(place)
    values = np.empty((prod(rows), width), np.float32)
    step = max(1, CHUNK // size)
    with place.path.open("rb") as file:
        file.seek(place.offset)
        for part in (values[start : start + step] for start in range(0, len(values), step)):
            stored = np.frombuffer(file.read(len(part) * size), np.uint8)
            part[:] = dequantize(stored.reshape(len(part), size), GGMLQuantizationType[place.quantisation])
    return values.reshape(place.shape)
