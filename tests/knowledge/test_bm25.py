"""BM25 against its formula, written out."""

import sys
from math import log

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from rag_jax.errors import InputError
from rag_jax.knowledge.bm25 import BM25
from rag_jax.knowledge.passages import Passage

PASSAGES = [
    Passage("1", "Emma", "a novel by Jane Austen about matchmaking"),
    Passage("2", "On the Origin of Species", "a book by Charles Darwin on evolution evolution"),
    Passage("3", "Charles Dickens", "an author of novels"),
    Passage("4", "", "geology"),
]
# The same without stop words, stemmed by hand; single letters never count.
WORDS = [
    ["emma", "novel", "jane", "austen", "about", "matchmak"],
    ["origin", "speci", "book", "charl", "darwin", "evolut", "evolut"],
    ["charl", "dicken", "author", "novel"],
    ["geolog"],
]


def naive_bm25(query: list[str], k1: float = 0.9, b: float = 0.4) -> np.ndarray:
    """Lucene's BM25: idf = log(1 + (N - n + ½) / (n + ½)), tf / (tf + k1 (1 - b + b · length / mean length))."""
    mean_length = sum(map(len, WORDS)) / len(WORDS)
    scores = np.zeros(len(WORDS))
    for word in query:
        n = sum(word in words for words in WORDS)
        idf = log(1 + (len(WORDS) - n + 0.5) / (n + 0.5))
        for row, words in enumerate(WORDS):
            tf = words.count(word)
            scores[row] += idf * tf / (tf + k1 * (1 - b + b * len(words) / mean_length))
    return scores


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Who wrote the novels of Charles?", ["novel", "charl"]),
        ("evolution", ["evolut"]),
        ("species species", ["speci", "speci"]),
        ("which geologist", ["geolog"]),
        ("Emma or zebra", ["emma", "zebra"]),
    ],
)
def test_scores_follow_the_formula(query, words):
    scores, positions = BM25(PASSAGES).search([query], k=4)
    expected = naive_bm25(words)
    np.testing.assert_allclose(scores[0], expected[positions[0]], rtol=1e-6)
    np.testing.assert_array_equal(positions[0], np.argsort(-expected, kind="stable"))


def test_the_best_k_of_a_batch_come_first():
    scores, positions = BM25(iter(PASSAGES)).search(["Jane Austen", "Darwin's book", "geology"], k=2)
    assert scores.shape == positions.shape == (3, 2)
    assert scores.dtype == np.float32
    assert np.issubdtype(positions.dtype, np.integer)
    assert positions[:, 0].tolist() == [0, 1, 3]
    assert (np.diff(scores) <= 0).all()


def test_the_title_is_searched_too():
    assert BM25(PASSAGES).search(["dickens"], k=1)[1].tolist() == [[2]]


@pytest.mark.parametrize("query", ["", "the of", "?!", "zebra"])
def test_a_query_without_a_known_word_scores_zero_in_the_order_of_the_corpus(query):
    scores, positions = BM25(PASSAGES).search([query], k=3)
    assert scores.tolist() == [[0, 0, 0]]
    assert positions.tolist() == [[0, 1, 2]]


def test_equal_scores_keep_the_order_of_the_corpus():
    passages = [Passage(str(i), "", "same words here") for i in range(50)] + [Passage("50", "", "words")]
    assert BM25(passages).search(["words"], k=4)[1].tolist() == [[50, 0, 1, 2]]


def test_no_queries_give_no_rows():
    scores, positions = BM25(PASSAGES).search([], k=2)
    assert scores.shape == positions.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 5, -1])
def test_more_passages_than_there_are_cannot_be_asked_for(k):
    with pytest.raises(InputError, match=f"cannot retrieve {k} of 4 passages; ask for 1 to 4"):
        BM25(PASSAGES).search(["darwin"], k)


@pytest.mark.parametrize("passages", [[], [Passage("1", "", "the of and")]])
def test_a_corpus_without_words_is_an_input_error(passages):
    with pytest.raises(InputError, match="no word that BM25 can search for; give it English text"):
        BM25(passages)


@pytest.mark.parametrize("package", ["bm25s", "Stemmer"])
def test_a_missing_package_is_an_input_error_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs the package {package}; run: pip install rag-jax"):
        BM25(PASSAGES)


def test_nothing_is_printed_or_logged(capfd, caplog):
    caplog.set_level("DEBUG")
    BM25(PASSAGES).search(["darwin", ""], k=1)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name == "bm25s"]
