"""The JSON files of a checkpoint, whose faults are the user's to mend."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError

Sizes = tuple[tuple[str, str], ...]
"""Our fields of a network's sizes, each with the key of config.json that stands for it."""


class Described(dict):
    """A config; a key that is asked for and missing is the user's to mend. `where` names it in errors."""

    def __init__(self, where: str, values: Mapping[str, Any]):
        super().__init__(values)
        self.where = where

    def __missing__(self, key: str):
        raise InputError(f"{self.where}: has no {key!r}; take the config.json that was saved with the weights")

    def nested(self, key: str) -> "Described":
        """The config of a part."""
        if not isinstance(self[key], Mapping):
            raise InputError(f"{self.where}: {key} is no config; take the config.json that was saved with the weights")
        return Described(f"{self.where}: {key}", self[key])

    def expect(self, *architectures: str) -> None:
        """Refuse another `model_type`."""
        found = self.get("model_type")
        if found not in architectures:
            raise InputError(f"{self.where}: model_type is {found!r}, needed is {' or '.join(architectures)}")

    def sizes(self, keys: Sizes) -> dict[str, Any]:
        """What the config says of our fields."""
        return {ours: self[theirs] for ours, theirs in keys}

    def require(self, **values: object) -> None:
        """Refuse settings that the networks here do not have; a missing one is the usual."""
        for key, value in values.items():
            if self.get(key, value) != value:
                raise InputError(f"{self.where}: {key} is {self[key]!r}; only {value!r} is known here")


def read_json(path: Path) -> Any:
    """A JSON file of a checkpoint. Raises `InputError` where it is missing or none."""
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
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
