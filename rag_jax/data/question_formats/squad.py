"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), a JSON document of articles.

    {"version": "v2.0", "data": [{"title": "Emma_(novel)", "paragraphs": [{"context": "…", "qas": [
        {"id": "5", "question": "…", "answers": [{"text": "…", "answer_start": 3}], "is_impossible": false}]}]}]}

An unanswerable question has the answer "".
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rag_jax.data.jsonl import validate_text
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Item, Row, objects
from rag_jax.data.question_formats.titles import shown_title
from rag_jax.errors import InputError


def questions(path: str | Path, document: Row) -> Iterator[Item]:
    """Yield the questions of a document, each with the title of its article, counted from 1 over all articles."""
    numbers = count(1)
    for number, article in enumerate(objects(document["data"], "data", str(path)), start=1):
        location = f"{path}: article {number}"
        for paragraph in _required(article, "paragraphs", location):
            for row in _required(paragraph, "qas", location):
                n = next(numbers)
                yield Item(n, f"{path}: item {n}", row | {"title": article.get("title")})


def _required(row: Row, name: str, location: str) -> list[Row]:
    if row.get(name) is None:
        raise InputError(f'{location}: has no "{name}"; write them as a list, which may be empty')
    return objects(row[name], name, location)


def _fill(question: Question, row: Row, location: str) -> Question:
    texts = [answer.get("text") for answer in objects(row.get("answers"), "answers", location)]
    answers = tuple(dict.fromkeys(validate_text(text, "text", location) for text in texts))
    if row.get("is_impossible"):
        if answers:
            raise InputError(f'{location}: answers to a question that "is_impossible"; leave one of the two out')
        answers = ("",)
    title = row.get("title")
    titles = ((shown_title(validate_text(title, "title", location)),),) if title else ()
    return question._replace(answers=answers, evidence_titles=titles)


SQUAD = Format(
    "SQuAD",
    "question",
    matches=lambda row: False,  # a document, not a row, is recognised
    fill=_fill,
    remedy='write "answers" as a list of {"text": …}, or "is_impossible": true',
)
