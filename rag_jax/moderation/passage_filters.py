"""Which passages may be read: predicates over passages, composed as any functions.

trusted = passage_filters.listed(documents=["handbook"])
Guard(allow=lambda passage: trusted(passage) and "draft" not in passage.title)
"""

from collections.abc import Callable, Collection

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError

PassageFilter = Callable[[Passage], bool]


def listed(
    *, ids: Collection[str] = (), documents: Collection[str] = (), titles: Collection[str] = ()
) -> PassageFilter:
    """Whether a passage has one of these ids, is of one of these documents, or has one of these titles.

    As `allow` it is an allow-list; `denied(listed(…))` is a deny-list. Raises `InputError` for what is not a collection
    of strings: a string alone is one of its letters to Python, and a number is no id.
    """
    known_ids, known_documents, known_titles = (
        _strings(each, name) for name, each in (("ids", ids), ("documents", documents), ("titles", titles))
    )

    def is_listed(passage: Passage) -> bool:
        return (
            passage.id in known_ids
            or (passage.document or passage.id) in known_documents
            or passage.title in known_titles
        )

    return is_listed


def _strings(values: Collection[str], name: str) -> frozenset[str]:
    found = frozenset() if isinstance(values, str) else frozenset(values)  # once: it may be a generator
    if isinstance(values, str) or not all(isinstance(each, str) for each in found):
        raise InputError(f"{name} are {values!r}; give a list of strings")
    return found


def denied(which: PassageFilter) -> PassageFilter:
    """All passages but these."""
    return lambda passage: not which(passage)
