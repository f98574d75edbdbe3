"""JSON documents that are almost right: one place of a valid document is changed, as no program writes it."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

NUMBERS = [0, -1, 1, 2, 3, 0.5, 10**9, 2**31, 2**63, 2**70, -(2**70), 1e30, -1e308]
OTHERS = [None, True, False, "", "a", "0", "{0.__class__}", "\x1b[2J\n\u202e", [], {}, [None], {"a": None}, [[[]]]]
# Not JSON, or not with a single meaning: texts in place of a value.
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000, "[" * 20_000, '"\\ud800"', '{"a": 1, "a": 2}', "'a'", ""]
PLACEHOLDER = "\x00here\x00"


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> bytes:
    """The text of a document with one change: a value of another type or size, a key that is gone, renamed or twice."""
    places = list(_places(document))
    place = draw(st.sampled_from(places))
    changed = copy.deepcopy(document)
    kind = draw(st.sampled_from(["number", "other", "raw", "drop", "rename", "nest", "bytes"]))
    if kind == "bytes":
        return draw(st.sampled_from(_broken(json.dumps(document).encode())))
    if kind == "raw":
        text = json.dumps(_set(changed, place, PLACEHOLDER))
        return text.replace(json.dumps(PLACEHOLDER), draw(st.sampled_from(RAW))).encode()
    if kind in ("drop", "rename") and place:
        parent = _get(changed, place[:-1])
        value = parent.pop(place[-1])
        if kind == "rename" and isinstance(parent, dict):
            parent[f"{place[-1]}_"] = value
        return json.dumps(changed).encode()
    old = _get(changed, place)
    new = {"number": st.sampled_from(NUMBERS), "other": st.sampled_from(OTHERS)}.get(
        kind, st.sampled_from([[old], {"a": old}])
    )
    return json.dumps(_set(changed, place, draw(new))).encode()


def every_mutation(document: Any, count: int) -> list[bytes]:
    """`count` mutations, evenly over the places of a document, always the same; for 0 the document as it is."""
    if not count:
        return [json.dumps(document).encode()]
    places, values = list(_places(document)), [*NUMBERS, *OTHERS]
    random.Random(len(places)).shuffle(values)  # of other documents, other values are tried
    pairs = ((places[n * len(places) // count], values[n % len(values)]) for n in range(count))
    return [json.dumps(_set(copy.deepcopy(document), *pair)).encode() for pair in pairs]


def _places(value: Any, place: Path = ()) -> Iterator[Path]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, each in items:
        yield from _places(each, (*place, key))


def _get(value: Any, place: Path) -> Any:
    for key in place:
        value = value[key]
    return value


def _set(document: Any, place: Path, value: Any) -> Any:
    if not place:
        return value
    _get(document, place[:-1])[place[-1]] = value
    return document


def _broken(text: bytes) -> list[bytes]:
    half = len(text) // 2
    return [
        b"",
        text[:half],
        text[:-1],
        text + text,
        b"\xff\xfe" + text,
        text[:half] + b"\xff" + text[half:],
        b"\0" * 40,
    ]
