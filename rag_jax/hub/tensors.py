"""Lazy access to the tensors of a checkpoint folder: a tensor takes no memory until it is read.

Safetensors, in one file or in shards, are read as they are. `pytorch_model.bin` is a pickle, and goes through torch's
`weights_only` loader, which builds tensors and nothing else.
"""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401 (numpy learns bfloat16 from it)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rag_jax.data import files, strict_json
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError

SHARD_BYTES = 4 << 30
DTYPES = ("F64", "F32", "F16", "BF16")  # of weights, as safetensors calls them


class Stored(NamedTuple):
    """A tensor that is read on demand and not cached."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


Tensors = Mapping[str, Stored]


def in_memory(arrays: Mapping[str, np.ndarray]) -> dict[str, Stored]:
    """Arrays as stored tensors."""
    return {name: Stored(array.shape, lambda array=array: array) for name, array in arrays.items()}


def read_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint folder by their stored names.

    Raises `InputError` for a folder without weights, a file that is truncated or missing, and a `.bin` where torch is
    not installed or that holds more than tensors.
    """
    for name, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", _bin)):
        if (folder / name).exists():
            return read(folder / name)
        if (folder / f"{name}.index.json").exists():
            shards = _shards(folder / f"{name}.index.json")
            return {name: tensor for shard in shards for name, tensor in read(shard).items()}
    elsewhere = [path.name for path in (*folder.glob("*.h5"), *folder.glob("*.msgpack"))]
    held = f"{elsewhere[0]} is of another framework" if elsewhere else "no weights there"
    raise InputError(f"{folder}: {held}; give a folder that holds model.safetensors (or pytorch_model.bin)")


def write_tensors(
    folder: Path, arrays: Mapping[str, np.ndarray], shard_bytes: int = SHARD_BYTES, stem: str = "model"
) -> None:
    """Write `model.safetensors`, or shards of at most `shard_bytes` with their index; one shard is copied at a time."""
    plan: list[list[str]] = [[]]
    room = shard_bytes
    for name, array in arrays.items():
        if plan[-1] and array.nbytes > room:
            plan.append([])
            room = shard_bytes
        plan[-1].append(name)
        room -= array.nbytes
    shards = [f"{stem}-{n:05}-of-{len(plan):05}.safetensors" for n in range(1, len(plan) + 1)]
    written = shards if shards[1:] else [f"{stem}.safetensors"]
    for file, names in zip(written, plan, strict=True):
        try:
            save_file({name: np.ascontiguousarray(arrays[name]) for name in names}, folder / file, {"format": "pt"})
        except SafetensorError as error:  # a full disk, too
            raise OSError(str(error)) from None
    if plan[1:]:
        weight_map = {name: file for file, names in zip(written, plan, strict=True) for name in names}
        total = {"total_size": sum(array.nbytes for array in arrays.values())}
        index = strict_json.dumps({"metadata": total, "weight_map": weight_map}, indent=2)
        (folder / f"{stem}.safetensors.index.json").write_text(index + "\n", encoding="utf-8")


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file; one that the metadata lists as tied appears under each of its names.

    Raises `InputError` for a file that is missing or damaged.
    """
    with _opened(path) as file:
        found = {n: Stored(tuple(file.get_slice(n).get_shape()), partial(_read, path, n)) for n in file.keys()}  # noqa: SIM118
        tied = file.metadata() or {}
    return found | {name: found[stored] for name, stored in tied.items() if stored in found}


def _read(path: Path, name: str) -> np.ndarray:
    # Reopened for each tensor: the pages of a mapping stay in memory until it is closed.
    with _opened(path) as file:
        if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
            raise wrong_dtype(f"{path}: {name}", dtype)
        return file.get_tensor(name)


def wrong_dtype(source: str, dtype: str) -> InputError:
    """The error for weights that are whole numbers, or floats of eight bits, which need scales of their own."""
    return InputError(f"{source} holds {dtype}; give weights in {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise InputError(f"{path}: missing, the index names it; copy or download it again") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from None


def _bin(path: Path) -> dict[str, Stored]:
    try:
        import torch
    except ImportError:
        remedy = "install torch, or save the checkpoint as safetensors"
        raise InputError(f"{path}: only torch can read a .bin; {remedy}") from None
    try:
        # Files from before torch 1.6 are not zip archives, and cannot be memory-mapped.
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise InputError(f"{path}: missing, the index names it; copy or download it again") from None
    except pickle.UnpicklingError:
        what = "holds more than tensors, and could run a program, or is damaged"
        raise InputError(f"{path}: {what}; convert it to safetensors where you trust it, or copy it again") from None
    except Exception as error:  # damaged pickles raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable .bin file ({reason[:200]}); copy or download it again") from None
    if not isinstance(found, Mapping) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise InputError(f"{path}: is no table of tensors; give the weights of a model")
    return {name: Stored(tuple(each.shape), partial(_as_numpy, each)) for name, each in found.items()}


def _as_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _shards(index: Path) -> list[Path]:
    described = strict_json.read_object(index, "copy or download it again")
    weight_map = validate_value(dict[str, str], described.get("weight_map"), "weight_map", f"{index}: ")
    return [files.inside(index.parent, name, index) for name in sorted({*weight_map.values()})]
