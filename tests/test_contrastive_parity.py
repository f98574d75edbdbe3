"""DPR's training step against torch and transformers: the same loss and gradients from the same weights.

Two BERTs with CLS vectors, in-batch negatives and one hard negative for each question, without dropout. torch gets the
passages in order, padded to the longest; here they are in two groups, padded by themselves.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from transformers import BertModel

import oracle
from oracle import torch
from rag_jax.core import contrastive, contrastive_training, training
from rag_jax.core.contrastive_training import ContrastiveRecipe
from rag_jax.models import bert
from rag_jax.types import BiEncoderParams, ContrastiveBatch, Params, Tokens

B, M = 4, 8
SHORT, LONG = 5, 9
TOWER = bert.BertConfig(
    vocab_size=40, width=16, layers=1, heads=2, ffn_width=24, max_positions=12, dropout=0.0, attention_dropout=0.0
)


class Step(NamedTuple):
    """One step of SGD with a learning rate of one: what its parameters lost is the gradient."""

    loss: float
    accuracy: float
    gradient: BiEncoderParams


def batch() -> ContrastiveBatch:
    rng = np.random.default_rng(0)
    words = partial(oracle.tokens, rng, vocab=TOWER.vocab_size, pad=oracle.BERT_PAD)
    groups = words(M // 2, SHORT), words(M // 2, LONG)
    place = rng.permutation(M).astype(np.int32)
    return ContrastiveBatch(words(B, SHORT), groups, place, np.ones((B, M), bool))


def passages(given: ContrastiveBatch) -> Tokens:
    """The passages in order, padded to the longest."""
    short, long = given.passages
    ids = np.pad(np.asarray(short.ids), ((0, 0), (0, LONG - SHORT)), constant_values=oracle.BERT_PAD)
    ids = np.concatenate([ids, np.asarray(long.ids)])[given.place]
    return Tokens(ids, np.concatenate([short.lengths, long.lengths])[given.place])


@cache
def towers() -> tuple[tuple[torch.nn.Module, torch.nn.Module], BiEncoderParams]:
    """The question tower and the passage tower."""
    (question, question_params), (passage, passage_params) = (oracle.tower(BertModel, TOWER, seed) for seed in (1, 2))
    return (question, passage), BiEncoderParams(question_params, passage_params)


def vectors(model: torch.nn.Module, tokens: Tokens) -> torch.Tensor:
    """The states of [CLS]."""
    mask = oracle.as_torch(np.asarray(tokens.mask))
    return model(input_ids=oracle.as_torch(np.asarray(tokens.ids)), attention_mask=mask).last_hidden_state[:, 0]


@cache
def their_step() -> Step:
    (question, passage), _ = towers()
    scores = vectors(question, batch().questions) @ vectors(passage, passages(batch())).T
    labels = torch.arange(B)
    loss = torch.nn.functional.cross_entropy(scores, labels)
    loss.backward()
    gradients = (oracle.tower_params(each, TOWER, oracle.gradients(each)) for each in (question, passage))
    return Step(loss.item(), (scores.argmax(dim=1) == labels).float().mean().item(), BiEncoderParams(*gradients))


@cache
def our_step(chunk: int | None) -> Step:
    tower, (_, params) = bert.tower(TOWER), towers()
    recipe = ContrastiveRecipe(tower, tower, contrastive.objective(), optax.sgd(1.0), chunk)
    state = training.init(recipe, params, jax.random.key(0))
    after, metrics = oracle.jit(partial(contrastive_training.train_step, recipe))(state, batch())
    gradient = jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), params, after.params)
    return Step(float(metrics.loss), float(metrics.accuracy), gradient)


chunks = pytest.mark.parametrize("chunk", [None, pytest.param(2, marks=pytest.mark.extended)])


@chunks
def test_the_loss_is_that_of_cross_entropy(chunk):
    np.testing.assert_allclose(our_step(chunk).loss, their_step().loss, rtol=1e-5)
    assert our_step(chunk).accuracy == their_step().accuracy


@chunks
@pytest.mark.parametrize("tower", BiEncoderParams._fields)
def test_every_parameters_gradient_is_that_of_torch(tower, chunk):
    """Norm of the difference over the norm, for each tensor; those that are zero by theory against the whole's norm."""
    ours, expected = flat(getattr(our_step(chunk).gradient, tower)), flat(getattr(their_step().gradient, tower))
    scale = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in expected.values()))
    assert ours.keys() == expected.keys()
    for path, leaf in ours.items():
        error, size = np.linalg.norm(leaf - expected[path]), np.linalg.norm(expected[path])
        if is_zero_by_theory(tower, path):
            assert max(error, size) <= 1e-6 * scale, path
        else:
            assert size > 0, path
            assert error <= 1e-3 * size, path


def is_zero_by_theory(tower: str, path: str) -> bool:
    """A key's bias shifts all attention scores of a query alike; the passages' last bias, all scores of a question."""
    return path.endswith("key/bias") or (tower == "passage_tower" and path == f"layer_{TOWER.layers - 1}/ffn_norm/bias")


def flat(params: Params) -> dict[str, np.ndarray]:
    return flatten_dict(params, sep="/")
