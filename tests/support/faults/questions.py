"""Bad question files: every format with fields left out and of other types, and files that are none of them."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Ended
from faults.corpora import JSON_LINES

FORMATS: dict[str, dict[str, Any]] = {
    "plain": {"id": "1", "question": "who", "answers": ["x"], "positive_ids": ["Norburg"], "relevance": [1]},
    "NQ-open": {"question": "who", "answer": ["x"]},
    "FlashRAG": {"id": "1", "question": "who", "golden_answers": ["x"], "metadata": {}},
    "KILT": {"id": "1", "input": "who", "output": [{"answer": "x", "provenance": [{"wikipedia_id": "9"}]}]},
    "DPR's output": {"question": "who", "answers": ["x"], "ctxs": [{"id": "1", "title": "t", "text": "x"}]},
    "DPR's training data": {
        "question": "who", "answers": ["x"], "positive_ctxs": [{"passage_id": "1"}], "hard_negative_ctxs": [],
    },
    "Atlas": {"question": "who", "target": "x", "passages": [{"id": "1", "title": "t", "text": "x"}]},
    "FEVER": {"id": 1, "claim": "it is", "label": "SUPPORTS", "evidence": [[[1, 2, "Emma", 7]]]},
    "HoVer": {"uid": "1", "claim": "it is", "label": "SUPPORTED", "supporting_facts": [["Emma", 0]]},
    "texts": {"id": "1", "text": "x", "label": "red"},
    "prompts": {"id": "1", "prompt": "x", "label": "safe", "type": "towns"},
}  # fmt: skip
DOCUMENTS: dict[str, Any] = {
    "SQuAD": {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [
        {"id": "5", "question": "who", "answers": [{"text": "x", "answer_start": 3}]}]}]}]},
    "TriviaQA": {"Data": [{"QuestionId": "tc_1", "Question": "who", "Answer": {"Value": "x", "Aliases": ["y"]}}]},
    "DPR's list": [{"question": "who", "answers": ["x"], "positive_ctxs": [{"passage_id": "1"}]}],
}  # fmt: skip
ODD = (None, 17, True, "", [], {}, [[]], [None], {"x": 1}, "\ud800", "a\0b", 1e999)
FILES = {
    **{
        name: data for name, data in JSON_LINES.items() if not name.startswith(("KILT", "title", "text", "id", "no id"))
    },
    "a corpus": b'{"id": "a", "title": "t", "text": "x"}\n',
    "two formats": b'{"question": "a", "answers": ["b"]}\n{"input": "a", "output": [{"answer": "b"}]}\n',
    "a list that ends early": b'[{"question": "a", "answers": ["b"]},',
    "a list without commas": b'[{"question": "a", "answers": ["b"]} {"question": "c", "answers": ["b"]}]',
    "a list with something behind it": b'[{"question": "a", "answers": ["b"]}] more',
    "a list of numbers": b"[1, 2]",
    "an empty list": b"[]",
    "an empty object": b"{}",
    "SQuAD that ends early": b'{"data": [{"title": "t", "paragraphs": [',
    "SQuAD with a string for data": b'{"data": "x"}',
    "an invalid regular expression": b'{"question": "a", "answers": ["("], "regex": true}\n',
    "a regular expression that repeats too often": b'{"question": "a", "answers": ["a{9999999999}"], "regex": true}\n',
    "regex of a string": b'{"question": "a", "answers": ["b"], "regex": "yes"}\n',
    "an id twice": b'{"id": 1, "question": "a", "answers": ["b"]}\n' * 2,
    "grades below 1": b'{"question": "a", "positive_ids": ["1"], "relevance": [0]}\n',
    "BEIR without queries": b"query-id\tcorpus-id\tscore\nq\td\t1\n",
    "BEIR, its header only": b"query-id\tcorpus-id\tscore\n",
}


def cases() -> Iterator[Case]:
    """Every bad question file."""
    for name, data in FILES.items():
        yield _case(f"questions: files: {name}", data, "q.jsonl")
    for name, row in FORMATS.items():
        for number, changed in enumerate(spoilt(row)):
            data = "".join(f"{json.dumps(each)}\n" for each in (row, changed)).replace('"id": "1"', '"id": "2"', 1)
            yield _case(f"questions: {name}: {number}", data.encode(), "q.jsonl", gives=any_result)
    for name, document in DOCUMENTS.items():
        for number, changed in enumerate(spoilt(document)):
            data = json.dumps(changed).encode()
            yield _case(f"questions: {name}: {number}", data, "q.json", gives=any_result)
    for name in ("truncated", "no gzip"):
        data = b'{"question": "a", "answers": ["b"]}\n' * 99
        data = gzip.compress(data)[:-9] if name == "truncated" else data
        yield _case(f"questions: gzip: {name}", data, "q.jsonl.gz")
    yield from _others()


def spoilt(value: Any) -> Iterator[Any]:
    """The value with each field left out, and with each field and item of other types, one at a time."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        copy = dict(value) if isinstance(value, dict) else list(value)
        del copy[key]
        yield copy
        for odd in ODD:
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = odd
            yield copy
        for changed in spoilt(inner):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = changed
            yield copy


def any_result(ended: Ended) -> bool:
    """A field that is not needed, or may be of that type: the file was read to its end."""
    return bool(ended.out) and not ended.err.startswith("error")


def _case(name: str, data: bytes, file: str, gives: Any = None) -> Case:
    argv = "evaluate", "--questions", file, "--output", "out", "--predictions", "predictions.jsonl"
    return Case(name, argv, lambda here: (here / file).write_bytes(data), gives=gives, says="" if gives else file)


def _others() -> Iterator[Case]:
    """Other files of rows: predictions, prompts, texts, completions, categories, scores."""
    commands = {
        "predictions.jsonl": (
            "evaluate",
            "--questions",
            "test.jsonl",
            "--output",
            "out",
            "--predictions",
            "predictions.jsonl",
        ),
        "prompts.jsonl": ("refusals", "prompts.jsonl", "--output", "out", "--completions", "completions.jsonl"),
        "completions.jsonl": ("refusals", "prompts.jsonl", "--output", "out", "--completions", "completions.jsonl"),
        "texts.jsonl": ("moderate", "texts.jsonl", "--output", "out", "--workdir", "none"),
        "categories.json": (
            *("moderate", "texts.jsonl", "--output", "out", "--workdir", "none", "--categories", "categories.json"),
        ),
    }
    for file, argv in commands.items():
        for name in ("empty", "only NUL bytes", "not UTF-8", "UTF-16", "truncated", "an array", "null", "an id twice",
                     "a million brackets", "half a surrogate pair in id", "HTML", "text missing"):  # fmt: skip
            spoil = _writes(file, JSON_LINES[name])
            yield Case(f"questions: {file}: {name}", argv, spoil, says=file)
        for number in range(24):
            yield Case(f"questions: {file}: a field, {number}", argv, _spoils(file, number), gives=any_result)


def _writes(file: str, data: bytes) -> Any:
    return lambda here: (here / file).write_bytes(data)


def _spoils(file: str, number: int) -> Any:
    """Change the first row in the n-th of 24 ways, spread over all that there are."""

    def spoil(here: Path) -> None:
        first, *rest = (here / file).read_text().splitlines()
        changed = list(spoilt(json.loads(first)))
        lines = [json.dumps(changed[number * len(changed) // 24]), *rest]
        (here / file).write_text("\n".join(lines) + "\n")

    return spoil
