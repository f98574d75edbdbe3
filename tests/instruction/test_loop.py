"""The likelihood of held-out responses: that of each by itself, however training splits its batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import instruction_runs
from rag_jax.config.config import Compute
from rag_jax.data.chats import Example
from rag_jax.instruction import run
from rag_jax.instruction.examples import Reader
from rag_jax.instruction.loop import Run
from rag_jax.types import Tokens


def naive(found: Run, params, examples: list[Example]) -> float:
    """-1/N sum_t log p(y_t | y_<t), read one by one without packing."""
    log_probs: list[float] = []
    for each in examples:
        tokens = Tokens(jnp.asarray(each.tokens[None]), jnp.asarray([len(each.tokens)]))
        states = found.network.read(params, tokens, None)  # pyright: ignore
        rows = np.asarray(jax.nn.log_softmax(found.network.logits(params, states)[0]))
        log_probs += [rows[t - 1, each.tokens[t]] for t in each.targets]
    return -float(np.mean(log_probs))


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_it_does_not_depend_on_the_microbatches_of_training(tmp_path, accumulate: int) -> None:
    config = instruction_runs.config(tmp_path, batch_size=8, length_groups=1)
    found = run.load(dataclasses.replace(config, compute=Compute(accumulate=accumulate)))
    examples = Reader(found.config, found.generator).read(tmp_path / "train.jsonl", held_out=True)
    examples = [variants[0] for variants in examples.items][:11]  # the second batch is filled up
    params = found.with_adapters(found.generator.params)
    expected = naive(found, params, examples)
    assert found.negative_log_likelihood(params, examples) == pytest.approx(expected, rel=1e-5)
