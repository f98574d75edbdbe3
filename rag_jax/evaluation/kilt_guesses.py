"""Guesses of KILT (Petroni et al. 2021): the answer to a question, and the documents that it rests on.

    {"id": "q1", "output": [{"answer": "Jane Austen", "provenance": [{"wikipedia_id": "15782"}]}]}

`output` holds exactly one guess; in a gold file it lists several, which are all correct. Other fields are ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import validate_characters, validate_id
from rag_jax.errors import InputError


class Guess(NamedTuple):
    """What a system hands in for one question."""

    id: str  # of the question
    answer: str  # "": none
    documents: tuple[str, ...] = ()  # ids of the documents found, best first


def ranked_documents(passages: Iterable[Passage]) -> tuple[str, ...]:
    """The ids of the documents that ranked passages are from, best first and each once."""
    return tuple(dict.fromkeys(passage.document or passage.id for passage in passages))


def guess_row(guess: Guess) -> dict[str, Any]:
    """A guess as a row of a guess file."""
    provenance = [{"wikipedia_id": document} for document in guess.documents]
    return {"id": guess.id, "output": [{"answer": guess.answer, "provenance": provenance}]}


def as_guess(row: Mapping[str, Any], location: str) -> Guess:
    """The guess in a row of a guess file. Raises `InputError` with `location`, the `FILE:LINE`, as `read_guesses`."""
    id = validate_id(row.get("id"), "id", location).strip()
    output = _objects(row.get("output"), "output", location)
    if len(output) != 1:
        remedy = "write exactly one, the system's guess"
        raise InputError(f'{location}: "output" holds {len(output)} answers; {remedy}')
    answer = output[0].get("answer")
    if not isinstance(answer, str):
        raise InputError(f'{location}: "answer" is missing or not a string; write it as a string, "" for no answer')
    provenance = _objects(output[0].get("provenance", []), "provenance", location)
    documents = [validate_id(each.get("wikipedia_id"), "wikipedia_id", location).strip() for each in provenance]
    return Guess(id, validate_characters(answer, "answer", location), tuple(dict.fromkeys(documents)))


def _objects(value: object, name: str, location: str) -> Sequence[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f'{location}: "{name}" is not a list of objects; write it as KILT\'s files do')
    return value
