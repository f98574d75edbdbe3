"""Decoding against loops that start from scratch at every token."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from rag_jax.core import decoding
from rag_jax.core.decoding import Decoded, Limits
from rag_jax.models import bart
from rag_jax.types import Generator, Knowledge, Networks, RagParams, Tokens

cases = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
NAIVE = {"token": naive.rag_token_greedy, "sequence": naive.rag_sequence_greedy}
models = pytest.mark.parametrize("model", list(NAIVE))


# The loop, on language models made by hand.


def table_step(tokens, state):
    """A Markov chain of its own for every row: `state` holds log-probabilities [R, V, V] and is not changed."""
    return jnp.take_along_axis(state, tokens[:, -1][:, None, None], axis=1)[:, 0], state


def history_step(tokens, state):
    """The next token depends on all before it, each of which must pass through here once and in order."""
    tables, seen = state
    for t in range(tokens.shape[1]):
        seen = (seen * 31 + tokens[:, t]) % tables.shape[1]
    return jnp.take_along_axis(tables, seen[:, None, None], axis=1)[:, 0], (tables, seen)


def tables(seed: int, rows: int, entries: int, words: int) -> np.ndarray:
    """Probabilities of the next word; each row ends sooner or later."""
    return np.random.default_rng(seed).dirichlet(np.ones(words), (rows, entries)).astype(np.float32)


@partial(jax.jit, static_argnums=(0, 2))
def _run(step, state, limits):
    return decoding.greedy(step, state, 3, limits)


def run(step, state, limits) -> np.ndarray:
    return jax.device_get(_run(step, state, limits))


_until_end = jax.jit(decoding.until_end, static_argnums=1)


def filled(answer: list[int], limits: Limits) -> list[int]:
    return answer + [limits.eos] * (limits.max_length - len(answer))


@pytest.mark.parametrize("limits", [Limits((1,), 0, 8), Limits((2, 1), 3, 5), Limits((1,), 0, 1)])
@cases
@given(seed=seeds)
def test_greedy_is_the_naive_loop_filled_up_with_the_end_token(limits, seed):
    chains = tables(seed, 3, 5, 5)
    tokens = run(table_step, np.log(chains), limits)
    for row, chain in zip(tokens, chains, strict=True):
        answer = naive.greedy(lambda seen, chain=chain: chain[seen[-1]], limits.prefix, limits.eos, limits.max_length)
        assert row.tolist() == filled(answer, limits)


@pytest.mark.parametrize("prefix", [(1,), (4, 2, 1)])
@cases
@given(seed=seeds)
def test_every_token_passes_through_the_step_once_and_in_order(prefix, seed):
    by_history, limits = tables(seed, 3, 97, 5), Limits(prefix, 0, 8)
    tokens = run(history_step, (np.log(by_history), np.zeros(3, np.int32)), limits)
    for row, table in zip(tokens, by_history, strict=True):

        def next_probs(seen, table=table):
            place = 0
            for token in seen:
                place = (place * 31 + token) % len(table)
            return table[place]

        assert row.tolist() == filled(naive.greedy(next_probs, prefix, 0, 8), limits)


def test_the_loop_stops_with_the_longest_answer():
    counts_down = np.full((2, 6, 6), -9.0, np.float32)
    counts_down[:, np.arange(1, 6), np.arange(5)] = 0.0  # after 5 comes 4, and so on to 0, the end
    counts_down[1, 5, 4], counts_down[1, 5, 1] = -9.0, 0.0  # the second row jumps to 1
    steps = []

    def counted(tokens, state):
        steps.append(tokens.shape)
        return table_step(tokens, state)

    with jax.disable_jit():
        tokens = decoding.greedy(counted, jnp.array(counts_down), 2, Limits((5,), 0, 20))
    assert tokens[:, :6].tolist() == [[4, 3, 2, 1, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert len(steps) == 5


@cases
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=2, max_size=2))
def test_until_end_is_true_up_to_and_including_the_first_end_token(rows):
    mask = jax.device_get(_until_end(np.array(rows, np.int32), 2))
    for row, kept in zip(rows, mask, strict=True):
        length = len(naive.until_end(row, 2))
        assert kept.tolist() == [t < length for t in range(6)]


# Both decoders, on small random BARTs.

B, K, S, V = 3, 3, 6, 12
LIMITS = Limits((2, 0), 2, 5)
CONFIG = bart.BartConfig(
    vocab_size=V, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=32, max_positions=16
)
BART = bart.generator(CONFIG)
encode = jax.jit(BART.encode)


class Read(NamedTuple):
    """A prior over passages and what has been read of them, with the network that reads."""

    params: dict
    log_prior: np.ndarray  # [B, K]; the last passage of the last question is missing
    memory: bart.Memory  # rows B * K


def random_params(draw: np.random.Generator) -> dict:
    """Layers strong enough not to echo the last word, and some inclination to end: answers early and late."""
    shapes = jax.eval_shape(partial(bart.init, CONFIG), jax.random.key(0))

    def leaf(path, shape):
        drawn = draw.standard_normal(shape.shape).astype(np.float32)
        if path[-1].key == "scale":
            return np.ones_like(drawn)
        return drawn * {"embedding": 0.5, "bias": 0.1}.get(path[-1].key, 1.0)

    params = jax.tree_util.tree_map_with_path(leaf, shapes)
    return params | {"final_logits_bias": 2.0 * (np.arange(V) == LIMITS.eos).astype(np.float32)}


def read(seed: int) -> Read:
    draw = np.random.default_rng(seed)
    params = random_params(draw)
    ids = draw.integers(3, V, (B * K, S)).astype(np.int32)
    lengths = draw.integers(2, S + 1, B * K).astype(np.int32)
    valid = np.arange(B * K).reshape(B, K) < B * K - 1
    with np.errstate(divide="ignore"):
        prior = np.log(naive.doc_prior(draw.standard_normal((B, K)), valid)).astype(np.float32)
    return Read(params, prior, jax.device_get(encode(params, Tokens(jnp.array(ids), jnp.array(lengths)))))


_decode = jax.jit(
    lambda model, generator, limits, *read: decoding.DECODERS[model](generator, *read, limits), static_argnums=(0, 1, 2)
)


def decode(model: str, seen: Read, generator: Generator = BART, limits: Limits = LIMITS) -> Decoded:
    return jax.device_get(_decode(model, generator, limits, *seen))


@jax.jit
def logits_everywhere(params, tokens, memory):
    return BART.decode(params, tokens, memory)[0][0]


def language_models(seen: Read, b: int) -> list[naive.NextProbs]:
    """One for each passage: all tokens so far through the decoder again, one row at a time and without a cache."""
    longest = len(LIMITS.prefix) + LIMITS.max_length

    def of_passage(row: int) -> naive.NextProbs:
        memory = jax.tree.map(lambda rows: rows[row : row + 1], seen.memory)

        def next_probs(tokens: list[int]) -> np.ndarray:
            unread = [V - 1] * (longest - len(tokens))  # stands after the tokens, for one shape throughout
            logits = logits_everywhere(seen.params, np.array([tokens + unread], np.int32), memory)
            return naive.softmax(np.array(logits)[len(tokens) - 1])

        return next_probs

    return [of_passage(b * K + k) for k in range(K)]


SEEDS = [0, 1, 3]
random_models = pytest.mark.parametrize("seed", SEEDS)


@models
@random_models
def test_the_answer_is_that_of_decoding_from_scratch_at_every_token(model, seed):
    seen = read(seed)
    decoded = decode(model, seen)
    for b, prior in enumerate(np.exp(seen.log_prior.astype(np.float64))):
        answer = NAIVE[model](prior, language_models(seen, b), LIMITS.prefix, LIMITS.eos, LIMITS.max_length)
        assert decoded.tokens[b].tolist() == filled(answer, LIMITS)
        assert decoded.mask[b].tolist() == [t < len(answer) for t in range(LIMITS.max_length)]


@models
def test_the_random_models_answer_at_different_lengths_and_with_different_words(model):
    answers = [decode(model, read(seed)) for seed in SEEDS]
    assert len({length for each in answers for length in each.mask.sum(axis=1).tolist()}) > 1
    assert len({word for each in answers for word in each.tokens.flatten().tolist()}) > 4


@models
@random_models
def test_likelihood_and_posteriors_are_the_papers_for_the_returned_tokens(model, seed):
    seen = read(seed)
    decoded = decode(model, seen)
    for b, prior in enumerate(np.exp(seen.log_prior.astype(np.float64))):
        answer = naive.until_end(decoded.tokens[b].tolist(), LIMITS.eos)
        probs = naive.teacher_forced(language_models(seen, b), answer, LIMITS.prefix)[None]
        told = prior[None], probs, np.array([answer]), np.ones((1, len(answer)), bool)
        if model == "token":
            log_prob, per_token = naive.rag_token(*told)[0], naive.token_posterior(*told)[0]
            posterior = np.mean(per_token, axis=1)
        else:
            log_prob, posterior = naive.rag_sequence(*told)[0], naive.sequence_posterior(*told)[0]
            per_token = np.repeat(posterior[:, None], len(answer), axis=1)
        close(decoded.log_prob[b], log_prob)
        close(decoded.doc_posterior[b], posterior)
        close(decoded.token_doc_posterior[b][:, : len(answer)], per_token)
        assert not np.any(decoded.token_doc_posterior[b][:, len(answer) :])


@models
@random_models
def test_an_answer_does_not_depend_on_the_questions_beside_it(model, seed):
    seen = read(seed)
    other_log_prior, other_memory = seen.log_prior[::-1].copy(), jax.tree.map(lambda rows: rows[::-1], seen.memory)
    together = decode(model, seen)
    for b in range(B):
        own = np.arange(B) == b
        log_prior = np.where(own[:, None], seen.log_prior, other_log_prior)
        memory = jax.tree.map(
            lambda one, other, own=own: np.where(np.repeat(own, K).reshape(-1, *(1,) * (one.ndim - 1)), one, other),
            seen.memory,
            other_memory,
        )
        beside_others = decode(model, Read(seen.params, log_prior, memory))
        assert together.tokens[b].tolist() == beside_others.tokens[b].tolist()
        for one, other in zip(together, beside_others, strict=True):
            np.testing.assert_allclose(one[b], other[b], rtol=1e-6, atol=1e-7)


# Both decoders, on passages that are Markov chains.

END, START, CAT, DOG, COW = range(5)


def chains() -> Generator:
    """`params` holds one chain per passage, [X, V, V]; a passage's first token is its number."""

    def encode(params, inputs, key=None):
        return inputs.ids[:, 0]

    def say(params, decoder_inputs, memory, cache=None, key=None):
        return jnp.log(params[memory[:, None], decoder_inputs]), cache

    return Generator(encode, say, lambda rows, length: ())


CHAINS = chains()


def chain(first: dict[int, float], after: dict[int, dict[int, float]] | None = None) -> np.ndarray:
    """A passage's words after START, and what follows each word (default: the end)."""
    table = np.full((5, 5), 1e-12, np.float32)
    table[:, END] = 1.0
    for word, followers in {START: first, **(after or {})}.items():
        table[word] = 1e-12
        table[word, list(followers)] = list(followers.values())
    return table


def answers(model: str, passages: list[np.ndarray], prior: list[float]) -> Decoded:
    with np.errstate(divide="ignore"):
        log_prior = np.log(np.array([prior], np.float32))
    memory = np.arange(len(passages), dtype=np.int32)
    return decode(model, Read(np.stack(passages), log_prior, memory), CHAINS, Limits((START,), END, 3))


CATS, DOGS = chain({CAT: 0.6, COW: 0.4}), chain({DOG: 0.6, COW: 0.4})


def test_rag_token_says_what_is_likeliest_over_all_passages_though_none_prefers_it():
    decoded = answers("token", [CATS, DOGS, DOGS], [0.5, 0.2, 0.3])
    assert decoded.tokens[0].tolist() == [COW, END, END]
    close(np.exp(decoded.log_prob), [0.4])


def test_rag_sequence_says_what_one_passage_proposed_and_all_support():
    decoded = answers("sequence", [CATS, DOGS, chain({COW: 1.0})], [0.4, 0.4, 0.2])
    assert decoded.tokens[0].tolist() == [COW, END, END]
    close(np.exp(decoded.log_prob), [0.4 * 0.4 + 0.4 * 0.4 + 0.2])


def test_rag_sequence_gives_a_proposal_the_support_of_the_other_passages():
    cats = chain({CAT: 0.5, DOG: 0.4, COW: 0.1}, {CAT: {END: 0.3, DOG: 0.3, COW: 0.4}})
    decoded = answers("sequence", [cats, DOGS, DOGS], [0.7, 0.1, 0.2])
    assert decoded.tokens[0].tolist() == [DOG, END, END]
    close(np.exp(decoded.log_prob), [0.7 * 0.4 + 0.3 * 0.6])


@models
def test_a_missing_passage_proposes_nothing(model):
    lonely = chain({DOG: 0.6, COW: 0.4}, {DOG: {END: 0.25, CAT: 0.25, DOG: 0.25, COW: 0.25}})
    missing = chain({COW: 1.0})  # its proposal would be likelier: 0.4 against 0.6 * 0.25
    decoded = answers(model, [missing, lonely, lonely], [0.0, 0.5, 0.5])
    assert decoded.tokens[0, 0] == DOG
    close(decoded.doc_posterior, [[0.0, 0.5, 0.5]])


# Questions to answers in one program.


def embed(params, tokens, key=None):
    """A question's vector is its first token's."""
    return params[tokens.ids[:, 0]]


def question_tokens(first: list[int], width: int) -> Tokens:
    ids = np.zeros((len(first), width), np.int32)
    ids[:, 0] = first
    return Tokens(ids, np.ones(len(first), np.int32))


def chain_knowledge(order: list[int]) -> Knowledge:
    """Passage n answers question `order[n]`, and its first token is its number."""
    count = len(order)
    ids = np.arange(count, dtype=np.int32)[:, None] * np.ones((1, 2), np.int32)
    return Knowledge(np.eye(count, dtype=np.float32)[order], Tokens(ids, np.full(count, 2, np.int32)))


WORDS = [chain({word: 1.0}) for word in (CAT, DOG, COW)]
SHARP = RagParams(20 * np.eye(3, dtype=np.float32), np.stack(WORDS))


def answer_with(tower, model):
    fixed = {"decoder": decoding.DECODERS[model], "limits": Limits((START,), END, 3), "num_docs": 2, "max_length": 4}
    return jax.jit(partial(decoding.answer, Networks(tower, CHAINS), **fixed))


def test_the_answer_is_what_the_best_passage_says():
    answer = answer_with(embed, "sequence")
    order = [2, 0, 1]
    answered = answer(SHARP, chain_knowledge(order), question_tokens([0, 1, 2], 3), question_tokens([0, 0, 0], 2))
    assert answered.retrieved.ids[:, 0].tolist() == [order.index(question) for question in range(3)]
    assert answered.decoded.tokens[:, 0].tolist() == [DOG, COW, CAT]
    close(np.exp(answered.doc_log_prior), naive.doc_prior(np.array(answered.retrieved.scores)))


def test_every_bucket_is_compiled_once_whatever_the_knowledge():
    compiled = []

    def counted(params, tokens, key=None):
        compiled.append(tokens.ids.shape)
        return embed(params, tokens, key)

    answer = answer_with(counted, "token")
    prompt = question_tokens([0, 0], 2)
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        answered = answer(SHARP, chain_knowledge(order), question_tokens([0, 1], 3), prompt)
        assert answered.decoded.tokens[:, 0].tolist() == [[CAT, DOG, COW][order.index(q)] for q in (0, 1)]
    assert compiled == [(2, 3)]
    answer(SHARP, chain_knowledge([0, 1, 2]), question_tokens([2, 1], 5), prompt)
    assert compiled == [(2, 3), (2, 5)]
