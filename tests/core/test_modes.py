"""What training may do without, in steps of networks small enough to know their gradients."""

from functools import partial

import jax
import numpy as np
import pytest

from handmade import (
    B,
    D,
    K,
    bag_of_words,
    batch,
    close,
    knowledge,
    noisy_bag_of_words,
    one_step,
    rag_params,
    recipe,
)
from rag_jax.core import modes
from rag_jax.core.gradient import TrainingBatch, loss_and_gradient
from rag_jax.core.retrieval import LOCAL


def test_a_frozen_tower_stays_while_the_generator_learns():
    before, after, _ = one_step(recipe(tower=modes.frozen(bag_of_words)))
    np.testing.assert_array_equal(after.question_tower, before.question_tower)
    assert np.any(after.generator["word"] != before.generator["word"])


def test_a_frozen_tower_has_no_dropout(key):
    def vectors(tower, key=None):
        return jax.device_get(jax.jit(tower)(rag_params().question_tower, batch().question, key))

    still = vectors(modes.frozen(noisy_bag_of_words), key)
    np.testing.assert_array_equal(still, vectors(bag_of_words))
    assert np.any(vectors(noisy_bag_of_words, key) != still)


def test_an_absent_tower_has_no_opinion_and_learns_nothing():
    before, after, metrics = one_step(recipe(tower=modes.uniform_prior(bag_of_words)))
    np.testing.assert_array_equal(before.question_tower, after.question_tower)
    close(metrics.collapse.prior_entropy, np.log(K))


def test_gold_passages_are_read_in_their_order_and_missing_ones_are_masked():
    positives = np.asarray([[4, 7], [2, -1], [0, 1]], np.int32)
    made_of = recipe()._replace(retrieve=modes.retrieve_gold)
    inputs = TrainingBatch(batch(), positives, None)
    differentiate = jax.jit(partial(loss_and_gradient, made_of))
    stats = differentiate(rag_params(), knowledge(), inputs, jax.random.key(0)).stats
    np.testing.assert_array_equal(stats.rows, [[4, 7, -1], [2, -1, -1], [0, 1, -1]])
    np.testing.assert_array_equal(np.isfinite(stats.doc_log_prior), stats.rows >= 0)


def test_gold_passages_are_for_training_only():
    with pytest.raises(ValueError, match="known in training only"):
        modes.retrieve_gold(LOCAL, np.zeros((B, D), np.float32), knowledge(), K, None)
