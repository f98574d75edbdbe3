"""A passage, and what every kind of corpus demands of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rag_jax.data.jsonl import validate_characters, validate_id, validate_text
from rag_jax.errors import InputError


class Passage(NamedTuple):
    """A piece of text that is retrieved as a whole; the title, which may be empty, names the article it is from."""

    id: str
    title: str
    text: str
    document: str = ""  # the id of the document that it was cut from; none for one that was not cut


IDS = ("id", "_id", "docid")  # what the id of a passage is called: here, by BEIR, by Tevatron


def row_id(row: Mapping[str, Any], otherwise: object) -> object:
    """The id that a row has, by whichever name."""
    return next((row[name] for name in IDS if name in row), otherwise)


def validate_passage(new: object, title: object, text: object, location: str) -> Passage:
    """The passage of a row's values; no title is an empty one. Raises `InputError` for one without text."""
    title = "" if title is None else title
    if not isinstance(title, str):
        raise InputError(f'{location}: "title" is not a string; write it in quotes, or leave it out')
    return Passage(
        id=validate_id(new, "id", location),
        title=validate_characters(title, "title", location),
        text=validate_text(text, "text", location),
    )
