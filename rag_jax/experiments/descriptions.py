"""Descriptions of cities, as the clues of Jeopardy describe an entity: a task whose answers are sentences."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo.cities import City, latitude_text, load_cities, passage_id
from rag_jax.experiments.setup import Setup

FILES = ("train.jsonl", "test.jsonl")
MAX_TARGET = 48  # tokens of a description
CLUES = (
    "This city of {population} people lies in {country} at latitude {latitude}.",
    "Here, at latitude {latitude} in {country}, people pay in {currency}.",
    "A place in {country} with {population} inhabitants, by {timezone} time.",
    "Its {population} residents pay in {currency} and live by {timezone} time.",
)
"""Wordings that share no long phrase with those of the passages; the city's number picks one."""


def clue(city: City) -> str:
    """A description of a city that does not name it."""
    return CLUES[int(city.id) // 4 % len(CLUES)].format(
        population=city.population,
        country=city.country,
        latitude=latitude_text(city),
        currency=city.currency,
        timezone=city.timezone,
    )


def descriptions(cities: Mapping[str, City], questions: Iterable[Question]) -> list[Question]:
    """A task for each city that the questions ask about: to describe it. `cities` are by the ids of their passages."""
    asked = dict.fromkeys(question.positive_ids[0] for question in questions)
    return [
        Question(f"{id}-description", f"Describe {cities[id].name}.", (clue(cities[id]),), positive_ids=(id,))
        for id in asked
    ]


def write(data: Path, folder: Path) -> None:
    """Write `train.jsonl` and `test.jsonl` about the same cities as those in `data`."""
    cities = {passage_id(city): city for city in load_cities()}
    for name in FILES:
        found = descriptions(cities, read_questions(data / name))
        write_jsonl(folder / name, (question._asdict() for question in found))


def describing(setup: Setup) -> Setup:
    """The setup of the cities with this task."""
    folder = setup.workdir / "data" / "descriptions"

    def changed(config: Config) -> Config:
        data = dataclasses.replace(config.data, train=folder / "train.jsonl", evaluation=folder / "test.jsonl")
        generator = dataclasses.replace(config.generator, max_target=MAX_TARGET)
        return dataclasses.replace(config, data=data, generator=generator)

    reader, closed_book = (None if each is None else changed(each) for each in (setup.reader, setup.closed_book))
    return dataclasses.replace(
        setup, config=changed(setup.config), reader=reader, closed_book=closed_book, prefix="describe-"
    )
