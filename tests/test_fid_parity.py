"""Fusion-in-Decoder against a naive one in torch: encode each passage, concatenate the states, decode once."""

import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import naive
import oracle
from oracle import jit, relative, torch
from rag_jax.core import attention, likelihood, packing, reading
from rag_jax.core.decode import beam, choice, rag_token
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.reading import InputLayout
from rag_jax.core.variants import VARIANTS
from rag_jax.models import registry
from rag_jax.models.bart import BartConfig
from rag_jax.models.t5 import T5Config
from rag_jax.types import Tokens
from suites import only

START, EOS, B, K, S, T, V = 2, 1, 3, 3, 8, 5, 24
CONFIGS = {
    "bart": BartConfig(
        vocab_size=V, width=16, encoder_layers=1, decoder_layers=2, heads=2, ffn_width=24, max_positions=12
    ),
    "t5": T5Config(
        vocab_size=V, width=16, encoder_layers=2, decoder_layers=2, heads=2, head_width=5, ffn_width=24, gated=True,
        tied_head=False, position_buckets=6, max_distance=5
    ),
}  # fmt: skip
LIMITS = GenerationLimits((START,), EOS, T)
VALID = np.array([[True, True, True], [True, False, True], [True, True, False]])
# The objective is that of RAG-Token, which gets one passage.
FID = VARIANTS["fid"]
FUSED = InputLayout(S, fuses=True)
each_network = pytest.mark.parametrize("name", only(["t5"], CONFIGS))


@cache
def networks(name: str):
    make, as_params = {
        "bart": (oracle.generator, oracle.generator_params),
        "t5": (oracle.t5_generator, oracle.t5_params),
    }[name]
    model, params = make(CONFIGS[name], 3)
    return model, params, partial(as_params, CONFIGS[name])


ROWS = oracle.tokens(np.random.default_rng(1), B * K, S, V, 0)
INPUTS = Tokens(ROWS.ids.reshape(B, K, S), ROWS.lengths.reshape(B, K))  # some do not exist, whatever stands there


def prior(scores=None) -> jax.Array:
    scores = jnp.asarray(np.random.default_rng(2).normal(size=(B, K)), jnp.float32) if scores is None else scores
    return likelihood.doc_log_prior(scores, jnp.asarray(VALID))


@cache
def targets() -> tuple[np.ndarray, np.ndarray]:
    """Answers `[B, T]` and their mask."""
    ids = np.random.default_rng(3).integers(oracle.FIRST_WORD, V, (B, T)).astype(np.int32)
    lengths = np.array([T, 3, 1])
    ids[np.arange(B), lengths - 1] = EOS
    return ids, np.arange(T)[None, :] < lengths[:, None]


def theirs(name: str, b: int, decoder_inputs: Sequence[int], **options) -> Any:
    """One decoder over the states of every passage that exists, without padding."""
    from transformers.modeling_outputs import BaseModelOutput  # needs torch, which may be missing

    model, *_ = networks(name)
    ids, lengths = INPUTS
    states = [
        model.get_encoder()(oracle.as_torch(ids[b, k][None, : int(lengths[b, k])])).last_hidden_state
        for k in range(K)
        if VALID[b, k]
    ]
    memory = BaseModelOutput(last_hidden_state=torch.cat(states, dim=1))
    return model(encoder_outputs=memory, decoder_input_ids=torch.tensor([list(decoder_inputs)]), **options)


def their_logits(name: str, b: int, decoder_inputs: Sequence[int]) -> torch.Tensor:
    """`[len, V]`."""
    return theirs(name, b, decoder_inputs).logits[0]


def decoder_inputs() -> jax.Array:
    return jnp.asarray(np.concatenate([np.full((B, 1), START, np.int32), targets()[0][:, :-1]], axis=1))


def our_logits(name: str, params, passages=None, log_prior=None, **how):
    generator = registry.generator(CONFIGS[name])
    passages, log_prior = INPUTS if passages is None else passages, prior() if log_prior is None else log_prior
    return reading.read(generator, params, passages, decoder_inputs(), fused_by=log_prior, **how)


@each_network
def test_logits_are_those_of_one_decoder_over_all_passages(name):
    found = jit(partial(our_logits, name))(networks(name)[1])
    assert found.shape == (B, 1, T, V)
    with torch.no_grad():
        expected = torch.stack([their_logits(name, b, decoder_inputs()[b].tolist()) for b in range(B)])
    assert relative(found[:, 0], expected) < 1e-5


@each_network
@pytest.mark.parametrize("packed", only([True], [False, True]))
def test_loss_and_gradients_are_those_of_one_decoder_over_all_passages(name, packed):
    model, params, as_params = networks(name)
    ids, mask = targets()

    def loss(params, scores):
        log_prior = prior(scores)
        passages = packing.pack(reading.rows(INPUTS), 1, B * K * S) if packed else INPUTS
        logits = our_logits(name, params, passages, log_prior)
        return jnp.mean(
            FID.objective(reading.group_log_prior(log_prior, FUSED), logits, jnp.asarray(ids), jnp.asarray(mask))
        )

    scores = jnp.asarray(np.random.default_rng(4).normal(size=(B, K)), jnp.float32)
    ours, (gradient, by_scores) = jax.device_get(jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, scores))
    assert not np.any(by_scores)  # the prior is ignored
    model.zero_grad()
    losses = []
    for b in range(B):
        answer = ids[b][mask[b]].tolist()
        log_probs = their_logits(name, b, [START, *answer[:-1]]).log_softmax(1)
        losses.append(-log_probs[range(len(answer)), answer].sum())
    mean = torch.stack(losses).mean()
    mean.backward()
    assert ours == pytest.approx(mean.item(), rel=1e-5)
    expected = flatten_dict(as_params(oracle.gradients(model)), sep="/")
    whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in expected.values()))
    for path, leaf in flatten_dict(gradient, sep="/").items():
        is_zero_by_theory = path.endswith("key/bias") or path == "final_logits_bias"
        tolerance = 1e-6 * whole if is_zero_by_theory else 1e-3 * np.linalg.norm(expected[path])
        assert np.linalg.norm(leaf - expected[path]) <= tolerance, path


def next_probs(name: str, b: int) -> naive.NextProbs:
    @cache
    def after(tokens: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            return their_logits(name, b, [START, *tokens])[-1].double().softmax(0).numpy()

    return lambda tokens: after(tuple(tokens))


def log_likelihood(name: str, b: int, answer: Sequence[int]) -> float:
    probs = next_probs(name, b)
    return sum(float(np.log(probs(list(answer[:t]))[token])) for t, token in enumerate(answer))


def fused(name: str, params, log_prior=None) -> tuple[EncodedInputs, jax.Array]:
    generator = registry.generator(CONFIGS[name])
    log_prior = prior() if log_prior is None else log_prior
    encoded = generator.encode(params, reading.rows(INPUTS))
    encoded = reading.fuse(generator, encoded, log_prior)
    return EncodedInputs(generator, params, encoded), reading.group_log_prior(log_prior, FUSED)


@pytest.mark.extended
@each_network
@pytest.mark.parametrize("num_beams", only([3], [1, 3]))
def test_answers_are_those_of_a_naive_search(name, num_beams):
    @jit
    def decode(params):
        search = partial(beam.search, num_beams=num_beams)
        read, one = fused(name, params)
        return FID.decoders["thorough"](read, one, no_prefix(B), search=search, limits=LIMITS, n_best=num_beams)

    found = jax.device_get(decode(networks(name)[1]))
    for b in range(B):
        probs = next_probs(name, b)
        expected = naive.beam_search(lambda tokens, p=probs: np.log(p(tokens)), EOS, T, num_beams, 1.0, False)
        answers = [found.tokens[b, c][found.mask[b, c]].tolist() for c in range(num_beams)]
        assert answers == [tokens for _, tokens in expected]
        np.testing.assert_allclose(
            found.log_prob[b], [log_likelihood(name, b, answer) for answer in answers], rtol=1e-4
        )


@pytest.mark.extended
@each_network
def test_labels_and_what_answers_begin_with_are_read_as_one(name):
    labels = np.array([[5, 6, EOS], [5, EOS, EOS], [5, 7, 8]], np.int32)
    lengths = np.array([3, 2, 3], np.int32)
    answers = Tokens(jnp.asarray(np.tile(labels, (B, 1, 1))), jnp.asarray(np.tile(lengths, (B, 1))))
    begun = Tokens(jnp.full((B, 1), 5, jnp.int32), jnp.ones(B, jnp.int32))

    @jit
    def both(params):
        read, one = fused(name, params)
        told = {"marginalise": FID.marginalise, "limits": LIMITS}
        chosen = choice.choose(read, one, begun, answers=answers, **told)
        search = partial(beam.search, num_beams=1)
        return chosen, rag_token.decode(read, one, begun, search=search, limits=LIMITS)

    chosen, greedy = jax.device_get(both(networks(name)[1]))
    for b in range(B):
        each = [log_likelihood(name, b, label[:length].tolist()) for label, length in zip(labels, lengths, strict=True)]
        np.testing.assert_allclose(chosen.log_prob[b], sorted(each, reverse=True), rtol=1e-4)
        expected = naive.greedy(next_probs(name, b), [5], EOS, T - 1)
        assert greedy.tokens[b, 0][greedy.mask[b, 0]].tolist() == [5, *expected]


@each_network
def test_one_passage_is_a_plain_sequence_to_sequence_model(name):
    generator, params = registry.generator(CONFIGS[name]), networks(name)[1]
    first = Tokens(INPUTS.ids[:, :1], INPUTS.lengths[:, :1])
    fid = jit(partial(our_logits, name))(params, first, jnp.full((B, 1), -3.0))
    plain = jit(partial(reading.read, generator))(params, first, decoder_inputs())
    np.testing.assert_array_equal(fid, plain)


@pytest.mark.extended
@each_network
def test_the_order_of_passages_and_their_prior_do_not_matter(name):
    order = np.array([2, 0, 1])
    run = jit(partial(our_logits, name))
    expected, log_prior = run(networks(name)[1]), prior()
    permuted = jax.tree.map(lambda each: each[:, order], INPUTS)
    assert relative(run(networks(name)[1], permuted, log_prior[:, order]), expected) < 1e-5
    flat = jnp.where(jnp.isneginf(log_prior), -jnp.inf, jnp.log(0.5))
    np.testing.assert_array_equal(run(networks(name)[1], INPUTS, flat), expected)


@pytest.mark.extended
@each_network
def test_a_passage_that_does_not_exist_is_not_looked_at(name):
    run = jit(partial(our_logits, name))
    other = jnp.where(jnp.asarray(VALID)[:, :, None], INPUTS.ids, (INPUTS.ids + 7) % V)
    changed = run(networks(name)[1], Tokens(other, INPUTS.lengths))
    np.testing.assert_array_equal(changed, run(networks(name)[1]))
    visible = run(networks(name)[1], Tokens((INPUTS.ids + 7) % V, INPUTS.lengths))
    assert jnp.all(jnp.any(visible != changed, axis=(1, 2, 3)))


@pytest.mark.extended
def test_a_question_without_any_passage_has_no_answer():
    log_prior = jnp.where(jnp.arange(B)[:, None] == 0, -jnp.inf, prior())

    @jit
    def decode(params):
        read, one = fused("t5", params, log_prior)
        return rag_token.decode(read, one, no_prefix(B), search=partial(beam.search, num_beams=2), limits=LIMITS)

    found = decode(networks("t5")[1])
    np.testing.assert_array_equal(found.exists[:, 0], [False, True, True])


def test_a_generator_that_cannot_fuse_is_refused():
    generator = registry.generator(CONFIGS["t5"])._replace(fuse=None)
    with pytest.raises(ValueError, match="this generator has no `fuse`"):
        reading.read(generator, networks("t5")[1], INPUTS, decoder_inputs(), fused_by=prior())


@cache
def their_mass(name: str) -> np.ndarray:
    """`[B, K]`: what each passage gets of `cross_attentions`, by loops over layers, heads, tokens and positions."""
    networks(name)[0].set_attn_implementation("eager")  # the others return no weights
    mass = np.zeros((B, K))
    for b in range(B):
        num_tokens, lengths = int(targets()[1][b].sum()), INPUTS.lengths[b]
        with torch.no_grad():
            layers = theirs(name, b, decoder_inputs()[b].tolist(), output_attentions=True).cross_attentions
        passage_of = [k for k in range(K) if VALID[b, k] for _ in range(int(lengths[k]))]
        shares = [weights[0, head, t] for weights in layers for head in range(2) for t in range(num_tokens)]
        assert len(shares) == 2 * 2 * num_tokens
        for share in shares:
            for passage, weight in zip(passage_of, share.tolist(), strict=True):
                mass[b, passage] += weight / len(shares)
    return mass


def our_mass(config, params, passages=INPUTS, log_prior=None):
    network, log_prior = registry.generator(config), prior() if log_prior is None else log_prior
    return attention.attention_mass(network, params, passages, decoder_inputs(), jnp.asarray(targets()[1]), log_prior)


@each_network
def test_attention_mass_is_that_of_their_cross_attentions(name):
    found = np.asarray(jit(partial(our_mass, CONFIGS[name]))(networks(name)[1]))
    np.testing.assert_allclose(found, their_mass(name), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found == 0, ~VALID)


@pytest.mark.extended
@each_network
@pytest.mark.parametrize("options", [{"scan": True}, {"remat": "full"}])
def test_attention_mass_does_not_depend_on_how_layers_run_and_inputs_are_packed(name, options):
    config = dataclasses.replace(CONFIGS[name], **options)
    packed = packing.pack(reading.rows(INPUTS), 1, B * K * S)
    np.testing.assert_allclose(jit(partial(our_mass, config))(networks(name)[1], packed), their_mass(name), rtol=1e-5)


@each_network
def test_padding_gets_exactly_nothing(name):
    generator, params = registry.generator(CONFIGS[name]), networks(name)[1]

    @jit
    def weights(params):
        fused = reading.fuse(generator, generator.encode(params, reading.rows(INPUTS)), prior())
        return generator.cross_attention(params, decoder_inputs(), fused)

    found = np.asarray(weights(params)).reshape(B, T, K, S)
    is_read = np.asarray(INPUTS.mask) & VALID[:, :, None]
    np.testing.assert_array_equal(found > 0, np.broadcast_to(is_read[:, None], found.shape))


@pytest.mark.extended
def test_attention_mass_in_the_program_of_the_logits_costs_a_few_additions():
    """The weights that the logits are made of are computed once."""

    def logits(params):
        return our_logits("t5", params)

    def both(params):
        return our_logits("t5", params), our_mass(CONFIGS["t5"], params)

    alone, together = (jax.jit(each).lower(networks("t5")[1]).compile().cost_analysis() for each in (logits, both))
    assert together["flops"] < 1.05 * alone["flops"]
