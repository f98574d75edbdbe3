"""The JSON files of a checkpoint; what is wrong with them is reported as `InputError`.

Every key that is read has a type and a range, so that a config of impossible sizes is refused before anything of these
sizes is made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from rag_jax.data import strict_json
from rag_jax.data.json_object import JsonObject
from rag_jax.data.validation import Dropout, Positive, Range
from rag_jax.errors import InputError

# The types of what is read; the largest networks that exist are far below.
Width = Annotated[int, Range(1, 2**20)]
Layers = Annotated[int, Range(1, 10_000)]
Vocabulary = Annotated[int, Range(1, 2**24)]
Positions = Annotated[int, Range(1, 2**31 - 1)]
Epsilon = Annotated[float, Range(0, 1, above=True)]
Rate = Dropout
Scale = Positive
Deviation = Annotated[float, Range(0, 100)]

Sizes = tuple[tuple[str, str, Any], ...]
"""A field of our config dataclass, its key in config.json, and its type."""
REMEDY = "take the config.json that was saved with the weights"


class ConfigJson(JsonObject):
    """A config.json; indexing with a missing key raises `InputError`. `source` names it in errors."""

    def __init__(self, source: str, values: Mapping[str, Any]):
        super().__init__(source, values, REMEDY)

    def nested(self, key: str) -> "ConfigJson":
        """The nested config of a part."""
        if not isinstance(self[key], Mapping):
            raise InputError(f"{self.source}: {key} is no config; {REMEDY}")
        return ConfigJson(f"{self.source}: {key}", self[key])

    @property
    def architecture(self) -> str:
        """The first of the classes of transformers that it names; "" for none."""
        return next(iter(self.read("architectures", tuple[str, ...], ())), "")

    def expect(self, *architectures: str) -> None:
        """Raise `InputError` for another `model_type`."""
        found = self.get("model_type")
        if found not in architectures:
            raise InputError(f"{self.source}: model_type is {found!r}, needed is {' or '.join(architectures)}")

    def sizes(self, keys: Sizes) -> dict[str, Any]:
        """The values of our fields."""
        return {field: self.read(key, kind) for field, key, kind in keys}

    def check_heads(self, width: str, heads: str) -> None:
        """Raise `InputError` for a width that the attention heads do not divide; both are keys of sizes."""
        if self[width] % self[heads]:
            raise InputError(f"{self.source}: {heads} {self[heads]} does not divide {width} {self[width]}; {REMEDY}")

    def require(self, **values: object) -> None:
        """Raise `InputError` for settings that the networks here do not implement; a missing one has its default."""
        for key, value in values.items():
            if self.get(key, value) != value:
                raise InputError(f"{self.source}: {key} is {self[key]!r}; only {value!r} is supported")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `InputError` if it is missing or malformed."""
    return strict_json.read(path, "give a folder that holds a checkpoint")


def read_settings(path: Path) -> ConfigJson:
    """Read a JSON file that holds an object. Raises as `read_json`, and for any other value."""
    return ConfigJson(str(path), strict_json.read_object(path, "give a folder that holds a checkpoint"))


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(strict_json.dumps(values, indent=2) + "\n", encoding="utf-8")
