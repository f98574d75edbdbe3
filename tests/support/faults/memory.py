"""Small files that are huge when unpacked, and questions without end, in bounded memory."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Ended
from faults.ground import BUILD

MEMBER = 30 << 20  # bytes of a member; a hundred of them unpack to 3 GB
COUNT = 100
MOST = 700.0  # MB, networks and libraries included
OBJECT = 1_300.0  # MB: a document that is one object is held up to 1 GiB
ROW = b'{"id": "a", "title": "t", "text": "a town"}\n'


def cases() -> Iterator[Case]:
    """Every bomb."""
    spaces, zeros = b" " * (MEMBER - 1) + b"\n", bytes(MEMBER)
    long = b"x" * MEMBER
    bombs: dict[str, tuple[str, bytes, bytes, Any]] = {
        "NUL bytes": ("c.jsonl.gz", b"", zeros, None),
        "one line without end": ("c.jsonl.gz", b'{"id": "a", "text": "', long, None),
        "blank lines": ("c.jsonl.gz", ROW, spaces, lambda ended: "passages" in ended.out),
        "one row of a table": ("c.tsv.gz", b'id\ttext\ttitle\n1\t"', long, None),
        "a quote that is never closed": ("c.tsv.gz", b'id\ttext\ttitle\n1\t"', spaces, None),
        "a document": ("c.txt.gz", b"", long, None),
    }
    for name, (file, head, member, gives) in bombs.items():
        argv = "index", file, "--out", "new", *BUILD
        yield Case(
            f"memory: a corpus: {name}", argv, _bomb(file, head, member), gives=gives, seconds=240, megabytes=MOST
        )
    texts: dict[str, tuple[bytes, bytes]] = {
        "NUL bytes": (b"", zeros),
        "one line without end": (b'{"question": "', long),
        "blank lines": (b'{"id": "x", "question": "x", "answers": ["y"]}\n', spaces),
        "a list without end": (b"[", spaces),
        "SQuAD without end": (b'{"data": [', spaces),
    }
    for name, (head, member) in texts.items():
        argv = "evaluate", "--questions", "q.jsonl.gz", "--output", "out", "--predictions", "predictions.jsonl"
        most = OBJECT if name == "SQuAD without end" else MOST
        yield Case(f"memory: questions: {name}", argv, _bomb("q.jsonl.gz", head, member), seconds=240, megabytes=most)
    yield Case(
        "memory: a million questions",
        ("answer", "--file", "q.jsonl", "--workdir", "run", "--output", "out.jsonl"),
        _questions,
        _answers_at_once,
        gives=_all_answered,
        seconds=400,
        megabytes=MOST,
        needs="run",
    )


MANY = 1_000_000


def _bomb(file: str, head: bytes, member: bytes) -> Callable[[Path], object]:
    def spoil(here: Path) -> None:
        packed = gzip.compress(member, 6)
        with (here / file).open("wb") as to:
            to.write(gzip.compress(head))
            to.writelines([packed] * COUNT)

    return spoil


def _questions(here: Path) -> None:
    with (here / "q.jsonl").open("w") as file:
        file.writelines(f"{json.dumps({'id': f'q{n}', 'question': f'what colour is town {n}'})}\n" for n in range(MANY))


def _answers_at_once() -> None:
    """The model answers without computing: what is measured is what holds questions and answers."""
    from rag_jax.rag import RAG, Answer

    def stream(self: RAG, questions: Any, *arguments: Any, skip: Any = (), **options: Any) -> Iterator[Any]:
        for number, _ in enumerate(questions):
            if number not in skip:
                yield number, Answer("red", -1.0, ())

    RAG.stream = stream  # type: ignore[method-assign]


def _all_answered(ended: Ended) -> bool:
    return ended.after.get("out.jsonl") is not None
