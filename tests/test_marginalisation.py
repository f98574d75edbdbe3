"""RAG with T5 and with decoder-only models against a naive marginalisation in torch, one passage at a time.

transformers' own RAG is no oracle here: RAG-Sequence with a T5 fails in it, and decoder-only models are unknown to it.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import families
import marginalised
import oracle
from families import EOS, PAD, V
from marginalised import LIMITS, B, Case, problem
from oracle import jit, torch
from rag_jax.core import likelihood, reading
from rag_jax.core.decode import choice, rag_sequence, rag_token
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.losses import rag_sequence_loss, rag_token_loss
from rag_jax.models import registry
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope
from rag_jax.models.t5 import T5Config
from rag_jax.types import Tokens
from suites import only

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
CASES = {name: Case(config, seed=4) for name, config in CONFIGS.items()}
LOSSES = {"token": rag_token_loss, "sequence": rag_sequence_loss}
each_config = pytest.mark.parametrize("name", only(["Mistral"], CONFIGS))
each_model = pytest.mark.parametrize("model", LOSSES)


def their_loss(name: str, model: str, scores: torch.Tensor) -> torch.Tensor:
    """The mean over the questions of -log p(y|x), written out."""
    losses = []

    def log_probs(b: int, k: int, answer: list[int]) -> torch.Tensor:
        return marginalised.their_log_probs(CASES[name], b, k, answer[:-1])[range(len(answer)), answer]

    for b in range(B):
        answer = problem().targets[b][problem().mask[b]].tolist()
        passages = marginalised.passages(b)
        prior, each = scores[b, passages].log_softmax(0), torch.stack([log_probs(b, k, answer) for k in passages])
        if model == "token":
            losses.append(-(prior[:, None] + each).logsumexp(0).sum())
        else:
            losses.append(-(prior + each.sum(1)).logsumexp(0))
    return torch.stack(losses).mean()


@each_config
@each_model
def test_losses_and_gradients_are_those_of_a_marginalisation_passage_by_passage(name, model):
    network, params = families.network(*CASES[name])
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


FAST = [("T5 1.1", "token", 3), ("T5 1.0", "sequence", 3), ("T5 1.1", "sequence", 1), ("Mistral", "token", 3)]
FAST += [("Llama", "sequence", 3), ("Qwen3", "token", 1)]
EVERY_DAY = [("T5 1.1", "token", 3), ("Llama", "sequence", 3)]
SLOW = [(name, model, beams) for name in CONFIGS for model in LOSSES for beams in (1, 3)]


@pytest.mark.parametrize(
    ("name", "model", "num_beams"),
    [*only(EVERY_DAY, FAST), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW if each not in FAST)],
)
def test_answers_are_those_of_a_naive_search(name, model, num_beams):
    marginalised.assert_same_answers(CASES[name], model, num_beams)


@pytest.mark.parametrize("name", only(["T5 1.1"], ["T5 1.1", "Mistral"]))
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
        inputs, prior = marginalised.encoded(CONFIGS[name], params)
        return choice.choose(inputs, prior, no_prefix(B), answers=answers, marginalise=marginalise, limits=LIMITS)

    found = jax.device_get(choose(families.network(*CASES[name])[1]))
    for b in range(B):
        expected = sorted((marginalised.log_likelihood(CASES[name], model, b, label) for label in labels), reverse=True)
        np.testing.assert_allclose(found.log_prob[b], expected, rtol=1e-5)
