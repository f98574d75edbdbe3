"""A passage, and its validation in every corpus format."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rag_jax.data.jsonl import validate_characters, validate_id, validate_text
from rag_jax.errors import InputError


class Passage(NamedTuple):
    """A unit of retrieval; the title, which may be empty, is that of its document."""

    id: str
    title: str
    text: str
    document: str = ""  # the id of its document, for a chunk of one


IDS = ("id", "_id", "docid")  # names of the id: here, in BEIR, in Tevatron


def row_id(row: Mapping[str, Any], default: object) -> object:
    """The id of a row, under any of its names."""
    return next((row[name] for name in IDS if name in row), default)


def no_id(location: str) -> InputError:
    """The error for a document without an id of its own, where the id says which one it replaces."""
    return InputError(f'{location}: has no "id"; --change replace needs the id of each document')


def validate_passage(id: object, title: object, text: object, location: str, title_suffices: bool = False) -> Passage:
    """The passage of a row's values; the title may be None. Raises `InputError` for invalid values or a blank text.

    Args:
        title_suffices: a text may be blank below a title.
    """
    title = "" if title is None else title
    if not isinstance(title, str):
        raise InputError(f'{location}: "title" is not a string; write it in quotes, or leave it out')
    return Passage(
        id=validate_id(id, "id", location),
        title=validate_characters(title, "title", location),
        text="" if title_suffices and text == "" and title.strip() else validate_text(text, "text", location),
    )
