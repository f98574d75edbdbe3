"""Check that the gold passages named by questions are in the index."""

from collections.abc import Sequence

from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.index import documents
from rag_jax.index.store import Store


def with_known_evidence(store: Store, questions: Sequence[Question]) -> list[Question]:
    """The questions, without their evidence where none of it is in the index, of which a warning tells.

    Documents of which the index has no passage are counted in a warning: they stay in the scores, as misses.
    """
    known = list(questions)
    for field, what in (("evidence", "ids"), ("evidence_titles", "titles")):
        named = sorted({each for question in questions for group in getattr(question, field) for each in group})
        if not named or store.is_closed_book:
            continue
        missing = len(named) - len(documents.known(store.passages, named, what))
        problem = (
            f"{missing:,} of the {len(named):,} documents of the questions' evidence are not in the index by {what}"
        )
        if missing == len(named):
            warn(f"{problem} (the first is {named[0]!r}): its scores are left out")
            known = [question._replace(**{field: ()}) for question in known]
        elif missing:
            warn(f"{problem}: they count as not found")
    return known


def other_pieces(store: Store, ids: Sequence[str]) -> dict[str, list[int]]:
    """The rows of the further passages of the documents among some ids, by id; without those that were removed."""
    pieces = documents.pieces(store.passages, ids)
    return {id: [row for row in rows if row not in store.removed] for id, rows in pieces.items()}


def check_gold(store: Store, questions: Sequence[Question], what: str) -> None:
    """Warn of `positive_ids` that name no passage of the index, with counts.

    Questions without any gold passage in the index stay in the recall, as misses. Raises `InputError` where no id is in
    the index: the ids then belong to another corpus, and every recall would be 0.

    Args:
        what: a name of the questions for messages, as "evaluation questions".
    """
    named = sorted({id for question in questions for id in question.positive_ids})
    if store.is_closed_book or not named:
        return
    split = int((store.find([f"{id}#2" for id in named]) >= 0).sum())
    if split:
        problem = f"{split:,} of the {len(named):,} positive_ids of the {what} name documents of several passages"
        remedy = "name passages (a#2), or raise passage_words"
        warn(f"{problem}: only the first passage of each counts as gold; {remedy}")
    unknown = {id for id, row in zip(named, store.find(named).tolist(), strict=True) if row < 0}
    if not unknown:
        return
    first = next(id for question in questions for id in question.positive_ids if id in unknown)
    if len(unknown) == len(named):
        first_in_index = next(iter(store.live_passages())).id
        problem = f"none of the {len(named):,} positive_ids of the {what} is a passage of the index"
        remedy = "use the ids of the corpus, or leave positive_ids out"
        raise InputError(f"{problem} (the first is {first!r}, the index begins with {first_in_index!r}); {remedy}")
    num_without_gold = sum(
        bool(question.positive_ids) and unknown.issuperset(question.positive_ids) for question in questions
    )
    problem = f"{len(unknown):,} of the {len(named):,} positive_ids of the {what} name no passage of the index"
    affected = f"{num_without_gold:,} of {len(questions):,} questions have no gold passage to be found"
    warn(f"{problem} (the first is {first!r}): {affected}")
