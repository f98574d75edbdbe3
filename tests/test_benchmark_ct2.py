"""CTranslate2 as an opponent: its networks and its searches are ours, and of them RAG-Sequence makes the same answers.

The vocabulary is so small that answers end at any length, and that passages propose the same ones.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import ours, union, weights
from benchmarks.cases import END, GENERATOR, START, Case, Sizes
from rag_jax.core.decode import beam, language_model, trie
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import RagParams, Tokens, Tower

SIZES = Sizes(tower_layers=2, tower_width=64, layers=2, width=64, vocabulary=12)
CASE = Case("fast", questions=3, docs=4, beams=3, target=5, inputs=6)
LIMITS = GenerationLimits((START,), END, CASE.target)
# As CTranslate2, which stops when W answers have ended.
SEARCH = partial(beam.search, num_beams=CASE.beams, early_stopping=True)
ANSWERS = [(4, 5, END), (4, 5, 6, 7, 8), (END,), (9, 9, 9, 9, END)]  # one is cut off, without an end


class World(NamedTuple):
    """The same networks on both sides, and inputs."""

    tower: Tower
    params: RagParams
    reader: EncodedInputs
    arrays: dict[str, np.ndarray]
    ct2: Any
    encoder: Any
    translator: Any
    program: Any  # Case -> our compiled program


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("ctranslate2", reason="the opponent")
    from benchmarks import ct2

    folder: Path = tmp_path_factory.mktemp("weights")
    weights.save(SIZES, folder, gain=2.0)
    path = folder / GENERATOR / "model.safetensors"
    tensors = load_file(path)
    tensors["model.shared.weight"] *= 4  # some tokens are much likelier than others,
    tensors["final_logits_bias"][:, END] += 1  # the end token among them
    save_file(tensors, path, {"format": "pt"})
    tower, generator, params = ours.load(folder, jnp.float32)
    arrays = CASE.arrays(SIZES)
    memory = generator.encode(params.generator, ours.full(jnp.asarray(arrays["passages"], jnp.int32)))
    reader = EncodedInputs(generator, params.generator, memory)

    def program(case: Case):
        decoder = partial(ours.DECODERS[case.decoder], search=SEARCH, limits=LIMITS)
        return ours.answering(tower, generator, decoder)

    return World(tower, params, reader, arrays, ct2, *ct2.load(folder, "float32"), program)


def no_tokens(rows: int) -> Tokens:
    return Tokens(jnp.zeros((rows, 0), jnp.int32), jnp.zeros(rows, jnp.int32))


@pytest.mark.extended
def test_questions_have_the_same_vectors(both: World) -> None:
    questions = both.arrays["question"]
    expected = both.tower(both.params.question_tower, ours.full(jnp.asarray(questions, jnp.int32)))
    np.testing.assert_allclose(both.ct2.encode(both.encoder, questions), expected, atol=1e-5)


@pytest.mark.extended
def test_every_passage_proposes_the_same_answers(both: World) -> None:
    rows = len(both.arrays["passages"])
    found = SEARCH(language_model.per_passage(both.reader, no_tokens(rows), LIMITS), LIMITS)
    texts = [list(map(str, row)) for row in both.arrays["passages"].tolist()]
    told = both.ct2.search(both.translator, texts, CASE)
    lengths = set()
    for row, answers in enumerate(told):
        ids, mask = np.asarray(found.tokens.ids[row]), np.asarray(found.tokens.mask[row])
        expected = [tuple(ids[w, mask[w]].tolist()) for w in range(CASE.beams)]
        assert list(answers) == expected
        counts = np.asarray([len(answer) for answer in expected])
        np.testing.assert_allclose(list(answers.values()), np.asarray(found.scores[row]) * counts, rtol=1e-5)
        lengths |= {*counts.tolist()}
    assert len(lengths) > 2, "answers end at several lengths"


@pytest.mark.extended
def test_answers_have_the_same_log_probabilities(both: World) -> None:
    questions, docs = CASE.questions, CASE.docs
    ids = np.full((questions, len(ANSWERS), CASE.target), END, np.int32)
    for number, answer in enumerate(ANSWERS):
        ids[:, number, : len(answer)] = answer
    counts = jnp.asarray([list(map(len, ANSWERS))] * questions, jnp.int32)
    answers, asked = Tokens(jnp.asarray(ids), counts), jnp.ones((questions, len(ANSWERS), docs), bool)
    expected = trie.score_answers(both.reader, no_tokens(questions), answers, asked, LIMITS)
    expected = jnp.sum(jnp.where(answers.mask[:, :, None], expected, 0.0), axis=3)
    texts = [list(map(str, row)) for row in both.arrays["passages"].tolist()]
    pairs = [(texts[b * docs + k], answer) for b in range(questions) for answer in ANSWERS for k in range(docs)]
    told = np.reshape(both.ct2.score(both.translator, pairs), expected.shape)
    np.testing.assert_allclose(told, expected, rtol=1e-5)


@pytest.mark.extended
@pytest.mark.parametrize("decoder", ["fast", "thorough"])
def test_rag_sequence_has_the_same_answers(decoder: str, both: World) -> None:
    case = replace(CASE, decoder=decoder)
    kinds = {"question": jnp.int32, "passages": jnp.int32, "vectors": jnp.float32}
    given = {name: jnp.asarray(array, kinds[name]) for name, array in both.arrays.items()}
    tokens, mask, log_probs = jax.device_get(both.program(case)(both.params, **given))
    queries = both.ct2.encode(both.encoder, both.arrays["question"])
    scores = np.einsum("bd,bkd->bk", queries, both.arrays["vectors"])
    prior = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    told = both.ct2.rag_sequence(both.translator, prior, both.arrays["passages"], case)
    assert [list(answer) for answer, _ in told] == [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
    np.testing.assert_allclose([log_prob for _, log_prob in told], log_probs, rtol=1e-5)


def test_a_union_is_scored_as_rag_sequence_is_defined() -> None:
    prior = np.log([0.5, 0.3, 0.2])
    proposals = [{(4, 2): math.log(0.3), (5, 2): math.log(0.2)}, {(5, 2): math.log(0.4)}, {(6, 2): math.log(0.7)}]
    scores = union.union(proposals)
    assert list(scores) == [(4, 2), (5, 2), (6, 2)]
    answer, log_prob = union.best(prior, scores)
    assert answer == (5, 2)
    assert math.exp(log_prob) == pytest.approx(0.5 * 0.2 + 0.3 * 0.4)
    assert union.missing(scores, 3) == [((4, 2), 1), ((4, 2), 2), ((5, 2), 2), ((6, 2), 0), ((6, 2), 1)]
    for asked, z in union.missing(scores, 3):
        scores[asked][z] = math.log(0.25 if asked == (4, 2) else 0.01)
    answer, log_prob = union.best(prior, scores)
    assert answer == (4, 2)
    assert math.exp(log_prob) == pytest.approx(0.5 * 0.3 + (0.3 + 0.2) * 0.25)


def test_what_is_converted_to_int8_is_left_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2", reason="the opponent")
    from benchmarks.ct2_models import convert_bart

    weights.save(SIZES, tmp_path)
    stored = load_file(tmp_path / GENERATOR / "model.safetensors")
    before = {name: tensor.copy() for name, tensor in stored.items()}
    config = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 1}
    convert_bart(stored, config, tmp_path / "int8", "int8")
    assert all(np.array_equal(tensor, before[name]) for name, tensor in stored.items())
