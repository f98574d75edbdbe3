"""JSON objects on disk that hold the checksum of their own contents."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_jax.data import files, strict_json

KEY = "sha256"


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file atomically by an object and its checksum."""
    files.replace_file(path, [json.dumps({**value, KEY: checksum(value)}, indent=2) + "\n"])


def read(path: Path) -> dict[str, Any]:
    """The object in a file, with its checksum, which `is_intact` compares. Raises `ValueError` for anything else."""
    found = strict_json.loads(path.read_bytes(), paths=True)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def is_intact(found: Mapping[str, Any]) -> bool:
    """Whether an object is what was written: the checksum that it holds is that of the rest."""
    return found.get(KEY) == checksum({key: each for key, each in found.items() if key != KEY})


def checksum(value: Mapping[str, Any]) -> str:
    """SHA-256 of an object, in whatever order and layout a file holds it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
