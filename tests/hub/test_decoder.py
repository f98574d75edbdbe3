"""Checkpoints of the Llama family: what transformers saves is read here, and what is saved here is what it loads."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import oracle
from oracle import torch
from rag_jax.errors import InputError
from rag_jax.hub import GeneratorCheckpoint, load_generator, save
from rag_jax.hub import decoder as files
from rag_jax.hub.config_json import ConfigJson
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope

LLAMA = DecoderConfig(
    vocab_size=40, width=16, decoder_layers=2, heads=4, kv_heads=2, head_width=6, ffn_width=24, max_positions=64,
    rope=Rope(100.0, "llama3", 4.0, 1.0, 4.0, 12), model_type="llama"
)  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "llama with biases": replace(LLAMA, rope=Rope(100.0), qkv_bias=True, out_bias=True, tied_head=True),
    "mistral": replace(LLAMA, rope=Rope(100.0, "linear", 2.0), model_type="mistral"),
    "mistral with a window": replace(LLAMA, rope=Rope(100.0), window=5, model_type="mistral"),
    "qwen2": replace(LLAMA, rope=Rope(100.0), qkv_bias=True, model_type="qwen2"),
    "qwen2 with a window": replace(LLAMA, rope=Rope(100.0), qkv_bias=True, window=5, model_type="qwen2"),
    "qwen3": replace(LLAMA, rope=Rope(100.0), qk_norm=True, tied_head=True, model_type="qwen3"),
}
each_config = pytest.mark.parametrize("name", CONFIGS)


def read(values: dict) -> DecoderConfig:
    return files.read_config(ConfigJson("here", values))


@each_config
def test_a_config_goes_to_transformers_and_back(name):
    described = files.describe(CONFIGS[name], {"eos_token_id": 2})
    assert read(described) == CONFIGS[name]
    assert read(AutoConfig.for_model(**described).to_dict()) == CONFIGS[name]


@each_config
def test_a_folder_of_transformers_is_read_and_written_back(tmp_path, name):
    model, params = oracle.decoder_generator(CONFIGS[name], seed=2)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="4KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    found = load_generator(tmp_path / "theirs")
    assert found.config == CONFIGS[name]
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    save(tmp_path / "ours", found)
    back, told = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values())
    assert type(back).__name__ == files.ARCHITECTURES[CONFIGS[name].model_type]
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(back.eval()(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_read_as_float32(tmp_path):
    model, _ = oracle.decoder_generator(LLAMA, seed=2)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    found = load_generator(tmp_path / "theirs").params
    np.testing.assert_array_equal(found["word"]["embedding"], model.get_input_embeddings().weight.detach().float())


def test_older_files_keep_theta_beside_the_scaling():
    described = files.describe(LLAMA, {})
    stored = described.pop("rope_parameters")
    older = {"rope_theta": stored.pop("rope_theta"), "rope_scaling": stored}
    assert read({**described, **older}) == LLAMA
    assert read({**described, "rope_theta": 100.0, "rope_scaling": None}) == replace(LLAMA, rope=Rope(100.0))


def test_what_a_file_leaves_out_is_the_default_of_transformers():
    for kind in (transformers.LlamaConfig, transformers.MistralConfig, transformers.Qwen2Config):
        config, ours = kind(), read(kind().to_dict())
        window = config.sliding_window if kind is transformers.MistralConfig else None
        assert (ours.window, ours.tied_head) == (window, config.tie_word_embeddings)
        assert ours.d == config.hidden_size // config.num_attention_heads
    mistral = files.describe(CONFIGS["mistral"], {})
    assert read({**mistral, "sliding_window": None}).window is None
    assert read({**mistral, "layer_types": ["full_attention"]}).window == CONFIGS["mistral"].window, "it does not look"


def test_the_window_of_a_qwen_that_states_few_of_its_settings_is_that_of_transformers():
    with_window = {"model_type": "qwen2", "use_sliding_window": True}
    for layers, stated in ((28, {}), (2, {"max_window_layers": 0}), (2, {"max_window_layers": 0, "sliding_window": 7})):
        config = transformers.Qwen2Config(use_sliding_window=True, num_hidden_layers=layers, **stated)
        kinds = {config.layer_types} if isinstance(config.layer_types, str) else set(config.layer_types)
        window = config.sliding_window if kinds == {"sliding_attention"} else None
        sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2}
        rest = {"intermediate_size": 8, "max_position_embeddings": 16, "rms_norm_eps": 1e-6}
        assert read({**with_window, **sizes, **rest, **stated}).window == window


def test_widths_that_follow_from_others_are_not_stated():
    whole = {**files.describe(LLAMA, {}), "num_key_value_heads": 4, "head_dim": LLAMA.width // 4}
    short = {name: each for name, each in whole.items() if name not in ("num_key_value_heads", "head_dim")}
    assert read(whole) == read(short)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}},
            "rope_type is 'yarn'; only default, linear, llama3 are",
        ),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1.0}}, "has no 'factor'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; only None is supported"),
        ({"num_key_value_heads": 3}, "4 query heads do not divide into 3 key-value heads"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0; give 1 to"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types differ"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            "max_window_layers gives only some layers a window",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_theta": 1.0}},
            "rope_scaling and rope_parameters differ",
        ),
    ],
)
def test_what_the_network_does_not_do_is_refused(changes, told):
    with pytest.raises(InputError) as complaint:
        read({**files.describe(replace(LLAMA, rope=Rope(1.0)), {}), **changes})
    assert str(complaint.value).startswith("here")
    assert told in str(complaint.value)
    assert "\n" not in str(complaint.value)


def test_another_family_is_refused_by_the_names_of_those_known(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    with pytest.raises(InputError, match=r"model_type is 'mixtral', needed is .*llama or mistral or qwen2 or qwen3"):
        load_generator(tmp_path)


def test_a_head_that_is_not_the_tied_one_is_refused(tmp_path):
    config = replace(LLAMA, tied_head=True)
    model, _ = oracle.decoder_generator(replace(LLAMA, tied_head=False), seed=2)
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(files.describe(config, {})))
    with pytest.raises(
        InputError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight, although the config ties"
    ):
        load_generator(tmp_path / "theirs")


def test_a_checkpoint_without_a_tokenizer_is_written_too(tmp_path):
    _, params = oracle.decoder_generator(LLAMA, seed=2)
    save(tmp_path / "ours", GeneratorCheckpoint(LLAMA, params, None, {"eos_token_id": 2}))
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["eos_token_id"] == 2
