"""The knowledge source of KILT (Petroni et al. 2021): JSON Lines with an article of Wikipedia in each row.

    {"wikipedia_id": "290", "wikipedia_title": "A", "text": ["A\\n", "A is a letter.\\n", "Section::::History.\\n", …]}

Paragraphs are joined by line feeds. The first paragraph, if it is the title, section headings and bullet markers are
removed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.errors import InputError

SECTION, BULLET = "Section::::", "BULLET::::"


def is_article(row: Mapping[str, Any]) -> bool:
    """Whether a row is from KILT's knowledge source, valid or not."""
    return "wikipedia_title" in row and ("wikipedia_id" in row or isinstance(row.get("text"), list))


def article(row: Mapping[str, Any], location: str) -> Passage:
    """The whole article as one passage. Raises `InputError` if it does not have KILT's format."""
    paragraphs, title = row.get("text"), row["wikipedia_title"]
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, str) for paragraph in paragraphs):
        raise InputError(f'{location}: "text" is not a list of strings; write the paragraphs of the article as one')
    new = row.get("wikipedia_id", row.get("_id"))
    return validate_passage(new, title, "\n".join(_texts(paragraphs, title)), location)


def _texts(paragraphs: list[str], title: object) -> Iterator[str]:
    for number, paragraph in enumerate(map(str.strip, paragraphs)):
        is_title = number == 0 and paragraph == title
        if not is_title and not paragraph.startswith(SECTION) and (text := paragraph.removeprefix(BULLET).strip()):
            yield text
