"""JSON objects whose keys are read with their types: what is missing or of another type is an `InputError`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rag_jax.data import strict_json
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError

REQUIRED: Any = object()


class JsonObject(dict):
    """An object of a JSON file; `source` names it in errors, and `remedy` ends those of missing keys."""

    def __init__(self, source: str, values: Mapping[str, Any], remedy: str = strict_json.COPY_AGAIN):
        super().__init__(values)
        self.source, self.remedy = source, remedy

    def __missing__(self, key: str):
        raise InputError(f"{self.source}: has no {key!r}; {self.remedy}")

    def read(self, key: str, kind: Any, default: Any = REQUIRED) -> Any:
        """The value of a key, of type `kind`, as in `validation`.

        A key that is missing has the default; so has one that is null, unless the type allows null. Without a default
        the key is required. Raises `InputError` for another type, or a number outside its range.
        """
        if default is not REQUIRED and (key not in self or (self[key] is None and type(None) not in get_args(kind))):
            return default
        return validate_value(kind, self[key], key, f"{self.source}: ")


def read(path: Path, missing: str, remedy: str = strict_json.COPY_AGAIN) -> JsonObject:
    """Read a file that holds an object. Raises as `strict_json.read_object`."""
    return JsonObject(str(path), strict_json.read_object(path, missing, remedy), remedy)
