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
from typing import Any, Unpack

import numpy as np

from rag_jax.config.generation import GenerationConfig
from rag_jax.errors import InputError
from rag_jax.moderation.moderator import Moderator
from rag_jax.moderation.passage_filters import PassageFilter
from rag_jax.pipeline import edits, user_inputs
from rag_jax.pipeline.answers import Answer, Decision
from rag_jax.pipeline.options import AnswerOptions
from rag_jax.rag import RAG

REFUSAL = "I cannot help with that."
UNCHECKED = {"prefixes", "rows", "seed", "batch_size"}  # options of `RAG.answer` that `RAG.check` does not take


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
        self._whole, store = self.rag, self.rag.components.store
        if store.is_closed_book and (self.guard.allow or self.guard.passage):
            raise InputError("guard: a closed-book model reads no passages; leave allow and passage out")
        if self.guard.allow is not None:
            allow, alive, k = self.guard.allow, store.alive, self.rag.components.num_docs
            denied = [row for row, each in enumerate(store.passages) if alive[row] and not allow(each)]
            if len(store) - len(denied) < k:
                left = f"{len(store) - len(denied)} of {len(store)} passages are allowed"
                raise InputError(f"guard: {left}, fewer than K = {k}; allow more")
            self._remove(denied)
            self._whole = self.rag

    def answer(
        self, questions: Sequence[str], config: GenerationConfig | None = None, **options: Unpack[AnswerOptions]
    ) -> list[Answer]:
        """One answer for each question, with the arguments of `RAG.answer`.

        What was blocked comes back as an `Answer` whose text is the guard's refusal and whose `refused` says what was.
        Raises `InputError` as `RAG.answer`, and for `rows`: which passages are read is up to the guard.
        """
        texts, guard = user_inputs.questions(questions), self.guard
        self._check(config, options)
        on_questions = guard.question(texts) if guard.question else [None] * len(texts)
        blocked = {n: self._refusal("question", each) for n, each in enumerate(on_questions) if _blocks(each)}
        answers = {**blocked, **self._answers(texts, [*blocked], config, options)}
        for number, decision in enumerate(on_questions):
            if number not in blocked and _is_noted(decision):
                answers[number] = answers[number]._replace(decisions=(decision, *answers[number].decisions))
        return [answers[number] for number in range(len(texts))]

    def _check(self, config: GenerationConfig | None, options: AnswerOptions) -> None:
        """Raise `InputError` for options that `RAG.answer` refuses, before anything is moderated."""
        if options.get("rows") is not None:
            raise InputError("a guard chooses the passages; leave rows out")
        checked: dict[str, Any] = {name: each for name, each in options.items() if name not in UNCHECKED}
        self._whole.check([], config, **checked)

    def _answers(
        self, texts: list[str], skip: list[int], config: GenerationConfig | None, options: AnswerOptions
    ) -> dict[int, Answer]:
        """The moderated answers, by number, to all questions but those to skip, from passages that are not blocked."""
        asked = [number for number in range(len(texts)) if number not in skip]
        if not asked:
            return {}
        k = options.get("num_docs") or self._whole.components.num_docs
        if self.guard.passage:
            questions = [texts[number] for number in asked]
            self._moderate_passages(self.guard.passage, questions, k, options.get("batch_size", 64))
        left = len(self.rag.components.store)
        if not left:
            return {number: self._refusal("passages", None) for number in asked}
        asking: dict[str, Any] = {**options} | ({"num_docs": min(k, left)} if self.guard.passage else {})
        # all questions, so that samples and prefixes are those of a call without a guard
        streamed = self.rag.stream(texts, config, skip=skip, **asking)
        numbers, answers = zip(*streamed, strict=True)
        return dict(zip(numbers, self._moderated([self._noting_passages(each) for each in answers]), strict=True))

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
        texts = {each.text: None for answer in answers for each in (answer, *answer.alternatives) if each.text.strip()}
        decisions = dict(zip(texts, moderator([*texts], "answer"), strict=True)) if texts else {}
        return [self._released(answer, decisions) for answer in answers]

    def _released(self, answer: Answer, decisions: dict[str, Decision]) -> Answer:
        def noting(each: Answer) -> Answer:
            own = decisions.get(each.text)
            return each._replace(decisions=(*each.decisions, own)) if own and _is_noted(own) else each

        if _blocks(decisions.get(answer.text)):
            return self._refusal("answer", decisions[answer.text])
        kept = [noting(each) for each in answer.alternatives if not _blocks(decisions.get(each.text))]
        return noting(answer)._replace(alternatives=kept)

    def _noting_passages(self, answer: Answer) -> Answer:
        if not self._judged:
            return answer
        rows = self.rag.components.store.find([passage.id for passage in answer.passages]).tolist()
        found = (self._judged[row] for row in rows if row in self._judged)
        return answer._replace(decisions=tuple(each for each in found if _is_noted(each)))

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
