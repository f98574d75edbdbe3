"""Which passages may be read: predicates over passages, composed as any functions.

trusted = passage_filters.listed(documents=["handbook"])
Guard(allow=lambda passage: trusted(passage) and "draft" not in passage.title)
"""

from collections.abc import Callable, Collection

from rag_jax.corpus.passage import Passage

PassageFilter = Callable[[Passage], bool]


def listed(
    *, ids: Collection[str] = (), documents: Collection[str] = (), titles: Collection[str] = ()
) -> PassageFilter:
    """Whether a passage has one of these ids, is of one of these documents, or has one of these titles.

    As `allow` it is an allow-list; `denied(listed(…))` is a deny-list.
    """
    known_ids, known_documents, known_titles = frozenset(ids), frozenset(documents), frozenset(titles)

    def is_listed(passage: Passage) -> bool:
        return (
            passage.id in known_ids
            or (passage.document or passage.id) in known_documents
            or passage.title in known_titles
        )

    return is_listed


def denied(which: PassageFilter) -> PassageFilter:
    """All passages but these."""
    return lambda passage: not which(passage)
