"""What a config trains, and what it refuses to train, in one line each before anything is compiled."""

from dataclasses import replace

import jax
import pytest

from rag_jax.config.config import Config, Data, Lora, Retriever
from rag_jax.core import trainable
from rag_jax.errors import InputError
from rag_jax.models import bart, bert
from rag_jax.pipeline import finetuning
from rag_jax.training import checks
from rag_jax.types import RagParams

TOWER = bert.BertConfig(vocab_size=9, width=8, layers=1, heads=2, ffn_width=16, max_positions=8)
READER = bart.BartConfig(vocab_size=9, width=8, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=16)
USUAL = Config(Data(index="index"), Retriever("tower"))  # pyright: ignore[reportArgumentType]


def params() -> RagParams:
    return jax.eval_shape(lambda key: RagParams(bert.init(TOWER, key), bart.init(READER, key)), jax.random.key(0))


def config(retriever: dict | None = None, generator: dict | None = None, **fields) -> Config:
    parts = replace(USUAL.retriever, **retriever or {}), replace(USUAL.generator, **generator or {})
    return replace(USUAL, retriever=parts[0], generator=parts[1], **fields)


def trained(config: Config) -> list[str]:
    """The names of what is trained."""
    shapes = jax.eval_shape(lambda: finetuning.with_adapters(config, jax.tree.map(as_zeros, params())))
    return trainable.names(trainable.partition(shapes, lambda each: finetuning.mask(config, each))[0])


def as_zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.numpy.zeros(leaf.shape, leaf.dtype)


def test_by_default_everything_is_trained() -> None:
    assert trained(config()) == trainable.names(params())


def test_with_lora_only_the_adapters_are_trained() -> None:
    names = trained(config({"lora": Lora(2, targets=("up",))}, {"lora": Lora(2)}))
    tower = [f"question_tower/layer_0/up/lora_{each}" for each in "ab"]
    layers = ("decoder_layers_0/attention", "decoder_layers_0/cross", "encoder_layers_0/attention")
    kernels = [f"generator/{layer}/{kernel}" for layer in layers for kernel in ("query", "value")]
    assert names == [*tower, *(f"{kernel}/lora_{each}" for kernel in kernels for each in "ab")]


def test_with_lora_other_parameters_are_trained_by_name() -> None:
    names = trained(config({"train": ()}, {"lora": Lora(2, targets=("/up/",)), "train": ("ffn_norm",)}))
    layers = [f"generator/{half}_layers_0/ffn" for half in ("decoder", "encoder")]
    adapters = [f"{layer}/up/lora_{each}" for layer in layers for each in "ab"]
    norms = [f"{layer}_norm/{each}" for layer in layers for each in ("bias", "scale")]
    assert sorted(names) == sorted(adapters + norms)


UNTAUGHT = [{"num_docs": 1}, {"engine": "bm25"}]  # no loss depends on the question tower


@pytest.mark.parametrize("retriever", [{"mode": "frozen"}, {"mode": "gold"}, {"train": ()}, *UNTAUGHT])
def test_a_frozen_tower_is_not_trained(retriever: dict) -> None:
    assert all(name.startswith("generator/") for name in trained(config(retriever)))


def test_a_single_passage_teaches_the_tower_where_its_prior_is_over_several() -> None:
    names = trained(config({"num_docs": 1, "prior_docs": 4}))
    assert any(name.startswith("question_tower/") for name in names)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (config(generator={"lora": Lora(0)}), r"generator\.lora\.rank is 0; give 1 or more"),
        (config({"lora": Lora(-1)}), r"retriever\.lora\.rank is -1; give 1 or more"),
        (config(generator={"lora": Lora(2, alpha=0.0)}), r"generator\.lora\.alpha is 0\.0; give more than 0"),
        (config(generator={"lora": Lora(2, targets=("(",))}), r"generator\.lora\.targets: '\(' is not a regular exp"),
        (config({"train": ("a", "*")}), r"retriever\.train: '\*' is not a regular expression \(nothing to repeat at"),
        (config(generator={"lora": Lora(2, targets=())}), r"generator\.lora\.targets is empty, with a rank of 2; name"),
        (
            config({"mode": "frozen", "lora": Lora(2)}),
            r"retriever\.lora\.rank is set, but in retriever\.mode frozen the question tower is not trained; leave it",
        ),
        (config({"mode": "gold", "train": ("norm",)}), r"retriever\.train is set, but in retriever\.mode gold the q"),
        (
            config({"engine": "bm25", "train": ("norm",)}),
            r"retriever\.train is set, but where its prior changes",
        ),
        (config({"lora": Lora(2)}, data=Data()), r"retriever\.lora\.rank is set, but without passages the que"),
        (
            config({"train": ()}),
            r"retriever\.train is empty; freeze the question tower with retriever\.mode fr",
        ),
        (config({"mode": "frozen"}, {"train": ()}), r"nothing is trained in either network; give"),
        (config(generator={"adapter": "folder"}), r"generator\.adapter is folder; name the checkpoint too that"),
    ],
)
def test_a_contradictory_config_is_refused(wrong: Config, told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        checks.check_numbers(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            config(generator={"lora": Lora(2, targets=("query", "q_proj"))}),
            r"generator\.lora\.targets: 'q_proj' matches no kernel; there are (\S+/kernel, ){2}\S+/kernel and 13 more$",
        ),
        (config({"lora": Lora(2, targets=("norm",))}), r"retriever\.lora\.targets: 'norm' matches no kernel; there "),
        (config({"train": ("layer_1/",)}), r"retriever\.train: 'layer_1/' matches no parameter; there are layer_0/"),
        (
            config(generator={"lora": Lora(9)}),
            r"generator\.lora\.rank is 9, decoder_layers_0/attention/query/kernel is 8 x 8; give 8 or less$",
        ),
        (
            config(generator={"lora": Lora(2), "train": ("norm", "encoder_layers_0/")}),
            r"generator\.train: 'encoder_layers_0/' matches encoder_layers_0/attention/query/kernel, which "
            r"generator\.lora\.targets match too; train a kernel or its adapters$",
        ),
    ],
)
def test_names_that_do_not_fit_the_networks_are_refused(wrong: Config, told: str) -> None:
    checks.check_numbers(wrong)
    with pytest.raises(InputError, match=f"^{told}"):
        finetuning.check_names(wrong, params())
