"""Files of conversations: recognised by their content, and each malformed row by its line."""

import json
from pathlib import Path

import pytest

from rag_jax.data.conversations import Message, format_of, read_conversations
from rag_jax.errors import InputError

CHAT = {"messages": [{"role": "user", "content": " hello "}, {"role": "assistant", "content": "hi\n"}]}
TASK = {"instruction": "add", "input": "1 2", "output": "3"}


def write(folder: Path, *rows) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read(folder: Path, *rows):
    path = write(folder, *rows)
    format = format_of(path)
    assert format is not None
    return format.name, read_conversations(path, format)


def test_instructions(tmp_path: Path) -> None:
    without = {"id": "x", "instruction": "wait", "output": " so "}
    name, found = read(tmp_path, TASK, without, {**TASK, "input": " "}, {**TASK, "input": None})
    assert name == "instructions"
    assert [each.id for each in found] == ["1", "x", "3", "4"]
    assert found[0].messages == (Message("user", "add\n\n1 2"), Message("assistant", "3"))
    assert found[1].messages == (Message("user", "wait"), Message("assistant", "so"))
    assert found[2].messages == found[3].messages == (Message("user", "add"), Message("assistant", "3"))


def test_chats(tmp_path: Path) -> None:
    system = {"role": "system", "content": "be brief"}
    name, found = read(tmp_path, CHAT, {"id": 7, "messages": [system, *CHAT["messages"]]})
    assert name == "chats"
    assert found[0].messages == (Message("user", "hello"), Message("assistant", "hi"))
    assert (found[1].id, found[1].messages[0]) == ("7", Message("system", "be brief"))


@pytest.mark.parametrize("row", [{"question": "who", "answers": ["me"]}, "{broken", ""])
def test_other_files_are_none_of_them(tmp_path: Path, row) -> None:
    assert format_of(write(tmp_path, row)) is None


def chat(*messages: tuple[object, object]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (chat(("user", "a"), ("tool", "b")), "message 2: role is 'tool'; give system, user, assistant"),
        (chat(("user", "a"), ("assistant", " ")), 'message 2: "content" is empty'),
        (chat(("user", "a")), "no message of the assistant"),
        (chat(("user", "a"), ("system", "b"), ("assistant", "c")), "message 2: a system message comes first"),
        (chat(("system", "a"), ("system", "b"), ("assistant", "c")), "message 2: a system message comes first"),
        ({"messages": "hello"}, '"messages" is no list of objects'),
        ({"messages": []}, "no message of the assistant"),
        (TASK, 'no "messages" in a file of chats'),
        ("{broken", "malformed JSON"),
    ],
)
def test_a_chat_that_cannot_be_learnt_is_refused_by_its_line(tmp_path: Path, row, told: str) -> None:
    refused(tmp_path, CHAT, row, told)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**TASK, "output": ""}, '"output" is empty'),
        ({"instruction": "add"}, '"output" is missing'),
        ({**TASK, "instruction": 3}, '"instruction" is a number'),
        ({**TASK, "input": ["a"]}, '"input" is a list'),
        (CHAT, 'no "instruction" in a file of instructions'),
    ],
)
def test_an_instruction_that_cannot_be_learnt_is_refused_by_its_line(tmp_path: Path, row, told: str) -> None:
    refused(tmp_path, TASK, row, told)


def refused(folder: Path, first: dict, row, told: str) -> None:
    with pytest.raises(InputError) as complaint:
        read(folder, first, row)
    assert str(complaint.value).startswith(f"{folder / 'data.jsonl'}:2: ")
    assert told in str(complaint.value)
    assert "\n" not in str(complaint.value)
