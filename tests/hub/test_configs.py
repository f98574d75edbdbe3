"""What configs say, in both directions; configs and weights that do not belong together are refused in one line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from transformers import AutoConfig, BertModel

import oracle
import pretrained
from rag_jax.errors import InputError
from rag_jax.hub import Reading, TowerCheckpoint, bart, bert, configs, load, load_generator, load_tower
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.loading import describe
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig

TOWER = BertConfig(
    vocab_size=40, width=16, layers=2, heads=4, ffn_width=24, max_positions=10, token_types=3, dropout=0.2
)
TOWER = replace(TOWER, attention_dropout=0.3, layer_norm_eps=1e-6, init_std=0.04)
GENERATOR = BartConfig(
    vocab_size=50, width=16, encoder_layers=1, decoder_layers=2, heads=4, ffn_width=24, max_positions=10
)
GENERATOR = replace(GENERATOR, dropout=0.2, attention_dropout=0.3, activation_dropout=0.4, scale_embedding=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    pretrained.save_rag(folder, "sequence")
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A RAG checkpoint of which config.json and the weights may be written anew."""
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    return tmp_path


def reconfigure(folder: Path, part: str | None = None, **changes) -> None:
    """Change the config, or the one of a part; what becomes None is left out."""
    config = json.loads((folder / "config.json").read_text())
    changed = config[part] if part else config
    changed |= changes
    for key in [key for key, value in changed.items() if value is None]:
        del changed[key]
    (folder / "config.json").write_text(json.dumps(config))


def restore(folder: Path, **more: np.ndarray) -> None:
    path = folder / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | more, path)


def refusal(folder: Path, read=load) -> str:
    with pytest.raises(InputError) as complaint:
        read(folder)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projection": 12},
        {"pooling": "mean"},
        {"pooling": "last"},
        {"pooling": "mean", "vector_norm": 2.5},
        {"truncated_width": 3},
    ],
)
@pytest.mark.parametrize("side", [None, "question", "passage"])
def test_a_tower_is_described_as_it_is_read(tmp_path, changes, side):
    config = replace(TOWER, **changes)
    described = ConfigJson("here", bert.files(TowerCheckpoint(config, {}, side=side))["config.json"])
    assert configs.tower(described, tmp_path) == config


def test_a_generator_is_described_as_it_is_read():
    assert configs.generator(ConfigJson("here", bart.describe(GENERATOR, {}))) == GENERATOR


def test_a_reading_is_described_as_it_is_read(saved):
    reading = Reading("token", 7, 99, "p: {title} | {text}", " || {question}", question_from_tower=False)
    parts = bert.describe(TOWER, "question"), bart.describe(GENERATOR, {})
    described = configs.describe_rag(reading, *parts, TOWER)
    assert describe(ConfigJson("here", described)) == reading


@pytest.mark.parametrize(("model", "asked"), [("sequence", None), ("token", "token"), ("sequence", "sequence")])
def test_what_a_rag_checkpoint_says_of_its_use(saved, model, asked):
    reading = describe(configs.read_config(saved), asked)
    assert reading == Reading(model, 2, 64, "{title} / {text}", " // {question}")
    theirs = AutoConfig.from_pretrained(saved)
    assert (reading.num_docs, reading.max_input) == (theirs.n_docs, theirs.max_combined_length)


@pytest.mark.parametrize("named", [["RagModel"], None, ["RagModel", "RagTokenForGeneration"]])
def test_a_rag_checkpoint_that_does_not_say_which_model_it_is_is_refused(folder, named):
    reconfigure(folder, architectures=named)
    what = "neither of RagTokenForGeneration and RagSequenceForGeneration; say which model it is: token or sequence"
    assert f"config.json: architecture is {'RagModel' if named else 'none'}, {what}" in refusal(folder)
    assert load_tower(folder).side == "question"
    assert load_generator(folder).config.vocab_size


@pytest.mark.parametrize("key", ["n_docs", "max_combined_length", "title_sep", "doc_sep"])
def test_a_rag_config_that_lacks_a_key_is_refused(folder, key):
    reconfigure(folder, **{key: None})
    assert f"config.json: has no '{key}'; take the config.json that was saved with the weights" in refusal(folder)


@pytest.mark.parametrize(("part", "read"), [("question_encoder", load_tower), ("generator", load_generator)])
def test_a_rag_config_without_one_of_its_parts_is_refused(folder, part, read):
    for value, what in ((None, f"config.json: has no '{part}'"), ("bart", f"config.json: {part} is no config")):
        reconfigure(folder, **{part: value})
        for each in (load, read):
            assert what in refusal(folder, each)


@pytest.mark.parametrize(
    ("part", "wanted"), [("question_encoder", "bert or dpr"), ("generator", "bart or llama or mistral")]
)
def test_a_part_of_another_architecture_is_refused(folder, part, wanted):
    reconfigure(folder, part, model_type="mixtral")
    assert f"config.json: {part}: model_type is 'mixtral', needed is {wanted}" in refusal(folder)
    reconfigure(folder, part, model_type=None)
    assert f"config.json: {part}: model_type is None, needed is {wanted}" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("question_encoder", "hidden_act", "gelu_new"),
        ("question_encoder", "position_embedding_type", "relative_key"),
        ("question_encoder", "is_decoder", True),
        ("generator", "activation_function", "relu"),
        ("generator", "normalize_before", True),
        ("generator", "normalize_embedding", False),
        ("generator", "add_final_layer_norm", True),
        ("generator", "static_position_embeddings", True),
        ("generator", "extra_pos_embeddings", 0),
        ("generator", "decoder_attention_heads", 1),
    ],
)
def test_networks_that_are_not_here_are_refused(folder, part, key, value):
    reconfigure(folder, part, **{key: value})
    assert re.search(rf"config\.json: {part}: {key} is {value!r}; only .+ is supported", refusal(folder))


def test_a_parts_config_that_lacks_a_size_is_refused(folder):
    reconfigure(folder, "generator", d_model=None)
    assert "config.json: generator: has no 'd_model'" in refusal(folder)


def test_weights_of_a_passage_encoder_are_unexpected(folder):
    name = "rag.ctx_encoder.ctx_encoder.bert_model.embeddings.word_embeddings.weight"
    restore(folder, **{name: np.ones((3, 16), np.float32)})
    for read in (load, load_tower, load_generator):
        assert f"the weights do not fit the config: {name} (3, 16) is unexpected" in refusal(folder, read)


@pytest.mark.parametrize(
    ("part", "key", "name"),
    [
        (
            "question_encoder",
            "intermediate_size",
            "question_encoder.bert_model.encoder.layer.0.intermediate.dense.bias",
        ),
        ("generator", "encoder_ffn_dim", "model.decoder.layers.0.fc1.bias"),
    ],
)
def test_misshapen_weights_of_a_part_are_named_with_both_shapes(folder, part, key, name):
    both = {key: 30, "decoder_ffn_dim": 30} if part == "generator" else {key: 30}
    reconfigure(folder, part, **both)
    assert f"rag.{part}.{name} has shape (24,), the config says (30,)" in refusal(folder)


def test_missing_weights_of_a_part_are_named(folder):
    reconfigure(folder, "generator", encoder_layers=2)
    missing = re.findall(r"rag\.generator\.(model\.encoder\.layers\.1\.[\w.]+) \([\d, ]+\) is missing", refusal(folder))
    assert len(missing) == 16


@pytest.fixture
def tower_folder(tmp_path) -> Path:
    oracle.tower(BertModel, TOWER)[0].save_pretrained(tmp_path)
    return tmp_path


def describe_pooling(folder: Path, config: object, *more: str) -> None:
    """The files of sentence-transformers since 5.4."""
    root = "sentence_transformers.sentence_transformer.modules"
    kinds = ["sentence_transformers.base.modules.transformer.Transformer", f"{root}.pooling.Pooling"]
    modules = [{"path": f"{n}_{kind.rpartition('.')[2]}", "type": kind} for n, kind in enumerate([*kinds, *more])]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode": "mean", "pooling_mode_cls_token": True}, "mean"),
        ({}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}, "mean"),
    ],
)
def test_a_pooling_is_read_as_sentence_transformers_reads_it(tower_folder, config, pooling):
    describe_pooling(tower_folder, {"embedding_dimension": 16, **config})
    assert load_tower(tower_folder).config == replace(TOWER, init_std=0.02, pooling=pooling)
    describe_pooling(tower_folder, config, "sentence_transformers.base.modules.normalize.Normalize")
    assert load_tower(tower_folder).config.vector_norm == 1.0


@pytest.mark.parametrize("mode", ["max", "weightedmean", ["cls", "mean"]])
def test_another_pooling_is_refused(tower_folder, mode):
    describe_pooling(tower_folder, {"pooling_mode": mode})
    named = mode if isinstance(mode, str) else "cls and mean"
    assert f"pooling by {named} is not known; use cls, mean or lasttoken pooling" in refusal(tower_folder)


def test_another_module_is_refused(tower_folder):
    describe_pooling(tower_folder, {}, "sentence_transformers.models.Dense")
    assert "modules.json: Dense is not known here; use a tower without it" in refusal(tower_folder)


@pytest.mark.parametrize("text", ["[1]", "[{}]", "3", '[{"type": null, "path": ""}]', '{"a": 1}'])
def test_modules_that_are_none_are_refused(tower_folder, text):
    (tower_folder / "modules.json").write_text(text)
    assert refusal(tower_folder).startswith(f"{tower_folder / 'modules.json'}: ")


def test_a_pooling_that_is_no_object_is_refused(tower_folder):
    describe_pooling(tower_folder, [])
    assert "1_Pooling/config.json: holds a list, not an object" in refusal(tower_folder)


@pytest.mark.parametrize("short", [0, -1, 17, 4.0, "4", True])
@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_a_width_that_vectors_do_not_have_is_refused(tower_folder, file, short):
    path = tower_folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), "truncate_dim": short}))
    assert f"truncate_dim is {short!r} for vectors of width 16; give 1 to 16, or null for all" in refusal(tower_folder)


def test_a_width_is_read_from_either_file(tower_folder):
    (tower_folder / "config_sentence_transformers.json").write_text('{"truncate_dim": 4}')
    assert load_tower(tower_folder).config.vector_width == 4
    path = tower_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": None}))
    assert load_tower(tower_folder).config.vector_width == TOWER.width


@pytest.mark.parametrize(("key", "value"), [("pooling", "max"), ("side", "answer")])
def test_an_unknown_value_of_our_own_keys_is_refused(tower_folder, key, value):
    path = tower_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert f"config.json: {key} is {value!r}" in refusal(tower_folder)
