"""Guarded answering: the question is moderated, then the passages that would be read, then the answer.

    guard = Guard(question=moderator, answer=moderator, allow=passage_filters.listed(documents=["handbook"]))
    rag.answer("Who may sign for the company?", guard=guard)

A blocked passage is taken out of the search, and the next best one is read in its place, inside the compiled program
as ever. Instructions inside passages cannot change the prompt's structure: its pieces are tokenised apart, and special
tokens in passages are plain text. Whether the model follows such instructions is another matter: moderate its answers.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rag_jax.errors import InputError
from rag_jax.moderation.moderator import Moderator
from rag_jax.moderation.passage_filters import PassageFilter
from rag_jax.pipeline import edits, user_inputs
from rag_jax.pipeline.answers import Answer, Decision
from rag_jax.rag import RAG

REFUSAL = "I cannot help with that."


@dataclass(frozen=True, eq=False)
class Guard:
    """What moderates questions, passages and answers, each optional."""

    question: Moderator | None = None
    passage: Moderator | None = None
    answer: Moderator | None = None
    allow: PassageFilter | None = None  # the passages that may be read at all
    refusal: str = REFUSAL  # the text instead of what is blocked

    def __call__(self, rag: RAG, questions: Sequence[str], *given: Any, **options: Any) -> list[Answer]:
        """The answers of `rag.answer`, or refusals; see `GuardedRAG`, which remembers moderated passages."""
        return GuardedRAG(rag, self).answer(questions, *given, **options)


@dataclass(eq=False)
class GuardedRAG:
    """A model behind a guard. It remembers which passages were moderated, so that none is judged twice."""

    rag: RAG
    guard: Guard
    _judged: dict[int, Decision] = field(default_factory=dict, repr=False)  # by the passage's row

    def __post_init__(self) -> None:
        store = self.rag.components.store
        if store.is_closed_book and (self.guard.allow or self.guard.passage):
            raise InputError("guard: a closed-book model reads no passages; leave allow and passage out")
        if self.guard.allow is not None:
            allow, alive, k = self.guard.allow, store.alive, self.rag.components.num_docs
            denied = [row for row, each in enumerate(store.passages) if alive[row] and not allow(each)]
            if len(store) - len(denied) < k:
                left = f"{len(store) - len(denied)} of {len(store)} passages are allowed"
                raise InputError(f"guard: {left}, fewer than K = {k}; allow more")
            self._remove(denied)

    def answer(self, questions: Sequence[str], *given: Any, **options: Any) -> list[Answer]:
        """One answer for each question, with the arguments of `RAG.answer`.

        What was blocked comes back as an `Answer` whose text is the guard's refusal and whose `refused` says what was.
        Raises `InputError` as `RAG.answer`, and for `rows`: which passages are read is up to the guard.
        """
        if options.get("rows") is not None:
            raise InputError("a guard chooses the passages; leave rows out")
        texts, guard = user_inputs.questions(questions), self.guard
        on_questions = guard.question(texts) if guard.question else [None] * len(texts)
        answers = {n: self._refusal("question", each) for n, each in enumerate(on_questions) if _blocks(each)}
        asked = [number for number in range(len(texts)) if number not in answers]
        prefixes = user_inputs.prefixes(options.pop("prefixes", ""), len(texts))
        answered = self._answer([texts[n] for n in asked], [prefixes[n] for n in asked], *given, **options)
        for number, answer in zip(asked, answered, strict=True):
            noted = [each for each in (on_questions[number], *self._on_passages(answer)) if _is_noted(each)]
            answers[number] = answer._replace(decisions=(*noted, *answer.decisions))
        return [answers[number] for number in range(len(texts))]

    def _answer(self, questions: list[str], prefixes: list[str], *given: Any, **options: Any) -> list[Answer]:
        """The moderated answers to questions that are not blocked, from passages that are not."""
        if self.guard.passage and questions:
            k = options.get("num_docs") or self.rag.components.num_docs
            self._moderate_passages(self.guard.passage, questions, k, options.get("batch_size", 64))
            left = len(self.rag.components.store)
            if not left:
                return [self._refusal("passages", None) for _ in questions]
            options["num_docs"] = min(k, left)
        return self._moderated(self.rag.answer(questions, *given, prefixes=prefixes, **options)) if questions else []

    def _moderate_passages(self, moderator: Moderator, questions: list[str], k: int, batch_size: int) -> None:
        """Search, judge what is new, take what is blocked out of the index, and search again, until nothing is."""
        while left := len(self.rag.components.store):
            found = np.unique(self.rag.search_rows(questions, min(k, left), batch_size=batch_size))
            new = [row for row in found.tolist() if row >= 0 and row not in self._judged]
            if not new:
                return
            passages = [self.rag.components.store.passages[row] for row in new]
            texts = [f"{each.title}\n{each.text}".strip() for each in passages]
            self._judged |= dict(zip(new, moderator(texts, "passage", batch_size=batch_size), strict=True))
            self._remove([row for row in new if _blocks(self._judged[row])])

    def _moderated(self, answers: list[Answer]) -> list[Answer]:
        """The answers and their alternatives without those that are blocked."""
        moderator = self.guard.answer
        if moderator is None:
            return answers
        ranked = [[answer, *answer.alternatives] for answer in answers]
        texts = [each.text for own in ranked for each in own]
        spoken = {text: None for text in texts if text.strip()}
        decisions = dict(zip(spoken, moderator([*spoken], "answer"), strict=True)) if spoken else {}
        return [self._released(own, decisions) for own in ranked]

    def _released(self, ranked: list[Answer], decisions: dict[str, Decision]) -> Answer:
        best, *others = ranked
        own = decisions.get(best.text)
        if _blocks(own):
            return self._refusal("answer", own)
        alternatives = [each for each in others if not _blocks(decisions.get(each.text))]
        return best._replace(alternatives=alternatives, decisions=(own,) if own and _is_noted(own) else ())

    def _on_passages(self, answer: Answer) -> list[Decision]:
        if not self._judged:
            return []
        rows = self.rag.components.store.find([passage.id for passage in answer.passages]).tolist()
        return [self._judged[row] for row in rows if row in self._judged]

    def _remove(self, rows: list[int]) -> None:
        """Take rows out of the search."""
        if rows:
            self.rag = dataclasses.replace(self.rag, components=edits.without_rows(self.rag.components, rows))

    def _refusal(self, what: Any, decision: Decision | None) -> Answer:
        decisions = () if decision is None else (decision,)
        return Answer(self.guard.refusal, math.nan, math.nan, [], [], None, [], what, decisions)


def _blocks(decision: Decision | None) -> bool:
    return decision is not None and decision.policy == "block"


def _is_noted(decision: Decision | None) -> bool:
    return decision is not None and decision.policy != "pass"
