"""The type of a question."""

from typing import NamedTuple


class Question(NamedTuple):
    """A question with what is known to be right."""

    id: str
    question: str
    answers: tuple[str, ...]  # all of them correct; "" where the question has no answer (SQuAD 2.0)
    positive_ids: tuple[str, ...] = ()  # gold passages
    passage_ids: tuple[str, ...] = ()  # passages retrieved beforehand, best first
    relevance: tuple[int, ...] = ()  # grades of `positive_ids` (BEIR); none: 1 each
    evidence: tuple[tuple[str, ...], ...] = ()  # sets of documents by id, any one of which suffices (KILT)
    evidence_titles: tuple[tuple[str, ...], ...] = ()  # such sets by title, where ids are not known (HoVer)
    regex: bool = False  # whether the answers are regular expressions (CuratedTREC)
    negative_ids: tuple[str, ...] = ()  # hard negatives: passages that look right and are not, hardest first
