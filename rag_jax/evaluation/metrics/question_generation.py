"""Q-BLEU-1, the score of generated questions (Nema and Khapra 2018); the RAG paper reports it for Jeopardy questions.

    Q-BLEU-1 = δ · answerability + (1 - δ) · BLEU-1
    answerability = Σ_i w_i F_i,  over named entities, content words, question type and function words

The groups of words, their F and the case of a group that is empty are those of the authors' script
(PrekshaNema25/Answerability-Metric, as of November 2019), since published figures come from it. The weights are those
tuned on SQuAD, as in the RAG paper.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rag_jax.evaluation.metrics.generated_text import bleu_1_of_counts

DELTA = 0.66  # the weight of answerability
WEIGHTS = (0.41, 0.36, 0.20, 0.03)  # of named entities, content words, question type, function words
QUESTION_WORDS = frozenset(("what", "which", "why", "who", "whom", "whose", "where", "when", "how"))
_STOP_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between both but
    by can did do does doing don down during each few for from further had has have having he her here hers herself him
    himself his i if in into is it its itself just me more most my myself no nor not now of off on once only or other
    our ours ourselves out over own s same she should so some such t than that the their theirs them themselves then
    there these they this those through to too under until up very was we were while will with you your yours yourself
    yourselves
"""
FUNCTION_WORDS = frozenset(_STOP_WORDS.split())  # the script's list


def q_bleu_1(prediction: str, questions: Iterable[str]) -> float:
    """Q-BLEU-1 of a generated question, in 0 to 1: maximum over the gold questions, NaN if none of them has a word.

    F of a group of words is the harmonic mean of its BLEU-1 against the gold group and of the gold group's BLEU-1
    against it, with brevity penalties; 1 if neither question has such words. As in the script, a
    question mark behind a space is a content word that matches nothing. Words are split as in the Penn Treebank
    ("author's" is two tokens), without case and punctuation, by NLTK; the script runs Stanford's tokenizer. A
    prediction without words scores 0.

    >>> round(q_bleu_1("Is this a great question?", ["Is this a good question?"]), 4)  # F = 1, 1/2, 1, 1; BLEU-1 = 4/5
    0.8132
    """
    words, gold = prediction.split(), [question.split() for question in questions]
    scores = [_q_bleu_1(words, each) for each in gold if _tokens(each)]
    return max(scores, default=math.nan)


def _q_bleu_1(words: list[str], gold: list[str]) -> float:
    if not _tokens(words):
        return 0.0
    pairs = zip(_groups(words), _groups(gold), strict=True)
    scores = [_f(group, gold_group) for group, gold_group in pairs]
    answerability = sum(weight * score for weight, score in zip(WEIGHTS, scores, strict=True))
    return DELTA * answerability + (1 - DELTA) * _bleu_1(_tokens(words), _tokens(gold))


def _groups(words: list[str]) -> tuple[list[str], list[str], list[str], list[str]]:
    """The words of each kind, in the order of `WEIGHTS`; a word may be of more than one kind.

    Named entities are the words with a capital, except a question word at the beginning: nothing else recognises them.
    """
    question_type = []  # question words, and the word after "what" and "which"
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.lower() in QUESTION_WORDS:
            question_type += [word, following] if word.lower() in ("what", "which") and following else [word]
    after_first = words[1:] if words and words[0].lower() in QUESTION_WORDS else words
    entities = [word for word in after_first if word[0].isupper()]
    rest = [word for word in words if word not in question_type and not word[0].isupper()]
    content = [word for word in rest if word not in FUNCTION_WORDS]
    return entities, content, question_type, [word for word in words if word.lower() in FUNCTION_WORDS]


def _f(words: list[str], gold: list[str]) -> float:
    if not words and not gold:  # as the script looks: a "?" that stands alone is a word here, and no token below
        return 1.0
    tokens, gold_tokens = _tokens(words), _tokens(gold)
    precision, recall = _bleu_1(tokens, gold_tokens), _bleu_1(gold_tokens, tokens)
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _bleu_1(words: list[str], gold: list[str]) -> float:
    return bleu_1_of_counts((Counter(words) & Counter(gold)).total(), len(words), len(gold))


def _tokens(words: Iterable[str]) -> list[str]:
    return [token for word in words for token in _split(word)]


@functools.lru_cache(1 << 16)
def _split(word: str) -> list[str]:
    tokens = _treebank().tokenize(word.lower())
    return [token for token in tokens if any(character.isalnum() for character in token)]


@functools.cache
def _treebank() -> Any:
    from nltk.tokenize.treebank import TreebankWordTokenizer

    return TreebankWordTokenizer()
