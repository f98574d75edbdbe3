"""A format of question files, and the fields that formats share.

A format says which rows are its own, and turns a row, a JSON object, into a `Question`. In every format a row may also
have the fields of this library that add to what is known of a question: `positive_ids`, `relevance`, `negative_ids`,
`passage_ids` and `regex`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rag_jax.data.answer_pattern import compile_answer
from rag_jax.data.jsonl import validate_id, validate_text
from rag_jax.data.question import Question
from rag_jax.errors import InputError

Row = dict[str, Any]

IDS = ("id", "_id", "query_id", "QuestionId", "uid")  # here, in BEIR, in Tevatron, in TriviaQA, in HoVer


class Item(NamedTuple):
    """A row of a question file."""

    number: int  # of the line or of the item in a JSON document, from 1: the id of a question without one
    location: str  # `FILE:LINE` or `FILE: item N`, for messages
    row: Row


class Format(NamedTuple):
    """A format of question files."""

    name: str
    text: str  # the field that holds the question
    matches: Callable[[Row], bool]  # whether a row is of this format, valid or not
    fill: Callable[[Question, Row, str], Question]  # (question without answers, row, location): with what is right
    remedy: str = 'write "answers" as a list of strings, with one at least'  # for a question without answers


def read_text(format: Format, item: Item) -> tuple[str, str]:
    """The id and the text of a question. Raises `InputError` where one is invalid."""
    id = next((item.row[name] for name in IDS if name in item.row), item.number)
    return validate_id(id, "id", item.location), validate_text(item.row.get(format.text), format.text, item.location)


def read_question(format: Format, item: Item) -> Question:
    """The question of a row. Raises `InputError` for an invalid field, and where no answer or gold passage is known."""
    id, text = read_text(format, item)
    row, location = item.row, item.location
    positives, passages, negatives = (
        read_ids(row.get(name), name, location) for name in ("positive_ids", "passage_ids", "negative_ids")
    )
    question = format.fill(Question(id, text, (), positives, passages, negative_ids=negatives), row, location)
    if not question.answers and not question.positive_ids:
        raise InputError(f"{location}: no answers; {format.remedy}")
    question = question._replace(
        relevance=_relevance(row, question.positive_ids, location), regex=_is_regex(row, location)
    )
    if question.regex:
        _check_patterns(question.answers, location)
    return question


def read_answers(row: Row, names: Sequence[str], location: str) -> tuple[str, ...]:
    """The answers under the first of these names that the row has, each once: a string or a list of strings."""
    name = next((name for name in names if name in row), names[0])
    return text_list(row.get(name), name, location)


def text_list(values: object, name: str, location: str) -> tuple[str, ...]:
    """Non-blank strings, each once; a single one may stand for itself, and None for none."""
    values = [values] if isinstance(values, str) else [] if values is None else values
    if not isinstance(values, list):
        raise InputError(f'{location}: no answers; write "{name}" as a list of strings, with one at least')
    return tuple(dict.fromkeys(validate_text(value, name, location) for value in values))


def read_ids(ids: object, name: str, location: str) -> tuple[str, ...]:
    """The ids of passages, each once; None for none."""
    ids = [] if ids is None else ids
    if not isinstance(ids, list):
        raise InputError(f'{location}: "{name}" is not a list; write it as a list of passage ids')
    return tuple(dict.fromkeys(validate_id(id, name, location) for id in ids))


def objects(value: object, name: str, location: str) -> list[Row]:
    """A list of objects; None for an empty one."""
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f'{location}: "{name}" is not a list of objects; write it as one')
    return value


def listed_passages(row: Row, name: str, ids: Sequence[str], location: str) -> tuple[str, ...]:
    """The ids of the passages that a field lists as objects; none where the passages have none.

    Raises `InputError` where some have an id and others do not: the ranks of the others would change.

    Args:
        ids: the names that the id of a passage may have.
    """
    passages = objects(row.get(name), name, location)
    found = [next((passage[each] for each in ids if passage.get(each) is not None), None) for passage in passages]
    if any(id is None for id in found) and any(id is not None for id in found):
        number, remedy = found.index(None) + 1, f'write "{ids[0]}" for all of them or for none'
        raise InputError(f'{location}: passage {number} of "{name}" has no id; {remedy}')
    return read_ids([id for id in found if id is not None], name, location)


def any_of(row: Row, names: Iterable[str]) -> bool:
    """Whether the row has one of these fields."""
    return any(name in row for name in names)


def _relevance(row: Row, positive_ids: Sequence[str], location: str) -> tuple[int, ...]:
    grades = row.get("relevance") or []
    if not isinstance(grades, list) or not all(type(grade) is int and grade > 0 for grade in grades):
        raise InputError(f'{location}: "relevance" is not a list of grades; write whole numbers of at least 1')
    if grades and len(grades) != len(positive_ids):
        problem = f"{len(grades)} grades for {len(positive_ids)} different positive_ids"
        raise InputError(f"{location}: {problem}; give one to each")
    return tuple(grades)


def _is_regex(row: Row, location: str) -> bool:
    value = row.get("regex") or False
    if not isinstance(value, bool):
        raise InputError(f'{location}: "regex" is {json.dumps(value)}; write true or false')
    return value


def _check_patterns(answers: Iterable[str], location: str) -> None:
    for answer in answers:
        try:
            compile_answer(answer)
        except InputError as error:
            raise InputError(f'{location}: {error}, or leave "regex" out') from None
