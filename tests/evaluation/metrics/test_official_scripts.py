"""The same figures as the field's evaluation scripts, on random predictions.

The words bring out every rule: articles, punctuation, abbreviations, accents, numbers. Two known differences are kept
out of them. Accents are composed, since SQuAD's rule finds an article next to a combining accent (see `answers.py`).
Gold answers for SQuAD hold at least one word that is no article: its two scripts disagree on F1 where nothing is left.
"""

import math
import random

import numpy as np
import pytest

import official
from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.evaluation.kilt_guesses import Guess
from rag_jax.evaluation.metrics import kilt, no_answer
from rag_jax.evaluation.metrics.answers import exact_match, f1
from rag_jax.evaluation.metrics.ranking import answer_recall_scores
from rag_jax.evaluation.predictions import Prediction
from rag_jax.evaluation.scores import score

COUNT = 500
CONTENT = ["cat", "Cat's", "cats", "U.S.", "a.b.", "café", "María", "thé", "naïve", "1809", "snake_case", "the-cat"]
WORDS = [*CONTENT, "the", "a", "an", "The", "A", "(the)", "à", "-", "!", "...", "\u2019s"]
PAGES = [str(number) for number in range(8)]


def text(draw: random.Random, longest: int) -> str:
    words = draw.choices(WORDS, k=draw.randint(0, longest))
    return draw.choice(["", " "]) + draw.choice([" ", "  ", "\t"]).join(words)


def gold_answers(draw: random.Random) -> list[str]:
    return [f"{text(draw, 2)} {draw.choice(CONTENT)} {text(draw, 1)}" for _ in range(draw.randint(1, 3))]


def prediction(draw: random.Random, golds: list[str]) -> str:
    """Right, nearly right, or anything."""
    gold = draw.choice([*golds, ""])
    return draw.choice([gold, gold.upper(), f"the {gold}!", f"{gold} {text(draw, 2)}", text(draw, 4)])


@pytest.fixture
def draw() -> random.Random:
    return random.Random(0)


def test_squad_1(draw):
    answers = [gold_answers(draw) for _ in range(COUNT)]
    predictions = [prediction(draw, golds) for golds in answers]
    pairs = list(zip(predictions, answers, strict=True))
    expected = official.squad1(predictions, answers)
    assert 0.1 < expected[0] < expected[1] < 0.9
    found = [sum(metric(*pair) for pair in pairs) / COUNT for metric in (exact_match, f1)]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("metric", "script"), [(exact_match, official.exact), (f1, official.f1_with_no_answer)])
def test_squad_2(draw, metric, script):
    answers = [gold_answers(draw) if draw.random() < 0.6 else [] for _ in range(COUNT)]
    predictions = [prediction(draw, golds) for golds in answers]
    # The script takes "the" for an answer where it looks for the threshold, and for none where it scores.
    predictions = [each if official.normalize(each) else "" for each in predictions]
    questions = [Question(str(number), "?", tuple(golds) or ("",)) for number, golds in enumerate(answers)]
    scores = official.squad2(predictions, answers, script)
    unlikely = [draw.expovariate(1) + 1 - score for score in scores]
    log_probs = [-each for each in unlikely]

    pairs = zip(predictions, questions, strict=True)
    found = np.array([float(metric(each, question.answers)) for each, question in pairs])
    assert found.tolist() == pytest.approx(scores, rel=1e-12)

    best, threshold = official.squad2_best_threshold(predictions, scores, unlikely, answers)
    chosen = no_answer.best_threshold(log_probs, found, no_answer.answerable(questions))
    assert chosen.score == pytest.approx(best, rel=1e-12)
    assert chosen.log_prob == -threshold
    assert chosen.score_without == pytest.approx(sum(scores) / COUNT, rel=1e-12)
    assert chosen.score_without < chosen.score < 1

    abstaining = np.array(official.squad2_abstaining(scores, unlikely, answers, threshold))
    effect = no_answer.abstention_scores(log_probs, found, no_answer.answerable(questions), chosen.log_prob)
    assert effect["abstaining"].tolist() == pytest.approx(abstaining.tolist(), rel=1e-12)
    with_answer = np.array([bool(golds) for golds in answers])
    for name, kind in (("answerable", with_answer), ("unanswerable", ~with_answer)):
        assert np.nanmean(effect[f"abstaining_{name}"]) == pytest.approx(abstaining[kind].mean(), rel=1e-12)


def test_dpr(draw):
    answers = [gold_answers(draw) for _ in range(COUNT)]
    predictions = [prediction(draw, golds) for golds in answers]
    texts = [[f"{text(draw, 3)} {prediction(draw, golds)}" for _ in range(5)] for golds in answers]
    expected = official.dpr_top_k(texts, answers, 5)
    assert 0 < expected[0] < expected[4] < 1
    asked = [Question(str(number), "?", tuple(golds)) for number, golds in enumerate(answers)]
    found = answer_recall_scores(texts, asked, range(1, 6))
    assert [np.mean(each) for each in found.values()] == pytest.approx(expected, rel=1e-12)
    found = [
        tuple(Passage(str(rank), golds[0], each) for rank, each in enumerate(of))  # its title is an answer
        for of, golds in zip(texts, answers, strict=True)
    ]
    scores = score(asked, [Prediction(str(n), "", retrieved=each) for n, each in enumerate(found)]).each
    for k in (1, 5):
        assert np.mean(scores[f"answer_recall@{k}"]) == pytest.approx(expected[k - 1], rel=1e-12)
    for each, golds in zip(predictions, answers, strict=True):
        assert exact_match(each, golds) == official.best(official.exact, each, golds)


def test_kilt(draw):
    answers = [[*gold_answers(draw), text(draw, 2)] for _ in range(COUNT)]
    predictions = [prediction(draw, golds) for golds in answers]
    evidence = [
        tuple(tuple(draw.choices(PAGES, k=draw.randint(1, 3))) for _ in range(draw.randint(0, 3))) for _ in range(COUNT)
    ]
    ranked = [tuple(draw.choices(PAGES, k=draw.randint(0, 9))) for _ in range(COUNT)]
    rows = list(zip(predictions, answers, evidence, ranked, strict=True))
    questions = [Question(str(i), "?", tuple(golds), evidence=sets) for i, (_, golds, sets, _) in enumerate(rows)]
    guesses = [Guess(str(i), each, pages) for i, (each, _, _, pages) in enumerate(rows)]

    expected = official.kilt(predictions, answers, ranked, evidence)
    expected |= {
        "r_precision": sum(official.kilt_r_precision(pages, sets) for _, _, sets, pages in rows) / COUNT,
        "evidence_recall@5": sum(official.kilt_recall(pages, sets, 5) for _, _, sets, pages in rows) / COUNT,
    }
    assert all(0.01 < score < 0.99 for score in expected.values())
    found = kilt.kilt_scores(reversed(guesses), questions)
    assert all(np.isnan(scores).tolist() == [not sets for sets in evidence] for scores in found.values())
    alone = [kilt.answer_scores(each, golds) for each, golds, _, _ in rows]
    means = {name: float(np.nansum(scores)) / COUNT for name, scores in found.items()}  # the script counts NaN as 0
    means |= {name: math.fsum(scores[name] for scores in alone) / COUNT for name in alone[0]}
    assert means == pytest.approx(expected, rel=1e-9)
    for k in (1, 2, 3, 9):
        for _, _, sets, pages in rows:
            if sets:
                assert kilt.evidence_recall(pages, sets, k) == pytest.approx(official.kilt_recall(pages, sets, k))
