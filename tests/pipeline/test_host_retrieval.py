"""Searches outside the programs: what is read is what was found, and how far a search may lag behind is explicit."""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.index.engines.engine import EngineResults, Queries
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store, closed_book, from_vectors
from rag_jax.pipeline.host_retrieval import (
    HostSearch,
    RetrievalInputs,
    host_search,
    knowledge_subset,
    open_engine,
    prefetch,
    subset_positions,
)
from stores import PASSAGES, encoder, reads

QUESTIONS = ["how many people are in town 17", "what of 29"]


def store() -> Store:
    return from_vectors(PASSAGES, encoder().encode_passages(PASSAGES), reads())


def test_chosen_rows_travel_as_a_little_knowledge() -> None:
    rows = np.array([[4, -1, 7], [9, 9, 0]], np.int32)
    inputs, held = knowledge_subset(store(), rows, None), store()
    assert inputs.search_results is not None
    places = np.asarray(inputs.search_results.rows)
    np.testing.assert_array_equal(places < 0, rows < 0)
    there = rows >= 0
    np.testing.assert_array_equal(
        np.asarray(inputs.knowledge.passage_vectors)[places[there]], held.passage_vectors[rows[there]]
    )
    np.testing.assert_array_equal(
        np.asarray(inputs.knowledge.passage_tokens.ids)[places[there]], held.passage_tokens[rows[there]]
    )
    assert inputs.knowledge.passage_vectors.shape == (6, 8)


def test_devices_share_a_number_of_passages_that_they_divide() -> None:
    rows = np.array([[4, 2, 7]], np.int32)
    one, four = (knowledge_subset(store(), rows, None, multiple) for multiple in (1, 4))
    assert four.knowledge.passage_vectors.shape == (4, 8)
    assert one.search_results is not None and four.search_results is not None  # noqa: PT018
    np.testing.assert_array_equal(np.asarray(one.search_results.rows), np.asarray(four.search_results.rows))
    places = np.asarray(four.search_results.rows)[0]
    np.testing.assert_array_equal(np.asarray(four.knowledge.passage_vectors)[places], store().passage_vectors[rows[0]])


@pytest.mark.parametrize("scores", [None, np.array([[-np.inf, -np.inf], [2, 1]], np.float32)])
def test_a_question_without_a_hit_reads_one_empty_passage(scores) -> None:
    rows = np.array([[-1, -1], [9, 0]], np.int32)
    inputs = knowledge_subset(store(), rows, scores)
    assert inputs.search_results is not None
    places = np.asarray(inputs.search_results.rows)
    assert (places >= 0).tolist() == [[True, False], [True, True]]
    assert np.asarray(inputs.knowledge.passage_tokens.lengths)[places[0, 0]] == 1
    if scores is not None:
        assert inputs.search_results.scores is not None
        assert np.asarray(inputs.search_results.scores).tolist() == [[0, -np.inf], [2, 1]]
    np.testing.assert_array_equal(inputs.rows, rows)


@pytest.mark.parametrize("bos", [None, 0])
def test_an_empty_passage_has_the_tokens_that_begin_every_passage_and_no_others(bos: int | None) -> None:
    """None for a T5 and for a decoder-only generator."""
    reader = reads()
    reader = dataclasses.replace(reader, tokenizer=reader.tokenizer._replace(bos=bos))
    held = from_vectors(PASSAGES, encoder().encode_passages(PASSAGES), reader)
    inputs = knowledge_subset(held, np.array([[-1, -1]], np.int32), None)
    (tokens,) = reader.tokenizer.passages([("", "")])
    assert np.asarray(inputs.knowledge.passage_tokens.lengths).tolist() == [len(tokens)] * 2
    assert np.asarray(inputs.knowledge.passage_tokens.ids)[0, : len(tokens)].tolist() == tokens
    assert len(tokens) == (bos is not None)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_gold_passages_are_known_in_the_little_knowledge(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows, positives = draw.integers(-1, 6, (3, 4)), draw.integers(-1, 6, (3, 2))
    places = subset_positions(positives, rows)
    numbers = np.where(rows < 0, -1, np.unique(rows, return_inverse=True)[1].reshape(rows.shape))
    for b, g in np.ndindex(positives.shape):
        if positives[b, g] < 0:
            assert places[b, g] == -1
        else:
            found = (numbers[b] == places[b, g]) & (rows[b] >= 0)
            assert found.any() == (positives[b, g] in rows[b])
            assert (rows[b][found] == positives[b, g]).all()
            assert places[b, g] >= 0, "it counts as a gold passage, found or not"


class Heard:
    """An engine that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Queries] = []

    def search(self, asked: Queries, k: int, excluded=None) -> EngineResults:
        self.asked.append(asked)
        rows = np.tile(np.arange(k, dtype=np.int32), (len(asked.texts), 1))
        return EngineResults(rows, np.ones(rows.shape, np.float32), None)


@pytest.mark.parametrize("is_prior", [True, False])
def test_an_engine_s_scores_are_the_prior_only_where_they_are_meant_to_be(is_prior: bool) -> None:
    engine = Heard()
    inputs = HostSearch(engine, store(), is_prior)(QUESTIONS, None, 3)
    assert engine.asked[0].texts == QUESTIONS
    assert inputs.search_results is not None
    assert (inputs.search_results.scores is not None) == is_prior


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_search_lags_behind_by_just_as_much_as_is_said(staleness: int) -> None:
    updates, seen = 0, []

    def look(item: int) -> Callable[[], RetrievalInputs]:
        known = updates
        return lambda: known

    for item, found in prefetch(range(8), look, staleness):
        seen.append((item, found()))
        updates += 1
    assert seen == [(item, max(0, item - staleness)) for item in range(8)]


def test_the_next_search_runs_while_this_item_is_worked_on() -> None:
    began, may_end = [threading.Event() for _ in range(3)], threading.Event()

    def look(item: int) -> Callable[[], int]:
        def search() -> int:
            began[item].set()
            assert item == 0 or may_end.wait(10), "the search for the next item waits for this one's work"
            return item

        return search

    results = ((item, found()) for item, found in prefetch(range(3), look, 1))
    assert next(results) == (0, 0)
    assert began[1].wait(10), "it began before it was asked for"
    may_end.set()
    assert list(results) == [(1, 1), (2, 2)]


def test_engines_agree_where_they_search_for_the_same() -> None:
    held, vectors = store(), encoder()(QUESTIONS)
    asked = Queries(QUESTIONS, vectors)
    exact = open_engine("device", held, Placement()).search(asked, 3)
    expected = np.argsort(-(vectors @ held.passage_vectors.whole.T), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(exact.rows, expected)
    assert exact.recall == 1.0
    fused = open_engine("hybrid", held, Placement()).search(asked, 3)
    assert fused.rows.shape == (2, 3)
    words = open_engine("bm25", held, Placement()).search(asked, 1)
    assert words.rows[:, 0].tolist() == [17, 29]


def test_the_program_s_own_search_is_no_host_search() -> None:
    assert host_search("device", store(), Placement()) is None
    assert host_search("bm25", closed_book(8, reads().tokenizer), Placement()) is None


def test_engines_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match="no engine 'google'; the engines are device, faiss, bm25, hybrid"):
        open_engine("google", store(), Placement())
    with pytest.raises(InputError, match="has no index of FAISS; build one with rag-jax index"):
        open_engine("faiss", store(), Placement())
