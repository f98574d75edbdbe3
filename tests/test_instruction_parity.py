"""Loss and gradient of instruction tuning against transformers' causal language models, `labels=-100` elsewhere."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import chat_models
import oracle
from oracle import torch
from rag_jax.core import instruction
from rag_jax.data.chats import Example
from rag_jax.instruction.batches import Layout, Size
from rag_jax.models import decoder

CONFIGS = {
    "tied": chat_models.SMALL,
    "window": replace(chat_models.SMALL, tied_head=False, window=5, model_type="mistral"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradient_are_those_of_transformers(name: str) -> None:
    config, draw = CONFIGS[name], np.random.default_rng(0)
    model, params = oracle.decoder_generator(config, seed=3)
    examples = []
    for number, length in enumerate((9, 4, 12, 7)):
        chosen = np.sort(draw.choice(length - 1, length // 2, replace=False) + 1).astype(np.int32)
        examples.append(Example(str(number), "", draw.integers(4, 400, length).astype(np.int32), chosen))

    ids, labels = np.zeros((4, 12), np.int64), np.full((4, 12), -100)
    for row, each in enumerate(examples):
        ids[row, : len(each)] = each.tokens
        labels[row, each.targets] = each.tokens[each.targets]
    mask = (np.arange(12) < np.asarray(list(map(len, examples)))[:, None]).astype(np.int64)
    expected = model(torch.tensor(ids), attention_mask=torch.tensor(mask), labels=torch.tensor(labels)).loss
    expected.backward()
    wanted = oracle.any_params(config, oracle.gradients(model))

    network, batch = decoder.generator(config), Layout((Size(12, 12, 12),) * 2, 1, 1, 12)(examples)

    @jax.jit
    @jax.value_and_grad
    def loss(params, batch):
        return -instruction.log_likelihood(network, params, batch) / sum(len(each.targets) for each in examples)

    found, gradient = loss(params, batch)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, wanted)
