"""Answer and retrieval scores, against the original definitions written out."""

import doctest
import re
import string
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.metrics import answers
from rag_jax.evaluation.metrics.answers import (
    contains,
    exact_match,
    f1,
    has_answer,
    normalize_answer,
    recall_at_k,
    regex_match,
)

any_text = st.text(st.characters(exclude_categories=["Cs"]))
# Text in which articles, signs, accents and repetitions meet, which random characters seldom do.
pieces = st.sampled_from(
    ["the", "a", "an", "A", " ", " ", "\t", "-", "'", "(", "é", "e\u0301", "\u0301", "ß", "Σ", "cat"]
)
texts = any_text | st.lists(pieces, max_size=12).map("".join)
ascii_texts = st.text(st.characters(codec="ascii")) | st.lists(pieces.filter(str.isascii), max_size=12).map("".join)


def squad_normalize(text: str) -> str:
    """SQuAD's evaluation script, step by step."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def dpr_tokens(text: str) -> list[str]:
    """DPR's tokens, character by character: a run of letters, digits and marks, or another sign that can be seen."""
    tokens, in_word = [], False
    for character in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(character)[0]
        if kind in "LNM":
            tokens = [*tokens[:-1], tokens[-1] + character] if in_word else [*tokens, character]
        elif kind not in "ZC":
            tokens.append(character)
        in_word = kind in "LNM"
    return [token.lower() for token in tokens]


def naive_has_answer(text: str, answer: str) -> bool:
    haystack, needle = dpr_tokens(text), dpr_tokens(answer)
    return bool(needle) and any(haystack[i : i + len(needle)] == needle for i in range(len(haystack)))


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(answers).failed == 0


@given(ascii_texts)
def test_normalisation_of_plain_text_is_squads(text):
    assert normalize_answer(text) == squad_normalize(text)


@given(texts)
def test_normalisation_is_idempotent(text):
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@given(texts)
def test_both_spellings_of_an_accent_are_one(text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert normalize_answer(composed) == normalize_answer(decomposed)
    assert has_answer(composed, [decomposed]) == has_answer(decomposed, [composed])


@pytest.mark.parametrize("text", ["María", "à", "Thé"])
def test_a_letter_with_an_accent_is_no_article(text):
    assert normalize_answer(text) == unicodedata.normalize("NFD", text.lower())


def test_exact_match_is_the_best_over_the_answers():
    assert exact_match("The U.S.A.", ["United States", "USA"])
    assert not exact_match("Jane", ["Jane Austen", "Austen"])
    assert not exact_match("Jane", [])


@given(texts, st.lists(texts, max_size=3))
def test_f1_is_a_share_that_is_one_where_the_match_is_exact(prediction, answers):
    score = f1(prediction, answers)
    assert 0 <= score <= 1
    assert score == max((f1(prediction, [answer]) for answer in answers), default=0)
    if exact_match(prediction, answers):
        assert score == 1


@given(texts, texts)
def test_f1_is_symmetric(one, other):
    assert f1(one, [other]) == f1(other, [one])


@pytest.mark.parametrize(
    ("prediction", "gold", "precision", "recall"),
    [("Charles Robert Darwin", "Charles Darwin", 2 / 3, 1), ("a cat cat sat", "cat dog", 1 / 3, 1 / 2)],
)
def test_f1_is_the_harmonic_mean(prediction, gold, precision, recall):
    assert f1(prediction, [gold]) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(
    ("prediction", "gold", "score"), [("the", "a", 1), ("the", "cat", 0), ("cat", "!", 0), ("x", "y", 0)]
)
def test_f1_of_answers_that_normalise_to_nothing(prediction, gold, score):
    assert f1(prediction, [gold]) == score


@given(texts, st.lists(texts, max_size=3))
def test_an_exact_match_is_contained(prediction, answers):
    assert contains(prediction, answers) or not exact_match(prediction, answers)


@given(texts, texts)
def test_what_is_contained_is_found_inside_words_too(prediction, answer):
    """FlashRAG's accuracy: one normalised string in the other."""
    if contains(prediction, [answer]) and not has_answer(prediction, [answer]):
        assert normalize_answer(answer) in normalize_answer(prediction)


@pytest.mark.parametrize(
    ("prediction", "answer", "found"),
    [
        ("It was written by Jane Austen in 1815.", "jane austen", True),
        ("It is Jane Austen's novel.", "Austen", True),
        ("by the U.S.A. in 1969", "USA", True),  # as in an exact match
        ("on the origin of the species", "Origin of Species", True),
        ("I do not know.", "no", False),
        ("in 18095", "1809", False),
        ("by Jane", "Jane Austen", False),
        ("a cat", "The", False),  # normalises to nothing
        ("a cat", "", False),
        ("", "", True),
        ("An", "The", True),
    ],
)
def test_answers_are_contained_as_whole_words(prediction, answer, found):
    assert contains(prediction, [answer]) is found
    assert contains(prediction, ["nowhere to be found", answer]) is found
    assert contains(prediction, []) is False


@given(texts, texts.filter(lambda text: unicodedata.normalize("NFD", text).strip()))
def test_a_plain_text_as_a_pattern_is_searched_as_dpr_does(before, answer):
    found = regex_match(before, [re.escape(answer)], anchored=False)
    text, pattern = (unicodedata.normalize("NFD", x) for x in (before, re.escape(answer)))
    assert found == (re.compile(pattern, re.IGNORECASE | re.UNICODE | re.MULTILINE).search(text) is not None)


@pytest.mark.parametrize(
    ("prediction", "pattern", "anywhere", "anchored"),
    [
        ("1969", "19(68|69)", True, True),
        (" 1969\n", "19(68|69)", True, True),
        ("July 1969", "19(68|69)", True, False),
        ("1970", "19(68|69)", False, False),
        ("NEIL Armstrong", r"(neil\s+)?armstrong", True, True),
        ("José", "jose\u0301", True, True),  # accents in either encoding
        ("first line\nParis", "^paris$", True, False),
        ("Café de Paris", "caf[eé] de paris", True, True),  # a set holds whole letters, accents included
        ("Cafe\u0301", "caf[éè]", True, True),
        ("Cafe", "caf[éè]", False, False),
        ("É", "^[éè]$", True, True),
        ("in 1969", r"(?a)19\d\d", True, False),
        ("étude", "[e\u0301e\u0300]tude", True, True),  # a set in the other encoding
        ("etude", "[e\u0301e\u0300]tude", False, False),
    ],
)
def test_a_pattern_matches_anywhere_or_all_of_the_prediction(prediction, pattern, anywhere, anchored):
    assert regex_match(prediction, ["nowhere", pattern], anchored=False) is anywhere
    assert regex_match(prediction, ["nowhere", pattern], anchored=True) is anchored
    assert not regex_match(prediction, [], anchored=False)


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("19(68", r"'19\(68': not a regular expression \(.*\); correct the answer"),
        ("a{99999999999}", r"'a\{99999999999\}': not a regular expression .*; correct the answer"),
        ("(Paris)?", r"'\(Paris\)\?': as a regular expression it matches every text; correct the answer"),
        ("Paris|", r"'Paris\|': as a regular expression it matches every text; correct the answer"),
    ],
)
def test_patterns_that_are_invalid_or_match_everything_are_input_errors(pattern, line):
    for anchored in (False, True):
        with pytest.raises(InputError, match=f"^{line}$"):
            regex_match("Paris", ["paris", pattern], anchored)


@given(texts, texts)
def test_has_answer_is_dprs_token_match(text, answer):
    assert has_answer(text, [answer]) == naive_has_answer(text, answer)


@given(texts, texts, texts)
def test_an_answer_between_spaces_is_found(before, answer, after):
    assume(dpr_tokens(answer))
    assert has_answer(f"{before} {answer} {after}", ["nowhere to be found", answer])


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("born in 1809.", "1809", True),
        ("born in 18095.", "1809", False),
        ("the cat-like dog", "cat", True),
        ("the category", "cat", False),
        ("an A.B. C", "a.b", True),
        ("an AB C", "a.b", False),
        ("one two three", "two  THREE", True),
        ("one two three", "one three", False),
        ("O\u200bK", "o k", True),  # a control character separates
        ("हिन्दी भाषा", "हिन्दी", True),  # marks are parts of words
        ("snake_case", "snake", True),
        ("anything", " ", False),
    ],
)
def test_tokens_have_to_match_whole_and_in_a_row(text, answer, found):
    assert has_answer(text, [answer]) is found
    assert has_answer(text, []) is False


def test_recall_counts_questions_with_a_positive_among_the_first_k():
    ranked, positives = [["1", "2", "3"], ["4", "5", "6"], ["7", "8"]], [{"3", "9"}, ["5", "4"], ()]
    assert [recall_at_k(ranked, positives, k) for k in (1, 2, 3, 100)] == [1 / 3, 1 / 3, 2 / 3, 2 / 3]


def test_rankings_that_cannot_be_scored_are_input_errors():
    with pytest.raises(InputError, match="recall at 0 is not defined; ask for k = 1 or more"):
        recall_at_k([["1"]], [["1"]], 0)
    with pytest.raises(InputError, match="2 rankings for 1 questions; give one ranking per question"):
        recall_at_k([["1"], ["2"]], [["1"]], 1)
    with pytest.raises(InputError, match="no questions to score; give one at least"):
        recall_at_k([], [], 1)
