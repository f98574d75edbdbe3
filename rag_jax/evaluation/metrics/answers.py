"""Metrics of open-domain question answering.

Answers: exact match, F1 and containment after SQuAD's normalisation (Rajpurkar et al. 2016), maximum over the gold
answers; regular expressions where these are the gold answers (CuratedTREC).
Retrieval: the fraction of questions with a hit among the first k passages. A hit is a gold passage, or a passage that
contains an answer by DPR's token match (Karpukhin et al. 2020). `ranking.py` has the scores of single questions.

All text is normalised to Unicode NFD first, so that both encodings of `é` are equal.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from rag_jax.data.answer_pattern import compile_answer
from rag_jax.data.question import Question
from rag_jax.errors import InputError

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# SQuAD's rule is \b(a|an|the)\b. For \b, combining accents are not word characters: it would find an article at the end
# of "María" (i, accent, a) and one in "à". Here accents count as parts of words.
_ARTICLES = re.compile(r"(?<![\w\u0300-\u036f])(a|an|the)(?![\w\u0300-\u036f])")


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces.

    >>> normalize_answer("  The Origin of Species! ")
    'origin of species'
    """
    text = unicodedata.normalize("NFD", text).lower().translate(_WITHOUT_PUNCTUATION)
    text = unicodedata.normalize("NFD", text)  # reorder accents that punctuation separated
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Whether the prediction equals one of the answers, normalised.

    >>> exact_match("the Origin of Species", ["On the Origin of Species", "Origin of species"])
    True
    """
    return normalize_answer(prediction) in map(normalize_answer, answers)


def f1(prediction: str, answers: Iterable[str]) -> float:
    """The harmonic mean of precision and recall over normalised words; maximum over the answers, 0 without any.

    >>> f1("Charles Robert Darwin", ["Charles Darwin"])  # precision 2/3, recall 1
    0.8
    """
    words = normalize_answer(prediction).split()
    return max((_f1(words, normalize_answer(gold).split()) for gold in answers), default=0.0)


def contains(prediction: str, answers: Iterable[str]) -> bool:
    """Whether the prediction contains one of the answers as whole words: for answers in sentences.

    The words are those of `normalize_answer`, or the tokens of `has_answer`, which separate "Austen" from "'s". An
    answer that normalises to nothing has to be matched exactly. An exact match is always contained.

    FlashRAG's accuracy (Jin et al. 2024) also finds an answer inside a word: "no" in "know".

    >>> contains("It is one of Jane Austen's novels.", ["Austen"]), contains("I do not know.", ["no"])
    (True, False)
    """
    words = normalize_answer(prediction)

    def is_contained(answer: str) -> bool:
        normalized = normalize_answer(answer)
        if not normalized:
            return not words
        return f" {normalized} " in f" {words} " or has_answer(prediction, [answer])

    return any(map(is_contained, answers))


def regex_match(prediction: str, patterns: Iterable[str], anchored: bool) -> bool:
    """Whether one of the regular expressions matches, ignoring case: for CuratedTREC's answers.

    Args:
        prediction: an answer, or the text of a passage.
        patterns: in Python's syntax; `^` and `$` match at line ends.
        anchored: whether a pattern has to match all of the prediction, without the white space around it and
            otherwise as it is, or may match anywhere in it (DPR's match of passages).

    Raises `InputError` as `compile_answer`, which also says in which Unicode form both are read.

    >>> [regex_match("in July 1969", ["19(68|69)"], anchored) for anchored in (True, False)]
    [False, True]
    """
    compiled = [compile_answer(pattern) for pattern in patterns]
    return any(each.matches_all(prediction) if anchored else each.is_in(prediction) for each in compiled)


def has_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether the text contains the tokens of an answer consecutively, ignoring case.

    Tokens are runs of letters, digits and marks, or single other characters. A word never matches inside another one.

    >>> has_answer("Emma is by Jane Austen.", ["jane austen"]), has_answer("Emma is by Jane Austen.", ["Aust"])
    (True, False)
    """
    haystack = spaced_tokens(text)
    needles = map(spaced_tokens, answers)
    return any(needle in haystack for needle in needles if needle.strip())


def spaced_tokens(text: str) -> str:
    """The tokens of `has_answer`, separated and enclosed by single spaces: substring search then finds whole tokens.

    >>> spaced_tokens("Emma, by Jane")
    ' emma , by jane '
    """
    tokens = unicodedata.normalize("NFD", text).translate(_SPACING).lower().split()
    return f" {' '.join(tokens)} "


def is_correct(prediction: str, question: Question) -> bool:
    """Whether an answer is right: by exact match, or as a whole by one of the question's regular expressions."""
    if question.regex:
        return regex_match(prediction, question.answers, anchored=True)
    return exact_match(prediction, question.answers)


def holds_answer(text: str, question: Question) -> bool:
    """Whether a text holds an answer: by `has_answer`, or anywhere by one of the question's regular expressions."""
    if question.regex:
        return regex_match(text, question.answers, anchored=False)
    return has_answer(text, question.answers)


def recall_at_k(ranked_ids: Sequence[Sequence[str]], positives: Sequence[Collection[str]], k: int) -> float:
    """The fraction of questions with a gold passage among the first k.

    Args:
        ranked_ids: the ids retrieved for each question, best first.
        positives: the ids of each question's gold passages.
        k: the number of passages to consider.
    """
    require_ranking(ranked_ids, positives, k)
    hits = (any(id in gold for id in ids[:k]) for ids, gold in zip(ranked_ids, positives, strict=True))
    return sum(hits) / len(ranked_ids)


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:  # "The" normalises to nothing: correct only if the gold answer does too
        return float(prediction == gold)
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold))


class _Spacing(dict[int, str]):
    """A `str.translate` table that puts spaces around punctuation and symbols; looks up each character once."""

    def __missing__(self, code: int) -> str:
        match unicodedata.category(chr(code))[0]:
            case "L" | "N" | "M":
                spaced = chr(code)
            case "Z" | "C":  # separators and control characters
                spaced = " "
            case _:
                spaced = f" {chr(code)} "
        self[code] = spaced
        return spaced


_SPACING = _Spacing()


def require_ranking(ranked: Sequence[object], gold: Sequence[object], k: int) -> None:
    """Raise `InputError` for k < 1, for other than one ranking per question, and for no questions."""
    if k < 1:
        raise InputError(f"recall at {k} is not defined; ask for k = 1 or more")
    if len(ranked) != len(gold):
        raise InputError(f"{len(ranked)} rankings for {len(gold)} questions; give one ranking per question")
    if not ranked:
        raise InputError("no questions to score; give one at least")
