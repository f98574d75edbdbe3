"""RAG with T5 and with decoder-only models against a naive marginalisation in torch, one passage at a time.

transformers' own RAG is no oracle here: RAG-Sequence with a T5 fails in it, and decoder-only models are unknown to it.
"""

from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import naive
import oracle
from oracle import jit, torch
from rag_jax.core import likelihood, reading
from rag_jax.core.decode import beam, choice, rag_sequence, rag_token
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.losses import rag_sequence_loss, rag_token_loss
from rag_jax.models import registry
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope
from rag_jax.models.t5 import T5Config
from rag_jax.types import Tokens

PAD, EOS = 0, 1
B, K, S, T, V = 2, 3, 9, 6, 24
NEWER = T5Config(
    vocab_size=V, width=16, encoder_layers=2, decoder_layers=2, heads=2, head_width=5, ffn_width=24, gated=True,
    tied_head=False, position_buckets=8, max_distance=7
)  # fmt: skip
CONFIGS: dict = {
    "T5 1.1": NEWER,
    "T5 1.0": T5Config(
        vocab_size=V, width=16, encoder_layers=1, decoder_layers=2, heads=4, ffn_width=24, position_buckets=6,
        max_distance=5
    ),
}  # fmt: skip
LLAMA = DecoderConfig(
    vocab_size=V, width=16, decoder_layers=2, heads=4, kv_heads=2, head_width=6, ffn_width=24, max_positions=64,
    rope=Rope(100.0, "llama3", 4.0, 1.0, 4.0, 12), model_type="llama"
)  # fmt: skip
CONFIGS |= {
    "Llama": LLAMA,
    "Mistral": replace(LLAMA, rope=Rope(100.0, "linear", 2.0), window=4, model_type="mistral"),
    "Qwen2": replace(LLAMA, rope=Rope(100.0), head_width=4, qkv_bias=True, tied_head=True, model_type="qwen2"),
    "Qwen3": replace(LLAMA, rope=Rope(100.0), qk_norm=True, model_type="qwen3"),
}
LIMITS = GenerationLimits((PAD,), EOS, T)
LOSSES = {"token": rag_token_loss, "sequence": rag_sequence_loss}
each_config = pytest.mark.parametrize("name", CONFIGS)
each_model = pytest.mark.parametrize("model", LOSSES)


class Problem(NamedTuple):
    """Inputs `[B, K, S]` with scores, and answers; the last passage of the last question does not exist."""

    inputs: Tokens
    scores: np.ndarray  # [B, K]
    valid: np.ndarray
    targets: np.ndarray  # [B, T], padded
    mask: np.ndarray


@cache
def problem() -> Problem:
    rng = np.random.default_rng(2)
    inputs = oracle.tokens(rng, B * K, S, V, PAD)
    lengths = np.array([T, 3])
    targets = rng.integers(oracle.FIRST_WORD, V, (B, T)).astype(np.int32)
    targets[np.arange(B), lengths - 1] = EOS
    mask = np.arange(T)[None, :] < lengths[:, None]
    valid = np.arange(B * K).reshape(B, K) < B * K - 1
    shaped = Tokens(inputs.ids.reshape(B, K, S), inputs.lengths.reshape(B, K))
    return Problem(shaped, rng.normal(size=(B, K)).astype(np.float32), valid, np.where(mask, targets, PAD), mask)


@cache
def networks(name: str):
    return oracle.any_generator(CONFIGS[name], seed=4)


def passages(b: int) -> list[int]:
    return [k for k in range(K) if problem().valid[b, k]]


def their_log_probs(name: str, b: int, k: int, tokens: list[int]) -> torch.Tensor:
    """What follows the start token and each of the tokens, by one passage without padding: `[len + 1, V]`."""
    ids, length = problem().inputs.ids[b, k], int(problem().inputs.lengths[b, k])
    return oracle.next_log_probs(networks(name)[0], np.asarray(ids[:length]), [PAD, *tokens])


def their_loss(name: str, model: str, scores: torch.Tensor) -> torch.Tensor:
    """The mean over the questions of -log p(y|x), written out."""
    losses = []
    for b in range(B):
        answer = problem().targets[b][problem().mask[b]].tolist()
        prior = scores[b, passages(b)].log_softmax(0)
        each = torch.stack([their_log_probs(name, b, k, answer[:-1])[range(len(answer)), answer] for k in passages(b)])
        if model == "token":
            losses.append(-(prior[:, None] + each).logsumexp(0).sum())
        else:
            losses.append(-(prior + each.sum(1)).logsumexp(0))
    return torch.stack(losses).mean()


@each_config
@each_model
def test_losses_and_gradients_are_those_of_a_marginalisation_passage_by_passage(name, model):
    network, params = networks(name)
    generator, data = registry.generator(CONFIGS[name]), problem()
    decoder_inputs = jnp.asarray(np.concatenate([np.full((B, 1), PAD, np.int32), data.targets[:, :-1]], axis=1))

    def loss(params, scores):
        prior = likelihood.doc_log_prior(scores, jnp.asarray(data.valid))
        logits = reading.read(generator, params, data.inputs, decoder_inputs)
        return jnp.mean(LOSSES[model](prior, logits, jnp.asarray(data.targets), jnp.asarray(data.mask)))

    ours, (gradient, by_scores) = jax.device_get(jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, data.scores))
    network.zero_grad()
    scores = torch.from_numpy(data.scores.copy()).requires_grad_()
    theirs = their_loss(name, model, scores)
    theirs.backward()
    assert ours == pytest.approx(theirs.item(), rel=1e-5)
    np.testing.assert_allclose(by_scores, scores.grad, rtol=1e-3, atol=1e-6)
    expected = flatten_dict(oracle.any_params(CONFIGS[name], oracle.gradients(network)), sep="/")
    for path, leaf in flatten_dict(gradient, sep="/").items():
        norm = np.linalg.norm(expected[path])
        assert np.linalg.norm(leaf - expected[path]) <= 1e-3 * norm, path
        assert norm > 0


def next_probs(name: str, b: int, k: int) -> naive.NextProbs:
    @cache
    def after(tokens: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            return their_log_probs(name, b, k, list(tokens))[-1].double().exp().numpy()

    return lambda tokens: after(tuple(tokens))


def their_answer(name: str, model: str, b: int, num_beams: int) -> list[int]:
    """By a naive search: of the mixture, or of each passage with all found answers scored under all passages."""
    models = [next_probs(name, b, k) for k in passages(b)]
    prior = naive.softmax(problem().scores[b, passages(b)])

    def search(probs: naive.NextProbs) -> list[list[int]]:
        found = naive.beam_search(lambda tokens: np.log(probs(tokens)), EOS, T, num_beams, 1.0, False)
        return [tokens for _, tokens in found]

    if model == "token":
        return search(lambda tokens: sum(p * each(tokens) for p, each in zip(prior, models, strict=True)))[0]
    return max(
        {tuple(answer) for each in models for answer in search(each)},
        key=lambda answer: log_likelihood(name, model, b, list(answer)),
    )


def log_likelihood(name: str, model: str, b: int, answer: list[int]) -> float:
    """log p(y|x) by the paper's formula."""
    models = [next_probs(name, b, k) for k in passages(b)]
    prior = naive.softmax(problem().scores[b, passages(b)])[None]
    told = prior, naive.teacher_forced(models, answer, ())[None], np.array([answer]), np.ones((1, len(answer)), bool)
    return (naive.rag_token if model == "token" else naive.rag_sequence)(*told)[0]


def encoded(name: str, params) -> tuple[EncodedInputs, jax.Array]:
    data, generator = problem(), registry.generator(CONFIGS[name])
    inputs = EncodedInputs(generator, params, generator.encode(params, reading.rows(data.inputs)))
    return inputs, likelihood.doc_log_prior(jnp.asarray(data.scores), jnp.asarray(data.valid))


FAST = [("T5 1.1", "token", 3), ("T5 1.0", "sequence", 3), ("T5 1.1", "sequence", 1), ("Mistral", "token", 3)]
FAST += [("Llama", "sequence", 3), ("Qwen3", "token", 1)]
SLOW = [(name, model, beams) for name in CONFIGS for model in LOSSES for beams in (1, 3)]


@pytest.mark.parametrize(
    ("name", "model", "num_beams"),
    [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW if each not in FAST)],
)
def test_answers_are_those_of_a_naive_search(name, model, num_beams):
    decoder = {"token": rag_token.decode, "sequence": rag_sequence.thorough}[model]

    @jit
    def decode(params):
        inputs, prior = encoded(name, params)
        search = partial(beam.search, num_beams=num_beams)
        return decoder(inputs, prior, no_prefix(B), search=search, limits=LIMITS)

    found = jax.device_get(decode(networks(name)[1]))
    for b in range(B):
        answer = found.tokens[b, 0][found.mask[b, 0]].tolist()
        assert answer == list(their_answer(name, model, b, num_beams))
        assert found.log_prob[b, 0] == pytest.approx(log_likelihood(name, model, b, answer), rel=1e-4)


@pytest.mark.parametrize("name", ["T5 1.1", "Mistral"])
@each_model
def test_labels_have_the_likelihood_of_the_formula(name, model):
    labels = [[5, 6, EOS], [5, EOS], [7, 8, 9, EOS]]
    ids = np.full((B, 3, 4), EOS, np.int32)
    for row, label in enumerate(labels):
        ids[:, row, : len(label)] = label
    answers = Tokens(jnp.asarray(ids), jnp.tile(jnp.asarray([len(each) for each in labels], jnp.int32), (B, 1)))
    marginalise = {"token": rag_token.marginalise, "sequence": rag_sequence.marginalise}[model]

    @jit
    def choose(params):
        inputs, prior = encoded(name, params)
        return choice.choose(inputs, prior, no_prefix(B), answers=answers, marginalise=marginalise, limits=LIMITS)

    found = jax.device_get(choose(networks(name)[1]))
    for b in range(B):
        expected = sorted((log_likelihood(name, model, b, label) for label in labels), reverse=True)
        np.testing.assert_allclose(found.log_prob[b], expected, rtol=1e-5)
