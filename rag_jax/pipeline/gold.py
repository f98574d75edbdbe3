"""Whether the gold passages that questions name are those of the index."""

from collections.abc import Sequence

from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.index.store import Store


def check_gold(store: Store, questions: Sequence[Question], what: str) -> None:
    """Warn of `positive_ids` that name no passage of the index, with counts; `what` the questions are, for the message.

    A question all of whose gold passages are missing counts as one whose gold passage is not found. Raises `InputError`
    where none of all the ids is known: the ids are then of another kind, and every recall would be 0.
    """
    named = sorted({id for question in questions for id in question.positive_ids})
    if store.is_closed_book or not named:
        return
    unknown = {id for id, row in zip(named, store.find(named).tolist(), strict=True) if row < 0}
    if not unknown:
        return
    first = next(id for question in questions for id in question.positive_ids if id in unknown)
    if len(unknown) == len(named):
        there = next(iter(store.live_passages())).id
        told = f"none of the {len(named):,} positive_ids of the {what} is a passage of the index"
        remedy = "write the ids of the corpus, or leave positive_ids out"
        raise InputError(f"{told} (the first is {first!r}, the index begins with {there!r}); {remedy}")
    lost = sum(bool(question.positive_ids) and unknown.issuperset(question.positive_ids) for question in questions)
    told = f"{len(unknown):,} of the {len(named):,} positive_ids of the {what} name no passage of the index"
    warn(f"{told} (the first is {first!r}): {lost:,} of {len(questions):,} questions have no gold passage to be found")
