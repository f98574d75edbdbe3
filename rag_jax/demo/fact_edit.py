"""A fact edited in the index changes the answer; no parameter does."""

import time
from typing import NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.rag import RAG


class FactEdit(NamedTuple):
    """A fact replaced in a passage, and the answers to the same question before and after."""

    title: str
    old: str
    new: str
    seconds: float  # to encode and replace the passage
    answer_before: str
    answer_after: str


def edit_fact(rag: RAG, question: Question, new: str) -> FactEdit:
    """Replace the gold answer in the passage that holds it by a new one, and answer the question with both indexes."""
    row = int(rag.components.store.find(question.positive_ids[:1])[0])
    passage, old = rag.components.store.passages[row], question.answers[0]
    start = time.perf_counter()
    edited = rag.replace_passage(Passage(passage.id, passage.title, passage.text.replace(old, new)))
    seconds = time.perf_counter() - start
    (before,), (after,) = rag.answer([question.question]), edited.answer([question.question])
    return FactEdit(passage.title, old, new, seconds, before.text, after.text)


def other_number(number: str) -> str:
    """Another number of as many digits: reversed, its first digit incremented.

    >>> other_number("1230")
    '1321'
    """
    return str(int(number[::-1]) + 10 ** (len(number) - 1))[: len(number)]
