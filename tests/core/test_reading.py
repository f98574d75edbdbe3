"""What the generator reads, against Python's lists."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
import small_rag
from rag_jax.core import reading
from rag_jax.core.reading import InputLayout
from rag_jax.types import PASSAGE, Generator, Tokens
from suites import first, only

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
_assemble = jax.jit(reading.assemble, static_argnums=2)
B, K, P, L = 2, 3, 7, 4


def assemble(passages: Tokens, prompts: Tokens, max_length: int) -> Tokens:
    return jax.device_get(_assemble(passages, prompts, InputLayout(max_length)))


def pair(seed: int, dtype=np.int32) -> tuple[Tokens, Tokens]:
    """Passages `[B, K, P]` and prompts `[B, L]`; what stands behind their ends is no padding token, but noise."""
    draw = np.random.default_rng(seed)
    passages = Tokens(draw.integers(1, 99, (B, K, P)).astype(dtype), draw.integers(0, P + 1, (B, K)).astype(np.int32))
    prompts = Tokens(draw.integers(100, 199, (B, L), np.int32), draw.integers(1, L + 1, B).astype(np.int32))
    return passages, prompts


_mask = jax.jit(lambda tokens: tokens.mask)


def mask(tokens: Tokens) -> np.ndarray:
    return jax.device_get(_mask(tokens))


def as_list(tokens: Tokens, *row: int) -> list[int]:
    return tokens.ids[row][: tokens.lengths[row]].tolist()


@pytest.mark.parametrize("max_length", [L, L + 1, P + L - 1, P + L, P + L + 5])
@cases
@given(seed=seeds)
def test_the_pair_is_joined_and_the_passage_gives_way(max_length, seed):
    passages, prompts = pair(seed)
    inputs = assemble(passages, prompts, max_length)
    size = min(P + L, max_length)
    assert inputs.ids.shape == (B, K, size)
    for b, k in np.ndindex(B, K):
        assert as_list(inputs, b, k) == naive.assemble(as_list(passages, b, k), as_list(prompts, b), size)


@pytest.mark.parametrize("max_length", [L, L + 1, P + L - 1, P + L, P + L + 5])
@cases
@given(seed=seeds)
def test_the_passage_stands_where_the_prompt_says(max_length, seed):
    passages, prompts = pair(seed)
    where = np.random.default_rng(seed).integers(-1, prompts.lengths)  # -1: the prompt follows it
    for b, at in enumerate(where):
        prompts.ids[b, at] = PASSAGE if at >= 0 else prompts.ids[b, at]
    inputs = assemble(passages, prompts, max_length)
    size = min(P + L, max_length)
    for b, k in np.ndindex(B, K):
        prompt, at = as_list(prompts, b), max(int(where[b]), 0)
        rest = prompt[at + (where[b] >= 0) :]
        read = naive.assemble(as_list(passages, b, k), [*prompt[:at], *rest], size)
        passage = read[: len(read) - at - len(rest)]
        assert as_list(inputs, b, k) == [*prompt[:at], *passage, *rest]


@pytest.mark.parametrize(("together", "separator"), [(2, (7, 8)), (3, ()), (5, (7,))])
@cases
@given(seed=seeds)
def test_passages_of_one_input_follow_each_other_and_the_last_gives_way(together, separator, seed):
    passages, prompts = pair(seed)
    header, size = (500, 501), 16
    layout = InputLayout(size, header, together, separator)
    inputs = jax.device_get(_assemble(passages, prompts, layout))
    groups = [range(first, min(first + together, K)) for first in range(0, K, together)]
    assert inputs.ids.shape[:2] == (B, len(groups))
    for b, (number, group) in itertools.product(range(B), enumerate(groups)):
        joined = as_list(passages, b, group[0])
        for k in group[1:]:
            passage = as_list(passages, b, k)
            joined += [*separator, *passage] if passage else []
        read = naive.assemble(joined, as_list(prompts, b), min(size, inputs.ids.shape[2]) - len(header))
        assert as_list(inputs, b, number) == [*header, *read]


@pytest.mark.parametrize("together", only([3], [1, 2, 3, 4]))
def test_a_group_is_as_likely_as_its_passages_together(together):
    log_prior = jnp.asarray([[-0.5, -1.5, -2.0], [-0.1, -np.inf, -np.inf], [-np.inf] * 3], jnp.float32)
    ours = reading.group_log_prior(log_prior, InputLayout(8, passages_per_input=together))
    with np.errstate(divide="ignore"):
        groups = [np.exp(log_prior[:, first : first + together]).sum(axis=1) for first in range(0, 3, together)]
        expected = np.log(np.stack(groups, axis=1))
    if together >= 3:
        expected = np.asarray([[0.0], [0.0], [-np.inf]])  # certain, whatever the scores
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_prompts_that_do_not_fit_are_refused():
    passages, prompts = pair(0)
    with pytest.raises(ValueError, match=f"prompts of {L} tokens do not fit into inputs of {L - 1}"):
        reading.assemble(passages, prompts, InputLayout(L - 1))


@cases
@given(seeds)
def test_the_question_always_ends_the_input(seed):
    passages, prompts = pair(seed)
    inputs = assemble(passages, prompts, L + 1)
    for b, k in np.ndindex(B, K):
        assert as_list(inputs, b, k)[-prompts.lengths[b] :] == as_list(prompts, b)


@cases
@given(seeds)
def test_what_stands_behind_the_ends_is_never_read(seed):
    passages, prompts = pair(seed)
    other_passages, other_prompts = pair(seed + 1)
    noisy = (
        Tokens(np.where(mask(passages), passages.ids, other_passages.ids), passages.lengths),
        Tokens(np.where(mask(prompts), prompts.ids, other_prompts.ids), prompts.lengths),
    )
    seen, other = assemble(passages, prompts, 9), assemble(*noisy, 9)
    np.testing.assert_array_equal(mask(seen), mask(other))
    np.testing.assert_array_equal(np.where(mask(seen), seen.ids, 0), np.where(mask(other), other.ids, 0))


def test_the_mask_ends_where_the_tokens_do():
    inputs = assemble(*pair(0), P + L)
    for b, k in np.ndindex(B, K):
        assert mask(inputs)[b, k].tolist() == [s < inputs.lengths[b, k] for s in range(P + L)]


def test_sixteen_bit_passages_are_read_as_they_are():
    wide, narrow = pair(3), pair(3, np.uint16)
    for one, other in zip(assemble(*wide, 9), assemble(*narrow, 9), strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == jnp.int32


def test_rows_are_the_questions_passages_in_order():
    inputs = assemble(*pair(0), 9)
    rows = jax.device_get(jax.jit(reading.rows)(inputs))
    for b, k in np.ndindex(B, K):
        np.testing.assert_array_equal(rows.ids[b * K + k], inputs.ids[b, k])
        assert rows.lengths[b * K + k] == inputs.lengths[b, k]


def telltale() -> Generator:
    """Its states tell what it has read: (the input's first token, the decoder's token, noise of both dropout keys)."""

    def encode(params, inputs, key=None):
        return inputs.ids[:, 0], _noise(key)

    def decode(params, decoder_inputs, memory, cache=None, place=None, key=None):
        first, encoder_noise = memory
        shape = decoder_inputs.shape
        told = (jnp.broadcast_to(first[:, None], shape), decoder_inputs)
        noises = (jnp.broadcast_to(encoder_noise, shape), jnp.broadcast_to(_noise(key), shape))
        return jnp.stack([*(each.astype(jnp.float32) for each in told), *noises], axis=2), None

    return Generator(encode, decode, lambda params, states: 2 * states, lambda rows, slots: None)


def _noise(key):
    return jnp.float32(0) if key is None else jax.random.normal(key, ())


_read = jax.jit(partial(reading.read, telltale(), {}))


def read(inputs: Tokens, decoder_inputs: np.ndarray, key: jax.Array | None = None) -> np.ndarray:
    return jax.device_get(_read(inputs, decoder_inputs, key))


def test_every_passage_is_read_with_its_questions_target():
    inputs = assemble(*pair(0), 9)
    decoder_inputs = np.arange(B * 5, dtype=np.int32).reshape(B, 5)
    logits = read(inputs, decoder_inputs)
    assert logits.shape == (B, K, 5, 4)
    for b, k, t in np.ndindex(B, K, 5):
        assert logits[b, k, t].tolist() == [2 * inputs.ids[b, k, 0], 2 * decoder_inputs[b, t], 0, 0]


def test_encoder_and_decoder_draw_different_dropout(key):
    logits = read(assemble(*pair(0), 9), np.zeros((B, 5), np.int32), key)
    encoder, decoder = logits[0, 0, 0, 2:].tolist()
    assert 0 not in (encoder, decoder)
    assert encoder != decoder


@partial(jax.jit, static_argnums=0)
def predicted(layout: InputLayout, inputs: Tokens, targets):
    generator, params = small_rag.networks().generator, small_rag.params().generator
    encoded = reading.encode(generator, params, inputs, layout, jnp.zeros((B, K)))
    return reading.predict(generator, params, encoded, targets, K)


@pytest.mark.parametrize(("lengths", "packs"), first(1, [((9,), B), ((9, 12), 1)]))
@cases
@given(seed=seeds)
def test_inputs_are_read_the_same_with_and_without_their_padding(lengths, packs, seed):
    draw = np.random.default_rng(seed)
    inputs = Tokens(draw.integers(3, 40, (B, K, 16), np.int32), draw.integers(1, 17, (B, K), np.int32))
    packed = InputLayout(16, pack_lengths=lengths, num_packs=packs)
    given = inputs, draw.integers(3, 40, (B, 3), np.int32)
    np.testing.assert_allclose(predicted(packed, *given), predicted(InputLayout(16), *given), rtol=1e-5, atol=1e-5)
