"""Random networks of the decoder-only families and of T5 against transformers': logits, and the answers they generate.

A case is one random network with three inputs of its own. Networks of equal sizes differ in their weights only, so that
our side compiles once for them. transformers reads the inputs one at a time for the logits, and to generate pads them
to one length: an encoder-decoder's behind their ends, those of the others before their beginnings.
"""

from collections.abc import Callable
from functools import cache

import jax
import numpy as np
import pytest

import families
import generated
import marginalised
import oracle
from families import EOS, LONGEST, PAD, Config, V
from generated import Answers, Told
from oracle import jit, relative, torch
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.models import registry
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.t5 import T5Config
from rag_jax.types import Params, Tokens

B, T = 3, 7
LIMITS = GenerationLimits((PAD,), EOS, T)
CONFIGS: list[Config] = [*families.decoder_configs(20, seed=212), *families.t5_configs(10, seed=1)]
NETWORKS_EACH = {DecoderConfig: 5, T5Config: 10}  # of equal sizes
CASES = [(n, 20 * n + i) for n, config in enumerate(CONFIGS) for i in range(NETWORKS_EACH[type(config)])]
GREEDY = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}
SEARCHES = [  # networks of the same sizes are searched in the same way
    {"num_beams": beams, "early_stopping": early, "length_penalty": penalty, "num_return_sequences": beams}
    for beams, early, penalty in [
        (2, False, 1.0), (4, "never", 2.0), (3, True, 0.5), (5, False, 0.0), (3, "never", 1.0), (4, True, 1.0)
    ]
]  # fmt: skip
QUICK = CASES[:: len(CASES) // 3][:2] + CASES[-1:]
# transformers' caches fail for T5s of unequal depths.
SPECIAL = {"pad_token_id": PAD, "eos_token_id": EOS, "max_new_tokens": T, "use_cache": False}


def search(n: int, is_greedy: bool) -> Told:
    return GREEDY if is_greedy else SEARCHES[n % len(SEARCHES)]


def inputs(seed: int) -> Tokens:
    return oracle.tokens(np.random.default_rng(seed), B, LONGEST, V, PAD)


def answer(seed: int) -> np.ndarray:
    """Decoder inputs: the start token, and words."""
    words = np.random.default_rng(seed + 1).integers(oracle.FIRST_WORD, V, (B, T))
    return np.concatenate([np.full((B, 1), PAD), words], axis=1).astype(np.int32)


def their_logits(n: int, seed: int) -> np.ndarray:
    model, _ = families.network(CONFIGS[n], seed)
    rows = [np.asarray(ids[:length]) for ids, length in zip(*inputs(seed), strict=True)]
    each = [oracle.next_logits(model, row, ids.tolist()) for row, ids in zip(rows, answer(seed), strict=True)]
    return torch.stack(each).numpy()


@cache
def their_answers(n: int, seed: int, is_greedy: bool) -> Answers:
    model, _ = families.network(CONFIGS[n], seed)
    given, told = inputs(seed), {**search(n, is_greedy), **SPECIAL}
    if model.config.is_encoder_decoder:
        return generated.their_beams(model, oracle.torch_inputs(given), {**told, "decoder_start_token_id": PAD}, B)
    prompts = [[*ids[:length], PAD] for ids, length in zip(*map(np.asarray, given), strict=True)]
    ids, mask = np.full((B, LONGEST + 1), PAD), np.zeros((B, LONGEST + 1))
    for row, prompt in enumerate(prompts):
        ids[row, -len(prompt) :], mask[row, -len(prompt) :] = prompt, 1
    padded = {"input_ids": oracle.as_torch(ids), "attention_mask": oracle.as_torch(mask)}
    return generated.their_beams(model, padded, told, B, start=LONGEST + 1)


@cache
def program(n: int) -> Callable:
    """Logits, greedy answers and those of a beam search, of any weights of these sizes."""
    generator = registry.generator(CONFIGS[n])

    def run(params: Params, given: Tokens, decoder_inputs: jax.Array):
        encoded = generator.encode(params, given)
        logits = generator.logits(params, generator.decode(params, decoder_inputs, encoded)[0])
        decoded = (generated.decode_alone(generator, search(n, way), LIMITS, params, encoded) for way in (True, False))
        return logits, *decoded

    return jit(run)


def parameters(case: tuple[int, int]):
    if case not in QUICK:
        return pytest.param(*case, marks=pytest.mark.slow)
    return pytest.param(*case, marks=pytest.mark.extended if case == QUICK[1] else ())


@pytest.mark.parametrize(("n", "seed"), [parameters(case) for case in CASES])
def test_logits_and_answers_are_those_of_transformers(n, seed):
    params, given = families.network(CONFIGS[n], seed)[1], inputs(seed)
    logits, *decoded = jax.device_get(program(n)(params, given, answer(seed)))
    with torch.no_grad():
        apart = relative(logits, their_logits(n, seed))
        assert apart < 1e-5
        for is_greedy, arrays in zip((True, False), decoded, strict=True):
            generated.assert_same(generated.our_answers(*arrays), their_answers(n, seed, is_greedy))
    print(f"logits differ by {apart:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS_EACH)
def test_answers_end_early_and_late_and_none_wins_by_rounding(kind):
    """transformers' answers: equal ones prove little where all are alike, and nothing where two are equally good."""
    cases = [case for case in CASES if isinstance(CONFIGS[case[0]], kind)]
    for is_greedy in (True, False):
        found = [their_answers(*case, is_greedy) for case in cases]
        lengths = [len(answer) for each in found for answers in each.tokens for answer in answers]
        counts = np.bincount(lengths, minlength=T + 1) / len(lengths)
        assert counts[1:].min() >= 0.01
        print(f"shares of the lengths: {counts.round(2)}")
    scores = [np.asarray(scores) for each in found for scores in each.scores]
    closest = min(np.min(-np.diff(each) / np.abs(each[1:])) for each in scores)
    print(f"the nearest two answers differ by {closest:.1e} of their scores")
    assert closest > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("n", range(len(CONFIGS)))
def test_mixtures_of_passages_are_searched_as_naively(n):
    """RAG-Token over three passages."""
    marginalised.assert_same_answers(marginalised.Case(CONFIGS[n], 1000 + n), "token", num_beams=1 + n % 3)


LEAST = {"rope": 3, "kv_heads": 3, "width": 2, "decoder_layers": 2, "head_width": 2, "norm_eps": 2, "tied_head": 2}
LEAST |= {"prefill_chunk": 2}


@pytest.mark.parametrize("family", families.SIZES["model_type"])
def test_a_family_is_drawn_with_all_that_it_may_have(family):
    own = [config for config in CONFIGS if isinstance(config, DecoderConfig) and config.model_type == family]
    has_choice = {"qkv_bias": 2} if family in ("llama", "qwen3") else {}
    for name, least in (LEAST | has_choice).items():
        assert len({getattr(config, name) for config in own}) >= least, name
    if family != "llama":
        windows = {config.window for config in own}
        assert windows & {2, 5}, "shorter than inputs"
        assert LONGEST + 4 in windows, "reached by answers"
        assert windows & {None, 40}, "longer than both"


def test_there_are_two_hundred_networks_and_t5_is_drawn_gated_or_not_and_tied_or_not():
    assert len(set(CASES)) == len(CASES) == 200
    kinds = {(config.gated, config.tied_head) for config in CONFIGS if isinstance(config, T5Config)}
    assert len(kinds) == 4
