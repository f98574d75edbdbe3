"""The step of instruction tuning: the loss against a loop in float64, packed or not, in one piece or in several."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_models
from rag_jax.config.instruction import Data, Generator, InstructionConfig
from rag_jax.core import instruction, training
from rag_jax.core.instruction import InstructionRecipe
from rag_jax.data.chats import Example
from rag_jax.data.tokenizers import pad
from rag_jax.instruction.batches import Layout, Size, usual_layout
from rag_jax.models import decoder
from rag_jax.types import Tokens

LONGEST, ROWS = 12, 8
NETWORK, PARAMS = decoder.generator(chat_models.SMALL), decoder.init(chat_models.SMALL, jax.random.key(1))


def example(seed: int, length: int, targets: list[int] | None = None) -> Example:
    draw = np.random.default_rng(seed)
    chosen = draw.choice(length - 1, draw.integers(1, length), replace=False) + 1 if targets is None else targets
    return Example(str(seed), "here", draw.integers(0, 400, length).astype(np.int32), np.sort(chosen).astype(np.int32))


def layout(groups: int, packs: int = 1, parts: int = 1) -> Layout:
    """Room for anything, so that nothing is compiled twice."""
    return Layout((Size(LONGEST, LONGEST, LONGEST),) * groups, packs, parts, LONGEST)


def unpacked(batch: instruction.Batch) -> instruction.Batch:
    return tuple(group._replace(inputs=group.inputs.inputs) for group in batch)  # pyright: ignore


@lru_cache
def loss_and_gradient():
    def loss(params, batch):
        count = instruction.num_targets(batch)
        return -instruction.log_likelihood(NETWORK, params, batch) / count.astype(np.float32)

    return jax.jit(jax.value_and_grad(loss))


def naive_loss(examples: list[Example]) -> float:
    """-1/N sum_t log p(y_t | y_<t), of each conversation by itself."""
    total, count = 0.0, 0
    for each in examples:
        logits = np.asarray(all_logits(pad([each.tokens.tolist()], LONGEST, 0))[0], np.float64)
        for t in each.targets:
            row = logits[t - 1]
            total += row[each.tokens[t]] - np.log(np.sum(np.exp(row - row.max()))) - row.max()
            count += 1
    return -total / count


@jax.jit
def all_logits(inputs: Tokens) -> jax.Array:
    assert NETWORK.read is not None
    return NETWORK.logits(PARAMS, NETWORK.read(PARAMS, inputs))


def test_the_loss_is_that_of_a_loop() -> None:
    examples = [example(seed, length) for seed, length in enumerate((2, 5, 12, 7, 3, 9, 12, 4))]
    expected = naive_loss(examples)
    for batch in (layout(1)(examples), layout(2, packs=2)(examples), unpacked(layout(2)(examples))):
        found, _ = loss_and_gradient()(PARAMS, batch)
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.extended
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(2, LONGEST), min_size=ROWS, max_size=ROWS), st.integers(0, 1000))
def test_packed_conversations_are_learnt_as_padded_ones(lengths: list[int], seed: int) -> None:
    batch = layout(1, packs=2)([example(seed + n, length) for n, length in enumerate(lengths)])
    (loss, gradient), (expected, wanted) = (loss_and_gradient()(PARAMS, each) for each in (batch, unpacked(batch)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, wanted)


def test_a_conversation_does_not_see_the_others() -> None:
    one, other = example(0, 9), example(1, 12)
    log_probs = jax.jit(partial(instruction.response_log_probs, NETWORK))
    together, alone = (log_probs(PARAMS, *layout(1)(examples)) for examples in ([one, other], [one]))
    count = len(one.targets)
    np.testing.assert_allclose(together[0, :count], alone[0, :count], rtol=1e-5, atol=1e-6)


def trained(parts: int, devices: int = 1, groups: int = 2):
    recipe = InstructionRecipe(NETWORK, optax.sgd(0.1), parts)
    examples = [example(seed, length) for seed, length in enumerate((2, 5, 12, 7, 3, 9, 12, 4))]
    batch = layout(groups, packs=parts * devices, parts=parts)(examples)
    state = training.init(recipe, jax.tree.map(jnp.array, PARAMS), jax.random.key(0))
    return jax.jit(partial(instruction.train_step, recipe))(state, batch)


@pytest.mark.extended
def test_microbatches_are_the_batch() -> None:
    """Every token counts alike, however many others are in its microbatch."""
    (whole, metrics), (parts, of_parts) = trained(1), trained(2, devices=2)
    np.testing.assert_allclose(of_parts.loss, metrics.loss, rtol=1e-5)
    np.testing.assert_allclose(of_parts.grad_norm, metrics.grad_norm, rtol=1e-4)
    assert int(of_parts.response_tokens) == int(metrics.response_tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts.params, whole.params)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    recipe = InstructionRecipe(NETWORK, optax.sgd(0.1))
    params = jax.tree.map(jnp.array, PARAMS)
    params["norm"]["scale"] = params["norm"]["scale"].at[0].set(jnp.nan)
    state = training.init(recipe, params, jax.random.key(0))
    after, metrics = jax.jit(partial(instruction.train_step, recipe))(state, layout(1)([example(0, 5)]))
    assert int(metrics.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, params)


def test_a_network_with_an_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="give a language model"):
        instruction.response_log_probs(NETWORK._replace(read=None), PARAMS, layout(1)([example(0, 5)])[0])


def test_nearly_all_batches_have_the_usual_shapes() -> None:
    draw = np.random.default_rng(0)
    examples = [example(n, int(length)) for n, length in enumerate(draw.gamma(4.0, 10.0, 200).astype(int) + 2)]
    config = InstructionConfig(Data(), Generator("x", max_length=512), batch_size=16)
    usual = usual_layout(config, examples)
    batches = [usual([examples[i] for i in draw.integers(200, size=16)]) for _ in range(60)]
    shapes = [str([leaf.shape for leaf in jax.tree.leaves(batch)]) for batch in batches]
    assert len(set(shapes)) <= 2, "the usual ones, or twice as large"
    assert max(shapes.count(shape) for shape in shapes) >= 50
    longer = [example(n, 300) for n in range(16)]
    assert max(group.inputs.inputs.ids.shape[1] for group in usual(longer)) <= 512  # pyright: ignore
