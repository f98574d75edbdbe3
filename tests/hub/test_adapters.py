"""LoRA adapters in peft's layout: they go out, into torch's modules, and come in again."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel, DPRQuestionEncoder

import oracle
from oracle import relative, torch
from rag_jax import hub
from rag_jax.core import lora, trainable
from rag_jax.errors import InputError
from rag_jax.hub import adapters, loading
from rag_jax.hub import bart as bart_files
from rag_jax.hub import bert as bert_files
from rag_jax.hub.adapters import Description, Modules
from rag_jax.models import bart, bert
from rag_jax.types import Params

RANK, ALPHA = 3, 12.0
READER = bart.BartConfig(vocab_size=40, width=16, encoder_layers=1, decoder_layers=2, heads=2, ffn_width=24,
                         max_positions=32, dropout=0.0)  # fmt: skip
TOWER = bert.BertConfig(vocab_size=40, width=16, layers=1, heads=2, ffn_width=24, max_positions=16)
GENERATOR_MODULES, TOWER_MODULES = Modules(bart_files.NAMES), Modules(bert_files.DPR, "question_encoder.")
DESCRIPTION = Description("some/base", "SEQ_2_SEQ_LM")


def adapted(params: Params, pattern: str) -> Params:
    """Parameters with adapters beside the kernels of some names, none of them zero."""
    kernels = [name for name in trainable.names(params) if re.search(pattern, name)]
    draw = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.asarray(draw.standard_normal(leaf.shape), jnp.float32) / 8 if path[-1].key in lora.ADAPTERS else leaf
        ),
        lora.init(params, kernels, RANK, jax.random.key(0)),
    )


@pytest.fixture
def generator() -> tuple[torch.nn.Module, Params]:
    """BART of transformers, and our parameters with adapters in attention and in the second decoder layer."""
    model, params = oracle.generator(READER)
    return model, adapted(params, "(query|value)/kernel|decoder_layers_1/.*(down|out)/kernel")


def logits(params: Params, inputs: Any, starts: np.ndarray) -> jax.Array:
    network = bart.generator(READER)

    @oracle.jit
    def compute(params, inputs, starts):
        return network.logits(params, network.decode(params, starts, network.encode(params, inputs))[0])

    return compute(params, inputs, starts)


def asked() -> tuple[Any, np.ndarray]:
    draw = np.random.default_rng(1)
    return oracle.tokens(draw, 3, 9, READER.vocab_size, oracle.BART_PAD), draw.integers(4, 40, (3, 5)).astype(np.int32)


def add_in_torch(model: torch.nn.Module, folder: Path) -> None:
    """Add alpha / r B A to the weight of each module that a folder has adapters for, as peft's documentation says."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in tensors}
    assert modules == set(config["target_modules"])
    with torch.no_grad():
        for name in config["target_modules"]:
            a, b = (torch.tensor(tensors[f"base_model.model.{name}.lora_{each}.weight"]) for each in "AB")
            assert a.shape[0] == b.shape[1] == config["r"] == RANK
            model.get_submodule(name).weight += config["lora_alpha"] / config["r"] * (b @ a)


def test_a_saved_generator_computes_the_same_in_torch(generator, tmp_path: Path) -> None:
    model, params = generator
    adapters.save(tmp_path / "adapter", params, ALPHA, GENERATOR_MODULES, DESCRIPTION)
    inputs, starts = asked()
    options = {**oracle.torch_inputs(inputs), "decoder_input_ids": oracle.as_torch(starts)}
    with torch.no_grad():
        before = model(**options).logits.numpy()
        add_in_torch(model, tmp_path / "adapter")
        after = model(**options).logits.numpy()
    ours = logits(lora.merge(params, ALPHA), inputs, starts)
    assert relative(ours, after) < 1e-5
    assert relative(ours, before) > 1e-2, "the adapters change nothing"


@pytest.mark.filterwarnings("ignore")  # peft asks transformers for old names, and the hub for the base
def test_a_saved_generator_computes_the_same_in_peft(generator, tmp_path: Path) -> None:
    import peft

    model, params = generator
    adapters.save(tmp_path / "adapter", params, ALPHA, GENERATOR_MODULES, DESCRIPTION)
    inputs, starts = asked()
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    with torch.no_grad():
        theirs = loaded(**oracle.torch_inputs(inputs), decoder_input_ids=oracle.as_torch(starts)).logits.numpy()
    assert relative(logits(lora.merge(params, ALPHA), inputs, starts), theirs) < 1e-5
    loaded.save_pretrained(tmp_path / "again")
    merged = adapters.load(tmp_path / "again", without_adapters(params), GENERATOR_MODULES)
    jax.tree.map(np.testing.assert_array_equal, merged, lora.merge(params, ALPHA))


def without_adapters(params: Params) -> Params:
    return lora.merge(jax.tree_util.tree_map_with_path(zero_adapters, params), ALPHA)


def zero_adapters(path, leaf):
    return 0 * leaf if path[-1].key in lora.ADAPTERS else leaf


def test_a_saved_tower_computes_the_same_in_torch_and_comes_in_again(tmp_path: Path) -> None:
    model, base = oracle.tower(DPRQuestionEncoder, TOWER)
    params = adapted(base, "kernel")
    adapters.save(tmp_path / "adapter", params, ALPHA, TOWER_MODULES, Description(None, "FEATURE_EXTRACTION"))
    add_in_torch(model, tmp_path / "adapter")
    inputs = oracle.tokens(np.random.default_rng(1), 3, 9, TOWER.vocab_size, oracle.BERT_PAD)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(inputs)).pooler_output.numpy()
    merged = adapters.load(tmp_path / "adapter", base, TOWER_MODULES)
    jax.tree.map(np.testing.assert_array_equal, merged, lora.merge(params, ALPHA))
    assert relative(oracle.jit(bert.tower(TOWER))(merged, inputs), theirs) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stored", [BertModel, BertForMaskedLM])
def test_the_adapters_of_a_tower_are_those_of_automodel_however_it_is_stored(stored, tmp_path: Path) -> None:
    import peft

    base = tmp_path / "base"
    stored(BertConfig(**oracle.bert_sizes(TOWER))).save_pretrained(base)
    loaded, modules = hub.load_tower(base), loading.tower_modules(base)
    params = adapted(loaded.params, "query/kernel")
    adapters.save(tmp_path / "adapter", params, ALPHA, modules, Description(str(base), "FEATURE_EXTRACTION"))
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "adapter").eval()
    inputs = oracle.tokens(np.random.default_rng(1), 3, 9, TOWER.vocab_size, oracle.BERT_PAD)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(inputs)).last_hidden_state[:, 0].numpy()
    merged = lora.merge(params, ALPHA)
    assert relative(oracle.jit(bert.tower(loaded.config))(merged, inputs), theirs) < 1e-5
    jax.tree.map(np.testing.assert_array_equal, adapters.load(tmp_path / "adapter", loaded.params, modules), merged)
    below_a_head = Modules(bert_files.NAMES, "bert.")
    adapters.save(tmp_path / "headed", params, ALPHA, below_a_head, Description(None, "FEATURE_EXTRACTION"))
    jax.tree.map(np.testing.assert_array_equal, adapters.load(tmp_path / "headed", loaded.params, modules), merged)


def test_rank_stabilised_adapters_have_their_own_scale(generator, tmp_path: Path) -> None:
    """rsLoRA (Kalajdzievski 2023): alpha / sqrt(r)."""
    _, params = generator
    adapters.save(tmp_path / "adapter", params, ALPHA, GENERATOR_MODULES, DESCRIPTION)
    rewrite(tmp_path / "adapter", use_rslora=True)
    merged = adapters.load(tmp_path / "adapter", without_adapters(params), GENERATOR_MODULES)
    close = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), merged, lora.merge(params, ALPHA * RANK**0.5))
    assert all(jax.tree.leaves(close))


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change(folder: Path, tensor) -> None:
    """Replace every tensor by `tensor(name, value)`: a new name and value, or None for no tensor."""
    path = folder / "adapter_model.safetensors"
    changed = (tensor(*each) for each in load_file(path).items())
    save_file(dict(each for each in changed if each is not None), path)


def elsewhere(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    return name.replace("decoder.", "other."), value


def only_a(name: str, value: np.ndarray) -> tuple[str, np.ndarray] | None:
    return (name, value) if "lora_A" in name else None


def not_finite(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    return name, value * (np.nan if "decoder.layers.0.self_attn.q_proj.lora_A" in name else 1)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), r"holds no adapter_config\.json; give a folder in"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"holds no adapter_model\.safetensors; give"),
        (lambda folder: rewrite(folder, peft_type="IA3"), r"peft_type is 'IA3'; only 'LORA' is supported"),
        (lambda folder: rewrite(folder, use_dora=True), r"use_dora is True; only False is supported"),
        *(
            (partial(rewrite, init_lora_weights=start), f"init_lora_weights is '{start}', which changed the base")
            for start in ("pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga")
        ),
        (lambda folder: rewrite(folder, alora_invocation_tokens=[3]), r"alora_invocation_tokens is \[3\]; only None"),
        (
            lambda folder: rewrite(folder, modules_to_save=["head"]),
            r"modules_to_save is \['head'\]; only None is supported",
        ),
        (lambda folder: rewrite(folder, r=4), r"another network \(\w+/.* is \d+ x \d+, its adapters \(3, \d+\) and"),
        (lambda folder: change(folder, elsewhere), r"another network \(base\S+other\S+ belongs to no matrix there and"),
        (
            lambda folder: change(folder, only_a),
            r"lora_A\.weight belongs to no matrix there and \d+ more\)",
        ),
        (
            lambda folder: change(folder, not_finite),
            r"decoder_layers_0/attention/query/kernel: its adapter holds NaN",
        ),
        (lambda folder: change(folder, lambda *_: None), r"of another network \(it has no tensors\)"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(generator, tmp_path: Path, spoil, told: str) -> None:
    _, params = generator
    adapters.save(tmp_path / "adapter", params, ALPHA, GENERATOR_MODULES, DESCRIPTION)
    spoil(tmp_path / "adapter")
    with pytest.raises(InputError, match=f"adapter.*{told}") as error:
        adapters.load(tmp_path / "adapter", without_adapters(params), GENERATOR_MODULES)
    assert "\n" not in str(error.value)


def test_nothing_is_overwritten(generator, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        adapters.save(tmp_path, generator[1], ALPHA, GENERATOR_MODULES, DESCRIPTION)
