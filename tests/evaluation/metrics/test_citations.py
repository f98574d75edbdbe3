"""Citation recall and precision, against ALCE's definition written out."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.citations import citation_scores, citations, contains_claim, has_posterior
from rag_jax.evaluation.predictions import Prediction
from rag_jax.pipeline.answers import RetrievedPassage


def prediction(*posteriors: float | None, answer: str = "Austen", texts=None) -> Prediction:
    texts = texts or [f"text {number}" for number in range(len(posteriors))]
    passages = [
        RetrievedPassage(str(number), f"T{number}", text, -1.0, posterior)
        for number, (text, posterior) in enumerate(zip(texts, posteriors, strict=True))
    ]
    return Prediction("q", answer, -0.5, tuple(passages))


def cited_ids(prediction: Prediction, at_least: float) -> str:
    return "".join(passage.id for passage in citations(prediction, at_least))


def scores(prediction: Prediction, at_least: float, **options) -> tuple[float, float]:
    found = citation_scores([prediction], at_least, **options)
    return found["citation_recall"].item(), found["citation_precision"].item()


def test_passages_with_a_high_posterior_are_cited_best_first():
    assert cited_ids(prediction(0.2, 0.5, 0.3), 0.3) == "12"
    assert cited_ids(prediction(0.3, 0.3, 0.4), 0.1) == "201"  # equal ones in the order of retrieval
    assert cited_ids(prediction(0.2, 0.5, 0.3), 1) == "1"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0, 1, exclude_min=True))
def test_the_highest_posterior_is_always_cited_and_others_from_the_threshold_on(posteriors, at_least):
    cited = citations(prediction(*posteriors), at_least)
    assert cited[0].posterior == max(posteriors)
    beyond = [value for value in posteriors if value >= at_least]
    assert sorted(passage.posterior for passage in cited) == sorted(beyond or [max(posteriors)])


@pytest.mark.parametrize("at_least", [0, -0.1, 1.1, math.nan])
def test_a_threshold_outside_the_probabilities_is_refused(at_least):
    message = rf"^a posterior of {at_least} or more is no choice; give a threshold above 0, at most 1$"
    with pytest.raises(InputError, match=message):
        citations(prediction(0.5), at_least)


@pytest.mark.parametrize("without", [prediction(), prediction(0.5, None)])
def test_without_a_posterior_there_are_no_citations(without):
    assert not has_posterior(without)
    with pytest.raises(
        InputError, match=r"^question 'q': its passages have no posterior to choose citations by; retrieve"
    ):
        citations(without, 0.5)
    assert scores(without, 0.5) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_an_empty_answer_states_nothing():
    assert scores(prediction(0.5, answer=" "), 0.5) == pytest.approx((math.nan, math.nan), nan_ok=True)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Jane Austen wrote", "Austen"], (1, 1)),
        (["by Jane Austen", "something"], (1, 1 / 2)),
        (["Austens", "something"], (0, 0)),
    ],
)
def test_by_default_a_passage_that_contains_the_answer_supports_it(texts, expected):
    assert scores(prediction(0.5, 0.5, texts=texts), 0.5) == expected


def test_an_answer_is_not_found_across_passages_nor_in_their_labels():
    assert scores(prediction(0.6, 0.4, answer="Emma T1", texts=["Emma", "x"]), 0.1) == (0, 0)
    assert scores(prediction(0.6, answer="title"), 0.1) == (0, 0)
    assert scores(prediction(0.6, answer="T0"), 0.1) == (1, 1)
    assert contains_claim("Title: Emma\nJane\nAusten", "jane austen")


@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_scores_are_alces(supporting):
    """Every judge over the subsets of three citations, of which `supporting` lists those that entail the claim."""
    passages = prediction(0.3, 0.3, 0.3, texts=["one", "two", "three"])
    subsets = [tuple(c) for size in range(4) for c in itertools.combinations(["one", "two", "three"], size)]
    supports = dict(zip(subsets, supporting, strict=True))

    def entails(premise: str, claim: str) -> bool:
        assert claim == "Who wrote Emma? Austen"
        lines = premise.split("\n")
        assert lines[::2] == [f"Title: T{('one', 'two', 'three').index(text)}" for text in lines[1::2]]
        return supports[tuple(lines[1::2])]

    recall = supports["one", "two", "three"]
    pairs = {("one",): ("two", "three"), ("two",): ("one", "three"), ("three",): ("one", "two")}
    precise = [recall and (supports[alone] or not supports[rest]) for alone, rest in pairs.items()]
    expected = (float(recall), sum(precise) / 3)
    assert scores(passages, 0.1, entails=entails, claims=["Who wrote Emma? Austen"]) == expected


def test_one_claim_per_answer():
    with pytest.raises(InputError, match=r"^2 claims for 1 answers; give one claim per answer$"):
        citation_scores([prediction(0.5)], 0.5, claims=["a", "b"])


def test_no_predictions_have_no_scores():
    assert [values.shape for values in citation_scores([], 0.5).values()] == [(0,), (0,)]
