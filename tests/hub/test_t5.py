"""Checkpoints of T5: what transformers saves is read here, and what is saved here is what transformers loads."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from transformers import (
    AutoTokenizer,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    T5ForConditionalGeneration,
)

import oracle
import pretrained
import tokenizer_folders
from oracle import jit, relative, torch
from rag_jax.data import prompts
from rag_jax.errors import InputError
from rag_jax.hub import RagCheckpoint, load, load_generator, save
from rag_jax.hub import t5 as files
from rag_jax.models import t5
from rag_jax.models.t5 import T5Config
from rag_jax.pipeline.pretrained import load_generator_tokenizer
from rag_jax.types import PASSAGE, Params

SMALL = T5Config(
    vocab_size=60, width=16, encoder_layers=1, decoder_layers=2, heads=2, ffn_width=24, gated=True, tied_head=False,
    position_buckets=8, max_distance=20, dropout=0.2, layer_norm_eps=1e-5
)  # fmt: skip
CONFIGS = {
    "1.1": SMALL,
    "1.0": replace(SMALL, gated=False, tied_head=True),
    "narrow heads": replace(SMALL, heads=3, head_width=4),
}
Tensors = dict[str, np.ndarray]


def assert_same(ours: Params, theirs: Params) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as complaint:
        load(folder)
    message = str(complaint.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def save_theirs(folder: Path, config: T5Config = SMALL) -> Params:
    model, params = oracle.t5_generator(config)
    model.save_pretrained(folder)
    return params


def reconfigure(folder: Path, **changes) -> None:
    """Change the config; what becomes None is left out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change(folder: Path, edit) -> None:
    """Store other tensors in place of a folder's."""
    path = folder / "model.safetensors"
    changed = edit(safetensors.numpy.load_file(path))
    safetensors.numpy.save_file({name: np.ascontiguousarray(each) for name, each in changed.items()}, path)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_what_is_saved_here_as_it_was(tmp_path, name):
    params = save_theirs(tmp_path / "theirs", CONFIGS[name])
    found = load(tmp_path / "theirs")
    assert found.config == CONFIGS[name]
    assert_same(found.params, params)
    save(tmp_path / "ours", found)
    again = load_generator(tmp_path / "ours")
    assert (again.config, again.generation) == (found.config, found.generation)
    assert_same(again.params, params)
    back, told = T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    before, after = oracle.state(oracle.t5_generator(CONFIGS[name])[0]), oracle.state(back)
    assert before.keys() == after.keys()
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert back.config.scale_decoder_outputs == CONFIGS[name].tied_head


def test_a_loaded_network_computes_what_the_saved_one_does(tmp_path):
    save_theirs(tmp_path)
    found, model = load_generator(tmp_path), oracle.t5_generator(SMALL)[0]
    rng = np.random.default_rng(0)
    inputs = oracle.tokens(rng, 3, 30, SMALL.vocab_size, oracle.T5_PAD)
    targets = jnp.asarray(rng.integers(4, SMALL.vocab_size, (3, 25)), jnp.int32)
    network = t5.generator(found.config)

    @jit
    def ours(params):
        return network.logits(params, network.decode(params, targets, network.encode(params, inputs))[0])

    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(inputs), decoder_input_ids=oracle.as_torch(targets)).logits
    assert relative(ours(found.params), theirs) < 1e-5


def test_a_config_as_it_was_published_is_read(tmp_path):
    """Without the keys that later versions brought; the tied copies and a table that nothing uses are there."""
    config = replace(SMALL, decoder_layers=1, max_distance=128, gated=False, tied_head=True)
    params = save_theirs(tmp_path, config)
    newer = ("relative_attention_max_distance", "num_decoder_layers", "feed_forward_proj", "tie_word_embeddings")
    more = ("dense_act_fn", "is_gated_act", "scale_decoder_outputs")
    reconfigure(tmp_path, n_positions=512, **dict.fromkeys((*newer, *more)))

    def older(tensors: Tensors) -> Tensors:
        table = {name: tensors["shared.weight"].copy() for name in (*files.TIED, files.HEAD)}
        return tensors | table | {files.UNUSED: np.zeros((8, 2), np.float32)}

    change(tmp_path, older)
    found = load_generator(tmp_path)
    assert found.config == config
    assert_same(found.params, params)


def test_a_published_config_of_1_1_has_a_head_of_its_own(tmp_path):
    params = save_theirs(tmp_path)
    reconfigure(tmp_path, tie_word_embeddings=False, scale_decoder_outputs=None, dense_act_fn=None)
    assert load_generator(tmp_path).config == SMALL
    assert_same(load_generator(tmp_path).params, params)


def test_a_head_that_is_not_stored_is_the_token_table(tmp_path):
    params = save_theirs(tmp_path)
    change(tmp_path, lambda tensors: {name: each for name, each in tensors.items() if name != files.HEAD})
    words = params["word"]["embedding"]
    assert_same(load_generator(tmp_path).params, params | {"head": {"kernel": words.T}})


def test_the_layout_of_fusion_in_decoder_is_read(tmp_path):
    """Its authors' code wraps the encoder, and each of the encoder's layers."""
    params = save_theirs(tmp_path, CONFIGS["1.0"])

    def wrapped(name: str) -> str:
        name = name.replace("encoder.", "encoder.encoder.", 1) if name.startswith("encoder.") else name
        return name.replace(".layer.", ".module.layer.", 1) if name.startswith("encoder.") else name

    change(tmp_path, lambda tensors: {wrapped(name): each for name, each in tensors.items()})
    names = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert "encoder.encoder.block.0.module.layer.0.SelfAttention.q.weight" in names
    assert_same(load_generator(tmp_path).params, params)


def test_tied_tables_that_differ_are_refused(tmp_path):
    save_theirs(tmp_path, CONFIGS["1.0"])
    change(tmp_path, lambda tensors: tensors | {files.HEAD: tensors["shared.weight"] + 1})
    assert "lm_head.weight differs from shared.weight, although the config ties them" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"feed_forward_proj": "gated-silu"},
            "feed_forward_proj is 'gated-silu'; only relu and gated-gelu are supported",
        ),
        ({"dense_act_fn": "silu"}, "dense_act_fn is 'silu'; only 'gelu_new' is supported"),
        ({"relative_attention_max_distance": 4}, "relative_attention_max_distance is 4, too small for 8 buckets"),
        ({"d_kv": None}, "has no 'd_kv'"),
        ({"num_heads": 4}, "the weights do not fit the config: "),
    ],
)
def test_what_the_network_cannot_be_is_refused(tmp_path, changes, reason):
    save_theirs(tmp_path)
    reconfigure(tmp_path, **changes)
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize("kind", [RagTokenForGeneration, RagSequenceForGeneration])
@pytest.mark.parametrize("name", ["1.0", "1.1"])
def test_it_is_half_of_a_rag_checkpoint(tmp_path, kind, name):
    tower = oracle.tower(DPRQuestionEncoder, pretrained.sizes()[0])[0]
    generator, params = oracle.t5_generator(CONFIGS[name])
    told = {"n_docs": 2, "max_combined_length": 64, "retrieval_vector_size": 16}
    config = RagConfig.from_question_encoder_generator_configs(tower.config, generator.config, **told)
    model, head = kind(config=config, question_encoder=tower, generator=generator), generator.lm_head.weight
    if not CONFIGS[name].tied_head:  # tied by this
        head = torch.nn.Parameter(torch.from_numpy(np.array(params["head"]["kernel"]).T.copy()))
    generator.lm_head.weight = head
    model.save_pretrained(tmp_path / "theirs")
    found = load(tmp_path / "theirs")
    assert isinstance(found, RagCheckpoint)
    assert found.generator.config == CONFIGS[name]
    assert_same(found.generator.params, params)
    save(tmp_path / "ours", found)
    back, told = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    jax.tree.map(np.testing.assert_array_equal, oracle.state(back.generator), oracle.state(generator))


def test_its_tokenizer_begins_answers_with_padding_and_passages_with_nothing(tmp_path):
    tokenizer_folders.t5(tmp_path)
    reconfigure(tmp_path, **files.describe(SMALL, {}))
    found, theirs = load_generator_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (found.bos, found.pad, found.eos, found.decoder_start) == (None, 0, 1, 0)
    (passage,), (prompt,) = found.passages([("the cat", "the cat")]), found.prompts(["the cat ?"])
    assert passage + prompt == theirs("the cat / the cat // the cat ?")["input_ids"]
    assert found.targets(["the cat"]) == [theirs("the cat")["input_ids"]]


def test_a_question_may_stand_first_as_in_fusion_in_decoder(tmp_path):
    tokenizer_folders.t5(tmp_path)
    reconfigure(tmp_path, **files.describe(SMALL, {}))
    found, theirs = load_generator_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    found = prompts.with_templates(found, "the {title} cat {text}", "w {question} {passage}")
    (passage,), (prompt,) = found.passages([("hat", "the cat")]), found.prompts(["the cat ?"])
    at = prompt.index(PASSAGE)
    assert [*prompt[:at], *passage, *prompt[at + 1 :]] == theirs("w the cat ? the hat cat the cat")["input_ids"]
    assert found.header == ()


def test_a_sentencepiece_vocabulary_alone_needs_its_package(tmp_path, monkeypatch):
    save_theirs(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    remedy = "install it, or save the tokenizer as tokenizer.json"
    what = "holds spiece.model alone, which the package sentencepiece converts"
    assert refusal(tmp_path) == f"{tmp_path}: {what}; {remedy}"
