"""Our parameter paths and the stored names, checked against the names that transformers gives."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from transformers import BertModel, DPRContextEncoder, DPRQuestionEncoder

import oracle
from rag_jax.errors import InputError
from rag_jax.hub import bart, bert, tensor_names
from rag_jax.hub.tensors import in_memory
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig

TOWER = BertConfig(vocab_size=40, width=16, layers=2, heads=2, ffn_width=24, max_positions=10)
PROJECTED = replace(TOWER, projection=12)
GENERATOR = BartConfig(
    vocab_size=50, width=16, encoder_layers=1, decoder_layers=2, heads=2, ffn_width=24, max_positions=10
)
TIED = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}


@pytest.fixture
def tower():
    return oracle.tower(BertModel, TOWER)[1]


@pytest.mark.parametrize(
    ("kind", "config"),
    [(BertModel, TOWER), (DPRQuestionEncoder, TOWER), (DPRQuestionEncoder, PROJECTED), (DPRContextEncoder, PROJECTED)],
)
def test_a_towers_names_and_tensors_are_those_of_transformers(kind, config):
    model, params = oracle.tower(kind, config)
    table, prefix = oracle.LAYOUTS[kind]
    stored = tensor_names.to_stored(params, table, prefix)
    theirs = oracle.state(model)
    assert stored.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(stored[name], value)


def test_the_generators_names_and_tensors_are_those_of_transformers():
    model, params = oracle.generator(GENERATOR)
    stored = tensor_names.to_stored(params, bart.NAMES)
    theirs = oracle.state(model)
    assert stored.keys() == theirs.keys() - TIED
    for name, value in stored.items():
        np.testing.assert_array_equal(value, theirs[name])


@pytest.mark.parametrize("prefix", ["", "bert.", "a.b."])
@pytest.mark.parametrize("which", ["bert", "dpr", "bart"])
def test_storing_and_reading_back_changes_nothing(which, prefix):
    table = {"bert": bert.NAMES, "dpr": bert.DPR, "bart": bart.NAMES}[which]
    params = oracle.generator(GENERATOR)[1] if which == "bart" else oracle.tower(DPRQuestionEncoder, PROJECTED)[1]
    stored = in_memory(tensor_names.to_stored(params, table, prefix))
    back = tensor_names.from_stored(stored, params, table, source="here", prefix=prefix)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("table", [bert.NAMES, bert.DPR, bart.NAMES])
def test_no_two_parameters_share_a_stored_name(table):
    shapes = oracle.generator_shapes(GENERATOR) if table is bart.NAMES else oracle.tower_shapes(PROJECTED)
    stored = [tensor_names.stored_name(path, table) for path in flatten_dict(shapes, sep="/")]
    assert len(set(stored)) == len(stored)


def test_every_missing_and_misshapen_tensor_is_named_in_one_line(tower):
    stored = tensor_names.to_stored(tower, bert.NAMES)
    missing = {"embeddings.LayerNorm.bias", "encoder.layer.1.attention.self.query.weight"}
    misshapen = {"embeddings.word_embeddings.weight": (41, 16), "encoder.layer.0.intermediate.dense.weight": (25, 16)}
    broken = {name: value for name, value in stored.items() if name not in missing}
    broken |= {name: np.zeros(shape, np.float32) for name, shape in misshapen.items()}
    broken["surplus"] = np.zeros((2, 3), np.float32)
    with pytest.raises(InputError, match=r"^some/folder: ") as complaint:
        tensor_names.from_stored(in_memory(broken), tower, bert.NAMES, source="some/folder")
    message = str(complaint.value)
    assert "\n" not in message
    assert set(re.findall(r"([\w.]+) \([\d, ]+\) is missing", message)) == missing
    assert set(re.findall(r"([\w.]+) \([\d, ]+\) is unexpected", message)) == {"surplus"}
    for name, shape in misshapen.items():
        assert f"{name} has shape {shape}, the config says {stored[name].shape}" in message


def test_a_table_of_the_right_size_and_the_wrong_shape_is_refused(tower):
    stored = tensor_names.to_stored(tower, bert.NAMES)
    stored["embeddings.word_embeddings.weight"] = stored["embeddings.word_embeddings.weight"].T
    with pytest.raises(InputError, match=r"word_embeddings\.weight has shape"):
        tensor_names.from_stored(in_memory(stored), tower, bert.NAMES, source="some/folder")


@pytest.mark.parametrize(
    "name", ["pooler.dense.weight", "bert_model.pooler.dense.bias", "embeddings.position_ids", "cls.predictions.bias"]
)
def test_what_no_network_here_reads_is_left_out(tower, name):
    stored = in_memory(tensor_names.to_stored(tower, bert.NAMES) | {name: np.ones((16, 16), np.float32)})
    assert stored.keys() - tensor_names.normalize_names(stored).keys() == {name}


def test_layer_norms_old_names_are_known(tower):
    stored = in_memory(tensor_names.to_stored(tower, bert.NAMES))
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in stored.items()
    }
    assert old.keys() != stored.keys()
    assert tensor_names.normalize_names(old).keys() == stored.keys()


def test_half_precision_tensors_become_the_models_dtype(tower):
    halved = {name: value.astype(np.float16) for name, value in tensor_names.to_stored(tower, bert.NAMES).items()}
    loaded = tensor_names.from_stored(in_memory(halved), tower, bert.NAMES, source="here")
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
