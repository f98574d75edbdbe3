"""What is saved here is what transformers loads, bit for bit; what cannot be saved leaves nothing behind."""

import json
import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    BertModel,
    DPRContextEncoder,
    DPRQuestionEncoder,
    GenerationConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)

import oracle
import pretrained
from oracle import torch
from rag_jax.errors import InputError
from rag_jax.hub import Checkpoint, RagCheckpoint, TowerCheckpoint, load, save, saving, tensors, tokenizers
from rag_jax.hub.configs import GENERATION
from rag_jax.models import bert

TOWER, GENERATOR = pretrained.sizes()
TEXTS = [
    *pretrained.QUESTIONS,
    *(passage.text for passage in pretrained.PASSAGES),
    "",
    "  two  spaces ",
    "naïve 東京 🙂",
]
SEARCH = {"num_beams": 3, "min_length": 2, "max_length": 9, "length_penalty": 0.5, "no_repeat_ngram_size": 3}
KINDS = {
    "question": (DPRQuestionEncoder, None),
    "passage": (DPRContextEncoder, None),
    "projected question": (DPRQuestionEncoder, 12),
    "projected passage": (DPRContextEncoder, 12),
    "generator": (BartForConditionalGeneration, None),
    "token": (RagTokenForGeneration, None),
    "sequence": (RagSequenceForGeneration, None),
}


def theirs(what: str, folder: Path) -> torch.nn.Module:
    """A model that transformers saved, with its tokenizers."""
    kind, projection = KINDS[what]
    if what in pretrained.KINDS:
        return pretrained.save_rag(folder, what, title_sep=" | ", doc_sep=" || ")
    if kind is BartForConditionalGeneration:
        model, tokenizer = oracle.generator(GENERATOR)[0], "generator_tokenizer"
        model.generation_config.update(**SEARCH)
    else:
        model, tokenizer = oracle.tower(kind, replace(TOWER, projection=projection))[0], "question_encoder_tokenizer"
    model.save_pretrained(folder)
    pretrained.tokenizers()[tokenizer].save_pretrained(folder)
    return model


def outputs(model: torch.nn.Module) -> list[torch.Tensor]:
    """What the model computes for some inputs."""
    rng = np.random.default_rng(0)
    kept = {"return_dict": True, "use_cache": False}
    questions = oracle.torch_inputs(oracle.tokens(rng, 2, 9, TOWER.vocab_size, oracle.BERT_PAD))
    if isinstance(model, DPRQuestionEncoder | DPRContextEncoder):
        return [model(**questions).pooler_output]
    passages = oracle.torch_inputs(oracle.tokens(rng, 4, 12, GENERATOR.vocab_size, oracle.BART_PAD))
    answers = oracle.as_torch(rng.integers(4, GENERATOR.vocab_size, (2, 5)))
    if isinstance(model, BartForConditionalGeneration):
        return [model(**passages, decoder_input_ids=answers.repeat(2, 1), **kept).logits]
    context = {f"context_{key}": value for key, value in passages.items()}
    scores = torch.tensor([[0.3, -0.2], [0.1, 0.8]])
    told = model(**questions, **context, doc_scores=scores, decoder_input_ids=answers, n_docs=2, **kept)
    return [told.logits, model.question_encoder(**questions).pooler_output]


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    parts = [(one, other)]
    if isinstance(one, RagCheckpoint):
        assert one.reading == other.reading
        parts = [(one.tower, other.tower), (one.generator, other.generator)]
    for left, right in parts:
        assert left.config == right.config
        assert getattr(left, "side", None) == getattr(right, "side", None)
        assert getattr(left, "generation", None) == getattr(right, "generation", None)
        assert left.tokenizer.to_str() == right.tokenizer.to_str()
        assert jax.tree.structure(left.params) == jax.tree.structure(right.params)
        jax.tree.map(np.testing.assert_array_equal, left.params, right.params)


@pytest.mark.parametrize("what", KINDS)
def test_transformers_loads_what_is_saved_here_as_it_was(tmp_path, what):
    model = theirs(what, tmp_path / "theirs")
    loaded = load(tmp_path / "theirs")
    save(tmp_path / "ours", loaded)
    back, told = KINDS[what][0].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    before, after = oracle.state(model), oracle.state(back.eval())
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    with torch.no_grad():
        for one, other in zip(outputs(model), outputs(back), strict=True):
            np.testing.assert_array_equal(one, other)
    assert_same(load(tmp_path / "ours"), loaded)
    assert {path.suffix for path in (tmp_path / "ours").rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize("what", ["question", "generator"])
def test_the_tokenizer_is_transformers_own_again(tmp_path, what):
    theirs(what, tmp_path / "theirs")
    save(tmp_path / "ours", load(tmp_path / "theirs"))
    before, after = (AutoTokenizer.from_pretrained(tmp_path / folder) for folder in ("theirs", "ours"))
    assert before(TEXTS)["input_ids"] == after(TEXTS)["input_ids"]
    padded = after(TEXTS, padding=True, truncation=True, max_length=12)["input_ids"]
    assert before(TEXTS, padding=True, truncation=True, max_length=12)["input_ids"] == padded
    assert before.batch_decode(padded, skip_special_tokens=True) == after.batch_decode(padded, skip_special_tokens=True)


def test_rags_tokenizers_are_transformers_own_again(tmp_path):
    theirs("token", tmp_path / "theirs")
    save(tmp_path / "ours", load(tmp_path / "theirs"))
    before, after = (RagTokenizer.from_pretrained(tmp_path / folder) for folder in ("theirs", "ours"))
    for part in ("question_encoder", "generator"):
        assert getattr(before, part)(TEXTS)["input_ids"] == getattr(after, part)(TEXTS)["input_ids"]


def test_generation_settings_are_kept(tmp_path):
    theirs("generator", tmp_path / "theirs")
    save(tmp_path / "ours", load(tmp_path / "theirs"))
    before, after = (GenerationConfig.from_pretrained(tmp_path / folder).to_dict() for folder in ("theirs", "ours"))
    assert {key: after[key] for key in SEARCH} == SEARCH
    assert {key: before.get(key) for key in GENERATION} == {key: after.get(key) for key in GENERATION}


@pytest.mark.parametrize(
    ("pooling", "norm", "width"),
    [
        ("mean", None, None),
        ("mean", 1.0, None),
        ("mean", 3.5, 5),
        ("cls", 1.0, None),
        ("cls", None, None),  # of both sides, which DPR's encoders are not
        ("cls", None, 5),
        ("last", 1.0, None),
    ],
)
def test_a_tower_that_pools_otherwise_is_saved_in_the_layout_of_sentence_transformers(tmp_path, pooling, norm, width):
    config = replace(TOWER, pooling=pooling, vector_norm=norm, truncated_width=width)
    model, params = oracle.tower(BertModel, TOWER)
    saved = TowerCheckpoint(config, params, pretrained.tower_tokenizer())
    save(tmp_path / "ours", saved)
    assert_same(load(tmp_path / "ours"), saved)
    back, told = BertModel.from_pretrained(tmp_path / "ours", add_pooling_layer=False, output_loading_info=True)
    assert not any(told.values()), told
    jax.tree.map(np.testing.assert_array_equal, oracle.state(back), oracle.state(model))
    modules = json.loads((tmp_path / "ours" / "modules.json").read_text())
    kinds = ["Transformer", "Pooling", *["Normalize"] * (norm is not None)]
    assert [module["type"].rpartition(".")[2] for module in modules] == kinds
    told = json.loads((tmp_path / "ours" / modules[1]["path"] / "config.json").read_text())
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    on = {key for key, value in told.items() if key.startswith("pooling_mode_") and value}
    assert on == {f"pooling_mode_{modes[pooling]}"}
    assert told["word_embedding_dimension"] == TOWER.width
    settings = json.loads((tmp_path / "ours" / "config_sentence_transformers.json").read_text())
    assert settings.get("truncate_dim") == width
    assert settings["similarity_fn_name"] == ("dot" if norm is None else "cosine")


def test_what_another_process_is_writing_is_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.os, "getpid", lambda: 1)  # as in two containers
    theirs = tmp_path / ".ours.1.tmp" / "model.safetensors"
    theirs.parent.mkdir()
    theirs.write_text("half")
    with pytest.raises(InputError, match="ours: cannot be written"), saving.written_whole(tmp_path / "ours"):
        pytest.fail("it was begun")
    assert theirs.read_text() == "half"


@pytest.mark.parametrize("side", [None, "question", "passage"])
@pytest.mark.parametrize("changes", [{}, {"projection": 12}, {"pooling": "mean"}, {"pooling": "last"}])
def test_a_side_is_kept(tmp_path, side, changes):
    config = replace(TOWER, **changes)
    save(tmp_path / "ours", TowerCheckpoint(config, bert.init(config, jax.random.key(0)), side=side))
    assert load(tmp_path / "ours").side == side


def test_a_checkpoint_without_a_tokenizer_is_saved_without_one(tmp_path):
    save(tmp_path / "ours", TowerCheckpoint(TOWER, oracle.tower(DPRQuestionEncoder, TOWER)[1], side="question"))
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {"config.json", "model.safetensors"}
    assert load(tmp_path / "ours").tokenizer is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> RagCheckpoint:
    folder = tmp_path_factory.mktemp("theirs")
    theirs("token", folder)
    loaded = load(folder)
    assert isinstance(loaded, RagCheckpoint)
    return loaded


def refusal(folder: Path, checkpoint: Checkpoint) -> str:
    with pytest.raises(InputError) as complaint:
        save(folder, checkpoint)
    message = str(complaint.value)
    assert "\n" not in message
    return message


def test_a_full_folder_and_a_file_are_not_overwritten(tmp_path, checkpoint):
    for place in (tmp_path / "full" / "held", tmp_path / "file"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("kept")
    for folder in (tmp_path / "full", tmp_path / "file"):
        reason = "exists already; choose another place, nothing is overwritten"
        assert refusal(folder, checkpoint) == f"{folder}: {reason}"
    assert "cannot be written (Not a directory); choose another place" in refusal(tmp_path / "file" / "a", checkpoint)
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "held", "file"}
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "held").read_text() == "kept"


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path, checkpoint):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "place"):
        save(folder, checkpoint)
        assert_same(load(folder), checkpoint)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "new"}


@contextmanager
def small_files(size: int):
    """No file may grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write_tensors", [saving.write_tensors, lambda folder, arrays: None])
@pytest.mark.parametrize("size", [100, 4000])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, monkeypatch, checkpoint, write_tensors, size):
    """The weights do not fit, config.json, or the tokenizers."""
    monkeypatch.setattr(saving, "write_tensors", write_tensors)
    with small_files(size):
        message = refusal(tmp_path / "ours", checkpoint)
    assert message.startswith(f"{tmp_path / 'ours'}: cannot be written (")
    assert "File too large" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (tensors, "save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        (saving, "write_tensors", OSError(28, "No space left on device")),
        (saving, "write_json", OSError(28, "No space left on device")),
        (tokenizers, "write", OSError(28, "No space left on device")),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch, checkpoint, module, name, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, name, fail)
    assert "No space left on device" in refusal(tmp_path / "ours", checkpoint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("template", "value"),
    [
        *(("passage_template", each) for each in ("{text}", "{text} {title}", "{title}: {text}.")),
        *(("question_template", each) for each in ("{question} {passage}", "{passage} {question}", "{question}?")),
    ],
)
def test_a_template_that_transformers_cannot_express_is_refused(tmp_path, checkpoint, template, value):
    other = replace(checkpoint, reading=replace(checkpoint.reading, **{template: value}))
    assert "transformers joins a title" in refusal(tmp_path / "ours", other)
    assert not list(tmp_path.iterdir())
