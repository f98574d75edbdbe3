"""Rows of a question and its answers: those of this library, of NQ-open, and of FlashRAG.

{"id": "nq-1", "question": "who wrote emma", "answers": ["Jane Austen", "Austen"], "positive_ids": [17, "18"]}
{"question": "who wrote emma", "answer": ["Jane Austen"]}
{"id": "test_0", "question": "who wrote emma", "golden_answers": ["Jane Austen"], "metadata": {}}
"""

from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row, read_answers


def _answers(question: Question, row: Row, location: str) -> Question:
    return question._replace(answers=read_answers(row, ("answers", "answer"), location))


def _golden_answers(question: Question, row: Row, location: str) -> Question:
    return question._replace(answers=read_answers(row, ("golden_answers",), location))


FLASHRAG = Format(
    "FlashRAG",
    "question",
    matches=lambda row: "golden_answers" in row and "answers" not in row,
    fill=_golden_answers,
    remedy='write "golden_answers" as a list of strings, with one at least',
)
PLAIN = Format("plain", "question", matches=lambda row: "question" in row, fill=_answers)
