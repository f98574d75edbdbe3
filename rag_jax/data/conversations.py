"""Conversations that a generator learns from, read from JSON lines of one of two formats, recognised by its content.

    {"instruction": "Name a river in France.", "input": "", "output": "The Rhône."}
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "How can I help?"}]}

The first is that of Self-Instruct and Alpaca: instruction and input, with a blank line between them, are the user's
message. In the second a `system` message may come first. `id` defaults to the line number. Space around a content is
dropped, as by most chat templates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.jsonl import UniqueIds, read_jsonl, validate_id, validate_text
from rag_jax.errors import InputError

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """A message of a conversation."""

    role: str  # one of `ROLES`
    content: str


class Conversation(NamedTuple):
    """A conversation; its assistant's messages are the responses."""

    id: str
    location: str  # `FILE:LINE`, for messages
    messages: tuple[Message, ...]


class ConversationFormat(NamedTuple):
    """A format of conversations."""

    name: str
    key: str  # the field that only rows of this format have
    read: Callable[[dict[str, Any], str], tuple[Message, ...]]  # (row, location)


def format_of(path: Path) -> ConversationFormat | None:
    """The format of a file's first row; None for another file, unreadable ones among them."""
    try:
        _, first = next(read_jsonl(path), (0, {}))
    except InputError:
        return None
    return next((each for each in FORMATS if each.key in first), None)


def read_conversations(path: Path, format: ConversationFormat) -> list[Conversation]:
    """The conversations of a file.

    Raises `InputError` (`FILE:LINE: what; remedy`) for a row of another format, an unknown role, a message without
    text, a chat without response, a system message that is not the first, and a duplicate id.
    """
    ids, found = UniqueIds(), []
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        if format.key not in row:
            raise InputError(f'{location}: no "{format.key}" in a file of {format.name}; give each format its own file')
        found.append(
            Conversation(validate_id(row.get("id", number), "id", location), location, format.read(row, location))
        )
        ids.add(found[-1].id, location)
    return found


def _instruction(row: dict[str, Any], location: str) -> tuple[Message, ...]:
    asked, given = validate_text(row["instruction"], "instruction", location).strip(), row.get("input")
    if given is not None and str(given).strip():
        asked += f"\n\n{validate_text(given, 'input', location).strip()}"
    return Message("user", asked), Message("assistant", validate_text(row.get("output"), "output", location).strip())


def _chat(row: dict[str, Any], location: str) -> tuple[Message, ...]:
    listed = row["messages"]
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InputError(f'{location}: "messages" is no list of objects; write each as {{"role": …, "content": …}}')
    messages = []
    for number, each in enumerate(listed, start=1):
        place, role = f"{location}: message {number}", each.get("role")
        if role not in ROLES:
            raise InputError(f"{place}: role is {role!r}; give {', '.join(ROLES)}")
        if role == "system" and number > 1:
            raise InputError(f"{place}: a system message comes first, and there is one; move or join them")
        messages.append(Message(role, validate_text(each.get("content"), "content", place).strip()))
    if not any(each.role == "assistant" for each in messages):
        raise InputError(
            f"{location}: no message of the assistant, which is what is learnt; add one or remove the line"
        )
    return tuple(messages)


FORMATS = (
    ConversationFormat("chats", "messages", _chat),
    ConversationFormat("instructions", "instruction", _instruction),
)
