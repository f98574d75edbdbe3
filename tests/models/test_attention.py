"""Multi-head attention against its formula, written out in float64."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracle import jit, relative
from rag_jax.models import attention as module
from rag_jax.models.attention import Attention, is_fused

R, T, S, WIDTH = 3, 4, 6, 24


def naive_attention(params, states, attended, mask, heads: int) -> np.ndarray:
    """Head by head: `softmax(Q K^T / sqrt(d)) V` over the positions where the mask is True."""

    def dense(name, x):
        return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)

    states, attended = np.asarray(states, np.float64), np.asarray(attended, np.float64)
    queries, keys, values = dense("query", states), dense("key", attended), dense("value", attended)
    d = states.shape[-1] // heads
    mixed = np.zeros_like(states)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for row in range(len(states)):
            scores = np.exp(queries[row, :, part] @ keys[row, :, part].T / np.sqrt(d)) * np.asarray(mask[row])
            mixed[row, :, part] = scores / scores.sum(axis=1, keepdims=True) @ values[row, :, part]
    return dense("out", mixed)


class Problem(NamedTuple):
    """An attention with large random weights as a pure function, and what it attends from and to."""

    apply: Callable
    params: dict
    states: np.ndarray
    attended: np.ndarray

    def __call__(self, mask, attended=None, key=None):
        attended = self.attended if attended is None else attended
        return np.asarray(self.apply(self.params, self.states, attended, mask, key))


@cache
def problem(heads: int, dropout: float = 0.0) -> Problem:
    module = Attention(WIDTH, heads, dropout, 0.02)
    rng = np.random.default_rng(heads)

    def whole(module, states, attended, mask, deterministic):
        return module(states, *module.project(attended), mask, deterministic)

    def apply(params, states, attended, mask, key):
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, states, attended, mask, key is None, rngs=rngs, method=whole)

    def dense():
        return {"kernel": 0.3 * normal(rng, WIDTH, WIDTH), "bias": 0.3 * normal(rng, WIDTH)}

    params = {name: dense() for name in ("query", "key", "value", "out")}
    return Problem(jit(apply), params, normal(rng, R, T, WIDTH), normal(rng, R, S, WIDTH))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def some_mask(*shape: int) -> np.ndarray:
    """Random, with at least one position for every query."""
    mask = np.random.default_rng(0).random(shape) < 0.6
    mask[:, :, 0] = True
    return mask


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_attention_is_its_formula(heads):
    attention, mask = problem(heads), some_mask(R, T, S)
    expected = naive_attention(attention.params, attention.states, attention.attended, mask, heads)
    assert relative(attention(mask), expected) < 1e-5


@pytest.mark.parametrize("shape", [(1, T, S), (R, 1, S), (1, 1, S)])
def test_a_mask_holds_for_every_row_and_query_that_it_leaves_out(shape):
    attention, mask = problem(3), some_mask(*shape)
    assert relative(attention(mask), attention(np.broadcast_to(mask, (R, T, S)))) < 1e-6


def test_what_is_masked_has_no_value_and_no_gradient():
    attention, mask = problem(3), np.broadcast_to(np.arange(S) < 4, (R, 1, S))
    changed = attention.attended.copy()
    changed[:, 4:] = 100
    np.testing.assert_array_equal(attention(mask), attention(mask, changed))
    gradient = gradients(attention, mask)[1]
    assert not np.any(gradient[:, 4:])
    assert np.all(np.any(gradient[:, :4] != 0, axis=2))


def test_a_query_that_may_look_nowhere_is_finite():
    attention, mask = problem(3), np.zeros((R, 1, S), bool)
    assert np.all(np.isfinite(attention(mask)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients(attention, mask)))


def gradients(attention: Problem, mask):
    """Of the output's square, with respect to the parameters and the attended states."""

    def loss(params, attended, mask):
        return jnp.sum(
            jnp.square(attention.apply.__wrapped__(params, jnp.asarray(attention.states), attended, mask, None))
        )

    return jit(jax.grad(loss, argnums=(0, 1)))(attention.params, attention.attended, mask)


def test_bfloat16_scores_are_summed_and_normalised_in_float32():
    """Weights over 4096 equal positions sum to 1; in bfloat16 the sum would stall at 256."""
    module = Attention(WIDTH, 1, 0.0, 0.02, jnp.bfloat16)
    keys, values = jnp.zeros((1, 1, WIDTH, 4096), jnp.bfloat16), jnp.ones((1, 1, 4096, WIDTH), jnp.bfloat16)
    states, mask = jnp.ones((1, 1, WIDTH), jnp.bfloat16), jnp.ones((1, 1, 4096), bool)
    same = {"kernel": jnp.eye(WIDTH), "bias": jnp.zeros(WIDTH)}
    mixed = module.apply({"params": {"query": same, "out": same}}, states, keys, values, mask, True)
    assert mixed.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(mixed, np.float32), 1.0, atol=2**-8)


def test_dropout_thins_the_weights():
    attention, mask = problem(3, dropout=0.5), np.ones((1, 1, S), bool)
    whole, first, second = (attention(mask, key=key) for key in (None, jax.random.key(1), jax.random.key(2)))
    np.testing.assert_array_equal(whole, problem(3)(mask))
    assert np.any(first != whole)
    assert np.any(first != second)


@pytest.mark.parametrize(
    ("queries", "keys", "is_new", "kernel"),
    [(16, 16, True, True), (17, 16, True, False), (32, 256, True, True), (4, 32, True, False), (16, 16, False, False)],
)
def test_on_a_gpu_the_kernel_gets_a_mask_that_it_takes(
    monkeypatch, queries: int, keys: int, is_new: bool, kernel: bool
) -> None:
    """cuDNN refuses a mask of one row for all queries, and odd lengths in training; few queries go the plain way.

    GPUs before the A100 have no kernel.
    """
    asked = []
    ours = jax.nn.dot_product_attention

    def spy(q, k, v, mask, scale, implementation):
        asked.append(implementation)
        assert mask.shape[2:] == (q.shape[1], k.shape[1])
        return ours(q, k, v, mask=mask, scale=scale, implementation="xla")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(module, "has_bfloat16_products", lambda: is_new)
    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    plain = Attention(WIDTH, 2, 0.0, 0.02, jnp.bfloat16)
    draw = np.random.default_rng(0)
    states, attended = (jnp.asarray(draw.standard_normal((R, n, WIDTH)), jnp.bfloat16) for n in (queries, keys))
    mask = jnp.broadcast_to(jnp.arange(keys)[None, None, :] < 5, (R, 1, keys))

    def whole(module):
        return module(states, *module.project(attended), mask, True)

    params = plain.init(jax.random.key(0), method=whole)
    fused = plain.clone(fused=True).apply(params, method=whole)
    assert asked == (["cudnn"] if kernel else ["xla"] * (queries >= 16))
    assert relative(np.asarray(fused, np.float32), np.asarray(plain.apply(params, method=whole), np.float32)) < 2e-2


@pytest.mark.parametrize("fused", [False, True])
def test_weights_are_kept_for_those_who_ask(fused):
    """In float32 and before dropout; attention that is fused otherwise has none to keep, and is not fused then."""
    attention, queries = problem(3), 16
    module = Attention(WIDTH, 3, 0.5, 0.02, fused=fused)
    states, mask = normal(np.random.default_rng(5), R, queries, WIDTH), some_mask(R, queries, S)

    def whole(module, states, attended):
        return module(states, *module.project(attended), jnp.asarray(mask), True)

    @jit
    def both(params, states, attended):
        arguments = {"params": params}, states, attended
        return module.apply(*arguments, method=whole, mutable="intermediates"), module.apply(*arguments, method=whole)

    (asked, kept), plain = both(attention.params, states, attention.attended)
    (weights,) = kept["intermediates"]["weights"]
    assert relative(asked, plain) < 1e-5
    value, out = attention.params["value"], attention.params["out"]
    values = (attention.attended @ value["kernel"] + value["bias"]).reshape(R, S, 3, -1)
    mixed = np.einsum("RHTS,RSHd->RTHd", weights, values).reshape(states.shape)
    assert relative(asked, mixed @ out["kernel"] + out["bias"]) < 1e-5
    np.testing.assert_array_equal(np.asarray(weights) > 0, np.broadcast_to(mask[:, None], weights.shape))
    np.testing.assert_allclose(np.sum(weights, axis=3), 1, rtol=1e-6)


@pytest.mark.extended
def test_another_kind_of_attention_is_refused() -> None:
    assert (is_fused("fused"), is_fused("plain")) == (True, False)
    with pytest.raises(ValueError, match=r"^attention is 'flash'; give plain or fused$"):
        is_fused("flash")
