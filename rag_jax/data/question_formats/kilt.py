"""The tasks of KILT (Petroni et al. 2021).

    {"id": "1", "input": "who wrote emma", "output": [{"answer": "Jane Austen", "provenance": [{"wikipedia_id": "9"}]}]}

Each output is an answer, evidence for one, or both. The articles of an output are one set of evidence: any set that is
found whole suffices.
"""

from rag_jax.data.jsonl import validate_text
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row, objects, read_ids


def _fill(question: Question, row: Row, location: str) -> Question:
    outputs = objects(row.get("output"), "output", location)
    answers = [each["answer"] for each in outputs if each.get("answer") is not None]
    return question._replace(
        answers=tuple(dict.fromkeys(validate_text(answer, "answer", location) for answer in answers)),
        evidence=tuple(filter(None, (_articles(output, location) for output in outputs))),
    )


def _articles(output: Row, location: str) -> tuple[str, ...]:
    provenance = objects(output.get("provenance"), "provenance", location)
    return read_ids([article.get("wikipedia_id") for article in provenance], "wikipedia_id", location)


def _is_kilt(row: Row) -> bool:
    return "input" in row and isinstance(row.get("output", []), list)


KILT = Format("KILT", "input", _is_kilt, _fill, remedy='write "output" as a list of objects, one with an "answer"')
