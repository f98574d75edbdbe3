"""Labelled texts, such as comments, posts or prompts, to train a classifier on.

    {"id": "c1", "text": "…", "label": "acceptable"}
    {"id": "xstest-1", "prompt": "…", "label": "safe", "type": "homonyms"}

The text is the question and its label the answer.
"""

from rag_jax.data.jsonl import validate_text
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row

PASSAGE_FIELDS = ("title", "contents")  # of a corpus, whose rows have a text too


def _fill(question: Question, row: Row, location: str) -> Question:
    return question._replace(answers=(validate_text(row.get("label"), "label", location),))


TEXTS = Format(
    "texts",
    "text",
    matches=lambda row: "text" in row and "label" in row and not any(name in row for name in PASSAGE_FIELDS),
    fill=_fill,
)
PROMPTS = TEXTS._replace(name="prompts", text="prompt", matches=lambda row: "prompt" in row and "label" in row)
