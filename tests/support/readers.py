"""Generators whose language models are known, and what each of them has read: what the tests of decoding decode.

`BARTS` and `T5S` are random networks, decoded again from scratch at every token. `HISTORIES` are tables, by a hash of
all tokens so far: whatever a token sees beside its own beginning, or misses of it, gives it other followers. `CHAINS`
know the last word only, and can be written by hand.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import naive
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.models import bart, registry, t5
from rag_jax.models.architecture import GeneratorConfig
from rag_jax.types import Generator, Params, Tokens

B, K = 3, 3


class Read(NamedTuple):
    """A prior over passages and what has been read of them, with the parameters of the network that reads."""

    params: Params
    log_prior: np.ndarray  # [B, K]; the last passage of the last question is missing
    memory: Params  # rows B * K


class World(NamedTuple):
    """A generator, how its answers begin and end, and its language models as Python functions."""

    generator: Generator
    limits: GenerationLimits
    words: int  # V
    read: Callable[[int], Read]  # by a seed
    next_probs: Callable[[Read, int], naive.NextProbs]  # of a row


def random_prior(draw: np.random.Generator) -> np.ndarray:
    valid = np.arange(B * K).reshape(B, K) < B * K - 1
    with np.errstate(divide="ignore"):
        return np.log(naive.doc_prior(draw.standard_normal((B, K)), valid)).astype(np.float32)


class Question(NamedTuple):
    """What is known of one question, as numbers and Python functions."""

    prior: np.ndarray  # [K]
    models: list[naive.NextProbs]  # of its passages
    start: tuple[int, ...]


def question(world: World, seen: Read, b: int) -> Question:
    k = seen.log_prior.shape[1]
    models = [world.next_probs(seen, b * k + each) for each in range(k)]
    return Question(np.exp(seen.log_prior[b].astype(np.float64)), models, world.limits.decoder_start)


# Random networks.


def bart_world(words: int, limits: GenerationLimits) -> World:
    config = bart.BartConfig(
        vocab_size=words, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=16, max_positions=24
    )
    return network_world(config, limits)


def t5_world(words: int, limits: GenerationLimits) -> World:
    """Each of the first distances has a bias of its own, and answers are longer than the largest distance."""
    config = t5.T5Config(
        vocab_size=words, width=16, encoder_layers=1, decoder_layers=1, heads=2, head_width=6, ffn_width=16,
        gated=True, tied_head=False, position_buckets=6, max_distance=5
    )  # fmt: skip
    return network_world(config, limits)


def network_world(config: GeneratorConfig, limits: GenerationLimits) -> World:
    network, words = registry.generator(config), config.vocab_size
    encode = jax.jit(network.encode)

    @jax.jit
    def from_scratch(params, tokens, memory):
        return network.logits(params, network.decode(params, tokens, memory)[0])[0]

    def read(seed: int) -> Read:
        draw = np.random.default_rng(seed)
        params = random_params(draw, config, limits.eos)
        return Read(params, random_prior(draw), encode(params, inputs(draw, words)))

    def next_probs(seen: Read, row: int) -> naive.NextProbs:
        """All tokens so far through the decoder again, without a cache."""
        memory = jax.tree.map(lambda rows: rows[row : row + 1], seen.memory)
        longest = len(limits.decoder_start) + limits.max_length

        @cache
        def after(tokens: tuple[int, ...]) -> np.ndarray:
            unread = (words - 1,) * (longest - len(tokens))  # stands after the tokens, for one shape throughout
            logits = from_scratch(seen.params, np.array([tokens + unread], np.int32), memory)
            return naive.softmax(np.array(logits)[len(tokens) - 1])

        return lambda tokens: after(tuple(tokens))

    return World(network, limits, words, read, next_probs)


def inputs(draw: np.random.Generator, words: int, size: int = 6) -> Tokens:
    ids = draw.integers(0, words, (B * K, size)).astype(np.int32)
    return Tokens(ids, draw.integers(2, size + 1, B * K).astype(np.int32))


def random_params(draw: np.random.Generator, config: GeneratorConfig, eos: int) -> Params:
    """Layers strong enough not to echo the last word, and some inclination to end: answers early and late."""
    shapes = jax.eval_shape(partial(registry.generator_of(config).init, config), jax.random.key(0))

    # Unscaled scores are larger; so are rounding errors, where a softmax is nearly hard.
    kernel = 1.0 if "final_logits_bias" in shapes else 0.5

    def leaf(path, shape):
        drawn = draw.standard_normal(shape.shape).astype(np.float32)
        if path[-1].key == "scale":
            return np.ones_like(drawn)
        return drawn * {"embedding": 0.5, "bias": 0.1}.get(path[-1].key, kernel)

    params = jax.tree_util.tree_map_with_path(leaf, shapes)
    if "final_logits_bias" not in params:
        return jax.device_put(params)
    bias = 2.0 * (np.arange(config.vocab_size) == eos).astype(np.float32)
    return jax.device_put(params | {"final_logits_bias": bias})


# Tables, by all words so far or by the last one.

INPUTS, HASHES = 31, 97  # inputs that are told apart, and beginnings of answers
WEIGHTS = np.array([pow(31, t, HASHES) for t in range(64)], np.int32)


def history_world(words: int, limits: GenerationLimits) -> World:
    """`params` `[INPUTS, HASHES, V]` holds the logits by a hash of the input and one of the answer so far."""

    def encode(params, inputs, key=None):
        terms = (inputs.ids + 1) * jnp.asarray(WEIGHTS)[None, : inputs.ids.shape[1]]
        return jnp.sum(jnp.where(inputs.mask, terms, 0), axis=1) % INPUTS

    def decode(params, decoder_inputs, memory, cache=None, place=None, key=None):
        rows, length = decoder_inputs.shape
        terms, filled = empty_cache(rows, length) if cache is None else cache
        position = (filled + jnp.arange(length))[None, :]
        visible = (jnp.arange(terms.shape[1])[None, :] <= position[0][:, None])[None, :, :]
        if place is not None:
            position, visible = place
        new = (decoder_inputs + 1) * jnp.asarray(WEIGHTS)[position]
        terms = jax.lax.dynamic_update_slice_in_dim(terms, new, filled, axis=1)
        state = jnp.sum(jnp.where(visible, terms[:, None, :], 0), axis=2) % HASHES
        return jnp.stack([jnp.broadcast_to(memory[:, None], state.shape), state], axis=2).astype(jnp.float32), (
            terms,
            filled + length,
        )

    def logits(params, states):
        number, state = (states[:, :, i].astype(jnp.int32) for i in range(2))
        return params[number, state]

    def empty_cache(rows, slots):
        return jnp.zeros((rows, slots), jnp.int32), jnp.int32(0)

    def read(seed: int) -> Read:
        draw = np.random.default_rng(seed)
        tables = 1.5 * draw.standard_normal((INPUTS, HASHES, words)).astype(np.float32)
        return Read(tables, random_prior(draw), draw.choice(INPUTS, B * K, replace=False).astype(np.int32))

    def next_probs(seen: Read, row: int) -> naive.NextProbs:
        table = seen.params[seen.memory[row]]
        return lambda tokens: naive.softmax(table[hash_of(tokens)])

    return World(Generator(encode, decode, logits, empty_cache), limits, words, read, next_probs)


def hash_of(tokens: Sequence[int]) -> int:
    return sum((token + 1) * 31**t for t, token in enumerate(tokens)) % HASHES


def chain_world(words: int, limits: GenerationLimits) -> World:
    """`params` `[X, V, V]` holds what follows each word in each passage; its first token is its number."""

    def encode(params, inputs, key=None):
        return inputs.ids[:, 0]

    def follow(params, decoder_inputs, memory, cache=None, place=None, key=None):
        return jnp.log(params[memory[:, None], decoder_inputs]), cache

    def read(seed: int) -> Read:
        draw = np.random.default_rng(seed)
        tables = draw.dirichlet(np.ones(words), (B * K, words)).astype(np.float32)
        return Read(tables, random_prior(draw), np.arange(B * K, dtype=np.int32))

    def next_probs(seen: Read, row: int) -> naive.NextProbs:
        table = seen.params[seen.memory[row]].astype(np.float64)
        return lambda tokens: table[tokens[-1]] / table[tokens[-1]].sum()

    return World(
        Generator(encode, follow, lambda params, states: states, lambda rows, slots: ()),
        limits,
        words,
        read,
        next_probs,
    )


END, START, CAT, DOG, COW = range(5)


def chain(first: dict[int, float], after: dict[int, dict[int, float]] | None = None) -> np.ndarray:
    """A passage's words after START, and what follows each word (default: the end)."""
    table = np.full((5, 5), 1e-12, np.float32)
    table[:, END] = 1.0
    for word, followers in {START: first, **(after or {})}.items():
        table[word] = 1e-12
        table[word, list(followers)] = list(followers.values())
    return table


def of_chains(passages: Sequence[np.ndarray], prior: Sequence[float]) -> Read:
    """One question whose passages are chains."""
    with np.errstate(divide="ignore"):
        log_prior = np.log(np.array([prior], np.float32))
    return Read(np.stack(passages), log_prior, np.arange(len(passages), dtype=np.int32))


BARTS = bart_world(12, GenerationLimits((2, 0), 2, 5))
T5S = t5_world(12, GenerationLimits((2, 0), 2, 5))
NETWORKS = {"bart": BARTS, "t5": T5S}
HISTORIES = history_world(6, GenerationLimits((2, 0), 2, 5))
CHAINS = chain_world(5, GenerationLimits((START,), END, 3))
SEEDS = [0, 1, 3]
