"""The chemical elements: real prose that installs with a package, for the demo.

The PyPI package `mendeleev` (MIT licence) holds a SQLite database of the 118 elements: descriptions, discoverers, the
origins of their names, sources, uses and producers. Its prose is kept as it is; only fields that are fragments are put
into a sentence. An element has up to three passages, of one subject each, so that they stay short. The package is
located and not imported: it depends on pandas, the database does not.
"""

import importlib.util
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.demo.requirements import MENDELEEV
from rag_jax.errors import InputError

ANCIENT = "Known to the ancients"
"""What the database says of who discovered copper, iron, gold, …"""


class Element(NamedTuple):
    """What the database says of one element; "" or () where it says nothing."""

    number: int  # protons
    name: str
    symbol: str
    description: str
    discoverers: str  # names, separated by commas
    year: str  # of the discovery
    places: tuple[str, ...]  # countries of the discovery
    name_origin: str
    sources: str
    uses: str
    producers: tuple[str, ...]  # at most three countries, the largest first


def load_elements() -> list[Element]:
    """The elements by atomic number. Raises `InputError` where `mendeleev` is not installed, or is another version."""
    package = importlib.util.find_spec(MENDELEEV.module)
    if package is None or package.origin is None:
        raise InputError(f"the elements need the package {MENDELEEV.module}: {MENDELEEV.command}")
    database = Path(package.origin).with_name("elements.db")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return [_element(*row) for row in connection.execute(QUERY)]
    except sqlite3.Error as error:
        raise InputError(f"{database}: cannot be read ({error}); run {MENDELEEV.command}") from None


def passages(elements: Iterable[Element]) -> list[Passage]:
    """The passages of the elements; the title is the element's name, the id `element-<number>-<subject>`."""
    return [
        Passage(passage_id(element, subject), element.name, text)
        for element in elements
        for subject, text in texts(element).items()
    ]


def passage_id(element: Element, subject: str) -> str:
    """The id of the passage on a subject: "history", "use" or "description"."""
    return f"element-{element.number}-{subject}"


def texts(element: Element) -> dict[str, str]:
    """The passages' texts by subject, those that are not empty."""
    each = {
        "history": " ".join(_history(element)),
        "use": " ".join(_use(element)),
        "description": _sentence(element.description),
    }
    return {subject: text for subject, text in each.items() if text}


def listed(names: Iterable[str]) -> str:
    """Names as a list in a sentence.

    >>> listed(["Australia", "Chile", "China"])
    'Australia, Chile and China'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _history(element: Element) -> Iterator[str]:
    name = f"{element.name} (symbol {element.symbol}, atomic number {element.number})"
    if element.discoverers.startswith(ANCIENT):
        yield f"{name} was known to the ancients."
    else:
        yield f"{name} was discovered in {element.year} in {listed(element.places)} by {_sentence(element.discoverers)}"
    if element.name_origin:
        yield f"Origin of the name: {_sentence(element.name_origin)}"


def _use(element: Element) -> Iterator[str]:
    yield from (_sentence(text) for text in (element.uses, element.sources) if text)
    if element.producers:
        yield f"The largest producers of {element.name.lower()} are {listed(element.producers)}."


def _sentence(text: str) -> str:
    return f"{text}." if text and text[-1] not in ".!?" else text


FIELDS = (
    *("atomic_number", "name", "symbol", "description", "discoverers", "discovery_year", "discovery_location"),
    *("name_origin", "sources", "uses", "top_3_producers"),
)
QUERY = f"SELECT {', '.join(FIELDS)} FROM elements ORDER BY atomic_number"


def _element(number: int, *fields: str | int | None) -> Element:
    name, symbol, description, discoverers, year, places, origin, sources, uses, producers = (
        "" if field is None else " ".join(str(field).split()) for field in fields
    )
    countries = re.findall(r"\d\) ([^\d(]+)", producers)  # "1) China 2) Germany (likely)"
    return Element(
        *(number, name, symbol, description, discoverers, year),
        places=tuple(filter(None, places.split("/"))),
        name_origin=origin,
        sources=sources,
        uses=uses,
        producers=tuple(country.strip() for country in countries),
    )
