"""The BERT tower against transformers. Differences are relative to the largest magnitude of the output.

All towers here have dropout rates, so agreement with transformers in evaluation mode is also the proof that without a
key there is no dropout.
"""

import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import BertModel, DPRContextEncoder, DPRQuestionEncoder

import oracle
from oracle import jit, relative, torch
from rag_jax.models import bert
from rag_jax.models.bert import BertConfig
from rag_jax.types import Tokens
from suites import first

SMALL = BertConfig(
    vocab_size=60, width=16, layers=1, heads=2, ffn_width=32, max_positions=12, dropout=0.3, attention_dropout=0.4
)
WIDE = BertConfig(vocab_size=90, width=48, layers=2, heads=6, ffn_width=40, max_positions=16, token_types=1)
DEEP = BertConfig(vocab_size=75, width=32, layers=3, heads=4, ffn_width=64, max_positions=9, layer_norm_eps=1e-3)
CONFIGS = {"small": SMALL, "wide": WIDE, "deep": DEEP}
MEAN, LAST = (replace(WIDE, pooling=pooling) for pooling in ("mean", "last"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def some_tokens(rng, config) -> Tokens:
    return oracle.tokens(rng, 5, config.max_positions, config.vocab_size, oracle.BERT_PAD)


@cache
def compiled(config):
    return jit(bert.tower(config))


def vectors(config, params, tokens, key=None):
    return compiled(config)(params, tokens, key)


@torch.no_grad()
def mean_of_states(model, tokens) -> torch.Tensor:
    inputs = oracle.torch_inputs(tokens)
    weight = inputs["attention_mask"][:, :, None]
    return (model(**inputs).last_hidden_state * weight).sum(1) / weight.sum(1)


@pytest.mark.parametrize("kind", [DPRQuestionEncoder, DPRContextEncoder])
@pytest.mark.parametrize("projection", [None, 20])
@pytest.mark.parametrize("name", first(1, ["small", "wide"]))
def test_vectors_are_those_of_dpr(rng, kind, projection, name):
    config = replace(CONFIGS[name], projection=projection)
    model, params = oracle.tower(kind, config, seed=1)
    tokens = some_tokens(rng, config)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(tokens)).pooler_output
    assert relative(vectors(config, params, tokens), theirs) < 1e-5


@pytest.mark.parametrize("name", first(2, CONFIGS))
def test_cls_vectors_are_berts_first_state(rng, name):
    config = CONFIGS[name]
    model, params = oracle.tower(BertModel, config, seed=2)
    tokens = some_tokens(rng, config)
    with torch.no_grad():
        theirs = model(**oracle.torch_inputs(tokens)).last_hidden_state[:, 0]
    assert relative(vectors(config, params, tokens), theirs) < 1e-5


@pytest.mark.parametrize(("name", "norm"), first(1, [("small", 7.5), ("wide", None), ("deep", 1.0)]))
def test_mean_vectors_are_the_mean_of_berts_states(rng, name, norm):
    config = replace(CONFIGS[name], pooling="mean", vector_norm=norm)
    model, params = oracle.tower(BertModel, config, seed=3)
    tokens = some_tokens(rng, config)
    theirs = mean_of_states(model, tokens)
    if norm is not None:
        theirs = norm * torch.nn.functional.normalize(theirs)
    assert relative(vectors(config, params, tokens), theirs) < 1e-5


@pytest.mark.parametrize("norm", [None, 2.0])
def test_truncated_vectors_are_the_first_components_rescaled(rng, norm):
    model, params = oracle.tower(BertModel, WIDE, seed=4)
    tokens = some_tokens(rng, WIDE)
    with torch.no_grad():
        states = model(**oracle.torch_inputs(tokens)).last_hidden_state
    theirs = torch.stack([row[length - 1, :7] for row, length in zip(states, tokens.lengths.tolist(), strict=True)])
    if norm is not None:
        theirs = norm * torch.nn.functional.normalize(theirs)
    config = replace(LAST, vector_norm=norm, truncated_width=7)
    assert config.vector_width == 7
    assert relative(vectors(config, params, tokens), theirs) < 1e-5


@pytest.mark.parametrize("config", first(2, [WIDE, MEAN, LAST]), ids=["cls", "mean", "last"])
def test_padding_does_not_matter(rng, config):
    params = oracle.tower(BertModel, config)[1]
    tokens = oracle.tokens(rng, 5, 9, config.vocab_size, oracle.BERT_PAD)
    longer = tokens._replace(ids=jnp.pad(tokens.ids, ((0, 0), (0, config.max_positions - 9))))
    other = oracle.other_padding(rng, longer, config.vocab_size)
    expected = vectors(config, params, longer)
    np.testing.assert_array_equal(vectors(config, params, other), expected)
    assert relative(vectors(config, params, tokens), expected) < 1e-5


@pytest.mark.parametrize("pooling", first(2, ["cls", "mean", "last"]))
def test_a_vector_depends_on_its_own_tokens_and_on_no_padding(rng, pooling):
    """Proven by gradient: token s is reached through row s of the position table."""
    config = replace(SMALL, pooling=pooling)
    params = oracle.tower(BertModel, config)[1]
    tokens = some_tokens(rng, config)
    probe = jnp.asarray(rng.normal(size=config.width), jnp.float32)

    def projected(table):
        return bert.tower(config)({**params, "position": {"embedding": table}}, tokens) @ probe

    reach = jit(jax.jacrev(projected))(params["position"]["embedding"])
    np.testing.assert_array_equal(jnp.any(reach != 0, axis=2), tokens.mask)


def test_rows_do_not_see_each_other(rng):
    params = oracle.tower(BertModel, DEEP)[1]
    tokens = some_tokens(rng, DEEP)
    other = tokens._replace(ids=tokens.ids.at[1:].set(tokens.ids[:-1]))
    np.testing.assert_array_equal(vectors(DEEP, params, tokens)[0], vectors(DEEP, params, other)[0])


def test_dropout_follows_the_key(rng):
    params = oracle.tower(BertModel, SMALL)[1]
    tokens = some_tokens(rng, SMALL)
    first, again, second = (vectors(SMALL, params, tokens, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert jnp.all(jnp.any(first != second, axis=1))


@pytest.mark.extended
def test_dropout_scatters_the_vectors_as_transformers_does(rng):
    """Over many draws mean and variance agree to a few standard errors: the same places, the same rates."""
    config, draws = SMALL, 30_000
    model, params = oracle.tower(DPRQuestionEncoder, config)
    one = oracle.tokens(rng, 1, 6, config.vocab_size, oracle.BERT_PAD)
    many = Tokens(jnp.repeat(one.ids, draws, axis=0), jnp.repeat(one.lengths, draws, axis=0))
    ours = np.asarray(vectors(config, params, many, jax.random.key(3)))
    torch.manual_seed(4)
    with torch.no_grad():
        theirs = model.train()(**oracle.torch_inputs(many)).pooler_output.numpy()
    oracle.assert_same_scatter(ours, theirs)


@pytest.mark.extended
def test_bfloat16_stays_near_float32(rng):
    config = replace(WIDE, pooling="mean", vector_norm=1.0)
    params = oracle.tower(BertModel, config)[1]
    tokens = some_tokens(rng, config)
    with jax.numpy_dtype_promotion("standard"):  # flax's LayerNorm promotes implicitly
        low = vectors(replace(config, dtype=jnp.bfloat16), params, tokens)
    assert low.dtype == jnp.float32
    cosine = jnp.sum(low * vectors(config, params, tokens), axis=1)
    assert jnp.all(cosine > 0.999)


@pytest.mark.extended
def test_bert_base_has_its_size():
    config = BertConfig()
    with torch.device("meta"):
        model = BertModel(oracle.transformers.BertConfig(), add_pooling_layer=False)
    shapes = oracle.tower_shapes(config)
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert ours == sum(each.numel() for each in model.parameters()) == 108_891_648
    tokens = Tokens(jax.ShapeDtypeStruct((7, 256), jnp.int32), jax.ShapeDtypeStruct((7,), jnp.int32))
    out = jax.eval_shape(bert.tower(config), shapes, tokens)
    assert (out.shape, out.dtype) == ((7, config.vector_width), jnp.float32)
