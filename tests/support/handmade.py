"""Networks small enough to know their gradients, and training steps with them: for tests of what a step is made of."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import naive
from rag_jax.core import losses, packing, scoring, training
from rag_jax.core.reading import InputLayout
from rag_jax.core.variants import VARIANTS
from rag_jax.types import Batch, Generator, Knowledge, Networks, PackedInputs, RagParams, Tokens

B, K, N, D, V, T = 3, 3, 12, 4, 11, 4
OBJECTIVES = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
models = pytest.mark.parametrize("model", list(OBJECTIVES))


def bag_of_words(embedding, tokens, key=None):
    """The mean of the tokens' embeddings."""
    weights = tokens.mask.astype(jnp.float32) / tokens.lengths[:, None].astype(jnp.float32)
    return jnp.einsum("RL,RLD->RD", weights, embedding[tokens.ids])


def noisy_bag_of_words(embedding, tokens, key=None):
    """The same with dropout of a kind: noise wherever there is a key."""
    mean = bag_of_words(embedding, tokens)
    return mean if key is None else mean + jax.random.normal(key, mean.shape)


def read_words(params, inputs, key=None):
    """The same, looked up token by token where inputs are packed."""
    if isinstance(inputs, PackedInputs):
        words = packing.to_rows(inputs, params["word"][packing.to_packs(inputs, inputs.inputs.ids)])
        return jnp.sum(words, axis=1) / inputs.inputs.lengths[:, None].astype(jnp.float32)
    return bag_of_words(params["word"], inputs)


def follow_words(params, decoder_inputs, memory, cache=None, place=None, key=None):
    return jnp.tanh(memory[:, None, :] + params["word"][decoder_inputs]), None


def say_words(params, states):
    return states @ params["out"]


GENERATOR = Generator(read_words, follow_words, say_words, lambda rows, slots: None)


RATE = 0.25
CLIP = 1e-3
DESCENT = optax.sgd(RATE)
CLIPPED = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(1.0))


def recipe(model="token", tower=bag_of_words, optimizer=DESCENT, num_docs=K) -> training.Recipe:
    return training.Recipe(Networks(tower, GENERATOR), OBJECTIVES[model], optimizer, num_docs, InputLayout(8))


def tokens(draw: np.random.Generator, *shape: int) -> Tokens:
    ids = draw.integers(0, V, shape).astype(np.int32)
    lengths = draw.integers(1, shape[-1] + 1, shape[:-1]).astype(np.int32)
    return Tokens(ids, lengths)


def normal(draw: np.random.Generator, *shape: int) -> np.ndarray:
    return draw.standard_normal(shape).astype(np.float32)


def knowledge(seed: int = 0, count: int = N) -> Knowledge:
    draw = np.random.default_rng(seed)
    return Knowledge(normal(draw, count, D), tokens(draw, count, 5))


def batch(seed: int = 1, question_length: int = 4) -> Batch:
    draw = np.random.default_rng(seed)
    target = tokens(draw, B, T)
    inputs = np.roll(target.ids, 1, axis=1)
    inputs[:, 0] = 0
    mask = np.arange(T)[None, :] < target.lengths[:, None]
    return Batch(tokens(draw, B, question_length), tokens(draw, B, 3), inputs, target.ids, mask)


def rag_params() -> RagParams:
    draw = np.random.default_rng(2)
    return RagParams(normal(draw, V, D), {"word": normal(draw, V, D), "out": normal(draw, D, V)})


def start(made_of: training.Recipe) -> training.TrainState:
    return training.init(made_of, rag_params(), jax.random.key(3))


NO_GOLD = np.full((B, 2), -1, np.int32)


@cache
def step(made_of: training.Recipe):
    return jax.jit(partial(training.train_step, made_of))


@cache
def log_likelihood(model: str):
    function = partial(scoring.log_likelihood, likelihood=VARIANTS[model].likelihood, num_docs=K, layout=InputLayout(8))
    return jax.jit(partial(function, Networks(bag_of_words, GENERATOR)))


@cache
def forward():
    return jax.jit(partial(scoring.forward, Networks(bag_of_words, GENERATOR), num_docs=K, layout=InputLayout(8)))


def one_step(made_of: training.Recipe, known: Knowledge | None = None, positives=NO_GOLD):
    """Parameters before and after, and the metrics."""
    state = start(made_of)
    after, metrics = step(made_of)(state, knowledge() if known is None else known, batch(), positives)
    return state.params, *jax.device_get((after.params, metrics))


def difference(before, after):
    return jax.tree.map(lambda old, new: old - new, before, after)


def norm(tree) -> float:
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def seen() -> scoring.Forward:
    """What the first step sees; the same for both models."""
    return jax.device_get(forward()(rag_params(), knowledge(), batch()))


def paper() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first step's marginalisation, as the naive loops take it."""
    return (
        naive.doc_prior(seen().retrieved.scores),
        naive.probabilities(seen().logits),
        batch().targets,
        batch().target_mask,
    )
