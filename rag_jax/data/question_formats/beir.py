"""BEIR (Thakur et al. 2021): the folder of a data set, named by one of its files of relevance judgements.

    DATASET/queries.jsonl       {"_id": "q1", "text": "who wrote emma"}
    DATASET/qrels/test.tsv      query-id<TAB>corpus-id<TAB>score

The questions are those with judgements. Documents with a score above 0 are relevant, and the score is their grade.
"""

from collections.abc import Iterator
from pathlib import Path

from rag_jax.data.jsonl import read_jsonl, validate_id, validate_text
from rag_jax.data.lines import read_lines
from rag_jax.data.question_formats.format import Format, Item, Row, any_of
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.errors import InputError

HEADER = "query-id\tcorpus-id\tscore"


def questions(path: Path) -> Iterator[Item]:
    """Yield the questions of a qrels file, in the order of their first lines there.

    Raises `InputError` for a malformed line, a document judged twice for a question, an id without a query, and a
    missing or malformed `queries.jsonl`.
    """
    file, queries = _queries(path)
    judged: dict[str, tuple[int, dict[str, int]]] = {}
    for number, query, document, score in _judgements(path):
        location = f"{path}:{number}"
        if query not in queries:
            raise InputError(f'{location}: the query "{query}" is not in {file}; add it, or remove the line')
        scores = judged.setdefault(query, (number, {}))[1]
        if document in scores:
            raise InputError(f'{location}: the document "{document}" is judged twice for "{query}"; remove one line')
        scores[document] = score
    for query, (number, scores) in judged.items():
        line, text = queries[query]
        text = validate_text(text, "text", f"{file}:{line}")
        relevant = {document: score for document, score in scores.items() if score > 0}
        labels = {"positive_ids": list(relevant), "relevance": list(relevant.values())}
        yield Item(number, f"{path}:{number}", {"_id": query, "text": text} | labels)


def _judgements(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Yield (line number, query, document, score) for every non-blank line below the header."""
    has_header = False
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        if not has_header:
            has_header = True
            continue
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 3 or not all(field.strip() for field in fields):
            raise InputError(f"{path}:{number}: not three fields; write query-id<TAB>corpus-id<TAB>score")
        query, document, score = fields
        try:
            yield number, query, document, int(score)
        except ValueError as error:
            problem = f'the score of "{document}" for "{query}" is {score!r}'
            raise InputError(f"{path}:{number}: {problem}; write a whole number") from error


def _queries(path: Path) -> tuple[Path, dict[str, tuple[int, object]]]:
    """The file of the queries, and for each id its line and its text; texts are not validated, few may be needed."""
    folder = path.absolute().parent.parent
    file = next((each for each in (folder / "queries.jsonl", folder / "queries.jsonl.gz") if each.exists()), None)
    if file is None:
        raise InputError(f"{path}: there is no {folder / 'queries.jsonl'}; put the queries of the data set there")
    ids, queries = UniqueIds(), {}
    for number, row in read_jsonl(file):
        id = validate_id(row.get("_id"), "_id", f"{file}:{number}")
        ids.add(id, f"{file}:{number}")
        queries[id] = number, row.get("text")
    return file, queries


def _is_query(row: Row) -> bool:
    return "_id" in row and "text" in row and not any_of(row, ("title", "label"))


BEIR = Format(
    "BEIR",
    "text",
    matches=_is_query,
    fill=lambda question, row, location: question,
    remedy="name a file of relevance judgements, as qrels/test.tsv, in which a document has a score above 0",
)
