"""Which cases of a parametrised test are in the fast suite, and which in the extended one (`make test-all`)."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def first(count: int, cases: Iterable[Any]) -> list[Any]:
    """The first cases are in the fast suite, the others extended."""
    return [case if number < count else _extended(case) for number, case in enumerate(cases)]


def only(fast: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """These cases are in the fast suite, the others extended."""
    cases = list(cases)
    assert all(case in cases for case in fast), f"not all cases of {fast} exist"
    return [case if case in fast else _extended(case) for case in cases]


def _extended(case: Any) -> Any:
    """A plain tuple is a value for each argument; a case that has marks keeps them."""
    if type(case) is type(pytest.param()):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.extended], id=case.id)
    return pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.extended)
