"""BM25 against its formula, written out."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from math import log
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.index import part_files
from rag_jax.index.engines.bm25 import AT_ONCE, BM25
from rag_jax.index.engines.engine import Queries

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


def search(passages, queries: list[str], k: int, excluded=None):
    return BM25.build(iter(passages)).search(Queries(queries, None), k, excluded)


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
    hits, expected = search(PASSAGES, [query], 4), naive_bm25(words)
    shared = np.count_nonzero(expected)
    np.testing.assert_allclose(hits.scores[0, :shared], expected[hits.rows[0, :shared]], rtol=1e-6)
    np.testing.assert_array_equal(hits.rows[0, :shared], np.argsort(-expected, kind="stable")[:shared])
    assert (hits.rows[0, shared:] == -1).all()


def random_passages(count: int) -> list[Passage]:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in (rng.zipf(1.3, rng.integers(1, 40)) % 500).tolist()) for _ in range(count)]
    return [Passage(str(row), "", text) for row, text in enumerate(texts)]


def test_scores_of_many_passages_are_those_of_bm25s():
    import bm25s

    passages = random_passages(AT_ONCE + 100)
    texts = [passage.text for passage in passages]
    oracle = bm25s.BM25(k1=0.9, b=0.4)
    oracle.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    hits = search(passages, texts[::300], 7)
    for question, text in enumerate(texts[::300]):
        expected = oracle.get_scores(text.split())
        np.testing.assert_allclose(hits.scores[question], expected[hits.rows[question]], rtol=1e-5)
        np.testing.assert_allclose(hits.scores[question], np.sort(expected)[::-1][:7], rtol=1e-5)


def test_the_best_k_of_a_batch_come_first():
    hits = search(PASSAGES, ["Jane Austen", "Darwin's book", "geology"], 2)
    assert hits.scores.shape == hits.rows.shape == (3, 2)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)
    assert hits.rows[:, 0].tolist() == [0, 1, 3]
    assert (np.diff(hits.scores) <= 0).all()
    assert hits.recall is None


def test_the_title_is_searched_too():
    assert search(PASSAGES, ["dickens"], 1).rows.tolist() == [[2]]


@pytest.mark.parametrize("query", ["", "the of", "?!", "zebra"])
def test_a_query_without_a_known_word_finds_nothing(query):
    hits = search(PASSAGES, [query], 3)
    assert hits.rows.tolist() == [[-1, -1, -1]]
    assert np.isneginf(hits.scores).all()


WORDS_OF_THE_WORLD = ["Zürich", "naïve", "Ελλάδα", "ΌΔΟΣ", "Страна", "हिन्दी", "한국어", "x̄y", "STRASSE", "Måløy"]


@pytest.mark.parametrize("word", WORDS_OF_THE_WORLD)
def test_words_meet_in_every_form_and_case_that_exact_match_takes_for_the_same(word):
    """Where EM calls two answers equal, BM25 must find one by the other."""
    forms = {normalize(form, case) for form in ("NFC", "NFD") for case in (word, word.lower(), word.upper())}
    passages = [Passage("0", "", "something else"), *(Passage(form, "", f"about {form} .") for form in sorted(forms))]
    index = BM25.build(passages)
    for form in forms:
        same = [each for each in forms if exact_match(form, [each])]
        found = index.search(Queries([form], None), len(passages)).rows[0]
        assert {passages[row].id for row in found if row >= 0} >= set(same)
    other = index.search(Queries([word[0]], None), 1).rows
    assert other.tolist() == [[-1]], "a letter of a word is not the word"


def test_an_accent_makes_another_word():
    hits = search([Passage("0", "", "resume"), Passage("1", "", "résumé")], ["resume", "re\u0301sume\u0301"], 2)
    assert hits.rows.tolist() == [[0, -1], [1, -1]]


def test_equal_scores_keep_the_order_of_the_corpus():
    passages = [Passage(str(i), "", "same words here") for i in range(50)] + [Passage("50", "", "words")]
    assert search(passages, ["words"], 4).rows.tolist() == [[50, 0, 1, 2]]


def test_no_queries_give_no_rows():
    hits = search(PASSAGES, [], 2)
    assert hits.scores.shape == hits.rows.shape == (0, 2)


def test_what_there_is_not_is_filled_up():
    hits = search(PASSAGES, ["darwin"], 6, np.asarray([[0, -1]]))
    assert hits.rows.tolist() == [[1, -1, -1, -1, -1, -1]]
    assert np.isneginf(hits.scores[0, 1:]).all()


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_cannot_be_asked_for(k):
    with pytest.raises(InputError, match=f"cannot retrieve {k} passages; ask for 1 or more"):
        search(PASSAGES, ["darwin"], k)


@pytest.mark.parametrize("k", [1, 5, 60])
def test_dead_and_excluded_rows_give_way_to_the_next_best(k):
    passages, queries = random_passages(60), ["w1 w2 w3 w5", "w1 w7"]
    index, rng = BM25.build(passages), np.random.default_rng(1)
    alive, excluded = rng.random(60) < 0.6, rng.integers(-1, 60, (2, 8))
    every = index.search(Queries(queries, None), 60)
    hits = replace(index, alive=alive).search(Queries(queries, None), k, excluded)
    for question in range(2):
        rows = [row for row in every.rows[question].tolist() if row >= 0]
        rows = [row for row in rows if alive[row] and row not in excluded[question]]
        assert hits.rows[question].tolist() == (rows + [-1] * 60)[:k]
        found = hits.rows[question] >= 0
        scores = dict(zip(every.rows[question].tolist(), every.scores[question].tolist(), strict=True))
        assert hits.scores[question][found].tolist() == [scores[row] for row in hits.rows[question][found].tolist()]


def test_dead_rows_do_not_count() -> None:
    passages, queries = random_passages(60), ["w1 w2 w3 w5", "w1 w7"]
    alive = np.random.default_rng(1).random(60) < 0.6
    rows = np.flatnonzero(alive)
    hits = BM25.build(passages, alive).search(Queries(queries, None), 10)
    expected = BM25.build([passages[row] for row in rows]).search(Queries(queries, None), 10)
    np.testing.assert_array_equal(hits.rows, np.where(expected.rows < 0, -1, rows[expected.rows]))
    np.testing.assert_allclose(hits.scores, expected.scores, rtol=1e-6)


@pytest.mark.parametrize("passages", [[], [Passage("1", "", "the of and")]])
def test_a_corpus_without_words_is_an_input_error(passages):
    with pytest.raises(InputError, match="no word that BM25 can search for; give it English text"):
        BM25.build(passages)


def test_what_is_saved_is_what_is_opened(tmp_path: Path):
    index, queries = BM25.build(PASSAGES), ["Charles the author", "geology"]
    index.save(tmp_path / "bm25")
    opened = BM25.open(tmp_path / "bm25", 4)
    first, again = (each.search(Queries(queries, None), 4) for each in (index, opened))
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert isinstance(opened.lists.rows.base, np.memmap)
    assert {path.suffix for path in (tmp_path / "bm25").iterdir()} == {".bin", ".json", ".arrow"}, "no pickle"


@pytest.mark.extended
def test_the_same_passages_give_the_same_bytes_in_another_process(tmp_path: Path):
    """bm25s numbers words in the order of a set, which is another one there."""
    passages = random_passages(20)
    code = (
        "import sys; from pathlib import Path; from rag_jax.index.engines.bm25 import BM25; "
        f"from rag_jax.corpus import Passage; BM25.build({passages}).save(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True)
    BM25.build(passages).save(tmp_path / "here")
    here, there = ((tmp_path / name / "part.json").read_bytes() for name in ("here", "there"))
    assert here == there, "checksums and all"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "rows.bin").unlink(), "/rows.bin: missing; "),
        (lambda folder: os.truncate(folder / "scores.bin", 5), "/scores.bin: has 5 bytes, not the "),
        (lambda folder: (folder / "part.json").write_text("{"), "/part.json: damaged; "),
        (lambda folder: (folder / "part.json").write_text("{}"), "/part.json: describes no table; "),
        (lambda folder: (folder / "table.arrow").write_bytes(b"x" * (folder / "table.arrow").stat().st_size), "table"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, damage, says: str):
    folder = tmp_path / "bm25"
    BM25.build(PASSAGES).save(folder)
    damage(folder)
    with pytest.raises(InputError) as caught:
        BM25.open(folder, 4)
    assert str(caught.value).startswith(str(folder))
    assert says in str(caught.value)
    assert "; " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_index_that_splits_words_otherwise_is_named(tmp_path: Path):
    index = BM25.build(PASSAGES)
    arrays = index.lists._asdict() | {"size": np.asarray([4])}  # as before words were normalised
    part_files.write_part(tmp_path / "bm25", arrays, pa.table({"word": index.words}))
    with pytest.raises(InputError, match=r"another version of this library; build it again with rag-jax index --out"):
        BM25.open(tmp_path / "bm25", 4)


def test_an_index_of_other_passages_is_named(tmp_path: Path):
    BM25.build(PASSAGES).save(tmp_path / "bm25")
    with pytest.raises(InputError, match="bm25: an index of 4 passages, there are 5; build it again"):
        BM25.open(tmp_path / "bm25", 5)


def test_hundreds_of_questions_to_thousands_of_passages_take_no_loop_over_these():
    passages = random_passages(5_000)
    index, queries = BM25.build(passages), [passage.text[:40] for passage in passages[:400]]
    began = time.process_time()
    index.search(Queries(queries, None), 20)
    assert time.process_time() - began < 2, "it takes a tenth of that"


@pytest.mark.parametrize("package", ["bm25s", "Stemmer"])
def test_a_missing_package_is_an_input_error_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs the package {package}; run: pip install rag-jax"):
        BM25.build(PASSAGES)


def test_nothing_is_printed_or_logged(capfd, caplog):
    caplog.set_level("DEBUG")
    search(PASSAGES, ["darwin", ""], 1)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name == "bm25s"]
