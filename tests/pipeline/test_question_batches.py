"""Any number of questions is tokenised so many at a time, and each is asked once, by its own number."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rag_jax.data.batches import TokenizedQuestions
from rag_jax.pipeline import question_batches as module
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.question_batches import question_batches

QUESTIONS = [f"question {number}" for number in range(23)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[list[str]]]:
    """Components whose tokenizer records what it is given; every third question is longer than the others."""
    given: list[list[str]] = []

    def questions(named: list) -> TokenizedQuestions:
        given.append([each.id for each in named])
        shapes = np.array([(8, 8 + 8 * (int(each.id) % 3 == 0)) for each in named], np.int32)
        texts = [each.question for each in named]
        return TokenizedQuestions([each.id for each in named], texts, [[]] * len(named), [[]] * len(named), shapes)

    monkeypatch.setattr(module, "AT_ONCE", 10)
    monkeypatch.setattr(module, "collate_questions", lambda *arguments: None)
    return SimpleNamespace(example_tokenizer=SimpleNamespace(questions=questions), generator_tokenizer=None), given


@pytest.mark.parametrize("skip", [(), (0, 11, 22), range(10, 20), range(23)])
def test_each_question_is_asked_once_by_its_number(asked, skip) -> None:
    components, given = asked
    batches = list(question_batches(components, QUESTIONS, 4, skip=skip))
    numbers = np.concatenate([[], *(batch.first(batch.numbers) for batch in batches)]).astype(int)
    assert sorted(numbers) == [number for number in range(23) if number not in skip]
    assert all(batch.texts == [QUESTIONS[number] for number in batch.numbers] for batch in batches)
    assert all(len(batch.texts) == 4 for batch in batches)
    assert max(map(len, given), default=0) <= 10
    assert [id for ids in given for id in ids] == [
        str(n + 1)
        for n in range(23)
        if not all(each in skip for each in range(n // 10 * 10, min(n // 10 * 10 + 10, 23)))
    ]


def test_the_first_batch_comes_before_the_last_question_is_read(asked) -> None:
    components, given = asked
    next(question_batches(components, QUESTIONS, 4))
    assert len(given) == 1


@pytest.mark.parametrize(("length", "room", "least"), [(16, 9, 9), (8, 9, 8)])
def test_the_warning_names_the_tokens_that_are_left_of_a_question(asked, capsys, length: int, room: int, least: int):
    components, _ = asked
    tokenise = components.example_tokenizer.questions
    components.example_tokenizer.longest_prompt = room
    components.bi_encoder = SimpleNamespace(input_format=SimpleNamespace(max_length=length))
    components.question_length = Components.question_length.__get__(components)
    components.example_tokenizer.questions = lambda named: replace(tokenise(named), num_truncated=2)
    list(question_batches(components, QUESTIONS[:5], 4))
    assert capsys.readouterr().err == f"warning: 2 of 5 questions are cut to {least} tokens\n"
