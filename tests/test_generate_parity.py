"""Generated tokens against transformers' `generate` in float32: the same ones, in the same order, equally scored.

A case is a random model with a batch of three questions, decoded in one setting. A setting is told in transformers'
words, from which ours are derived; our side compiles once for each. Every returned answer is compared, not only the
best. Contexts have different lengths, and the end token has a random bias, so that answers end early and late.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

import generated
import oracle
from generated import Answers
from oracle import torch
from rag_jax.core.decode import rag_sequence, rag_token
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.models import bart
from rag_jax.types import Tokens

BOS, PAD, EOS = 0, 1, 2
B, S, V = 3, 7, 20
CONFIG = bart.BartConfig(
    vocab_size=V, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=32, max_positions=142
)
GENERATOR = bart.generator(CONFIG)
TINY_DPR = DPRConfig(vocab_size=4, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)


class Setting(NamedTuple):
    """A model of transformers and what its `generate` is told; `num_docs` is 1 without retrieval."""

    kind: type
    num_docs: int
    told: dict


def setting(kind, num_docs, num_beams, early_stopping=False, length_penalty=1.0, max_length=9, **more) -> Setting:
    """All beams are returned if `more` does not say otherwise; BART's config would force the end token."""
    told = {"num_beams": num_beams, "early_stopping": early_stopping, "length_penalty": length_penalty}
    rest = {"max_length": max_length, "num_return_sequences": num_beams, "forced_eos_token_id": None}
    return Setting(kind, num_docs, {**told, **rest, **more})


# Every number of beams, and every pair of early stopping, length penalty and number of passages.
token = partial(setting, RagTokenForGeneration)
TOKEN = {
    "RAG-Token, greedy, K=5": token(5, 1),
    "RAG-Token, 2 beams, penalty 0.5, K=1": token(1, 2, False, 0.5),
    "RAG-Token, 3 beams, penalty 1, K=3": token(3, 3, False, 1.0),
    "RAG-Token, 4 beams, penalty 2, K=5": token(5, 4, False, 2.0),
    "RAG-Token, 5 beams, early, penalty 0.5, K=3": token(3, 5, True, 0.5),
    "RAG-Token, 6 beams, early, penalty 1, K=5": token(5, 6, True, 1.0),
    "RAG-Token, 2 beams, early, penalty 2, K=1": token(1, 2, True, 2.0),
    "RAG-Token, 3 beams, never early, penalty 0.5, K=5": token(5, 3, "never", 0.5),
    "RAG-Token, 4 beams, never early, penalty 1, K=1": token(1, 4, "never", 1.0),
    "RAG-Token, 5 beams, never early, penalty 2, K=3": token(3, 5, "never", 2.0),
}

# What transformers scores as the paper does: answers of two tokens at least (for shorter ones it loses p(z|x)), without
# PAD and BOS (a PAD in an answer passes for padding; where all answers to a question begin with BOS, that token does
# not count; `draw` makes models that say neither), to contexts of one length (the search is not shown their mask).
sequence = partial(setting, RagSequenceForGeneration, min_length=2)
SEQUENCE = {
    "RAG-Sequence, greedy, K=5, all": sequence(5, 1, do_deduplication=False, num_return_sequences=5),
    "RAG-Sequence, 2 beams, never early, K=3, best 2": sequence(3, 2, "never", do_deduplication=True),
    "RAG-Sequence, 3 beams, early, K=5, all": sequence(
        5, 3, True, 0.5, do_deduplication=False, num_return_sequences=15
    ),
    "RAG-Sequence, 4 beams, K=3, all": sequence(3, 4, False, 2.0, do_deduplication=False, num_return_sequences=12),
}

alone = partial(setting, BartForConditionalGeneration, 1)
CNN = {"min_length": 56, "no_repeat_ngram_size": 3, "forced_bos_token_id": BOS, "forced_eos_token_id": EOS}
BANS = {"bad_words_ids": [[4], [5, 6], [7, 7], [8, 9, 8], [10, 10, 10]], "no_repeat_ngram_size": 2}
ALONE = {
    "BART, as bart-large-cnn": alone(4, True, 2.0, max_length=142, **CNN),
    "BART, greedy, bad words, no bigram twice, end forced": alone(1, max_length=21, **BANS, forced_eos_token_id=EOS),
    "BART, 3 beams, bad words, no bigram twice": alone(3, **BANS),
}

SETTINGS = TOKEN | SEQUENCE | ALONE
EACH = {RagTokenForGeneration: 14, RagSequenceForGeneration: 10, BartForConditionalGeneration: 10}
SEEDS = {name: [100 * n + 20 + i for i in range(EACH[each.kind])] for n, (name, each) in enumerate(SETTINGS.items())}
CASES = [(name, seed) for name, seeds in SEEDS.items() for seed in seeds]
# What the suites compare, with two models each: each kind of search and constraint. The rest is a proof.
QUICK = (
    "RAG-Token, greedy, K=5",
    "RAG-Token, 4 beams, penalty 2, K=5",
    "RAG-Token, 3 beams, never early, penalty 0.5, K=5",
    "RAG-Sequence, 3 beams, early, K=5, all",
    "BART, as bart-large-cnn",
    "BART, 3 beams, bad words, no bigram twice",
)
EVERY_DAY = (
    "RAG-Token, 4 beams, penalty 2, K=5",
    "RAG-Sequence, 3 beams, early, K=5, all",
    "BART, 3 beams, bad words, no bigram twice",
)
SPECIAL = {"decoder_start_token_id": EOS, "bos_token_id": BOS, "pad_token_id": PAD, "eos_token_id": EOS}


class Asked(NamedTuple):
    """What a generator reads for a batch of questions."""

    contexts: Tokens  # rows B * K
    doc_scores: np.ndarray  # [B, K]


def asked(name: str, seed: int) -> Asked:
    kind, num_docs, _ = SETTINGS[name]
    rng = np.random.default_rng(seed)
    contexts = oracle.tokens(rng, B * num_docs, S, V, PAD)
    if kind is RagSequenceForGeneration:
        words = jnp.asarray(rng.integers(oracle.FIRST_WORD, V, contexts.ids.shape), jnp.int32)
        contexts = Tokens(words, jnp.full_like(contexts.lengths, S))
    return Asked(contexts, rng.normal(size=(B, num_docs)).astype(np.float32))


@cache
def network(kind: type, num_docs: int):
    """A model of transformers, its weights yet to be drawn, and its generator."""
    generator = BartConfig(**oracle.bart_sizes(CONFIG))
    if kind is BartForConditionalGeneration:
        model = kind(generator)
        return model, model
    model = kind(RagConfig(question_encoder=TINY_DPR.to_dict(), generator=generator.to_dict(), n_docs=num_docs))
    return model, model.generator


def draw(name: str, seed: int):
    """The setting's model and its generator, with weights of the seed; they are the same objects in every case."""
    kind, num_docs, _ = SETTINGS[name]
    model, generator = network(kind, num_docs)
    bias = oracle.draw(generator, seed).final_logits_bias[0]
    bias[EOS] += np.random.default_rng(seed).uniform(0, 6)
    if kind is RagSequenceForGeneration:
        bias[[PAD, BOS]] = -1e4
    return model, generator


@cache
def their_answers(name: str, seed: int, **changes) -> Answers:
    """What transformers generates in the setting, or with some of it changed."""
    kind, _, told = SETTINGS[name]
    model, _ = draw(name, seed)
    contexts, doc_scores = asked(name, seed)
    inputs = oracle.torch_inputs(contexts)
    if kind is not BartForConditionalGeneration:
        inputs = {f"context_{key}": each for key, each in inputs.items()} | {"doc_scores": torch.from_numpy(doc_scores)}
    told = {**told, **SPECIAL, **changes}
    with torch.no_grad():
        if kind is RagSequenceForGeneration:
            return their_sequence_answers(model, inputs, {**told, "do_sample": False})
        return generated.their_beams(model, inputs, told, B)


def their_sequence_answers(model, inputs: dict, told: dict) -> Answers:
    """The distinct ones, with their log-probabilities, which `generate` does not return but minimises."""
    labels = model.generate(**inputs, **told)
    every = {
        key: each.reshape(B, -1).repeat_interleave(labels.shape[0] // B, dim=0).reshape(-1, each.shape[1])
        for key, each in inputs.items()
    }
    log_probs = -model(**every, labels=labels, exclude_bos_score=True).loss
    distinct = [
        dict(zip(map(tuple, answers), each, strict=True))
        for answers, each in zip(
            generated.by_question(labels, B, 1, EOS), log_probs.reshape(B, -1).tolist(), strict=True
        )
    ]
    return Answers([list(map(list, each)) for each in distinct], [list(each.values()) for each in distinct])


@cache
def program(name: str) -> Callable:
    """Our decoding in this setting: ids, mask, which answers exist, and their scores."""
    kind, _, told = SETTINGS[name]
    limits = GenerationLimits((EOS,), EOS, told["max_length"] - 1)  # transformers counts the start token
    if kind is BartForConditionalGeneration:
        return jax.jit(partial(generated.decode_alone, GENERATOR, told, limits))
    search = generated.our_search(told, limits.max_length, EOS)

    def decode(params, memory, doc_scores):
        reader = EncodedInputs(GENERATOR, params, memory)
        decoder = rag_token.decode if kind is RagTokenForGeneration else rag_sequence.thorough
        prior = jax.nn.log_softmax(doc_scores, axis=1)
        found = decoder(reader, prior, no_prefix(B), search=search, limits=limits, n_best=told["num_return_sequences"])
        return found.tokens, found.mask, found.exists, found.score if decoder is rag_token.decode else found.log_prob

    return jax.jit(decode)


encode = jax.jit(GENERATOR.encode)


def our_answers(name: str, seed: int) -> Answers:
    params = oracle.generator_params(CONFIG, oracle.state(draw(name, seed)[1]))
    contexts, doc_scores = asked(name, seed)
    scores = () if SETTINGS[name].kind is BartForConditionalGeneration else (doc_scores,)
    return generated.our_answers(*jax.device_get(program(name)(params, encode(params, contexts), *scores)))


def parameters(name: str, seed: int):
    """Every day two models in the settings that stand for the others; in the extended suite two of each kind."""
    if name not in QUICK or seed not in SEEDS[name][:2]:
        return pytest.param(name, seed, marks=pytest.mark.slow)
    return pytest.param(name, seed, marks=() if name in EVERY_DAY else pytest.mark.extended)


@pytest.mark.parametrize(("name", "seed"), [parameters(*case) for case in CASES])
def test_the_answers_are_those_of_transformers(name, seed):
    generated.assert_same(our_answers(name, seed), their_answers(name, seed))


def test_there_are_two_hundred_cases_of_different_models():
    assert len({seed for _, seed in CASES}) == len(CASES) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_answers_end_early_and_late_and_none_wins_by_rounding(name):
    """transformers' answers: equal ones prove little where all are alike, and nothing where two are equally good."""
    found = [their_answers(name, seed) for seed in SEEDS[name]]
    lengths = {len(answer) for each in found for answers in each.tokens for answer in answers}
    assert min(lengths) < SETTINGS[name].told["max_length"] / 2 < max(lengths)
    for scores in (scores for each in found for scores in each.scores):
        assert np.all(-np.diff(scores) > 1e-5 * np.abs(scores[1:]))


CHANGES = [
    ("RAG-Token, 4 beams, penalty 2, K=5", {"early_stopping": True}),
    ("RAG-Token, 4 beams, penalty 2, K=5", {"early_stopping": "never"}),
    ("RAG-Token, 6 beams, early, penalty 1, K=5", {"early_stopping": False}),
    ("RAG-Token, 5 beams, early, penalty 0.5, K=3", {"length_penalty": 1.0}),
    ("RAG-Token, 3 beams, never early, penalty 0.5, K=5", {"length_penalty": 1.0}),
    ("RAG-Token, 4 beams, penalty 2, K=5", {"length_penalty": 1.0}),
    *((name, {key: None}) for name, each in ALONE.items() for key in {**CNN, **BANS} if each.told.get(key) is not None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_every_argument_makes_a_difference_in_some_case(name, change):
    """So that a search which ignored it would be found out."""
    assert any(their_answers(name, seed, **change).tokens != their_answers(name, seed).tokens for seed in SEEDS[name])
