"""LoRA: adapters learn by the gradient of their kernels, and compute what peft's modules compute."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small_rag
from oracle import torch
from rag_jax.core import lora, trainable
from rag_jax.core.gradient import LossAndGradient, TrainingBatch, loss_and_gradient
from rag_jax.core.training import Recipe
from rag_jax.types import Networks, Params, RagParams

ALPHA, RANK = 6.0, 3
TARGETS = RagParams(
    ["layer_0/attention/query/kernel", "layer_0/up/kernel"],
    ["encoder_layers_0/ffn/down/kernel", "decoder_layers_0/attention/value/kernel"],
)


def adapted(networks: Networks) -> Networks:
    return Networks(lora.tower(networks.tower, ALPHA), lora.generator(networks.generator, ALPHA))


def with_adapters(params: RagParams) -> RagParams:
    return both(lambda network, kernels: lora.init(network, kernels, RANK, jax.random.key(3)), params, TARGETS)


def both(change: Callable[..., Params], *params: RagParams) -> RagParams:
    """A change of the question tower and of the generator; the passage tower is not among the parameters."""
    towers, generators = ([getattr(each, name) for each in params] for name in ("question_tower", "generator"))
    return RagParams(change(*towers), change(*generators))


def moved(params: RagParams) -> RagParams:
    """Adapters as they may be after some training: B is not zero any more."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape) if adapter(path) else leaf,
        params,
    )


def adapter(path) -> bool:
    return path[-1].key in lora.ADAPTERS


def only_adapters(params: RagParams):
    return jax.tree_util.tree_map_with_path(lambda path, _: adapter(path), params)


def differentiated(recipe: Recipe, params: RagParams) -> LossAndGradient:
    inputs = TrainingBatch(small_rag.batch(), small_rag.NO_GOLD, None)
    return jax.jit(partial(loss_and_gradient, recipe))(params, small_rag.knowledge(), inputs, jax.random.key(0))


def module(params: Params, kernel: str) -> Params:
    for name in kernel.split("/")[:-1]:
        params = params[name]
    return params


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"scan": True, "remat": "full"}, marks=pytest.mark.extended)],
    ids=["plain", "scan and remat"],
)
def test_adapters_learn_by_the_gradient_of_their_kernels(options) -> None:
    """dA = s G Bᵀ and dB = s Aᵀ G, where G is the gradient of the kernel and s = alpha / r."""
    networks, params = small_rag.networks(**options), moved(with_adapters(small_rag.params()))
    mine = differentiated(small_rag.recipe(adapted(networks), trainable=only_adapters), params)
    whole = differentiated(small_rag.recipe(networks), both(lambda each: lora.merge(each, ALPHA), params))
    np.testing.assert_allclose(mine.loss, whole.loss, rtol=1e-6)
    assert len(jax.tree.leaves(mine.gradient)) == 2 * sum(map(len, TARGETS[:2])), "of nothing but the adapters"
    for kernels, *trees in zip(*(each[:2] for each in (TARGETS, params, mine.gradient, whole.gradient)), strict=True):
        for kernel in kernels:
            now, learnt, full = (module(tree, kernel) for tree in trees)
            scaled = ALPHA / RANK * full["kernel"]
            assert np.abs(scaled).max() > 1e-6
            np.testing.assert_allclose(learnt[lora.A], scaled @ now[lora.B].T, rtol=1e-3, atol=1e-7)
            np.testing.assert_allclose(learnt[lora.B], now[lora.A].T @ scaled, rtol=1e-3, atol=1e-7)


def test_new_adapters_change_nothing() -> None:
    params = small_rag.params()
    fresh = with_adapters(params)
    jax.tree.map(np.testing.assert_array_equal, both(lambda each: lora.merge(each, ALPHA), fresh), params)
    for kernels, network in zip(TARGETS[:2], fresh[:2], strict=True):
        for kernel in kernels:
            found = module(network, kernel)
            assert not np.any(found[lora.B])
            limit = found["kernel"].shape[0] ** -0.5
            assert 0.9 * limit < np.abs(found[lora.A]).max() <= limit
            assert found[lora.A].shape == (found["kernel"].shape[0], RANK)
    others = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fresh) if adapter(path)]
    assert len(others) == 2 * sum(map(len, TARGETS[:2]))


def test_two_kernels_of_one_shape_get_different_adapters() -> None:
    kernels = {name: {"kernel": jnp.zeros((8, 8))} for name in "ab"}
    fresh = lora.init(kernels, ["a/kernel", "b/kernel"], 2, jax.random.key(0))
    assert np.any(fresh["a"][lora.A] != fresh["b"][lora.A])


def test_a_linear_layer_computes_and_learns_as_pefts() -> None:
    """peft's forward pass is y = W x + alpha / r B (A x), with torch's transposed weights."""
    draw = np.random.default_rng(0)
    x, w, a, b, pull = (
        draw.standard_normal(shape).astype(np.float32) for shape in ((5, 8), (8, 6), (8, RANK), (RANK, 6), (5, 6))
    )

    def ours(adapters: Params):
        return jnp.asarray(x) @ lora.merge({"kernel": jnp.asarray(w)} | adapters, ALPHA)["kernel"]

    out, pulled = jax.vjp(ours, {lora.A: jnp.asarray(a), lora.B: jnp.asarray(b)})
    theirs_a, theirs_b = (torch.tensor(each.T.copy(), requires_grad=True) for each in (a, b))
    given = torch.tensor(x)
    theirs = given @ torch.tensor(w) + ALPHA / RANK * ((given @ theirs_a.T) @ theirs_b.T)
    theirs.backward(torch.tensor(pull))
    np.testing.assert_allclose(out, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)
    (learnt,) = pulled(jnp.asarray(pull))
    np.testing.assert_allclose(learnt[lora.A], theirs_a.grad.numpy().T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(learnt[lora.B], theirs_b.grad.numpy().T, rtol=1e-4, atol=1e-4)


@pytest.mark.extended
def test_a_batch_in_parts_learns_as_a_whole_one() -> None:
    params = moved(with_adapters(small_rag.params()))
    made_of = small_rag.recipe(adapted(small_rag.networks()), trainable=only_adapters)
    whole, parts = (
        small_rag.trained(made_of._replace(num_microbatches=count), jax.tree.map(jnp.array, params), 2)
        for count in (1, 2)
    )
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-5)
    assert trainable.names(parts[0].params) == trainable.names(params)
