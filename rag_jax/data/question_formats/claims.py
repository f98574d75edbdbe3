"""Claims to be verified: FEVER (Thorne et al. 2018) and HoVer (Jiang et al. 2020).

    {"id": 1, "claim": "…", "label": "SUPPORTS", "evidence": [[[92206, 104971, "Emma_-LRB-novel-RRB-", 7]], …]}
    {"id": "1", "claim": "…", "label": "SUPPORTED", "evidence": [{"title": "Emma (novel)", "text": ""}]}
    {"uid": "1", "claim": "…", "label": "SUPPORTED", "supporting_facts": [["Emma (novel)", 0]]}

The claim is the question and its label the answer. FEVER lists groups of sentences, each of which suffices: the
articles of a group are a set of evidence. HoVer needs all articles that it lists.
"""

from rag_jax.data.jsonl import validate_text
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row, objects
from rag_jax.data.question_formats.titles import shown_title
from rag_jax.errors import InputError

TITLE = 2  # in a sentence of FEVER: [annotation, evidence, title of the article, sentence]


def _fill(question: Question, row: Row, location: str) -> Question:
    label, evidence = row.get("label"), row.get("evidence") or []
    if "evidence" not in row:
        sets = [[_entry(fact, 0, "supporting_facts", location) for fact in _list(row, "supporting_facts", location)]]
    elif isinstance(evidence, list) and any(isinstance(group, list) for group in evidence):
        sets = [_group(group, location) for group in evidence]
    else:
        sets = [[article.get("title") for article in objects(evidence, "evidence", location)]]
    titles = (tuple(dict.fromkeys(validate_text(title, "title", location) for title in each)) for each in sets)
    return question._replace(
        answers=() if label is None else (validate_text(label, "label", location),),
        evidence_titles=tuple(dict.fromkeys(filter(None, titles))),
    )


def _group(group: object, location: str) -> list[object]:
    """The titles of a group of FEVER; none for the group without articles of a claim that has not enough evidence."""
    if not isinstance(group, list):
        raise InputError(f'{location}: a group of "evidence" is not a list; write it as a list of sentences')
    titles = [_entry(sentence, TITLE, "evidence", location) for sentence in group]
    if all(title is None for title in titles):
        return []
    return [shown_title(title) if isinstance(title, str) else title for title in titles]


def _entry(values: object, position: int, name: str, location: str) -> object:
    if not isinstance(values, list) or len(values) <= position:
        raise InputError(f'{location}: a sentence of "{name}" has no title; write it as a list, as the data set does')
    return values[position]


def _list(row: Row, name: str, location: str) -> list[object]:
    found = row.get(name) or []
    if not isinstance(found, list):
        raise InputError(f'{location}: "{name}" is not a list; write it as one')
    return found


CLAIMS = Format(
    "claims",
    "claim",
    matches=lambda row: "claim" in row,
    fill=_fill,
    remedy='write the verdict as "label"',
)
