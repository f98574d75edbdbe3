"""How checkpoints say that their towers are fed, against what sentence-transformers documents, in a few plain lines."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers

import oracle
from oracle import relative, torch
from rag_jax import hub
from rag_jax.config.config import Config, Data, Retriever
from rag_jax.corpus.passage import Passage
from rag_jax.data.tower_inputs import PAIR, PLAIN, TowerInputFormat
from rag_jax.errors import InputError
from rag_jax.models import bert
from rag_jax.models.bert import BertConfig
from rag_jax.pipeline.assembly import load_bi_encoder, passage_encoder

LETTERS = [*"abcdefghijklmnopqrstuvwxyz.:", "A", "B"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{each}" for each in LETTERS)]
SIZES = BertConfig(vocab_size=len(WORDS), width=16, layers=1, heads=2, ffn_width=24, max_positions=48)
PASSAGES = [Passage("a", "Bach", "a composer"), Passage("b", "", "Of no title"), Passage("c", "BACH", "brook " * 20)]
QUESTIONS = ["who was Bach", "where does a brook end " * 2]


def save(folder: Path, kind: type = transformers.BertModel, **tokenizer) -> torch.nn.Module:
    """A random tower, as transformers saves it."""
    model = oracle.tower(kind, SIZES)[0]
    model.save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, **tokenizer).save_pretrained(folder)
    return model.eval()


def describe(folder: Path, prompts: dict, limits: dict, pooling: dict | None = None) -> None:
    """What sentence-transformers writes beside a mean-pooling, normalising BERT."""
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True, **(pooling or {})}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))


def naive(folder: Path, model: torch.nn.Module, texts: list[str], prompt: str, limits: dict) -> np.ndarray:
    """`encode` of sentence-transformers: prompt, strip, lower case, cut, mean of the states, norm."""
    tokenizer, found = transformers.BertTokenizer.from_pretrained(folder), []
    for text in texts:
        read = (prompt + text).strip()
        read = read.lower() if limits.get("do_lower_case") else read
        tokens = tokenizer(read, return_tensors="pt", truncation=True, max_length=limits["max_seq_length"])
        with torch.no_grad():
            states = model(**tokens).last_hidden_state[0]
        found.append(states.mean(0) / states.mean(0).norm())
    return np.stack(found)


def towers(folder: Path, **options):
    """As a run has them, with longer limits of its own than the checkpoint's."""
    return load_bi_encoder(Config(Data(), Retriever(str(folder), max_question=40, max_passage=40, **options)))


def vectors(folder: Path, **options) -> tuple[np.ndarray, np.ndarray]:
    """Of the questions and the passages."""
    found = towers(folder, **options)
    return found.required_passage_encoder.encode(
        found.question_tokenizer(QUESTIONS).ids
    ), found.required_passage_encoder.encode_passages(PASSAGES)


@pytest.mark.parametrize(
    ("described", "query", "document"),
    [
        ({}, "", ""),
        ({"prompts": {"query": "", "document": ""}, "default_prompt_name": None}, "", ""),
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, "query: ", "passage: "),
        ({"prompts": {"query": "search a brook: ", "document": None}}, "search a brook: ", ""),
        ({"prompts": {"x": "x{y} ", "query": "q: "}, "default_prompt_name": "x"}, "q: ", "x{y} "),
        ({"prompts": {"x": "x: "}, "default_prompt_name": "x"}, "x: ", "x: "),
        ({"prompts": {"corpus": "c: ", "passage": "p: ", "clustering": "k: "}}, "", "p: "),
    ],
)
@pytest.mark.parametrize("lower", [False, True])
def test_prompts_and_lengths_are_sentence_transformers_own(described, query, document, lower, tmp_path: Path) -> None:
    model, limits = save(tmp_path, do_lower_case=False), {"max_seq_length": 24, "do_lower_case": lower}
    describe(tmp_path, described, limits)
    read = [f"{passage.title}. {passage.text}" if passage.title else passage.text for passage in PASSAGES]
    asked, encoded = vectors(tmp_path)
    assert relative(asked, naive(tmp_path, model, QUESTIONS, query, limits)) < 1e-5
    assert relative(encoded, naive(tmp_path, model, read, document, limits)) < 1e-5


def test_a_template_that_is_given_is_read_instead(tmp_path: Path) -> None:
    model, limits = save(tmp_path), {"max_seq_length": 30}
    describe(tmp_path, {"prompts": {"query": "query: ", "passage": "passage: "}}, limits)
    asked, encoded = vectors(tmp_path, passage_template="{text}", question_template="ask: {question}")
    texts = [passage.text for passage in PASSAGES]
    assert relative(asked, naive(tmp_path, model, QUESTIONS, "ask: ", limits)) < 1e-5
    assert relative(encoded, naive(tmp_path, model, texts, "", limits)) < 1e-5


def test_without_a_length_of_its_own_the_tokenizer_s_counts(tmp_path: Path) -> None:
    save(tmp_path, model_max_length=20)
    assert hub.load_tower(tmp_path).input_format == PLAIN, "transformers cuts nothing unless it is asked to"
    describe(tmp_path, {}, {})
    assert hub.load_tower(tmp_path).input_format == PLAIN._replace(max_length=20)


@pytest.mark.parametrize(
    ("kind", "passage"), [(transformers.DPRContextEncoder, PAIR), (transformers.DPRQuestionEncoder, PAIR)]
)
def test_dpr_s_passages_are_pairs(kind, passage, tmp_path: Path) -> None:
    save(tmp_path, kind)
    assert hub.load_tower(tmp_path).input_format == PLAIN._replace(passage=passage)


def test_a_bert_that_says_nothing_reads_title_and_text_as_one(tmp_path: Path) -> None:
    save(tmp_path)
    assert hub.load_tower(tmp_path).input_format == PLAIN == TowerInputFormat("{title}. {text}", "{question}", None)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("side", [None, "question", "passage"])
@pytest.mark.parametrize("fed", [PLAIN, TowerInputFormat(PAIR), TowerInputFormat("p: {text}", "q: {question}", 30)])
def test_what_is_saved_is_fed_as_before(pooling, side, fed, tmp_path: Path) -> None:
    save(tmp_path / "there")
    found = hub.load_tower(tmp_path / "there")
    found = replace(found, config=replace(found.config, pooling=pooling), side=side, input_format=fed)
    hub.save(tmp_path / "here", found)
    again = hub.load_tower(tmp_path / "here")
    assert (again.input_format, again.side) == (fed, side)


@pytest.mark.parametrize(
    ("fed", "query", "document"),
    [
        (PLAIN, "", ""),
        (TowerInputFormat(PAIR), "", ""),
        (TowerInputFormat("p: {title}. {text}", "q: {question}"), "q: ", "p: "),
        (TowerInputFormat("{p} {text}", "{q} {question} ?"), "{q} ", "{p} "),
    ],
)
def test_the_beginning_of_a_template_is_a_prompt(fed, query, document, tmp_path: Path) -> None:
    config = replace(SIZES, pooling="mean")
    hub.save(tmp_path / "here", hub.TowerCheckpoint(config, bert.init(config, jax.random.key(0)), input_format=fed))
    told = json.loads((tmp_path / "here" / "config_sentence_transformers.json").read_text())
    assert told["prompts"] == {"query": query, "document": document}
    limits = json.loads((tmp_path / "here" / "sentence_bert_config.json").read_text())
    assert limits["max_seq_length"] == SIZES.max_positions


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("side", [None, "passage"])
@pytest.mark.parametrize("width", [None, 5])
def test_an_index_of_a_tower_in_memory_is_one_of_the_saved_tower(pooling, side, width, tmp_path: Path) -> None:
    save(tmp_path / "there")
    found = hub.load_tower(tmp_path / "there")
    config = replace(found.config, pooling=pooling, truncated_width=width)
    found = replace(found, config=config, side=side, input_format=TowerInputFormat("p: {text}", "q: {question}", 30))
    hub.save(tmp_path / "here", found)
    again = hub.load_tower(tmp_path / "here")
    assert again.config == config
    specs = []
    for each in found, again:
        asked = Config(Data(), Retriever("source", max_passage=40))
        assert each.tokenizer is not None
        encoder = passage_encoder(asked, "source", each, each.tokenizer)
        specs.append((encoder.spec, encoder.encode_passages(PASSAGES)))
    assert specs[0][0] == specs[1][0]
    np.testing.assert_array_equal(specs[0][1], specs[1][1])
    assert specs[0][1].shape[1] == (width or SIZES.width)


@pytest.mark.parametrize(
    ("prompts", "limits", "pooling", "told"),
    [
        ({"prompts": {"a": "b"}, "default_prompt_name": "c"}, {}, {}, "default_prompt_name is 'c', no prompt has"),
        ({"prompts": {"query": 3}}, {}, {}, r"prompts is .*; give an object, each value a text"),
        ({"prompts": ["query"]}, {}, {}, r"prompts is .*; give an object, each value a text"),
        ([], {}, {}, "holds a list, not an object"),
        ({"prompts": {"query": "q: "}}, {}, {"include_prompt": False}, r"that are not pooled \(include_prompt\)"),
        ({}, {"max_seq_length": "long"}, {}, "max_seq_length is 'long'; give a whole number"),
        ({}, {"max_seq_length": 0}, {}, "max_seq_length is 0; give 1 to"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(prompts, limits, pooling, told, tmp_path: Path) -> None:
    save(tmp_path)
    describe(tmp_path, prompts, limits, pooling)
    with pytest.raises(InputError, match=told) as said:
        hub.load_tower(tmp_path)
    assert "\n" not in str(said.value)


def test_prompts_that_are_not_there_need_not_be_pooled(tmp_path: Path) -> None:
    save(tmp_path)
    describe(tmp_path, {"prompts": {"query": ""}}, {}, {"include_prompt": False})
    assert hub.load_tower(tmp_path).input_format.question == "{question}"
