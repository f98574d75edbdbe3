"""Which passages hold an answer of a question: the test of `holds_answer`, with its work on each text done once.

A passage holds an answer if its title or its text does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Int

from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.evaluation.metrics.answers import holds_answer, spaced_tokens

KEPT = 131_072  # normalised passages kept in memory, about 100 MB


@dataclass(frozen=True)
class AnswerSearch:
    """Search passages, by row, for answers."""

    passages: Sequence[Passage]

    def holds(self, question: Question, row: int) -> bool:
        """Whether a passage holds an answer of the question."""
        if question.regex:
            passage = self.passages[row]
            return holds_answer(passage.title, question) or holds_answer(passage.text, question)
        tokens = self._tokens(row)
        return any(answer in tokens for answer in _spaced(question.answers))

    def find(self, questions: Sequence[Question], rows: Int[np.ndarray, " M"]) -> Bool[np.ndarray, "B M"]:
        """`holds` of every question and passage; a missing passage (-1) holds nothing.

        Only passages that share the longest token of an answer are compared with it.
        """
        unique, inverse = np.unique(rows, return_inverse=True)
        asked, patterns = _by_longest_token(questions), [(i, each) for i, each in enumerate(questions) if each.regex]
        found = np.zeros((len(questions), len(unique)), bool)
        for column, row in enumerate(unique.tolist()):
            if row < 0:
                continue
            tokens = self._tokens(row)
            for token in asked.keys() & tokens.split():
                for i, answer in asked[token]:
                    found[i, column] |= answer in tokens
            for i, question in patterns:
                found[i, column] = self.holds(question, row)
        return found[:, inverse]

    @cached_property
    def _tokens(self) -> Callable[[int], str]:
        """The tokens of a passage, by row; two spaces between those of the title and of the text."""

        @lru_cache(KEPT)
        def tokens(row: int) -> str:
            passage = self.passages[row]
            return spaced_tokens(passage.title) + spaced_tokens(passage.text)

        return tokens


def _by_longest_token(questions: Sequence[Question]) -> dict[str, list[tuple[int, str]]]:
    """The answers of all questions, with the numbers of their questions, by their longest token."""
    asked: dict[str, list[tuple[int, str]]] = {}
    for i, question in enumerate(questions):
        for answer in () if question.regex else _spaced(question.answers):
            asked.setdefault(max(answer.split(), key=len), []).append((i, answer))
    return asked


@lru_cache(KEPT)
def _spaced(answers: tuple[str, ...]) -> tuple[str, ...]:
    """The answers as they stand in the tokens of a text; those without a token are found nowhere."""
    return tuple(spaced for spaced in map(spaced_tokens, answers) if spaced.strip())
