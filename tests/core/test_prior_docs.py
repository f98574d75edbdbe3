"""A prior over more passages than are read, against loops."""

from functools import partial

import jax
import numpy as np
import pytest

import naive
from handmade import GENERATOR as READER
from handmade import (
    NO_GOLD,
    RATE,
    B,
    D,
    K,
    V,
    bag_of_words,
    batch,
    close,
    knowledge,
    models,
    one_step,
    rag_params,
    recipe,
    start,
    step,
)
from rag_jax.core import scoring
from rag_jax.core.reading import InputLayout
from rag_jax.types import Networks, SearchResults

MORE = 7


def seen():
    """The N best passages, as if all were read: rows, the prior over them, and the reader's probabilities."""
    networks = Networks(bag_of_words, READER)
    forward = partial(scoring.forward, networks, num_docs=MORE, layout=InputLayout(8))
    found = jax.device_get(jax.jit(forward)(rag_params(), knowledge(), batch()))
    return found.retrieved.rows, naive.doc_prior(found.retrieved.scores), naive.probabilities(found.logits)


@models
def test_value_and_gradient_are_those_of_the_bound(model):
    rows, prior, probs = seen()
    read = prior[:, :K], probs[:, :K], batch().targets, batch().target_mask
    before, after, metrics = one_step(recipe(model)._replace(prior_docs=MORE))
    log_likelihood = {"token": naive.rag_token, "sequence": naive.rag_sequence}[model](*read)
    close(metrics.loss, -np.sum(log_likelihood) / np.sum(batch().target_mask))

    wanted = np.zeros(prior.shape)  # the derivative of the log-likelihood by each score
    if model == "sequence":
        wanted[:, :K] = naive.sequence_posterior(*read)
        wanted -= prior
    else:
        wanted[:, :K] = np.sum(naive.token_posterior(*read), axis=2)
        wanted -= prior * np.sum(batch().target_mask, axis=1, keepdims=True)
    vectors, question, expected = knowledge().passage_vectors, batch().question, np.zeros((V, D))
    for b in range(B):
        pull = sum(wanted[b, n] * vectors[rows[b, n]] for n in range(MORE)) / B
        for word in question.ids[b, : question.lengths[b]]:
            expected[word] += pull / question.lengths[b]
    close((after.question_tower - before.question_tower) / RATE, expected)


@pytest.mark.parametrize("shift", [1, K])
def test_the_best_are_those_of_the_prior_whatever_the_order_of_the_search(shift):
    """A search by vectors that are not fresh has another one."""
    made_of, rows = recipe()._replace(prior_docs=MORE), np.asarray(seen()[0])
    _, expected, metrics = one_step(made_of, positives=rows[:, :1])
    found = SearchResults(np.roll(rows, shift, axis=1), None)
    state, told = step(made_of)(start(made_of), knowledge(), batch(), rows[:, :1], found)
    jax.tree.map(close, jax.device_get(state.params), expected)
    jax.tree.map(close, jax.device_get(told), metrics)


def test_metrics_are_of_the_passages_that_are_read():
    usual, bound = (one_step(recipe()._replace(prior_docs=given))[2] for given in (None, MORE))
    close(bound.collapse, usual.collapse)
    positives = np.array(NO_GOLD)
    positives[:, 0] = seen()[0][:, K]  # found, but not read
    assert one_step(recipe()._replace(prior_docs=MORE), positives=positives)[2].recall == 0


def test_as_many_as_are_read_are_the_usual_step():
    usual, same = (one_step(recipe()._replace(prior_docs=given)) for given in (None, K))
    jax.tree.map(close, same, usual)


def test_more_than_exist_are_all_of_them():
    few = knowledge(count=K + 1)
    found, more = (one_step(recipe()._replace(prior_docs=count), few) for count in (K + 1, K + 4))
    jax.tree.map(close, more, found)
