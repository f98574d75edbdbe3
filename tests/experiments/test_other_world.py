"""The second version of the cities, and their descriptions: consistent facts under the same names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data.questions import Question
from rag_jax.demo.cities import City, latitude_text, passage_text
from rag_jax.demo.questions import KINDS
from rag_jax.experiments import descriptions, other_world


def city(number: int) -> City:
    """A city whose facts all name its number."""
    facts = f"Land{number}", 1_000 + number, float(number), f"Zone/{number}", f"Coin{number}"
    neighbours = () if number == 1 else (f"Neighbour{number}",)
    return City(str(number), f"Town{number}", *facts, neighbours, (f"Alias{number}",))


CITIES = [city(number) for number in range(12)]


def questions() -> list[Question]:
    return [
        Question(f"city-{c.id}-{kind}-name", f"{kind} of {c.name}?", KINDS[kind].answers(c), (f"city-{c.id}",))
        for c in CITIES
        for kind in KINDS
        if KINDS[kind].answers(c)
    ]


def test_names_stay_and_every_city_has_all_the_facts_of_one_other() -> None:
    swapped = other_world.swapped(CITIES)
    donors = {c.population: c for c in CITIES}
    for was, now in zip(CITIES, swapped, strict=True):
        assert (now.id, now.name, now.alternate_names) == (was.id, was.name, was.alternate_names)
        donor = donors[now.population]
        assert donor != was
        assert now == donor._replace(id=was.id, name=was.name, alternate_names=was.alternate_names)
    assert sorted(now.population for now in swapped) == sorted(was.population for was in CITIES)
    assert other_world.swapped(CITIES) == swapped


def test_answers_are_those_that_the_new_passage_states() -> None:
    swapped = {f"city-{c.id}": c for c in other_world.swapped(CITIES)}
    before = {question.id: question for question in questions()}
    after = other_world.questions_about(swapped.values(), before.values())
    for question in after:
        was = before[question.id]
        assert (question.question, question.positive_ids) == (was.question, was.positive_ids)
        assert not set(question.answers) & set(was.answers)
        text = passage_text(swapped[question.positive_ids[0]])
        assert all(answer in text for answer in question.answers)
    lost = {each for each in before if each not in {question.id for question in after}}
    assert [question.split("-")[2] for question in lost] == ["neighbour"]  # of the town that got Town1's facts


def test_questions_of_two_versions_are_paired_where_their_answers_differ() -> None:
    one = [Question("1", "a?", ("x",)), Question("2", "b?", ("The X", "y")), Question("3", "c?", ("x",))]
    other = [Question("9", "b?", ("x",)), Question("8", "a?", ("z",))]
    assert other_world.with_other_answers(one, other) == [(one[0], other[1])]


@pytest.mark.parametrize("form", range(len(descriptions.CLUES)))
def test_a_description_states_facts_and_no_name(form: int) -> None:
    described = city(4 * form)
    text = descriptions.clue(described)
    known = (str(described.population), described.country, latitude_text(described), described.currency)
    assert sum(fact in text for fact in (*known, described.timezone)) >= 3
    assert described.name not in text


@given(st.lists(st.sampled_from(questions()), min_size=1))
def test_every_city_asked_about_is_described_once(asked: list[Question]) -> None:
    found = descriptions.descriptions({f"city-{c.id}": c for c in CITIES}, asked)
    assert [each.positive_ids[0] for each in found] == list(dict.fromkeys(q.positive_ids[0] for q in asked))
    for each in found:
        described = CITIES[int(each.positive_ids[0].removeprefix("city-"))]
        assert each.question == f"Describe {described.name}."
        assert each.answers == (descriptions.clue(described),)
