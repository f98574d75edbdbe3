"""Q-BLEU-1 against its definition, by hand."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.evaluation.metrics import question_generation
from rag_jax.evaluation.metrics.question_generation import DELTA, WEIGHTS, q_bleu_1

ENTITIES, CONTENT, TYPE, FUNCTION = WEIGHTS
words = st.sampled_from(["What", "which", "who", "Lincoln", "president", "was", "the", "Born", "in", "1809", "city?"])
questions = st.lists(words, min_size=1, max_size=8).map(" ".join)


def f(matches: int, predicted: int, gold: int) -> float:
    """The harmonic mean of BLEU-1 both ways: precision and recall, each with its brevity penalty."""
    precision = matches / predicted * min(1, math.exp(1 - gold / predicted))
    recall = matches / gold * min(1, math.exp(1 - predicted / gold))
    return 2 * precision * recall / (precision + recall)


def q(entities: float, content: float, question_type: float, function: float, bleu: float) -> float:
    answerability = ENTITIES * entities + CONTENT * content + TYPE * question_type + FUNCTION * function
    return DELTA * answerability + (1 - DELTA) * bleu


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(question_generation).failed == 0


def test_the_weights_sum_to_one():
    assert sum(WEIGHTS) == pytest.approx(1)


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        # "Who" at the beginning is no entity; all words but the entity agree.
        ("Who wrote Emma?", "Who wrote Persuasion?", q(0, 1, 1, 1, 2 / 3)),
        # The word after "Which" belongs to the question type, and is an entity too if it has a capital.
        ("Which novel is old?", "Which city is old?", q(1, 1, 1 / 2, 1, 3 / 4)),
        ("Which Roman city?", "Which Greek city?", q(0, 1, 1 / 2, 1, 2 / 3)),
        # A shorter prediction has a brevity penalty, in its groups and as a whole.
        ("When did Jane die?", "When did Jane Austen die?", q(f(1, 1, 2), 1, 1, 1, math.exp(1 - 5 / 4))),
        # A contraction is two words, in the text and in the group.
        ("Lincoln's city", "Lincoln city", q(f(1, 2, 1), 1, 1, 1, 2 / 3)),
        ("who", "city", q(1, 0, 0, 1, 0)),
        # A question mark behind a space is a content word, and matches nothing.
        ("Who is Napoleon ?", "Who is Napoleon ?", q(1, 0, 1, 1, 1)),
    ],
)
def test_q_bleu_1_is_the_weighted_sum(prediction, gold, score):
    assert q_bleu_1(prediction, [gold]) == pytest.approx(score)


@given(questions, questions)
def test_q_bleu_1_is_a_share_that_is_1_for_the_gold_question(prediction, gold):
    assert 0 <= q_bleu_1(prediction, [gold]) <= 1 + 1e-12
    assert q_bleu_1(gold, [gold]) == pytest.approx(1)


@given(questions, st.lists(questions, min_size=1, max_size=3))
def test_q_bleu_1_is_the_best_over_the_gold_questions(prediction, golds):
    assert q_bleu_1(prediction, golds) == max(q_bleu_1(prediction, [gold]) for gold in golds)


def test_empty_texts():
    assert q_bleu_1("", ["Who wrote Emma?"]) == q_bleu_1("?", ["Who wrote Emma?"]) == 0
    assert math.isnan(q_bleu_1("Who wrote Emma?", ["", "?"]))
    assert q_bleu_1("Who wrote Emma?", ["", "Who wrote Emma?"]) == pytest.approx(1)
