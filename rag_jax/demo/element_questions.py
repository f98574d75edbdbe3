"""Questions about the chemical elements, split so that no test element is ever asked about in training.

The answers are spans of one passage, the gold passage, and short enough for exact match; where several are right (one
of two discoverers), all are gold. Most kinds name the element and ask for a fact; three state a fact and ask for the
element, so that a title alone does not find the passage. Question ids are `element-<number>-<kind>-<phrasing>`.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import Question
from rag_jax.demo.elements import ANCIENT, Element, listed, load_elements, passage_id, passages


class Fact(NamedTuple):
    """What one question asks for: values for its phrasings, and the answers, of which the first is trained."""

    values: dict[str, str]
    answers: tuple[str, ...]


class Kind(NamedTuple):
    """One kind of question."""

    phrasings: tuple[str, ...]
    subject: str  # of the passage that holds the answer
    fact: Callable[[Element], Fact | None]  # None where the question cannot be asked of an element


HELD_OUT = {"test": 18, "dev": 10}
"""Elements kept for test and for dev alone; training asks about all others."""


def discoverers(element: Element) -> Fact | None:
    """Any of them is an answer."""
    if not _is_known(element.discoverers):
        return None
    people = [person for person in re.split(r"[,;] *", element.discoverers) if person != "et al"]
    return Fact({}, _unique(element.discoverers, *people))


def year(element: Element) -> Fact | None:
    """The year of the discovery."""
    return Fact({}, (element.year,)) if element.year else None


def place(element: Element) -> Fact | None:
    """The country of the discovery, or either of two."""
    return Fact({}, _unique(listed(element.places), *element.places)) if element.places else None


def language(element: Element) -> Fact | None:
    """The language of the word that an element is named after."""
    found = WORD.findall(_name_only(element))
    return Fact({}, tuple(found)) if found else None


def meaning(element: Element) -> Fact | None:
    """What that word means, where the origin explains one word: "Greek: lithos (stone)."."""
    words, meanings = WORD.findall(_name_only(element)), MEANING.findall(_name_only(element))
    if len(words) != 1 or len(meanings) != 1 or re.search(rf"\(|^a |{words[0]}", meanings[0]):
        return None  # two words, a remark in brackets, "(a mineral)", "(German for tin)"
    return Fact({"language": words[0]}, (meanings[0],))


def namesake(element: Element) -> Fact | None:
    """Whom or what an element is named after: "the planet Uranus", or "Uranus" alone."""
    found = NAMESAKE.match(APPOSITION.sub(r"\1 ", _name_only(element)))
    if found is None or found[1] not in element.name_origin or len(found[1]) > LONGEST:
        return None
    proper = re.search(r"[A-Z].*", found[1])
    return Fact({}, _unique(found[1], *([proper[0]] if proper else [])))


def producer(element: Element) -> Fact | None:
    """The country that produces the most."""
    return Fact({}, element.producers[:1]) if element.producers else None


def use(element: Element) -> Fact | None:
    """What an element is used for, where that is said in a few words."""
    found = USE.match(element.uses)
    if found is None or len(found[2].split()) > LONGEST_USE:
        return None
    return Fact({"preposition": "to do" if found[1] == "to" else found[1]}, (found[2],))


def element_of_discoverer(element: Element) -> Fact | None:
    """The element, by who discovered it when."""
    if not _is_known(element.discoverers):
        return None
    return Fact({"discoverers": element.discoverers, "year": element.year}, (element.name,))


def element_of_namesake(element: Element) -> Fact | None:
    """The element, by what it is named after."""
    fact = namesake(element)
    return fact and Fact({"namesake": fact.answers[0]}, (element.name,))


def element_of_meaning(element: Element) -> Fact | None:
    """The element, by what its name means."""
    fact = meaning(element)
    return fact and Fact({"meaning": fact.answers[0], **fact.values}, (element.name,))


KINDS = {
    "discoverer": Kind(("Who discovered {element}?", "By whom was {element} discovered?"), "history", discoverers),
    "year": Kind(("In which year was {element} discovered?", "When was {element} discovered?"), "history", year),
    "place": Kind(("In which country was {element} discovered?", "Where was {element} discovered?"), "history", place),
    "language": Kind(
        ("From which language does the name of {element} come?", "The name of {element} comes from which language?"),
        "history",
        language,
    ),
    "meaning": Kind(
        ("What does the {language} word behind the name of {element} mean?", "What does the name of {element} mean?"),
        "history",
        meaning,
    ),
    "namesake": Kind(
        ("What or whom is {element} named after?", "Where does the name of {element} come from?"), "history", namesake
    ),
    "producer": Kind(
        ("Which country produces the most {element}?", "Which country is the largest producer of {element}?"),
        "use",
        producer,
    ),
    "use": Kind(("What is {element} used {preposition}?",), "use", use),
    "of_discoverer": Kind(
        ("Which element was discovered in {year} by {discoverers}?", "What did {discoverers} discover in {year}?"),
        "history",
        element_of_discoverer,
    ),
    "of_namesake": Kind(
        ("Which element is named after {namesake}?", "Which element has its name from {namesake}?"),
        "history",
        element_of_namesake,
    ),
    "of_meaning": Kind(
        (
            "Which element has a {language} name that means {meaning}?",
            "The {language} name of which element means {meaning}?",
        ),
        "history",
        element_of_meaning,
    ),
}
"""The kinds of question."""

WORD = re.compile(r"((?:Medieval )?(?:Anglo-Saxon|English|German|Greek|Italian|Latin|Spanish|Swedish)): ")
MEANING = re.compile(r"\(([^)]+)\)")
NAMESAKE = re.compile(r"(?:Named (?:after|for|in honor of)|From) ([^,;]+?)(?:[,;]|\.?$)")
APPOSITION = re.compile(r"(asteroid|god|goddess|town|village|mineral),")
USE = re.compile(r"(?:It is )?(?:Often |Primarily |Widely )?[Uu]sed (as|for|in|to) ([^.(]+)\.")
LONGEST, LONGEST_USE = 40, 9  # characters of a name, words of a use


def questions(elements: Sequence[Element], seed: int = 0) -> dict[str, list[Question]]:
    """The questions of the splits "train", "dev" and "test", in random order; the same seed gives the same ones.

    Training asks in every phrasing, dev and test in one of them.
    """
    shuffled = Random(f"{seed}-split").sample(list(elements), len(elements))
    chance = Random(f"{seed}-questions")
    unclear = _unclear(elements)
    split, start = {}, 0
    for part, count in (HELD_OUT | {"train": len(shuffled)}).items():
        asked = [asked for each in shuffled[start : start + count] for asked in _ask(each, unclear)]
        if part != "train":
            asked = [(chance.choice(phrased),) for phrased in asked]
        split[part] = [question for phrased in asked for question in phrased]
        chance.shuffle(split[part])
        start += count
    return split


def kind(question: Question) -> str:
    """The kind of a question, one of `KINDS`."""
    return question.id.split("-")[2]


def write_corpus(folder: str | os.PathLike[str], seed: int = 0) -> None:
    """Write `passages.jsonl`, `dev.jsonl`, `test.jsonl` and `train.jsonl` into a folder, made if it is missing.

    Each file replaces an older one in one step. Raises `InputError` where `mendeleev` is not installed.
    """
    elements = load_elements()
    files: dict[str, Sequence[Passage | Question]] = {"passages": passages(elements), **questions(elements, seed)}
    for name, records in files.items():
        write_jsonl(Path(folder) / f"{name}.jsonl", (record._asdict() for record in records))


def _ask(element: Element, unclear: set[str]) -> Iterator[tuple[Question, ...]]:
    """The questions about an element, all phrasings of one together.

    Those that fit another element as well, or that name the element they ask for, are left out.
    """
    for name, (phrasings, subject, fact_of) in KINDS.items():
        fact = fact_of(element)
        if fact is None:
            continue
        texts = [phrasing.format(element=element.name.lower(), **fact.values) for phrasing in phrasings]
        gold = (passage_id(element, subject),)
        given_away = fact.answers == (element.name,) and any(element.name in text for text in texts)
        if unclear.isdisjoint(texts) and not given_away:
            yield tuple(
                Question(f"element-{element.number}-{name}-{number}", text, fact.answers, gold)
                for number, text in enumerate(texts)
            )


def _unclear(elements: Sequence[Element]) -> set[str]:
    """Questions that more than one element answers: four are named after Ytterby."""
    asked = Counter(question.question for each in elements for phrased in _ask(each, set()) for question in phrased)
    return {question for question, count in asked.items() if count > 1}


def _is_known(discoverers: str) -> bool:
    """Whether there are discoverers, and few enough to be asked for."""
    return not discoverers.startswith(ANCIENT) and len(discoverers) <= LONGEST


def _name_only(element: Element) -> str:
    """The origin of the name, without that of the symbol."""
    return re.split(r"[;:.]? *symbol from", element.name_origin, flags=re.IGNORECASE)[0]


def _unique(*answers: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answers))
