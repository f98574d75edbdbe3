"""Scores of answers and of retrieval, as the papers of open-domain question answering count them.

Answers: exact match and F1 after SQuAD's normalisation (Rajpurkar et al. 2016), the best over all gold answers.
Retrieval: the share of questions with a hit among the first k passages, a hit being either a passage known to be
positive or one in which an answer stands, by the token match of DPR (Karpukhin et al. 2020).

All text is brought to Unicode's decomposed form (NFD) first, so that both spellings of `é` are one.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from rag_jax.errors import InputError

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# SQuAD's rule is \b(a|an|the)\b. Decomposed accents are no word characters to \b, which would find an article at the
# end of "María" (i, accent, a) and another in "à"; with accents counted as parts of words the rule does what it should.
_ARTICLES = re.compile(r"(?<![\w\u0300-\u036f])(a|an|the)(?![\w\u0300-\u036f])")


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: no case, no ASCII punctuation, no English articles, single spaces.

    >>> normalize_answer("  The Origin of Species! ")
    'origin of species'
    """
    text = unicodedata.normalize("NFD", text).lower().translate(_WITHOUT_PUNCTUATION)
    text = unicodedata.normalize("NFD", text)  # accents that a sign kept apart have met, and have an order
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Whether the prediction equals one of the answers, normalised.

    >>> exact_match("the Origin of Species", ["On the Origin of Species", "Origin of species"])
    True
    """
    return normalize_answer(prediction) in map(normalize_answer, answers)


def f1(prediction: str, answers: Iterable[str]) -> float:
    """The harmonic mean of precision and recall over normalised words; the best over the answers, 0 without any.

    >>> f1("Charles Robert Darwin", ["Charles Darwin"])  # precision 2/3, recall 1
    0.8
    """
    words = normalize_answer(prediction).split()
    return max((_f1(words, normalize_answer(gold).split()) for gold in answers), default=0.0)


def has_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether the tokens of an answer stand one after the other in the text, without case.

    Tokens are runs of letters, digits and marks, or single other signs, so a word is never found inside another one.

    >>> has_answer("Emma is by Jane Austen.", ["jane austen"]), has_answer("Emma is by Jane Austen.", ["Aust"])
    (True, False)
    """
    haystack = _spaced_tokens(text)
    needles = map(_spaced_tokens, answers)
    return any(needle in haystack for needle in needles if needle.strip())


def recall_at_k(ranked_ids: Sequence[Sequence[str]], positives: Sequence[Collection[str]], k: int) -> float:
    """The share of questions with a positive passage among the first k.

    `ranked_ids` holds the ids retrieved for each question, best first; `positives` the ids that count as right for it.
    """
    _require_ranking(ranked_ids, positives, k)
    hits = (any(id in gold for id in ids[:k]) for ids, gold in zip(ranked_ids, positives, strict=True))
    return sum(hits) / len(ranked_ids)


def answer_recall_at_k(ranked_texts: Sequence[Sequence[str]], answers: Sequence[Collection[str]], k: int) -> float:
    """The share of questions with an answer in one of the first k texts, by `has_answer`: DPR's top-k accuracy."""
    _require_ranking(ranked_texts, answers, k)
    pairs = zip(ranked_texts, answers, strict=True)
    hits = (any(has_answer(text, gold) for text in texts[:k]) for texts, gold in pairs)
    return sum(hits) / len(ranked_texts)


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:  # nothing is left of "The": right only where nothing is left of the gold answer
        return float(prediction == gold)
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold))


class _Spacing(dict[int, str]):
    """A `str.translate` table that puts a space around every sign; each character is looked up in Unicode once."""

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


def _spaced_tokens(text: str) -> str:
    """The tokens with one space around each, so that one token sequence is in another when its string is."""
    tokens = unicodedata.normalize("NFD", text).translate(_SPACING).lower().split()
    return f" {' '.join(tokens)} "


def _require_ranking(ranked: Sequence[object], gold: Sequence[object], k: int) -> None:
    if k < 1:
        raise InputError(f"recall at {k} is not defined; ask for k = 1 or more")
    if len(ranked) != len(gold):
        raise InputError(f"{len(ranked)} rankings for {len(gold)} questions; give one ranking per question")
    if not ranked:
        raise InputError("no questions to score; give one at least")
