"""What a caller of the facade gives, brought into one form: lists of texts, rows, passages, counts.

A string is a sequence of strings to Python; where a list of them is meant, that is a mistake.
"""

import reprlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.data.jsonl import validate_characters, validate_id
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError

T = TypeVar("T")


def texts(value: Any, name: str) -> list[str]:
    """A list of strings. Raises `InputError` for a single string, and for what has no order or holds anything else."""
    found = _listed(value, name, "strings")
    for number, text in enumerate(found, start=1):
        if not isinstance(text, str):
            raise InputError(f"{name}: number {number} is {reprlib.repr(text)}; give a list of strings")
        validate_characters(text, name, f"number {number}")
    return found


def questions(value: Any) -> list[str]:
    """A list of questions, none of them empty."""
    found = texts(value, "questions")
    for number, question in enumerate(found, start=1):
        if not question.strip():
            raise InputError(f"question {number} is empty; write one")
    return found


def listed(questions: T | str) -> T | list[str]:
    """Several questions as they are; a single one as a list of one."""
    return [questions] if isinstance(questions, str) else questions


def pairs(asked: Any, targets: Any) -> tuple[list[str], list[str]]:
    """Questions with one answer each: two strings, or two lists of one length."""
    if isinstance(asked, str) != isinstance(targets, str):
        raise InputError("one string and one list as questions and answers; give two strings or two lists")
    asked, targets = questions(listed(asked)), texts(listed(targets), "answers")
    if len(asked) != len(targets):
        raise InputError(f"{len(asked)} questions and {len(targets)} answers; give one answer for each")
    return asked, targets


def prefixes(value: Any, count: int) -> list[str]:
    """One prefix for each of `count` answers: one string is for all of them."""
    found = [value] * count if isinstance(value, str) else texts(value, "prefixes")
    if len(found) != count:
        raise InputError(f"{len(found)} prefixes for {count} questions; give one for all, or for each")
    return found


def ids(value: Any, name: str) -> list[str]:
    """A list of ids, each a string or a whole number."""
    return [validate_id(each, name, f"number {n}") for n, each in enumerate(_listed(value, name, "ids"), start=1)]


def passages(value: Iterable[Any]) -> list[Passage]:
    """Passages as a corpus may hold them: each with a text, and an id of its own; no title is an empty one."""
    found, seen = _listed(value, "passages", "passages"), UniqueIds()
    for number, each in enumerate(found, start=1):
        if not isinstance(each, Passage):
            raise InputError(f"passage {number} is {reprlib.repr(each)}; give rag_jax.corpus.passage.Passage")
        checked = validate_passage(each.id, each.title, each.text, f"passage {number}")
        found[number - 1] = checked._replace(document=each.document)
        seen.add(checked.id, f"passage {number}")
    if not found:
        raise InputError("no passages; give one at least")
    return found


def rows(value: Any, questions: int, alive: Bool[np.ndarray, " N"]) -> Int[np.ndarray, "B K"]:
    """K rows of an index for each question, of those `alive`; -1 where there are fewer, but one at least for each."""
    try:
        found = np.asarray(value)
    except ValueError:
        raise InputError("rows of different lengths; give K for each question, -1 for none") from None
    if found.ndim != 2 or len(found) != questions or not found.size:
        raise InputError(f"rows of shape {found.shape} for {questions} questions; give K rows for each of them")
    if found.dtype.kind not in "iu":
        raise InputError(f"rows of {found.dtype}; give whole numbers, -1 for none")
    if found.min() < -1 or found.max() >= len(alive):
        raise InputError(
            f"rows from {found.min()} to {found.max()}, the index has 0 to {len(alive) - 1}; -1 is for none"
        )
    if not alive[found[found >= 0]].all():
        odd = found[found >= 0][int(np.argmin(alive[found[found >= 0]]))]
        raise InputError(f"rows: {odd} was removed from the index; give rows that a search of it returned")
    if (found < 0).all(axis=1).any():
        number = int(np.argmax((found < 0).all(axis=1))) + 1
        raise InputError(f"rows: question {number} has none; give it one, or ask it of a model without index")
    return found.astype(np.int32)


def count(value: Any, name: str) -> int:
    """A whole number from 1 on."""
    found = validate_value(int, value, name)
    if found < 1:
        raise InputError(f"{name} is {found}; give 1 or more")
    return found


def seed(value: Any) -> int:
    """A whole number that keys of random numbers can be made of."""
    found = validate_value(int, value, "seed")
    if not 0 <= found < 2**32:
        raise InputError(f"seed is {found}; give 0 to 2**32 - 1")
    return found


def _listed(value: Any, name: str, of: str) -> list[Any]:
    if isinstance(value, str | bytes):
        raise InputError(f"{name} is one string, {reprlib.repr(value)}; give a list of {of}")
    if isinstance(value, Mapping | AbstractSet) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {reprlib.repr(value)}; give a list of {of}")
    return list(value)
