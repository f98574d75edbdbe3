"""The facade over another index, another prompt, or rows of another search: what the model then reads."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.evaluation.baselines import with_bm25, with_engine, with_num_docs
from rag_jax.index.building import build
from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import closed_book, from_vectors, open_store
from rag_jax.rag import RAG

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal", "Goldsee", "Neuort")]


@pytest.fixture
def rag(trained) -> RAG:
    return trained[0]


def test_a_store_of_another_width_is_refused(rag: RAG) -> None:
    store = rag.components.store
    narrow = dataclasses.replace(store, passage_vectors=SegmentedArray([store.passage_vectors.whole[:, :7]]))
    with pytest.raises(InputError, match=r"^the store: vectors of width 7, the question tower's have 32; take its own"):
        rag.with_index(narrow)


def test_a_store_of_another_tower_is_refused(rag: RAG, trained, tmp_path: Path) -> None:
    encoder = rag.components.bi_encoder.required_passage_encoder
    other = dataclasses.replace(encoder, params=jax.tree.map(lambda each: -each, encoder.params))
    store = build(tmp_path / "store", list(rag.components.store.passages), other, rag.components.passage_tokenizer)
    with pytest.raises(
        InputError, match=r"store: built by a tower with fingerprint '\w+', the run's has '\w+'; name t"
    ):
        rag.with_index(store)


@pytest.mark.parametrize("opened_for", ["no generator", "another generator"])
def test_a_store_gets_the_tokens_of_the_generator_that_reads_it(rag: RAG, trained, opened_for: str) -> None:
    folder = trained[2] / "index"
    other = PassageTokenizer(train_generator_tokenizer(["some other words"], 300), 16)
    store = open_store(folder, None, None if opened_for == "no generator" else other)
    opened = rag.with_index(store.remove_rows([3]))
    np.testing.assert_array_equal(
        opened.components.store.passage_tokens.whole, rag.components.store.passage_tokens.whole
    )
    assert opened.components.store.removed == {3}
    assert (opened.knowledge.alive == opened.components.store.alive).all()
    own = rag.components.store
    assert rag.with_index(own).components.store is own


def test_a_store_in_memory_gets_the_tokens_of_the_generator_that_reads_it(rag: RAG) -> None:
    own, other = rag.components.store, PassageTokenizer(train_generator_tokenizer(["some other words"], 300), 16)
    passages, vectors = list(own.passages), own.passage_vectors.whole
    more = from_vectors(passages, vectors, other).concatenate(from_vectors(passages[:1], vectors[:1], other))
    tokens = rag.with_index(more.remove_rows([3])).components.store.passage_tokens.whole
    np.testing.assert_array_equal(tokens, own.passage_tokens[np.r_[: own.size, 0]])


def test_a_prompt_that_changes_the_passages_tokenises_them_anew(rag: RAG, trained) -> None:
    template = "question: {question} {passage}"
    changed = rag.with_prompt(question_template=template)
    assert changed.components.store.tokens_key == changed.components.passage_tokenizer.key
    bos = rag.components.generator_tokenizer.bos
    assert (rag.components.store.passage_tokens.whole[:, 0] == bos).all()
    assert not (np.asarray(changed.knowledge.passage_tokens.ids)[:, 0] == bos).any()
    opened = changed.with_index(trained[2] / "index")
    assert changed.log_likelihood(ASKED[0], "red") == opened.log_likelihood(ASKED[0], "red")
    blind = rag.with_index(closed_book(rag.components.store.width, rag.components.generator_tokenizer))
    assert blind.with_prompt(question_template=template).components.store.passage_lengths.whole.tolist() == [0]
    back = changed.with_prompt(question_template=None).components
    assert back.generator_tokenizer[1:] == rag.components.generator_tokenizer[1:]
    np.testing.assert_array_equal(back.store.passage_tokens.whole, rag.components.store.passage_tokens.whole)


def test_an_engine_of_one_s_own_reads_the_tokens_of_a_new_prompt(rag: RAG) -> None:
    engine = with_engine(rag, DeviceIndex.of(rag.components.store, rag.components.placement))
    changed = engine.with_prompt(question_template="question: {question} {passage}").components
    assert changed.search is not None
    assert changed.search.store is changed.store


def test_only_an_index_of_the_same_generator_says_how_long_passages_are(rag: RAG, trained, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    encoder, own = rag.components.bi_encoder.required_passage_encoder, rag.components.generator_tokenizer
    for length, tokenizer in (
        (16, train_generator_tokenizer(["some other words"], 300)),
        (16, own._replace(passage_template="{text}")),
        (6, own),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        build(
            folder, list(rag.components.store.passages), encoder, PassageTokenizer(tokenizer, 4 if length == 16 else 6)
        )
        for model in (rag.with_index(folder), RAG.from_workdir(trained[2], folder)):
            assert model.components.config.generator.max_passage == length
            assert model.components.store.tokens_key == model.components.passage_tokenizer.key


def test_an_opened_store_says_how_long_passages_are_as_its_folder_does(rag: RAG, tmp_path: Path) -> None:
    encoder, own = rag.components.bi_encoder.required_passage_encoder, rag.components.generator_tokenizer
    build(tmp_path, list(rag.components.store.passages), encoder, PassageTokenizer(own, 6))
    by_path, (likelihood,) = rag.with_index(tmp_path), rag.with_index(tmp_path).log_likelihood(ASKED[:1], ["red"])
    for opened_for in (None, PassageTokenizer(own, 6), rag.components.passage_tokenizer):
        opened = rag.with_index(open_store(tmp_path, None, opened_for))
        assert opened.components.config == by_path.components.config
        assert opened.log_likelihood(ASKED[:1], ["red"])[0] == likelihood


def test_an_index_says_how_much_of_a_passage_its_tower_read(rag: RAG, trained, tmp_path: Path) -> None:
    encoder = dataclasses.replace(rag.components.bi_encoder.required_passage_encoder, max_length=9)
    store = build(tmp_path, list(rag.components.store.passages), encoder, rag.components.passage_tokenizer)
    long = Passage("new", "Norburg " * 12, "Norburg is painted red .")
    for model in (rag.with_index(tmp_path), RAG.from_workdir(trained[2], tmp_path)):
        assert model.components.config.retriever.max_passage == 9
        np.testing.assert_array_equal(model.components.store.passage_vectors.whole, store.passage_vectors.whole)
        (vector,) = model.add_passages([long]).components.store.passage_vectors.segments[-1]
        np.testing.assert_allclose(vector, encoder.encode_passages([long])[0], rtol=1e-5, atol=1e-6)


SAME_INDEX = {
    "another prompt": lambda rag: rag.with_prompt(question_template=" // asked: {question}"),
    "another policy": lambda rag: rag.with_long_questions("cut"),
    "another K": lambda rag: with_num_docs(rag, 3),
}


@pytest.mark.parametrize("change", SAME_INDEX.values(), ids=SAME_INDEX)
def test_a_model_over_the_same_index_shares_it_where_it_is_on_the_device(rag: RAG, change) -> None:
    knowledge = rag.knowledge
    changed = change(rag)
    assert changed.components.config != rag.components.config
    assert changed.knowledge is knowledge
    assert change(changed).knowledge is knowledge, "of its own index too"


def test_a_model_whose_index_is_not_on_the_device_yet_loads_its_own(rag: RAG, trained) -> None:
    fresh = RAG.from_workdir(trained[2])
    changed = fresh.with_long_questions("cut")
    assert changed.components.loaded is None
    np.testing.assert_array_equal(changed.knowledge.passage_vectors, rag.knowledge.passage_vectors)


@pytest.mark.parametrize(
    "change",
    [
        lambda rag: rag.add_passages([Passage("new", "Neustadt", "Neustadt is painted red .")]),
        lambda rag: rag.replace_passage(Passage("Norburg", "Norburg", "Norburg is painted red .")),
        lambda rag: rag.remove_passages(["Norburg"]),
    ],
    ids=["added", "replaced", "removed"],
)
def test_an_engine_of_one_s_own_would_not_know_of_changed_passages(rag: RAG, change) -> None:
    engine = with_engine(rag, DeviceIndex.of(rag.components.store, rag.components.placement))
    with pytest.raises(InputError, match=r"^the search engine is one of your own, .*; change the model's passages fir"):
        change(engine)
    index = DeviceIndex.of(change(rag).components.store, rag.components.placement)
    assert len(with_engine(change(rag), index).search(ASKED[0], 2)) == 2, "the other way round"


def test_a_closed_book_has_the_tokens_of_the_generator_that_reads_it(rag: RAG) -> None:
    own = rag.components.generator_tokenizer
    blind = rag.with_index(closed_book(rag.components.store.width, own._replace(bos=7)))
    assert blind.components.store.passage_tokens.whole.tolist() == [[own.bos]]


def test_rows_of_another_search_have_no_prior_where_the_scores_of_the_engine_are_it(rag: RAG) -> None:
    lexical = with_bm25(rag)
    with pytest.raises(
        InputError, match=r"^rows: the prior is the scores of the search engine, which has not searched"
    ):
        lexical.answer(ASKED, rows=lexical.search_rows(ASKED, 2))
