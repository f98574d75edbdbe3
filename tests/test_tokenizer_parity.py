"""From text to number as transformers computes it, whatever files a RAG checkpoint's tokenizers are in."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import AutoTokenizer, BartTokenizer, BertTokenizer

import pretrained
import retrieved
from oracle import relative
from pretrained import QUESTIONS
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError
from rag_jax.pipeline.pretrained import load_generator_tokenizer
from rag_jax.pipeline.question_batches import question_batches, target_batches
from rag_jax.rag import RAG
from retrieved import Theirs
from suites import first
from tokenizer_folders import changed

ASKED = ["who's king, isn't it what's-his?", "Who was MOSES ' Brother ?", *QUESTIONS]
ANSWERS = ["Aaron", "what's-his-name", "Moses", "Vienna", "the Danube, isn't it?"]
CLEANED = {"clean_up_tokenization_spaces": True}
SETTINGS = {  # of the question's tokenizer, and of the generator's
    "as it is": ({}, {}),
    "cased, clean-up": ({"do_lower_case": False, **CLEANED}, {"add_prefix_space": True}),
    "lower case with accents, clean-up": ({"strip_accents": False, **CLEANED}, {}),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    return retrieved.save_index(tmp_path_factory.mktemp("index"))


def older_files(folder: Path, question: dict, generator: dict) -> Path:
    """A RAG checkpoint whose tokenizers are in the files of before tokenizer.json, with settings beside them."""
    retrieved.save_rag(folder, "token")
    tower, bart = folder / "question_encoder_tokenizer", folder / "generator_tokenizer"
    held = json.loads((tower / "tokenizer.json").read_text())["model"]["vocab"]
    spelt = [
        word
        for text in ASKED
        for lower in (text, text.lower())
        for word, _ in BertPreTokenizer().pre_tokenize_str(lower)
    ]
    words = [*held, *dict.fromkeys(word for word in spelt if word not in held)]
    assert len(words) <= pretrained.sizes()[0].vocab_size
    model = json.loads((bart / "tokenizer.json").read_text())["model"]
    for place in (tower, bart):
        shutil.rmtree(place)
        place.mkdir()
    (tower / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (bart / "vocab.json").write_text(json.dumps(model["vocab"]))
    (bart / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])) + "\n", encoding="utf-8")
    changed(tower, "tokenizer_config.json", tokenizer_class=BertTokenizer.__name__, **question)
    changed(bart, "tokenizer_config.json", tokenizer_class=BartTokenizer.__name__, **generator)
    return folder


def assert_same(ours: RAG, theirs: Theirs) -> list[float]:
    """What the generator reads, and the likelihood of an answer, from the texts."""
    read = retrieved.read(ours, ASKED, 3)
    assert [each.inputs for each in read] == [theirs.found(question, 3).inputs for question in ASKED]
    tokenizer = theirs.retriever.generator_tokenizer
    labels = tokenizer([f" {answer}" for answer in ANSWERS])["input_ids"]
    found = ours.log_likelihood(ASKED, ANSWERS, num_docs=3)
    assert relative(found, -theirs.losses(ASKED, labels, 3)) < 1e-5
    return found.tolist()


@pytest.mark.parametrize("settings", first(1, SETTINGS))
def test_inputs_and_likelihoods_are_those_of_transformers(tmp_path, index, settings):
    folder = older_files(tmp_path / "theirs", *SETTINGS[settings])
    assert_same(RAG.from_pretrained(folder, index), Theirs(folder, "token", index))


@pytest.mark.extended
def test_what_is_saved_here_scores_the_same_here_and_there(tmp_path, index):
    ours = RAG.from_pretrained(older_files(tmp_path / "theirs", CLEANED, {}), index)
    ours.save_pretrained(tmp_path / "ours")
    again = RAG.from_pretrained(tmp_path / "ours", index)
    found = assert_same(again, Theirs(tmp_path / "ours", "token", index))
    assert ours.log_likelihood(ASKED, ANSWERS, num_docs=3).tolist() == found


def test_a_generator_s_words_are_found_wherever_it_is_named(tmp_path):
    folder = older_files(tmp_path / "rag", {}, {"add_prefix_space": True})
    rag = load_generator_tokenizer(folder).tokenizer
    assert fingerprint(rag) == fingerprint(load_generator_tokenizer(folder / "generator_tokenizer").tokenizer)
    bart = tmp_path / "bart"
    AutoTokenizer.from_pretrained(folder / "generator_tokenizer").save_pretrained(bart)
    for named in (bart, bart / "tokenizer.json"):  # what is beside the file counts
        assert fingerprint(load_generator_tokenizer(named).tokenizer) == fingerprint(rag)
    rag.save(str(tmp_path / "tokenizer.json"))
    assert fingerprint(load_generator_tokenizer(tmp_path / "tokenizer.json").tokenizer) == fingerprint(rag)


@pytest.mark.extended
def test_the_clean_up_of_decoded_questions_matters(tmp_path, index):
    likelihoods = []
    for cleaned in (True, False):
        folder = older_files(tmp_path / str(cleaned), CLEANED if cleaned else {}, {})
        rag = RAG.from_pretrained(folder, index)
        (batch,) = question_batches(rag.components, ASKED[:1], 1)
        prompt = rag.components.generator_tokenizer.text(batch.inputs.prompt.ids[0])
        expected = "isn't it what's - his?" if cleaned else "isn ' t it what ' s - his?"
        assert prompt.endswith(expected)
        likelihoods.append(float(rag.log_likelihood(ASKED[:1], ANSWERS[:1])[0]))
    assert abs(likelihoods[0] - likelihoods[1]) > 1e-3


@pytest.mark.extended
def test_special_tokens_in_a_question_are_read_as_text(tmp_path, index):
    """transformers ends the question at the user's [SEP]; see docs/correctness.md."""
    folder = older_files(tmp_path / "rag", {}, {})
    rag = RAG.from_pretrained(folder, index)
    asked = ["who was [SEP] moses </s>?", "who was [MASK] moses<pad>?"]
    tower = AutoTokenizer.from_pretrained(folder / "question_encoder_tokenizer")
    for read in retrieved.read(rag, asked, 2):
        for ids in read.inputs:
            assert [i for i in ids if i < 3] == [0, 2]
    for _, batch in target_batches(rag.components, asked, ["a</s>b", "<s>"], 2):
        ids = batch.question.ids.tolist()
        assert all([i for i in row if i in (tower.cls_token_id, tower.sep_token_id)] == [2, 3] for row in ids)
        assert [[i for i in row if i in (0, 2)] for row in batch.targets.tolist()] == [[2], [2]]
        assert [[i for i in row if i in (0, 2)] for row in batch.decoder_inputs.tolist()] == [[0], [0]]
    answers = rag.answer(asked, prefixes="</s>")
    assert all(answer.text.startswith("</s>") for answer in answers)
    banned = rag.answer(asked, bad_words=("</s>",), num_beams=2)  # the end of an answer is no word
    assert all(answer.tokens[-1] == "</s>" for answer in banned)
    assert rag.choose(asked[:1], ["</s>", "<pad>"])[0].text in ("</s>", "<pad>")
    with pytest.raises(InputError, match="labels"):
        rag.choose(asked[:1], ["a", "a"])
