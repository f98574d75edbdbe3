"""KILT's knowledge source: articles without their marks, cut like any text."""

import gzip
import json

import pytest

from corpora import refusal, skipping
from rag_jax.corpus import Chunker, Passage, read_corpus

ARTICLE = {
    "_id": "290",
    "wikipedia_id": "290",
    "wikipedia_title": "A",
    "text": [
        "A\n",
        "A is the first letter.\n",
        "Section::::History.\n",
        "The earliest A is an ox.\n",
        "Section::::History.:Greek.\n",
        "BULLET::::- alpha\n",
        "BULLET::::\n",
        "\n",
        "A\n",
    ],
    "anchors": [{"text": "ox"}],
}
PASSAGE = Passage("290", "A", "A is the first letter.\nThe earliest A is an ox.\n- alpha\nA")


def write(path, *rows):
    content = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["kilt.jsonl", "kilt.jsonl.gz", "kilt_knowledgesource.json", "kilt.json.gz"])
def test_an_article_is_its_paragraphs_without_title_and_marks(tmp_path, name):
    assert list(read_corpus(write(tmp_path / name, ARTICLE))) == [PASSAGE]


def test_an_article_is_cut_into_passages_with_its_title(tmp_path):
    path = write(tmp_path / "kilt.jsonl", ARTICLE)
    words = PASSAGE.text.split()
    assert list(read_corpus(path, Chunker(5))) == [
        Passage("290" if i == 0 else f"290#{i + 1}", "A", " ".join(words[5 * i : 5 * i + 5]), "290") for i in range(3)
    ]


def test_an_id_may_be_called_as_in_a_database(tmp_path):
    row = {name: value for name, value in ARTICLE.items() if name != "wikipedia_id"}
    assert [passage.id for passage in read_corpus(write(tmp_path / "kilt.jsonl", row))] == ["290"]


def test_a_first_paragraph_that_is_not_the_title_is_kept(tmp_path):
    row = ARTICLE | {"text": ["An article.", "A"]}
    assert [passage.text for passage in read_corpus(write(tmp_path / "kilt.jsonl", row))] == ["An article.\nA"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"text": "A string"}, '"text" is not a list of strings; write the paragraphs'),
        ({"text": ["A", 3]}, '"text" is not a list of strings; write the paragraphs'),
        ({"text": None}, '"text" is not a list of strings; write the paragraphs'),
        ({"text": []}, '"text" is empty; fill it in'),
        ({"text": ["A\n", "Section::::B.\n"]}, '"text" is empty; fill it in'),
        ({"text": ["A\n", "a \ud800\n"]}, '"text" holds half a surrogate pair; '),
        ({"wikipedia_title": 3}, '"title" is not a string; '),
        ({"wikipedia_id": None}, '"id" is null; write an id'),
        ({"wikipedia_id": "12"}, 'the id "12" occurs twice; '),
    ],
)
def test_a_bad_article_is_named_by_file_and_line_and_its_neighbours_are_read(tmp_path, change, what):
    first, last = ARTICLE | {"wikipedia_id": "12"}, ARTICLE | {"wikipedia_id": 25}
    path = write(tmp_path / "kilt.jsonl", first, ARTICLE | change, last)
    message = refusal(path)
    assert message.startswith(f":2: {what}")
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == ["12", "25"]
    assert messages == [f"{path}{message}"]
