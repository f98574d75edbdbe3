"""The JSON files of a checkpoint; what is wrong with them is reported as `InputError`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError

Sizes = tuple[tuple[str, str], ...]
"""Pairs of a field of our config dataclass and its key in config.json."""


class ConfigJson(dict):
    """A config.json; indexing with a missing key raises `InputError`. `source` names it in errors."""

    def __init__(self, source: str, values: Mapping[str, Any]):
        super().__init__(values)
        self.source = source

    def __missing__(self, key: str):
        raise InputError(f"{self.source}: has no {key!r}; take the config.json that was saved with the weights")

    def nested(self, key: str) -> "ConfigJson":
        """The nested config of a part."""
        if not isinstance(self[key], Mapping):
            raise InputError(f"{self.source}: {key} is no config; take the config.json that was saved with the weights")
        return ConfigJson(f"{self.source}: {key}", self[key])

    def expect(self, *architectures: str) -> None:
        """Raise `InputError` for another `model_type`."""
        found = self.get("model_type")
        if found not in architectures:
            raise InputError(f"{self.source}: model_type is {found!r}, needed is {' or '.join(architectures)}")

    def sizes(self, keys: Sizes) -> dict[str, Any]:
        """The values of our fields."""
        return {field: self[key] for field, key in keys}

    def require(self, **values: object) -> None:
        """Raise `InputError` for settings that the networks here do not implement; a missing one has its default."""
        for key, value in values.items():
            if self.get(key, value) != value:
                raise InputError(f"{self.source}: {key} is {self[key]!r}; only {value!r} is supported")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `InputError` if it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a folder that holds a checkpoint") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a folder that holds a checkpoint") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; copy or download it again") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}); copy or download it again") from None


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
