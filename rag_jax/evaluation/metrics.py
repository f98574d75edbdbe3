"""Metrics of open-domain question answering.

Answers: exact match and F1 after SQuAD's normalisation (Rajpurkar et al. 2016), maximum over the gold answers.
Retrieval: the fraction of questions with a hit among the first k passages. A hit is a gold passage, or a passage that
contains an answer by DPR's token match (Karpukhin et al. 2020).

All text is normalised to Unicode NFD first, so that both encodings of `é` are equal.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

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


def has_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether the text contains the tokens of an answer consecutively, ignoring case.

    Tokens are runs of letters, digits and marks, or single other characters. A word never matches inside another one.

    >>> has_answer("Emma is by Jane Austen.", ["jane austen"]), has_answer("Emma is by Jane Austen.", ["Aust"])
    (True, False)
    """
    haystack = _spaced_tokens(text)
    needles = map(_spaced_tokens, answers)
    return any(needle in haystack for needle in needles if needle.strip())


def recall_at_k(ranked_ids: Sequence[Sequence[str]], positives: Sequence[Collection[str]], k: int) -> float:
    """The fraction of questions with a gold passage among the first k.

    Args:
        ranked_ids: the ids retrieved for each question, best first.
        positives: the ids of each question's gold passages.
        k: the number of passages to consider.
    """
    _require_ranking(ranked_ids, positives, k)
    hits = (any(id in gold for id in ids[:k]) for ids, gold in zip(ranked_ids, positives, strict=True))
    return sum(hits) / len(ranked_ids)


def answer_recall_at_k(ranked_texts: Sequence[Sequence[str]], answers: Sequence[Collection[str]], k: int) -> float:
    """The fraction of questions with an answer in one of the first k texts, by `has_answer`: DPR's top-k accuracy."""
    _require_ranking(ranked_texts, answers, k)
    pairs = zip(ranked_texts, answers, strict=True)
    hits = (any(has_answer(text, gold) for text in texts[:k]) for texts, gold in pairs)
    return sum(hits) / len(ranked_texts)


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


def _spaced_tokens(text: str) -> str:
    """The tokens separated and enclosed by single spaces: substring search then matches whole tokens."""
    tokens = unicodedata.normalize("NFD", text).translate(_SPACING).lower().split()
    return f" {' '.join(tokens)} "


def _require_ranking(ranked: Sequence[object], gold: Sequence[object], k: int) -> None:
    if k < 1:
        raise InputError(f"recall at {k} is not defined; ask for k = 1 or more")
    if len(ranked) != len(gold):
        raise InputError(f"{len(ranked)} rankings for {len(gold)} questions; give one ranking per question")
    if not ranked:
        raise InputError("no questions to score; give one at least")
