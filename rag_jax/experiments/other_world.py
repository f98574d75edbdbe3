"""A second version of the world, in which every city has the facts of another one.

Names stay, so that the same questions can be asked of both versions; passages and answers follow from the same facts.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import Question
from rag_jax.demo.cities import City, load_cities, passage_id, passages
from rag_jax.demo.questions import KINDS
from rag_jax.evaluation.metrics.answers import normalize_answer

FILES = PASSAGES, QUESTIONS = "passages.jsonl", "test.jsonl"


def swapped(cities: Sequence[City]) -> list[City]:
    """The cities with the facts of the next one in a fixed random order, so that of several none keeps its own."""
    order = list(range(len(cities)))
    Random("other world").shuffle(order)
    donors = dict(zip(order, order[1:] + order[:1], strict=True))
    return [
        cities[donors[place]]._replace(id=city.id, name=city.name, alternate_names=city.alternate_names)
        for place, city in enumerate(cities)
    ]


def questions_about(cities: Iterable[City], questions: Iterable[Question]) -> list[Question]:
    """The cities' questions with the answers of this version; those that have no answer in it are left out."""
    by_id = {passage_id(city): city for city in cities}
    answered = []
    for question in questions:
        kind = question.id.split("-")[2]
        answers = KINDS[kind].answers(by_id[question.positive_ids[0]])
        if answers:
            answered.append(question._replace(answers=answers))
    return answered


def write(folder: Path, questions: Iterable[Question]) -> None:
    """Write the passages of this version and the questions into a folder."""
    cities = swapped(load_cities())
    files: dict[str, list[Passage] | list[Question]] = {
        PASSAGES: passages(cities),
        QUESTIONS: questions_about(cities, questions),
    }
    for name, records in files.items():
        write_jsonl(folder / name, (record._asdict() for record in records))


def with_other_answers(one: Iterable[Question], other: Iterable[Question]) -> list[tuple[Question, Question]]:
    """The questions of both versions whose answers have nothing in common, paired by their text."""
    texts = {question.question: question for question in other}
    pairs = [(question, texts[question.question]) for question in one if question.question in texts]
    return [(a, b) for a, b in pairs if not _normalised(a) & _normalised(b)]


def _normalised(question: Question) -> set[str]:
    return set(map(normalize_answer, question.answers))
