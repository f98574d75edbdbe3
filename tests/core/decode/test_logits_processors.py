"""Each rule against transformers' own, one history at a time, and by what it promises.

What is `written` here holds no decoder start; transformers' histories begin with it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
from rag_jax.core.decode import logits_processors, search
from rag_jax.types import Tokens

torch = pytest.importorskip("torch", reason="the oracle")
theirs = pytest.importorskip("transformers.generation.logits_process", reason="the oracle")
cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
B, W, T, V = 4, 2, 8, 6
END, START = 2, 6  # the decoder starts from a token that is no word
starts = st.sampled_from([(START,), (START, 0), (START, 0, 1)])
probability = partial(st.floats, width=32)


def histories(seed: int) -> Tokens:
    """Of every length that is continued, and anything behind their ends; repetitive."""
    draw = np.random.default_rng(seed)
    words = draw.integers(2, V + 1)
    lengths = draw.permuted(np.arange(B * W).reshape(B, W)).astype(np.int32)
    return Tokens(jnp.array(draw.integers(0, words, (B, W, T)).astype(np.int32)), jnp.array(lengths))


def predictions(seed: int) -> jax.Array:
    """Log-probabilities; some tokens are impossible already, never all."""
    draw = np.random.default_rng(seed)
    logits = 3 * draw.standard_normal((B, W, V))
    possible = draw.random((B, W, V)) < 0.9
    possible[:, :, draw.integers(V)] = True
    return jax.nn.log_softmax(jnp.array(np.where(possible, logits, -np.inf).astype(np.float32)), axis=2)


def each(written: Tokens):
    """Every row's place and its history."""
    for b, w in np.ndindex(B, W):
        yield (b, w), written.ids[b, w, : written.lengths[b, w]].tolist()


def assert_same_as(
    processor, rule: search.LogitsProcessor, seed: int, start: tuple[int, ...] = (), rtol: float = 0.0
) -> None:
    written, log_probs = histories(seed), predictions(seed)
    changed = np.array(rule(written, log_probs))
    for place, history in each(written):
        history = torch.tensor([[*start, *history]], dtype=torch.int64)
        expected = processor(history, torch.tensor(np.array(log_probs[place]))[None])
        np.testing.assert_allclose(changed[place], expected[0].numpy(), rtol=rtol)


# The same as transformers'.


@cases
@given(seeds, st.integers(0, T + 1), starts)
def test_min_length_counts_the_answers_tokens_with_the_end_token(seed, length, start):
    processor = theirs.MinLengthLogitsProcessor(length + len(start) - 1, END)  # counts what is before the end token
    assert_same_as(processor, logits_processors.min_length(length, END), seed, start)


@cases
@given(seeds, st.integers(0, V - 1))
def test_forced_bos_is_for_the_first_token_after_the_decoders_start(seed, token):
    assert_same_as(theirs.ForcedBOSTokenLogitsProcessor(token), logits_processors.forced_bos(token), seed, (START,))


@cases
@given(seeds, st.integers(1, T), starts)
def test_forced_eos_is_for_the_last_token_that_has_room(seed, length, start):
    processor = theirs.ForcedEOSTokenLogitsProcessor(length + len(start), END)
    assert_same_as(processor, logits_processors.forced_eos(length, END), seed, start)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@cases
@given(seeds)
def test_no_repeated_ngrams_bans_what_would_repeat_one(n, seed):
    assert_same_as(theirs.NoRepeatNGramLogitsProcessor(n), logits_processors.no_repeat_ngram(n), seed)


def test_ngrams_longer_than_any_answer_ban_nothing():
    log_probs = predictions(0)
    assert logits_processors.no_repeat_ngram(2**31 - 1)(histories(0), log_probs) is log_probs


@pytest.mark.parametrize("n", [2, 3, 4])
@cases
@given(seeds, starts.filter(lambda start: len(start) == 1))
def test_a_start_that_is_no_word_is_in_no_repeated_ngram(n, seed, start):
    assert_same_as(theirs.NoRepeatNGramLogitsProcessor(n), logits_processors.no_repeat_ngram(n), seed, start)


words = st.lists(st.integers(0, V - 1), min_size=1, max_size=3)


@cases
@given(seeds, st.lists(words, min_size=1, max_size=6, unique_by=tuple))
def test_bad_words_bans_the_last_token_of_a_word_that_is_written_so_far(seed, bad):
    assert_same_as(theirs.NoBadWordsLogitsProcessor(bad), logits_processors.bad_words(bad), seed)


@cases
@given(seeds, probability(0.125, 8.0))
def test_temperature_divides_the_log_probabilities(seed, value):
    assert_same_as(theirs.TemperatureLogitsWarper(value), logits_processors.temperature(value), seed, rtol=1e-6)


@cases
@given(seeds, st.integers(1, V + 2))
def test_top_k_keeps_the_most_probable(seed, k):
    assert_same_as(theirs.TopKLogitsWarper(k), logits_processors.top_k(k), seed)


@cases
@given(seeds, probability(0.0, 1.0))
def test_top_p_keeps_what_transformers_keeps(seed, p):
    assert_same_as(theirs.TopPLogitsWarper(p), logits_processors.top_p(p), seed)


@cases
@given(seeds, probability(0.0, 1.0))
def test_min_p_keeps_what_transformers_keeps(seed, p):
    assert_same_as(theirs.MinPLogitsWarper(p), logits_processors.min_p(p), seed)


@cases
@given(seeds)
def test_rules_are_applied_in_order_and_a_forced_token_wins_when_it_comes_last(seed):
    processors = theirs.LogitsProcessorList(
        [
            theirs.NoRepeatNGramLogitsProcessor(1),
            theirs.TemperatureLogitsWarper(0.5),
            theirs.TopKLogitsWarper(4),
            theirs.TopPLogitsWarper(0.8),
            theirs.ForcedEOSTokenLogitsProcessor(T, END),
        ]
    )
    ours = (
        logits_processors.no_repeat_ngram(1),
        logits_processors.temperature(0.5),
        logits_processors.top_k(4),
        logits_processors.top_p(0.8),
        logits_processors.forced_eos(T, END),
    )
    assert_same_as(processors, partial(search.process_logits, ours), seed)


# What they promise.

RULES = {
    "min_length": logits_processors.min_length(5, END),
    "forced_bos": logits_processors.forced_bos(3),
    "forced_eos": logits_processors.forced_eos(T, END),
    "no_repeated_ngrams": logits_processors.no_repeat_ngram(2),
    "bad_words": logits_processors.bad_words([[0], [1, 1], [1, 0, 1]]),
    "temperature": logits_processors.temperature(0.7),
    "top_k": logits_processors.top_k(2),
    "top_p": logits_processors.top_p(0.6),
    "min_p": logits_processors.min_p(0.2),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@every_rule
def test_the_random_histories_make_a_rule_change_something(rule):
    written, log_probs = histories(0), predictions(0)
    assert np.any(np.array(rule(written, log_probs)) != np.array(log_probs))


@every_rule
@cases
@given(seeds, seeds)
def test_what_stands_behind_the_end_of_a_history_changes_nothing(rule, seed, other):
    written, log_probs = histories(seed), predictions(seed)
    noise = jnp.array(np.random.default_rng(other).integers(0, V, written.ids.shape).astype(np.int32))
    noisy = written._replace(ids=jnp.where(written.mask, written.ids, noise))
    np.testing.assert_array_equal(rule(noisy, log_probs), rule(written, log_probs))


@every_rule
@cases
@given(seeds, seeds)
def test_a_row_does_not_depend_on_those_beside_it(rule, seed, other):
    kept = np.random.default_rng(seed).random((B, W)) < 0.5
    one, others = (rule(histories(each), predictions(each)) for each in (seed, other))
    mixed = jax.tree.map(
        lambda a, b: jnp.where(jnp.array(kept).reshape(B, W, *(1,) * (a.ndim - 2)), a, b),
        (histories(seed), predictions(seed)),
        (histories(other), predictions(other)),
    )
    np.testing.assert_array_equal(rule(*mixed), np.where(kept[:, :, None], one, others))


@pytest.mark.parametrize("name", [name for name in RULES if not name.startswith("forced")])
def test_where_nothing_was_possible_nothing_is(name):
    written, log_probs = histories(0), predictions(0).at[1, 0].set(-np.inf)
    assert np.all(RULES[name](written, log_probs)[1, 0] == -np.inf)


def on_grid(seed: int) -> np.ndarray:
    """Probabilities that are multiples of 1/64, many of them equal."""
    return np.random.default_rng(seed).multinomial(64, np.ones(V) / V, (B, W)) / 64


def kept(rule: search.LogitsProcessor, probs: np.ndarray) -> np.ndarray:
    """The tokens that a rule leaves as they are; the rest it makes impossible."""
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs).astype(np.float32)
    changed = np.array(rule(histories(0), jnp.array(log_probs)))
    possible = changed > -np.inf
    np.testing.assert_array_equal(changed[possible], log_probs[possible])
    return possible


@cases
@given(seeds, st.integers(0, 63))
def test_top_p_keeps_the_fewest_most_probable_tokens_that_reach_p_and_their_equals(seed, p):
    p, probs = (p + 0.5) / 64, on_grid(seed)
    possible = kept(logits_processors.top_p(p), probs)
    for place in np.ndindex(B, W):
        least = min(probs[place][token] for token in naive.nucleus(probs[place], p))
        assert possible[place].tolist() == [each >= least for each in probs[place]]


@cases
@given(seeds, st.integers(1, V))
def test_top_k_keeps_k_tokens_and_their_equals(seed, k):
    probs = on_grid(seed)
    possible = kept(logits_processors.top_k(k), probs)
    for place in np.ndindex(B, W):
        least = min(probs[place][token] for token in naive.most_probable(probs[place], k))
        assert possible[place].tolist() == [each >= least and each > 0 for each in probs[place]]


@cases
@given(seeds, st.integers(0, 63))
def test_min_p_keeps_the_tokens_with_p_times_the_largest_probability(seed, p):
    p, probs = (p + 0.5) / 64, on_grid(seed)
    possible = kept(logits_processors.min_p(p), probs)
    for place in np.ndindex(B, W):
        assert np.flatnonzero(possible[place]).tolist() == naive.likely_enough(probs[place], p)


@pytest.mark.parametrize("p", [0.0, 1e-60, 1e-9])
@cases
@given(seeds)
def test_however_small_its_p_top_p_keeps_the_most_probable(p, seed):
    probs = on_grid(seed)
    np.testing.assert_array_equal(kept(logits_processors.top_p(p), probs), probs == probs.max(axis=2, keepdims=True))


@pytest.mark.parametrize(
    "rule",
    [
        logits_processors.top_p(1.0),
        logits_processors.min_p(0.0),
        logits_processors.top_k(V),
        logits_processors.temperature(1.0),
    ],
)
def test_a_filter_of_everything_changes_nothing(rule):
    """Not even tokens that are nearly impossible."""
    probs = np.geomspace(1.0, 1e-30, V) * np.ones((B, W, 1))
    assert np.all(kept(rule, probs / probs.sum(axis=2, keepdims=True)))
