"""ROUGE-L, BLEU-1 and distinct n-grams, against plain loops and the packages' own results."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.metrics import generated_text
from rag_jax.evaluation.metrics.generated_text import bleu_1, corpus_bleu_1, distinct_ngrams, rouge_l

# Plain words: all tokenizers agree on them.
words = st.lists(st.sampled_from(["the", "cat", "Cat", "sat", "on", "mat"]), max_size=8).map(" ".join)
golds = st.lists(words.filter(bool), min_size=1, max_size=3)
ascii_texts = st.text(st.characters(codec="ascii"), max_size=30)


def naive_lcs(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + naive_lcs(one[:-1], other[:-1])
    return max(naive_lcs(one[:-1], other), naive_lcs(one, other[:-1]))


def naive_rouge_l(prediction: str, gold: str) -> float:
    p, g = prediction.lower().split(), gold.lower().split()
    common = naive_lcs(p, g)
    return 2 * (common / len(p)) * (common / len(g)) / (common / len(p) + common / len(g)) if common else 0.0


def naive_counts(prediction: str, golds: list[str]) -> tuple[int, int, int]:
    """Clipped matches, tokens of the prediction, tokens of the closest gold text (the shorter one of two)."""
    p, texts = prediction.lower().split(), [gold.lower().split() for gold in golds]
    matches = sum(min(p.count(word), max(text.count(word) for text in texts)) for word in set(p))
    return matches, len(p), min((abs(len(text) - len(p)), len(text)) for text in texts)[1]


def naive_bleu_1(matches: int, length: int, reference: int) -> float:
    if not matches:
        return 0.0
    penalty = 1.0 if length >= reference else math.exp(1 - reference / length)
    return penalty * matches / length


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(generated_text).failed == 0


@given(words, golds)
def test_rouge_l_is_f_of_the_longest_common_subsequence(prediction, golds):
    assert rouge_l(prediction, golds) == pytest.approx(max(naive_rouge_l(prediction, gold) for gold in golds))


@given(ascii_texts, ascii_texts)
def test_rouge_l_of_ascii_text_is_the_packages(prediction, gold):
    from rouge_score.rouge_scorer import RougeScorer

    assume(any(character.isalnum() for character in gold))
    assert rouge_l(prediction, [gold]) == RougeScorer(["rougeL"]).score(gold, prediction)["rougeL"].fmeasure


def test_rouge_l_keeps_the_letters_that_the_package_drops():
    assert rouge_l("Привет", ["привет"]) == 1
    assert rouge_l("Beyonce\u0301", ["Beyoncé"]) == 1
    assert rouge_l("Beyonce", ["Beyoncé"]) == 0


@given(words, golds)
def test_bleu_1_is_clipped_precision_with_a_brevity_penalty(prediction, golds):
    assert bleu_1(prediction, golds) == pytest.approx(naive_bleu_1(*naive_counts(prediction, golds)))


@given(ascii_texts, st.lists(ascii_texts.filter(str.strip), min_size=1, max_size=3))
def test_bleu_1_is_sacrebleus(prediction, golds):
    from sacrebleu.metrics.bleu import BLEU

    theirs = BLEU(lowercase=True, max_ngram_order=1, effective_order=True).sentence_score(prediction, golds)
    assert bleu_1(prediction, golds) == pytest.approx(theirs.score / 100)


@given(st.lists(st.tuples(words, golds), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_corpus_bleu_1_sums_the_counts(pairs, draw):
    numbers = [draw.randrange(len(pairs)) for _ in pairs]  # a bootstrap sample
    matches, length, reference = np.sum([naive_counts(*pairs[number]) for number in numbers], axis=0)
    statistic = corpus_bleu_1(*zip(*pairs, strict=True))
    assert statistic(np.array(numbers)) == pytest.approx(naive_bleu_1(matches, length, reference))


def test_corpus_bleu_1_is_sacrebleus():
    from sacrebleu.metrics.bleu import BLEU

    predictions, gold = ["The cat, which sat.", "On a mat?", ""], ["the cat sat.", "on the mat!", "a dog"]
    theirs = BLEU(lowercase=True, max_ngram_order=1).corpus_score(predictions, [gold])
    statistic = corpus_bleu_1(predictions, [[text] for text in gold])
    assert statistic(np.arange(3)) == pytest.approx(theirs.score / 100)


@pytest.mark.parametrize("score", [rouge_l, bleu_1])
def test_a_question_without_a_gold_text_is_not_counted(score):
    assert math.isnan(score("a cat", [""]))
    assert math.isnan(score("", [" "]))
    assert score("", ["a cat"]) == 0
    assert score("a cat", ["", "a cat"]) == 1


def test_corpus_bleu_1_leaves_questions_without_a_gold_text_out():
    statistic = corpus_bleu_1(["a cat", "many words that are wrong"], [["a cat"], [""]])
    assert statistic(np.array([0, 1])) == 1
    assert statistic(np.array([1, 1])) == 0


@given(st.lists(words, max_size=4), st.integers(1, 4))
def test_distinct_ngrams_are_the_share_of_different_ones(texts, n):
    ngrams = [" ".join(text.lower().split()[i : i + n]) for text in texts for i in range(len(text.split()) - n + 1)]
    found = distinct_ngrams(texts, n)
    assert math.isnan(found) if not ngrams else found == len(set(ngrams)) / len(ngrams)


def test_an_ngram_does_not_cross_from_one_text_to_the_next():
    assert math.isnan(distinct_ngrams(["one two", "three four"], 3))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"^0-grams are not defined; ask for n = 1 or more$"):
        distinct_ngrams(["a"], 0)
    with pytest.raises(InputError, match=r"^2 predictions for 1 questions; give one per question$"):
        corpus_bleu_1(["a", "b"], [["a"]])
