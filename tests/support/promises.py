"""What is promised of every JSON file: an error of one line, or a result whose values have their types."""

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any

from json_readers import JsonReader
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError, one_line


def kept(reader: JsonReader, text: bytes, folder: Path) -> bool:
    """Whether a document is refused in one line. Fails for other errors, and for values of other types."""
    for name, document in {**reader.others, reader.name: None}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if name == reader.name else json.dumps(document).encode())
    try:
        found = reader.read(folder)
    except InputError as error:
        message = str(error)
        assert message.strip()
        assert "\n" not in one_line(message)
        assert len(message) < 3_000, message
        return True
    check_types(found)
    return False


def check_types(value: Any) -> None:
    """Fail for a field of a dataclass whose value is not of its type, and for NaN in one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        for each in dataclasses.fields(value):
            found = getattr(value, each.name)
            if isinstance(found, int | float | str | None):
                assert validate_value(hints[each.name], found, each.name) == found
                assert not (isinstance(found, float) and math.isnan(found))
            check_types(found)
    elif isinstance(value, tuple | list):
        for each in value:
            check_types(each)
