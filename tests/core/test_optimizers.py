"""The optimizers: which parameters decay, which network learns how fast, and the schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rag_jax.core import optimizers
from rag_jax.core.trainable import names
from rag_jax.models import bart, bert, decoder, t5
from rag_jax.types import Params, RagParams

PARAMS = RagParams(
    bert.init(bert.BertConfig(9, 8, 1, 2, 16, 8), jax.random.key(0)),
    bart.init(bart.BartConfig(9, 8, 1, 1, 2, 16, 8), jax.random.key(1)),
)
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)
STEPS = optax.constant_schedule(0.1)


def moved(optimizer: optax.GradientTransformation, gradient: RagParams) -> dict[str, bool]:
    """Which parameters one step changes, by path."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates = jax.jit(lambda: optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0])()
    return {jax.tree_util.keystr(path): bool(jnp.any(leaf != 0)) for path, leaf in jax.tree.leaves_with_path(updates)}


def test_only_kernels_and_embeddings_decay() -> None:
    changed = moved(optimizers.rag(optimizers.adamw(STEPS, 0.1), optimizers.adamw(STEPS, 0.1), 1.0), ZERO)
    assert {path for path, change in changed.items() if change} == {
        path for path in changed if "'kernel'" in path or "'embedding'" in path
    }


def test_each_network_has_its_own_rate() -> None:
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    changed = moved(optimizers.rag(optax.set_to_zero(), optimizers.adamw(STEPS, 0.0), 1.0), ones)
    assert all(change == path.startswith(".generator") for path, change in changed.items())


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_gradient_of_all_parameters_is_clipped_together(scale: float) -> None:
    gradient = jax.tree.map(lambda leaf: scale * jnp.ones_like(leaf), PARAMS)
    optimizer = optimizers.rag(optax.sgd(1.0), optax.sgd(1.0), 0.5)
    updates = jax.jit(lambda: optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0])()
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-5)


def test_muon_makes_the_kernels_step_orthogonal_and_leaves_the_rest_to_adam() -> None:
    gradient = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape), PARAMS)
    optimizer = optimizers.muon(0.1, 0.001, 0.0)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = optimizer.init(PARAMS.generator)
        updates, _ = jax.jit(optimizer.update)(gradient.generator, state, PARAMS.generator)
    kernel = updates["encoder_layers_0"]["attention"]["query"]["kernel"]
    singular = np.linalg.svd(np.asarray(kernel), compute_uv=False) / 0.1
    assert 0.5 < singular.min() <= singular.max() < 1.5  # Newton-Schulz brings them near one, not to it
    embedding = np.abs(np.asarray(updates["word"]["embedding"]))
    np.testing.assert_allclose(embedding, embedding[0, 0], rtol=1e-4)  # Adam's first step is of one size everywhere


@pytest.mark.parametrize(
    "first",
    [
        decoder.init(decoder.DecoderConfig(9, 8, 1, heads=2, ffn_width=16, tied_head=False), jax.random.key(1)),
        t5.init(t5.T5Config(9, 8, 1, 1, heads=2, ffn_width=16, tied_head=False), jax.random.key(1)),
    ],
    ids=["llama", "t5"],
)
def test_a_head_with_its_own_weights_is_no_matrix_inside_the_network(first: Params) -> None:
    gradient = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape), first)
    optimizer = optimizers.muon(0.1, 0.001, 0.0)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = optimizer.init(first)
        updates, _ = jax.jit(optimizer.update)(gradient, state, first)
    moves = {name: np.abs(np.asarray(leaf)) for name, leaf in zip(names(first), jax.tree.leaves(updates), strict=True)}
    assert moves["head/kernel"].shape == (8, 9)
    of_one_size = {
        name for name, move in moves.items() if np.allclose(move, move.max(), rtol=1e-4)
    }  # Adam's first step
    assert of_one_size == {name for name in moves if name == "head/kernel" or not name.endswith("/kernel")}


def test_the_schedule_rises_to_its_peak_and_falls_to_zero() -> None:
    schedule = optimizers.warmup_linear_decay(0.3, 10, 110)
    expected = [0.0, 0.15, 0.3, 0.15, 0.0, 0.0]
    np.testing.assert_allclose([schedule(step) for step in (0, 5, 10, 60, 110, 500)], expected, atol=1e-7)
