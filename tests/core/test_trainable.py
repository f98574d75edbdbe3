"""Partial fine-tuning: what is not trained has no gradient and no optimizer state, and stays as it was to the bit."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import small_rag
from rag_jax.core import optimizers, trainable, training
from rag_jax.types import RagParams
from suites import first

RATE = optax.constant_schedule(1e-2)
ADAMW, MUON = optimizers.adamw(RATE, 0.1), optimizers.muon(RATE, RATE, 0.1)


def by_name(pattern: str) -> trainable.Mask:
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: bool(re.search(pattern, trainable.path_name(path))), params
    )


@pytest.mark.extended
@pytest.mark.parametrize(
    ("pattern", "kind"),
    first(1, [("norm|/up/|query", ADAMW), ("^generator/.*(up/kernel|bias)", MUON)]),
    ids=["both networks, adamw", "one network, muon"],
)
def test_only_what_is_named_is_trained(pattern: str, kind: optax.GradientTransformation) -> None:
    first, mask = small_rag.params(), by_name(pattern)
    made_of = small_rag.recipe(small_rag.networks(), optimizers.rag(ADAMW, kind, 1.0), trainable=mask)
    state, losses = small_rag.trained(made_of, first, 5)
    assert losses[-1] < losses[0]
    differs = jax.tree.map(lambda one, other: bool(np.any(one != other)), first, state.params)
    names = trainable.names(first)
    changed = {name for name, differ in zip(names, jax.tree.leaves(differs), strict=True) if differ}
    named = {name for name in names if re.search(pattern, name)}
    assert 0 < len(named) < len(names)
    assert changed <= named
    assert named - changed <= {"generator/final_logits_bias"}, "a buffer without gradient"


def test_frozen_parameters_have_no_optimizer_state() -> None:
    first, mask = small_rag.params(), by_name("norm/scale$")
    scales = [leaf for leaf, kept in zip(jax.tree.leaves(first), jax.tree.leaves(mask(first)), strict=True) if kept]
    made_of = small_rag.recipe(small_rag.networks(), trainable=mask)
    state = jax.eval_shape(partial(training.init, made_of), first, jax.random.key(0))
    held = sorted(leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.shape)
    assert held == sorted(2 * [leaf.shape for leaf in scales]), "two moments of each"


def test_the_gradient_is_that_part_of_the_whole_one() -> None:
    first, mask = small_rag.params(), by_name("generator/.*(query|norm)")
    whole, _ = small_rag.trained(small_rag.recipe(small_rag.networks(), optax.sgd(1.0)), first, 1)
    part, _ = small_rag.trained(small_rag.recipe(small_rag.networks(), optax.sgd(1.0), trainable=mask), first, 1)
    trained, frozen = trainable.partition(part.params, mask)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), trained, trainable.partition(whole.params, mask)[0])
    jax.tree.map(np.testing.assert_array_equal, frozen, trainable.partition(first, mask)[1])


def test_the_parts_make_the_whole() -> None:
    tree = RagParams({"a": jnp.ones(2), "b": jnp.zeros(3)}, {"c": jnp.ones(1)})
    trained, frozen = trainable.partition(tree, by_name("b|c"))
    assert trainable.names(trained) == ["question_tower/b", "generator/c"]
    assert trainable.names(frozen) == ["question_tower/a"]
    jax.tree.map(np.testing.assert_array_equal, trainable.combine(trained, frozen), tree)
    assert trainable.partition(tree, trainable.everything)[1] == RagParams({"a": None, "b": None}, {"c": None})
