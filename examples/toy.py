"""A world small enough to learn in seconds: 64 passages of a key and a value; a question names the key of one."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rag_jax.core import optimizers, training
from rag_jax.types import Batch, Generator, Knowledge, Networks, PackedInputs, RagParams, Tokens

PAD, START, EOS, ASK = range(4)
N, WIDTH = 64, 32  # passages; the networks' width
KEYS, VALUES = jnp.arange(4, 4 + N), jnp.arange(4 + N, 4 + 2 * N)
VOCABULARY = 4 + 2 * N


def embed(params: dict, tokens: Tokens) -> Float[Array, "R D"]:
    """The mean of the tokens' embeddings."""
    weights = tokens.mask.astype(jnp.float32) / jnp.maximum(tokens.lengths, 1).astype(jnp.float32)[:, None]
    return jnp.einsum("RL,RLD->RD", weights, params["embedding"][tokens.ids])


def tower(params: dict, tokens: Tokens, key=None) -> Float[Array, "B D"]:
    """q(x): the mean embedding of the question."""
    return embed(params, tokens)


def encode(params: dict, inputs, key=None) -> Float[Array, "R width"]:
    """The mean embedding of what is read; training may give packed inputs."""
    return embed(params, inputs.inputs if isinstance(inputs, PackedInputs) else inputs)


def decode(params: dict, decoder_inputs: Int[Array, "R T"], encoded, cache=None, positions=None, key=None):
    """The state after each token; the last token and what was read are enough, so nothing is cached."""
    return jnp.tanh((encoded[:, None] + params["embedding"][decoder_inputs]) @ params["hidden"]), ()


def logits(params: dict, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]:
    return states @ params["output"]


OPTIMIZER = optimizers.rag(optax.adam(0.01), optax.adam(0.02), clip=1.0)  # of the tower, of the generator
NETWORKS = Networks(tower, Generator(encode, decode, logits, lambda rows, slots: ()))


def init(key) -> RagParams:
    """Random parameters; the question tower begins as a noisy copy of what made the passages' vectors."""
    keys = jax.random.split(key, 5)
    shapes = {"embedding": (VOCABULARY, WIDTH), "hidden": (WIDTH, WIDTH), "output": (WIDTH, VOCABULARY)}
    generator = {name: jax.random.normal(k, shape) / 4 for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
    noise = 0.8 * jax.random.normal(keys[3], (VOCABULARY, WIDTH))
    return RagParams({"embedding": passage_embedding() + noise}, generator)


def passage_embedding() -> Float[Array, "V D"]:
    """The frozen passage tower's."""
    return 0.4 * jax.random.normal(jax.random.key(1), (VOCABULARY, WIDTH))


def knowledge(key) -> Knowledge:
    """Passage i is `key_i value`, and its vector that of `key_i`. The values are shuffled: only reading helps."""
    tokens = Tokens(jnp.stack([KEYS, jax.random.permutation(key, VALUES)], axis=1), jnp.full(N, 2))
    return Knowledge(passage_embedding()[KEYS], tokens)


def batch(key, knowledge: Knowledge, size: int = 64) -> tuple[Batch, Int[Array, "B 1"]]:
    """Random questions with their answers, and the rows of their gold passages."""
    rows = jax.random.randint(key, (size,), 0, N)
    answers, ends = knowledge.passage_tokens.ids[rows, 1], jnp.full(size, EOS)
    question = Tokens(KEYS[rows][:, None], jnp.ones(size, jnp.int32))
    prompt = Tokens(jnp.full((size, 1), ASK), jnp.ones(size, jnp.int32))
    decoder_inputs = jnp.stack([jnp.full(size, START), answers], axis=1)
    targets = jnp.stack([answers, ends], axis=1)
    return Batch(question, prompt, decoder_inputs, targets, jnp.ones(targets.shape, bool)), rows[:, None]


def train(recipe, params: RagParams, steps: int = 200) -> tuple[RagParams, float]:
    """A training loop in seven lines; prints what it reaches, returns the parameters and the last loss."""
    step = jax.jit(partial(training.train_step, recipe))
    state = training.init(recipe, params, jax.random.key(1))
    for number in range(steps):
        key = jax.random.key(number)
        state, metrics = step(state, passages := knowledge(key), *batch(key, passages))
        if number % 100 == 0 or number == steps - 1:
            print(f"step {number}: loss {float(metrics.loss):.3f}, recall@K {float(metrics.recall):.2f}")
    return state.params, float(metrics.loss)
