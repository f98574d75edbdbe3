"""The facade: answers with their passages, likelihoods of given answers, and knowledge that changes."""

import dataclasses
import inspect
import math
import re
import shutil
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.config.files import load_config, save_config
from rag_jax.config.generation import GenerationConfig
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import updates
from rag_jax.index.store import closed_book
from rag_jax.pipeline.answers import Answer
from rag_jax.pipeline.options import AnswerOptions, GenerationOptions
from rag_jax.rag import RAG

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal", "Goldsee", "Neuort")]


@pytest.fixture
def rag(trained) -> RAG:
    return trained[0]


def test_answers_come_in_order_and_do_not_depend_on_their_company(rag: RAG) -> None:
    together, alone = rag.answer(ASKED), [rag.answer([question])[0] for question in ASKED]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    np.testing.assert_allclose([a.log_prob for a in together], [a.log_prob for a in alone], rtol=1e-4, atol=1e-6)


def test_training_does_not_leave_the_passages_out_without_a_word(rag: RAG) -> None:
    data = dataclasses.replace(rag.components.config.data, passages=None, index=None)
    denied = dataclasses.replace(rag.components, config=dataclasses.replace(rag.components.config, data=data))
    with pytest.raises(InputError, match=r"^data\.index is None, but the model has passages, and a closed book reads"):
        _ = denied.recipe


def test_one_question_has_one_answer_and_a_list_has_a_list(rag: RAG) -> None:
    for one, several in (
        (rag.answer(ASKED[0]), rag.answer(ASKED[:1])),
        (rag.choose(ASKED[0], ["red", "blue"]), rag.choose(ASKED[:1], ["red", "blue"])),
    ):
        assert isinstance(one, Answer)
        assert [one.text, one.log_prob] == [several[0].text, several[0].log_prob]
    assert rag.search(ASKED[0], 2) == rag.search(ASKED[:1], 2)[0]
    assert rag.log_likelihood(ASKED[0], "red") == rag.log_likelihood(ASKED[:1], ["red"])[0]


def test_a_config_of_one_s_own_is_followed_and_overridden(rag: RAG) -> None:
    config = GenerationConfig(num_beams=3, n_best=3)
    by_config, by_keywords = rag.answer(ASKED[0], config), rag.answer(ASKED[0], num_beams=3, n_best=3)
    assert [each.text for each in by_config.alternatives] == [each.text for each in by_keywords.alternatives]
    assert len(by_config.alternatives) == 2
    assert rag.answer(ASKED[0], config, n_best=1).alternatives == []
    with pytest.raises(InputError, match=r"^config is 4; give a GenerationConfig, or its fields as keyword arguments$"):
        rag.answer(ASKED[0], 4)


def test_the_typed_options_are_the_fields_of_the_config() -> None:
    fields, hints = typing.get_type_hints(GenerationConfig), typing.get_type_hints(GenerationOptions)
    assert hints == fields
    streamed = inspect.signature(RAG.stream).parameters.keys() - {"self", "questions", "config", "skip", "overrides"}
    assert typing.get_type_hints(AnswerOptions).keys() == fields.keys() | streamed | {"guard"}


def test_a_search_returns_passages_with_scores_best_first(rag: RAG) -> None:
    (found,) = rag.search(ASKED[:1], 3)
    store, query = rag.components.store, rag.encode(ASKED[:1])[0]
    assert [each.row for each in found] == rag.search_rows(ASKED[:1], 3)[0].tolist()
    for each in found:
        assert tuple(each)[:3] == tuple(store.passages[each.row])[:3]
        np.testing.assert_allclose(each.score, store.passage_vectors.whole[each.row] @ query, rtol=1e-4)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert len(rag.search(ASKED[0])) == 5


def test_a_closed_book_is_not_searched(rag: RAG) -> None:
    store = closed_book(rag.components.store.width, rag.components.generator_tokenizer)
    with pytest.raises(InputError, match=r"^a closed-book model has no passages to search; give it an index"):
        rag.with_index(store).search(ASKED[0], 1)


def test_priors_and_posteriors_are_distributions(rag: RAG) -> None:
    for answer in rag.answer(ASKED):
        assert sum(math.exp(passage.log_prior) for passage in answer.passages) == pytest.approx(1, abs=1e-5)
        assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(answer.token_posteriors.sum(axis=0), 1, atol=1e-5)
        assert answer.token_posteriors.shape == (len(answer.passages), len(answer.tokens))


def test_the_likelihood_of_an_answer_is_what_answering_said(rag: RAG) -> None:
    answers = rag.answer(ASKED)
    likelihoods = rag.log_likelihood(ASKED, [answer.text for answer in answers])
    np.testing.assert_allclose(likelihoods, [answer.log_prob for answer in answers], rtol=1e-4, atol=1e-6)
    wrong = ["blue" if answer.text == "red" else "red" for answer in answers]
    assert (rag.log_likelihood(ASKED, wrong) < likelihoods - 1).all()


@pytest.mark.extended
def test_a_workdir_can_be_moved_and_needs_no_corpus(trained, tmp_path: Path) -> None:
    whole, _, workdir = trained
    shutil.copytree(workdir, tmp_path / "moved")
    config = load_config(workdir / "config.json")
    gone = dataclasses.replace(config.data, passages=Path("gone.jsonl"), train=Path("gone.jsonl"))
    save_config(dataclasses.replace(config, data=gone), tmp_path / "moved" / "config.json")
    moved = RAG.from_workdir(tmp_path / "moved")
    assert [answer.text for answer in moved.answer(ASKED)] == [answer.text for answer in whole.answer(ASKED)]


@pytest.mark.extended
def test_more_passages_can_be_read_than_in_training(rag: RAG) -> None:
    (answer,) = rag.answer(ASKED[:1], num_docs=5)
    assert len({passage.id for passage in answer.passages}) == 5
    rows = rag.components.store.find([passage.id for passage in answer.passages])
    assert rag.search_rows(ASKED[:1], 5)[0].tolist() == rows.tolist()


def test_a_changed_fact_changes_the_answer_and_nothing_is_trained(rag: RAG) -> None:
    (before,) = rag.answer(["what colour is Norburg"])
    other = "red" if before.text != "red" else "blue"
    changed = rag.replace_passage(Passage("Norburg", "Norburg", f"Norburg is painted {other} ."))
    assert changed.answer(["what colour is Norburg"])[0].text == other
    assert rag.answer(["what colour is Norburg"])[0].text == before.text
    assert changed.params is rag.params


def test_n_best_are_different_and_best_first(rag: RAG) -> None:
    for answer in rag.answer(ASKED, num_beams=4, n_best=4):
        ranked = [answer, *answer.alternatives]
        assert len({tuple(each.tokens) for each in ranked}) == len(ranked) == 4
        assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)
    greedy = rag.answer(ASKED)
    assert [answer.text for answer in greedy] == [answer.text for answer in rag.answer(ASKED, num_beams=1)]


def test_every_answer_begins_with_its_prefix(rag: RAG) -> None:
    prefixes = ["red", "", "blue", "", "white"]
    answers = rag.answer(ASKED, prefixes=prefixes)
    free = rag.answer(ASKED)
    for answer, prefix, without in zip(answers, prefixes, free, strict=True):
        assert answer.text.startswith(prefix)
        if not prefix:
            assert answer.text == without.text
    likelihoods = rag.log_likelihood(ASKED, [answer.text for answer in answers])
    np.testing.assert_allclose(likelihoods, [answer.log_prob for answer in answers], rtol=1e-4, atol=1e-6)


@pytest.mark.extended
def test_passages_that_another_search_chose_are_read(rag: RAG) -> None:
    nearest = rag.search_rows(ASKED, 2)
    same, usual = rag.answer(ASKED, rows=nearest), rag.answer(ASKED)
    assert [answer.text for answer in same] == [answer.text for answer in usual]
    other = rag.answer(ASKED, rows=(nearest + 7) % 256)
    passages = rag.components.store.passages
    assert [[p.id for p in a.passages] for a in other] == [[passages[(r + 7) % 256].id for r in rs] for rs in nearest]
    alone = rag.answer(ASKED, rows=np.stack([nearest[:, 0], np.full(len(ASKED), -1)], axis=1))
    assert [[p.id for p in a.passages] for a in alone] == [[passages[row].id] for row in nearest[:, 0]]


@pytest.mark.extended
def test_samples_depend_on_the_seed_and_not_on_their_company(rag: RAG) -> None:
    flat = {"do_sample": True, "temperature": 5.0, "n_best": 4}
    first, again, other = (rag.answer(ASKED, seed=seed, **flat) for seed in (1, 1, 2))
    texts = [[[a.text, *(b.text for b in a.alternatives)] for a in answers] for answers in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert rag.answer(ASKED[:1], seed=1, **flat)[0].text == first[0].text


def test_the_chosen_label_is_the_likeliest(rag: RAG) -> None:
    labels = ["red", "blue", "white"]
    by_label = np.stack([rag.log_likelihood(ASKED, [label] * len(ASKED)) for label in labels], axis=1)
    for answer, likelihoods in zip(rag.choose(ASKED, labels), by_label, strict=True):
        ranked = [answer, *answer.alternatives]
        order = np.argsort(-likelihoods)
        assert [each.text for each in ranked] == [labels[i] for i in order]
        np.testing.assert_allclose([each.log_prob for each in ranked], likelihoods[order], rtol=1e-4, atol=1e-5)


@pytest.mark.extended
def test_banned_words_and_lengths_are_obeyed(rag: RAG) -> None:
    free = rag.answer(ASKED[:2])
    others = rag.answer(ASKED[:2], bad_words=tuple(answer.text for answer in free))
    assert not {answer.text for answer in others} & {answer.text for answer in free}
    assert all(len(answer.tokens) >= 4 for answer in rag.answer(ASKED[:2], min_length=4))
    assert all(len(answer.tokens) == 1 for answer in rag.answer(ASKED[:2], max_length=1))


@pytest.mark.parametrize("k", [0, 257])
def test_a_k_that_the_index_has_not_is_refused(rag: RAG, k: int) -> None:
    with pytest.raises(InputError, match=f"cannot read K = {k} of 256 passages"):
        rag.answer(ASKED, num_docs=k)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"rows": np.zeros((5, 0), int)}, "rows of shape (5, 0) for 5 questions"),
        ({"rows": np.zeros((4, 2), int)}, "rows of shape (4, 2) for 5 questions"),
        ({"rows": np.full((5, 2), 256, int)}, "rows from 256 to 256, the index has 0 to 255"),
        ({"prefixes": ["red"]}, "1 prefixes for 5 questions"),
        ({"bad_words": ("",)}, "one is empty"),
        ({"min_length": 5}, "min_length is 5, max_length 4"),
        ({"do_sample": True, "top_p": 0.0}, "top_p is 0.0; give a probability above 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan, max_length"),
        ({"length_penalty": -50.0}, "length_penalty is -50.0, max_length 4; give -43 to 43"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature is inf; give a finite number"),
        ({"do_sample": True, "temperature": 1e-39}, "temperature is 1e-39; give a finite number, 1e-06 or more"),
        ({"seed": -1}, "seed is -1; give 0 to 2**32 - 1"),
        ({"seed": 2**32}, "seed is 4294967296; give 0 to 2**32 - 1"),
        ({"seed": 2**64}, "seed is 18446744073709551616; give a whole number of at most 64 bits"),
        ({"do_sample": True, "num_beams": 2}, "num_beams is 2, and sampling uses no beams"),
        ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes'; give true or false or 'never'"),
        ({"num_beams": "4"}, "num_beams is '4'; give a whole number"),
        ({"bad_words": "red"}, "bad_words is 'red'; give a list, each a text in quotes"),
        ({"num_beam": 4}, "unknown key 'num_beam'; the nearest is 'num_beams'"),
        ({"batch_size": 0}, "batch_size is 0; give 1 or more"),
        ({"num_docs": "2"}, "num_docs is '2'; give a whole number"),
        ({"seed": "x"}, "seed is 'x'; give a whole number"),
        ({"prefixes": ["red"] * 4 + [None]}, "prefixes: number 5 is None"),
        ({"rows": [[0.5]] * 5}, "rows of float64; give whole numbers"),
        ({"rows": [[None]] * 5}, "rows of object; give whole numbers"),
    ],
)
def test_options_that_make_no_sense_are_named(rag: RAG, options: dict, what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)):
        rag.answer(ASKED, **options)


def test_several_passages_in_one_input_are_not_saved_as_one_by_one(rag: RAG, tmp_path: Path) -> None:
    config = rag.components.config
    together = dataclasses.replace(config, generator=dataclasses.replace(config.generator, passages_per_prompt=2))
    stuffed = RAG(dataclasses.replace(rag.components, config=together), rag.params)
    with pytest.raises(InputError, match=r"^generator\.passages_per_prompt is 2: transformers reads passages one"):
        stuffed.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_no_questions_have_no_answers(rag: RAG) -> None:
    assert rag.answer([]) == []
    assert rag.choose([], ["red", "blue"]) == []


def test_no_questions_have_empty_results(rag: RAG) -> None:
    assert rag.search([], 2) == []
    assert rag.search_rows([], 2).shape == (0, 2)
    assert rag.log_likelihood([], []).shape == (0,)
    assert rag.encode([]).shape == (0, rag.components.store.width)


def test_an_answer_too_many_is_refused(rag: RAG) -> None:
    with pytest.raises(InputError, match=r"^one string and one list as questions and answers; give two strings or two"):
        rag.log_likelihood(ASKED[0], ["red"])
    with pytest.raises(InputError, match="5 questions and 1 answers"):
        rag.log_likelihood(ASKED, ["red"])


@pytest.mark.extended
@pytest.mark.parametrize("half", ["question_tower", "generator"])
def test_a_model_of_nan_does_not_answer(rag: RAG, half: str) -> None:
    """Whatever part of it: not an empty answer, and not a number."""
    odd = jax.tree.map(lambda leaf: leaf + jnp.nan, getattr(rag.params, half))
    broken = RAG(rag.components, rag.params._replace(**{half: odd}))
    told = r"^question [1-5]: no answer has a log-probability; look for NaN or infinity in the model's weights"
    with pytest.raises(InputError, match=told):
        broken.answer(ASKED)
    with pytest.raises(InputError, match=told):
        broken.choose(ASKED, ["red", "blue"])
    with pytest.raises(InputError, match=told):
        broken.log_likelihood(ASKED, ["red"] * 5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rag: rag.stream("who?"),
        lambda rag: rag.stream_choices("who?", ["red", "blue"]),
        lambda rag: rag.choose(ASKED, "red"),
        lambda rag: rag.search_rows("who?", 1),
        lambda rag: rag.encode("who?"),
        lambda rag: rag.remove_passages("abc"),
        lambda rag: rag.with_passages("abc"),
        lambda rag: rag.add_passages("abc"),
    ],
)
def test_a_string_is_no_list_of_strings(rag: RAG, ask) -> None:
    with pytest.raises(InputError, match=r"is one string, '\w+\??'; give a list of"):
        ask(rag)


@pytest.mark.extended
def test_rows_may_be_lists(rag: RAG) -> None:
    rows = rag.search_rows(ASKED, 2)
    here, there = rag.answer(ASKED, rows=rows.tolist()), rag.answer(ASKED, rows=rows)
    assert [answer.text for answer in here] == [answer.text for answer in there]


def test_rows_say_how_many_passages_are_read(rag: RAG) -> None:
    rows = rag.search_rows(ASKED, 2)
    with pytest.raises(InputError, match="num_docs is 1, rows name 2 passages; leave num_docs out"):
        rag.answer(ASKED, rows=rows, num_docs=1)


def test_a_removed_passage_is_not_read(rag: RAG) -> None:
    row = int(rag.components.store.find(["Norburg"])[0])
    with pytest.raises(InputError, match=f"rows: {row} was removed"):
        rag.remove_passages(["Norburg"]).answer(ASKED[:1], rows=[[row]])


@pytest.mark.parametrize("change", [RAG.with_passages, RAG.add_passages])
def test_passages_are_those_that_a_corpus_may_hold(rag: RAG, change) -> None:
    with pytest.raises(InputError, match='passage 2: the id "x" occurs twice'):
        change(rag, [Passage("x", "", "one"), Passage("x", "", "two")])
    with pytest.raises(InputError, match='passage 1: "text" is empty'):
        change(rag, [Passage("x", "", "")])
    changed = change(rag, [Passage("x", None, "Nowhere is red ."), Passage("y", "", "Elsewhere is blue .")])
    assert changed.components.store.passages[int(changed.components.store.find(["x"])[0])].title == ""


def test_a_model_is_shown_in_a_line_and_can_be_a_key(rag: RAG) -> None:
    for each in (
        rag,
        rag.components,
        rag.components.store,
        rag.components.bi_encoder.required_passage_encoder,
        rag.components.generator_tokenizer,
    ):
        assert len(repr(each)) < 5_000
    assert repr(rag).startswith("RAG(token, ")
    assert "256 passages" in repr(rag)
    assert len(repr(rag)) < 500
    assert {rag: 1, rag.components: 2, rag.components.store: 3}[rag] == 1
    answer = rag.answer(ASKED[0], num_beams=2, n_best=2)
    told = f"Answer({answer.text!r}, log_prob={answer.log_prob:.4f}, 2 passages, 1 alternatives)"
    assert repr(answer) == told
    assert rag == rag
    assert rag != dataclasses.replace(rag)


def test_answering_writes_nothing_into_a_workdir_or_its_index(trained, tmp_path: Path) -> None:
    """Not even the tokens of passages that its index has none of: the index may be somebody else's."""
    _, _, workdir = trained
    shutil.copytree(workdir, tmp_path / "run")
    index = tmp_path / "run" / "index"
    encoder = trained[0].components.bi_encoder.required_passage_encoder
    updates.add(index, [Passage("Ostdorf", "Ostdorf", "Ostdorf is painted green .")], encoder)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    rag = RAG.from_workdir(tmp_path / "run")
    assert rag.answer(ASKED[:1])
    assert len(rag.components.store) == len(trained[0].components.store) + 1
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
