"""GGUF files give the networks that transformers has: config, names, order of rows; the rest is refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import gguf_files
import gguf_memory
from gguf_files import EPSILON, FFN, HEADS, KV_HEADS, LAYERS, LENGTH, THETA, TOKENS, WIDTH, byte_level, sizes, tensors
from oracle import torch
from rag_jax.errors import InputError
from rag_jax.hub import (
    GeneratorCheckpoint,
    generator_family,
    gguf,
    load,
    load_generator,
    registry,
    resolve,
    tensor_names,
)
from rag_jax.hub import decoder as decoder_files
from rag_jax.hub.gguf import GgufCheckpoint
from rag_jax.models import decoder

NETWORKS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def network(architecture: str, **changes):
    """transformers' network with random weights, biases and norms included."""
    config, model = NETWORKS[architecture]
    settings = {
        "vocab_size": len(TOKENS),
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": WIDTH // HEADS,
        "max_position_embeddings": LENGTH,
        "rms_norm_eps": EPSILON,
        "tie_word_embeddings": False,
        **changes,
    }
    torch.manual_seed(0)
    made = model(config(**settings)).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.normal_(std=0.2)
    return made


def state(model) -> dict[str, np.ndarray]:
    weights = {name: each.numpy() for name, each in model.state_dict().items()}
    return {
        name: each for name, each in weights.items() if name != "lm_head.weight" or not model.config.tie_word_embeddings
    }


def file(folder: Path, architecture: str = "llama", model=None, more=None, quantisation="F32", **changes) -> Path:
    arrays = tensors(architecture, state(model)) if model is not None else {}
    metadata = {**sizes(architecture, **changes), **byte_level()}
    return gguf_files.write(folder / "m.gguf", metadata, {**arrays, **(more or {})}, quantisation)


def config_of(folder: Path, architecture: str = "llama", more=None, **changes):
    return gguf.read(file(folder, architecture, more=more, **changes)).config


def assert_same(ours: GgufCheckpoint, theirs: dict[str, np.ndarray]) -> None:
    assert ours.tensors.keys() == theirs.keys()
    for name, value in theirs.items():
        read = ours.tensors[name].read()
        assert read.dtype == np.float32
        assert ours.tensors[name].shape == read.shape
        np.testing.assert_array_equal(read, value, err_msg=name)


def refusal(path: Path, read=gguf.read) -> str:
    with pytest.raises(InputError) as complaint:
        read(path)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


@pytest.fixture(scope="module")
def smollm() -> tuple[GgufCheckpoint, dict]:
    """SmolLM2 as it is read here, and as the loader of transformers reads the same file."""
    path = gguf_files.smollm()
    ours = gguf.read(path)
    with torch.device("meta"):
        model = LlamaForCausalLM(AutoConfig.for_model(**ours.config))
    model.named_children = list  # it would derive the names for each of the 397 modules anew
    return ours, load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)


@pytest.mark.extended
def test_smollms_tensors_are_transformers(smollm) -> None:
    ours, theirs = smollm
    assert len(theirs["tensors"]) == 272
    assert_same(ours, {name: each.numpy() for name, each in theirs["tensors"].items()})


def test_smollms_config_is_transformers(smollm) -> None:
    ours, theirs = smollm
    expected = dict(theirs["config"])
    rope = {"rope_type": "default", "rope_theta": expected.pop("rope_theta")}
    assert expected.pop("rms_norm_eps") == np.float32(ours.config["rms_norm_eps"])  # it keeps the digits of float32
    assert (expected.pop("_model_name_or_path"), expected.pop("unk_token_id")) == ("Smollm2 135M 8k Lc100K Mix1 Ep2", 0)
    assert ours.config == {**expected, "hidden_act": "silu", "rope_parameters": rope, "rms_norm_eps": 1e-5}
    assert ours.generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@pytest.mark.slow
def test_smollm_is_what_from_pretrained_loads() -> None:
    path = gguf_files.smollm()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    assert_same(gguf.read(path), state(model))


@pytest.mark.extended
def test_loading_smollm_takes_the_memory_of_its_parameters() -> None:
    command = [sys.executable, gguf_memory.__file__, str(gguf_files.smollm())]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    used = json.loads(ran.stdout)
    assert used["parameters"] == 4 * 134_515_008
    assert used["peak"] < 1.3 * used["parameters"]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    ],
)
def test_networks_come_back_as_they_were(tmp_path: Path, architecture: str, changes: dict) -> None:
    model = network(architecture, **changes)
    width = changes.get("head_dim", WIDTH // HEADS)
    path = file(tmp_path, architecture, model, **{"attention.key_length": width, "attention.value_length": width})
    ours = gguf.read(path)
    assert_same(ours, state(model))
    made = type(model.config)(**ours.config)
    for key in (*ours.config, "attention_bias", "mlp_bias", "use_sliding_window"):
        if key not in ("bos_token_id", "eos_token_id", "pad_token_id"):
            assert getattr(made, key, None) == getattr(model.config, key, None), key


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("quantisation", ["F16", "Q4_0", "Q8_0"])
def test_transformers_reads_the_same_numbers(tmp_path: Path, architecture: str, quantisation: str) -> None:
    width = 128 if architecture == "qwen3" else WIDTH // HEADS  # the only one of Qwen3 that it reads
    model = network(architecture, head_dim=width)
    path = file(tmp_path, architecture, model, quantisation=quantisation, **{"attention.key_length": width})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert_same(gguf.read(path), state(theirs))


def test_defaults_are_llama_cpps(tmp_path: Path) -> None:
    left_out = {"attention.head_count_kv": None, "rope.freq_base": None, "vocab_size": None}
    config = config_of(tmp_path, **left_out)
    assert (config["num_key_value_heads"], config["head_dim"], config["vocab_size"]) == (
        HEADS,
        WIDTH // HEADS,
        len(TOKENS),
    )
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", {"model_type": "mistral", "sliding_window": 16}),
        ("qwen2", {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}),
    ],
)
def test_a_sliding_window_is_one_of_all_layers(tmp_path: Path, architecture: str, expected: dict) -> None:
    config = config_of(tmp_path, architecture, **{"attention.sliding_window": 16})
    assert expected.items() <= config.items()
    made = AutoConfig.for_model(**config)
    assert made.sliding_window == 16
    assert set(getattr(made, "layer_types", ["sliding_attention"])) == {"sliding_attention"}  # Mistral's needs none


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {"rope_type": "default"}),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
    ],
)
def test_scaled_rope_is_said_as_transformers_says_it(tmp_path: Path, changes: dict, expected: dict) -> None:
    assert config_of(tmp_path, **changes)["rope_parameters"] == {**expected, "rope_theta": THETA}


@pytest.mark.parametrize(("factor", "original"), [(8.0, 8192), (32.0, 8192), (4.0, 1024)])
def test_llama_3s_scaling_is_recovered_from_its_factors(tmp_path: Path, factor: float, original: int) -> None:
    rope = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": original, "rope_theta": 500_000.0}
    model = LlamaConfig(hidden_size=1024, num_attention_heads=8, rope_parameters=rope, max_position_embeddings=131_072)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model, "cpu")
    factors = 500_000.0 ** (-np.arange(0, 128, 2) / 128) / scaled.numpy()
    assert np.ptp(factors) > factor / 2
    assert np.count_nonzero((factors > 1.01) & (factors < 0.99 * factor)) > 1  # between the two wavelengths
    changes = {"rope.freq_base": 500_000.0, "attention.key_length": 128}
    if original != 8192:
        changes["rope.scaling.original_context_length"] = original
    config = config_of(tmp_path, more={"rope_freqs.weight": factors}, **changes)
    assert config["rope_parameters"] == rope


def test_all_tokens_that_end_an_answer_are_told(tmp_path: Path) -> None:
    metadata = {**sizes("llama"), **byte_level()}
    eos = metadata["tokenizer.ggml.eos_token_id"]
    for eot, expected in ((eos, eos), (eos + 1, [eos, eos + 1])):
        path = gguf_files.write(tmp_path / "m.gguf", metadata | {"tokenizer.ggml.eot_token_id": eot}, {}, "F32")
        assert gguf.read(path).generation["eos_token_id"] == expected


def test_other_factors_of_rope_are_refused(tmp_path: Path) -> None:
    for factors in (np.linspace(1, 8, 8), np.ones(4)):
        path = file(tmp_path, more={"rope_freqs.weight": factors})
        assert "rope_freqs.weight is not Llama 3's scaling with a factor of" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"block_count": None}, "has no 'llama.block_count'; convert the model again with llama.cpp"),
        ({"attention.head_count_kv": [2, 1]}, "llama.attention.head_count_kv is [2, 1]; only a single number"),
        ({"expert_count": 8}, "expert_count is 8; only 0 is supported"),
        ({"attention.causal": False}, "attention.causal is False; only True is supported"),
        ({"rope.dimension_count": 8}, "rope.dimension_count is 8 where keys have 16; only heads of one width"),
        ({"attention.value_length": 8}, "attention.value_length is 8 where keys have 16"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0},
            "RoPE is scaled by yarn; supported are none, linear and Llama 3's",
        ),
    ],
)
def test_what_no_network_here_computes_is_refused(tmp_path: Path, changes: dict, what: str) -> None:
    assert refusal(file(tmp_path, **changes)).startswith(f"{tmp_path / 'm.gguf'}: {what}")


def test_other_architectures_and_tensors_are_refused(tmp_path: Path) -> None:
    known = "general.architecture is 'gemma3', supported are llama, qwen2, qwen3; give a model of one of them"
    assert known in refusal(file(tmp_path, "gemma3"))
    for name in ("blk.0.ffn_gate_exps.weight", "v.patch_embd.weight", "blk.0.attn_q.scale"):
        path = file(tmp_path, more={name: np.zeros((2, 32))})
        assert f"{name} (2, 32) is not a tensor of the llama architecture" in refusal(path)


def test_a_file_is_found_in_a_folder_and_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "held").mkdir()
    path = file(tmp_path / "held")
    (path.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for source in (path, path.parent, str(path), "package:held/m.gguf", "package:held"):
        assert resolve(source) == path
    for source in (path.with_name("n.gguf"), "package:held/n.gguf", "somebody/n.gguf"):
        with pytest.raises(InputError, match=r"n\.gguf: (no such file|the package holds no n\.gguf)"):
            resolve(source)
    path.with_name("a.gguf").touch()
    with pytest.raises(InputError, match=r"held: holds several checkpoints, a\.gguf, m\.gguf; name one of them"):
        resolve(path.parent)
    (path.parent / "config.json").write_text("{}")  # a checkpoint of transformers beside them
    assert resolve(path.parent) == path.parent


def test_a_family_that_is_not_known_is_refused_by_its_model_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {name: each for name, each in registry.GENERATORS.items() if "qwen3" not in each.model_types}
    monkeypatch.setattr(registry, "GENERATORS", others)
    path = file(tmp_path, "qwen3")
    for read in (load, load_generator, generator_family):
        assert "model_type is 'qwen3', needed is " in refusal(path, read)


def test_a_generator_is_loaded_from_a_file(tmp_path: Path) -> None:
    model = network("llama", tie_word_embeddings=True)
    path = file(tmp_path, "llama", model, quantisation="F32")
    assert generator_family(path) is decoder.ARCHITECTURE
    for loaded in (load(path), load_generator(tmp_path)):
        assert isinstance(loaded, GeneratorCheckpoint)
        assert loaded.generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        assert loaded.tokenizer.get_vocab_size() == loaded.config.vocab_size == len(TOKENS)
        assert loaded.tokenizer_settings["chat_template"] == gguf_files.TEMPLATE
        params = tensor_names.to_stored(loaded.params, decoder_files.NAMES)
        expected = state(model)
        assert params.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(params[name], value)
