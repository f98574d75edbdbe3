"""Folders and GGUF files of decoder-only networks as towers, and towers as folders."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import gguf_files
import oracle
from rag_jax import hub
from rag_jax.data.tokenizers import fingerprint
from rag_jax.data.tower_inputs import PLAIN, TowerInputFormat, tokenize_texts
from rag_jax.errors import InputError
from rag_jax.hub import decoder as decoder_files
from rag_jax.hub import loading, published, tensor_names
from rag_jax.models import decoder
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.decoder_tower import DecoderTowerConfig
from rag_jax.models.rope import Rope
from rag_jax.pipeline import pretrained
from suites import first

GENERATOR = DecoderConfig(
    vocab_size=270, width=16, decoder_layers=2, heads=4, kv_heads=2, head_width=6, ffn_width=24, max_positions=32,
    rope=Rope(100.0), qk_norm=True, model_type="qwen3"
)  # fmt: skip
SIZES = {name: getattr(GENERATOR, name) for name in GENERATOR.__dataclass_fields__} | {"tied_head": True}
TOWER = DecoderTowerConfig(**SIZES)


def end_token() -> Tokenizer:
    """A byte-level tokenizer that appends a token, as that of Qwen3-Embedding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["<|end|>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    return tokenizer


@pytest.fixture
def saved() -> hub.TowerCheckpoint:
    config = replace(TOWER, pooling="mean", vector_norm=1.0, truncated_width=5)
    fed = TowerInputFormat("{title} {text}", "Instruct: find\nQuery: {question}", 20)
    params = decoder.init(TOWER, jax.random.key(0))
    settings = {"eos_token": "<|end|>", "pad_token": "<|end|>"}
    return hub.TowerCheckpoint(config, params, end_token(), "question", settings, fed)


@pytest.fixture
def generator_folder(tmp_path: Path) -> Path:
    oracle.decoder_generator(GENERATOR)[0].save_pretrained(tmp_path / "generator")
    return tmp_path / "generator"


def same(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_generator_is_a_tower_without_its_head(generator_folder: Path) -> None:
    found = hub.load_tower(generator_folder)
    assert found.config == TOWER
    assert found.input_format == PLAIN
    params = hub.load_generator(generator_folder).params
    same(found.params, {name: each for name, each in params.items() if name != "head"})
    assert isinstance(hub.load(generator_folder), hub.GeneratorCheckpoint)


def test_a_model_without_a_head_is_a_tower(tmp_path: Path) -> None:
    model, params = oracle.decoder_generator(GENERATOR)
    model.model.save_pretrained(tmp_path)
    for found in hub.load_tower(tmp_path), hub.load(tmp_path):
        assert isinstance(found, hub.TowerCheckpoint)
        assert found.config == TOWER
        same(found.params, {name: each for name, each in params.items() if name != "head"})


def test_the_files_of_sentence_transformers_make_it_a_tower(generator_folder: Path) -> None:
    modules = [
        {"path": "", "type": "a.Transformer"},
        {"path": "p", "type": "a.Pooling"},
        {"path": "n", "type": "a.Normalize"},
    ]
    (generator_folder / "modules.json").write_text(json.dumps(modules))
    (generator_folder / "p").mkdir()
    (generator_folder / "p" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    (generator_folder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "Query:", "document": ""}, "truncate_dim": 8}'
    )
    found = hub.load(generator_folder)
    assert isinstance(found, hub.TowerCheckpoint)
    assert found.config == replace(TOWER, pooling="last", vector_norm=1.0, truncated_width=8)
    assert found.input_format.question == "Query:{question}"


def test_a_saved_tower_is_loaded_as_it_was(saved: hub.TowerCheckpoint, tmp_path: Path) -> None:
    hub.save(tmp_path / "ours", saved)
    found = hub.load_tower(tmp_path / "ours")
    assert (found.config, found.side, found.input_format) == (saved.config, saved.side, saved.input_format)
    same(found.params, saved.params)
    assert found.tokenizer is not None
    assert saved.tokenizer is not None
    assert fingerprint(found.tokenizer) == fingerprint(saved.tokenizer)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("qwen3", ["Qwen3Model"])


def test_the_tokenizer_s_own_end_token_survives_truncation(saved: hub.TowerCheckpoint, tmp_path: Path) -> None:
    hub.save(tmp_path / "ours", saved)
    tokenizer = hub.load_tower(tmp_path / "ours").tokenizer
    assert tokenizer is not None
    whole, short = tokenize_texts(tokenizer, ["abcdef", "ab"], 4).ids
    assert whole == [*tokenizer.encode("abc", add_special_tokens=False).ids, 0]
    assert short == [*tokenizer.encode("ab", add_special_tokens=False).ids, 0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"is_causal": False}, "is_causal is False; only True is supported"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True; only False is supported"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map names code of its own, which is not run"),
        ({"truncate_dim": 17}, "truncate_dim is 17 for vectors of width 16"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types differ"),
    ],
)
def test_another_network_is_refused(generator_folder: Path, change: dict, told: str) -> None:
    path = generator_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=told) as said:
        hub.load_tower(generator_folder)
    assert "\n" not in str(said.value)


def test_other_tensors_are_refused(generator_folder: Path) -> None:
    path = generator_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1, "layer_types": None}))
    with pytest.raises(InputError, match=r"model\.layers\.1\.\S+ \([\d, ]+\) is unexpected"):
        hub.load_tower(generator_folder)


@pytest.mark.extended
@pytest.mark.parametrize(("kind", "pooling"), first(1, [(None, "last"), (1, "mean"), (2, "cls"), (3, "last")]))
def test_a_gguf_file_is_a_tower(tmp_path: Path, kind: int | None, pooling: str) -> None:
    config = DecoderConfig(
        vocab_size=len(gguf_files.TOKENS), width=gguf_files.WIDTH, decoder_layers=gguf_files.LAYERS,
        heads=gguf_files.HEADS, kv_heads=gguf_files.KV_HEADS, ffn_width=gguf_files.FFN,
        max_positions=gguf_files.LENGTH, rope=Rope(gguf_files.THETA), qk_norm=True, model_type="qwen3"
    )  # fmt: skip
    params = decoder.init(config, jax.random.key(0))
    arrays = gguf_files.tensors("qwen3", tensor_names.to_stored(params, decoder_files.NAMES))
    changes = {} if kind is None else {"pooling_type": kind}
    metadata = {**gguf_files.sizes("qwen3", **changes), **gguf_files.byte_level(), "tokenizer.ggml.add_eos_token": True}
    path = gguf_files.write(tmp_path / "m.gguf", metadata, arrays)
    found = hub.load_tower(path)
    assert isinstance(found.config, DecoderTowerConfig)
    assert found.config.pooling == pooling
    same(found.params, {name: each for name, each in params.items() if name != "head"})
    assert found.tokenizer is not None
    assert found.tokenizer.encode("a").tokens[-1] == gguf_files.SPECIAL[2]
    assert isinstance(hub.load(path), hub.GeneratorCheckpoint)
    assert loading.describe_tower(path) == found.config
    rag = pretrained.combine(str(path), str(path))
    assert (rag.retriever.tower, rag.generator.architecture) == (str(path), "llama")


def test_a_gguf_file_that_ranks_is_refused(tmp_path: Path) -> None:
    metadata = {**gguf_files.sizes("qwen3", pooling_type=4), **gguf_files.byte_level()}
    path = gguf_files.write(tmp_path / "m.gguf", metadata, {})
    with pytest.raises(InputError, match="pooling_type is 4, supported are 1, 2, 3; give a model of text vectors"):
        hub.load_tower(path)


def test_a_published_tower_is_planned_without_its_weights() -> None:
    sizes = published.tower_sizes("intfloat/e5-mistral-7b-instruct")
    assert (sizes.vector_width, sizes.vector_norm, sizes.max_positions) == (4_096, 1.0, 32_768)
