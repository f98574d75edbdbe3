"""The networks of a config: the dropout that a generator is trained with."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.errors import InputError
from rag_jax.models import bart, bert, registry
from rag_jax.pipeline import networks, recipes
from rag_jax.pipeline.assembly import prepare
from rag_jax.types import Tokens

TOWER = bert.BertConfig(vocab_size=9, width=8, layers=1, heads=2, ffn_width=16, max_positions=8)
READER = bart.BartConfig(vocab_size=9, width=8, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=16)


def config(checkpoint: str | None, dropout: float | None) -> Config:
    return Config(Data(), Retriever("tower"), Generator(checkpoint=checkpoint, dropout=dropout))


def test_from_scratch_a_tenth_is_dropped_unless_the_config_says() -> None:
    for name in ("bart", "t5"):
        for rate, expected in ((None, 0.1), (0.0, 0.0), (0.3, 0.3)):
            scratch = config(None, rate)
            scratch = replace(scratch, generator=replace(scratch.generator, architecture=name))
            sizes = networks.scratch_config(scratch, 50)
            assert networks.with_dropout(scratch, sizes) == sizes
            assert sizes.dropout == expected  # pyright: ignore[reportAttributeAccessIssue]


def test_a_checkpoint_is_trained_with_its_own_dropout_unless_the_config_says() -> None:
    own = replace(READER, dropout=0.2, attention_dropout=0.3)
    assert networks.with_dropout(config("bart", None), own) == own
    assert networks.with_dropout(config("bart", 0.0), own) == replace(own, dropout=0.0, attention_dropout=0.0)
    assert networks.with_dropout(config("bart", 0.4), own) == replace(own, dropout=0.4, attention_dropout=0.4)
    assert networks.with_dropout(config("bart", 0.4), READER) == replace(READER, dropout=0.4), "as from scratch"


def test_the_rate_is_that_of_the_training_step() -> None:
    params, key = registry.generator_of(READER).init(READER, jax.random.key(0)), jax.random.key(1)
    tokens, targets = Tokens(jnp.ones((2, 4), jnp.int32), jnp.full(2, 4, jnp.int32)), jnp.ones((2, 3), jnp.int32)

    def states(rate: float | None, key: jax.Array | None) -> jax.Array:
        reader = recipes.training_networks(config("bart", rate), TOWER, READER).generator
        return reader.decode(params, targets, reader.encode(params, tokens, key), key=key)[0]

    assert (states(0.0, key) == states(0.0, None)).all()
    assert (states(None, key) == states(READER.dropout, key)).all()
    assert not (states(0.5, key) == states(None, key)).all()


def test_a_network_without_dropout_has_no_other_rate_than_none(trained, towns: Config, tmp_path) -> None:
    scratch = replace(towns, generator=replace(towns.generator, architecture="llama", max_input=360))
    sizes = networks.scratch_config(scratch, 50)
    for rate in (None, 0.0):
        changed = replace(scratch, generator=replace(scratch.generator, dropout=rate))
        assert networks.with_dropout(changed, sizes) == sizes
    told = r"^generator\.dropout is 0\.1, but llama is a network without dropout; leave it out$"
    wrong = replace(scratch, generator=replace(scratch.generator, dropout=0.1, tokenizer=trained[2] / "tokenizer.json"))
    with pytest.raises(InputError, match=told):
        recipes.training_networks(wrong, TOWER, sizes)
    wrong = replace(wrong, data=replace(wrong.data, index=trained[2] / "index", passages=None))
    with pytest.raises(InputError, match=told):
        prepare(wrong, tmp_path, [])
