"""Every field holds what its type says, or is named."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data.validation import validate_dataclass, validate_value
from rag_jax.errors import InputError


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    names: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ((1, 2),)


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: Inner = field(default_factory=Inner)
    stop: bool | Literal["never"] = False
    kind: Literal["a", "b"] = "a"
    count: int | None = None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (int, np.int64(3), 3),
        (bool, np.bool_(True), True),
        (Path, "a/b", Path("a/b")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[tuple[int, int], ...], [[1, 2], (3, 4)], ((1, 2), (3, 4))),
        (tuple[int, ...], [], ()),
        (bool | Literal["never"], "never", "never"),
        (int | None, None, None),
        (Literal["a", "b"], "b", "b"),
    ],
)
def test_a_value_is_brought_into_its_type(kind: Any, value: object, expected: object) -> None:
    found = validate_value(kind, value, "x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (int, "many", "a whole number"),
        (int, True, "a whole number"),
        (int, 2.0, "a whole number"),
        (int, None, "a whole number"),
        (float, "1e-3", "a number"),
        (float, False, "a number"),
        (bool, 1, "true or false"),
        (bool, "no", "true or false"),
        (str, 3, "a text in quotes"),
        (Path, 3, "a path"),
        (tuple[str, ...], "abc", "a list, each a text in quotes"),
        (tuple[str, ...], ["a", 1], "a list, each a text in quotes"),
        (tuple[int, int], [1], "a list of a whole number and a whole number"),
        (tuple[int, ...], {1, 2}, "a list, each a whole number"),
        (bool | Literal["never"], "sometimes", "true or false or 'never'"),
        (Literal["a", "b"], "c", "'a' or 'b'"),
        (int | None, "None", "a whole number or None"),
        (Literal[1, 2], True, "1 or 2"),
    ],
)
def test_a_value_of_another_type_is_one_line(kind: Any, value: object, wanted: str) -> None:
    with pytest.raises(InputError, match=f"^there: x is {re.escape(repr(value))}; give {re.escape(wanted)}$"):
        validate_value(kind, value, "x", "there: ")


def test_a_dataclass_is_checked_to_its_leaves() -> None:
    made = validate_dataclass(Outer, {"path": "p", "inner": {"rate": 2, "names": ["x"]}, "count": 3})
    assert made == Outer(Path("p"), Inner(2.0, ("x",)), count=3)
    assert validate_dataclass(Outer, made) == made
    assert validate_dataclass(Outer, dataclasses.replace(made, inner=Inner(names=["y"]))).inner.names == ("y",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"path": "p", "inner": {"rate": "x"}}, "there: inner.rate is 'x'; give a number"),
        ({"path": "p", "inner": {"rates": 1}}, "there: unknown key 'inner.rates'; the nearest is 'inner.rate'"),
        ({"inner": {}}, "there: path is missing; give a path"),
        ({"path": "p", "inner": 3}, "there: inner is 3; give the fields of Inner"),
        ([], "there: the whole is []; give the fields of Outer"),
        (Outer(3), "there: path is 3; give a path"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_in_a_dataclass_is_named(value: object, what: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(what)}$"):
        validate_dataclass(Outer, value, "there: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({"path": JSON}, optional=dict.fromkeys(("inner", "stop", "kind", "count"), JSON)))
def test_whatever_is_given_is_taken_or_named_in_one_line(value: dict) -> None:
    said = ""
    try:
        assert isinstance(hash(validate_dataclass(Outer, value)), int), "no list is left in it"
    except InputError as error:
        said = str(error)
    assert "\n" not in said
