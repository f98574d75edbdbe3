"""Language models made by hand, for the searches: one table for each question, with a row for every history.

The words of an answer lead down a tree in which every history is a node of its own; a table says what may follow at
each. Log-probabilities are multiples of 2 ** -12, so that their sums are exact in float32 and in float64, whatever the
order, and ties are ties in both. A model remembers of a token the node it leads to, which tells the whole answer so
far, and its log-probability.
"""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import naive
from rag_jax.core.decode.search import GenerationLimits, LanguageModel, NextTokens, Prefilled, take
from rag_jax.types import Tokens

END, CAT, DOG = 1, 2, 3  # the end is not zero, which an array may hold by chance


# Tables [questions, nodes, words].


def nodes(words: int, length: int) -> int:
    """The histories of fewer than `length` words."""
    return sum(words**t for t in range(length))


def node(history: Sequence[int], words: int) -> int:
    """Level after level, each in the order of the words."""
    place = 0
    for word in history:
        place = place * words + word + 1
    return place


def on_grid(probs: np.ndarray) -> np.ndarray:
    """The nearest log-probabilities whose sums are exact."""
    with np.errstate(divide="ignore"):
        return (np.round(np.log(probs) * 4096) / 4096).astype(np.float32)


def draw(seed: int, questions: int, words: int, length: int) -> np.ndarray:
    """What follows depends on the whole history; some questions incline to end, some not."""
    rng = np.random.default_rng(seed)
    inclination = np.ones((questions, 1, words))
    inclination[:, 0, END] = rng.choice([0.3, 1.0, 3.0], questions)
    weights = rng.gamma(1.0, size=(questions, nodes(words, length), words)) * inclination + 1e-6
    return on_grid(weights / weights.sum(axis=2, keepdims=True))


def draw_chains(seed: int, questions: int, words: int, length: int) -> np.ndarray:
    """What follows depends on the last word: many answers are equally likely, by the same steps in another order."""
    rng = np.random.default_rng(seed)
    weights = rng.gamma(1.0, size=(questions, words + 1, words)) + 1e-6
    return np.stack([unrolled(each / each.sum(axis=1, keepdims=True), length) for each in weights])


def unrolled(chain: np.ndarray, length: int) -> np.ndarray:
    """A Markov chain `[words + 1, words]`, the last row of which says how answers begin, as a table."""
    last = [-1, *(place % chain.shape[1] for place in range(nodes(chain.shape[1], length) - 1))]
    return on_grid(chain[last])


def chain(words: int, length: int, first: dict[int, float], after: dict[int, dict[int, float]]) -> np.ndarray:
    """The table of a Markov chain in which a word that nothing is said of is followed by the end."""
    probs = np.zeros((words + 1, words))
    probs[:, END] = 1.0
    for word, followers in {words: first, **after}.items():
        probs[word] = [followers.get(each, 0.0) for each in range(words)]
    return unrolled(probs, length)


# The same model for a search, and for a loop.


def model(tables: jax.Array, given: Tokens, limits: GenerationLimits) -> LanguageModel:
    """Each step must be told what it appends to: the state, where each hypothesis stands, is put in order by `origin`.

    What is remembered behind an answer's end is nan.
    """
    count, words = tables.shape[1:]

    def following(at: jax.Array) -> NextTokens:
        log_probs = jnp.take_along_axis(tables, (at % count)[:, :, None], axis=1)  # an answer done goes on anywhere
        leads_to = (at * words + 1)[:, :, None] + jnp.arange(words)[None, None, :]
        return NextTokens(log_probs, jnp.stack([leads_to.astype(jnp.float32), log_probs], axis=1))

    def begin(width: int) -> Prefilled:
        at = jnp.zeros((tables.shape[0], 1), jnp.int32)
        evidence = jnp.full((tables.shape[0], 2, limits.max_length), jnp.nan)
        for t in range(given.ids.shape[1]):
            token, there = given.ids[:, t : t + 1], t < given.lengths
            seen = jnp.take_along_axis(following(at).doc_log_probs[:, :, 0], token[:, None, :], axis=2)[:, :, 0]
            evidence = evidence.at[:, :, t].set(jnp.where(there[:, None], seen, jnp.nan))
            at = jnp.where(there[:, None], at * words + token + 1, at)
        free = limits.max_length - given.ids.shape[1]
        ids = jnp.pad(jnp.where(given.mask, given.ids, limits.eos), ((0, 0), (0, free)), constant_values=limits.eos)
        return Prefilled(Tokens(ids, given.lengths), evidence, following(at), jnp.repeat(at, width, axis=1))

    def step(tokens: jax.Array, origin: jax.Array, state: jax.Array) -> tuple[NextTokens, jax.Array]:
        at = take(state, origin) * words + tokens + 1
        return following(at), at

    return LanguageModel(begin, step)


def next_log_probs(table: np.ndarray) -> naive.NextLogProbs:
    """One question's model as a function of all tokens."""
    return lambda tokens: table[node(tokens, table.shape[1])].astype(np.float64)


def given(*prefixes: Sequence[int]) -> Tokens:
    """What the answers to each question begin with."""
    longest = max(map(len, prefixes))
    ids = [[*prefix, *[END] * (longest - len(prefix))] for prefix in prefixes]
    lengths = np.array([len(prefix) for prefix in prefixes], np.int32)
    return Tokens(np.array(ids, np.int32).reshape(len(prefixes), longest), lengths)


def nothing(questions: int) -> Tokens:
    """No question is given a beginning."""
    return given(*[[]] * questions)


def every_answer(words: int, length: int) -> Iterator[list[int]]:
    """Up to the end token, or as long as allowed."""
    others = [word for word in range(words) if word != END]
    for inner in range(length):
        for beginning in itertools.product(others, repeat=inner):
            yield [*beginning, END]
    yield from map(list, itertools.product(others, repeat=length))


def assert_remembered(table: np.ndarray, answer: Sequence[int], evidence: np.ndarray) -> None:
    """What is remembered `[2, T]` of an answer's tokens: those given, found in their places, and as the model told."""
    answer, words = list(answer), table.shape[1]
    histories = [answer[:t] for t in range(len(answer) + 1)]
    places, log_probs = evidence[:, : len(answer)]
    assert places.tolist() == [node(history, words) for history in histories[1:]]
    told = [next_log_probs(table)(history)[token] for history, token in zip(histories, answer, strict=False)]
    assert log_probs.tolist() == told
